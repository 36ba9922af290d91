package hosts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// settleTime is the pause after a notice: an interface that comes up sends many.
const settleTime = 200 * time.Millisecond

// WatchConfig describes a Watcher.
type WatchConfig struct {
	// Interval is how often the addresses are listed without a notice of the kernel: 1 minute.
	Interval time.Duration
	// OnChange gets the whole list of Own at the beginning and after each change. The map is the receiver's.
	OnChange func(own map[netip.Prefix]string)
	Log      *slog.Logger // nil: none
}

// A Watcher follows the machine's own addresses.
type Watcher struct {
	cfg       WatchConfig
	subscribe func() (notices <-chan struct{}, stop func())
	known     map[netip.Prefix]string
}

// NewWatcher returns a Watcher that does nothing until Run.
func NewWatcher(cfg WatchConfig) *Watcher {
	if cfg.Interval <= 0 {
		cfg.Interval = time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	w := &Watcher{cfg: cfg}
	w.subscribe = w.subscribeToKernel
	return w
}

// String names the task.
func (w *Watcher) String() string { return "own addresses" }

// ReportOnce reports the list once, before Run, for those to whom the list that Run begins with comes too late.
func (w *Watcher) ReportOnce() error {
	known, err := OwnPrefixes()
	if err != nil {
		return err
	}
	w.known = known
	w.reportPrefixes(known)
	return nil
}

// Run reports the list, unless [Watcher.ReportOnce] has, and again whenever it changes, until ctx ends; it returns nil
// then. Only where the very first list cannot be had does it return an error. Later failures are logged, and the list
// stays. Where the kernel's notices cannot be had it looks every Interval.
func (w *Watcher) Run(ctx context.Context) error {
	notices, stop := w.subscribe()
	defer stop()
	first, err := OwnPrefixes()
	if err != nil {
		return err
	}
	if !maps.Equal(w.known, first) {
		w.known = first
		w.reportPrefixes(first)
	}
	ticker := time.NewTicker(w.cfg.Interval)
	defer ticker.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-notices:
			pause := time.NewTimer(settleTime)
			select {
			case <-ctx.Done():
				pause.Stop()
				return nil
			case <-pause.C:
			}
			select { // what came meanwhile is covered by the list that follows
			case <-notices:
			default:
			}
		}
		now, err := OwnPrefixes()
		switch {
		case err != nil:
			if !failing {
				w.cfg.Log.Warn("this machine's own addresses are not known any more; the last list stays", "error", err)
			}
			failing = true
			continue
		case failing:
			failing = false
			w.cfg.Log.Info("this machine's own addresses are known again")
		}
		if !maps.Equal(w.known, now) {
			w.known = now
			w.reportPrefixes(now)
		}
	}
}

func (w *Watcher) reportPrefixes(own map[netip.Prefix]string) {
	w.cfg.Log.Debug("own addresses", "prefixes", len(own))
	if w.cfg.OnChange != nil {
		w.cfg.OnChange(maps.Clone(own))
	}
}

// subscribeToKernel returns a channel that holds a token after the kernel has changed an address or a route. The
// notices are not read: the list is asked for anew, so a lost notice (ENOBUFS) is as good as any.
func (w *Watcher) subscribeToKernel() (notices <-chan struct{}, stop func()) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{
		Groups: unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE,
	})
	if err != nil {
		w.cfg.Log.Info("no notices of changed addresses; looking at intervals", "interval", w.cfg.Interval,
			"error", fmt.Errorf("hosts: netlink: %w", err))
		return nil, func() {}
	}
	tokens, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := conn.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return
			}
			select {
			case tokens <- struct{}{}:
			default:
			}
		}
	}()
	return tokens, func() {
		_ = conn.Close()
		<-done
	}
}
