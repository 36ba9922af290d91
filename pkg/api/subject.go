package api

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/hosts"
	"github.com/ringwall/ringwall/pkg/printable"
)

// MaxAccount is the longest account that is asked for, in bytes; PJSIP sends 36 at most, and Asterisk's own limit is
// 80.
const MaxAccount = 80

// A Subject is what a person asks about. One of its fields is set.
type Subject struct {
	Addr    netip.Addr
	Host    string // a name, to be looked up by whoever asks
	Account string
}

// ParseSubject reads what people copy from Asterisk's log, from a phone or from memory: an address with or without a
// port, a host name, an extension or a SIP URI. Its errors are [*Error]s with [ErrInvalid].
func ParseSubject(s string) (Subject, error) {
	s = strings.TrimSpace(s)
	for _, scheme := range []string{"sip:", "sips:", "tel:", "pjsip/", "sip/", "iax2/"} {
		if len(s) > len(scheme) && strings.EqualFold(s[:len(scheme)], scheme) {
			s, _, _ = strings.Cut(s[len(scheme):], ";") // parameters of a URI
			break
		}
	}
	if user, _, ok := strings.Cut(s, "@"); ok && user != "" {
		return accountSubject(user)
	}
	addr, err := ParseAddr(s)
	if err == nil {
		return Subject{Addr: addr}, nil
	}
	if bare, ok := bareAddress(s); ok {
		if addr, err := ParseAddr(bare); err == nil {
			return Subject{Addr: addr}, nil
		}
		return Subject{}, err
	}
	host, port, _ := strings.Cut(s, ":")
	if _, e := strconv.ParseUint(port, 10, 16); port != "" && e != nil {
		return Subject{}, err // neither an address nor a name with a port
	}
	switch {
	case s == "" || strings.Contains(s, "/") || addr.IsValid():
		return Subject{}, err
	case strings.Contains(host, ".") && isNumeric(host):
		return Subject{}, err // an address with a slip
	case strings.Contains(host, ".") && hosts.ValidName(host):
		return Subject{Host: strings.ToLower(strings.TrimSuffix(host, "."))}, nil
	case port != "":
		return Subject{}, err
	}
	return accountSubject(s)
}

// bareAddress takes off what stands around an address: brackets, a port, the length of a single address.
func bareAddress(s string) (string, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().String(), true
	}
	if p, err := netip.ParsePrefix(s); err == nil && p.IsSingleIP() {
		return p.Addr().String(), true
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner = strings.TrimSuffix(inner, "]")
		return inner, net.ParseIP(inner) != nil
	}
	return "", false
}

func isNumeric(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
}

// accountSubject takes what people have for an account; what else a scanner puts into a user name, nobody asks about
// by hand.
func accountSubject(s string) (Subject, error) {
	odd := func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_.+*#~$&=,'", r)
	}
	if utf8.ValidString(s) && strings.ContainsFunc(s, odd) {
		return Subject{}, Invalid("an address such as 203.0.113.5, a host name, or an extension such as 201",
			"%s is neither an address, nor a host name, nor an extension", printable.Quote(s))
	}
	name, err := parseAccount(s)
	return Subject{Account: name}, err
}

func parseAccount(s string) (string, error) {
	switch {
	case s == "":
		return "", Invalid("an extension such as 201", "the account is empty")
	case len(s) > MaxAccount:
		return "", Invalid("", "an account has at most %d bytes", MaxAccount)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return "", Invalid("an extension such as 201", "%s holds control characters", printable.Quote(s))
	}
	return s, nil
}
