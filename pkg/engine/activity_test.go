package engine_test

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

func tallied(a engine.Activity) (attempts, bans int) {
	for _, m := range a.Minutes {
		attempts += m.Attempts
		bans += m.Bans
	}
	return attempts, bans
}

func TestActivityCountsWhatGavePointsByMinute(t *testing.T) {
	w := newWorld(t)
	w.send(event.SuccessfulAuth, "198.51.100.1", "201", func(ev *event.Event) { ev.UsingPassword = true })
	for range 3 {
		w.send(event.InvalidAccountID, "203.0.113.5", "1000")
	}
	w.pass(10 * time.Minute)
	w.send(event.InvalidAccountID, "203.0.113.6", "1001")
	a := w.e.Activity(w.now, 10)
	if attempts, bans := tallied(a); attempts != 4 || bans != 1 {
		t.Errorf("%d attempts and %d bans, want 4 and 1", attempts, bans)
	}
	last := len(a.Minutes) - 1
	if got := []engine.Minute{a.Minutes[last-10], a.Minutes[last]}; got[0] != (engine.Minute{Attempts: 3, Bans: 1}) ||
		got[1] != (engine.Minute{Attempts: 1}) {
		t.Errorf("%+v", got)
	}
	if !a.Since.Equal(start) || a.Begin.After(w.now.Add(-23*time.Hour)) || len(a.Minutes) != 24*60 {
		t.Errorf("since %v, begin %v, %d minutes", a.Since, a.Begin, len(a.Minutes))
	}
	w.pass(25 * time.Hour)
	if attempts, bans := tallied(w.e.Activity(w.now, 10)); attempts+bans != 0 {
		t.Errorf("%d attempts and %d bans are left after a day", attempts, bans)
	}
}

func TestActivityCountsWhatObserveModeWouldHaveBanned(t *testing.T) {
	w := newWorld(t, func(p *config.Policy) { p.Mode = config.Observe })
	for range 3 {
		w.send(event.InvalidAccountID, "203.0.113.5", "1000")
	}
	if attempts, bans := tallied(w.e.Activity(w.now, 10)); attempts != 3 || bans != 1 {
		t.Errorf("%d attempts and %d bans, want 3 and 1", attempts, bans)
	}
}

func TestTheMostTriedAccountsOutliveAFloodOfInventedNames(t *testing.T) {
	w := newWorld(t)
	for i := range 40_000 {
		name := "junk-" + strconv.Itoa(i)
		if i%20 == 0 {
			name = "1000"
		}
		w.send(event.InvalidAccountID, fmt.Sprintf("100.%d.%d.%d", i>>16, i>>8&255, i&255), name)
		w.now = w.now.Add(time.Millisecond)
	}
	a := w.e.Activity(w.now, 5)
	if len(a.Accounts) != 5 || a.Accounts[0].Account != "1000" {
		t.Fatalf("%+v; want 1000 first", a.Accounts)
	}
	if n := a.Accounts[0].Tries; n > 2000 || n < 1900 {
		t.Errorf("%d tries, want at most 2000, and nearly that", n)
	}
	if a.Accounts[0].Sources != 300 {
		t.Errorf("%d sources, want the number that stands for many", a.Accounts[0].Sources)
	}
	for _, other := range a.Accounts[1:] {
		if other.Tries != 1 {
			t.Errorf("%+v was tried once", other)
		}
	}
}

func TestTriedAccountsAreForgottenAfterADay(t *testing.T) {
	w := newWorld(t)
	w.send(event.InvalidAccountID, "203.0.113.5", "old")
	w.pass(11 * time.Hour)
	w.send(event.InvalidAccountID, "203.0.113.6", strings.Repeat("x", 100))
	names := func() (list []string) {
		for _, x := range w.e.Activity(w.now, 10).Accounts {
			list = append(list, x.Account)
		}
		return list
	}
	long := strings.Repeat("x", 39) + "…"
	if got := names(); fmt.Sprint(got) != fmt.Sprint([]string{long, "old"}) {
		t.Errorf("%q", got)
	}
	w.pass(12 * time.Hour)
	if got := names(); len(got) != 2 {
		t.Errorf("%q after 23 hours", got)
	}
	w.pass(2 * time.Hour)
	w.send(event.InvalidAccountID, "203.0.113.7", "new")
	if got := names(); fmt.Sprint(got) != "[new]" {
		t.Errorf("%q after 25 hours", got)
	}
	w.pass(48 * time.Hour)
	if got := names(); len(got) != 0 {
		t.Errorf("%q two days later", got)
	}
}

