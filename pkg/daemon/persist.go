package daemon

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/pipeline"
	"github.com/ringwall/ringwall/pkg/store"
)

// openStore opens what survives a restart and reads what spares customers. Without a path there is none; with a disk
// that cannot be written the daemon works all the same, and says so.
func (d *Daemon) openStore(cfg *config.Config) (store.State, error) {
	if cfg.State.Path == "" {
		return store.State{}, nil
	}
	if err := os.MkdirAll(filepath.Dir(cfg.State.Path), 0o700); err != nil {
		d.log.Warn("the state folder cannot be made", "err", err)
	}
	s, recovery, err := store.Open(cfg.State.Path, store.Options{
		Log: d.log, Snapshot: d.stateSnapshot, Counts: pipeline.CountsOffence, OffenderMemory: cfg.Policy.Ban.Memory,
		TrustMemory: cfg.Policy.Storm.Memory,
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
	d.store = s
	d.pipeline.SetStore(s)
	d.closers = append(d.closers, s.Close)
	if recovery.SetAside != "" {
		d.log.Error("the state file was of no use and is set aside; what the kernel holds is adopted",
			"file", recovery.SetAside, "err", recovery.Cause)
	}
	switch {
	case recovery.SetAside != "":
		d.stateLost = "the state file was of no use and is now " + recovery.SetAside
	case recovery.Unavailable != nil:
		d.stateLost = "the state cannot be saved at present"
	case recovery.Fresh:
		d.stateLost = "there was no state file"
	}
	if recovery.Unavailable != nil {
		d.log.Error("the state cannot be saved at present", "err", recovery.Unavailable)
	}
	d.listLost = d.stateLost != "" && !recovery.Readable
	state, err := s.LoadCustomers(context.Background(), d.pipeline.Clock().Now())
	switch {
	case err != nil: // what the kernel holds is adopted
		d.stateLost, d.listLost = "the state file cannot be read: "+err.Error(), true
		d.log.Error("the state file cannot be read; what the kernel holds is adopted", "err", err)
		return store.State{}, nil
	case state.Damaged > 0 && d.stateLost == "":
		d.stateLost, d.listLost = "records of the state file were damaged", true
	}
	return state, nil
}

// stateSnapshot is everything that should be in the state file.
func (d *Daemon) stateSnapshot() []store.Change {
	out, now := d.pipeline.StateSnapshot(), d.pipeline.Clock().Now()
	for _, name := range d.allowSources.hostsAdded() {
		out = append(out, store.PutAllow(store.Allow{Host: name, Added: now}))
	}
	return out
}

// awaitDisk waits until what a person did is on the disk, and returns a sentence where it is not.
func (d *Daemon) awaitDisk(ctx context.Context) string {
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
