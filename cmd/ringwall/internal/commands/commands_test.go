package commands_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/cmd/ringwall/internal/commands"
	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/fleet"
	"github.com/ringwall/ringwall/pkg/fleet/record"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/lists"
	"github.com/ringwall/ringwall/pkg/printable"
)

// golden compares with testdata/NAME, which UPDATE_GOLDEN=1 rewrites.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant, as in %s\n%s", got, path, want)
	}
	for _, r := range got {
		if r != '\n' && (r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e || r == 0xfffd) {
			t.Errorf("the output holds %U", r)
		}
	}
}

const reviewOfADay = "in the last 1d 12 sources would have been banned, and none of them ever logged in (to ban them: " +
	"mode: enforce in /etc/ringwall/ringwall.yaml, then: systemctl reload ringwall)"

func trouble(st *api.Status) {
	st.Kernel = api.KernelStatus{
		Table: "inet ringwall", Desired: 12, Present: 3, LastError: "netlink: operation not permitted",
		Try: "give the service CAP_NET_ADMIN", Rebuilds: []api.Count{{Name: "flushed", Count: 2}},
	}
	st.PBXs[0].Denied = []api.Denied{{Action: "DBGetTree", ManagerConf: "read = security,reporting",
		For: "registered phones"}}
	st.PBXs[0].DroppedFrames, st.PBXs[0].Tampered, st.PBXs[0].Reconnects, st.PBXs[0].Blind = 7, 2, 1, 65
	st.PBXs = append(st.PBXs, api.PBXStatus{
		Name: "pbx2", Since: ago(5 * time.Minute), LastError: "connection refused " + hostile,
		Try: "asterisk -rx 'manager show settings'",
	})
	st.Engine.Observed, st.Engine.Suspended, st.Engine.Limited = 3, 4, map[string]int{"max_sources": 9, "ban_rate": 5}
	st.ObserveOnly = []api.Observed{{Service: "SIP", Why: "an attacker chooses the address that chan_sip reports"}}
	st.Config.Error = "line 4: unknown key"
	st.Warnings = []api.Warning{{Text: "HTTP AMI is reachable", Try: "webenabled=no"}}
}

func explanations() map[string]engine.Explanation {
	evidence := []ban.Evidence{
		{
			Time: ago(3 * time.Minute), Event: "InvalidAccountID", Service: "PJSIP", Transport: "UDP", Account: hostile,
			Reason: ban.ReasonUnknownAccount, Points: 4, Score: 4, PBX: "pbx1",
		},
		{
			Time: ago(2 * time.Minute), Event: "ChallengeResponseFailed", Service: "PJSIP", Transport: "TCP",
			Account: "201",
			Reason:  ban.ReasonWrongPassword, Points: 2, Score: 5.867, Proven: true, PBX: "pbx1",
			Note: "a retransmission gives no points",
		},
	}
	base := engine.Explanation{Address: netip.MustParseAddr("203.0.113.5"),
		Source: netip.MustParsePrefix("203.0.113.5/32"), Threshold: 10, HalfLife: 600}
	with := func(change func(*engine.Explanation)) engine.Explanation {
		ex := base
		change(&ex)
		return ex
	}
	return map[string]engine.Explanation{
		"listed": {
			Address: netip.MustParseAddr("198.51.100.9"), Source: netip.MustParsePrefix("198.51.100.9/32"), Verdict: "unknown",
			Threshold: 10, HalfLife: 600, Evidence: []ban.Evidence{},
			Listed: []ban.Listing{{List: "voipbl", Prefix: netip.MustParsePrefix("198.51.100.0/24"), Enforced: true}},
			Lines:  []string{"nothing is known of it", "the list voipbl names it (198.51.100.0/24): its packets are dropped"},
		},
		"banned": with(func(ex *engine.Explanation) {
			ex.Verdict, ex.Score, ex.Attempts, ex.Bans, ex.Lost, ex.Evidence = "banned", 11.2, 6, 1, 3, evidence
			ex.Ban = &ban.Ban{
				Prefix: netip.MustParsePrefix("203.0.113.5/32"), Reason: ban.ReasonWrongPassword,
				Until: now.Add(58 * time.Minute), Left: 3480,
				Attempts: 6, Accounts: []string{"201", hostile},
			}
			ex.Lines = []string{"4 + 2 points, half of them decays every 10m",
				"end it now with: ringwall unban 203.0.113.5"}
		}),
		"manual": with(func(ex *engine.Explanation) {
			ex.Verdict = "banned"
			ex.Ban = &ban.Ban{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Reason: ban.ReasonManual, Manual: true,
				Comment: "called " + hostile, Until: now.Add(30 * time.Hour), Left: 108000}
		}),
		"observed": with(func(ex *engine.Explanation) {
			ex.Verdict = "observed"
			ex.Ban = &ban.Ban{Prefix: netip.MustParsePrefix("203.0.113.5/32"), Reason: ban.ReasonUnknownAccount,
				Observed: true, Until: now.Add(time.Hour), Attempts: 1}
		}),
		"trusted": with(func(ex *engine.Explanation) {
			ex.Address, ex.Source = netip.MustParseAddr("2001:db8::1"), netip.MustParsePrefix("2001:db8::/64")
			ex.Verdict, ex.Score, ex.Evidence = "trusted", 2, evidence[1:]
			ex.Trust = &ban.Trust{Prefix: netip.MustParsePrefix("2001:db8::/64"), Until: now.Add(23 * time.Hour),
				Accounts: []string{"201", "202"}}
			ex.Grace = at(now.Add(time.Hour))
		}),
		"udp": with(func(ex *engine.Explanation) {
			ex.Verdict, ex.Score, ex.Attempts, ex.Bans, ex.Evidence = "banned", 11.2, 6, 1, evidence[:1]
			ex.Ban = &ban.Ban{Prefix: netip.MustParsePrefix("203.0.113.5/32"), Reason: ban.ReasonUnknownAccount,
				Scope: ban.ScopeSource, Closes: ban.ClosesUDP, Until: now.Add(time.Hour), Left: 3600, Attempts: 3}
			ex.Lines = []string{"closed: UDP only; 4 packets a minute from each port pass, so that a phone can log in; its " +
				"login lifts the ban"}
		}),
		"restricted": with(func(ex *engine.Explanation) {
			ex.Address, ex.Source = netip.MustParseAddr("192.0.2.10"), netip.MustParsePrefix("192.0.2.10/32")
			ex.Verdict, ex.Restrictions = "trusted", restricted()
			ex.Trust = &ban.Trust{Prefix: ex.Source, Until: now.Add(23 * time.Hour), Accounts: []string{"201", "202"}}
			for port := range uint16(3) {
				ex.GoodFlows = append(ex.GoodFlows, ban.GoodFlow{Until: now.Add(time.Hour), Left: 3600,
					Flow: ban.Flow{UDP: true, Source: netip.AddrPortFrom(ex.Address, 20000+port)}})
			}
			ex.AllGoodFlows = 40
		}),
		"allowed": with(func(ex *engine.Explanation) {
			ex.Verdict, ex.Allow = "allowed",
				&ban.Exemption{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Origin: "manual"}
		}),
		"protected": with(func(ex *engine.Explanation) {
			ex.Verdict, ex.Allow = "protected",
				&ban.Exemption{Prefix: netip.MustParsePrefix("203.0.113.5/32"), Origin: "learned",
					Note: "trunk provider"}
		}),
		"suspicious": with(func(ex *engine.Explanation) {
			ex.Verdict, ex.Score, ex.Evidence = "suspicious", 4, evidence[:1]
		}),
		"unknown": with(func(ex *engine.Explanation) { ex.Verdict = "unknown" }),
	}
}

