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

	"github.com/staskobzar/goami2"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/asterisk/ami"
	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

// cpuTime is the processor time so far of this thread or of the process, as clock says. What others do on the machine
// is not in it, but for their use of the caches.
func cpuTime(clock int32) time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(clock, &t)
	return time.Duration(t.Nano())
}

// repeatingReader reads the same bytes again and again.
type repeatingReader struct {
	b  []byte
	at int
}

// Read implements io.Reader.
func (e *repeatingReader) Read(p []byte) (int, error) {
	if len(e.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, e.b[e.at:])
	e.at = (e.at + n) % len(e.b)
	return n, nil
}

// newEngine is an engine as the daemon has it, of which nothing is exempt that is measured.
func newEngine(now time.Time) *engine.Engine {
	e := engine.New(config.Default().Policy)
	for _, p := range []string{"127.0.0.0/8", "192.0.2.1/32", "192.0.2.254/32"} {
		e.Allow(now, netip.MustParsePrefix(p), engine.OriginHost, "")
	}
	return e
}

// measureFrames measures the way from bytes to score, beside goami2's Parse of the same frames: once where nobody is
// banned, once where every tenth event bans. Rounds alternate, so that all see the same machine; the best of each
// counts.
func measureFrames(_ context.Context, o *options) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, c := range []struct {
		name    string
		sources int
	}{{"no bans", 50_000}, {"every tenth event a ban", 10_000}} {
		if err := measurePath(c.name, c.sources, 5*o.rounds); err != nil {
			return err
		}
	}
	return nil
}

// framePath is the way of a frame from the socket's bytes to the score, as in the daemon.
type framePath struct {
	stream    *ami.Splitter
	event     event.Event
	engine    *engine.Engine
	now       time.Time
	decisions []ban.Decision
}

// newPath makes a path for events of so many sources, one after the other, and returns the events, too.
func newPath(events, sources int) (*framePath, []string) {
	begin := time.Now()
	var stream []byte
	var texts []string
	for n := range events {
		from := len(stream)
		stream = appendEvent(stream, begin, strconv.Itoa(1000+n%977), n, "UDP", nthAddress(n%sources))
		texts = append(texts, string(stream[from:]))
	}
	return &framePath{stream: ami.NewSplitter(&repeatingReader{b: stream}, ami.Limits{}),
		engine: newEngine(begin), now: begin}, texts
}

// split takes the next frame off the stream.
func (p *framePath) split() (string, error) {
	return p.stream.Next()
}

// takeFrame takes the next frame all the way.
func (p *framePath) takeFrame() error {
	text, err := p.split()
	if err != nil {
		return err
	}
	if err = event.Decode(text, &p.event); err != nil {
		return err
	}
	p.decisions = p.engine.Handle(p.now, "pbx", &p.event, p.decisions[:0])
	p.now = p.now.Add(50 * time.Microsecond)
	return nil
}

// letPointsFade lets so much time pass that all bans have ended and all points are forgotten.
func (p *framePath) letPointsFade() {
	p.now = p.now.Add(200 * time.Hour)
	for more := true; more; {
		p.decisions, more = p.engine.Tick(p.now, p.decisions[:0])
	}
}

// measurePath measures a path and its parts. What each costs is taken twice: on the thread that does it, and in the
// whole process, with the collection of the garbage that it left.
func measurePath(name string, sources, rounds int) error {
	const events = 100_000
	p, texts := newPath(events, sources)
	var ev event.Event
	steps := []struct {
		f             func(i int) error
		thread, whole time.Duration
		allocs        uint64
	}{
		{f: func(i int) error { _, err := p.split(); return err }},
		{f: func(i int) error { return event.Decode(texts[i][:len(texts[i])-4], &ev) }},
		{f: func(int) error { return p.takeFrame() }},
		{f: func(i int) error { _, err := goami2.Parse(texts[i]); return err }},
	}
	for round := range rounds {
		p.letPointsFade()
		for k := range steps {
			s := &steps[k]
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			at, all := cpuTime(unix.CLOCK_THREAD_CPUTIME_ID), cpuTime(unix.CLOCK_PROCESS_CPUTIME_ID)
			for i := range events {
				if err := s.f(i); err != nil {
					return err
				}
			}
			thread := cpuTime(unix.CLOCK_THREAD_CPUTIME_ID) - at
			runtime.ReadMemStats(&after)
			runtime.GC()
			whole := cpuTime(unix.CLOCK_PROCESS_CPUTIME_ID) - all
			if round == 0 {
				s.thread, s.whole = thread, whole
			}
			s.thread, s.whole, s.allocs = min(s.thread, thread), min(s.whole, whole), after.Mallocs-before.Mallocs
		}
	}
	per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / events }
	all, parse := &steps[2], &steps[3]
	fmt.Printf("  %s: split, decode and score %.0f ns (split %.0f, decode %.0f, score %.0f), %.2f allocations; "+
		"goami2.Parse alone %.0f ns: %.2f of it\n",
		name, per(all.thread), per(steps[0].thread), per(steps[1].thread),
		per(all.thread-steps[0].thread-steps[1].thread),
		float64(all.allocs)/events, per(parse.thread), all.thread.Seconds()/parse.thread.Seconds())
	fmt.Printf("  … with the garbage: %.0f ns, goami2.Parse alone %.0f ns: %.2f of it\n",
		per(all.whole), per(parse.whole), all.whole.Seconds()/parse.whole.Seconds())
	return nil
}

