package security

import (
	"math/bits"
	"net/netip"
	"strings"
)

// decodeUsual reads the first headers in one pass if they are what most frames have, and stops at the line after them. It
// returns how many headers of the event's order it has read; what it refuses may be right.
func decodeUsual(l *lines, ev *Event, m *memory) int {
	rest, ok := decodeUsualHead(l.rest, ev, m)
	if !ok {
		return 0
	}
	n := usualHead
	more := true
	if ev.Type != RequestBadFormat { // its account comes last
		if after, follows, ok := decodeUsualBody(rest, ev, m); ok {
			n, rest, more = usualHead+usualBody, after, follows
		}
	}
	l.n += 1 + n // Privilege
	l.rest, l.more = rest, more
	l.next()
	return n
}

// usualHead is how many headers decodeUsualHead reads; all events begin with the same.
const usualHead = 4

// decodeUsualHead reads from Privilege to EventVersion: no preamble, a usual service and version 1 or 2. Else it leaves
// the event as it was.
func decodeUsualHead(s string, ev *Event, m *memory) (rest string, ok bool) {
	const (
		privilege = "Privilege: security,all\r\nEventTV: "
		timeLen   = len("2026-11-22T21:50:35.258+0000")
		version   = "\r\nEventVersion: "
	)
	if len(s) < len(privilege)+timeLen || s[:len(privilege)] != privilege {
		return "", false
	}
	t, ok := m.time(s[len(privilege) : len(privilege)+timeLen])
	if !ok {
		return "", false
	}
	s = s[len(privilege)+timeLen:]
	if rest, ok := strings.CutPrefix(s, "\r\nSeverity: Error\r\nService: "); ok {
		s = rest
	} else if rest, ok := strings.CutPrefix(s, "\r\nSeverity: Informational\r\nService: "); ok {
		s = rest
	} else {
		return "", false
	}
	service := OtherService
	if rest, ok := strings.CutPrefix(s, "PJSIP"); ok {
		s, service = rest, PJSIP
	} else if rest, ok := strings.CutPrefix(s, "AMI"); ok {
		s, service = rest, AMI
	} else if rest, ok := strings.CutPrefix(s, "SIP"); ok {
		s, service = rest, SIP
	} else {
		return "", false
	}
	if len(s) < len(version)+3 || s[:len(version)] != version {
		return "", false
	}
	if c := s[len(version)]; c != '1' && c != '2' || s[len(version)+1:len(version)+3] != "\r\n" {
		return "", false
	}
	ev.Time, ev.Service = t, service
	return s[len(version)+3:], true
}

// usualBody is how many headers decodeUsualBody reads.
const usualBody = 4

// decodeUsualBody reads from AccountID to RemoteAddress, where the texts are printable ASCII and the addresses IPv4 with a
// transport, and says whether another line follows. Else it leaves the event as it was.
func decodeUsualBody(s string, ev *Event, m *memory) (rest string, more, ok bool) {
	account, s, ok := cutPlain(s, "AccountID: ")
	if !ok {
		return "", false, false
	}
	session, s, ok := cutPlain(s, "SessionID: ")
	if !ok {
		return "", false, false
	}
	local, s, ok := m.local(s)
	if !ok {
		return "", false, false
	}
	remote, s, ok := cutUsualAddress(s, "RemoteAddress: IPV4/")
	if !ok || s != "" && !strings.HasPrefix(s, "\r\n") {
		return "", false, false
	}
	ev.Account, ev.Session, ev.Local, ev.Remote = account, session, local, remote
	if s == "" {
		return "", false, true
	}
	return s[2:], true, true
}

// cutPlain cuts a header with a value of printable ASCII, and the end of its line, off s.
func cutPlain(s, header string) (value, rest string, ok bool) {
	if len(s) < len(header) || s[:len(header)] != header {
		return "", s, false
	}
	s = s[len(header):]
	i := plain(s)
	if len(s)-i < 2 || s[i] != '\r' || s[i+1] != '\n' {
		return "", s, false
	}
	return s[:i], s[i+2:], true
}

// plain returns how many bytes of printable ASCII s begins with.
func plain(s string) int {
	i := 0
	for ; i+8 <= len(s); i += 8 {
		if odd := unprintable(eight(s, i)); odd != 0 {
			return i + bits.TrailingZeros64(odd)/8
		}
	}
	for i < len(s) && s[i] >= ' ' && s[i] < 0x7f {
		i++
	}
	return i
}

// cutUsualAddress cuts a header, a transport, an IPv4 address and a port off s.
func cutUsualAddress(s, header string) (a Address, rest string, ok bool) {
	if len(s) < len(header)+4 || s[:len(header)] != header {
		return a, s, false
	}
	s = s[len(header):]
	switch s[:4] {
	case "UDP/":
		a.Transport, s = UDP, s[4:]
	case "TCP/":
		a.Transport, s = TCP, s[4:]
	case "TLS/":
		a.Transport, s = TLS, s[4:]
	default:
		return a, s, false
	}
	ip, s, ok := cutIPv4(s)
	if !ok {
		return a, s, false
	}
	i := 0
	for i < len(s) && s[i]-'0' <= 9 {
		i++
	}
	port, ok := parsePort(s[:i])
	a.AddrPort = netip.AddrPortFrom(ip, port)
	return a, s[i:], ok
}