// withFleet is a node in touch with two others, of which one says nonsense.
func withFleet(st *api.Status) {
	st.Fleet = &fleet.Status{Connected: true, CaughtUp: true, Server: "tls://hub.example.net:4222", Records: 4711,
		Sequence: 99_000, Watching: true, Node: "pbx-here", Nodes: []record.Node{
			{Name: "pbx-berlin", Records: 4700, Heard: ago(time.Minute), Alive: ago(20 * time.Second), Behind: 3,
				PerMinute: 6012.5, AtBound: true, Waiting: 17, Ahead: -61.2},
			{Name: "pbx-here", PerMinute: 0.4},
			{Name: "pbx-rome", Records: 11, Heard: ago(26 * time.Hour), Silent: true, Refused: map[string]uint64{"malformed": 12}},
		}}
}

func TestTablesForPeople(t *testing.T) {
	for name, row := range map[string]struct {
		args    []string
		columns int
		change  func(*backend)
	}{
		"help":           {nil, 80, nil},
		"status":         {[]string{"status"}, 0, nil},
		"status-trouble": {[]string{"status"}, 0, func(b *backend) { b.status = trouble }},
		"status-narrow": {[]string{"status"}, 0, func(b *backend) {
			b.status = func(st *api.Status) {
				st.Engine.CutFlows, st.Engine.SlowFlows, st.Engine.SlowSources, st.Engine.Trickles = 1, 2, 1, 1
				st.Engine.GoodFlows = 4711
				st.Kernel.Dropped = []api.Count{{Name: "ban4", Count: 0}, {Name: "cut4", Count: 7}, {Name: "knock4", Count: 12}}
			}
		}},
		"status-nothing-dropped": {[]string{"status"}, 0, func(b *backend) {
			b.status = func(st *api.Status) { st.Kernel.Dropped = []api.Count{{Name: "ban4"}, {Name: "knock4"}} }
		}},
		"status-observe": {[]string{"status"}, 0, func(b *backend) {
			b.status = func(st *api.Status) {
				st.Mode, st.Engine.Bans, st.Kernel.Desired, st.Kernel.Present = "observe", 0, 0, 0
			}
		}},
		"status-observe-bans": {[]string{"status"}, 0,
			func(b *backend) { b.status = func(st *api.Status) { st.Mode = "observe" } }},
		"status-leak": {[]string{"status"}, 0, func(b *backend) {
			b.status = func(st *api.Status) {
				st.Engine.Leaking, st.Engine.LastLeak = 3, at(ago(time.Minute))
				st.Ports = api.PortsStatus{UDP: []uint16{5060}, TCP: []uint16{5060},
					Found: []api.FoundPort{{Protocol: "udp", Port: 5060, PBX: "pbx1"},
						{Protocol: "udp", Port: 5080, PBX: "pbx1", Open: true}}}
			}
		}},
		"status-edge": {[]string{"status"}, 0, func(b *backend) {
			b.status = func(st *api.Status) {
				withFleet(st)
				st.PBXs, st.Engine.FleetBans, st.Sensors[0].Off = nil, 12, true
			}
		}},
		"fleet": {[]string{"fleet", "status"}, 80, func(b *backend) { b.status = withFleet }},
		"fleet-gone": {[]string{"fleet", "status"}, 80, func(b *backend) {
			b.status = func(st *api.Status) {
				st.Fleet = &fleet.Status{Error: "dial tcp 192.0.2.1:4222: i/o timeout" + hostile, Waiting: 3, Unsaid: 7}
			}
		}},
		"fleet-forget":    {[]string{"fleet", "forget", "pbx2"}, 80, nil},
		"fleet.json":      {[]string{"fleet", "status", "--json"}, 0, func(b *backend) { b.status = withFleet }},
		"bans":            {[]string{"list"}, 0, nil},
		"bans-narrow":     {[]string{"list", "bans"}, 90, nil},
		"bans-empty":      {[]string{"list"}, 80, func(b *backend) { b.empty = true }},
		"bans-restricted": {[]string{"list"}, 80, func(b *backend) { b.empty, b.restricted = true, restricted() }},
		"restricted":      {[]string{"list", "restricted"}, 80, func(b *backend) { b.restricted = restricted() }},
		"restricted.json": {[]string{"list", "restricted", "--json"}, 80, func(b *backend) { b.restricted = restricted() }},
		"restricted-none": {[]string{"list", "restricted"}, 80, nil},
		"trust":           {[]string{"list", "trust"}, 80, nil},
		"trust-empty":     {[]string{"list", "trust"}, 80, func(b *backend) { b.empty = true }},
		"allow":           {[]string{"list", "allow"}, 80, nil},
		"protected":       {[]string{"list", "protected"}, 80, nil},
		"protected-empty": {[]string{"list", "protected"}, 80, func(b *backend) { b.empty = true }},
		"history":         {[]string{"history"}, 0, nil},
		"history-review": {[]string{"history"}, 0, func(b *backend) {
			b.review = reviewOfADay
		}},
		"history-empty":   {[]string{"history", "--since", "90m"}, 0, func(b *backend) { b.empty = true }},
		"version":         {[]string{"version"}, 0, nil},
		"version.flag":    {[]string{"--version"}, 0, nil},
		"status.json":     {[]string{"status", "--json"}, 0, func(b *backend) { b.status = trouble }},
		"bans.json":       {[]string{"list", "--json"}, 0, nil},
		"trust.json":      {[]string{"list", "trust", "--json"}, 0, nil},
		"allow.json":      {[]string{"allow", "list", "--json"}, 0, nil},
		"history.json":    {[]string{"history", "--json"}, 0, nil},
		"version.json":    {[]string{"version", "--json"}, 0, nil},
		"lists":           {[]string{"lists"}, 90, func(b *backend) { b.status = withLists }},
		"status-lists":    {[]string{"status"}, 0, func(b *backend) { b.status = withLists }},
		"lists-none":      {[]string{"lists"}, 80, nil},
		"lists.json":      {[]string{"lists", "--json"}, 0, func(b *backend) { b.status = withLists }},
		"lists-refresh":   {[]string{"lists", "refresh", "voipbl"}, 0, nil},
		"lists-test-none": {[]string{"lists", "test", "192.0.2.1"}, 0, func(b *backend) { b.echo = true }},
		"lists-test": {[]string{"lists", "test", "198.51.100.9"}, 80,
			func(b *backend) { b.explain = explanations()["listed"] }},
		"lists-test.json": {[]string{"lists", "test", "198.51.100.9", "--json"}, 0,
			func(b *backend) { b.explain = explanations()["listed"] }},
		"why-banned.json": {[]string{"why", "203.0.113.5", "--json"}, 0,
			func(b *backend) { b.explain = explanations()["banned"] }},
		"why-banned-small": {[]string{"why", "203.0.113.5"}, 100,
			func(b *backend) { b.explain = explanations()["banned"] }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.app.Columns = row.columns
			if row.change != nil {
				row.change(w.backend)
			}
			if code := w.do(t, row.args...); code != 0 || w.err.String() != "" {
				t.Fatalf("exit %d: %s", code, w.err)
			}
			golden(t, name, w.out.String())
			for line := range strings.Lines(w.out.String()) {
				isTable := strings.Contains(strings.TrimLeft(line, " "), "  ")
				if isTable && name != "help" && row.columns > 0 && len([]rune(line)) > row.columns+1 {
					t.Errorf("wider than %d columns: %s", row.columns, line)
				}
			}
		})
	}
}

