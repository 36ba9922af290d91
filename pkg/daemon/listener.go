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
	maxConns         = 64
	maxPageRequests  = 40 // of them, those whom the status page serves, so that the metrics always find room
	connIdleTimeout  = 30 * time.Second
	fullWarningEvery = time.Hour // between two warnings
)

// boundedListener is a listener with a bounded number of connections. Whoever comes when it is full gets the place of
// the one that has waited the longest without being served: an idle one, or one that never asked.
type boundedListener struct {
	net.Listener
	log *slog.Logger

	mu         sync.Mutex
	conns      map[*boundedConn]struct{}
	lastWarned time.Time
}

func newBoundedListener(l net.Listener, log *slog.Logger) *boundedListener {
	return &boundedListener{Listener: l, log: log, conns: make(map[*boundedConn]struct{})}
}

// boundedConn is a connection that a boundedListener counts.
type boundedConn struct {
	net.Conn
	listener *boundedListener
	once     sync.Once
	since    time.Time // connected, or served last
	served   bool      // at least once
	serving  bool      // being served
}

// Accept implements net.Listener.
func (g *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if n := g.admitConn(c); n != nil {
			return n, nil
		}
		_ = c.Close() // all are being served
	}
}

// admitConn counts a connection in, or returns nil where all of maxConns are being served.
func (g *boundedListener) admitConn(c net.Conn) *boundedConn {
	now := time.Now()
	g.mu.Lock()
	var evicted *boundedConn
	full := len(g.conns) >= maxConns
	if full {
		evicted = g.idlestLocked()
	}
	var n *boundedConn
	if !full || evicted != nil {
		n = &boundedConn{Conn: c, listener: g, since: now}
		delete(g.conns, evicted)
		g.conns[n] = struct{}{}
	}
	warn := full && now.Sub(g.lastWarned) >= fullWarningEvery
	if warn {
		g.lastWarned = now
	}
	g.mu.Unlock()
	if evicted != nil {
		_ = evicted.Close()
	}
	if warn {
		g.log.Warn("many connections to metrics.listen: whoever asks nothing has to go", "most", maxConns, "from",
			c.RemoteAddr().String())
	}
	return n
}

// idlestLocked returns the connection that can be missed the most: one that asked before and is idle, or else one that
// has not asked yet.
func (g *boundedListener) idlestLocked() (found *boundedConn) {
	for n := range g.conns {
		switch {
		case n.serving:
		case found == nil, n.served && !found.served, n.served == found.served && n.since.Before(found.since):
			found = n
		}
	}
	return found
}

// Close implements net.Conn.
func (n *boundedConn) Close() error {
	n.once.Do(func() {
		n.listener.mu.Lock()
		delete(n.listener.conns, n)
		n.listener.mu.Unlock()
	})
	return n.Conn.Close()
}

func (n *boundedConn) setServing(busy bool) {
	n.listener.mu.Lock()
	n.serving, n.served, n.since = busy, true, time.Now()
	n.listener.mu.Unlock()
}

type boundedConnKey struct{}

// withBoundedConn is http.Server.ConnContext.
func withBoundedConn(ctx context.Context, c net.Conn) context.Context {
	if n, ok := c.(*boundedConn); ok {
		return context.WithValue(ctx, boundedConnKey{}, n)
	}
	return ctx
}

// markIdle is http.Server.ConnState.
func markIdle(c net.Conn, state http.ConnState) {
	if n, ok := c.(*boundedConn); ok && state == http.StateIdle {
		n.setServing(false)
	}
}

// markServing notes who is being served.
func markServing(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n, ok := r.Context().Value(boundedConnKey{}).(*boundedConn); ok {
			n.setServing(true) // until markIdle: the answer may still be on its way when h returns
		}
		h.ServeHTTP(w, r)
	})
}

// limitConcurrent serves a number of requests at a time.
func limitConcurrent(n int, h http.Handler) http.Handler {
	slots := make(chan struct{}, n)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			h.ServeHTTP(w, r)
		default:
			http.Error(w, "Ringwall: too many look at this page at the moment; try again soon",
				http.StatusServiceUnavailable)
		}
	})
}
