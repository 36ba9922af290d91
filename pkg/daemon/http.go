package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/config"
)

// openListeners opens the control socket and the metrics listener. It fails where another daemon has the socket: two
// would fight over the table.
func (d *Daemon) openListeners(cfg *config.Config) error {
	if cfg.Control.Socket != "" {
		var taken error
		d.addPart("control.socket", "mend control.socket, then: systemctl reload ringwall", func() (opened, error) {
			o, err := d.openSocket(cfg.Control)
			if errors.Is(err, api.ErrInUse) {
				taken = err
			}
			return o, err
		})
		if taken != nil {
			return fmt.Errorf("the control socket: %w", taken)
		}
	}
	d.addPart("export", "another port or file, and: systemctl reload ringwall; this shows who has a port: ss -ltnp",
		d.openExport)
	d.addPart("metrics.listen", "another port, and: systemctl reload ringwall; this shows who has it: ss -ltnp",
		d.openMetrics)
	return nil
}

// openSocket opens the control socket. Where its group does not exist, or may not be given to it, the socket is for
// root and the daemon's own group until it does.
func (d *Daemon) openSocket(cfg config.Control) (opened, error) {
	l, err := api.Listen(cfg.Socket, cfg.Group)
	if err != nil && cfg.Group != "" && !errors.Is(err, api.ErrInUse) {
		var without error
		if l, without = api.Listen(cfg.Socket, ""); without == nil {
			d.faults.setFault("control.group",
				"make the group with groupadd, or change control.group, then: systemctl restart ringwall", err)
		}
		err = without
	}
	if err != nil {
		return opened{}, err
	}
	tasks := []Task{&api.Server{Listener: l, Backend: d.Backend(), Feed: d.feed, Log: d.log}}
	if d.faults.hasFault("control.group") {
		tasks = append(tasks, &groupTask{d, l, cfg.Group})
	}
	return opened{tasks, l.Close}, nil
}

// groupTask gives the control socket to its group as soon as that is possible.
type groupTask struct {
	*Daemon
	socket *api.Listener
	group  string
}

// String names the task.
func (*groupTask) String() string { return "control.group" }

// Run tries until it works or ctx ends.
func (g *groupTask) Run(ctx context.Context) error {
	for wait := partRetry; ; wait = min(2*wait, partRetryMax) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if g.socket.SetGroup(g.group) == nil {
			g.faults.setFault("control.group", "", nil)
			return nil
		}
	}
}

// openMetrics opens the metrics listener, if there is one, with the status page behind it.
func (d *Daemon) openMetrics() (opened, error) {
	cfg := d.config.currentConfig().Metrics
	if cfg.Listen == "" {
		return opened{}, nil
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return opened{}, err
	}
	o := opened{close: func() error {
		d.page.Store(nil)
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}}
	handler := d.newHTTPHandler(nil)
	if cfg.Page {
		site, err := d.newPage(l.Addr())
		if d.faults.setFault("metrics.page", "page: false, and: systemctl reload ringwall", err); err == nil {
			d.page.Store(site)
			// Afterwards, since it reads all of history, while bans wait for the kernel.
			o.tasks = append(o.tasks, startAfterTask{site, d.allBuilt})
			handler = d.newHTTPHandler(site.Handler())
		}
	}
	o.tasks = append(o.tasks, &metricsServer{listener: newBoundedListener(l, d.log), handler: markServing(handler)})
	return o, nil
}

// newHTTPHandler is what the metrics listener answers: the metrics, and everything else by the status page where
// there is one.
func (d *Daemon) newHTTPHandler(page http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.metrics.Registry, promhttp.HandlerOpts{
		Registry: d.metrics.Registry, MaxRequestsInFlight: 4, Timeout: 10 * time.Second,
	}))
	if page != nil {
		mux.Handle("/", limitConcurrent(maxPageRequests, page))
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
		WriteTimeout: 30 * time.Second, IdleTimeout: connIdleTimeout, MaxHeaderBytes: 16 << 10,
		ConnContext: withBoundedConn,
		ConnState:   markIdle}
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