func TestWhyBeginsWithTheVerdict(t *testing.T) {
	for name, ex := range explanations() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.backend.explain = ex
			if code := w.do(t, "why", ex.Address.String()); code != 0 {
				t.Fatalf("exit %d: %s", code, w.err)
			}
			golden(t, "why-"+name, w.out.String())
			if w.backend.asked != netip.MustParseAddr(ex.Address.String()) {
				t.Errorf("asked for %s", w.backend.asked)
			}
		})
	}
}

func TestChangesSayWhatHappened(t *testing.T) {
	one := netip.MustParsePrefix("2001:db8::1/128")
	banned := api.BanResult{Prefix: netip.MustParsePrefix("2001:db8::1/128"),
		Source: netip.MustParsePrefix("2001:db8::/64"), Since: now, Until: now.Add(time.Hour), Duration: 3600,
		Enforced: true}
	for name, row := range map[string]struct {
		args   []string
		change func(*backend)
		want   any // the request
	}{
		"ban": {
			[]string{"ban", "2001:db8::1", "--for", "1h", "--reason", "at night"},
			func(b *backend) { b.ban = banned }, api.BanRequest{Prefix: one, For: time.Hour, Reason: "at night"},
		},
		"ban-default": {
			[]string{"ban", "203.0.113.0/24"},
			func(b *backend) {
				b.ban = api.BanResult{Prefix: netip.MustParsePrefix("203.0.113.0/24"),
					Source: netip.MustParsePrefix("203.0.113.0/24"), Until: now.Add(time.Hour), Duration: 3600,
					Renewed: true, Enforced: true}
			},
			api.BanRequest{Prefix: netip.MustParsePrefix("203.0.113.0/24")},
		},
		"ban-dry": {
			[]string{"ban", "203.0.113.5", "--for=1w"},
			func(b *backend) {
				b.ban = api.BanResult{Prefix: netip.MustParsePrefix("203.0.113.5/32"),
					Source: netip.MustParsePrefix("203.0.113.5/32"), Until: now.Add(168 * time.Hour), Duration: 604800,
					Note: "policy.mode is observe."}
			},
			api.BanRequest{Prefix: netip.MustParsePrefix("203.0.113.5/32"), For: 168 * time.Hour},
		},
		"ban.json": {
			[]string{"ban", "2001:db8::1", "--json"}, func(b *backend) { b.ban = banned },
			api.BanRequest{Prefix: one},
		},
		"unban": {
			[]string{"unban", "203.0.113.5", "--grace", "1h"},
			func(b *backend) {
				b.unban = api.UnbanResult{Removed: []netip.Prefix{netip.MustParsePrefix("203.0.113.5/32")},
					Count: 1, Grace: at(now.Add(time.Hour))}
			},
			api.UnbanRequest{Prefix: netip.MustParsePrefix("203.0.113.5/32"), Grace: time.Hour},
		},
		"unban-fleet": {
			[]string{"unban", "203.0.113.5", "--fleet"},
			func(b *backend) {
				b.unban = api.UnbanResult{Removed: []netip.Prefix{netip.MustParsePrefix("203.0.113.5/32")}, Count: 1,
					Origins: []string{"pbx-berlin"}, Reach: api.ReachFleet,
					FleetNote: "the fleet's servers cannot be reached: other nodes let it in once they can"}
			},
			api.UnbanRequest{Prefix: netip.MustParsePrefix("203.0.113.5/32"), Fleet: true},
		},
		"unban-here": {
			[]string{"unban", "203.0.113.5", "--here"},
			func(b *backend) {
				b.unban = api.UnbanResult{Removed: []netip.Prefix{netip.MustParsePrefix("203.0.113.5/32")}, Count: 1,
					Origins: []string{"pbx-berlin"}, Reach: api.ReachHere}
			},
			api.UnbanRequest{Prefix: netip.MustParsePrefix("203.0.113.5/32"), Here: true},
		},
		"unban-all": {
			[]string{"unban", "--all"},
			func(b *backend) {
				b.unban = api.UnbanResult{Removed: []netip.Prefix{netip.MustParsePrefix("203.0.113.5/32")},
					Count: 4711}
			},
			api.UnbanRequest{All: true},
		},
		"unban-restricted": {
			[]string{"unban", "192.0.2.10"},
			func(b *backend) {
				b.unban = api.UnbanResult{Restrictions: restricted(), RestrictionCount: 3, Removed: []netip.Prefix{}}
			},
			api.UnbanRequest{Prefix: netip.MustParsePrefix("192.0.2.10/32")},
		},
		"unban-many-restricted": {
			[]string{"unban", "192.0.2.0/24"},
			func(b *backend) {
				b.unban = api.UnbanResult{Removed: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}, Count: 1,
					Restrictions: restricted(), RestrictionCount: 300}
			},
			api.UnbanRequest{Prefix: netip.MustParsePrefix("192.0.2.0/24")},
		},
		"unban-flow": {
			[]string{"unban", "tcp", "192.0.2.10:4711"},
			func(b *backend) {
				b.unban = api.UnbanResult{Restrictions: restricted()[1:2], RestrictionCount: 1, Removed: []netip.Prefix{}}
			},
			api.UnbanRequest{Flow: ban.Flow{Source: netip.MustParseAddrPort("192.0.2.10:4711")}},
		},
		"allow-add": {
			[]string{"allow", "add", "Office.Example.net"},
			func(b *backend) {
				b.allow = api.AllowResult{Entry: "office.example.net", Added: true,
					Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.5")},
					Unbanned:  []netip.Prefix{netip.MustParsePrefix("203.0.113.5/32")}}
			},
			api.AllowRequest{Host: "office.example.net"},
		},
		"allow-add-for": {
			[]string{"allow", "add", "203.0.113.5", "--for", "1d"},
			func(b *backend) {
				b.allow = api.AllowResult{Entry: "203.0.113.5/32", Added: true, Lasting: true,
					Until: at(now.Add(24 * time.Hour))}
			},
			api.AllowRequest{Prefix: netip.MustParsePrefix("203.0.113.5/32"), For: 24 * time.Hour},
		},
		"allow-del": {
			[]string{"allow", "del", "203.0.113.0/24"},
			func(b *backend) { b.allow = api.AllowResult{Entry: "203.0.113.0/24", Removed: true} },
			api.AllowRequest{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Remove: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			row.change(w.backend)
			if code := w.do(t, row.args...); code != 0 || w.err.String() != "" {
				t.Fatalf("exit %d: %s", code, w.err)
			}
			golden(t, name, w.out.String())
			b := w.backend
			var got any
			switch row.want.(type) {
			case api.BanRequest:
				b.bans[0].By = api.Peer{}
				got = b.bans[0]
			case api.UnbanRequest:
				b.unbans[0].By = api.Peer{}
				got = b.unbans[0]
			case api.AllowRequest:
				b.allows[0].By = api.Peer{}
				got = b.allows[0]
			}
			if len(b.bans)+len(b.unbans)+len(b.allows) != 1 || !reflect.DeepEqual(got, row.want) {
				t.Errorf("asked %+v, want %+v", got, row.want)
			}
		})
	}
}

