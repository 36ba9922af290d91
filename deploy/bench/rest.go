package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
)

func single(n int) netip.Prefix { return netip.PrefixFrom(nth(n), 32) }

// start measures how long a start takes with the bans of a flood stored: after a reboot, with an empty kernel, and
// after a restart, with the bans in it.
func start(ctx context.Context, o *options) error {
	h, err := newHost(ctx, o)
	if err != nil {
		return err
	}
	defer h.close()
	if err := h.start(ctx, o); err != nil {
		return err
	}
	if _, err := h.flood(ctx, o); err != nil {
		return err
	}
	for range o.rounds {
		for _, empty := range []bool{true, false} {
			if err := h.end(); err != nil {
				return err
			}
			if empty {
				if err := h.wipe(); err != nil {
					return err
				}
			}
			began := time.Now()
			if err := h.start(ctx, o); err != nil {
				return err
			}
			up := time.Since(began)
			for n := range o.sources / 100 {
				if a := nth(n * 100); !h.inKernel(a) {
					return fmt.Errorf("%s is not banned after the start", a)
				}
			}
			fmt.Printf("  %d bans stored, kernel empty: %v: enforcing and connected after %v\n", o.sources, empty,
				up.Round(time.Millisecond))
		}
	}
	return nil
}

// wipe removes the table, as a reboot does.
func (h *host) wipe() error {
	conn, err := nftables.New(nftables.WithNetNSFd(h.space.FD()))
	if err != nil {
		return err
	}
	conn.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "ringwall"})
	return conn.Flush()
}

// calm is when a daemon has settled after a flood: what is to be written is on the disk, memory is given back.
const calm = 15 * time.Second

// idle watches a daemon with 10,000 bans that nobody disturbs.
func idle(ctx context.Context, o *options) error {
	h, err := newHost(ctx, o)
	if err != nil {
		return err
	}
	defer h.close()
	if err := h.start(ctx, o); err != nil {
		return err
	}
	const bans = 10_000
	var b []byte
	for n := range bans {
		b = appendEvent(b, time.Now(), trap, n, "TCP", nth(n))
	}
	h.server.Broadcast(b)
	if err := until(ctx, "all are banned", func() bool { return h.inKernel(nth(bans - 1)) }); err != nil {
		return err
	}
	time.Sleep(calm)
	before, err := h.busy()
	if err != nil {
		return err
	}
	began := time.Now()
	select {
	case <-time.After(o.idle):
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := h.busy()
	if err != nil {
		return err
	}
	fmt.Printf("  %d bans: %.3f%% of a core, %.0f MB resident: %.0f MB of its own (RssAnon), %.0f MB of mapped files\n",
		bans,
		100*(after-before).Seconds()/time.Since(began).Seconds(), h.memory("VmRSS"), h.memory("RssAnon"),
		h.memory("RssFile"))
	return nil
}
