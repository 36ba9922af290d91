package learn

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/pkg/hosts"
)

const maxURI = 1024 // bytes; pjsip's own bound is 512 by default

// A target is where a SIP URI leads: an address or a name.
type target struct {
	addr netip.Addr
	port uint16 // 0 where none is named, or the host is a name
	name string
}

// parseURI returns the host of a sip: or sips: URI (RFC 3261, section 19.1). It is strict: what could be read in two
// ways is refused, and so is a maddr parameter, which sends requests elsewhere.
func parseURI(s string) (target, bool) {
	if len(s) > maxURI || !isVisibleASCII(s) {
		return target{}, false
	}
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || !strings.EqualFold(scheme, "sip") && !strings.EqualFold(scheme, "sips") ||
		strings.ContainsAny(rest, `<>"\,`) {
		return target{}, false
	}
	if user, after, ok := strings.Cut(rest, "@"); ok {
		if user == "" || strings.Contains(after, "@") || strings.ContainsAny(user, "[]") {
			return target{}, false
		}
		rest = after
	}
	hostport := rest
	if i := strings.IndexAny(rest, ";?"); i >= 0 {
		hostport = rest[:i]
		for part := range strings.FieldsFuncSeq(rest[i:],
			func(r rune) bool { return r == ';' || r == '?' || r == '&' }) {
			// An escape can spell maddr too.
			if name, _, _ := strings.Cut(part, "="); strings.EqualFold(name, "maddr") || strings.Contains(name, "%") {
				return target{}, false
			}
		}
	}
	return parseHostPort(hostport)
}

// parseHostPort reads host, host:port, [IPv6] and [IPv6]:port.
func parseHostPort(s string) (target, bool) {
	var host, port string
	var hasPort bool
	if inside, ok := strings.CutPrefix(s, "["); ok {
		if host, port, ok = strings.Cut(inside, "]"); !ok || !strings.Contains(host, ":") {
			return target{}, false
		}
		if port != "" {
			if port, hasPort = strings.CutPrefix(port, ":"); !hasPort {
				return target{}, false
			}
		}
	} else {
		host, port, hasPort = strings.Cut(s, ":")
	}
	var number uint16
	if hasPort {
		if number = parsePort(port); number == 0 {
			return target{}, false
		}
	}
	if a, ok := parseAddr(host); ok {
		return target{addr: a, port: number}, true
	}
	if strings.Contains(host, ":") {
		return target{}, false
	}
	name, ok := hosts.NormalizeName(host)
	return target{name: name}, ok
}

// parsePort returns 0 for what is no port. A sign is none, which strconv would take.
func parsePort(s string) uint16 {
	if strings.Trim(s, "0123456789") != "" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || len(s) > 5 {
		return 0
	}
	return uint16(n)
}

// parseAddr refuses zones, and unmaps IPv4 in IPv6.
func parseAddr(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// isVisibleASCII reports whether s is visible ASCII.
func isVisibleASCII(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// isUsable reports whether an address can be a stranger's source at all.
func isUsable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// isPrivate reports whether an address is one of a private network or of a carrier's NAT.
func isPrivate(a netip.Addr) bool {
	return a.IsPrivate() || netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10).Contains(a)
}