func TestHistoryAsksForTheTimeAndTheAddress(t *testing.T) {
	w := newWorld(t)
	if code := w.do(t, "history", "--since", "1d12h", "::ffff:203.0.113.5"); code != 0 {
		t.Fatalf("exit %d: %s", code, w.err)
	}
	if !w.backend.since.Equal(ago(36*time.Hour)) || w.backend.asked != netip.MustParseAddr("203.0.113.5") {
		t.Errorf("asked since %s for %s", w.backend.since, w.backend.asked)
	}
}

func TestHistoryFollows(t *testing.T) {
	for name, args := range map[string][]string{"follow": nil, "follow.json": {"--json"},
		"follow-one": {"203.0.113.5"}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.out.wrote = make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan int, 1)
			go func() {
				ended <- w.app.Execute(ctx, append([]string{"--socket", w.socket, "history", "-f", "--since", "1h"},
					args...))
			}()
			d := decisions()
			w.feed.Publish(d[1])
			<-w.out.wrote
			w.feed.Publish(d[2], d[1])
			<-w.out.wrote
			if name != "follow-one" {
				<-w.out.wrote
			}
			cancel()
			if code := <-ended; code != 0 || w.err.String() != "" {
				t.Errorf("exit %d: %s", code, w.err)
			}
			golden(t, name, w.out.String())
		})
	}
}

