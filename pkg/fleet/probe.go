package fleet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ringwall/ringwall/pkg/fleet/record"
)

// Probe is what a try of a fleet's servers has shown: each error is of one step, and the steps after the first error of
// Connect or Read were not tried.
type Probe struct {
	Server                        string
	Connect, Read, Publish, Alive error
	RoundTrip                     time.Duration // from this node's word until it came back
	Ahead                         time.Duration // this machine's clock, of the server's
}

// probeSource is nobody's (RFC 5737).
var probeSource = netip.MustParsePrefix("192.0.2.254/32")

// TryLink connects to a fleet's servers as this node does, and reads and says what a node does: that it takes back its
// trust in an address that is nobody's, which means nothing to anybody, and that it is there.
func TryLink(ctx context.Context, cfg Config) (p Probe) {
	var mu sync.Mutex
	giveUp := func(error) {} // ends a step: a server says what it denies apart from what was asked
	nc, err := connect(cfg, nats.Name("ringwall doctor "+cfg.Node), nats.Timeout(answerTime), nats.NoReconnect(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			mu.Lock()
			defer mu.Unlock()
			giveUp(err)
		}))
	if err != nil {
		p.Connect = err
		return p
	}
	defer nc.Close()
	p.Server = nc.ConnectedUrlRedacted()
	step := func(do func(context.Context) error) error {
		ctx, end := context.WithTimeout(ctx, stepTime)
		defer end()
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		mu.Lock()
		giveUp = cancel
		mu.Unlock()
		err := do(ctx)
		if why := context.Cause(ctx); err != nil && errors.Is(why, nats.ErrPermissionViolation) {
			return why
		}
		return err
	}
	var s jetstream.Stream
	js, err := jetstream.New(nc)
	if err == nil {
		err = step(func(ctx context.Context) error {
			s, err = js.Stream(ctx, StreamName(cfg.Name))
			return err
		})
	}
	if err != nil {
		p.Read = fmt.Errorf("stream %s: %w", StreamName(cfg.Name), err)
		return p
	}
	var seq uint64
	p.Publish = step(func(ctx context.Context) error {
		seq, p.RoundTrip, err = sayAndHear(ctx, nc, js, cfg)
		return err
	})
	if seq == 0 { // then what is there already is read
		seq = s.CachedInfo().State.LastSeq
	}
	if seq > 0 {
		p.Read = step(func(ctx context.Context) error {
			m, err := s.GetMsg(ctx, seq)
			if err == nil && p.Publish == nil {
				p.Ahead = cfg.now().Sub(m.Time) - p.RoundTrip
			}
			if errors.Is(err, jetstream.ErrMsgNotFound) { // somebody was quicker, and it is replaced
				return nil
			}
			return err
		})
	}
	p.Alive = step(func(ctx context.Context) error { return beatAndHear(ctx, nc, cfg) })
	return p
}

// stepTime is for one step of TryLink.
const stepTime = 5 * time.Second

func (c *Config) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

// sayAndHear says something that means nothing, and hears it as all others do.
func sayAndHear(
	ctx context.Context, nc *nats.Conn, js jetstream.JetStream, cfg Config,
) (seq uint64, took time.Duration, err error) {
	now := cfg.now()
	r := record.Record{Key: record.Key{Node: cfg.Node, Kind: record.Trust, Prefix: probeSource}, Made: now.UTC(),
		Until: now.Add(time.Minute).UTC(), Withdrawn: true}
	data, err := record.Encode(r)
	if err != nil {
		return 0, 0, err
	}
	live, err := nc.SubscribeSync(livePrefix + r.Subject(cfg.Name)[len("ringwall."):])
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = live.Unsubscribe() }()
	if err := nc.FlushWithContext(ctx); err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	ack, err := js.Publish(ctx, r.Subject(cfg.Name), data, jetstream.WithExpectStream(StreamName(cfg.Name)),
		jetstream.WithMsgTTL(time.Minute), jetstream.WithRetryAttempts(0))
	if err != nil {
		return 0, 0, err
	}
	if _, err := live.NextMsgWithContext(ctx); err != nil {
		return ack.Sequence, 0, fmt.Errorf("what this node says does not come back: %w", err)
	}
	return ack.Sequence, time.Since(begun), nil
}

// beatAndHear says that this node is there, and hears that.
func beatAndHear(ctx context.Context, nc *nats.Conn, cfg Config) error {
	subject := record.HeartbeatSubject(cfg.Name, cfg.Node)
	alive, err := nc.SubscribeSync(record.HeartbeatSubject(cfg.Name, "*"))
	if err != nil {
		return err
	}
	defer func() { _ = alive.Unsubscribe() }()
	if err := nc.Publish(subject, record.EncodeHeartbeat(record.Heartbeat{Sent: cfg.now()})); err != nil {
		return err
	}
	for {
		m, err := alive.NextMsgWithContext(ctx)
		if err != nil {
			return err
		}
		if m.Subject == subject {
			return nil
		}
	}
}
