package daemon

import (
	"context"

	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/notify"
	"github.com/ringwall/ringwall/pkg/policy"
)

// openNotify sets up those who are told of decisions, behind what the announcer calls already.
func (d *Daemon) openNotify(cfg *policy.Config) error {
	n, err := notify.New(cfg.Notify, notify.Options{Log: d.log, Count: d.counts.Notified, Place: d.locate})
	if err != nil {
		return err
	}
	d.notifier = n
	first := d.announce.hook
	d.announce.hook = func(decision engine.Decision) {
		if first != nil {
			first(decision)
		}
		n.Push(decision)
	}
	return nil
}

// tell runs the announcer and those whom it tells: they end after it, so that the last decision is told too.
func (d *Daemon) tell(ctx context.Context) {
	announced := make(chan struct{})
	go func() {
		defer close(announced)
		_ = d.announce.Run(ctx)
	}()
	_ = d.notifier.Run(afterwards(ctx, announced))
}
