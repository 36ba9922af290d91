package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
)

const (
	singleUnbans = 50
	quietProbes  = 200
	probeEvery   = 2 * time.Millisecond
)

// measureUnban measures what a person waits for who ends one ban of many, and all of them, and what events wait for
// meanwhile.
func measureUnban(ctx context.Context, o *options) error {
	return eachRound(ctx, o, func(h *host) error {
		if _, err := h.playFlood(ctx, o); err != nil {
			return err
		}
		return h.timeUnbans(ctx, o)
	})
}

func (h *host) timeUnbans(ctx context.Context, o *options) error {
	var single []time.Duration
	for n := range singleUnbans {
		a := nthAddress(n * o.sources / singleUnbans)
		began := time.Now()
		res, err := h.client.Unban(ctx, api.UnbanRequest{Prefix: netip.PrefixFrom(a, a.BitLen())})
		if err != nil || res.Count != 1 {
			return fmt.Errorf("unban %s: %+v, %w", a, res, err)
		}
		single = append(single, time.Since(began))
	}
	printQuantiles(fmt.Sprintf("one ban of %d ended", o.sources), single)

	w := waitTimes{h: h}
	for range quietProbes {
		if err := w.measureOnce(ctx); err != nil {
			return err
		}
	}
	w.printWaits("while nothing else happens")
	began := time.Now()
	ended := make(chan error, 1)
	var res api.UnbanResult
	go func() {
		var err error
		res, err = h.client.Unban(ctx, api.UnbanRequest{All: true, Grace: time.Hour})
		ended <- err
	}()
	for {
		select {
		case err := <-ended:
			if err != nil {
				return err
			}
			fmt.Printf("  all %d bans ended, with a grace of 1h, in %v\n", res.Count,
				time.Since(began).Round(time.Millisecond))
			w.printWaits("meanwhile")
			return nil
		default:
			if err := w.measureOnce(ctx); err != nil {
				return err
			}
		}
	}
}

// waitTimes are how long the engine and the kernel were waited for.
type waitTimes struct {
	h      *host
	n      int
	engine []time.Duration // a question to the engine: it waits for what an event waits for
	kernel []time.Duration // an event until its ban is in the kernel
}

func (w *waitTimes) measureOnce(ctx context.Context) error {
	w.n++
	a := nthAddress(1<<24 + w.n)
	began := time.Now()
	if _, err := w.h.client.Why(ctx, a); err != nil {
		return err
	}
	w.engine = append(w.engine, time.Since(began))

	began = time.Now()
	if _, err := (*w.h.listener.latest.Load()).Write(appendEvent(nil, began, honeypotAccount, w.n, "TCP",
		a)); err != nil {
		return err
	}
	for !w.h.inKernel(a) {
		if time.Since(began) > patience {
			return fmt.Errorf("%s is not banned", a)
		}
		sleepBriefly(50 * time.Microsecond)
	}
	w.kernel = append(w.kernel, time.Since(began))
	time.Sleep(probeEvery)
	return nil
}

// printWaits prints the waits since the last report.
func (w *waitTimes) printWaits(when string) {
	printQuantiles("a question to the engine, "+when, w.engine)
	printQuantiles("an event until its ban is in the kernel, "+when, w.kernel)
	w.engine, w.kernel = nil, nil
}
