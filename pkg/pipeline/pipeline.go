package pipeline

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/metrics"
	"github.com/ringwall/ringwall/pkg/store"
)

// Config is what a Pipeline is made of. SetStore and SetWriter add the rest before it is used.
type Config struct {
	Clock     Clock
	Engine    *engine.Engine // the Pipeline's alone from now on
	Metrics   *metrics.Metrics
	History   History
	Announcer *Announcer
	Log       *slog.Logger
	// Tell, if not nil, hears of all that was decided once it is in force, for others to know. The engine's lock may be
	// held: it must be quick.
	Tell func([]ban.Decision)
	// Meter says that the kernel's table has a meter, which spares who is trusted.
	Meter bool
	// Decided, if not nil, hears of each event that led to decisions. The engine's lock is held: it must be quick.
	Decided func(now time.Time, pbx string, ev *event.Event, decisions []ban.Decision)
}

// History remembers decisions for whoever asks, and passes them on to whoever follows.
type History interface {
	Publish(decisions ...ban.Decision)
}

// Pipeline changes the engine under one lock, and hands what it decides to the kernel and to those who want to know.
type Pipeline struct {
	clock      Clock
	log        *slog.Logger
	metrics    *metrics.Metrics
	history    History
	announcer  *Announcer
	store      *store.Store     // nil: nothing is kept
	writer     *firewall.Writer // the kernel's
	tellOthers func([]ban.Decision)
	decided    func(now time.Time, pbx string, ev *event.Event, decisions []ban.Decision)

	mu               sync.Mutex // of all below
	engine           *engine.Engine
	meter            bool                  // the kernel has a meter
	kernelExemptions map[netip.Prefix]bool // in the kernel's allow sets, or on the way
	// restoring is true from BeginRestoring until all bans of before are known and the kernel's list has been compared;
	// released is kept meanwhile.
	restoring bool
	released  releasedPrefixes
	// running is true where events are judged although bans of before are still being brought back.
	running bool
}

// New returns a Pipeline without a state file and a kernel.
func New(cfg Config) *Pipeline {
	return &Pipeline{
		clock: cfg.Clock, engine: cfg.Engine, metrics: cfg.Metrics, history: cfg.History, announcer: cfg.Announcer,
		log:   cfg.Log,
		meter: cfg.Meter, decided: cfg.Decided, tellOthers: cfg.Tell,
	}
}

// SetStore has what is decided kept in a state file.
func (p *Pipeline) SetStore(s *store.Store) { p.store = s }

// SetWriter has what is decided written to the kernel.
func (p *Pipeline) SetWriter(w *firewall.Writer) { p.writer = w }

// Clock is the clock of the engine.
func (p *Pipeline) Clock() Clock { return p.clock }

// Input is what the engine is told of one frame.
type Input struct {
	Received time.Time          // when the frame was read
	Event    event.Event        // unless it was tampered with
	Tampered *event.TamperError // instead of the event
}

// Judge lets the engine judge what one Asterisk told, in its order, at a time of the Clock.
func (p *Pipeline) Judge(pbx string, inputs []Input, now time.Time) {
	p.judgeUnflushed(pbx, inputs, now)()
}

func (p *Pipeline) judgeUnflushed(pbx string, inputs []Input, now time.Time) (flush func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var decisions []ban.Decision
	var received []time.Time
	for i := range inputs {
		in := &inputs[i]
		before := len(decisions)
		if in.Tampered != nil {
			decisions = p.engine.ReportTampering(now, pbx, in.Tampered.Reason, in.Tampered.Sources, decisions)
		} else {
			decisions = p.engine.Handle(now, pbx, &in.Event, decisions)
			if p.decided != nil && len(decisions) > before {
				p.decided(now, pbx, &in.Event, decisions[before:])
			}
		}
		for range decisions[before:] {
			received = append(received, in.Received)
		}
	}
	return p.submitLocked(decisions, received, nil, nil)
}

// Tick does what is due.
func (p *Pipeline) Tick() {
	for more := true; more; {
		more = p.tickOnce()
	}
}

// tickOnce does a bounded part of what is due, so that events and questions need not wait for the end of all bans.
func (p *Pipeline) tickOnce() (more bool) {
	flush, more := func() (func(), bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		decisions, more := p.engine.Tick(p.clock.Now(), nil)
		return p.submitLocked(decisions, nil, p.lapsedLocked(), nil), more
	}()
	flush()
	return more
}

// lapsedLocked returns what the kernel lets pass no longer since a person allowed it until now, and forgets it.
func (p *Pipeline) lapsedLocked() []firewall.Change {
	lapsed := p.engine.TakeLapsedAllows()
	if len(lapsed) == 0 {
		return nil
	}
	records := make([]store.Change, 0, len(lapsed))
	for _, prefix := range lapsed {
		p.log.Info("what was allowed for a time is judged again like everybody else", "prefix", prefix)
		records = append(records, store.DropAllow(prefix, ""))
	}
	p.SaveChanges(records)
	return p.exemptionsLocked()
}

// ReadEngine lets f look at the engine.
func (p *Pipeline) ReadEngine(f func(e *engine.Engine, now time.Time)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p.engine, p.clock.Now())
}

// UpdateEngine lets f change the engine, and does not wait for the kernel longer than a few bans take.
func (p *Pipeline) UpdateEngine(f func(e *engine.Engine, now time.Time) []ban.Decision) {
	p.mu.Lock()
	flush := p.submitLocked(f(p.engine, p.clock.Now()), nil, p.exemptionsLocked(), nil)
	p.mu.Unlock()
	flush()
}

// UpdateEngineAndWait lets f change the engine, and returns when the kernel has what came of it, or when ctx ends. An
// error of f is returned as it is; then nothing was changed.
func (p *Pipeline) UpdateEngineAndWait(
	ctx context.Context, f func(e *engine.Engine, now time.Time) ([]ban.Decision, error),
) ([]ban.Decision, error) {
	committed := make(chan error, 1)
	p.mu.Lock()
	decisions, err := f(p.engine, p.clock.Now())
	if err != nil {
		p.mu.Unlock()
		return nil, err
	}
	flush := p.submitLocked(decisions, nil, p.exemptionsLocked(), func(err error) { committed <- err })
	p.mu.Unlock()
	flush()
	select {
	case err := <-committed:
		return decisions, err
	case <-ctx.Done():
		return decisions, ctx.Err()
	}
}

// TrustContacts trusts the sources of contacts that are registered at an Asterisk, a few at a time: a large PBX must
// not keep its events waiting. contacts says of each how many accounts are registered through one port of it.
func (p *Pipeline) TrustContacts(pbx string, contacts map[netip.Prefix]int) {
	const most = 500
	part := make(map[netip.Prefix]int, min(most, len(contacts)))
	vouch := func() {
		p.UpdateEngine(func(e *engine.Engine, now time.Time) []ban.Decision { return e.TrustContacts(now, pbx, part) })
		clear(part)
	}
	for prefix, accounts := range contacts {
		if part[prefix] = accounts; len(part) == most {
			vouch()
		}
	}
	if len(part) > 0 {
		vouch()
	}
}
