package engine_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
)

func TestAnAllowanceEnds(t *testing.T) {
	w := newWorld(t)
	p := netip.MustParsePrefix("203.0.113.5/32")
	if end, _ := w.e.AllowUntil(w.now, p, w.now.Add(time.Hour), ""); !end.Equal(w.now.Add(time.Hour)) {
		t.Errorf("%v", end)
	}
	lines := strings.Join(w.e.Why(w.now, p.Addr()).Lines, "\n")
	if !strings.Contains(lines, "that ends at 2026-11-22 13:00:00 UTC") ||
		!strings.Contains(lines, "ringwall allow del") {
		t.Error(lines)
	}
	// Put off: the first timer does not end it.
	w.e.AllowUntil(w.now, p, w.now.Add(2*time.Hour), "")
	w.pass(90 * time.Minute)
	if !w.e.IsExempt(p.Addr()) || len(w.e.TakeLapsedAllows()) != 0 {
		t.Error("an allowance that was put off has ended")
	}
	w.pass(time.Hour)
	if got := w.e.TakeLapsedAllows(); w.e.IsExempt(p.Addr()) || len(got) != 1 || got[0] != p ||
		len(w.e.TakeLapsedAllows()) != 0 {
		t.Errorf("spared %t, lapsed %v", w.e.IsExempt(p.Addr()), got)
	}
}

// The doctor's test is no ban in the chart, and whoever passes decisions on can tell it.
func TestADoctorsTestIsNotCounted(t *testing.T) {
	w := newWorld(t)
	p := netip.MustParsePrefix("192.0.2.254/32")
	for _, end := range []func() []ban.Decision{
		func() []ban.Decision { return w.e.Unban(w.now, p, 0) },
		func() []ban.Decision { w.log = nil; return w.pass(10 * time.Second).log },
		func() []ban.Decision { return w.e.UnbanAll(w.now) },
	} {
		out, err := w.e.BanForTest(w.now, p, 5*time.Second, "a test")
		if err != nil || len(out) != 1 || out[0].Action != ban.ActionBan || out[0].Reason != ban.ReasonTest {
			t.Fatalf("%+v, %v", out, err)
		}
		if _, ok := w.e.BanOf(p); !ok {
			t.Fatal("it is not banned")
		}
		if out = end(); len(out) != 1 || out[0].Action != ban.ActionUnban || out[0].Reason != ban.ReasonTest {
			t.Errorf("%+v", out)
		}
	}
	for _, m := range w.e.Activity(w.now, 1).Minutes {
		if m.Bans != 0 {
			t.Errorf("the chart counts %d", m.Bans)
		}
	}
	if _, err := w.e.Ban(w.now, p, time.Minute, ""); err != nil {
		t.Fatal(err)
	}
	if minutes := w.e.Activity(w.now, 1).Minutes; minutes[len(minutes)-1].Bans != 1 {
		t.Error("a ban by hand is not counted")
	}
}

func TestAnAllowanceEndsForItsOriginAlone(t *testing.T) {
	w := newWorld(t)
	p := netip.MustParsePrefix("203.0.113.5/32")
	w.e.Allow(w.now, p, "sip.example.net", "")
	w.e.AllowUntil(w.now, p, w.now.Add(time.Minute), "")
	w.pass(time.Hour)
	if !w.e.IsExempt(p.Addr()) {
		t.Error("the name's own allowance ended")
	}
	// For ever is longer than any time, before and after.
	w.e.AllowUntil(w.now, p, time.Time{}, "")
	if end, _ := w.e.AllowUntil(w.now, p, w.now.Add(time.Minute), ""); !end.IsZero() {
		t.Errorf("for ever became %v", end)
	}
	// One that was taken off and put on again is not ended by the timer of before.
	q := netip.MustParsePrefix("203.0.113.6/32")
	w.e.AllowUntil(w.now, q, w.now.Add(time.Minute), "")
	w.e.Disallow(q, engine.OriginManual)
	w.e.AllowUntil(w.now, q, time.Time{}, "")
	w.pass(time.Hour)
	if !w.e.IsExempt(q.Addr()) {
		t.Error("ended by an older timer")
	}
	if end, _ := w.e.AllowUntil(w.now, netip.MustParsePrefix("203.0.113.7/32"), w.now, ""); end.IsZero() ||
		w.e.IsExempt(netip.MustParseAddr("203.0.113.7")) {
		t.Error("what is over at once is allowed")
	}
}

// The one who is refused must see which of the two networks is the larger.
func TestARefusedBanSaysWhichHoldsWhich(t *testing.T) {
	w := newWorld(t)
	w.e.Allow(w.now, netip.MustParsePrefix("192.0.2.0/24"), "policy.allow", "")
	w.e.Protect(w.now, "pbx1", map[netip.Prefix]string{netip.MustParsePrefix("198.51.100.0/24"): "trunk"})
	for p, want := range map[string]string{
		"192.0.2.10/32": "192.0.2.10/32 is in 192.0.2.0/24, which is allowed", "192.0.2.0/23": "holds 192.0.2.0/24",
		"192.0.0.0/16":    "192.0.0.0/16 holds 192.0.2.0/24, which is allowed",
		"192.0.2.0/24":    ": 192.0.2.0/24, which is allowed",
		"198.51.100.7/32": "198.51.100.7/32 is in 198.51.100.0/24, which Asterisk knows",
		"198.51.0.0/16":   "198.51.0.0/16 holds 198.51.100.0/24, which Asterisk knows",
	} {
		if _, err := w.e.Ban(w.now, netip.MustParsePrefix(p), time.Hour, ""); !errors.Is(err, engine.ErrRefused) ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", p, err)
		}
	}
}
