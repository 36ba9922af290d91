package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Server answers on the control socket.
type Server struct {
	Listener *Listener
	Backend  Backend
	Feed     *Feed // of GET /v1/decisions; nil: there is no such stream
	Log      *slog.Logger

	limits limits // the zero value is defaultLimits

	active  atomic.Int64  // requests under way
	closing chan struct{} // closed when the server ends
}

// String names the server among the daemon's tasks.
func (s *Server) String() string { return "control socket " + s.Listener.Path() }

// Run serves until ctx ends, then finishes the requests that are under way for up to 5 s, and removes the socket. It
// returns nil after ctx ended, and may be called once.
func (s *Server) Run(ctx context.Context) error {
	if s.limits == (limits{}) {
		s.limits = defaultLimits()
	}
	s.closing = make(chan struct{})
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()

	var conns sync.WaitGroup
	srv := &http.Server{
		Handler:           s.newHandler(),
		ReadHeaderTimeout: s.limits.header,
		ReadTimeout:       s.limits.read,
		WriteTimeout:      s.limits.backend + s.limits.write,
		IdleTimeout:       s.limits.idle,
		MaxHeaderBytes:    s.limits.headerBytes,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if c, ok := c.(*peerConn); ok {
				return withPeer(ctx, c.peer)
			}
			return ctx
		},
		// StateNew is reported by Serve itself, so none can come after it returned.
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				conns.Add(1)
			case http.StateClosed, http.StateHijacked:
				conns.Done()
			}
		},
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(newAcceptor(s.Listener, s.limits.connections)) }()

	var err error
	select {
	case err = <-served:
		close(s.closing)
	case <-ctx.Done():
		close(s.closing)
		s.drainRequests(ctx, srv)
		err = <-served
	}
	cancel()
	err = errors.Join(err, srv.Close(), s.Listener.Close())
	conns.Wait()
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// drainRequests waits for requests, but not for clients that are connected and ask nothing: http.Server.Shutdown
// alone gives those 5 s.
func (s *Server) drainRequests(ctx context.Context, srv *http.Server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.limits.shutdown)
	defer cancel()
	for ctx.Err() == nil {
		round, done := context.WithTimeout(ctx, 200*time.Millisecond)
		err := srv.Shutdown(round)
		done()
		if err == nil || s.active.Load() == 0 {
			return
		}
	}
}
