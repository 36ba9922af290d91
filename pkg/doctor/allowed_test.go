package doctor

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// What another firewall does to an address of the allow list, 192.0.2.7 or 2001:db8::7, at Asterisk's ports.
func TestAnotherFirewallMustLetTheAllowedIn(t *testing.T) {
	const input = "table inet a { %s chain i { type filter hook input priority 0; %s }; }"
	for name, row := range map[string]struct {
		sets, rules string
		dropped     bool
	}{
		"nothing":               {"", "", false},
		"drop of the address":   {"", "ip saddr 192.0.2.7 drop;", true},
		"reject of the address": {"", "ip saddr 192.0.2.7 reject;", true},
		"drop of its network":   {"", "ip saddr 192.0.2.0/24 drop;", true},
		"of an odd network":     {"", "ip saddr 192.0.0.0/22 drop;", true},
		"of IPv6":               {"", "ip6 saddr 2001:db8::/32 drop;", true},
		"of a set": {"set s { type ipv4_addr; elements = { 192.0.2.7 }; };",
			"ip saddr @s drop;", true},
		"of a range": {"set s { type ipv4_addr; flags interval; elements = { 192.0.2.1-192.0.2.9 }; };",
			"ip saddr @s drop;", true},
		"beside a range": {"set s { type ipv4_addr; flags interval; elements = { 192.0.2.1-192.0.2.6, 192.0.2.8 }; };",
			"ip saddr @s drop;", false},
		"of all others":      {"", "ip saddr != 192.0.2.7 drop;", false},
		"of another address": {"", "ip saddr 192.0.2.8 drop;", false},
		"at its port": {"",
			"ip saddr 192.0.2.7 meta l4proto { udp, tcp } th dport { 5060, 5061 } drop;", true},
		"at another port":         {"", "ip saddr 192.0.2.7 tcp dport 22 drop;", false},
		"at one of two protocols": {"", "ip saddr 192.0.2.7 udp dport 5060 drop;", false},
		"after an accept":         {"", "ip saddr 192.0.2.0/24 accept; ip saddr 192.0.2.7 drop;", false},
		"after one that may be":   {"", "meta mark 7 accept; ip saddr 192.0.2.7 drop;", false},
		"after the usual ones": {"",
			"ct state established,related accept; iif lo accept; iifname lo accept; tcp dport 22 accept; " +
				"ip saddr 192.0.2.7 drop;", true},
		"of some packets": {"", "ip saddr 192.0.2.7 limit rate over 100/second drop;", false},
		"in a jump":       {"chain j { ip saddr 192.0.2.7 drop; };", "jump j;", true},
		"after a return": {"chain j { ip saddr 192.0.2.7 return; meta nfproto ipv4 drop; };",
			"jump j;", false},
		"by a policy":               {"", "policy drop; ct state established accept; tcp dport 22 accept;", true},
		"by a policy, but for SIP":  {"", "policy drop; udp dport 5060 accept; tcp dport 5060 accept;", false},
		"by a policy, but for eth0": {"", "policy drop; iifname eth0 accept;", false},
		"by a policy and a map": {"",
			"policy drop; meta nfproto ipv6 accept; ip saddr vmap { 192.0.2.7 : accept };", false},
		"by a policy of other names": {"", "policy drop; iifname { lo, eth7 } accept;", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := netnstest.New(t)
			script := strings.Replace(strings.Replace(input, "%s", row.sets, 1), "%s", row.rules, 1)
			netnstest.NFT(t, ns, script)
			e := beside(ns)
			e.cfg.Firewall.Ports = config.Ports{UDP: []uint16{5060}, TCP: []uint16{5060}}
			for _, p := range []string{"192.0.2.7/32", "2001:db8::7/128"} {
				e.cfg.Policy.Allow = append(e.cfg.Policy.Allow, config.AllowEntry{Prefix: netip.MustParsePrefix(p)})
			}
			e.examineAllowedSources(t.Context(), e.subjectNamed(""))
			found := of(e.checks, checkAllowed)
			if dropped := len(found) > 0; dropped != row.dropped {
				t.Errorf("dropped: %v, want %v: %+v", dropped, row.dropped, found)
			}
			if row.dropped && len(found) > 0 {
				is(t, found[0], Fail, "inet a i")
			}
		})
	}
}