// crowd is an engine that is measured with events of many sources.
type crowd struct {
	engine    *engine.Engine
	now       time.Time
	sessions  []string
	calls     int
	decisions []ban.Decision
	timed     bool
	longest   time.Duration // of one call of the engine, of this thread
}

// sendEvent lets a source send an InvalidAccountID.
func (c *crowd) sendEvent(source int) {
	ev := event.Event{Type: event.InvalidAccountID, Service: event.PJSIP, Account: "1000", Time: c.now,
		Session: c.sessions[c.calls%len(c.sessions)],
		Remote:  event.Address{AddrPort: netip.AddrPortFrom(nthAddress(source), 5060), Transport: event.UDP}}
	c.calls++
	c.timeCall(func() { c.decisions = c.engine.Handle(c.now, "pbx", &ev, c.decisions[:0]) })
	c.now = c.now.Add(50 * time.Microsecond)
}

// passTime lets time pass.
func (c *crowd) passTime(d time.Duration) {
	c.now = c.now.Add(d)
	for more := true; more; {
		c.timeCall(func() { c.decisions, more = c.engine.Tick(c.now, c.decisions[:0]) })
	}
}

func (c *crowd) timeCall(f func()) {
	if !c.timed {
		f()
		return
	}
	at := cpuTime(unix.CLOCK_THREAD_CPUTIME_ID)
	f()
	c.longest = max(c.longest, cpuTime(unix.CLOCK_THREAD_CPUTIME_ID)-at)
}

// measureSources measures an engine with more and more sources: what each weighs, what an event costs, and the
// longest call of the engine while they come, while a tenth of them is banned, and while all of that ends at once.
func measureSources(ctx context.Context, o *options) error {
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
		before, pauses := heapInUse(), gcPauses()
		now := time.Now()
		c := crowd{engine: newEngine(now), now: now, sessions: sessions, timed: true}
		for i := range n {
			c.sendEvent(i)
			if i%4096 == 0 {
				c.passTime(0)
			}
		}
		filled := c.longest
		used := heapInUse() - before
		c.timed = false
		per := math.Inf(1)
		for range 5 * o.rounds {
			took, events := time.Duration(0), 0
			for events < 50_000 { // all are alike: of a known source, after half an hour of quiet
				c.passTime(30 * time.Minute)
				at := cpuTime(unix.CLOCK_THREAD_CPUTIME_ID)
				for i := range n {
					c.sendEvent(i * 7919 % n)
				}
				took += cpuTime(unix.CLOCK_THREAD_CPUTIME_ID) - at
				events += n
			}
			per = min(per, float64(took.Nanoseconds())/float64(events))
		}
		if base == 0 {
			base = per
		}
		c.timed, c.longest = true, 0
		for i := range 4 * n / 10 {
			c.sendEvent(i % (n / 10))
		}
		banned := c.longest
		c.longest = 0
		bans := len(c.engine.EnforcedBans(c.now))
		c.passTime(200 * time.Hour)
		for range n / 500 { // the sources are swept a part at a time
			c.passTime(0)
		}
		fmt.Printf("  %7d sources: %4.0f bytes each, an event %4.0f ns (%.2f × that at 1,000); longest call: growing "+
			"%v, banning %v, when %d bans end %v; longest GC pause %v\n",
			n, float64(used)/float64(n), per, per/base, toMicroseconds(filled), toMicroseconds(banned), bans,
			toMicroseconds(c.longest),
			toMicroseconds(longestSince(pauses)))
		runtime.KeepAlive(c.engine)
	}
	return nil
}

func toMicroseconds(d time.Duration) time.Duration { return d.Round(time.Microsecond) }

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

// heapInUse is the memory of the heap that is in use, in bytes, after a collection.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
