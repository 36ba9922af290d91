package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/asterisk/ami"
	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/asterisk/learn"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/metrics"
	"github.com/ringwall/ringwall/pkg/pipeline"
	"github.com/ringwall/ringwall/pkg/printable"
)

// pbx is one Asterisk: its session, and what is counted of it.
type pbx struct {
	name     string
	address  string
	pipeline *pipeline.Pipeline
	ports    *asteriskPorts // may be nil
	session  *ami.Session
	learner  *learn.Learner
	metrics  *metrics.PBX
	log      *slog.Logger
	sensors  *sensors // nil in tests of a PBX alone

	sessionAddr   atomic.Pointer[netip.AddrPort] // our end of the session
	events        atomic.Uint64
	tampered      atomic.Uint64
	lastEvent     atomic.Int64 // event, ns
	lag           atomic.Int64 // of it, ns
	blindFor      atomic.Int64 // without a session since the start, ns
	loggedFailure string       // the last failure that was logged; of OnState alone
	framesLost    uint64       // at the last call of framesLostSince, which alone has it
	isLate        bool         // events come late; of OnFrames alone
	// Of OnFrames alone:
	inputs    []pipeline.Input      // of the frames that were decoded last
	lastLocal localAddress          // of the last event
	examined  map[localAddress]bool // that were looked at
}

func (d *Daemon) newPBX(cfg config.Asterisk) (*pbx, error) {
	p := &pbx{
		name: cfg.Name, address: cfg.Address, pipeline: d.pipeline, ports: d.ports, metrics: d.metrics.PBX(cfg.Name),
		sensors: d.sensors,
		log:     d.log.With("pbx", cfg.Name),
	}
	session, err := SessionConfig(cfg)
	switch {
	case cfg.Elsewhere(): // before each login: by then it may be different, or can be read again
		session.Refresh = func() (string, *tls.Config, error) { return readCredentials(cfg) }
	case err != nil:
		return nil, fmt.Errorf("asterisk %q: %w", cfg.Name, err)
	}
	session.Log = d.log // it names the PBX itself
	session.OnFrames = p.judgeFrames
	session.OnState = p.onState
	p.session = ami.New(session)
	p.newLearner(cfg)
	return p, nil
}

// firstPBX is the name of the first Asterisk; empty where there is none.
func (d *Daemon) firstPBX() string {
	if len(d.pbxs) == 0 {
		return ""
	}
	return d.pbxs[0].name
}

// SessionConfig is the AMI session that a part of the configuration asks for. It fails where the session is impossible,
// or its tls.ca_file cannot be used.
func SessionConfig(cfg config.Asterisk) (ami.Config, error) {
	c := ami.Config{
		Name: cfg.Name, Address: cfg.Address, Username: cfg.Username, Secret: cfg.Secret.Reveal(),
		PingInterval: cfg.PingInterval,
	}
	if cfg.Auth == config.AuthPlain {
		c.Auth = ami.Plain
	}
	if cfg.TLS.Enabled {
		c.TLS = &tls.Config{ServerName: cfg.TLS.ServerName, InsecureSkipVerify: cfg.TLS.Insecure,
			MinVersion: tls.VersionTLS12}
	}
	if cfg.TLS.Enabled && cfg.TLS.CAFile != "" {
		var err error
		if c.TLS.RootCAs, err = config.CertPool(cfg.TLS.CAFile); err != nil {
			return c, fmt.Errorf("tls.ca_file: %w", err)
		}
	}
	return c, c.Validate()
}

// readCredentials is the secret and TLS of an Asterisk as its files have them now.
func readCredentials(cfg config.Asterisk) (string, *tls.Config, error) {
	cfg, err := cfg.Reload(config.OS())
	if e, ok := errors.AsType[*config.Error](err); ok {
		return "", nil, hint.Errorf(e.Try, "no login: %s: %s", e.Key, e.What)
	}
	session, err := SessionConfig(cfg)
	if err != nil {
		return "", nil, hint.Errorf("ringwall check", "no login: %w", err)
	}
	return session.Secret, session.TLS, nil
}

// String names the task.
func (p *pbx) String() string { return "asterisk " + p.name }

// Run keeps the session, and asks over it what Asterisk knows.
func (p *pbx) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.session.Run(ctx) })
	group.Go(func() error { return p.learner.Run(ctx) })
	return group.Wait()
}

// judgeFrames decodes frames of Asterisk and has their events judged.
func (p *pbx) judgeFrames(frames []ami.Frame) {
	wall := time.Now()
	now := p.pipeline.Clock().At(wall)
	inputs, stats := p.decodeFrames(frames, wall)
	p.pipeline.Judge(p.name, p.sensors.match(p.name, inputs, now), now)
	stats.at = now
	p.recordStats(stats)
}

// batchStats is what came with some frames: events, and how late the last of them was.
type batchStats struct {
	events int
	lag    time.Duration
	at     time.Time // by the engine's clock
}

// decodeFrames returns the events of frames that the engine is to judge. The list is valid until the next call.
func (p *pbx) decodeFrames(frames []ami.Frame, now time.Time) (inputs []pipeline.Input, stats batchStats) {
	inputs = p.inputs[:0]
	for i := range frames {
		inputs = append(inputs, pipeline.Input{Received: frames[i].Received})
		in := &inputs[len(inputs)-1]
		err := event.Decode(frames[i].Text, &in.Event)
		tampered, isTampered := errors.AsType[*event.TamperError](err)
		switch {
		case isTampered:
			in.Tampered = tampered
			p.metrics.Tampered.Inc()
			p.tampered.Add(1)
			if sender, ok := p.sensors.senderOf(frames[i].Text); ok {
				inputs = append(inputs, pipeline.Input{Received: frames[i].Received, Event: injected(sender, now)})
			}
			continue
		case err == nil:
			if in.Event.Time.IsZero() { // a report of the dialplan
				in.Event.Time = frames[i].Received
			}
			stats.events++
			stats.lag = max(0, now.Sub(in.Event.Time))
			p.metrics.CountEvent(&in.Event, stats.lag.Seconds())
			if !p.isOwnSession(&in.Event) {
				p.ports.noteLocal(p, &in.Event)
				continue
			}
		}
		inputs = inputs[:len(inputs)-1]
	}
	p.inputs = inputs
	return inputs, stats
}

