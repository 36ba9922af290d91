package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
)

func singlePrefix(n int) netip.Prefix { return netip.PrefixFrom(nthAddress(n), 32) }

// measureStart measures how long a start takes with the bans of a flood stored: after a reboot, with an empty kernel,
// and after a restart, with the bans in it.
func measureStart(ctx context.Context, o *options) error {
	h, err := newHost(ctx, o)
	if err != nil {
		return err
	}
	defer h.close()
	if err := h.startDaemon(ctx, o); err != nil {
		return err
	}
	if _, err := h.playFlood(ctx, o); err != nil {
		return err
	}
	for range o.rounds {
		for _, empty := range []bool{true, false} {
			if err := h.endDaemon(); err != nil {
				return err
			}
			if empty {
				if err := h.deleteTable(); err != nil {
					return err
				}
			}
			began := time.Now()
			if err := h.startDaemon(ctx, o); err != nil {
				return err
			}
			up := time.Since(began)
			for n := range o.sources / 100 {
				if a := nthAddress(n * 100); !h.inKernel(a) {
					return fmt.Errorf("%s is not banned after the start", a)
				}
			}
			fmt.Printf("  %d bans stored, kernel empty: %v: enforcing and connected after %v\n", o.sources, empty,
				up.Round(time.Millisecond))
		}
	}
	return nil
}

// deleteTable removes the table, as a reboot does.
func (h *host) deleteTable() error {
	conn, err := nftables.New(nftables.WithNetNSFd(h.space.FD()))
	if err != nil {
		return err
	}
	conn.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "ringwall"})
	return conn.Flush()
}

// idleSettleTime is how long a daemon needs to settle after a flood: what is to be written is on the disk, memory is
// given back.
const idleSettleTime = 15 * time.Second

// measureIdle watches a daemon with 10,000 bans that nobody disturbs.
func measureIdle(ctx context.Context, o *options) error {
	h, err := newHost(ctx, o)
	if err != nil {
		return err
	}
	defer h.close()
	if err := h.startDaemon(ctx, o); err != nil {
		return err
	}
	const bans = 10_000
	var b []byte
	for n := range bans {
		b = appendEvent(b, time.Now(), honeypotAccount, n, "TCP", nthAddress(n))
	}
	h.server.Broadcast(b)
	if err := waitUntil(ctx, "all are banned", func() bool { return h.inKernel(nthAddress(bans - 1)) }); err != nil {
		return err
	}
	time.Sleep(idleSettleTime)
	before, err := h.threadTime()
	if err != nil {
		return err
	}
	began := time.Now()
	select {
	case <-time.After(o.idle):
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := h.threadTime()
	if err != nil {
		return err
	}
	fmt.Printf("  %d bans: %.3f%% of a core, %.0f MB resident: %.0f MB of its own (RssAnon), %.0f MB of mapped files\n",
		bans,
		100*(after-before).Seconds()/time.Since(began).Seconds(), h.memoryMB("VmRSS"), h.memoryMB("RssAnon"),
		h.memoryMB("RssFile"))
	return nil
}
