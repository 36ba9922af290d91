package daemon

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/policy"
	"github.com/ringwall/ringwall/pkg/store"
)

// openStore opens what survives a restart and reads what spares customers. Without a path there is none; with a disk that cannot be
// written the daemon works all the same, and says so.
func (d *Daemon) openStore(cfg *policy.Config) (store.State, error) {
	if cfg.State.Path == "" {
		return store.State{}, nil
	}
	if err := os.MkdirAll(filepath.Dir(cfg.State.Path), 0o700); err != nil {
		d.log.Warn("the state folder cannot be made", "err", err)
	}
	s, recovery, err := store.Open(cfg.State.Path, store.Options{
		Log: d.log, Snapshot: d.snapshot, Counts: countsOffence, OffenderMemory: cfg.Policy.Ban.Memory, TrustMemory: cfg.Policy.Storm.Memory,
		Health: func(err error) {
			if err != nil {
				d.log.Error("what happens is not saved; bans stay in the kernel, but not over a reboot", "err", err)
				return
			}
			d.log.Info("what happened is saved again")
		},
	})
	if err != nil {
		return store.State{}, err
	}
	d.store, d.judge.store = s, s
	d.closers = append(d.closers, s.Close)
	if recovery.SetAside != "" {
		d.log.Error("the state file was of no use and is set aside; what the kernel holds is adopted",
			"file", recovery.SetAside, "err", recovery.Cause)
	}
	switch {
	case recovery.SetAside != "":
		d.lost = "the state file was of no use and is now " + recovery.SetAside
	case recovery.Unavailable != nil:
		d.lost = "the state cannot be saved at present"
	case recovery.Fresh:
		d.lost = "there was no state file"
	}
	if recovery.Unavailable != nil {
		d.log.Error("the state cannot be saved at present", "err", recovery.Unavailable)
	}
	state, err := s.LoadCustomers(context.Background(), d.judge.clock.now())
	switch {
	case err != nil: // what the kernel holds is adopted
		d.lost = "the state file cannot be read: " + err.Error()
		d.log.Error("the state file cannot be read; what the kernel holds is adopted", "err", err)
		return store.State{}, nil
	case state.Damaged > 0 && d.lost == "":
		d.lost = "records of the state file were damaged"
	}
	return state, nil
}

// restoreCustomersLocked gives the engine what was stored of customers.
func (j *judge) restoreCustomersLocked(s store.State, pbxs []string) {
	now := j.clock.now()
	for _, a := range s.Allow {
		if a.Prefix.IsValid() {
			j.engine.AllowUntil(now, a.Prefix, a.Until, a.Note)
		}
	}
	j.engine.Restore(now, engine.State{Trusts: s.Trusts, Graces: s.Graces}, pbxs)
}

// countsOffence says whether a stored ban itself tells how often its source was banned, and until when. The engine counts what
// it decided about a source, not what a person said, what it found in the kernel, and bans of networks.
func countsOffence(b *ban.Ban) bool {
	switch b.Reason {
	case ban.ReasonManual, ban.ReasonAdopted, ban.ReasonNetwork:
		return false
	}
	return !b.Manual && b.Number > 0
}

// recordsLocked appends what is to be stored of what a decision is about.
func (j *judge) recordsLocked(d *ban.Decision, out []store.Change) []store.Change {
	if j.store == nil {
		return out
	}
	switch d.Action {
	case ban.ActionBan, ban.ActionExtend:
		if b, ok := j.engine.BanOf(d.Prefix); ok {
			if out = append(out, store.PutBan(b)); countsOffence(&b) {
				return out
			}
		}
		out = j.offenderLocked(d.Prefix, out)
	case ban.ActionUnban:
		out = j.offenderLocked(d.Prefix, append(out, store.DropBan(d.Prefix)))
	case ban.ActionTrust, ban.ActionUntrust:
		if t, ok := j.engine.TrustOf(d.Prefix); ok {
			out = append(out, store.PutTrust(t))
		}
	}
	return out
}

// offenderLocked appends what is remembered of a source whose ban, stored until now, is not to say it any more.
func (j *judge) offenderLocked(p netip.Prefix, out []store.Change) []store.Change {
	if o, ok := j.engine.Offender(p); ok {
		out = append(out, store.PutOffender(o))
	}
	return out
}

// save hands changes to the store.
func (j *judge) save(changes []store.Change) {
	if j.store == nil || len(changes) == 0 {
		return
	}
	if err := j.store.Put(changes...); err != nil {
		j.log.Debug("not everything is saved", "err", err)
	}
}

// saveCustomers stores trust, which each login prolongs, and graces.
func (j *judge) saveCustomers() {
	if j.store == nil {
		return
	}
	var changes []store.Change
	j.ask(func(e *engine.Engine, now time.Time) {
		for _, t := range e.ExportTrusts(now) {
			changes = append(changes, store.PutTrust(t))
		}
		for _, g := range e.Graces() {
			changes = append(changes, store.PutGrace(g))
		}
	})
	j.save(changes)
}

// snapshot is everything that should be in the state file.
func (d *Daemon) snapshot() (out []store.Change) {
	var now time.Time
	d.judge.ask(func(e *engine.Engine, at time.Time) {
		now = at
		s := e.Export(now)
		for i := range s.Bans {
			out = append(out, store.PutBan(s.Bans[i]))
		}
		for _, o := range s.Offenders {
			out = append(out, store.PutOffender(o))
		}
		for _, t := range s.Trusts {
			out = append(out, store.PutTrust(t))
		}
		for _, g := range s.Graces {
			out = append(out, store.PutGrace(g))
		}
		for _, a := range e.Allowed() {
			if a.Origin != engine.OriginManual {
				continue
			}
			entry := store.Allow{Prefix: a.Prefix, Added: now, Note: a.Note}
			if a.Until != nil {
				entry.Until = *a.Until
			}
			out = append(out, store.PutAllow(entry))
		}
	})
	for _, name := range d.known.added() {
		out = append(out, store.PutAllow(store.Allow{Host: name, Added: now}))
	}
	return out
}

// durable waits until what a person did is on the disk, and returns a sentence where it is not.
func (d *Daemon) durable(ctx context.Context) string {
	if d.store == nil {
		return "until the daemon ends: there is no state file"
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := d.store.Flush(ctx); err != nil {
		return "it is in force, but cannot be saved: " + err.Error()
	}
	return ""
}
