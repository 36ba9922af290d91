package amiserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// A User is one section of manager.conf.
type User struct {
	Name, Secret string
	Read, Write  Class
	Allow        []netip.Prefix // permit=; nil lets everybody in
	Single       bool           // allowmultiplelogin=no
}

// A Request is an action that a logged-in user may use.
type Request struct {
	Action  string
	User    string
	Headers []string // "Name: value", as received
}

// Get returns the first value of a header, or "" (astman_get_header()).
func (r Request) Get(name string) string { return headerValue(r.Headers, name) }

// Reply begins a response: "Response: …", and the ActionID if there was one.
func (r Request) Reply(response string) string {
	if id := r.Get("ActionID"); id != "" {
		return "Response: " + response + "\r\nActionID: " + id + "\r\n"
	}
	return "Response: " + response + "\r\n"
}

// An Action is one that the server knows besides Login, Challenge, Events, Ping and Logoff.
type Action struct {
	Privilege Class // any of it in write= suffices; ClassNone: everybody
	// Reply returns the raw answer, closing CRLFCRLF included.
	Reply func(Request) string
}

// Config describes a server. Zero values mean the defaults.
type Config struct {
	Users      []User
	Actions    map[string]Action
	Version    string      // of the greeting: "11.0.0", as of Asterisk 22
	SystemName string      // a header of every event, where Asterisk has one
	TLS        *tls.Config // nil: TCP
	// AuthDelay is the pause before a refusal: 1 s, negative for none.
	AuthDelay   time.Duration
	AuthTimeout time.Duration // time to log in: 30 s
	AuthLimit   int           // sessions that have not logged in: 50
	// WriteTimeout is how long a reader may not read before it is cut off: 5 s. Asterisk's default is 100 ms an event.
	WriteTimeout time.Duration
	QueueBytes   int // bound of what waits for one reader: 64 MiB
	Log          *slog.Logger
}

// A Server is one AMI. Its methods may be called at any time.
type Server struct {
	cfg Config

	mu            sync.Mutex
	sessions      map[*session]struct{}
	changed       chan struct{} // closed and replaced when a session logs in, ends, or sets its mask
	lastSessionID uint64
	notLoggedIn   int // sessions that have not logged in
}

// New returns a server that does nothing until [Server.Serve].
func New(cfg Config) *Server {
	if cfg.Version == "" {
		cfg.Version = "11.0.0"
	}
	if cfg.AuthDelay == 0 {
		cfg.AuthDelay = time.Second
	}
	if cfg.AuthTimeout <= 0 {
		cfg.AuthTimeout = 30 * time.Second
	}
	if cfg.AuthLimit <= 0 {
		cfg.AuthLimit = 50
	}
	if cfg.WriteTimeout <= 0 {
		cfg.WriteTimeout = 5 * time.Second
	}
	if cfg.QueueBytes <= 0 {
		cfg.QueueBytes = 64 << 20
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg, sessions: make(map[*session]struct{}), changed: make(chan struct{})}
}

// String names the server for logs.
func (s *Server) String() string { return "amiserver" }

// Serve accepts sessions until ctx ends, then closes the listener and every session of it, waits for them, and returns
// nil. Any other error is the listener's.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var pause time.Duration
	for {
		nc, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = nc.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("amiserver: %w", err)
		case err != nil:
			// Out of file descriptors, or a connection that ended too soon.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.cfg.Log.Warn("accept", "error", err, "retry", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = 0
		local := ln.Addr()
		wg.Go(func() { s.serveConnection(ctx, nc, local) })
	}
}

// Broadcast sends one event of class security, as raw bytes with its closing CRLFCRLF, to every session that gets that
// class, and returns their number. It does not wait for them. The bytes are not copied and must not change.
func (s *Server) Broadcast(event []byte) int { return s.BroadcastClass(ClassSecurity, event) }

// BroadcastClass is Broadcast for an event of any class.
func (s *Server) BroadcastClass(class Class, event []byte) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broadcastLocked(class, event)
}

func (s *Server) broadcastLocked(class Class, event []byte) int {
	n := 0
	for ses := range s.sessions {
		if ses.loggedIn && ses.events&class == class && ses.outbox.putText(event) {
			n++
		}
	}
	return n
}

// Subscribers returns how many sessions get events of class security.
func (s *Server) Subscribers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.subscribersLocked()
}

func (s *Server) subscribersLocked() int {
	n := 0
	for ses := range s.sessions {
		if ses.loggedIn && ses.events&ClassSecurity != 0 {
			n++
		}
	}
	return n
}

// WaitSubscribers waits until at least n sessions get security events.
func (s *Server) WaitSubscribers(ctx context.Context, n int) error {
	for {
		s.mu.Lock()
		have, changed := s.subscribersLocked(), s.changed
		s.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("amiserver: %d of %d subscribers: %w", have, n, ctx.Err())
		}
	}
}

// Disconnect cuts every session off, as a restart of Asterisk does, and returns their number. The server goes on.
func (s *Server) Disconnect() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ses := range s.sessions {
		_ = ses.socket.Close()
	}
	return len(s.sessions)
}

// notifyLocked lets those look again who wait for subscribers.
func (s *Server) notifyLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Server) userNamed(name string) (User, bool) {
	i := slices.IndexFunc(s.cfg.Users, func(u User) bool { return strings.EqualFold(u.Name, name) })
	if i < 0 {
		return User{}, false
	}
	return s.cfg.Users[i], true
}

// isLoggedIn reports whether a session of that user exists.
func (s *Server) isLoggedIn(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ses := range s.sessions {
		if ses.loggedIn && strings.EqualFold(ses.username, name) {
			return true
		}
	}
	return false
}

func headerValue(headers []string, name string) string {
	for _, h := range headers {
		if len(h) > len(name) && h[len(name)] == ':' && strings.EqualFold(h[:len(name)], name) {
			return strings.TrimLeft(h[len(name)+1:], " ")
		}
	}
	return ""
}

// requiredClass returns the class that Asterisk asks for before it runs an action that this server has no answer to,
// for refusals as Asterisk gives them.
func requiredClass(action string) (Class, bool) {
	switch strings.ToLower(action) {
	case "command":
		return ClassCommand, true
	case "dbgettree", "dbget", "corestatus", "coresettings", "iaxpeers", "iaxpeerlist", "sippeers",
		"pjsipshowregistrationsoutbound", "coreshowchannels":
		return ClassSystem | ClassReporting, true
	case "pjsipshowcontacts", "pjsipshowendpoints", "pjsipshowendpoint", "pjsipshowaors",
		"pjsipshowregistrationinboundcontactstatuses", "pjsipshowregistrationsinbound", "reload", "filter",
		"loggerrotate":
		return ClassSystem, true
	case "getconfig", "updateconfig":
		return ClassConfig, true
	case "originate":
		return ClassOriginate, true
	case "userevent":
		return ClassUser, true
	}
	return ClassNone, false
}
