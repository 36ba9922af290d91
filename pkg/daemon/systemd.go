package daemon

import (
	"fmt"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/ringwall/ringwall/pkg/engine"
)

// notify tells systemd something, where it listens.
func (d *Daemon) notify(state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		d.log.Debug("systemd was not told", "err", err)
	}
}

func (d *Daemon) ready()    { d.notify(systemd.SdNotifyReady + "\n" + d.statusLine()) }
func (d *Daemon) stopping() { d.notify(systemd.SdNotifyStopping) }

// statusLine is what systemctl status shows.
func (d *Daemon) statusLine() string {
	up := 0
	for _, p := range d.pbxs {
		if p.session.Status().Up {
			up++
		}
	}
	bans := 0
	d.pipeline.Read(func(e *engine.Engine, now time.Time) { bans = e.Stats(now).Bans })
	line := fmt.Sprintf("STATUS=%d of %d Asterisk connected, %d bans", up, len(d.pbxs), bans)
	if names := d.faults.names(); names != "" {
		line += "; does not work: " + names
	}
	return line
}

// watchdog tells systemd's watchdog that the daemon lives, from the loop that drives the engine: when the engine hangs, nobody
// does.
type watchdog struct {
	interval time.Duration // 0 without a watchdog
	notified time.Time     // the watchdog, last
	shown    time.Time     // the line for systemctl status, last
}

func newWatchdog() *watchdog {
	d, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		d = 0
	}
	return &watchdog{interval: d / 3}
}

// notify is for each tick.
func (w *watchdog) notify(d *Daemon) {
	now := time.Now()
	if w.interval > 0 && now.Sub(w.notified) >= w.interval {
		w.notified = now
		d.notify(systemd.SdNotifyWatchdog)
	}
	if now.Sub(w.shown) >= 10*time.Second {
		w.shown = now
		d.notify(d.statusLine())
	}
}
