package setup

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"strings"

	"github.com/ringwall/ringwall/pkg/asterisk/managerconf"
)

// The lines around what is appended to a file of somebody else.
const (
	beginMark = "; Ringwall begins (ringwall setup; to take it away: ringwall setup --undo)"
	endMark   = "; Ringwall ends"
)

// The lines around what is put into Ringwall's own configuration.
const (
	trustBegin = "  # ringwall setup begins (for Wazo: lines there have names that nobody guesses; only these earn " +
		"trust)"
	trustEnd = "  # ringwall setup ends"
)

// marksOf are the lines around what was put into a file.
func marksOf(file string) (begin, end string) {
	if path.Ext(file) == ".conf" {
		return beginMark, endMark
	}
	return trustBegin, trustEnd
}

// block is what includes a file, which may be missing: a plain #include of a missing file has Asterisk refuse all of
// manager.conf.
func block(file string) string {
	return beginMark + "\n#tryinclude \"" + path.Base(file) + "\"\n" + endMark + "\n"
}

// wazoAccounts are names as Wazo gives them to its phones.
const wazoAccounts = "^[a-z0-9]{8}$"

// managerUser is the file of the user.
func (p *Plan) managerUser() string {
	general := ""
	if !p.enabled() {
		// Sections of a name are one only with (+), and that must not be the first of them (main/config.c).
		general = "[general]"
		if _, ok := p.manager.Section(managerconf.General); ok {
			general = "[general](+)"
		}
	}
	return p.managerUserText(p.secret, general)
}

// managerUserForms are all that this file may be.
func (p *Plan) managerUserForms(secret string) []string {
	return []string{p.managerUserText(secret, ""), p.managerUserText(secret, "[general]"),
		p.managerUserText(secret, "[general](+)")}
}

// managerUserText is the file, with a section that turns the Manager Interface on, unless general is empty.
func (p *Plan) managerUserText(secret, general string) string {
	var b strings.Builder
	b.WriteString("; Written by ringwall setup; to take it away: ringwall setup --undo\n" +
		"; After a change: asterisk -rx 'manager reload'\n")
	if general != "" {
		fmt.Fprintf(&b, "\n; The Manager Interface was off. It is for this machine alone.\n%s\nenabled = yes\n"+
			"bindaddr = 127.0.0.1\nwebenabled = no\n\n", general)
	}
	permit := "127.0.0.1/255.255.255.255"
	if host, _, err := net.SplitHostPort(p.Address); err == nil {
		if a, err := netip.ParseAddr(host); err == nil && a.String() != "127.0.0.1" {
			permit += fmt.Sprintf("\npermit = %s/%d", a, a.BitLen())
		}
	}
	fmt.Fprintf(&b, "[%s]\nsecret = %s\nread = security\nwrite =\ndeny = 0.0.0.0/0.0.0.0\npermit = %s\n"+
		"; In milliseconds: with Asterisk's 100 it cuts a reader off in a flood.\nwritetimeout = 5000\n", p.User,
		secret, permit)
	return b.String()
}

// configuration is a ringwall.yaml, where no package has brought one.
func configuration(f Flavour, address, secretFile string) string {
	text := fmt.Sprintf(`# Ringwall's configuration, written by: ringwall setup
# What is not here has a default that suits most: man ringwall.yaml. After a change: systemctl reload ringwall

asterisk:
  - address: %q
    username: ringwall
    secret_file: %q

policy:
  # observe says whom it would ban, and bans nobody. Look for a day (ringwall history), then write: enforce
  mode: observe
`, address, secretFile)
	if f == Wazo {
		text += "  # Wazo's phones have names that nobody guesses: only such a login earns trust.\n  trust:\n    " +
			"match: \"" +
			wazoAccounts + "\"\n"
	}
	return text + `
  # Addresses, networks and host names that are never banned: your office, your providers.
  allow: []
`
}
