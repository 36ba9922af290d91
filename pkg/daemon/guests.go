package daemon

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Bounds of what those take who reach metrics.listen, which on most machines is every local user. With the control
// socket's 64 connections, that leaves nearly all of the unit's descriptors to Asterisk, the kernel and the state file.
const (
	maxGuests      = 64
	maxPageGuests  = 40 // of them, those whom the status page serves, so that the metrics always find room
	guestIdle      = 30 * time.Second
	guestComplaint = time.Hour // between two warnings
)

// guests is a listener with a bounded number of connections. Whoever comes when it is full gets the place of the one
// that has waited the longest without being served: an idle one, or one that never asked.
type guests struct {
	net.Listener
	log *slog.Logger

	mu        sync.Mutex
	conns     map[*guest]struct{}
	complaint time.Time
}

func newGuests(l net.Listener, log *slog.Logger) *guests {
	return &guests{Listener: l, log: log, conns: make(map[*guest]struct{})}
}

// guest is a connection.
type guest struct {
	net.Conn
	of    *guests
	once  sync.Once
	since time.Time // connected, or served last
	asked bool      // at least once
	busy  bool      // being served
}

// Accept implements net.Listener.
func (g *guests) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if n := g.seat(c); n != nil {
			return n, nil
		}
		_ = c.Close() // all are being served
	}
}

// seat gives a connection a place, or returns nil where there is none.
func (g *guests) seat(c net.Conn) *guest {
	now := time.Now()
	g.mu.Lock()
	var victim *guest
	full := len(g.conns) >= maxGuests
	if full {
		victim = g.idlestLocked()
	}
	var n *guest
	if !full || victim != nil {
		n = &guest{Conn: c, of: g, since: now}
		delete(g.conns, victim)
		g.conns[n] = struct{}{}
	}
	complain := full && now.Sub(g.complaint) >= guestComplaint
	if complain {
		g.complaint = now
	}
	g.mu.Unlock()
	if victim != nil {
		_ = victim.Close()
	}
	if complain {
		g.log.Warn("many connections to metrics.listen: whoever asks nothing has to go", "most", maxGuests, "from",
			c.RemoteAddr().String())
	}
	return n
}

// idlestLocked returns the connection that can be missed the most: one that asked before and is idle, or else one that
// has not asked yet.
func (g *guests) idlestLocked() (found *guest) {
	for n := range g.conns {
		switch {
		case n.busy:
		case found == nil, n.asked && !found.asked, n.asked == found.asked && n.since.Before(found.since):
			found = n
		}
	}
	return found
}

// Close implements net.Conn.
func (n *guest) Close() error {
	n.once.Do(func() {
		n.of.mu.Lock()
		delete(n.of.conns, n)
		n.of.mu.Unlock()
	})
	return n.Conn.Close()
}

func (n *guest) serving(busy bool) {
	n.of.mu.Lock()
	n.busy, n.asked, n.since = busy, true, time.Now()
	n.of.mu.Unlock()
}

type guestKey struct{}

// withGuest is http.Server.ConnContext.
func withGuest(ctx context.Context, c net.Conn) context.Context {
	if n, ok := c.(*guest); ok {
		return context.WithValue(ctx, guestKey{}, n)
	}
	return ctx
}

// atRest is http.Server.ConnState.
func atRest(c net.Conn, state http.ConnState) {
	if n, ok := c.(*guest); ok && state == http.StateIdle {
		n.serving(false)
	}
}

// attended notes who is being served.
func attended(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n, ok := r.Context().Value(guestKey{}).(*guest); ok {
			n.serving(true) // until atRest: the answer may still be on its way when h returns
		}
		h.ServeHTTP(w, r)
	})
}

// atMost serves a number of requests at a time.
func atMost(n int, h http.Handler) http.Handler {
	room := make(chan struct{}, n)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case room <- struct{}{}:
			defer func() { <-room }()
			h.ServeHTTP(w, r)
		default:
			http.Error(w, "Ringwall: too many look at this page at the moment; try again soon", http.StatusServiceUnavailable)
		}
	})
}
