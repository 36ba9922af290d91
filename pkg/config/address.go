package config

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/pkg/hosts"
)

// String returns the entry as the file writes it: an address, a network, or a host name.
func (a AllowEntry) String() string {
	switch {
	case a.Host != "":
		return a.Host
	case !a.Prefix.IsValid():
		return ""
	case a.Prefix.IsSingleIP():
		return a.Prefix.Addr().String()
	}
	return a.Prefix.String()
}

const allowAllowed = "an address, a network such as 192.0.2.0/24, or a host name"

// decodeAllowEntry reads one entry of policy.allow.
func (ps *parser) decodeAllowEntry(text, path string, target *AllowEntry) {
	wrong := detail{value: ps.quoteUnlessSecret(text), allowed: allowAllowed}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		addr, err := netip.ParseAddr(text)
		switch {
		case err == nil && addr.Zone() != "":
			wrong.hint = addr.WithZone("").String()
			ps.fail(path, "an address with a zone, which says nothing about other machines", wrong)
			return
		case err == nil:
			addr = addr.Unmap()
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		// 192.0.2.x could be a host name too, and 192.0.2.1-9.
		case !isHostName(text), addressesOfWildcard(text) != nil, networksOfRange(text) != nil:
			wrong.hint = ps.allowHint(path, text)
			ps.fail(path, "neither an address nor a host name", wrong)
			return
		default:
			*target = AllowEntry{Host: strings.ToLower(strings.TrimSuffix(text, "."))}
			return
		}
	}
	if prefix.Addr().Is4In6() {
		if prefix.Bits() < 96 {
			wrong.hint = "the IPv4 network itself"
			ps.fail(path, "a network of IPv4-mapped addresses that is wider than IPv4", wrong)
			return
		}
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	masked := prefix.Masked()
	if isTooWide(masked) {
		wrong.allowed, wrong.hint = "networks from /8 (IPv4) or /16 (public IPv6) on",
			"the networks of your own phones and trunks"
		ps.fail(path, "allows so many addresses that attackers are among them", wrong)
		return
	}
	if masked != prefix {
		ps.warn(path, "the address has bits beyond the prefix; the whole network "+masked.String()+" is allowed",
			detail{value: ps.quoteUnlessSecret(text), hint: masked.String() + ", or " + prefix.Addr().String() +
				" for this address alone"})
	}
	*target = AllowEntry{Prefix: masked}
}

// isAllowEntry reports whether a text is a right entry of a list of addresses.
func isAllowEntry(text string) bool {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		addr, err := netip.ParseAddr(text)
		return err == nil && addr.Zone() == "" || err != nil && isHostName(text) && addressesOfWildcard(text) == nil &&
			networksOfRange(text) == nil
	}
	return !prefix.Addr().Is4In6() && !isTooWide(prefix.Masked())
}

// isTooWide says whether a network holds a good part of the Internet. Private IPv6 (fc00::/7, fe80::/10) does not.
func isTooWide(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return p.Bits() < 8
	}
	return p.Bits() < 16 && p.Overlaps(netip.MustParsePrefix("2000::/3"))
}

func (ps *parser) allowHint(path, text string) string {
	if hint := ps.entriesText(path, correctAddresses(text)); hint != "" && hint != yamlWord(text) {
		return hint
	}
	switch {
	case strings.ContainsAny(strings.TrimSpace(text), " ,;"):
		return "one entry for each address"
	case strings.Contains(text, "*"):
		return "a network such as 192.0.2.0/24, or each name"
	case strings.Contains(text, "-"):
		return "networks instead of a range"
	case strings.ContainsFunc(text, func(r rune) bool { return r > 0x7f }):
		return "the name in its ASCII form (xn--…)"
	}
	return ""
}

// isHostName says whether text is a host name by RFC 1123 section 2.1 that cannot be mistaken for an address. It may
// hold underscores, as the names of containers do.
func isHostName(text string) bool {
	_, ok := hosts.NormalizeName(text)
	return ok
}

// hostPort splits an address to connect to or to listen on. A missing port becomes port, unless that is "".
func hostPort(text, port string) (host, withPort string, ok bool) {
	if addr, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil && port != "" {
		return addr.String(), net.JoinHostPort(addr.String(), port), true
	}
	if port != "" && isHostName(text) {
		return text, net.JoinHostPort(text, port), true
	}
	host, p, err := net.SplitHostPort(text)
	if err != nil || !isDecimal(p, false) {
		return "", "", false
	}
	if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 && port != "" {
		return "", "", false
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		host = addr.String()
	} else if !isHostName(host) && (host != "" || port != "") {
		return "", "", false
	}
	return host, net.JoinHostPort(host, p), true
}

// isLoopback says whether a host is this machine and nobody else can reach it.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return strings.EqualFold(host, "localhost")
	}
	return addr.Unmap().IsLoopback()
}