func TestMistakesOfUsage(t *testing.T) {
	for line, want := range map[string]string{
		"stauts":                            "there is no command \"ringwall stauts\"\nTry: ringwall status\n",
		"bann 1.2.3.4":                      "Try: ringwall ban\n",
		"banip 1.2.3.4":                     "Try: ringwall ban\n",
		"unbanip 1.2.3.4":                   "Try: ringwall unban\n",
		"addignoreip 1.2.3.4":               "Try: ringwall allow\n",
		"xyzzy":                             "Try: ringwall --help\n",
		"\x1b[2J":                           `there is no command "ringwall \\x1b[2J"`,
		"allow ad 1.2.3.4":                  "there is no command \"ringwall allow ad\"\nTry: ringwall allow add\n",
		"allow":                             "Try: ringwall allow list\n",
		"list ban":                          "Try: ringwall list bans\n",
		"list everything":                   "Try: ringwall list [bans|trust|allow|protected|restricted]\n",
		"status --jsn":                      "ringwall status has no flag --jsn\nTry: ringwall status --json\n",
		"status now":                        "takes no arguments",
		"ban":                               "ringwall ban needs one address or network\nTry: ringwall ban ADDR|CIDR\n",
		"ban 1.2.3.4 5.6.7.8":               `and then there is "5.6.7.8"`,
		"ban 1.2.3.4/24":                    "Try: 1.2.3.0/24 for the network, or 1.2.3.4 for the one address\n",
		"ban sip.example.net":               "Try: look its addresses up first",
		"ban 1.2.3.4 --for":                 "flag needs an argument",
		"ban 1.2.3.4 --for 10":              `"10" is not a duration such as 90s`,
		"ban 1.2.3.4 --for 1y":              `"1y" is not a duration`,
		"ban 1.2.3.4 --for -1h":             `"-1h" is not a duration`,
		"ban 1.2.3.4 --for 1ms":             "it goes from 1s to 365d",
		"ban 1.2.3.4 --for 54w":             "it goes from 1s to 365d",
		"ban 1.2.3.4 --for 99999999w":       `"99999999w"`,
		"unban":                             "needs an address, a network or --all",
		"unban tcp 1.2.3.4":                 "is not the flow of a sender",
		"unban tcp 1.2.3.4:0":               "has no port",
		"unban udp 1.2.3.4:5060 --grace 1h": "--grace is for an address",
		"unban tcp 1.2.3.4:5060 --all":      "are both given",
		"unban 1.2.3.4 --fleet --here":      "--fleet and --here are both given",
		"unban udp 1.2.3.4:5060 --fleet":    "--fleet and --here are for an address",
		"unban 1.2.3.4 --all":               "an address and --all are both given",
		"why": "ringwall why needs one address, host name or extension\nTry: ringwall why " +
			"ADDR|HOST|EXTENSION\n",
		"why 10.0.0.0/8":       "is a network",
		"why 1.2.3.4:506000":   "is not an address",
		"why x!":               "is neither an address, nor a host name, nor an extension",
		"ban 1.2.3.4:5060":     "Try: give the address alone: 1.2.3.4\n",
		"allow add a_b":        "is not an address",
		"completion tcsh":      `there is no completion for "tcsh"`,
		"check --print --json": "--print writes YAML",
		"demo --for 0s":        "it goes from 1s to 1h",
	} {
		t.Run(line, func(t *testing.T) {
			w := newWorld(t)
			code := w.do(t, strings.Fields(line)...)
			got := w.err.String()
			if code != 2 || !strings.Contains(got, want) || !strings.HasPrefix(got, "ringwall: ") ||
				w.out.String() != "" {
				t.Errorf("exit %d, %q and on stdout %q", code, got, w.out)
			}
		})
	}
}

