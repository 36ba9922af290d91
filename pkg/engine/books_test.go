package engine

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
)

func TestExemptionsHaveOrigins(t *testing.T) {
	cfg := config.Default().Policy
	p := netip.MustParsePrefix("203.0.113.64/29")
	cfg.Allow = []config.AllowEntry{{Prefix: p}, {Host: "home.example"}}
	e := New(cfg)
	e.Allow(epoch, p, "home.example", "dynamic")
	e.Allow(epoch, netip.MustParsePrefix("2001:db8::1/128"), OriginManual, "")
	e.Protect(epoch, "a", map[netip.Prefix]string{p: "trunk itsp", netip.MustParsePrefix("192.0.2.7/24"): "trunk x"})
	e.Protect(epoch, "b", map[netip.Prefix]string{p: "trunk itsp"})
	if got := e.AllowedBy(p); !slices.Equal(got, []string{originConfig, "home.example"}) {
		t.Errorf("allowed by %v", got)
	}
	var got []string
	for _, q := range e.ExemptPrefixes() {
		got = append(got, q.String())
	}
	if want := []string{"192.0.2.0/24", "203.0.113.64/29", "2001:db8::1/128"}; !slices.Equal(got, want) {
		t.Errorf("exempt %v, want %v", got, want)
	}
	if a := e.Allowed(); len(a) != 3 || a[1] != (ban.Exemption{Prefix: p, Origin: "home.example", Note: "dynamic"}) {
		t.Errorf("allowed %+v", a)
	}
	if n := len(e.Protected()); n != 3 {
		t.Errorf("%d protected, want 3", n)
	}
	e.Protect(epoch, "a", nil)
	if got := e.Protected(); len(got) != 1 || got[0].Origin != "b" {
		t.Errorf("after a learned nothing: %+v", got)
	}
	if e.Disallow(p, originConfig) || !e.Disallow(p, "home.example") || e.Disallow(p, "home.example") {
		t.Error("a prefix is allowed as long as anything allows it")
	}
}

func TestADecisionLineHasTheContractsKeys(t *testing.T) {
	d := ban.Decision{Time: epoch, Action: ban.ActionBan, Source: netip.MustParseAddr("203.0.113.66"),
		Prefix: netip.MustParsePrefix("203.0.113.66/32"),
		Reason: ban.ReasonUnknownAccount, Points: 4, Score: 12.3456, Account: "100", Service: event.PJSIP,
		Transport: event.TLS, Proven: true,
		Duration: time.Hour, PBX: "pbx1"}
	const want = `{"time":"2026-11-22T12:00:00Z","action":"ban","source":"203.0.113.66","prefix":"203.0.113.66/32","reason":"unknown_account",` +
		`"points":4,"score":12.346,"account":"100","service":"PJSIP","transport":"TLS","proven":true,"duration_seconds":3600,"pbx":"pbx1"}`
	if got, err := json.Marshal(d); err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
	got, err := json.Marshal(ban.Decision{Time: epoch, Action: ban.ActionTampering, Reason: ban.ReasonMalformed})
	if err != nil || !strings.Contains(string(got), `"source":"","prefix":""`) {
		t.Errorf("%s, %v", got, err)
	}
}

// A PBX has few accounts; whoever invents names must not take the place of the real ones for ever.
func TestInventedAccountsMakeRoom(t *testing.T) {
	e := New(config.Default().Policy)
	e.advanceTime(epoch)
	for i := range maxAccounts {
		e.accounts[uint64(i)] = &account{failingSources: []failingSource{{last: e.now}}}
	}
	if e.accountOf(1<<40) != nil || e.Stats(epoch).Limited["accounts"] == 0 {
		t.Error("there is no bound")
	}
	// In one call no more than a part of them go, and later the rest, as room is needed.
	if e.advanceTime(epoch.Add(2 * time.Hour)); e.accountOf(1<<40) == nil || len(e.accounts) < maxAccounts-sweepPart {
		t.Errorf("%d accounts are left of those that failed two hours ago", len(e.accounts))
	}
	const real = 20 * sweepPart
	for i := range uint64(real) {
		e.advanceTime(epoch.Add(2*time.Hour + time.Duration(i)*time.Duration(sweepPause)))
		if a := e.accountOf(1<<41 + i); a != nil {
			a.lastLogin = e.now
		}
	}
	for i := range uint64(real) {
		if e.accounts[1<<41+i] == nil {
			t.Fatalf("there was no room for account %d", i)
		}
	}
}

func TestALongNameIsCutBetweenCharacters(t *testing.T) {
	long := strings.Repeat("a", nameBytes-1) + "éé"
	e := New(config.Default().Policy)
	ev := event.Event{Type: event.InvalidAccountID, Service: event.PJSIP, Account: long, Session: "s",
		Remote: event.Address{AddrPort: netip.MustParseAddrPort("203.0.113.66:5060")}}
	for i := range 3 {
		ev.Session = strconv.Itoa(i)
		for _, d := range e.Handle(epoch, "pbx", &ev, nil) {
			if want := strings.Repeat("a", nameBytes-1) + "…"; d.Account != want {
				t.Errorf("account %q, want %q", d.Account, want)
			}
		}
	}
	if x := e.Why(epoch, netip.MustParseAddr("203.0.113.66")); x.Evidence[0].Account != x.Ban.Accounts[0] ||
		len(x.Ban.Accounts[0]) != nameBytes+2 {
		t.Errorf("%q", x.Evidence[0].Account)
	}
}
