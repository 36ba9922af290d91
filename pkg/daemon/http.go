package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ringwall/ringwall/pkg/control"
	"github.com/ringwall/ringwall/pkg/policy"
)

// listen opens the control socket and the metrics listener, and makes the tasks that serve them.
func (d *Daemon) listen(cfg *policy.Config) error {
	if cfg.Control.Socket != "" {
		l, err := control.Listen(cfg.Control.Socket, cfg.Control.Group)
		if err != nil {
			return fmt.Errorf("the control socket: %w", err)
		}
		d.closers = append(d.closers, l.Close)
		d.tasks = append(d.tasks, &control.Server{Listener: l, Backend: d.Backend(), Feed: d.feed, Log: d.log})
	}
	if cfg.Metrics.Listen != "" {
		l, err := net.Listen("tcp", cfg.Metrics.Listen)
		if err != nil {
			return fmt.Errorf("metrics.listen: %w; try another port, or \"\" for no metrics", err)
		}
		d.closers = append(d.closers, func() error {
			if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		})
		handler := d.pages(nil)
		if cfg.Metrics.Page {
			if d.page, err = d.newPage(l.Addr()); err != nil {
				return fmt.Errorf("the status page: %w", err)
			}
			d.tasks = append(d.tasks, behind{d.page, d.built}) // it reads all of history, while bans wait for the kernel
			handler = d.pages(d.page.Handler())
		}
		d.tasks = append(d.tasks, &metricsServer{listener: newGuests(l, d.log), handler: attended(handler)})
	}
	return nil
}

// pages are what the metrics listener answers: the metrics, and everything else by the status page where there is one.
func (d *Daemon) pages(page http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.counts.Registry, promhttp.HandlerOpts{
		Registry: d.counts.Registry, MaxRequestsInFlight: 4, Timeout: 10 * time.Second,
	}))
	if page != nil {
		mux.Handle("/", atMost(maxPageGuests, page))
		return mux
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintln(w, "Ringwall. Metrics are at /metrics; for a person: ringwall status")
	})
	return mux
}

type metricsServer struct {
	listener net.Listener
	handler  http.Handler
}

// String names the task.
func (m *metricsServer) String() string { return "metrics at " + m.listener.Addr().String() }

// Run serves until ctx ends.
func (m *metricsServer) Run(ctx context.Context) error {
	srv := &http.Server{Handler: m.handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: guestIdle, MaxHeaderBytes: 16 << 10, ConnContext: withGuest, ConnState: atRest}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(m.listener) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	_ = srv.Shutdown(late)
	err := srv.Close()
	<-done
	return err
}
