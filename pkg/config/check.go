package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/hint"
)

// checkConfig finds the values and combinations of values that make no sense.
func (ps *parser) checkConfig(c *Config, mode fs.FileMode) {
	ps.checkSettings(c)
	ps.checkAsterisks(c.Asterisk, mode, c.Fleet.Enabled())
	ps.checkPolicy(&c.Policy)
	ps.checkGeo(&c.Geo, &c.Policy)
	ps.checkFirewall(&c.Firewall)
	ps.checkMetrics(&c.Metrics)
	ps.checkHEP(&c.Sensors.HEP)
	ps.checkLists(c.Lists)
	ps.checkExport(&c.Export)
	ps.checkCrowdSec(&c.CrowdSec)
	ps.checkFleet(&c.Fleet)
	ps.checkNotify(c.Notify, c.Asterisk, mode)
}

// checkPolicy checks which values go together.
func (ps *parser) checkPolicy(p *Policy) {
	ps.checkPoints(p)
	ps.checkBanTimes(&p.Ban)
	if p.Trust.TTL == 0 && !ps.failed["policy.trust.ttl"] {
		ps.warn("policy.trust.ttl", "no login is trusted: one wrong phone can ban its whole office",
			detail{hint: "24h"})
	}
	if p.IPv6Prefix > 64 && !ps.failed["policy.ipv6_prefix"] {
		ps.warn("policy.ipv6_prefix", "an attacker can use a new address of his /64 for each attempt",
			detail{hint: "64"})
	}
	if p.Services["SIP"] == Enforce {
		ps.warn("policy.services.SIP", "an attacker chooses which address chan_sip reports, and so whom Ringwall bans",
			detail{hint: "observe"})
	}
	ps.checkLimits(p)
}

func (ps *parser) checkPoints(p *Policy) {
	all := []struct {
		key   string
		value float64
	}{
		{"unknown_account", p.Points.UnknownAccount}, {"wrong_password", p.Points.WrongPassword}, {"acl", p.Points.ACL},
		{"unanswered_challenge", p.Points.UnansweredChallenge}, {"manager", p.Points.Manager},
		{"honeypot", p.Points.Honeypot}, {"silent_guess", p.Points.SilentGuess}, {"probing", p.Points.Probing},
		{"scanner", p.Points.Scanner}, {"malformed_sip", p.Points.MalformedSIP}, {"iax", p.Points.IAX},
		{"http", p.Points.HTTP}, {"dialplan", p.Points.Dialplan},
	}
	hostile := []string{"honeypot", "silent_guess", "scanner"} // no customer does that
	sum := 0.0
	for _, point := range all {
		path := "policy.points." + point.key
		sum += point.value
		if !slices.Contains(hostile, point.key) && point.value >= p.Threshold && ps.isGiven(path) &&
			!ps.failed["policy.threshold"] {
			ps.warn(path, "a single event reaches the threshold, a customer's mistake too",
				detail{value: ps.shownValue(path), hint: "less than policy.threshold"})
		}
	}
	if sum == 0 {
		ps.warn("policy.points", "every kind of evidence is ignored, so nobody is ever banned",
			detail{hint: "remove the zeros"})
	}
}

func (ps *parser) checkHoneypots(list string, names []string) {
	for i, name := range names {
		path := fmt.Sprintf("%s[%d]", list, i)
		d := detail{value: ps.shownValue(path)}
		switch {
		case ps.failed[path]:
		case name == "":
			d.hint = "remove it"
			ps.fail(path, "an empty account name", d)
		case name == "<unknown>":
			d.hint = "remove it"
			ps.fail(path, "Asterisk calls every account <unknown> before it has logged in, those of your phones too", d)
		case !isPrintable(name, 36): // PJSIP cuts AccountID there
			d.allowed = "1 to 36 bytes on one line; Asterisk reports no more of a name"
			ps.fail(path, "can never match an account", d)
		}
	}
	failDuplicates(ps, list, names, ps.warn)
}