func TestFailuresAreExplained(t *testing.T) {
	for name, row := range map[string]struct {
		err  error
		want string
	}{
		"refused": {
			api.Refused("ringwall allow del 203.0.113.5", "203.0.113.5 is on the allow list"),
			"ringwall: 203.0.113.5 is on the allow list\nTry: ringwall allow del 203.0.113.5\n",
		},
		"hostile": {api.Refused("", "account \x1b[2J\u202e is protected"),
			"ringwall: account \\x1b[2J\\u202e is protected\n"},
		"lines": {errors.New("first\nsecond"),
			"ringwall: first\nringwall: second\nTry: the daemon's log may say more: journalctl -u ringwall\n"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.backend.err = row.err
			for _, args := range [][]string{{"ban", "203.0.113.5"}, {"status"}, {"list"}, {"why", "203.0.113.5"},
				{"history"}, {"unban", "--all"}} {
				w.err.b.Reset()
				if code := w.do(t, args...); code != 1 || w.err.String() != row.want || w.out.String() != "" {
					t.Errorf("%v: exit %d, %q, stdout %q", args, code, w.err, w.out)
				}
			}
		})
	}
}

func TestWithoutADaemon(t *testing.T) {
	w := newWorld(t)
	code := w.app.Execute(t.Context(), []string{"status", "--socket", filepath.Join(t.TempDir(), "none")})
	if code != 1 || !strings.Contains(w.err.String(), "is it running? systemctl status ringwall") {
		t.Errorf("exit %d: %s", code, w.err)
	}
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ringwall.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const minimal = "asterisk:\n  - address: 127.0.0.1:5038\n    username: ringwall\n    secret: hush-hush\n"

func TestTheSocketComesFromTheConfiguration(t *testing.T) {
	w := newWorld(t)
	path := writeConfig(t, minimal+"control: {socket: "+w.socket+"}\n")
	if code := w.app.Execute(t.Context(), []string{"list", "allow", "--config", path}); code != 0 {
		t.Errorf("exit %d: %s", code, w.err)
	}
	if code := w.app.Execute(t.Context(), []string{"list", "--config", path + ".none"}); code != 1 ||
		!strings.Contains(w.err.String(), "no such file") {
		t.Errorf("exit %d: %s", code, w.err)
	}
}

func TestCheck(t *testing.T) {
	w := newWorld(t)
	good := writeConfig(t, minimal)
	if code := w.do(t, "check", "--config", good); code != 0 ||
		!strings.Contains(w.out.String(), good+" is right: 1 Asterisk, policy enforce, ") {
		t.Errorf("exit %d: %s %s", code, w.out, w.err)
	}
	if code := w.do(t, "check", "--print", "--config", good); code != 0 ||
		!strings.Contains(w.out.String(), "threshold: 10") {
		t.Errorf("exit %d: %s %s", code, w.out, w.err)
	}
	if strings.Contains(w.out.String()+w.err.String(), "hush-hush") {
		t.Error("the secret is shown")
	}
	bad := writeConfig(t, minimal+"polcy: {}\n")
	if code := w.do(t, "check", "--config", bad); code != 1 || !strings.HasPrefix(w.err.String(), bad+":5: ") {
		t.Errorf("exit %d: %s", code, w.err)
	}
	w = newWorld(t)
	if code := w.do(t, "check", "--config", bad, "--json"); code != 1 ||
		!strings.Contains(w.out.String(), `"ok":false,"errors":[{"file":"`+bad+`","line":5,`) {
		t.Errorf("exit %d: %s", code, w.out)
	}
}

func TestRunAndDemoGetTheirFlags(t *testing.T) {
	w := newWorld(t)
	var ran commands.RunOptions
	var played commands.DemoOptions
	broken := errors.New("no capability")
	w.app.Columns = 77
	w.app.Run = func(_ context.Context, o commands.RunOptions) error { ran = o; return nil }
	w.app.Demo = func(_ context.Context, o commands.DemoOptions) error { played = o; return broken }
	if code := w.do(t, "run"); code != 1 || ran != (commands.RunOptions{}) ||
		!strings.Contains(w.err.String(), "runs already") ||
		!strings.Contains(w.err.String(), "Try: ringwall status") {
		t.Errorf("beside a daemon: exit %d, %+v, %s", code, ran, w.err)
	}
	free := filepath.Join(t.TempDir(), "free.sock")
	if code := w.app.Execute(t.Context(), []string{"--socket", free, "run"}); code != 0 ||
		ran != (commands.RunOptions{ConfigPath: commands.DefaultConfig, Socket: free}) {
		t.Errorf("exit %d, %+v", code, ran)
	}
	if code := w.do(t, "demo", "--for", "5s", "--json"); code != 1 || played.For != 5*time.Second || !played.JSON ||
		played.Columns != 77 || played.Out == nil {
		t.Errorf("exit %d, %+v", code, played)
	}
	if code := w.do(t, "demo"); code != 1 || played.For != 30*time.Second || played.JSON ||
		!strings.Contains(w.err.String(), "ringwall: no capability\n") {
		t.Errorf("exit %d, %+v, %s", code, played, w.err)
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		w := newWorld(t)
		if code := w.do(t, "completion", shell); code != 0 || !strings.Contains(w.out.String(), "ringwall") {
			t.Errorf("%s: exit %d: %s", shell, code, w.err)
		}
	}
	w := newWorld(t)
	if code := w.do(t, "__complete", "unban", ""); code != 0 ||
		!strings.HasPrefix(w.out.String(), "203.0.113.5\n2001:db8:bad::/64\n") {
		t.Errorf("exit %d: %s", code, w.out)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestAFullDiskIsAFailure(t *testing.T) {
	for _, args := range [][]string{{"status"}, {"list"}, {"status", "--json"}, {"version"}, {"history"}} {
		w := newWorld(t)
		w.app.Out = full{}
		if code := w.do(t, args...); code != 1 || !strings.Contains(w.err.String(), "no space left") {
			t.Errorf("%v: exit %d: %s", args, code, w.err)
		}
	}
}

// A list of any length: the first thousand decide on the columns, all are printed, and none twice.
func TestALongListIsPrintedInFull(t *testing.T) {
	for _, args := range [][]string{{"list", "bans"}, {"list", "bans", "--json"}} {
		w := newWorld(t)
		w.backend.many = 5000
		if code := w.do(t, args...); code != 0 {
			t.Fatalf("%v: %d: %s", args, code, w.err)
		}
		lines := strings.Split(strings.TrimSuffix(w.out.String(), "\n"), "\n")
		seen := make(map[string]bool)
		for _, l := range lines {
			prefix, _, _ := strings.Cut(l, " ")
			var b ban.Ban
			if json.Unmarshal([]byte(l), &b) == nil {
				prefix = humanize.Prefix(b.Prefix)
			}
			if strings.HasPrefix(prefix, "32.0.") {
				seen[prefix] = true
			}
		}
		want := 5003
		if len(args) == 2 {
			want += 4 // the header, how many, of them observed, and of them getting through
		}
		if len(lines) != want || len(seen) != 5000 {
			t.Errorf("%v: %d lines of %d, %d of 5000", args, len(lines), want, len(seen))
		}
		if len(args) == 2 && !strings.HasPrefix(lines[len(lines)-3], "5003 bans. ") {
			t.Errorf("%q", lines[len(lines)-3])
		}
	}
}

// People ask with what they have: an address with its port, a name, an extension.
func TestWhyAndHistoryTakeWhatPeopleHave(t *testing.T) {
	for name, row := range map[string]struct {
		args []string
		says []string
	}{
		"port": {[]string{"why", "203.0.113.5:5060"}, []string{"203.0.113.5 is not banned"}},
		"extension": {[]string{"why", "201"},
			[]string{"The account 201 was tried or logged in from 3 sources", "203.0.113.5", "banned", "192.0.2.10",
				"trusted"}},
		"nobody": {[]string{"why", "nobody"},
			[]string{"Nobody has tried the account nobody", "ringwall history nobody --since 30d"}},
		"host": {[]string{"why", "phones.example.net:5060"},
			[]string{"phones.example.net is 203.0.113.5, 2001:db8::1.", "203.0.113.5 is not banned",
				"2001:db8::1 is not banned"}},
		"account.dot":     {[]string{"why", "john.doe"}, []string{"john.doe has no address", "The account john.doe"}},
		"json":            {[]string{"why", "201", "--json"}, []string{`"account":"201"`, `"tries":6`}},
		"history account": {[]string{"history", "nobody"}, []string{"Nothing was decided"}},
		"history port":    {[]string{"history", "203.0.113.5:5060"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.app.Lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
				if host != "phones.example.net" {
					return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
				}
				return []netip.Addr{netip.MustParseAddr("::ffff:203.0.113.5"), netip.MustParseAddr("2001:db8::1"),
					netip.MustParseAddr("203.0.113.5")}, nil
			}
			w.backend.explain = engine.Explanation{Address: netip.MustParseAddr("203.0.113.5"),
				Source: netip.MustParsePrefix("203.0.113.5/32"), Verdict: "unknown"}
			w.backend.echo = true
			if code := w.do(t, row.args...); code != 0 {
				t.Fatalf("exit %d: %s", code, w.err)
			}
			for _, part := range row.says {
				if !strings.Contains(w.out.String(), part) {
					t.Errorf("no %q in\n%s", part, w.out)
				}
			}
		})
	}
}

// One zone, named once, and no line longer than the terminal.
func TestWhyFitsAnOldTerminalInOneZone(t *testing.T) {
	for name, ex := range explanations() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.app.Columns, w.app.Zone = 80, time.FixedZone("CET", 3600)
			for i := range ex.Evidence {
				ex.Evidence[i].Time = ago(49 * time.Hour)
			}
			ex.Lines = append(ex.Lines, "203.0.113.5/32 is banned from 2026-01-29 11:00:00 UTC until 2026-01-31 "+
				"12:30:00 UTC (49h30m): unknown_account, requests for accounts")
			w.backend.explain = ex
			if code := w.do(t, "why", "203.0.113.5"); code != 0 {
				t.Fatalf("exit %d: %s", code, w.err)
			}
			text := w.out.String()
			for line := range strings.Lines(text) {
				if n := printable.Width(strings.TrimSuffix(line, "\n")); n > 80 &&
					strings.Contains(strings.TrimSpace(line), " ") {
					t.Errorf("%d columns: %s", n, line)
				}
			}
			if strings.Contains(text, "UTC") ||
				!strings.Contains(strings.ReplaceAll(text, "\n  ", " "),
					"from 2026-01-29 12:00:00 until 13:30:00 (49h30m)") || strings.Count(text, "CET") > 1 {
				t.Errorf("two zones:\n%s", text)
			}
		})
	}
}

