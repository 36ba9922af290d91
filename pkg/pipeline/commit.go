package pipeline

import (
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/store"
)

// outcome is what is told together: decisions, and what is to be stored with them.
type outcome struct {
	decisions []ban.Decision
	received  []time.Time // when the frames behind them were read, where frames are
	records   []store.Change
}

// submitLocked hands decisions, after changes of another kind, to the kernel's writer, and has everybody told once the
// kernel has them; what the kernel has no part in is told at once. received are the times of the frames behind the
// decisions, or nil. committed, if not nil, is called when the kernel has everything, or does not take it. flush
// writes: it is called once the lock is free.
func (p *Pipeline) submitLocked(
	decisions []ban.Decision, received []time.Time, changes []firewall.Change, committed func(error),
) (flush func()) {
	var reports outcome
	n := len(decisions) // most of them bans
	commits := outcome{decisions: make([]ban.Decision, 0, n), received: make([]time.Time, 0, n),
		records: make([]store.Change, 0, 2*n)}
	changes = slices.Grow(changes, n)
	for i := range decisions {
		d := &decisions[i]
		more := p.kernelChangesLocked(d)
		inKernel := len(more) > 0 || d.Action == ban.ActionCut // which Engine.TakeChanged has
		changes = append(changes, more...)
		if inKernel {
			if d.Action == ban.ActionUnban && p.restoring {
				p.released.add(d.Prefix)
			}
		} else if d.Action == ban.ActionTrust && p.meter {
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
		to.records = p.recordsLocked(d, to.records)
	}
	for _, el := range p.engine.TakeChanged() {
		changes = append(changes, p.firewallChangesLocked(el)...)
	}
	p.tellSinks(nil, reports)
	if len(changes) == 0 {
		p.tellSinks(nil, commits)
		if committed != nil {
			committed(nil)
		}
		return func() {}
	}
	return p.writer.Submit(changes, func(err error) {
		p.tellSinks(err, commits)
		if committed != nil {
			committed(err)
		}
	})
}

// tellSinks tells everybody of what the kernel has, or has not because of an error. Nobody changes the decisions any
// more. The engine's lock need not be held.
func (p *Pipeline) tellSinks(err error, o outcome) {
	if len(o.decisions) == 0 {
		return
	}
	if err != nil {
		for i := range o.decisions { // history must not say that what is not in force is
			o.decisions[i].Detail = "not in the kernel yet: " + hint.Line(err)
		}
	}
	if p.tellOthers != nil {
		p.tellOthers(o.decisions)
	}
	p.history.Publish(o.decisions...)
	p.announcer.Push(err, o.decisions)
	if p.store != nil {
		for i := range o.decisions {
			o.records = append(o.records, store.AddDecision(o.decisions[i]))
		}
		p.SaveChanges(o.records)
	}
	p.metrics.CountDecisions(o.decisions)
	if err == nil {
		now := time.Now()
		waits := make([]float64, len(o.received))
		for i, at := range o.received {
			waits[i] = now.Sub(at).Seconds()
		}
		p.metrics.ObserveCommits(waits...)
	}
}

// AnnounceReports has everybody told of reports that are not the engine's, and change nothing.
func (p *Pipeline) AnnounceReports(reports []ban.Decision) {
	p.tellSinks(nil, outcome{decisions: reports})
}

// kernelChangesLocked are what a decision asks of the kernel.
func (p *Pipeline) kernelChangesLocked(d *ban.Decision) []firewall.Change {
	el := engine.Element{Kind: engine.BanOfPrefix, Prefix: d.Prefix, Closes: d.Closes, Left: d.Duration}
	switch {
	case d.Action == ban.ActionBan || d.Action == ban.ActionExtend:
		el.Manual = d.Reason == ban.ReasonManual && d.Origin == ""
	case d.Action == ban.ActionUnban && d.Reason != ban.ReasonExpired: // those the kernel ends itself
		el.Remove = true
	default:
		return nil
	}
	return p.firewallChangesLocked(el)
}
