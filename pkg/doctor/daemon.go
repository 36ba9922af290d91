package doctor

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
)

// How often, and how far apart, a daemon is asked whose table is not in place, or which is about to log in.
const (
	settleTries = 8
	settleTime  = 250 * time.Millisecond
	// startupSeconds is the time since its start in which a daemon may still be about to log in: people ask right
	// after its start.
	startupSeconds = 10
)

// examineDaemon asks the daemon, if one runs, for its status, and reports what the status says.
func (e *exam) examineDaemon(ctx context.Context) {
	s := e.subjectNamed("")
	e.client = &api.Client{Socket: e.cfg.Control.Socket}
	st, err := e.settledStatus(ctx)
	var why *api.Error
	switch {
	case err == nil:
	case errors.Is(err, api.ErrNotRunning) && e.BeforeStart:
		s.skip("daemon", "systemctl enable --now ringwall", "does not run yet; the rest is tried from here")
		return
	case errors.Is(err, api.ErrNotRunning):
		s.fail("daemon", "when all else is well: systemctl enable --now ringwall\nwhere it does not stay up: "+
			"journalctl -u ringwall -n 20",
			"does not run (%s): whoever attacks from now on is not banned; the rest is tried from here", errorLine(err))
		return
	case errors.As(err, &why):
		// Also where this user may not ask it: what was not seen to work is not called so.
		s.fail("daemon", why.Try, "cannot be asked, so whether it protects is not known: %s", errorLine(err))
		return
	default:
		s.fail("daemon", "systemctl status ringwall", "cannot be asked: %s", errorLine(err))
		return
	}
	e.daemon = &st
	s.ok("daemon", "runs: version %s, pid %d, for %s", printable.String(st.Version), st.PID,
		roughDuration(time.Duration(st.Uptime*float64(time.Second))))
	e.compareConfigFile(s, st)
	for _, p := range st.PBXs {
		about := e.subjectNamed(p.Name)
		if !p.Up {
			about.fail("heard", p.Try, "the daemon does not hear this Asterisk: %s", printable.Line(p.LastError))
			continue
		}
		if p.DroppedFrames > 0 {
			about.warn("heard", "more CPU for ringwall, or fewer events: eventfilter in manager.conf",
				"the daemon had to give up %d frames", p.DroppedFrames)
		}
		if p.Tampered > 0 {
			about.warn("heard", "ringwall history; the addresses are in Asterisk's messages log",
				"%d events were tampered with", p.Tampered)
		}
		if p.Events == 0 {
			about.warn("heard", "ringwall doctor again in a minute",
				"the daemon is connected, and has heard no event yet")
			continue
		}
		about.ok("heard", "the daemon has heard %s, the last one %s after it happened",
			humanize.Plural(int(p.Events), "event", "events"),
			roughDuration(time.Duration(p.Lag*float64(time.Second))))
	}
	switch k := st.Kernel; {
	case k.DryRun:
		s.warn("bans", "run it without dry run, as a user with CAP_NET_ADMIN", "dry run: nobody is banned (%s)",
			printable.Line(k.DryRunReason))
	case !k.OK:
		s.fail("bans", k.Try, "the daemon's table is not as it should be: %s", printable.Line(k.LastError))
	case k.Present < k.Desired:
		s.warn("bans", "ringwall status; it is mended within seconds", "%d in force, but only %d of them in the kernel",
			k.Desired, k.Present)
	default:
		s.ok("bans", "%d in force, all of them in the kernel", k.Desired)
	}
	if st.LeavesOut() {
		s.fail("limits", "ringwall status names the bound; a higher one in policy.limits, then: systemctl reload "+
			"ringwall",
			"within the last minutes attackers were not banned, because bans are at a bound of policy.limits")
	}
	for _, w := range st.Warnings {
		s.warn("daemon", w.Try, "says: %s", printable.Line(w.Text))
	}
}

// settledStatus asks until the table is as it should be, and each Asterisk has let the daemon in or has not: at its
// start, and after somebody's change, the daemon needs a moment.
func (e *exam) settledStatus(ctx context.Context) (api.Status, error) {
	for try := 0; ; try++ {
		st, err := e.client.Status(ctx)
		if err != nil {
			return st, err
		}
		built := st.Kernel.OK || st.Kernel.DryRun || try >= settleTries
		if built && (st.Uptime > startupSeconds || !slices.ContainsFunc(st.PBXs, stillConnecting)) {
			return st, nil
		}
		timer := time.NewTimer(settleTime)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return st, nil
		}
	}
}

// stillConnecting says whether the daemon is about to log in there, or waits for the first event.
func stillConnecting(p api.PBXStatus) bool { return p.LastError == "" && (!p.Up || p.Events == 0) }

// compareConfigFile compares the daemon's configuration with the file that was examined.
func (e *exam) compareConfigFile(s subject, st api.Status) {
	switch {
	case st.Config.Error != "":
		s.fail("daemon", "mend it, then: systemctl reload ringwall", "%s", printable.Line(st.Config.Fault()))
	case st.Config.Path != "" && !sameFile(st.Config.Path, e.ConfigPath):
		s.warn("daemon", "ringwall doctor --config "+printable.Line(st.Config.Path), "runs with another file, %s",
			printable.Line(st.Config.Path))
	}
}

func sameFile(a, b string) bool {
	x, err1 := filepath.Abs(a)
	y, err2 := filepath.Abs(b)
	return err1 == nil && err2 == nil && x == y
}

// pbxStatus is what the daemon says about an Asterisk, or nil.
func (e *exam) pbxStatus(name string) *api.PBXStatus {
	if e.daemon == nil {
		return nil
	}
	for i := range e.daemon.PBXs {
		if e.daemon.PBXs[i].Name == name {
			return &e.daemon.PBXs[i]
		}
	}
	return nil
}
