package doctor

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/firewall"
)

// allowedAll is what to do where no address is left to try with.
const fixAllAllowed = "ringwall list allow: such a list protects attackers too; name the networks that you mean"

// nobodys are networks that are nobody's: TEST-NET-1 to 3 (RFC 5737), and 2001:db8::/32 (RFC 3849) and 3fff::/20 (RFC
// 9637). There are several because people copy them from examples: into their allow list, say.
var (
	documentation4 = []netip.Prefix{
		netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"),
		netip.MustParsePrefix("203.0.113.0/24"),
	}
	documentation6 = []netip.Prefix{
		netip.MustParsePrefix("2001:db8:d0c7::/48"), netip.MustParsePrefix("3fff:d0c7::/32"),
		netip.MustParsePrefix("2001:db8:1::/48"),
	}
)

// testSources are the sources of one family that a ban may be tried with, best first.
func testSources(networks []netip.Prefix) (list []netip.Prefix) {
	for _, network := range networks {
		for n := byte(254); n > 0; n-- {
			a := network.Addr().As16()
			if network.Addr().Is6() {
				a[6] = n
				list = append(list, netip.PrefixFrom(netip.AddrFrom16(a), 64))
				continue
			}
			a[15] = n
			list = append(list, netip.PrefixFrom(netip.AddrFrom16(a).Unmap(), 32))
		}
	}
	return list
}

// chooseTestSources chooses one address of each family that is neither banned already, nor this machine's or its
// gateway's, nor allowed: some networks do use them, and a ban of such an address proves nothing. A nil check stands
// for an empty table.
func (e *exam) chooseTestSources(check *firewall.Check) ([]netip.Prefix, error) {
	covered := e.exemptPrefixes()
	var chosen []netip.Prefix
	for _, networks := range [][]netip.Prefix{documentation4, documentation6} {
		list := testSources(networks)
		i := slices.IndexFunc(list, func(p netip.Prefix) bool {
			if slices.ContainsFunc(covered, p.Overlaps) {
				return false
			}
			if check == nil {
				return true
			}
			found, err := check.HasBan(p)
			return err == nil && !found
		})
		switch {
		case i >= 0:
			chosen = append(chosen, list[i])
		case !slices.ContainsFunc(list, func(p netip.Prefix) bool { return !slices.ContainsFunc(covered, p.Overlaps) }):
			return nil, errors.New("each address that a ban could be tried with is allowed, so none was")
		default:
			chosen = append(chosen, list[0]) // the kernel does not answer as it should; the trial will say how
		}
	}
	return chosen, nil
}

// exemptPrefixes lists what no ban may be tried with: what is this machine's, and what the file or the daemon allows.
func (e *exam) exemptPrefixes() []netip.Prefix {
	var list []netip.Prefix
	for p := range e.ownPrefixes {
		list = append(list, p)
	}
	for _, a := range e.cfg.Policy.Allow {
		if a.Prefix.IsValid() {
			list = append(list, a.Prefix)
		}
	}
	if e.daemon == nil || e.client == nil {
		return list
	}
	ctx, cancel := context.WithTimeout(context.Background(), max(e.Wait, time.Second))
	defer cancel()
	for _, ask := range []func(context.Context) ([]ban.Exemption, error){e.client.Allowed, e.client.Protected} {
		views, _ := ask(ctx) // a daemon that does not answer says so when the ban is tried
		for _, v := range views {
			if v.Prefix.IsValid() {
				list = append(list, v.Prefix)
			}
		}
	}
	return list
}
