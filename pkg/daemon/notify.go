package daemon

import (
	"context"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/notify"
)

// openNotify sets up the targets of notify.
func (d *Daemon) openNotify() {
	// Without an error: there are no targets yet.
	n, _ := notify.New(nil, notify.Options{Log: d.log, Count: d.metrics.CountNotifications, Place: d.placeOf})
	d.notifier = n
	d.addPart("notify", "mend the file that it names, then: systemctl reload ringwall", func() (opened, error) {
		return opened{}, n.Configure(d.config.currentConfig().Notify)
	})
}

// notifyOf tells one decision to those who are told of decisions besides the log.
func (d *Daemon) notifyOf(decision ban.Decision) {
	if d.opts.OnDecision != nil {
		d.opts.OnDecision(decision)
	}
	d.lists.noteDecision(decision)
	d.crowdSec.noteDecision(decision)
	if decision.Origin == "" { // of a ban that another node made, that node tells
		d.notifier.Push(decision)
	}
}

// runAnnouncer runs the announcer and those whom it tells: they end after it, so that the last decision is told too.
func (d *Daemon) runAnnouncer(ctx context.Context) {
	announced := make(chan struct{})
	go func() {
		defer close(announced)
		_ = d.announcer.Run(ctx)
	}()
	_ = d.notifier.Run(contextUntil(ctx, announced))
}
