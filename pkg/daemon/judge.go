package daemon

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/ami"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/metrics"
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

// judge is the one road from what happens to those who act on it: frames of Asterisk, the time, and what people say change the
// engine under its lock; what the engine decides goes to the kernel's writer before the lock is free, so that the kernel
// sees decisions in the order in which they were made; and when the kernel has them, the state file, history, metrics, log
// and notifications are told. What was told is in force.
type judge struct {
	clock    clock
	writer   *firewall.Writer
	counts   *metrics.Metrics
	announce *announcer
	log      *slog.Logger
	store    *store.Store // nil: nothing is kept
	ports    *ports

	mu     sync.Mutex // of all below
	engine *engine.Engine
	meter  bool // the kernel has a meter, which spares who is trusted
	late   bool // bans of before are still brought back while events are judged
	lifted lifted
	// unsettled says that the kernel may have bans that nobody knows; lifted is kept.
	unsettled bool
	exempt    map[netip.Prefix]bool // in the kernel's allow sets, or on the way
}

// frames judges what an Asterisk sent.
func (j *judge) frames(p *pbx, frames []ami.Frame) {
	wall := time.Now()
	now := j.clock.at(wall)
	inputs, heard := p.decode(frames, wall)
	heard.at = now
	j.judgeInputs(p, inputs, now)()
	p.note(heard)
}

// judgeInputs judges what one Asterisk told, in its order, and returns what hands the decisions to the kernel.
func (j *judge) judgeInputs(p *pbx, inputs []input, now time.Time) (flush func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var decisions []ban.Decision
	var received []time.Time
	for i := range inputs {
		in := &inputs[i]
		before := len(decisions)
		if in.tampered != nil {
			decisions = j.engine.Tamper(now, p.name, in.tampered.Reason, in.tampered.Sources, decisions)
		} else {
			j.ports.heard(p, &in.event)
			decisions = j.engine.Handle(now, p.name, &in.event, decisions)
			j.ports.decided(now, p, &in.event, decisions[before:])
		}
		for range decisions[before:] {
			received = append(received, in.received)
		}
	}
	return j.submitLocked(decisions, received, nil, nil)
}

// tick does what is due.
func (j *judge) tick() {
	for more := true; more; {
		more = j.tickOnce()
	}
}

// tickOnce does a bounded part of what is due, so that events and questions need not wait for the end of all bans.
func (j *judge) tickOnce() (more bool) {
	flush, more := func() (func(), bool) {
		j.mu.Lock()
		defer j.mu.Unlock()
		decisions, more := j.engine.Tick(j.clock.now(), nil)
		return j.submitLocked(decisions, nil, j.lapsed(), nil), more
	}()
	flush()
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
	flush := j.submitLocked(decisions, nil, j.exemptions(), func(err error) { done <- err })
	j.mu.Unlock()
	flush()
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
	now := j.clock.now()
	out, more = j.engine.UnbanSome(now, p, pardonPiece)
	if j.store != nil {
		graces := make([]store.Change, 0, len(p.Graces))
		for _, g := range p.Graces {
			graces = append(graces, store.PutGrace(g))
		}
		j.save(graces)
	}
	flush := j.submitLocked(out, nil, nil, done)
	j.mu.Unlock()
	flush()
	return out, more
}

// apply lets f change the engine, and does not wait for the kernel longer than a few bans take.
func (j *judge) apply(f func(e *engine.Engine, now time.Time) []ban.Decision) {
	j.mu.Lock()
	flush := j.submitLocked(f(j.engine, j.clock.now()), nil, j.exemptions(), nil)
	j.mu.Unlock()
	flush()
}

// ask lets f look at the engine.
func (j *judge) ask(f func(e *engine.Engine, now time.Time)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f(j.engine, j.clock.now())
}

// outcome is what is told together: decisions, and what is to be stored with them.
type outcome struct {
	decisions []ban.Decision
	received  []time.Time // when the frames behind them were read, where frames are
	records   []store.Change
}

// submitLocked hands decisions, after changes of another kind, to the kernel's writer and then to those who want to know of them; done,
// if not nil, is called when the kernel has them. received are the times of the frames behind the decisions, or nil. It
// returns what writes them: call that once the lock is free.
func (j *judge) submitLocked(decisions []ban.Decision, received []time.Time, changes []firewall.Change, done func(error)) (flush func()) {
	var reports outcome
	n := len(decisions) // most of them bans
	commits := outcome{decisions: make([]ban.Decision, 0, n), received: make([]time.Time, 0, n), records: make([]store.Change, 0, 2*n)}
	changes = slices.Grow(changes, n)
	for i := range decisions {
		d := &decisions[i]
		c, inKernel := kernelChange(d)
		if inKernel {
			if changes = append(changes, c); c.Remove && j.unsettled {
				j.lifted.add(c.Prefix)
			}
		} else if d.Action == ban.ActionTrust && j.meter {
			changes = append(changes, firewall.Change{Kind: firewall.Trust, Prefix: d.Prefix, Timeout: d.Duration})
		}
		if d.Reason == ban.ReasonTest { // the kernel alone is told of it
			continue
		}
		to := &reports
		if inKernel {
			to = &commits
			if received != nil {
				to.received = append(to.received, received[i])
			}
		}
		to.decisions = append(to.decisions, *d)
		to.records = j.recordsLocked(d, to.records)
	}
	j.tell(nil, reports)
	if len(changes) == 0 {
		if done != nil {
			done(nil)
		}
		return func() {}
	}
	return j.writer.Submit(changes, func(err error) {
		j.tell(err, commits)
		if done != nil {
			done(err)
		}
	})
}

// tell stores, counts and announces what the kernel has, or has not because of an error. The lock need not be held. Nobody
// changes the decisions any more.
func (j *judge) tell(err error, o outcome) {
	if len(o.decisions) == 0 {
		return
	}
	j.announce.push(err, o.decisions) // it says in them what the kernel has not
	if j.store != nil {
		for i := range o.decisions {
			o.records = append(o.records, store.AddDecision(o.decisions[i]))
		}
		j.save(o.records)
	}
	j.counts.Decisions(o.decisions)
	if err == nil {
		now := time.Now()
		waits := make([]float64, len(o.received))
		for i, at := range o.received {
			waits[i] = now.Sub(at).Seconds()
		}
		j.counts.Committed(waits...)
	}
}

// kernelChange is what a decision asks of the kernel.
func kernelChange(d *ban.Decision) (firewall.Change, bool) {
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
	flush := func() {}
	if j.meter {
		flush = j.writer.Submit(j.trust(j.clock.now()), nil)
	}
	j.mu.Unlock()
	flush()
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