// checkProxies refuses names of hosts: who they are is asked once a minute, and a proxy must not be banned meanwhile.
func (ps *parser) checkProxies(list string, entries []AllowEntry) {
	for i, entry := range entries {
		if entry.Host != "" {
			path := fmt.Sprintf("%s[%d]", list, i)
			ps.fail(path, "a name of a host", detail{value: ps.shownValue(path), allowed: "addresses and networks",
				hint: "policy.allow, which takes names"})
		}
	}
	failDuplicates(ps, list, entries, ps.warn)
}

func (ps *parser) checkBanTimes(b *Ban) {
	if b.First > b.Max && !ps.failed["policy.ban.first"] && !ps.failed["policy.ban.max"] {
		key := "policy.ban.max"
		if !ps.isGiven(key) {
			key = "policy.ban.first"
		}
		ps.fail(key, fmt.Sprintf("first (%s) is longer than max (%s)", formatBound(b.First), formatBound(b.Max)),
			detail{hint: "max: " + formatBound(b.First)})
	}
}

func (ps *parser) decodeRegexp(text, path string, target **regexp.Regexp) {
	if text == "" {
		*target = nil
		return
	}
	d := detail{value: ps.quoteUnlessSecret(text), allowed: "a regular expression of Go (RE2)", hint: "^[a-z0-9]{8}$"}
	if len(text) > 1000 {
		ps.fail(path, "longer than 1000 bytes", d)
		return
	}
	re, err := regexp.Compile(text)
	if err != nil {
		what := "not a regular expression"
		if bad := (*syntax.Error)(nil); errors.As(err, &bad) {
			what = "not a regular expression, " + bad.Code.String()
			if i := strings.Index(text, bad.Expr); i >= 0 && bad.Expr != "" {
				what += fmt.Sprintf(" at character %d", utf8.RuneCountInString(text[:i])+1)
			}
		}
		ps.fail(path, what, d)
		return
	}
	*target = re
}

// checkTableName checks a name for the kernel's table.
func (ps *parser) checkTableName(path, name string) {
	wrong := detail{value: ps.shownValue(path)}
	switch {
	case !isTableName(name):
		wrong.allowed = "a letter or _, then up to 63 letters, digits, _ or -"
		ps.fail(path, "not a name for an nftables table", wrong)
	case slices.Contains([]string{"filter", "nat", "mangle", "raw", "security", "firewalld", "fw4", "f2b-table",
		"crowdsec",
		"crowdsec6"}, name):
		wrong.hint = "ringwall"
		ps.fail(path, "another program's table, which Ringwall would overwrite", wrong)
	}
}

// checkFirewall checks which values go together.
func (ps *parser) checkFirewall(w *Firewall) {
	if len(w.Ports.UDP)+len(w.Ports.TCP) == 0 && w.Scope == ScopeVoIP &&
		!ps.failed["firewall.ports"] && !ps.failed["firewall.ports.udp"] && !ps.failed["firewall.ports.tcp"] {
		ps.fail("firewall.ports", "no port at all, so a ban would stop nothing",
			detail{hint: "remove it for the default, or scope: all"})
	}
	if i := slices.Index(w.Ports.TCP, 22); i >= 0 && w.Scope == ScopeVoIP {
		ps.warn(fmt.Sprintf("firewall.ports.tcp[%d]", i), "a ban also closes SSH, perhaps your own",
			detail{hint: "the ports of telephony alone"})
	}
}

// portList allows ports, each once.
func portList() rule {
	r := checkedBy(func(ps *parser, path string, ports []uint16) {
		for i, port := range ports {
			if at := fmt.Sprintf("%s[%d]", path, i); port == 0 && !ps.failed[at] {
				ps.fail(at, "out of range", detail{value: ps.shownValue(at), allowed: boundsAt(at)})
			}
		}
		failDuplicates(ps, path, ports, ps.fail)
	})
	r.least, r.most = "1", "65535"
	return r
}

