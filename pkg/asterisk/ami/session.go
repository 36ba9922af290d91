package ami

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/mailbox"
)

// A Session is one lasting connection to one Asterisk: one connection after the other, with pauses between them.
//
// Run connects and looks after each connection; it starts one goroutine that drains the socket, one that pings, and,
// for all connections, one that calls OnFrames and OnState.
type Session struct {
	cfg      Config
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	queue    *queue
	retryNow chan struct{} // holds a token when an attempt is asked for at once

	mu     sync.Mutex
	conn   *connection // nil while there is none
	status Status
	hasRun bool // Run was called
}

// A connection is one that has logged in.
type connection struct {
	socket        net.Conn
	splitter      *Splitter
	writeTimeout  time.Duration
	maxReplyBytes int
	lastRead      atomic.Int64 // when bytes came last, Unix nanoseconds

	readerEnded       chan struct{} // closed after readErr is set
	readErr           error
	securityEventCame chan struct{} // closed at the first one: read=security is granted
	sawSecurityEvent  bool          // the same, for the reader alone
	inList            bool          // a pending action's list may have begun; for the reader alone

	writeMu    sync.Mutex // one writer at a time
	actionsMu  sync.Mutex
	pending    []*pendingAction // in the order in which they were sent
	numPending atomic.Int32     // len(pending), for the reader, which mostly finds that there is none
	endCause   error            // why this side closed the connection
}

// New returns a session that does nothing until [Session.Run].
func New(cfg Config) *Session {
	cfg = cfg.withDefaults()
	return &Session{
		cfg:      cfg,
		dial:     (&net.Dialer{}).DialContext,
		queue:    newQueue(cfg.QueueBytes),
		retryNow: make(chan struct{}, 1),
	}
}

// Retry ends the pause before the next attempt, for instance because manager.conf was mended. A session that gets no
// security events logs in again: Asterisk copies read= at a login and not again at a "manager reload" (main/manager.c,
// authenticate()). One that gets them goes on.
func (s *Session) Retry() {
	mailbox.Signal(s.retryNow)
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
	if s.hasRun {
		s.mu.Unlock()
		return ErrRunning
	}
	s.hasRun = true
	s.status.Since = time.Now()
	s.mu.Unlock()
	delivered := make(chan struct{})
	go func() {
		defer close(delivered)
		s.deliverQueue()
	}()
	s.keepConnected(ctx)
	s.queue.box.Close()
	<-delivered
	return nil
}

