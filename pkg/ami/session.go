package ami

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringwall/ringwall/pkg/hint"
)

// A Session is one lasting connection to one Asterisk.
type Session struct {
	cfg   Config
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
	queue *queue
	retry chan struct{} // asks for an attempt at once

	mu     sync.Mutex
	conn   *conn
	status Status
	ran    bool // Run was called
}

// A conn is one logged-in connection of a session.
type conn struct {
	nc           net.Conn
	sp           *Splitter
	writeTimeout time.Duration
	maxReply     int
	touched      atomic.Int64  // Unix nanoseconds of the last bytes
	gone         chan struct{} // closed when the reader has ended, after readErr is set
	readErr      error
	proof        chan struct{} // closed at the first security event
	proved       bool          // the reader's
	listing      bool          // the reader's: a call's list may have begun

	wmu     sync.Mutex // one writer at a time
	cmu     sync.Mutex
	calls   []*call
	dead    error
	pending atomic.Int32 // len(calls)
}

// New returns a session that does nothing until [Session.Run].
func New(cfg Config) *Session {
	cfg = cfg.withDefaults()
	return &Session{
		cfg:   cfg,
		dial:  (&net.Dialer{}).DialContext,
		queue: newQueue(cfg.QueueBytes),
		retry: make(chan struct{}, 1),
	}
}

// Retry ends the pause before the next attempt, for instance because manager.conf was mended. A session that gets no security
// events logs in again: Asterisk copies read= at a login and not again at a "manager reload" (main/manager.c,
// authenticate()). One that gets them goes on.
func (s *Session) Retry() {
	select {
	case s.retry <- struct{}{}:
	default: // asked for already
	}
}

// String returns the session's name.
func (s *Session) String() string { return "ami " + s.cfg.Name }

