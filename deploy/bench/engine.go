package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/staskobzar/goami2"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/ami"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/policy"
	"github.com/ringwall/ringwall/pkg/security"
)

// spent is the processor time of this thread: what others do on the machine is not in it, except for their use of the
// caches.
func spent() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return time.Duration(t.Nano())
}

// endless reads the same bytes again and again.
type endless struct {
	b  []byte
	at int
}

// Read implements io.Reader.
func (e *endless) Read(p []byte) (int, error) {
	if len(e.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, e.b[e.at:])
	e.at = (e.at + n) % len(e.b)
	return n, nil
}

// newEngine is an engine as the daemon has it, of which nothing is exempt that is measured.
func newEngine(now time.Time) *engine.Engine {
	e := engine.New(policy.Default().Policy)
	for _, p := range []string{"127.0.0.0/8", "192.0.2.1/32", "192.0.2.254/32"} {
		e.Allow(now, netip.MustParsePrefix(p), engine.OriginHost, "")
	}
	return e
}

// frames measures the way from bytes to score, beside goami2's Parse of the same frames: once where nobody is banned, once
// where every tenth event bans. Rounds alternate, so that all see the same machine; the best of each counts.
func frames(_ context.Context, o *options) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, c := range []struct {
		name    string
		sources int
	}{{"no bans", 50_000}, {"every tenth event a ban", 10_000}} {
		if err := way(c.name, c.sources, 3*o.rounds); err != nil {
			return err
		}
	}
	return nil
}

func way(name string, sources, rounds int) error {
	const events = 100_000
	begin := time.Now()
	stream := []byte{}
	var texts []string
	for n := range events {
		from := len(stream)
		stream = appendEvent(stream, begin, strconv.Itoa(1000+n%977), n, "UDP", nth(n%sources))
		texts = append(texts, string(stream[from:]))
	}
	e := newEngine(begin)
	now := begin
	var ev security.Event
	var out []engine.Decision
	var allocs uint64
	sp := ami.NewSplitter(&endless{b: stream}, ami.Limits{})
	steps := []struct {
		f    func(i int) error
		best time.Duration
	}{
		{f: func(int) error { _, err := sp.Next(); return err }},
		{f: func(i int) error { return security.Decode(texts[i][:len(texts[i])-4], &ev) }},
		{f: func(int) error {
			text, err := sp.Next()
			if err == nil {
				err = security.Decode(text, &ev)
			}
			out = e.Handle(now, "pbx", &ev, out[:0])
			now = now.Add(50 * time.Microsecond)
			return err
		}},
		{f: func(i int) error { _, err := goami2.Parse(texts[i]); return err }},
	}
	for range rounds {
		now = now.Add(200 * time.Hour) // bans end, points fade
		for more := true; more; {
			out, more = e.Tick(now, out[:0])
		}
		for k := range steps {
			s := &steps[k]
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			at := spent()
			for i := range events {
				if err := s.f(i); err != nil {
					return err
				}
			}
			if took := spent() - at; s.best == 0 || took < s.best {
				s.best = took
			}
			if runtime.ReadMemStats(&after); k == 2 {
				allocs = after.Mallocs - before.Mallocs
			}
		}
	}
	per := func(k int) float64 { return float64(steps[k].best.Nanoseconds()) / events }
	fmt.Printf("  %s: split, decode and score %.0f ns (split %.0f, decode %.0f), %.2f allocations; goami2.Parse alone %.0f ns: %.2f of it\n",
		name, per(2), per(0), per(1), float64(allocs)/events, per(3), per(2)/per(3))
	return nil
}

// sources measures an engine with more and more sources.
func sources(ctx context.Context, o *options) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	sessions := make([]string, 1<<18)
	for i := range sessions {
		sessions[i] = "5f1a9c3e-71bc-4d0a-9a6e-" + strconv.Itoa(1e11+i)
	}
	base := 0.0
	for _, n := range []int{1_000, 10_000, 100_000, 1_000_000} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		before := heap()
		now, calls := time.Now(), 0
		e := newEngine(now)
		var ev security.Event
		var out []engine.Decision
		longest := time.Duration(0)
		event := func(source int) {
			ev = security.Event{Type: security.InvalidAccountID, Service: security.PJSIP, Account: "1000", Time: now,
				Session: sessions[calls%len(sessions)],
				Remote:  security.Address{AddrPort: netip.AddrPortFrom(nth(source), 5060), Transport: security.UDP}}
			calls++
			out = e.Handle(now, "pbx", &ev, out[:0])
			now = now.Add(50 * time.Microsecond)
		}
		tick := func() {
			for more := true; more; {
				at := spent()
				out, more = e.Tick(now, out[:0])
				longest = max(longest, spent()-at)
			}
		}
		for i := range n {
			at := spent()
			event(i)
			longest = max(longest, spent()-at)
			if i%4096 == 0 {
				tick()
			}
		}
		used := heap() - before
		per := math.Inf(1)
		for round := range 5 * o.rounds {
			now = now.Add(time.Hour) // what there was fades: every round has the same scores
			tick()
			const part = 50_000
			at := spent()
			for i := range part {
				event((i + round*part) * 7919 % n)
			}
			per = min(per, float64((spent()-at).Nanoseconds())/part)
		}
		if base == 0 {
			base = per
		}
		// The end of everything: sources fade and are swept.
		now = now.Add(200 * time.Hour)
		tick()
		debug.FreeOSMemory()
		var gc debug.GCStats
		debug.ReadGCStats(&gc)
		slices.Sort(gc.Pause)
		fmt.Printf("  %7d sources: %4.0f bytes each, an event %4.0f ns (%.2f × that at 1,000); longest call %v, longest GC pause %v\n", n,
			float64(used)/float64(n), per, per/base, longest.Round(time.Microsecond), gc.Pause[len(gc.Pause)-1].Round(time.Microsecond))
		runtime.KeepAlive(e)
	}
	return nil
}

// heap is what is in use, in bytes.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