// keepConnected connects again and again.
func (s *Session) keepConnected(ctx context.Context) {
	var (
		pause      time.Duration
		lastSign   = time.Now() // of life, from Asterisk
		lossCause  error        // of the connection before
		first      = true
		lastLogged string // the error that was logged last, so that it is logged once
		relogin    bool   // the connection before was ended for a new login
	)
	for ctx.Err() == nil {
		c, early, err := s.connectAndLogin(ctx)
		kind := Failed
		if err == nil {
			began := time.Now()
			s.setConnected(c, first)
			up := State{
				Kind: Connected, At: began, Banner: c.splitter.Banner(), Local: localAddr(c.socket), First: first,
				Blind: began.Sub(lastSign), Err: lossCause,
			}
			s.queue.pushState(up)
			s.logConnected(up)
			err = s.runConnection(ctx, c, early)
			lastSign, lossCause, first = time.Unix(0, c.lastRead.Load()), err, false
			lastLogged, kind = "", Disconnected
			if time.Since(began) >= s.cfg.StableAfter {
				pause = 0
			}
		}
		if ctx.Err() != nil {
			s.setDisconnected(lastSign, nil)
			return
		}
		if errors.Is(err, ErrRelogin) {
			s.setDisconnected(lastSign, nil)
			s.queue.pushState(State{Kind: kind, At: time.Now(), Err: err})
			pause, relogin = 0, true
			continue
		}
		if pause = s.nextPause(pause, err); relogin && errors.Is(err, ErrInUse) {
			pause = s.cfg.BackoffMin // Asterisk has not seen our logoff yet
		}
		relogin = false
		wait := withJitter(pause)
		s.setDisconnected(lastSign, err)
		s.queue.pushState(State{Kind: kind, At: time.Now(), Err: err, Retry: wait})
		level := slog.LevelDebug // what is known already, or is told by whoever hears of the states
		if err.Error() != lastLogged && s.cfg.OnState == nil {
			lastLogged, level = err.Error(), slog.LevelWarn
		}
		s.cfg.Log.Log(ctx, level, "Asterisk "+kind.String(), "pbx", s.cfg.Name, "error", err, "try", hint.Of(err),
			"retry", wait.Round(time.Millisecond))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.retryNow:
			timer.Stop()
			pause = 0
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func (s *Session) logConnected(up State) {
	level := slog.LevelInfo
	if !up.First && s.cfg.OnState != nil { // whoever hears of the states tells of them
		level = slog.LevelDebug
	}
	s.cfg.Log.Log(context.Background(), level, "connected to Asterisk", "pbx", s.cfg.Name, "address", s.cfg.Address,
		"banner", up.Banner, "local", up.Local, "blind", up.Blind.Round(time.Millisecond), "first", up.First)
}

// nextPause returns the pause after one of the given length. A refused login goes to the longest at once: each attempt
// is a security event in Asterisk, and whoever watches for those could ban this machine.
func (s *Session) nextPause(pause time.Duration, err error) time.Duration {
	switch {
	case errors.Is(err, ErrLogin), errors.Is(err, ErrInUse):
		return s.cfg.BackoffMax
	case pause == 0:
		return s.cfg.BackoffMin
	}
	return min(2*pause, s.cfg.BackoffMax)
}

// withJitter spreads a pause by a quarter to both sides.
func withJitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}

func (s *Session) setConnected(c *connection, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = c
	s.status.Up, s.status.Since = true, time.Now()
	s.status.Banner, s.status.Local = c.splitter.Banner(), localAddr(c.socket)
	s.status.Security, s.status.RTT = SecurityUnknown, 0
	if !first {
		s.status.Reconnects++
	}
}

func (s *Session) setDisconnected(lastSign time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = nil
	s.status.Up, s.status.Since, s.status.Security = false, lastSign, SecurityUnknown
	s.status.Local = netip.AddrPort{}
	s.setErrorLocked(err)
}

func (s *Session) setErrorLocked(err error) {
	if err != nil {
		s.status.LastError, s.status.LastErrorAt = err.Error(), time.Now()
		s.status.Err = err
	}
}

// runConnection looks after one connection until it ends, and says why it did. The frames came before its login was
// answered.
func (s *Session) runConnection(ctx context.Context, c *connection, early []Frame) error {
	for _, f := range early {
		s.routeFrame(c, f)
	}
	go s.readFrames(c)
	pingEnded := make(chan error, 1)
	pingCtx, stopPing := context.WithCancel(ctx)
	defer stopPing()
	go func() { pingEnded <- s.pingRepeatedly(pingCtx, c) }()

	proofTimeout := time.NewTimer(s.cfg.ProofTimeout)
	defer proofTimeout.Stop()
	recheck := time.NewTimer(s.cfg.RecheckInterval)
	defer recheck.Stop()
	// Each is nil once it has happened: a nil channel is never ready.
	unproven, pinging := c.securityEventCame, pingEnded
	var err error
	for err == nil {
		select {
		case <-ctx.Done():
			c.sendLogoff()
			err = ctx.Err()
		case <-c.readerEnded:
			if err = c.readErr; c.closeCause() != nil {
				err = c.closeCause()
			}
			if _, ok := errors.AsType[*Error](err); !ok {
				err = s.networkError(StageRun, err)
			}
		case err = <-pinging:
			pinging = nil
			pingEnded <- nil // for the wait below
		case <-unproven:
			unproven = nil
			s.setSecurity(SecurityGranted, State{Kind: Granted, At: time.Now()})
		case <-proofTimeout.C:
			if unproven != nil {
				missing := s.newError(StageRun, ErrNoPrivilege, nil, "")
				if s.cfg.OnState == nil {
					s.cfg.Log.Warn("no security events", "pbx", s.cfg.Name, "error", missing)
				}
				s.setSecurity(SecurityMissing, State{Kind: Unproven, At: time.Now(), Err: missing})
			}
		case <-s.retryNow:
			if unproven != nil && s.Status().Security == SecurityMissing {
				c.sendLogoff()
				err = s.newError(StageRun, ErrRelogin, nil, "")
			}
		case <-recheck.C:
			if unproven != nil {
				c.sendLogoff()
				err = s.newError(StageRun, ErrNoPrivilege, nil, "")
			}
		}
	}
	_ = c.socket.Close()
	stopPing()
	<-c.readerEnded
	c.failPending(err)
	<-pingEnded
	return err
}

func (s *Session) setSecurity(security Security, st State) {
	s.mu.Lock()
	s.status.Security = security
	s.setErrorLocked(st.Err)
	s.mu.Unlock()
	s.queue.pushState(st)
}

// readFrames drains the socket. It waits for nothing but its bytes.
func (s *Session) readFrames(c *connection) {
	defer close(c.readerEnded)
	var received time.Time
	for {
		text, err := c.splitter.Next()
		if at := c.splitter.Received(); at != received { // another read than that of the frame before
			received = at
			c.lastRead.Store(at.UnixNano())
		}
		switch {
		case err == nil:
			s.routeFrame(c, Frame{Text: text, Received: received})
		case errors.Is(err, ErrOversize):
			s.countOversize(err)
		default:
			c.readErr = err
			return
		}
	}
}

// routeFrame hands a frame to the action that it answers, or to the queue.
func (s *Session) routeFrame(c *connection, f Frame) {
	if c.takeAnswer(f.Text) {
		return
	}
	s.queue.pushFrame(f)
	// only now, so that Granted comes after the event that proves it
	if !c.sawSecurityEvent && isSecurityEvent(f.Text) {
		c.sawSecurityEvent = true
		close(c.securityEventCame)
	}
}

// isSecurityEvent reports whether a frame looks like an event of class security.
func isSecurityEvent(text string) bool {
	return strings.HasPrefix(text, eventPrefix) && strings.HasPrefix(skipFirstLine(text), "Privilege: security,")
}

// countOversize counts a frame that was skipped, and logs it where the count is a power of two: a flood of them does
// not flood the log.
func (s *Session) countOversize(err error) {
	s.mu.Lock()
	s.status.Oversize++
	n := s.status.Oversize
	s.mu.Unlock()
	if n&(n-1) == 0 {
		s.cfg.Log.Warn("frame skipped", "pbx", s.cfg.Name, "error", err, "total", n)
	}
}

// pingRepeatedly sends one Ping after the other, and returns why none is sent any more.
func (s *Session) pingRepeatedly(ctx context.Context, c *connection) error {
	timer := time.NewTimer(0) // the first at once: it measures the round trip
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.readerEnded:
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
		err := s.awaitPong(c, sent, replied)
		cancel()
		switch {
		case err == nil:
			s.mu.Lock()
			s.status.RTT = time.Since(sent)
			s.mu.Unlock()
		case errors.Is(err, ErrPing):
			c.closeBecause(err) // ends a write that hangs
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

// awaitPong waits for the reply to a Ping. A line on which bytes arrive is given longer: Asterisk writes the events
// that it has queued before it reads on.
func (s *Session) awaitPong(c *connection, sent time.Time, replied <-chan error) error {
	last := sent.Add(4 * s.cfg.PingTimeout)
	for {
		until := time.Unix(0, max(c.lastRead.Load(), sent.UnixNano())).Add(s.cfg.PingTimeout)
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
		lastRead := time.Unix(0, c.lastRead.Load())
		if now := time.Now(); !now.Before(last) || !now.Before(lastRead.Add(s.cfg.PingTimeout)) {
			return s.newError(StageRun, ErrPing, fmt.Errorf("sent %v ago", now.Sub(sent).Round(time.Millisecond)), "")
		}
	}
}

// deliverQueue calls OnFrames and OnState until the queue is closed and empty.
func (s *Session) deliverQueue() {
	for {
		switch items, ended := s.queue.takeItems(); {
		case len(items) > 0:
			s.deliverItems(items)
		case ended:
			return
		default:
			<-s.queue.box.Ready()
		}
	}
}

// deliverItems calls OnFrames for the frames between two changes of state, and OnState for those.
func (s *Session) deliverItems(items []item) {
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
