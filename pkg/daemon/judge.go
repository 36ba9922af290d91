package daemon

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringwall/ringwall/pkg/ami"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/metrics"
	"github.com/ringwall/ringwall/pkg/security"
	"github.com/ringwall/ringwall/pkg/store"
)

// clock is the wall's time at the start, moved on by the monotonic clock: the time of the engine does not jump when
// somebody sets the wall clock.
type clock struct {
	wall  time.Time // at the start
	start time.Time // the same moment, with the monotonic clock
}

func newClock(start time.Time) clock { return clock{wall: start.Round(0), start: start} }

func (c clock) now() time.Time { return c.at(time.Now()) }

// at is the clock's time when time.Now was t.
func (c clock) at(t time.Time) time.Time { return c.wall.Add(t.Sub(c.start)) }

// off is how far the wall clock has been set since the start.
func (c clock) off() time.Duration { return time.Now().Round(0).Sub(c.now()) }

// judge owns the engine. All that changes it holds the lock, and hands its decisions to the kernel's writer before it lets
// go, so that the kernel sees them in the order in which they were made.
type judge struct {
	clock    clock
	writer   *firewall.Writer
	counts   *metrics.Metrics
	announce *announcer
	log      *slog.Logger
	meter    bool
	store    *store.Store // nil: nothing is kept
	ports    *ports

	mu     sync.Mutex
	engine *engine.Engine
	late   bool // bans of before are still brought back while events are judged
	lifted lifted
	// unsettled says that the kernel may have bans that nobody knows; lifted is kept.
	unsettled bool
	exempt    map[netip.Prefix]bool // in the kernel's allow sets, or on the way
	out       []ban.Decision
	came      []time.Time       // when the frame behind each decision in out was read
	change    []firewall.Change // on its way to the writer

	rooms sync.Pool              // of *room
	hand  atomic.Pointer[direct] // nil while it is in use
}

// room is what a commit needs besides its decisions, which others keep. It is used again.
type room struct {
	came  []time.Time    // the frames
	kept  []store.Change // when the kernel has the decisions
	waits []float64      // seconds from the frames to the commit
}

func (j *judge) room() *room {
	if r, ok := j.rooms.Get().(*room); ok {
		return r
	}
	return new(room)
}

// leave gives room back.
func (j *judge) leave(r *room) {
	if r.empty(); cap(r.kept) <= maxRoom {
		j.rooms.Put(r)
	}
}

func (r *room) empty() {
	clear(r.kept) // they hold on to records
	r.came, r.kept, r.waits = r.came[:0], r.kept[:0], r.waits[:0]
}

// frames judges what an Asterisk sent. The memory of the texts is used again afterwards: what is remembered of them is a copy.
func (j *judge) frames(p *pbx, frames []ami.Frame) {
	if write := j.judged(p, frames); write != nil {
		write()
	}
}

// judged does all but what it returns, if that is not nil: the engine's lock must be free for it.
func (j *judge) judged(p *pbx, frames []ami.Frame) (write func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	wall := time.Now()
	now := j.clock.at(wall)
	j.out, j.came = j.out[:0], j.came[:0]
	seen, lag := 0, time.Duration(0)
	var ev security.Event // one for all: the engine keeps none, and each would be garbage
	for i := range frames {
		err := security.Decode(frames[i].Text, &ev)
		if bad, ok := errors.AsType[*security.TamperError](err); ok {
			p.counts.Tampered.Inc()
			p.tampered.Add(1)
			j.out = j.engine.Tamper(now, p.name, bad.Reason, bad.Sources, j.out)
		}
		if err == nil {
			seen++
			lag = max(0, wall.Sub(ev.Time))
			p.counts.Event(&ev, lag.Seconds())
			if !p.self(&ev) {
				j.ports.heard(p, &ev)
				before := len(j.out)
				j.out = j.engine.Handle(now, p.name, &ev, j.out)
				j.ports.decided(now, p, &ev, j.out[before:])
			}
		}
		j.note(len(j.out), frames[i].Received)
	}
	h := heard{seen, lag, now}
	if write = j.directly(p, h); write == nil {
		p.note(h)
		j.dispatch(j.out, j.came, nil, nil)
	}
	clear(j.out)
	return write
}

// note notes when the frame behind the decisions up to end was read.
func (j *judge) note(end int, received time.Time) {
	for len(j.came) < end {
		j.came = append(j.came, received)
	}
}

// tick does what is due.
func (j *judge) tick() {
	for more := true; more; {
		more = j.tickOnce()
	}
}