// checkLimits checks how many bans and sources go together.
func (ps *parser) checkLimits(p *Policy) {
	if key := "policy.limits.forgeable_bans"; p.Limits.ForgeableBans > p.Limits.Bans && !ps.failed[key] &&
		!ps.failed["policy.limits.bans"] {
		if !ps.isGiven(key) {
			p.Limits.ForgeableBans = p.Limits.Bans / 2 // the default is a half, and the file speaks of bans alone
		} else {
			ps.fail(key, fmt.Sprintf("more than all bans (%d)", p.Limits.Bans),
				detail{value: ps.shownValue(key), hint: formatInt(p.Limits.Bans / 2)})
		}
	}
	if key := "policy.max_sources"; p.MaxSources <= p.Limits.ForgeableBans && !ps.failed[key] &&
		!ps.failed["policy.limits.forgeable_bans"] {
		if !ps.isGiven("policy.limits.forgeable_bans") {
			p.Limits.ForgeableBans = p.MaxSources / 2 // as the defaults are, and the file speaks of sources alone
			return
		}
		ps.warn(key, fmt.Sprintf("%d sources are no more than the %d bans that forged packets may make "+
			"(policy.limits.forgeable_bans): while they last, little is remembered of anybody "+
			"else", p.MaxSources, p.Limits.ForgeableBans),
			detail{value: ps.shownValue(key), hint: fmt.Sprintf("policy.limits.forgeable_bans: %d", p.MaxSources/2)})
	}
}

// listenAddress is the host, and the whole of it, of a key that says where to listen; not ok where that is nowhere,
// which "" is, or a mistake.
func (ps *parser) listenAddress(key, text, nowhere, example string) (host, address string, ok bool) {
	if text == "" || ps.failed[key] {
		return "", "", false
	}
	if host, address, ok = hostPort(text, ""); !ok {
		ps.fail(key, "not an address to listen on",
			detail{value: ps.shownValue(key), allowed: `HOST:PORT, or "" for ` + nowhere, hint: example})
	}
	return host, address, ok
}

// checkMetrics checks the listener, and gives it its whole address.
func (ps *parser) checkMetrics(m *Metrics) {
	const key = "metrics.listen"
	host, address, ok := ps.listenAddress(key, m.Listen, "off", "127.0.0.1:9646")
	switch {
	case !ok:
		return
	case !isLoopback(host) && m.Page:
		ps.warn(key, "other machines can read the metrics, and the status page with its addresses and account names, "+
			"without a password",
			detail{value: ps.shownValue(key), hint: "127.0.0.1:9646, or metrics.page: false"})
	case !isLoopback(host):
		ps.warn(key, "other machines can read the metrics, without a password",
			detail{value: ps.shownValue(key), hint: "127.0.0.1:9646"})
	}
	m.Listen = address
}

// checkHEP checks where copies of messages come in, and gives the listener its whole address. Anybody could send some:
// where other machines can, they need a password.
func (ps *parser) checkHEP(h *HEP) {
	const listen, file, forward = "sensors.hep.listen", "sensors.hep.password_file", "sensors.hep.forward"
	if h.Forward != "" && !ps.failed[forward] {
		if _, address, ok := hostPort(h.Forward, "9060"); ok {
			h.Forward = address
		} else {
			ps.fail(forward, "not an address to send to", detail{value: ps.shownValue(forward),
				allowed: `HOST:PORT, or "" for none`, hint: "192.0.2.1:9060"})
		}
	}
	if h.PasswordFile != "" && !ps.failed[file] && !ps.env.WithoutSecrets {
		h.Password = ps.secretFile(file, h.PasswordFile, false)
	}
	if h.Listen == "" || ps.failed[listen] {
		return
	}
	host, address, ok := hostPort(h.Listen, "9061")
	switch at, err := netip.ParseAddrPort(address); {
	case !ok || err != nil || at.Port() == 0:
		ps.fail(listen, "not an address to listen on",
			detail{value: ps.shownValue(listen), allowed: `ADDRESS:PORT, or "" for off`, hint: "127.0.0.1:9061"})
		return
	case !isLoopback(host) && h.PasswordFile == "":
		ps.fail(listen, "other machines could tell of attacks that were none", detail{value: ps.shownValue(listen),
			allowed: "an address of loopback, or password_file, with the same as capture_password in hep.conf",
			hint:    "127.0.0.1:9061"})
	}
	h.Listen = address
}

