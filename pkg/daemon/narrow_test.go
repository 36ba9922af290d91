package daemon

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/firewall"
)

// guess sends one wrong password.
func (r *rig) guess(remote, account string) {
	r.calls++
	r.event("ChallengeResponseFailed", account, fmt.Sprintf("call-%d", r.calls), remote,
		fmt.Sprintf("Challenge: 1/%d\r\nResponse: r%d\r\nExpectedResponse: \r\n", r.calls, r.calls))
}

// flowInKernel says whether the kernel holds a flow.
func (r *rig) flowInKernel(k firewall.Kind, port uint16) bool {
	r.t.Helper()
	table, err := firewall.Open(TableConfig(r.cfg, r.space.FD()))
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = table.Close() }()
	elements, err := table.Elements(k)
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.ContainsFunc(elements, func(el firewall.Element) bool { return el.Flow.Source.Port() == port })
}

// TestNarrowVerdictsAreSeen makes a verdict of each scope, and looks for it where a person does: in the metrics, in
// lists, in why, and after an unban.
func TestNarrowVerdictsAreSeen(t *testing.T) {
	r := newRig(t)
	const office = "198.51.100.10"
	within := netip.MustParsePrefix(office + "/32")
	for i := range 60 { // through one connection: a proxy, however the accounts fall into its sketch
		r.login("IPV4/TLS/192.0.2.30/5061", fmt.Sprint(300+i))
	}
	r.login("IPV4/UDP/"+office+"/5060", "201")
	for range 200 {
		r.guess("IPV4/TLS/"+office+"/30000", "9250")
	}
	if d := r.await(ban.ActionCut, office+"/32"); d.Scope != ban.ScopeFlow || d.Flow.String() != "tcp "+office+":30000" {
		t.Errorf("%+v", d)
	}
	for range 2000 {
		r.guess("IPV4/UDP/"+office+"/5060", "9251")
	}
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32")
	for _, p := range []string{"203.0.113.128/25", "2001:db8:bad::/64"} {
		if _, err := r.client.Ban(t.Context(), api.BanRequest{Prefix: netip.MustParsePrefix(p)}); err != nil {
			t.Fatal(err)
		}
	}
	for range 200 {
		r.calls++
		r.eventOf("AMI", "InvalidPassword", "crm", fmt.Sprintf("0x%x", r.calls), "IPV4/TCP/"+office+"/40000", "")
	}
	r.await(ban.ActionBan, office+"/32")

	r.wantMetrics(`ringwall_bans_active{family="ipv4",scope="flow"} 1`,
		`ringwall_bans_active{family="ipv4",scope="service"} 1`, `ringwall_bans_active{family="ipv4",scope="source"} 1`,
		`ringwall_bans_active{family="ipv4",scope="network"} 1`, `ringwall_bans_active{family="ipv6",scope="flow"} 0`,
		`ringwall_bans_active{family="ipv6",scope="source"} 1`, `ringwall_good_flows 2`, `ringwall_proxies 1`,
		`ringwall_slow_lanes{kind="flow"} 1`, `ringwall_slow_lanes{kind="trickle"} 1`,
		`ringwall_slow_lanes{kind="source"} 0`, `ringwall_dropped_packets_total{set="cut4"} 0`,
		`ringwall_dropped_packets_total{set="manager4"} 0`, `ringwall_dropped_packets_total{set="slowflow4"} 0`,
		`ringwall_dropped_packets_total{set="slow6"} 0`, `ringwall_dropped_packets_total{set="knock4"} 0`,
		`ringwall_dropped_packets_total{set="knocknet6"} 0`)

	x, err := r.client.Why(t.Context(), within.Addr())
	if err != nil || len(x.Restrictions) != 3 || len(x.GoodFlows) != 1 || x.AllGoodFlows != 1 ||
		x.GoodFlows[0].Flow.String() != "udp "+office+":5060" || x.Ban == nil || x.Ban.Closes != ban.ClosesManager ||
		x.Ban.Scope != ban.ScopeService {
		t.Errorf("%+v, %v", x, err)
	}
	if x, err := r.client.Why(t.Context(), netip.MustParseAddr("192.0.2.30")); err != nil || !x.Proxy {
		t.Errorf("%+v, %v", x, err)
	}
	list := r.restricted(netip.Prefix{})
	if len(list) != 3 || !slices.Equal(list, r.restricted(within)) ||
		len(r.restricted(netip.MustParsePrefix("192.0.2.0/24"))) > 0 {
		t.Errorf("%+v", list)
	}

	st, err := r.client.Status(t.Context())
	if err != nil || !slices.ContainsFunc(st.Warnings, func(w api.Warning) bool {
		return strings.HasPrefix(w.Text, "192.0.2.30 looks like a proxy") && strings.Contains(w.Try, "allow add 192.0.2.30,")
	}) {
		t.Errorf("%+v, %v", st.Warnings, err)
	}

	var cut ban.Flow
	if err := cut.UnmarshalText([]byte("tcp " + office + ":30000")); err != nil {
		t.Fatal(err)
	}
	if !r.flowInKernel(firewall.Cut, 30000) {
		t.Error("the kernel does not cut the flow")
	}
	res, err := r.client.Unban(t.Context(), api.UnbanRequest{Flow: cut})
	if err != nil || res.RestrictionCount != 1 || res.Restrictions[0].Flow != cut || r.flowInKernel(firewall.Cut, 30000) {
		t.Errorf("%+v, %v; in the kernel: %v", res, err, r.flowInKernel(firewall.Cut, 30000))
	}
	if res, err := r.client.Unban(t.Context(), api.UnbanRequest{Flow: cut}); err != nil || res.RestrictionCount != 0 ||
		!strings.Contains(res.Note, "neither cut nor slow") {
		t.Errorf("a second time: %+v, %v", res, err)
	}
	res, err = r.client.Unban(t.Context(), api.UnbanRequest{Prefix: within})
	if err != nil || res.Count != 1 || res.RestrictionCount != 2 || len(r.restricted(netip.Prefix{})) > 0 {
		t.Errorf("%+v, %v", res, err)
	}
	if r.flowInKernel(firewall.Slow, 5060) {
		t.Error("unban returned, and the kernel still slows the flow")
	}
	if _, ok := r.inKernel(firewall.Ban, office+"/32"); ok {
		t.Error("unban returned, and the kernel still closes something")
	}
	r.wantMetrics(`ringwall_bans_active{family="ipv4",scope="flow"} 0`,
		`ringwall_bans_active{family="ipv4",scope="service"} 0`, `ringwall_slow_lanes{kind="flow"} 0`,
		`ringwall_slow_lanes{kind="trickle"} 0`)
}