// tickOnce does a bounded part of what is due, so that events and questions need not wait for the end of all bans.
func (j *judge) tickOnce() (more bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.out, more = j.engine.Tick(j.clock.now(), j.out[:0])
	j.dispatch(j.out, nil, j.lapsed(), nil)
	return more
}

// lapsed returns what the kernel lets pass no longer since a person allowed it until now, and forgets it.
func (j *judge) lapsed() []firewall.Change {
	over := j.engine.Lapsed()
	if len(over) == 0 {
		return nil
	}
	gone := make([]store.Change, 0, len(over))
	for _, p := range over {
		j.log.Info("what was allowed for a time is judged again like everybody else", "prefix", p)
		gone = append(gone, store.DropAllow(p, ""))
	}
	j.save(gone)
	return j.exemptions()
}

// command lets f change the engine, and returns when the kernel has what came of it.
func (j *judge) command(ctx context.Context, f func(e *engine.Engine, now time.Time) ([]ban.Decision, error)) ([]ban.Decision, error) {
	done := make(chan error, 1)
	j.mu.Lock()
	decisions, err := f(j.engine, j.clock.now())
	if err != nil {
		j.mu.Unlock()
		return nil, err
	}
	j.dispatch(decisions, nil, j.exemptions(), func(err error) { done <- err })
	j.mu.Unlock()
	select {
	case err := <-done:
		return decisions, err
	case <-ctx.Done():
		return decisions, ctx.Err()
	}
}

const (
	pardonPiece = 128 // bans that are lifted while events wait
	pardonAhead = 64  // pieces that may wait for the kernel
)

