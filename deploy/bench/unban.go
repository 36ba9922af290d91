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

// unban measures what a person waits for who ends one ban of many, and all of them, and what events wait for meanwhile.
func unban(ctx context.Context, o *options) error {
	return eachRound(ctx, o, func(h *host) error {
		if _, err := h.flood(ctx, o); err != nil {
			return err
		}
		return h.unban(ctx, o)
	})
}

func (h *host) unban(ctx context.Context, o *options) error {
	var single []time.Duration
	for n := range singleUnbans {
		a := nth(n * o.sources / singleUnbans)
		began := time.Now()
		res, err := h.client.Unban(ctx, api.UnbanRequest{Prefix: netip.PrefixFrom(a, a.BitLen())})
		if err != nil || res.Count != 1 {
			return fmt.Errorf("unban %s: %+v, %w", a, res, err)
		}
		single = append(single, time.Since(began))
	}
	quantiles(fmt.Sprintf("one ban of %d ended", o.sources), single)

	w := waits{h: h}
	for range quietProbes {
		if err := w.probe(ctx); err != nil {
			return err
		}
	}
	w.report("while nothing else happens")
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
			w.report("meanwhile")
			return nil
		default:
			if err := w.probe(ctx); err != nil {
				return err
			}
		}
	}
}

// waits are how long the engine and the kernel are waited for.
type waits struct {
	h      *host
	n      int
	engine []time.Duration // a question to the engine: it waits for what an event waits for
	kernel []time.Duration // an event until its ban is in the kernel
}

func (w *waits) probe(ctx context.Context) error {
	w.n++
	a := nth(1<<24 + w.n)
	began := time.Now()
	if _, err := w.h.client.Why(ctx, a); err != nil {
		return err
	}
	w.engine = append(w.engine, time.Since(began))

	began = time.Now()
	if _, err := (*w.h.lines.latest.Load()).Write(appendEvent(nil, began, trap, w.n, "TCP", a)); err != nil {
		return err
	}
	for !w.h.inKernel(a) {
		if time.Since(began) > patience {
			return fmt.Errorf("%s is not banned", a)
		}
		nap(50 * time.Microsecond)
	}
	w.kernel = append(w.kernel, time.Since(began))
	time.Sleep(probeEvery)
	return nil
}

// report prints the waits since the last report.
func (w *waits) report(when string) {
	quantiles("a question to the engine, "+when, w.engine)
	quantiles("an event until its ban is in the kernel, "+when, w.kernel)
	w.engine, w.kernel = nil, nil
}