// restricted is what the daemon lists within a prefix, without the times.
func (r *rig) restricted(within netip.Prefix) (list []ban.Restriction) {
	r.t.Helper()
	err := r.client.EachRestricted(r.t.Context(), within, func(v ban.Restriction) error {
		v.Left, v.Until = 0, time.Time{}
		list = append(list, v)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

// wantMetrics fails unless the metrics hold these lines.
func (r *rig) wantMetrics(lines ...string) {
	r.t.Helper()
	text := get(r.t, r.site()+"/metrics")
	for _, line := range lines {
		if !strings.Contains(text, line+"\n") {
			name, _, _ := strings.Cut(line, "{")
			have := ""
			for l := range strings.Lines(text) {
				if strings.HasPrefix(l, name) {
					have += l
				}
			}
			r.t.Errorf("no line %s, but\n%s", line, have)
		}
	}
}

func TestManyProxiesAreCounted(t *testing.T) {
	var proxies []netip.Prefix
	for i := range 13 {
		proxies = append(proxies, netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/32", i)))
	}
	list := proxyWarnings(proxies)
	if len(list) != 11 || list[10].Text != "3 sources more look like a proxy" ||
		!strings.HasPrefix(list[9].Text, "192.0.2.9 looks like a proxy") {
		t.Errorf("%+v", list)
	}
}
