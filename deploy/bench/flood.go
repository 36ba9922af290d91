package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/nftables"

	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/netns"
)

const (
	maxInFlight     = 100_000 // events on the way to the program at once
	floodSettleTime = 3 * time.Second
)

// result is what one flood came to.
type result struct {
	took, user, system time.Duration
	dropped            uint64
	rss                float64
}

// measureFlood measures events and bans a second, and the processor time of each event.
func measureFlood(ctx context.Context, o *options) error {
	return eachRound(ctx, o, func(h *host) error { return h.reportFlood(ctx, o) })
}

// eachRound measures a daemon of its own in each round.
func eachRound(ctx context.Context, o *options, measure func(*host) error) error {
	for range o.rounds {
		h, err := newHost(ctx, o)
		if err != nil {
			return err
		}
		if err = h.startDaemon(ctx, o); err == nil {
			err = measure(h)
		}
		h.close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (h *host) reportFlood(ctx context.Context, o *options) error {
	r, err := h.playFlood(ctx, o)
	if err != nil {
		return err
	}
	n := float64(o.events)
	fmt.Printf("  %.0f events/s, %.0f bans/s, CPU an event %.2f µs (user %.2f, system %.2f), %d dropped, %.0f MB "+
		"resident\n",
		n/r.took.Seconds(), float64(o.sources)/r.took.Seconds(), (r.user+r.system).Seconds()*1e6/n,
		r.user.Seconds()*1e6/n,
		r.system.Seconds()*1e6/n, r.dropped, r.rss)
	return nil
}

// measureElements writes the flood's elements by the bare library and by Ringwall's writer in turn, so that both see
// the same machine.
func measureElements(ctx context.Context, o *options) error {
	var shares []float64
	for range 3 * o.rounds {
		bare, err := writeByLibrary(o)
		if err != nil {
			return err
		}
		ours, err := writeByRingwall(ctx, o)
		if err != nil {
			return err
		}
		share := 100 * bare.Seconds() / ours.Seconds()
		shares = append(shares, share)
		fmt.Printf("  %d elements written: google/nftables alone %.0f/s, Ringwall's writer %.0f/s: %.0f%%\n", o.sources,
			float64(o.sources)/bare.Seconds(), float64(o.sources)/ours.Seconds(), share)
	}
	slices.Sort(shares)
	fmt.Printf("  at the median %.0f%%\n", shares[len(shares)/2])
	return nil
}

// playFlood plays the flood and waits until every event is judged and every source is in the kernel.
func (h *host) playFlood(ctx context.Context, o *options) (r result, err error) {
	var chunks [][]byte
	var counts []int
	var b []byte
	now, call, in := time.Now(), 0, 0
	visitInOrder(o.events, o.sources, func(n int) {
		b = appendEvent(b, now, strconv.Itoa(1000+call%977), call, "TCP", nthAddress(n))
		call++
		if in++; len(b) > 60_000 {
			chunks, counts, b, in = append(chunks, b), append(counts, in), nil, 0
		}
	})
	if in > 0 {
		chunks, counts = append(chunks, b), append(counts, in)
	}
	first, _, err := h.countHandled(ctx)
	if err != nil {
		return r, err
	}
	user, system, err := h.cpuTimes()
	if err != nil {
		return r, err
	}
	began := time.Now()
	pushed, known := uint64(0), uint64(0)
	for i, c := range chunks {
		for pushed-known > maxInFlight { // more would only wait in the program's queue
			if known, r.dropped, err = h.countHandled(ctx); err != nil {
				return r, err
			}
			known -= first
			if known += r.dropped; pushed-known > maxInFlight {
				time.Sleep(20 * time.Millisecond)
			}
		}
		h.server.Broadcast(c)
		pushed += uint64(counts[i])
	}
	err = waitUntil(ctx, "every event is judged", func() bool {
		known, r.dropped, err = h.countHandled(ctx)
		return err != nil || known-first+r.dropped >= uint64(o.events)
	})
	if err == nil {
		err = waitUntil(ctx, "the last source is in the kernel",
			func() bool { return h.inKernel(nthAddress(o.sources - 1)) })
	}
	if err != nil {
		return r, err
	}
	r.took = time.Since(began)
	for n := range o.sources / 100 {
		if a := nthAddress(n * 100); !h.inKernel(a) {
			return r, fmt.Errorf("%s is not banned", a)
		}
	}
	s, err := h.client.Status(ctx)
	if err != nil {
		return r, err
	}
	if s.Engine.Bans != o.sources {
		return r, fmt.Errorf("%d bans of %d sources", s.Engine.Bans, o.sources)
	}
	time.Sleep(floodSettleTime) // what is written to the disk counts
	u, sys, err := h.cpuTimes()
	r.user, r.system, r.rss = u-user, sys-system, h.memoryMB("VmRSS")
	return r, err
}

// writeByLibrary writes the flood's elements with nothing but google/nftables, a thousand in a transaction.
func writeByLibrary(o *options) (took time.Duration, err error) {
	s, err := netns.New()
	if err != nil {
		return 0, err
	}
	defer func() { _ = s.Close() }()
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(s.FD()))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.CloseLasting()) }()
	t := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "bare"})
	set := &nftables.Set{Table: t, Name: "ban4", KeyType: nftables.TypeIPAddr, HasTimeout: true, Size: 1 << 20}
	if err := conn.AddSet(set, nil); err != nil {
		return 0, err
	}
	if err := conn.Flush(); err != nil {
		return 0, err
	}
	began := time.Now()
	for n := 0; n < o.sources; n += 1000 {
		var elems []nftables.SetElement
		for i := n; i < min(n+1000, o.sources); i++ {
			elems = append(elems, nftables.SetElement{Key: nthAddress(i).AsSlice(), Timeout: time.Hour})
		}
		if err := conn.SetAddElements(set, elems); err != nil {
			return 0, err
		}
		if err := conn.Flush(); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// writeByRingwall writes them through Ringwall's firewall, as the daemon does.
func writeByRingwall(ctx context.Context, o *options) (took time.Duration, err error) {
	s, err := netns.New()
	if err != nil {
		return 0, err
	}
	defer func() { _ = s.Close() }()
	fw, err := firewall.Open(firewall.Config{NetNS: s.FD()})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, fw.Close()) }()
	w := firewall.NewWriter(fw, nil, firewall.WriterConfig{VerifyInterval: -1})
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); _ = w.Run(ctx) }()
	defer func() { cancel(); <-done }()
	if err := w.Apply(ctx, []firewall.Change{{Kind: firewall.Ban, Prefix: singlePrefix(o.sources),
		Timeout: time.Hour}}); err != nil {
		return 0, err
	}
	began := time.Now()
	last := make(chan error, o.sources/1000+1)
	for n := 0; n < o.sources; n += 1000 {
		var changes []firewall.Change
		for i := n; i < min(n+1000, o.sources); i++ {
			changes = append(changes, firewall.Change{Kind: firewall.Ban, Prefix: singlePrefix(i), Timeout: time.Hour})
		}
		w.Submit(changes, func(err error) { last <- err })()
	}
	for n := 0; n < o.sources; n += 1000 {
		if err := <-last; err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}
