package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/netip"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"time"
	"unsafe"

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

// pageSize is more than the texts of a batch take.
const pageSize = 64 << 10

// batch is how many events the daemon decodes before it has the first of them judged.
const batch = 16

// frames measures the way from bytes to score, beside goami2's Parse of the same frames: once where nobody is banned, once
// where every tenth event bans. Rounds alternate, so that all see the same machine; the best of each counts.
func frames(_ context.Context, o *options) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, c := range []struct {
		name    string
		sources int
	}{{"no bans", 50_000}, {"every tenth event a ban", 10_000}} {
		if err := way(c.name, c.sources, 5*o.rounds); err != nil {
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
	var evs [batch]security.Event
	var out []engine.Decision
	var allocs uint64
	room := make([]byte, 0, pageSize) // the texts of a batch, as the daemon has them: copied, in memory that is used again
	var decoder, alone security.Decoder
	sp := ami.NewSplitter(&endless{b: stream}, ami.Limits{})
	split := func(i int) (string, error) {
		frame, err := sp.NextBytes()
		if i%batch == 0 {
			room = room[:0]
		}
		room = append(room, frame...)
		text := room[len(room)-len(frame):]
		return unsafe.String(unsafe.SliceData(text), len(text)), err
	}
	steps := []struct {
		f    func(i int) error
		best time.Duration
	}{
		{f: func(i int) error { _, err := split(i); return err }},
		{f: func(i int) error { return alone.Decode(texts[i][:len(texts[i])-4], &evs[0]) }},
		{f: func(i int) error {
			text, err := split(i)
			if err == nil {
				err = decoder.Decode(text, &evs[i%batch])
			}
			if err != nil || i%batch < batch-1 {
				return err
			}
			out = e.HandleAll(now, "pbx", evs[:], out[:0], nil)
			now = now.Add(batch * 50 * time.Microsecond)
			return nil
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
	fmt.Printf("  %s: split, decode and score %.0f ns (split %.0f, decode %.0f, score %.0f), %.2f allocations; goami2.Parse alone %.0f ns: %.2f of it\n",
		name, per(2), per(0), per(1), per(2)-per(0)-per(1), float64(allocs)/events, per(3), per(2)/per(3))
	return nil
}

// crowd is an engine under measurement, with events of many sources.
type crowd struct {
	engine   *engine.Engine
	now      time.Time
	sessions []string
	calls    int
	events   [batch]security.Event
	out      []engine.Decision
	timed    bool
	longest  time.Duration // of one call of the engine, of this thread
}

// event lets a source send an InvalidAccountID. The engine gets them as the daemon gives them, batch by batch.
func (c *crowd) event(source int) {
	c.events[c.calls%batch] = security.Event{Type: security.InvalidAccountID, Service: security.PJSIP, Account: "1000", Time: c.now,
		Session: c.sessions[c.calls%len(c.sessions)],
		Remote:  security.Address{AddrPort: netip.AddrPortFrom(nth(source), 5060), Transport: security.UDP}}
	if c.calls++; c.calls%batch > 0 {
		return
	}
	c.call(func() { c.out = c.engine.HandleAll(c.now, "pbx", c.events[:], c.out[:0], nil) })
	c.now = c.now.Add(batch * 50 * time.Microsecond)
}

// tick lets time pass.
func (c *crowd) tick(d time.Duration) {
	c.now = c.now.Add(d)
	for more := true; more; {
		c.call(func() { c.out, more = c.engine.Tick(c.now, c.out[:0]) })
	}
}

func (c *crowd) call(f func()) {
	if !c.timed {
		f()
		return
	}
	at := spent()
	f()
	c.longest = max(c.longest, spent()-at)
}

// sources measures an engine with more and more sources: what each weighs, what an event costs, and the longest call of the
// engine while they come, while a tenth of them is banned, and while all of that ends at once.
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
		before, pauses := heap(), gcPauses()
		now := time.Now()
		c := crowd{engine: newEngine(now), now: now, sessions: sessions, timed: true}
		for i := range n {
			c.event(i)
			if i%4096 == 0 {
				c.tick(0)
			}
		}
		filled := c.longest
		used := heap() - before
		c.timed = false
		per := math.Inf(1)
		for range 5 * o.rounds {
			took, events := time.Duration(0), 0
			for events < 50_000 { // all are alike: of a known source, after half an hour of quiet
				c.tick(30 * time.Minute)
				at := spent()
				for i := range n {
					c.event(i * 7919 % n)
				}
				took += spent() - at
				events += n
			}
			per = min(per, float64(took.Nanoseconds())/float64(events))
		}
		if base == 0 {
			base = per
		}
		c.timed, c.longest = true, 0
		for i := range 4 * n / 10 {
			c.event(i % (n / 10))
		}
		banned := c.longest
		c.longest = 0
		bans := len(c.engine.Enforced(c.now))
		c.tick(200 * time.Hour)
		for range n / 500 { // the sources are swept a part at a time
			c.tick(0)
		}
		fmt.Printf("  %7d sources: %4.0f bytes each, an event %4.0f ns (%.2f × that at 1,000); longest call: growing %v, banning %v, when %d bans end %v; longest GC pause %v\n",
			n, float64(used)/float64(n), per, per/base, micro(filled), micro(banned), bans, micro(c.longest), micro(longestSince(pauses)))
		runtime.KeepAlive(c.engine)
	}
	return nil
}

func micro(d time.Duration) time.Duration { return d.Round(time.Microsecond) }

// gcPauses counts the pauses of the garbage collector by their length, by the wall's clock.
func gcPauses() *metrics.Float64Histogram {
	s := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}}
	metrics.Read(s)
	h := s[0].Value.Float64Histogram()
	return &metrics.Float64Histogram{Counts: slices.Clone(h.Counts), Buckets: h.Buckets}
}

// longestSince returns the upper bound of the longest pause since before.
func longestSince(before *metrics.Float64Histogram) time.Duration {
	now := gcPauses()
	for i := len(now.Counts) - 1; i >= 0; i-- {
		if now.Counts[i] > before.Counts[i] {
			return time.Duration(now.Buckets[min(i+1, len(now.Buckets)-2)] * float64(time.Second))
		}
	}
	return 0
}

// heap is what is in use, in bytes.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
