package e2e

import (
	"context"
	"io"
	"net"
	"sync"
)

// relayAll passes each connection on until the listener is closed and ctx ends.
func relayAll(ctx context.Context, ln net.Listener, dial func(context.Context) (net.Conn, error)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		near, err := ln.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer near.Close()
			far, err := dial(ctx)
			if err != nil {
				return
			}
			defer far.Close()
			stop := context.AfterFunc(ctx, func() {
				_ = near.Close()
				_ = far.Close()
			})
			defer stop()
			wg.Go(func() {
				_, _ = io.Copy(far, near)
				_ = far.Close()
			})
			_, _ = io.Copy(near, far)
		})
	}
}