// One line for each failure, with what to try on it, as journalctl -p err shows them.
func TestTheJournalGetsOneLineForEachFailure(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "ringwall.yaml")
	if err := os.WriteFile(file, []byte("policy: {treshold: 3, half_life: never}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		args  []string
		lines int
		says  string
	}{
		"mistakes":     {[]string{"check", "--config", file}, 3, "treshold"},
		"no daemon":    {[]string{"status", "--socket", filepath.Join(dir, "none")}, 1, ". Try: "},
		"no such word": {[]string{"statis"}, 1, ". Try: ringwall status"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs strings.Builder
			app := commands.App{Out: &out, Err: &errs, Journal: true}
			if code := app.Execute(t.Context(), row.args); code == 0 {
				t.Error("it went well")
			}
			lines := strings.Split(strings.TrimSuffix(errs.String(), "\n"), "\n")
			if len(lines) != row.lines || !strings.Contains(errs.String(), row.says) {
				t.Errorf("%d lines: %s", len(lines), errs.String())
			}
			for _, line := range lines {
				if !strings.HasPrefix(line, "<3>") {
					t.Errorf("%q", line)
				}
			}
		})
	}
}

// withLists is a daemon with a good list, one that is held back, and one that never came.
func withLists(st *api.Status) {
	st.Lists = []api.ListStatus{
		{Name: "voipbl", Mode: "enforce", Entries: 98123, Packets: 4711, Fetched: at(ago(time.Hour)), Changed: at(ago(5 * time.Hour)),
			LeftOut: map[lists.Why]int{lists.Reserved: 2, lists.Exempt: 1}, Omissions: []lists.Omission{
				{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Why: lists.Reserved},
				{Prefix: netip.MustParsePrefix("192.0.2.7/32"), Why: lists.Exempt, Of: "allowed, by " + hostile}},
			Bad: 1, BadSample: hostile, Customers: []netip.Addr{netip.MustParseAddr("198.51.100.7")}},
		{Name: "spamhaus-drop", Mode: "observe", Entries: 1640, Fetched: at(ago(50 * time.Hour)), Tried: at(ago(time.Minute)), Held: true,
			Error: "the list shrank from 1640 entries to 12, so it is held back", Try: "ringwall lists refresh spamhaus-drop --accept",
			Credit: "(c) 2026 The Spamhaus Project SLU"},
		{Name: "apiban", Mode: "enforce", Tried: at(ago(time.Minute)), Error: "the server says 403 Forbidden: \"" + hostile + "\"",
			Try: "key_file: the key that the list's provider gave you"},
	}
}
