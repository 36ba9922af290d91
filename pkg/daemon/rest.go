package daemon

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	briskTick  = 200 * time.Millisecond // while events come: bans and challenges end on time
	slowTick   = time.Second            // while none do
	restAfter  = 5 * time.Second        // without an event, and all is slow
	calmEvents = 500                    // in restAfter: what phones do, no flood
	spareHeap  = 6 << 20                // bytes that are not in use and not worth the work of giving them back
	spareTime  = time.Minute            // between two times of giving memory back
)

// rest says whether the daemon has little to do, and gives memory back to the system then: a flood and the reading of a
// hundred thousand stored bans leave a heap of several times what is in use, and without work the collector would not
// look at it.
type rest struct {
	events uint64
	last   time.Time // event
	from   time.Time // beginning of the present span of restAfter
	before uint64    // events then
	gave   time.Time // memory back
	sample []metrics.Sample
}

func newRest(now time.Time) *rest {
	return &rest{last: now, from: now, sample: []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/heap/live:bytes"},
	}}
}

// tick notes how many events there have been. It returns when the next tick is due, and whether this is the end of a calm
// span, so that memory may be given back.
func (r *rest) tick(now time.Time, events uint64) (next time.Duration, calm bool) {
	if events != r.events {
		r.events, r.last = events, now
	}
	if now.Sub(r.from) >= restAfter {
		calm = events-r.before <= calmEvents && (r.gave.IsZero() || now.Sub(r.gave) >= spareTime)
		r.from, r.before = now, events
	}
	if now.Sub(r.last) < restAfter {
		return briskTick, calm
	}
	return slowTick, calm
}

// spare says whether giving memory back is worth while.
func (r *rest) spare() bool {
	metrics.Read(r.sample)
	var n [4]uint64
	for i, s := range r.sample {
		if s.Value.Kind() != metrics.KindUint64 {
			return false
		}
		n[i] = s.Value.Uint64()
	}
	objects, unused, free, live := n[0], n[1], n[2], n[3]
	return objects+unused+free > live+live/8+spareHeap
}

// relax gives memory back.
func (r *rest) relax(now time.Time) {
	runtime.GC() // pools let go of what they hold at the second collection
	debug.FreeOSMemory()
	r.gave = now
}

// events is how many events came from all Asterisks.
func (d *Daemon) events() (n uint64) {
	for _, p := range d.pbxs {
		n += p.events.Load()
	}
	return n
}

// beat drives the engine's time and systemd's watchdog.
func (d *Daemon) beat(ctx context.Context) error {
	rest := newRest(time.Now())
	tick := time.NewTimer(briskTick)
	defer tick.Stop()
	renew := time.NewTicker(5 * time.Minute)
	defer renew.Stop()
	dog := newWatchdog()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			d.pipeline.Tick()
			dog.pat(d)
			now := time.Now()
			next, calm := rest.tick(now, d.events())
			if calm && rest.spare() {
				rest.relax(now)
			}
			tick.Reset(next)
		case <-renew.C:
			for _, p := range d.pbxs {
				if p.session.Status().Up { // what Asterisk knew before it went away grows old
					d.pipeline.Vouch(p.name, p.learner.Knowledge().Contacts)
				}
			}
			d.pipeline.SaveCustomers()
			d.known.names.keep(d.known.resolver.States(), false)
			d.pipeline.RefreshTrust()
		}
	}
}

// behind is a task that begins when something else is done.
type behind struct {
	Task
	after <-chan struct{}
}

// Run implements Task.
func (b behind) Run(ctx context.Context) error {
	select {
	case <-b.after:
	case <-ctx.Done(): // it cleans up all the same
	}
	return b.Task.Run(ctx)
}
