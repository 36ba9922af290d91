package pipeline

import (
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/store"
)

// CountsOffence says whether a stored ban itself tells how often its source was banned, and until when. The engine
// counts what it decided about a source, not what a person said, what it found in the kernel, and bans of networks.
func CountsOffence(b *ban.Ban) bool {
	switch b.Reason {
	case ban.ReasonManual, ban.ReasonAdopted, ban.ReasonNetwork:
		return false
	}
	return !b.Manual && b.Number > 0 && b.Origin == ""
}

// recordsLocked appends what is to be stored of what a decision is about.
func (p *Pipeline) recordsLocked(d *ban.Decision, out []store.Change) []store.Change {
	if p.store == nil {
		return out
	}
	switch d.Action {
	case ban.ActionBan, ban.ActionExtend:
		if b, ok := p.engine.BanOf(d.Prefix); ok {
			if out = append(out, store.PutBan(b)); CountsOffence(&b) {
				return out
			}
		}
		out = p.offenderLocked(d.Prefix, out)
	case ban.ActionUnban:
		out = p.offenderLocked(d.Prefix, append(out, store.DropBan(d.Prefix)))
	case ban.ActionTrust, ban.ActionUntrust:
		if t, ok := p.engine.TrustOf(d.Prefix); ok {
			out = append(out, store.PutTrust(t))
		}
	}
	return out
}

// offenderLocked appends what is remembered of a source whose ban, stored until now, is not to say it any more.
func (p *Pipeline) offenderLocked(source netip.Prefix, out []store.Change) []store.Change {
	if o, ok := p.engine.Offender(source); ok {
		out = append(out, store.PutOffender(o))
	}
	return out
}

// SaveChanges hands changes to the state file, if there is one.
func (p *Pipeline) SaveChanges(changes []store.Change) {
	if p.store == nil || len(changes) == 0 {
		return
	}
	if err := p.store.Put(changes...); err != nil {
		p.log.Debug("not everything is saved", "err", err)
	}
}

// trustPiece is how many customers are looked at while events wait.
const trustPiece = 64

// SaveTrusts stores trust, which each login prolongs.
func (p *Pipeline) SaveTrusts() {
	if p.store == nil {
		return
	}
	var walk engine.TrustWalk
	defer p.ReadEngine(func(*engine.Engine, time.Time) { walk.Close() })
	for more := true; more; {
		p.ReadEngine(func(e *engine.Engine, now time.Time) {
			var some []ban.Trust
			some, more = e.ExportSomeTrusts(now, &walk, trustPiece, nil)
			changes := make([]store.Change, 0, len(some))
			for _, t := range some {
				changes = append(changes, store.PutTrust(t))
			}
			p.SaveChanges(changes) // before anybody can know better
		})
	}
}

// StateSnapshot is everything of the engine that should be in the state file.
func (p *Pipeline) StateSnapshot() (out []store.Change) {
	var now time.Time
	var state engine.State
	var allowed []ban.Exemption
	p.ReadEngine(func(e *engine.Engine, at time.Time) { now, state, allowed = at, e.Export(at), e.Allowed() })
	for _, b := range state.Bans {
		out = append(out, store.PutBan(b))
	}
	for _, o := range state.Offenders {
		out = append(out, store.PutOffender(o))
	}
	for _, t := range state.Trusts {
		out = append(out, store.PutTrust(t))
	}
	for _, g := range state.Graces {
		out = append(out, store.PutGrace(g))
	}
	for _, a := range allowed {
		if a.Origin != engine.OriginManual {
			continue
		}
		entry := store.Allow{Prefix: a.Prefix, Added: now, Note: a.Note}
		if a.Until != nil {
			entry.Until = *a.Until
		}
		out = append(out, store.PutAllow(entry))
	}
	return out
}