// recordStats counts events, and remembers when the latest came.
func (p *pbx) recordStats(s batchStats) {
	if s.events == 0 {
		return
	}
	p.metrics.Flush()
	p.events.Add(uint64(s.events))
	p.lastEvent.Store(s.at.UnixNano())
	p.lag.Store(int64(s.lag))
	if late := s.lag > lateEvents; late != p.isLate {
		p.isLate = late
		p.sensors.setBlind(p.name, late)
	}
}

// framesLostSince says whether frames of Asterisk were given up since the last call.
func (p *pbx) framesLostSince() bool {
	s := p.session.Status()
	lost := s.Oversize
	for _, n := range s.Dropped {
		lost += n
	}
	more := lost != p.framesLost
	p.framesLost = lost
	return more
}

// isOwnSession says whether an event is about our own session: our login, or an action of ours that was denied.
func (p *pbx) isOwnSession(ev *event.Event) bool {
	local := p.sessionAddr.Load()
	return local != nil && ev.Service == event.AMI && ev.Remote.AddrPort == *local
}

// onState logs what becomes of the session. The same failure is logged once, however often it is tried again.
func (p *pbx) onState(s ami.State) {
	switch s.Kind {
	case ami.Connected:
		p.sensors.setBlind(p.name, false)
		p.sessionAddr.Store(&s.Local)
		p.learner.Connected()
		p.loggedFailure = ""
		if s.First { // the session has logged it
			return
		}
		p.blindFor.Add(int64(s.Blind))
		p.log.Warn("logged in to Asterisk again; what happened meanwhile is not known",
			"blind", s.Blind.Round(time.Millisecond), "version", printable.String(s.Banner))
	case ami.Disconnected:
		p.sensors.setBlind(p.name, true)
		if errors.Is(s.Err, ami.ErrRelogin) {
			p.log.Info("logging in to Asterisk anew, so that what manager.conf says now holds")
			return
		}
		p.log.Error("the connection to Asterisk is lost; bans stay in force", failureAttrs(s)...)
	case ami.Failed, ami.Unproven:
		if text := s.Err.Error(); text != p.loggedFailure {
			p.loggedFailure = text
			p.log.Error("no security events from Asterisk", failureAttrs(s)...)
		}
	case ami.Granted:
		p.log.Info("Asterisk sends security events")
	}
}

// pbxStatus is the PBX at a glance.
func (p *pbx) pbxStatus() api.PBXStatus {
	s := p.session.Status()
	v := api.PBXStatus{
		Name: p.name, Address: p.address, Up: s.Up && s.Security != ami.SecurityMissing, Since: s.Since,
		Version:    s.Banner,
		Reconnects: s.Reconnects, Events: p.events.Load(), Tampered: p.tampered.Load(),
		Lag: time.Duration(p.lag.Load()).Seconds(), QueueBytes: int64(s.QueueBytes), DroppedFrames: s.Oversize,
		Blind: time.Duration(p.blindFor.Load()).Seconds(),
	}
	if !v.Up && s.Err != nil {
		v.LastError, v.Try = s.Err.Error(), Remedy(s.Err)
	}
	if at := p.lastEvent.Load(); at != 0 {
		t := time.Unix(0, at)
		v.LastEvent = &t
	}
	k := p.learner.Knowledge()
	v.Learned = len(k.Prefixes) + len(k.Contacts)
	for _, d := range k.Denied {
		v.Denied = append(v.Denied, api.Denied{Action: d.Action, ManagerConf: d.ManagerConf, For: d.For})
	}
	for _, name := range sortedKeys(s.Dropped) {
		v.DroppedFrames += s.Dropped[name]
		v.DroppedByEvent = append(v.DroppedByEvent, api.Count{Name: name, Count: s.Dropped[name]})
	}
	return v
}

// metricsView is the PBX in the metrics.
func (p *pbx) metricsView() metrics.PBXPresent {
	s := p.session.Status()
	dropped := s.Dropped
	if s.Oversize > 0 {
		dropped = make(map[string]uint64, len(s.Dropped)+1)
		for k, n := range s.Dropped {
			dropped[k] = n
		}
		dropped["oversize"] = s.Oversize
	}
	return metrics.PBXPresent{Name: p.name, Up: s.Up && s.Security != ami.SecurityMissing, Reconnects: s.Reconnects,
		Dropped: dropped, QueueBytes: s.QueueBytes, Blind: time.Duration(p.blindFor.Load()).Seconds(),
		LastEvent: float64(p.lastEvent.Load()) / 1e9}
}

// newLearner makes what asks this Asterisk what it knows of trunks and contacts.
func (p *pbx) newLearner(cfg config.Asterisk) {
	p.learner = learn.New(learn.Config{
		Name: p.name, Session: p.session, Off: cfg.Learn == config.LearnOff, Log: p.log,
		OnKnowledge: func(k learn.Knowledge) {
			p.pipeline.UpdateEngine(func(e *engine.Engine,
				now time.Time) []ban.Decision {
				return e.Protect(now, p.name, k.Prefixes)
			})
			p.pipeline.TrustContacts(p.name, k.ThroughOnePort)
		},
	})
}
