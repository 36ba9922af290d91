package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/ami"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/printable"
)

const (
	// blindInterval is how often the senses are looked at.
	blindInterval = 5 * time.Second
	// asteriskBlindAfter is how long Asterisk may be away before somebody is told: a restart of it takes less.
	asteriskBlindAfter = time.Minute
	// kernelBlindAfter is how long the kernel's table may be wrong: it is put right within a second where that is
	// possible.
	kernelBlindAfter = 30 * time.Second
	// sensorBlindAfter is how long a sensor may not work.
	sensorBlindAfter = time.Minute
)

// sense is one of those that Ringwall relies on.
type sense struct {
	reason ban.Reason
	pbx    string        // whose it is, where it is one's
	after  time.Duration // how long it may be gone before somebody is told
	// fault says what is wrong, nil where nothing is, and since when, or the zero time where that is not known.
	fault func() (since time.Time, err error)
}

// blindness tells when a sense is gone: what it would have told is not known, and a person should look.
type blindness struct {
	daemon *Daemon
	senses []sense
	begun  map[int]time.Time // by the index of a sense: when its fault was seen first
	told   map[int]bool
}

// newBlindness watches the senses of a daemon that has them all.
func newBlindness(d *Daemon) *blindness {
	b := &blindness{daemon: d, begun: make(map[int]time.Time), told: make(map[int]bool)}
	for _, p := range d.pbxs {
		b.senses = append(b.senses, sense{ban.ReasonAsterisk, p.name, asteriskBlindAfter, p.sessionFault})
	}
	if !d.opts.DryRun {
		b.senses = append(b.senses, sense{ban.ReasonKernel, "", kernelBlindAfter, func() (time.Time, error) {
			if err := d.kernelError(); !errors.Is(err, errBuilding) {
				return time.Time{}, err
			}
			return time.Time{}, nil
		}})
	}
	if d.sensors != nil {
		b.senses = append(b.senses, sense{ban.ReasonSensor, "", 0, d.sensors.silence})
		for _, name := range []string{"sensors.tap", "sensors.hep"} {
			b.senses = append(b.senses, sense{ban.ReasonSensor, "", sensorBlindAfter, func() (time.Time, error) {
				if fault := d.faults.faultText(name); fault != "" {
					return time.Time{}, errors.New(fault)
				}
				return time.Time{}, nil
			}})
		}
	}
	return b
}

// String names the task.
func (*blindness) String() string { return "watch over the senses" }

// Run looks at the senses until ctx ends.
func (b *blindness) Run(ctx context.Context) error {
	tick := time.NewTicker(blindInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			b.daemon.pipeline.AnnounceReports(b.look(now))
		}
	}
}

// look returns what is to be told: each fault once, when it has lasted too long.
func (b *blindness) look(now time.Time) (decisions []ban.Decision) {
	for i, s := range b.senses {
		since, err := s.fault()
		if err == nil {
			delete(b.begun, i)
			delete(b.told, i)
			continue
		}
		if _, known := b.begun[i]; !known {
			b.begun[i] = now
		}
		if since.IsZero() || since.After(now) {
			since = b.begun[i]
		}
		if now.Sub(since) < s.after || b.told[i] {
			continue
		}
		b.told[i] = true
		decisions = append(decisions, ban.Decision{
			Time: b.daemon.pipeline.Clock().Now().UTC(), Action: ban.ActionBlind, Reason: s.reason, PBX: s.pbx,
			Detail: fmt.Sprintf("for %v: %s", now.Sub(since).Round(time.Second), printable.Limit(hint.Line(err), 400)),
		})
	}
	return decisions
}

// sessionFault says why Asterisk tells nothing, nil where it does.
func (p *pbx) sessionFault() (since time.Time, err error) {
	s := p.session.Status()
	switch {
	case s.Up && s.Security != ami.SecurityMissing:
		return time.Time{}, nil
	case s.Err != nil:
		return s.Since, s.Err
	}
	return s.Since, errors.New("no connection to Asterisk's manager interface yet")
}