// Run keeps the session connected until ctx ends, and returns nil then, after everything that was queued has been
// delivered. It may be called once. Else a configuration that cannot work is the only error.
func (s *Session) Run(ctx context.Context) error {
	if err := s.cfg.Validate(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.ran {
		s.mu.Unlock()
		return ErrRunning
	}
	s.ran = true
	s.status.Since = time.Now()
	s.mu.Unlock()
	delivered := make(chan struct{})
	go func() {
		defer close(delivered)
		s.deliver()
	}()
	s.keep(ctx)
	s.queue.box.Close()
	<-delivered
	return nil
}

// keep connects again and again.
func (s *Session) keep(ctx context.Context) {
	var (
		pause time.Duration
		cause error
		heard = time.Now() // the last sign of life
		first = true
		said  string // what has been logged already
		again bool   // the last session ended because Retry wanted a new one
	)
	for ctx.Err() == nil {
		c, early, err := s.connect(ctx)
		kind := Failed
		if err == nil {
			began := time.Now()
			s.up(c, first)
			s.queue.pushState(State{Kind: Connected, At: began, Banner: c.sp.Banner(), Local: localAddr(c.nc), First: first, Blind: began.Sub(heard), Err: cause})
			log := s.cfg.Log.Info
			if !first && s.cfg.OnState != nil {
				log = s.cfg.Log.Debug
			}
			log("connected to Asterisk", "pbx", s.cfg.Name, "address", s.cfg.Address, "banner", c.sp.Banner(),
				"local", localAddr(c.nc), "blind", began.Sub(heard).Round(time.Millisecond), "first", first)
			err = s.serve(ctx, c, early)
			heard, cause, first, said, kind = time.Unix(0, c.touched.Load()), err, false, "", Disconnected
			if time.Since(began) >= s.cfg.StableAfter {
				pause = 0
			}
		}
		if ctx.Err() != nil {
			s.down(heard, nil)
			return
		}
		if errors.Is(err, ErrAgain) {
			s.down(heard, nil)
			s.queue.pushState(State{Kind: kind, At: time.Now(), Err: err})
			pause, again = 0, true
			continue
		}
		if pause = s.backoff(pause, err); again && errors.Is(err, ErrInUse) {
			pause = s.cfg.BackoffMin // Asterisk has not seen our logoff yet
		}
		again = false
		wait := jitter(pause)
		s.down(heard, err)
		s.queue.pushState(State{Kind: kind, At: time.Now(), Err: err, Retry: wait})
		log := s.cfg.Log.Debug // what is known already, or is told by whoever hears of the states
		if err.Error() != said && s.cfg.OnState == nil {
			said, log = err.Error(), s.cfg.Log.Warn
		}
		log("Asterisk "+kind.String(), "pbx", s.cfg.Name, "error", err, "try", hint.Of(err), "retry", wait.Round(time.Millisecond))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.retry:
			timer.Stop()
			pause = 0
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// backoff returns the pause after one of the given length. A refused login goes
// to the longest at once: each attempt is a security event in Asterisk, and
// whoever watches for those could ban this machine.
func (s *Session) backoff(pause time.Duration, err error) time.Duration {
	switch {
	case errors.Is(err, ErrLogin), errors.Is(err, ErrInUse):
		return s.cfg.BackoffMax
	case pause == 0:
		return s.cfg.BackoffMin
	}
	return min(2*pause, s.cfg.BackoffMax)
}

// jitter spreads a pause by a quarter to both sides.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}

func (s *Session) up(c *conn, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = c
	s.status.Up, s.status.Since = true, time.Now()
	s.status.Banner, s.status.Local = c.sp.Banner(), localAddr(c.nc)
	s.status.Security, s.status.RTT = SecurityUnknown, 0
	if !first {
		s.status.Reconnects++
	}
}

func (s *Session) down(heard time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = nil
	s.status.Up, s.status.Since, s.status.Security = false, heard, SecurityUnknown
	s.status.Local = netip.AddrPort{}
	s.setError(err)
}

// setError wants s.mu.
func (s *Session) setError(err error) {
	if err != nil {
		s.status.LastError, s.status.LastHint, s.status.LastErrorAt = err.Error(), hint.Of(err), time.Now()
		s.status.Err = err
	}
}

// serve looks after one connection until it ends, and says why it did.
func (s *Session) serve(ctx context.Context, c *conn, early []Frame) error {
	for _, f := range early {
		s.handle(c, f)
	}
	go s.read(c)
	pinger := make(chan error, 1)
	pingCtx, stopPing := context.WithCancel(ctx)
	defer stopPing()
	go func() { pinger <- s.ping(pingCtx, c) }()

	proof := time.NewTimer(s.cfg.ProofTimeout)
	defer proof.Stop()
	recheck := time.NewTimer(s.cfg.RecheckInterval)
	defer recheck.Stop()
	proved, pings := c.proof, pinger
	var err error
	for err == nil {
		select {
		case <-ctx.Done():
			c.logoff()
			err = ctx.Err()
		case <-c.gone:
			if err = c.readErr; c.cause() != nil {
				err = c.cause()
			}
			if _, ok := errors.AsType[*Error](err); !ok {
				err = s.netFault(StageRun, err)
			}
		case err = <-pings:
			pings = nil
			pinger <- nil // for the wait below
		case <-proved:
			proved = nil
			s.secure(SecurityGranted, State{Kind: Granted, At: time.Now()})
		case <-proof.C:
			if proved != nil {
				missing := s.fault(StageRun, ErrNoPrivilege, nil, "")
				if s.cfg.OnState == nil {
					s.cfg.Log.Warn("no security events", "pbx", s.cfg.Name, "error", missing)
				}
				s.secure(SecurityMissing, State{Kind: Unproven, At: time.Now(), Err: missing})
			}
		case <-s.retry:
			if proved != nil && s.Status().Security == SecurityMissing {
				c.logoff()
				err = s.fault(StageRun, ErrAgain, nil, "")
			}
		case <-recheck.C:
			if proved != nil {
				c.logoff()
				err = s.fault(StageRun, ErrNoPrivilege, nil, "")
			}
		}
	}
	_ = c.nc.Close()
	stopPing()
	<-c.gone
	c.abandon(err)
	<-pinger
	return err
}

func (s *Session) secure(security Security, st State) {
	s.mu.Lock()
	s.status.Security = security
	s.setError(st.Err)
	s.mu.Unlock()
	s.queue.pushState(st)
}

// read drains the socket. It waits for nothing else.
func (s *Session) read(c *conn) {
	defer close(c.gone)
	var received time.Time
	for {
		text, err := c.sp.Next()
		if at := c.sp.Received(); at != received { // once for each read
			received = at
			c.touched.Store(at.UnixNano())
		}
		switch {
		case err == nil:
			s.handle(c, Frame{Text: text, Received: received})
		case errors.Is(err, ErrOversize):
			s.oversize(err)
		default:
			c.readErr = err
			return
		}
	}
}

// handle sends a frame to whom it belongs.
func (s *Session) handle(c *conn, f Frame) {
	if c.answer(f.Text) {
		return
	}
	s.queue.push(f)
	if !c.proved && isSecurity(f.Text) { // after it, so that what is granted comes after what proves it
		c.proved = true
		close(c.proof)
	}
}

// isSecurity reports whether a frame looks like an event of class security.
func isSecurity(text string) bool {
	return strings.HasPrefix(text, eventPrefix) && strings.HasPrefix(after(text), "Privilege: security,")
}

func (s *Session) oversize(err error) {
	s.mu.Lock()
	s.status.Oversize++
	n := s.status.Oversize
	s.mu.Unlock()
	if n&(n-1) == 0 { // a flood of them does not flood the log
		s.cfg.Log.Warn("frame skipped", "pbx", s.cfg.Name, "error", err, "total", n)
	}
}

// ping sends one Ping after the other and returns why it stopped.
func (s *Session) ping(ctx context.Context, c *conn) error {
	timer := time.NewTimer(0) // the first at once: it measures the line
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.gone:
			return nil
		case <-timer.C:
		}
		sent := time.Now()
		replied := make(chan error, 1)
		pingCtx, cancel := context.WithCancel(ctx)
		go func() {
			_, err := c.roundTrip(pingCtx, "Ping")
			replied <- err
		}()
		err := s.await(ctx, c, sent, replied)
		cancel()
		switch {
		case err == nil:
			s.mu.Lock()
			s.status.RTT = time.Since(sent)
			s.mu.Unlock()
		case errors.Is(err, ErrPing):
			c.fail(err) // ends a write that hangs
			<-replied
			return err
		case ctx.Err() != nil, errors.Is(err, ErrNotConnected), errors.Is(err, ErrBusy), errors.Is(err, ErrNoReply):
			// The reader says more; a line that is busy is alive.
		default:
			s.cfg.Log.Debug("ping", "pbx", s.cfg.Name, "error", err) // refused, hence answered
		}
		timer.Reset(s.cfg.PingInterval)
	}
}

// await waits for the reply to a Ping. A line on which bytes arrive is given
// longer: Asterisk writes the events that it has queued before it reads on.
func (s *Session) await(ctx context.Context, c *conn, sent time.Time, replied <-chan error) error {
	last := sent.Add(4 * s.cfg.PingTimeout)
	for {
		until := time.Unix(0, max(c.touched.Load(), sent.UnixNano())).Add(s.cfg.PingTimeout)
		if until.After(last) {
			until = last
		}
		timer := time.NewTimer(time.Until(until))
		select {
		case err := <-replied:
			timer.Stop()
			return err
		case <-timer.C:
		}
		heard := time.Unix(0, c.touched.Load())
		if now := time.Now(); !now.Before(last) || !now.Before(heard.Add(s.cfg.PingTimeout)) {
			return s.fault(StageRun, ErrPing, fmt.Errorf("sent %v ago", now.Sub(sent).Round(time.Millisecond)), "")
		}
	}
}

// deliver calls OnFrames and OnState until the queue is closed and empty.
func (s *Session) deliver() {
	for {
		switch items, ended := s.queue.take(); {
		case len(items) > 0:
			s.handOver(items)
		case ended:
			return
		default:
			<-s.queue.box.Ready()
		}
	}
}

// handOver calls OnFrames for the frames between two changes of state, and OnState for those.
func (s *Session) handOver(items []item) {
	frames := make([]Frame, 0, len(items))
	handFrames := func() {
		if len(frames) > 0 && s.cfg.OnFrames != nil {
			s.cfg.OnFrames(frames)
		}
		frames = frames[len(frames):]
	}
	for i := range items {
		switch {
		case items[i].state == nil:
			frames = append(frames, items[i].frame)
		case s.cfg.OnState != nil:
			handFrames()
			s.cfg.OnState(*items[i].state)
		}
	}
	handFrames()
}