// checkSignatureFiles checks paths of lists.
func (ps *parser) checkSignatureFiles(list string, names []string) {
	for i, name := range names {
		ps.checkAbsolutePath(fmt.Sprintf("%s[%d]", list, i), name)
	}
	failDuplicates(ps, list, names, ps.warn)
}

// checkWholePathOrNone checks a path that may be left out.
func (ps *parser) checkWholePathOrNone(key, path string) {
	if path != "" {
		ps.checkAbsolutePath(key, path)
	}
}

// checkSocketPath checks a path for a socket, for which unix(7) has 108 bytes (sun_path), the last a zero.
func (ps *parser) checkSocketPath(key, path string) {
	if ps.checkAbsolutePath(key, path) && len(path) > 107 {
		ps.fail(key, "longer than the kernel allows for a socket",
			detail{value: ps.shownValue(key), allowed: "up to 107 bytes"})
	}
}

// checkGroup checks the name of a group of users, which may be none.
func (ps *parser) checkGroup(key, name string) {
	if !isPrintable(name, 32) && name != "" || strings.ContainsAny(name, " :/,") {
		ps.fail(key, "not a group", detail{value: ps.shownValue(key),
			allowed: `the name of a group, or "" for the daemon's own`})
	}
}

// checkWholePath checks a path that must be there.
func (ps *parser) checkWholePath(key, path string) { ps.checkAbsolutePath(key, path) }

// checkAbsolutePath says whether a path is one that does not depend on where the daemon was started.
func (ps *parser) checkAbsolutePath(key, path string) bool {
	if ps.failed[key] {
		return false
	}
	if !filepath.IsAbs(path) || !isPrintable(path, 4095) || strings.HasSuffix(path, "/") {
		ps.fail(key, "not a file's whole path", detail{value: ps.shownValue(key), allowed: "a path that begins with /"})
		return false
	}
	return true
}

// checkOneOf checks a value of which there are only a few.
func (ps *parser) checkOneOf(path, value string, allowed []string) {
	if ps.failed[path] || slices.Contains(allowed, value) {
		return
	}
	d := detail{value: ps.shownValue(path), allowed: strings.Join(allowed, ", "), hint: hint.Nearest(value, allowed)}
	if on, ok := parseBool(value); d.hint == "" && ok {
		switch {
		case !on && slices.Contains(allowed, "off"):
			d.hint = "off"
		case !on && slices.Contains(allowed, string(Observe)):
			d.hint = string(Observe)
		case on && slices.Contains(allowed, string(Enforce)):
			d.hint = string(Enforce)
		}
	}
	ps.fail(path, "not one of the values", d)
}

// boundsAt are the bounds of the number at a path, of an entry of a list too.
func boundsAt(path string) string {
	for strings.HasSuffix(path, "]") {
		path = path[:strings.LastIndexByte(path, '[')]
	}
	return settingsByPath()[path].allowed.boundsText()
}

// failDuplicates reports entries that a list holds twice.
func failDuplicates[T comparable](ps *parser, path string, list []T, report func(path, what string, d detail)) {
	seen := make(map[T]bool, len(list))
	var none T
	for i, entry := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if seen[entry] && entry != none && !ps.failed[at] {
			report(at, "given twice", detail{value: ps.shownValue(at), hint: "remove one of them"})
		}
		seen[entry] = true
	}
}

// isPrintable says whether text is one line of 1 to limit bytes that a terminal shows as it is.
func isPrintable(text string, limit int) bool {
	return text != "" && len(text) <= limit && utf8.ValidString(text) &&
		!strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) })
}

// isTableName says whether nft can read the name (the rule "string" in nftables' src/scanner.l, more narrowly).
func isTableName(name string) bool {
	if name == "" || len(name) > 64 || name[0] == '-' || name[0] >= '0' && name[0] <= '9' {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if c != '_' && c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}
