package daemon

import (
	"net/netip"
	"testing"

	"github.com/ringwall/ringwall/pkg/nftrace"
)

// Who knows whose rule it is can say which command lets a customer in.
func TestWhatLetsInWhomAnotherFirewallDrops(t *testing.T) {
	const input = "ip filter INPUT"
	for _, row := range []struct {
		source, chain, rules, list, want string
	}{
		{"192.0.2.7/32", input, "ip filter f2b-asterisk", "", "fail2ban-client unban 192.0.2.7"},
		{"192.0.2.7/32", "inet f2b-table f2b-chain", "inet f2b-table f2b-chain", "", "fail2ban-client unban 192.0.2.7"},
		{"192.0.2.7/32", input, "ip filter ufw-user-input", "",
			"ufw delete deny from 192.0.2.7; ufw prepend allow from 192.0.2.7"},
		{"2001:db8::/48", "ip6 filter INPUT", "ip6 filter ufw6-user-input", "",
			"ufw delete deny from 2001:db8::/48; ufw prepend allow from 2001:db8::/48"},
		{"192.0.2.7/32", "inet firewalld filter_INPUT", "inet firewalld filter_IN_public", "",
			"firewall-cmd --zone=trusted --change-source=192.0.2.7; the same with --permanent keeps it so"},
		{"192.0.2.7/32", input, "ip filter fpbxlogdrop", "", "fwconsole firewall trust 192.0.2.7"},
		{"192.0.2.7/32", input, "ip filter fpbxattacker", "ATTACKER",
			"echo -192.0.2.7 >/proc/net/xt_recent/ATTACKER; fwconsole firewall trust 192.0.2.7"},
		{"192.0.2.7/32", input, input, "MINE", "echo -192.0.2.7 >/proc/net/xt_recent/MINE"},
		{"192.0.2.7/32", input, "ip filter mine", "",
			"iptables -I INPUT -s 192.0.2.7 -j ACCEPT; iptables -S mine shows the rule that drops it"},
		{"2001:db8::7/128", "ip6 filter INPUT", "ip6 filter INPUT", "",
			"ip6tables -I INPUT -s 2001:db8::7 -j ACCEPT; ip6tables -S INPUT shows the rule that drops it"},
		{"192.0.2.7/32", "iptables-legacy filter INPUT", "iptables-legacy filter mine", "",
			"iptables-legacy -I INPUT -s 192.0.2.7 -j ACCEPT; iptables-legacy -S mine shows the rule that drops it"},
		{"2001:db8::7/128", "ip6tables-legacy raw PREROUTING", "ip6tables-legacy raw PREROUTING", "",
			"ip6tables-legacy -t raw -I PREROUTING -s 2001:db8::7 -j ACCEPT; ip6tables-legacy -t raw -S PREROUTING shows the " +
				"rule that drops it"},
		{"192.0.2.7/32", "iptables-legacy filter INPUT", "iptables-legacy filter f2b-asterisk", "",
			"fail2ban-client unban 192.0.2.7"},
		{"192.0.2.7/32", "inet a i", "inet a j", "",
			"nft list chain inet a j; take the rule out there, or fail2ban-client unban 192.0.2.7"},
	} {
		d := nftrace.Drop{Source: netip.MustParsePrefix(row.source), Chain: row.chain, RuleChain: row.rules,
			RecentList: row.list}
		if got := TryDropped(d); got != row.want {
			t.Errorf("%s:\n%q, want\n%q", row.rules, got, row.want)
		}
	}
}