func TestTheNewestBansComeFirst(t *testing.T) {
	w := newWorld(t)
	for i := range 6 {
		for range 3 {
			w.send(event.InvalidAccountID, fmt.Sprintf("203.0.113.%d", i), "1000")
		}
		w.pass(time.Minute)
	}
	w.e.Unban(w.now, netip.MustParsePrefix("203.0.113.4/32"), 0)
	list := func(n int) string {
		var s []string
		for _, b := range w.e.NewestBans(w.now, n) {
			s = append(s, strings.TrimSuffix(strings.TrimPrefix(b.Prefix.String(), "203.0.113."), "/32"))
		}
		return strings.Join(s, " ")
	}
	if got := list(3); got != "5 3 2" {
		t.Errorf("%s, want 5 3 2", got)
	}
	if _, err := w.e.Ban(w.now, netip.MustParsePrefix("203.0.113.1/32"), 100*time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	if got := list(100); got != "1 5 3 2 0" {
		t.Errorf("%s, want the extended one first", got)
	}
	state := w.e.Export(w.now)
	w.e = engine.New(config.Default().Policy)
	w.e.Restore(w.now, state, nil)
	if got := list(100); got != "1 5 3 2 0" {
		t.Errorf("%s after a restart", got)
	}
	w.pass(2 * time.Hour)
	if got := list(100); got != "1" {
		t.Errorf("%s after two hours", got)
	}
	w.e.UnbanAll(w.now)
	if got := list(100); got != "" {
		t.Errorf("%s after unban --all", got)
	}
}

func TestTrustedSourcesThatFailComeFirst(t *testing.T) {
	w := newWorld(t)
	for i := range 200 {
		w.send(event.SuccessfulAuth, fmt.Sprintf("198.51.100.%d", i), "201",
			func(ev *event.Event) { ev.UsingPassword = true })
		w.now = w.now.Add(time.Second)
	}
	w.send(event.ChallengeResponseFailed, "198.51.100.7", "202",
		func(ev *event.Event) { ev.Challenge, ev.Response = "1/a", "b" })
	var got []string
	for _, v := range w.e.NewestTrusted(w.now, 3) {
		got = append(got, v.Prefix.String())
	}
	if fmt.Sprint(got) != "[198.51.100.7/32 198.51.100.199/32 198.51.100.198/32]" {
		t.Error(got)
	}
}

// The cost of one attempt in the tally, with names that are new each time: the worst case.
func TestTheTallyAllocatesNothing(t *testing.T) {
	w := newWorld(t, func(p *config.Policy) { p.Threshold = 1e6 })
	names := make([]string, 4096)
	for i := range names {
		names[i] = "name-" + strconv.Itoa(i)
	}
	i, out := 0, []ban.Decision(nil)
	ev := event.Event{Type: event.FailedACL, Service: event.AMI, Session: "0x1"}
	ev.Remote = event.Address{AddrPort: netip.MustParseAddrPort("203.0.113.5:4000"), Transport: event.TCP}
	out = w.e.Handle(w.now, "pbx", &ev, out)
	if n := testing.AllocsPerRun(4000, func() {
		ev.Account = names[i%len(names)]
		i++
		out = w.e.Handle(w.now, "pbx", &ev, out[:0])
	}); n != 0 {
		t.Errorf("%v allocations an event", n)
	}
	if a, _ := tallied(w.e.Activity(w.now, 1)); a < 4000 {
		t.Errorf("%d attempts were tallied", a)
	}
}