// pardon does all of a Pardon, a piece at a time so that events need not wait for it, and tells each what ended. It returns
// when the kernel has let all of them go. When ctx ends first, what is left stays banned.
func (j *judge) pardon(ctx context.Context, p *engine.Pardon, each func([]ban.Decision)) error {
	done := make(chan error, pardonAhead)
	open := 0
	var failed error
	settle := func(most int) error {
		for open > most {
			select {
			case err := <-done:
				open--
				failed = cmp.Or(failed, err)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return failed
	}
	for more := true; more; {
		var out []ban.Decision
		out, more = j.pardonSome(p, func(err error) { done <- err })
		open++
		each(out)
		if err := settle(pardonAhead - 1); err != nil {
			return err
		}
	}
	return settle(0)
}

// pardonSome lifts a few bans, and has the graces saved.
func (j *judge) pardonSome(p *engine.Pardon, done func(error)) (out []ban.Decision, more bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.clock.now()
	out, more = j.engine.UnbanSome(now, p, pardonPiece)
	if j.store != nil {
		graces := make([]store.Change, 0, len(p.Graces))
		for _, g := range p.Graces {
			graces = append(graces, store.PutGrace(g))
		}
		j.save(graces)
	}
	j.dispatch(out, nil, nil, done)
	return out, more
}

// apply lets f change the engine, and does not wait for the kernel.
func (j *judge) apply(f func(e *engine.Engine, now time.Time) []ban.Decision) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.dispatch(f(j.engine, j.clock.now()), nil, j.exemptions(), nil)
}

// ask lets f look at the engine.
func (j *judge) ask(f func(e *engine.Engine, now time.Time)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f(j.engine, j.clock.now())
}

// dispatch hands decisions, after changes of another kind, to the kernel and then to those who want to know of them; done,
// if not nil, is called when the kernel has them. The lock is held. A decision that changes the kernel is announced after
// the kernel's commit, not before: what was announced is in force.
func (j *judge) dispatch(decisions []ban.Decision, came []time.Time, others []firewall.Change, done func(error)) {
	changes := append(j.change[:0], others...)
	n := inKernel(decisions)
	waiting, r := make([]ban.Decision, 0, n), j.room()
	if n < len(decisions) {
		changes = j.report(decisions, len(decisions)-n, changes)
	}
	for i := range decisions {
		d := &decisions[i]
		c, ok := change(d)
		if !ok {
			continue
		}
		if changes = append(changes, c); c.Remove && j.unsettled {
			j.lifted.add(c.Prefix)
		}
		if d.Reason == ban.ReasonTest { // the kernel alone is told of it
			continue
		}
		r.kept = j.recordsLocked(d, r.kept)
		waiting = append(waiting, *d)
		if came != nil {
			r.came = append(r.came, came[i])
		}
	}
	if j.change = changes; cap(changes) > maxRoom {
		j.change = nil
	}
	if len(changes) == 0 {
		j.leave(r)
		if done != nil {
			done(nil)
		}
		return
	}
	j.writer.Submit(changes, func(err error) {
		j.committed(err, waiting, r)
		j.leave(r)
		if done != nil {
			done(err)
		}
	})
}

// maxRoom is how many changes there is room for while there are none.
const maxRoom = 4096

// report keeps and announces the n decisions that do not change the kernel's bans, and appends what they change besides.
func (j *judge) report(decisions []ban.Decision, n int, changes []firewall.Change) []firewall.Change {
	var kept []store.Change
	reports := make([]ban.Decision, 0, n)
	for i := range decisions {
		d := &decisions[i]
		if _, ok := change(d); ok || d.Reason == ban.ReasonTest {
			continue
		}
		kept = j.historyLine(d, j.recordsLocked(d, kept))
		reports = append(reports, *d)
		if d.Action == ban.ActionTrust && j.meter {
			changes = append(changes, firewall.Change{Kind: firewall.Trust, Prefix: d.Prefix, Timeout: d.Duration})
		}
	}
	j.save(kept)
	j.counts.Decisions(reports)
	j.announce.push(nil, reports)
	return changes
}

// inKernel counts the decisions that change the kernel.
func inKernel(decisions []ban.Decision) (n int) {
	for i := range decisions {
		if _, ok := change(&decisions[i]); ok {
			n++
		}
	}
	return n
}

// committed keeps and announces what the kernel has, or has not because of an error. The lock need not be held. Nobody
// changes the decisions any more.
func (j *judge) committed(err error, decisions []ban.Decision, r *room) {
	mark(err, decisions)
	for i := range decisions {
		r.kept = j.historyLine(&decisions[i], r.kept)
	}
	j.save(r.kept)
	j.counts.Decisions(decisions)
	if err == nil {
		now := time.Now()
		for _, at := range r.came {
			r.waits = append(r.waits, now.Sub(at).Seconds())
		}
		j.counts.Committed(r.waits...)
	}
	j.announce.push(err, decisions)
}

// change is what a decision asks of the kernel.
func change(d *ban.Decision) (firewall.Change, bool) {
	switch {
	case d.Action == ban.ActionBan || d.Action == ban.ActionExtend:
		return firewall.Change{Kind: firewall.Ban, Prefix: d.Prefix, Timeout: max(d.Duration, firewall.MinTimeout)}, true
	case d.Action == ban.ActionUnban && d.Reason != ban.ReasonExpired: // those the kernel ends itself
		return firewall.Change{Kind: firewall.Ban, Prefix: d.Prefix, Remove: true}, true
	}
	return firewall.Change{}, false
}

// exemptions compares what the kernel lets pass with what the engine says it should, and returns the difference.
func (j *judge) exemptions() []firewall.Change {
	var changes []firewall.Change
	want := make(map[netip.Prefix]bool)
	for _, p := range j.engine.Exempt() {
		want[p] = true
		if !j.exempt[p] {
			changes = append(changes, firewall.Change{Kind: firewall.Allow, Prefix: p})
		}
	}
	for p := range j.exempt {
		if !want[p] {
			changes = append(changes, firewall.Change{Kind: firewall.Allow, Prefix: p, Remove: true})
		}
	}
	j.exempt = want
	return changes
}

// desired is everything that the kernel should hold: what the writer builds the table from.
func (j *judge) desired() []firewall.Change {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.clock.now()
	var all []firewall.Change
	for p := range j.exempt {
		all = append(all, firewall.Change{Kind: firewall.Allow, Prefix: p})
	}
	for _, b := range j.engine.Enforced(now) {
		all = append(all, firewall.Change{Kind: firewall.Ban, Prefix: b.Prefix, Timeout: b.Left})
	}
	if j.meter {
		all = append(all, j.trust(now)...)
	}
	return all
}

// trust is what the meter spares.
func (j *judge) trust(now time.Time) []firewall.Change {
	var all []firewall.Change
	for _, t := range j.engine.TrustedSources(now) {
		all = append(all, firewall.Change{Kind: firewall.Trust, Prefix: t.Prefix, Timeout: max(t.Left, firewall.MinTimeout)})
	}
	return all
}

// metered says whether the kernel has a meter, which spares who is trusted.
func (j *judge) metered(on bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.meter = on
}

// refreshTrust prolongs trust in the kernel, where the meter spares it: the engine prolongs it with every login.
func (j *judge) refreshTrust() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.meter {
		return
	}
	if changes := j.trust(j.clock.now()); len(changes) > 0 {
		j.writer.Submit(changes, nil)
	}
}

// sampled returns up to n bans to look for in the kernel, different ones each time.
func (j *judge) sampled(n int) []firewall.Change {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []firewall.Change
	for _, b := range j.engine.Sample(j.clock.now(), n) {
		out = append(out, firewall.Change{Kind: firewall.Ban, Prefix: b.Prefix, Timeout: b.Left})
	}
	return out
}
