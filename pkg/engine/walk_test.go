package engine_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
)

func crowd(t *testing.T, w *world, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{32, 0, byte(i >> 8), byte(i)}), 32)
		if _, err := w.e.Ban(w.now, p, time.Hour, ""); err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(time.Millisecond)
	}
}

// Whoever reads a long list sees everybody who is banned all the while, once, though bans end and begin between its
// pieces.
func TestAWalkMeetsEachBanOnceWhileOthersComeAndGo(t *testing.T) {
	w := newWorld(t)
	crowd(t, w, 0, 1000)
	var walk engine.BanWalk
	met, ended := make(map[string]int), make(map[string]bool)
	var last time.Time
	for n, more := 0, true; more; n++ {
		var some []ban.Ban
		if some, more = w.e.WalkBans(w.now, &walk, 10, netip.Prefix{}, false, nil); len(some) > 10 {
			t.Fatalf("a step of 10 has %d", len(some))
		}
		for _, v := range some {
			met[v.Prefix.String()]++
			if !last.IsZero() && v.Since.After(last) {
				t.Errorf("%s is newer than the one before", v.Prefix)
			}
			last = v.Since
		}
		// Behind the walk, before it, where it stands, and in a whole piece.
		for _, i := range []int{999 - 10*n, 989 - 10*n, 988 - 10*n, 900 - 11*n, 7 * n} {
			if p := fmt.Sprintf("32.0.%d.%d/32", i>>8, i&255); i >= 0 && i < 1000 {
				w.e.Unban(w.now, netip.MustParsePrefix(p), 0)
				ended[p] = true
			}
		}
		crowd(t, w, 1000+5*n, 5)
	}
	for i := range 1000 {
		p := fmt.Sprintf("32.0.%d.%d/32", i>>8, i&255)
		if n := met[p]; n > 1 || n == 0 && !ended[p] {
			t.Errorf("%s was met %d times", p, n)
		}
	}
	if len(met) > 1000 {
		t.Error("bans that came later were met")
	}
}

func TestAWalkMeetsOnlyWhatOverlaps(t *testing.T) {
	w := newWorld(t)
	crowd(t, w, 0, 600)
	var walk engine.BanWalk
	var all []ban.Ban
	for more := true; more; {
		all, more = w.e.WalkBans(w.now, &walk, 7, netip.MustParsePrefix("32.0.1.0/28"), false, all)
	}
	if len(all) != 16 {
		t.Errorf("%d bans of 16", len(all))
	}
	if v, ok := w.e.ActiveBan(w.now, netip.MustParsePrefix("32.0.1.3/32")); !ok || v.Prefix.String() != "32.0.1.3/32" ||
		!v.Manual {
		t.Errorf("%+v, %v", v, ok)
	}
	if v, ok := w.e.ActiveBan(w.now, netip.MustParsePrefix("32.0.1.0/24")); ok {
		t.Errorf("a ban that nobody made: %+v", v)
	}
}

func TestAWalkMeetsEachTrustedSourceOnce(t *testing.T) {
	w := newWorld(t)
	for i := range 300 {
		w.login(fmt.Sprintf("192.0.2.%d", i%250+1), fmt.Sprintf("20%d", i))
	}
	var walk engine.TrustWalk
	met := make(map[string]int)
	for more := true; more; {
		var some []ban.Trust
		if some, more = w.e.WalkTrust(w.now, &walk, 16, nil); len(some) > 16 {
			t.Fatalf("a step of 16 has %d", len(some))
		}
		for _, v := range some {
			met[v.Prefix.String()]++
		}
		w.login(fmt.Sprintf("198.51.100.%d", len(met)%250+1), "300") // others come
	}
	walk.Close()
	for i := range 250 {
		if p := fmt.Sprintf("192.0.2.%d/32", i+1); met[p] != 1 {
			t.Errorf("%s was met %d times", p, met[p])
		}
	}
}

// Letting everybody in goes on beside the events, in steps that do not depend on how many are banned.
func TestEverybodyIsLetInStepByStep(t *testing.T) {
	for _, grace := range []time.Duration{0, time.Hour} {
		w := newWorld(t)
		for range 3 {
			w.scan("203.0.113.7", "100")
		}
		crowd(t, w, 0, 1000)
		p := engine.NewPardon(netip.Prefix{}, grace)
		var ended, graces int
		for more := true; more; {
			var out []ban.Decision
			if out, more = w.e.UnbanSome(w.now, p, 16); len(out) > 16 {
				t.Fatalf("a step of 16 ended %d", len(out))
			}
			ended, graces = ended+len(out), graces+len(p.Graces)
			for _, g := range p.Graces { // a clock that is set back later must not prolong it
				if !g.Since.Equal(w.now) || g.Until.Sub(g.Since) != grace {
					t.Fatalf("a grace of %v from %v until %v", grace, g.Since, g.Until)
				}
			}
		}
		if s := w.e.Stats(w.now); ended != 1001 || s.Bans != 0 {
			t.Errorf("%d of 1001 ended, %d are left", ended, s.Bans)
		}
		for range 9 {
			w.scan("203.0.113.7", "100")
		}
		if w.banned("203.0.113.7") != (grace == 0) {
			t.Errorf("with a grace of %v, banned again: %v", grace, grace != 0)
		}
		if want := map[bool]int{true: 1001}[grace > 0]; graces != want {
			t.Errorf("%d graces of %d", graces, want)
		}
	}
}

// BenchmarkUnbanAllWithGrace lets 100,000 in, each with a grace, with guesses of 60,000 pairs in the books.
func BenchmarkUnbanAllWithGrace(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		w := newWorld(nil)
		for i := range 60_000 {
			w.wrong(fmt.Sprintf("33.%d.%d.1", i>>8, i&255), "201")
		}
		for i := range 100_000 {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{32, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
			_, _ = w.e.Ban(w.now, p, time.Hour, "")
		}
		p := engine.NewPardon(netip.Prefix{}, time.Hour)
		var longest time.Duration
		b.StartTimer()
		for more := true; more; {
			at := time.Now()
			_, more = w.e.UnbanSome(w.now, p, 128)
			longest = max(longest, time.Since(at))
		}
		b.ReportMetric(float64(longest.Microseconds()), "µs/longest-step")
	}
}
