package engine

import (
	"net/netip"
	"runtime"
	"runtime/metrics"
	"strconv"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
)

// TestNoCallCopiesMegabytes watches what each call takes of the heap while sources come, are banned, and are free
// again. Whatever is copied when it grows takes its new size in one call.
func TestNoCallCopiesMegabytes(t *testing.T) {
	const most = 2 << 20 // bytes in one call. A chunk of sources is 64 KB, but the runtime counts small things in lumps
	n := 60_000
	if testing.Short() || raceEnabled {
		n = 10_000
	}
	e := New(config.Default().Policy)
	now := epoch
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	taken := func() uint64 {
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	out := make([]ban.Decision, 0, 2000)
	last, worst := taken(), uint64(0)
	watch := func(what string) {
		at := taken()
		worst = max(worst, at-last)
		if at-last > most {
			t.Errorf("%s took %d bytes with %d sources and %d bans", what, at-last, e.sources.len(), len(e.bans))
		}
		last = at
	}
	for try := range 4 {
		for i := range n {
			ev := event.Event{Type: event.InvalidAccountID, Service: event.PJSIP, Account: "1000",
				Session: "call-" + strconv.Itoa(try*n+i),
				Remote:  event.Address{AddrPort: netip.AddrPortFrom(address(i), 5060), Transport: event.TLS}}
			if i%2 == 0 {
				ev.Type, ev.Account, ev.Challenge, ev.Response = event.ChallengeResponseFailed, strconv.Itoa(try),
					"1/a", ev.Session
			}
			out = e.Handle(now, "pbx", &ev, out[:0])
			watch("an event")
			now = now.Add(50 * time.Microsecond)
		}
	}
	if len(e.bans) < n/2 {
		t.Fatalf("%d bans of %d sources", len(e.bans), n)
	}
	now = now.Add(2 * time.Hour)
	for more := true; more; {
		out, more = e.Tick(now, out[:0])
		watch("a tick")
	}
	if len(e.bans) > 0 {
		t.Errorf("%d bans are left", len(e.bans))
	}
	t.Logf("at most %d bytes in one call", worst)
}

// TestMemoryOfSourcesThatGuess weighs sources of which everything is known that can be.
func TestMemoryOfSourcesThatGuess(t *testing.T) {
	const perSource, fixed = 250, 28 << 20 // bytes; as in the test of sources that only scan
	n := 200_000
	if testing.Short() || raceEnabled {
		n = 20_000
	}
	cfg := config.Default().Policy
	cfg.Targeted.Sources = 0
	e := New(cfg)
	before := inUse()
	now := epoch
	for i := range n {
		ev := event.Event{Type: event.ChallengeResponseFailed, Service: event.PJSIP,
			Account: strconv.Itoa(i % 100), Challenge: "1/a",
			Response: "x", Session: "call-" + strconv.Itoa(i),
			Remote: event.Address{AddrPort: netip.AddrPortFrom(address(i), 5060), Transport: event.UDP}}
		if out := e.Handle(now, "pbx", &ev, nil); len(out) > 0 {
			t.Fatalf("one wrong password: %+v", out[0])
		}
		now = now.Add(50 * time.Microsecond)
	}
	used := inUse() - before
	t.Logf("%d sources: %d MB, %d bytes each", n, used/1e6, used/uint64(n))
	if used > uint64(n)*perSource+fixed {
		t.Errorf("%d sources take %d bytes", n, used)
	}
	runtime.KeepAlive(e)
}
