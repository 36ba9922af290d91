package replay_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/replay"
)

// shutDoors lets nothing of a banned source pass over UDP.
func shutDoors(p *config.Policy) { p.Ban.Knock = 0 }

// TestCustomersWhoWouldBeBannedAreNamed has people who log in before, during and after a ban of their address.
func TestCustomersWhoWouldBeBannedAreNamed(t *testing.T) {
	at := func(addr string, when time.Duration) []wireEvent {
		return append(scan(10*time.Minute, addr), login(when, "201", addr))
	}
	for _, row := range []struct {
		name   string
		events []wireEvent
		policy func(*config.Policy)
		prefix string // of the customer; empty for none
		locked int64
	}{
		{"after the ban", at("192.0.2.7", 3*time.Hour), nil, "192.0.2.7/32", 0},
		{"while banned", at("192.0.2.7", 30*time.Minute), shutDoors, "192.0.2.7/32", 1},
		{"while banned, with the door open", at("192.0.2.7", 30*time.Minute), nil, "192.0.2.7/32", 0},
		{"while it would be banned", at("192.0.2.7", 30*time.Minute),
			func(p *config.Policy) { shutDoors(p); p.Mode = config.Observe }, "192.0.2.7/32", 1},
		{"from the same IPv6 network", slices.Concat(scan6(10*time.Minute, "2001:db8::7"),
			[]wireEvent{login6(time.Hour, "201", "2001:db8::8")}),
			shutDoors, "2001:db8::/64", 1},
		{"from a banned network", slices.Concat(scan(0, "192.0.2.7"), scan(0, "192.0.2.8"),
			[]wireEvent{login(time.Minute, "201", "192.0.2.99")}),
			func(p *config.Policy) { shutDoors(p); p.Networks.Sources = 2 }, "192.0.2.0/24", 1},
		{"elsewhere", slices.Concat(scan(0, "192.0.2.7"), []wireEvent{login(time.Minute, "201", "192.0.2.8")}), nil, "",
			0},
		{"allowed", at("192.0.2.7", 30*time.Minute), func(p *config.Policy) {
			p.Allow = []config.AllowEntry{{Prefix: mustPrefix("192.0.2.0/24")}}
		}, "", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			slices.SortStableFunc(row.events, func(a, b wireEvent) int { return int(a.at - b.at) })
			r := run(t, func(o *replay.Options) {
				if row.policy != nil {
					row.policy(&o.Policy)
				}
			}, write(t, "log", lines(row.events...)))
			switch {
			case row.prefix == "" && len(r.Customers) > 0:
				t.Errorf("%+v", r.Customers)
			case row.prefix != "" && (len(r.Customers) != 1 || r.Customers[0].Prefix.String() != row.prefix ||
				r.Customers[0].LoginsWhileBanned != row.locked ||
				!slices.Equal(r.Customers[0].Accounts, []string{"201"})):
				t.Errorf("%+v, want %s with %d logins while banned\n%q", r.Customers, row.prefix, row.locked,
					briefs(r.decisions))
			}
		})
	}
}

func TestAMILoginsAreNoCustomers(t *testing.T) {
	if r := run(t, nil, capture("ami-good.ami"), capture("ami-bad-password.log")); r.LoggedIn != 0 || r.Decoded == 0 {
		t.Errorf("%d sources with logins among %d events", r.LoggedIn, r.Decoded)
	}
}

// TestBannedPacketsDoNotArrive says what a ban would have stopped, and what it would not for want of a port.
func TestBannedPacketsDoNotArrive(t *testing.T) {
	flood := func(port int) []wireEvent {
		var list []wireEvent
		for i := range 100 {
			e := unknown(time.Duration(i)*time.Second, fmt.Sprint("user", i), "192.0.2.7")
			e.to = fmt.Sprintf("IPV4/UDP/10.99.0.1/%d", port)
			list = append(list, e)
		}
		return list
	}
	shut := func(o *replay.Options) { shutDoors(&o.Policy) }
	r := run(t, shut, write(t, "log", lines(flood(5060)...)))
	if r.Bans != 1 || r.Blocked != 97 || r.Passed != 0 || r.Banned[0].Blocked != 97 {
		t.Errorf("bans %d, blocked %d, passed %d, %+v", r.Bans, r.Blocked, r.Passed, r.Banned)
	}
	odd := write(t, "log", lines(flood(5999)...))
	if r := run(t, shut, odd); r.Blocked != 97 || r.Passed != 0 {
		t.Errorf("at another port, which auto takes over: blocked %d, passed %d", r.Blocked, r.Passed)
	}
	listed := func(o *replay.Options) {
		shut(o)
		o.Firewall.Ports = config.Ports{UDP: []uint16{5060}, TCP: []uint16{5060}}
	}
	if r := run(t, listed, odd); r.Blocked != 0 || r.Passed != 97 {
		t.Errorf("at another port: blocked %d, passed %d", r.Blocked, r.Passed)
	}
	if r := run(t, func(o *replay.Options) { shut(o); o.Firewall.Scope = config.ScopeAll }, odd); r.Blocked != 97 ||
		r.Passed != 0 {
		t.Errorf("scope all: blocked %d, passed %d", r.Blocked, r.Passed)
	}
	if r := run(t, func(o *replay.Options) { o.Policy.Mode = config.Observe }, odd); r.Blocked != 0 || r.Bans != 0 ||
		r.Observed != 1 {
		t.Errorf("observe: blocked %d, bans %d, observed %d", r.Blocked, r.Bans, r.Observed)
	}
	if r := run(t, nil, odd); r.Bans != 1 || r.Blocked != 94 { // three attempts are heard through the door, which is then shut
		t.Errorf("with the door open: bans %d, blocked %d", r.Bans, r.Blocked)
	}
}

