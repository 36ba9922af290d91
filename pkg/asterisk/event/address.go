package event

import (
	"net/netip"
	"strings"
)

// unknownHost is what Asterisk's main/netsock2.c prints for host and port of an address that it does not know.
const unknownHost = "(null)"

// parseAddress reads FAMILY/[TRANSPORT/]ADDRESS/PORT as ast_json_ipaddr of Asterisk's main/json.c writes it: IPv6
// without brackets, mapped IPv4 as IPV4, perhaps with a zone (getnameinfo adds one to link-local addresses), and no
// transport where there is not exactly one. An address that Asterisk does not know is the zero AddrPort.
func parseAddress(s string) (a Address, ok bool) {
	if len(s) < len("IPV4/") || s[:3] != "IPV" || s[4] != '/' || s[3] != '4' && s[3] != '6' {
		return a, false
	}
	v6 := s[3] == '6'
	s = s[len("IPV4/"):]
	if i := strings.IndexByte(s, '/'); i >= 0 {
		switch s[:i] {
		case "UDP":
			a.Transport = UDP
		case "TCP":
			a.Transport = TCP
		case "TLS":
			a.Transport = TLS
		case "WS":
			a.Transport = WS
		case "WSS":
			a.Transport = WSS
		}
		if a.Transport != NoTransport {
			s = s[i+1:]
		}
	}
	if !v6 {
		ip, port, ok := cutIPv4(s)
		if !ok {
			return unknownAddress(s, a)
		}
		n, ok := parsePort(port)
		if !ok {
			return Address{}, false
		}
		a.AddrPort = netip.AddrPortFrom(ip, n)
		return a, true
	}
	host, port, ok := strings.Cut(s, "/")
	if !ok {
		return Address{}, false
	}
	// The zone goes first: netip would intern it, which allocates, and it is of no use to anybody here.
	if i := strings.IndexByte(host, '%'); i >= 0 {
		if !validZone(host[i+1:]) {
			return Address{}, false
		}
		host = host[:i]
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Is4() {
		return unknownAddress(s, a)
	}
	n, ok := parsePort(port)
	if !ok {
		return Address{}, false
	}
	a.AddrPort = netip.AddrPortFrom(ip.Unmap(), n)
	return a, true
}

// unknownAddress returns a, which has no address, where s says that Asterisk knows none.
func unknownAddress(s string, a Address) (Address, bool) {
	if s != unknownHost+"/"+unknownHost {
		return Address{}, false
	}
	return a, true
}

// cutIPv4 reads a dotted address and the slash after it. Numbers have no leading zeros.
func cutIPv4(s string) (ip netip.Addr, rest string, ok bool) {
	var b [4]byte
	i := 0
	for k := range b {
		if i >= len(s) || s[i]-'0' > 9 {
			return netip.Addr{}, "", false
		}
		n := uint(s[i] - '0')
		i++
		for i < len(s) && s[i]-'0' <= 9 && n-1 < 255 { // no digit follows a leading zero
			n = n*10 + uint(s[i]-'0')
			i++
		}
		end := byte('.')
		if k == 3 {
			end = '/'
		}
		if n > 255 || i == len(s) || s[i] != end {
			return netip.Addr{}, "", false
		}
		b[k] = byte(n)
		i++
	}
	return netip.AddrFrom4(b), s[i:], true
}

// validZone says whether s can be the name or number of a network interface (at most IFNAMSIZ-1 bytes). A quotation
// mark would end the value in a line of the log.
func validZone(s string) bool {
	if s == "" || len(s) > 15 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '%' || c == '"' {
			return false
		}
	}
	return true
}

// parsePort reads 0 to 65535 without leading zeros.
func parsePort(s string) (uint16, bool) {
	if s == "" || len(s) > 5 || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	n := 0
	for i := range len(s) {
		c := s[i] - '0'
		if c > 9 {
			return 0, false
		}
		n = n*10 + int(c)
	}
	return uint16(n), n <= 65535
}
