package daemon

import (
	"fmt"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/ringwall/ringwall/pkg/engine"
)

// notifySystemd tells systemd something, where it listens.
func (d *Daemon) notifySystemd(state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		d.log.Debug("systemd was not told", "err", err)
	}
}

func (d *Daemon) notifyReady()    { d.notifySystemd(systemd.SdNotifyReady + "\n" + d.statusLine()) }
func (d *Daemon) notifyStopping() { d.notifySystemd(systemd.SdNotifyStopping) }

// statusLine is what systemctl status shows.
func (d *Daemon) statusLine() string {
	up := 0
	for _, p := range d.pbxs {
		if p.session.Status().Up {
			up++
		}
	}
	bans := 0
	d.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) { bans = e.Stats(now).Bans })
	line := fmt.Sprintf("STATUS=%d of %d Asterisk connected, %d bans", up, len(d.pbxs), bans)
	if names := d.faults.faultNames(); names != "" {
		line += "; does not work: " + names
	}
	return line
}

// watchdog tells systemd's watchdog that the daemon lives, from the loop that drives the engine: when the engine hangs,
// nobody does.
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

// notifyOnTick is called at each tick: it tells the watchdog and the status line as often as each is due.
func (w *watchdog) notifyOnTick(d *Daemon) {
	now := time.Now()
	if w.interval > 0 && now.Sub(w.notified) >= w.interval {
		w.notified = now
		d.notifySystemd(systemd.SdNotifyWatchdog)
	}
	if now.Sub(w.shown) >= 10*time.Second {
		w.shown = now
		d.notifySystemd(d.statusLine())
	}
}