func TestABanEndsByItself(t *testing.T) {
	events := slices.Concat(scan(0, "192.0.2.7"), scan(90*time.Minute, "192.0.2.7"),
		[]wireEvent{challenge(100*time.Hour, "x", "192.0.2.8")})
	r := run(t, nil, write(t, "log", lines(events...)))
	var unbans []string
	for _, d := range r.decisions {
		if d.Action == "unban" {
			unbans = append(unbans, d.Time.Sub(start).Truncate(10*time.Minute).String())
		}
	}
	if len(r.Banned) != 1 || r.Banned[0].Bans != 2 || r.Banned[0].Total != 5*time.Hour ||
		!slices.Equal(unbans, []string{"1h0m0s", "5h30m0s"}) {
		t.Errorf("%+v, unbanned after %v", r.Banned, unbans)
	}
}

func TestThePBXItselfIsNeverBanned(t *testing.T) {
	for _, addr := range []string{"10.99.0.1", "127.0.0.1", "169.254.1.1"} {
		if r := run(t, nil, write(t, "log", lines(scan(0, addr)...))); r.Bans != 0 {
			t.Errorf("%q", briefs(r.decisions))
		}
	}
}

func TestFrequentNamesAreFoundAmongMany(t *testing.T) {
	var list []wireEvent
	for i := range 30000 {
		at := time.Duration(i) * time.Millisecond
		list = append(list, unknown(at, fmt.Sprint("once", i), "192.0.2.7"))
		if i%3 == 0 {
			list = append(list, unknown(at, "200", "192.0.2.8"))
		}
	}
	long := strings.Repeat("ü", 500)
	for range 5000 {
		list = append(list, unknown(40*time.Second, long, "192.0.2.9"))
	}
	r := run(t, nil, write(t, "log", lines(list...)))
	if len(r.Accounts) < 2 || r.Accounts[0].Account != "200" || r.Accounts[1].Account != strings.Repeat("ü", 30)+"…" {
		t.Errorf("%+v", r.Accounts[:min(3, len(r.Accounts))])
	}
}

func TestSummaryLineHasTheKeysOfTheContract(t *testing.T) {
	r := run(t, func(o *replay.Options) { shutDoors(&o.Policy) },
		write(t, "log", lines(append(scan(0, "192.0.2.7"), login(time.Minute, "201", "192.0.2.7"))...)))
	b, err := json.Marshal(r.Summary)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"action": "summary", "events": 5.0, "decoded": 5.0, "tampered": 0.0, "sources": 1.0, "bans": 1.0,
		"trusted": 0.0,
		"from":    "2026-11-22T21:00:00Z", "to": "2026-11-22T21:01:00Z",
	} {
		if m[key] != want {
			t.Errorf("%s is %v, want %v", key, m[key], want)
		}
	}
	if got := fmt.Sprint(m["would_ban_customers"]); got != "[192.0.2.7/32]" {
		t.Errorf("would_ban_customers %s", got)
	}
	for key, v := range m {
		if v == nil {
			t.Errorf("%s is null", key)
		}
	}
}

// TestNarrowVerdictsOfARecording has a customer's address from which somebody guesses over TLS: his connection ends, and
// the others go on.
func TestNarrowVerdictsOfARecording(t *testing.T) {
	over := func(e wireEvent, port int) wireEvent {
		e.from = fmt.Sprintf("IPV4/TLS/192.0.2.7/%d", port)
		e.to = "IPV4/TLS/10.99.0.1/5061"
		return e
	}
	var list []wireEvent
	for i := range 20 {
		list = append(list, over(login(time.Duration(i)*time.Second, fmt.Sprint(200+i), "192.0.2.7"), 20_000+i))
	}
	for i := range 400 {
		e := over(challenge(time.Minute+time.Duration(i)*10*time.Millisecond, "250", "192.0.2.7"), 40_000)
		e.name, e.own = "ChallengeResponseFailed", [][2]string{
			{"Challenge", "c"}, {"Response", fmt.Sprint(i)}, {"ExpectedResponse", ""}}
		list = append(list, e)
	}
	for i := range 20 {
		at := 2*time.Minute + time.Duration(i)*time.Second
		list = append(list, over(login(at, fmt.Sprint(200+i), "192.0.2.7"), 20_000+i))
	}
	r := run(t, nil, write(t, "log", lines(list...)))
	if len(r.Cuts) != 1 || r.Cuts[0].Source.String() != "192.0.2.7/32" || r.Cuts[0].Account != "250" {
		t.Errorf("cuts: %+v", r.Cuts)
	}
	if r.Bans != 0 || r.Blocked < 300 || len(r.Customers) > 0 {
		t.Errorf("%d bans, %d blocked, %+v, %q", r.Bans, r.Blocked, r.Customers, briefs(r.decisions))
	}
}
