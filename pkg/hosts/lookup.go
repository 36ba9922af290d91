package hosts

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
)

// A Lookup returns the addresses of a host name.
type Lookup func(ctx context.Context, name string) ([]netip.Addr, error)

// maxTargets bounds the SRV targets of one name that are looked up.
const maxTargets = 16

// LookupHost asks for A and AAAA, hosts file and search domains included.
func LookupHost(r *net.Resolver) Lookup {
	return func(ctx context.Context, name string) ([]netip.Addr, error) {
		return r.LookupNetIP(ctx, "ip", name)
	}
}

// LookupSIP asks as a SIP client would that has been given no port (RFC 3263, section 4): the SRV records of the name
// for UDP, TCP and TLS, with the addresses of their targets, and A and AAAA of the name itself. It fails only where all
// of that yields nothing.
func LookupSIP(r *net.Resolver) Lookup {
	return func(ctx context.Context, name string) ([]netip.Addr, error) {
		out, err := r.LookupNetIP(ctx, "ip", name)
		seen := map[string]bool{}
		for _, kind := range [...]struct{ service, proto string }{{"sip", "udp"}, {"sip", "tcp"}, {"sips", "tcp"}} {
			_, records, e := r.LookupSRV(ctx, kind.service, kind.proto, name)
			if e != nil && isNotFound(err) && !isNotFound(e) {
				err = e
			}
			for _, srv := range records {
				target, ok := NormalizeName(srv.Target)
				if !ok || seen[target] || len(seen) >= maxTargets {
					continue
				}
				seen[target] = true
				addrs, e := r.LookupNetIP(ctx, "ip", target)
				if e != nil {
					err = e
				}
				out = append(out, addrs...)
			}
		}
		if len(out) > 0 {
			return out, nil
		}
		return nil, err
	}
}

func isNotFound(err error) bool {
	dns, ok := errors.AsType[*net.DNSError](err)
	return ok && dns.IsNotFound
}

// NormalizeName brings a host name into the form in which the Resolver keeps it: lower case, without the root's dot. It
// reports false for anything but letters, digits, hyphens and underscores between dots (RFC 1123, section 2.1), and for
// names whose last label is a number, which some resolvers take for an IPv4 address in shorthand.
func NormalizeName(s string) (string, bool) {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return "", false
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", false
		}
		for _, c := range []byte(label) {
			if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return "", false
			}
		}
		last = strings.ToLower(label)
	}
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return "", false
	}
	return strings.ToLower(s), true
}

// isUsable reports whether an address can be anybody's source on a network.
func isUsable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
