package api

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/hosts"
	"github.com/ringwall/ringwall/pkg/printable"
)

const addressForms = "an address such as 203.0.113.5 or 2001:db8::1, or a network such as 203.0.113.0/24"

// ParsePrefix reads an address or a network that a person typed. IPv4-mapped IPv6 is unmapped. Its errors are [*Error]s
// with [ErrInvalid].
func ParsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		return parseNetwork(s)
	}
	addr, err := ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(addr, addr.BitLen()), nil
}

// ParseAddr reads one address that a person typed, as [ParsePrefix] does.
func ParseAddr(s string) (netip.Addr, error) {
	quoted := printable.Quote(s)
	addr, err := netip.ParseAddr(s)
	switch {
	case s == "":
		return addr, Invalid("give "+addressForms, "the address is empty")
	case strings.Contains(s, "/"):
		return addr, Invalid("give one address, without /", "%s is a network, and one address is needed", quoted)
	case err != nil:
		if ap, err := netip.ParseAddrPort(s); err == nil {
			return addr, Invalid("give the address alone: "+ap.Addr().String(),
				"%s has a port, and Ringwall judges addresses",
				quoted)
		}
		if inner, ok := strings.CutPrefix(s, "["); ok {
			if a, err := netip.ParseAddr(strings.TrimSuffix(inner, "]")); err == nil {
				return addr, Invalid("without brackets: "+a.String(), "%s is not an address", quoted)
			}
		}
		if hosts.ValidName(s) {
			return addr, Invalid("look its addresses up first: getent ahosts "+s,
				"%s is a host name, and an address is needed",
				quoted)
		}
		return addr, Invalid("give "+addressForms, "%s is not an address", quoted)
	case addr.Zone() != "":
		return addr, Invalid("give the address without %", "%s has a zone, which only this host knows", quoted)
	case addr.IsUnspecified() || addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return addr, Invalid("", "%s is never the source of a packet", quoted)
	}
	return addr.Unmap(), nil
}

// ParseFlow reads a flow that a person typed: "tcp 198.51.100.10:5062".
func ParseFlow(s string) (ban.Flow, error) {
	const form = "such as tcp 198.51.100.10:5062, as ringwall list restricted shows it"
	protocol, at, _ := strings.Cut(s, " ")
	ap, err := netip.ParseAddrPort(at)
	if protocol = strings.ToLower(protocol); protocol != "udp" && protocol != "tcp" || err != nil {
		return ban.Flow{}, Invalid(form, "%s is not the flow of a sender", printable.Quote(s))
	}
	addr, err := ParseAddr(ap.Addr().String())
	if err != nil {
		return ban.Flow{}, err
	}
	f := ban.Flow{UDP: protocol == "udp", Source: netip.AddrPortFrom(addr, ap.Port())}
	if !f.IsValid() {
		return ban.Flow{}, Invalid(form, "%s has no port", printable.Quote(s))
	}
	return f, nil
}

func parseNetwork(s string) (netip.Prefix, error) {
	quoted := printable.Quote(s)
	p, err := netip.ParsePrefix(s)
	if err != nil {
		host, bits, _ := strings.Cut(s, "/")
		if addr, err := netip.ParseAddr(host); err == nil && addr.Zone() == "" {
			return p, Invalid("a number from 0 to "+strconv.Itoa(addr.BitLen())+", such as "+networkOf(addr),
				"%s: %s is not the length of an %s prefix", quoted, printable.Quote(bits), familyName(addr))
		}
		return p, Invalid("give "+addressForms, "%s is not a network", quoted)
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return p, Invalid("write the IPv4 network itself", "%s is wider than the whole of IPv4", quoted)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return p, Invalid(p.Masked().String()+" for the network, or "+p.Addr().String()+" for the one address",
			"%s names an address inside a network", quoted)
	}
	return p, nil
}

// ParseTarget reads an entry of the allow list: an address, a network or a host name.
func ParseTarget(s string) (netip.Prefix, string, error) {
	p, err := ParsePrefix(s)
	if err != nil && hosts.ValidName(s) {
		return netip.Prefix{}, strings.ToLower(strings.TrimSuffix(s, ".")), nil
	}
	return p, "", err
}

// tooWide refuses what would catch a large part of the world.
func tooWide(p netip.Prefix, what string) error {
	least := MinBits4
	if p.Addr().Is6() {
		least = MinBits6
	}
	if p.Bits() >= least {
		return nil
	}
	if p.Bits() == 0 {
		return Invalid("name the networks that you mean", "%s is everybody, which cannot be %s", p, what)
	}
	return Invalid("name smaller networks", "%s is wider than /%d, which cannot be %s", p, least, what)
}

func networkOf(addr netip.Addr) string {
	bits := 24
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return addr.String()
	}
	return p.String()
}

func familyName(addr netip.Addr) string {
	if addr.Is4() {
		return "IPv4"
	}
	return "IPv6"
}
