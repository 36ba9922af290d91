package daemon

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/web"
)

// newPage makes the status page of a listener at an address.
func (d *Daemon) newPage(at net.Addr) (*web.Page, error) {
	tcp, ok := at.(*net.TCPAddr)
	if !ok {
		return nil, fmt.Errorf("%v is no address of TCP", at)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "" // the page does without
	}
	return web.New(web.Config{Source: backend{d}, Feed: d.feed, Address: tcp.AddrPort(), Host: host, Log: d.log})
}

// Page implements api.Backend.
func (b backend) Page(_ context.Context, by api.Peer) (api.PageResult, error) {
	site := b.page.Load()
	if site == nil {
		return api.PageResult{}, api.Refused(
			`in the configuration: metrics: {listen: "127.0.0.1:9646", page: true}, `+
				`and then: systemctl reload ringwall`,
			"the configuration turns the status page off")
	}
	return site.IssueTicket(by), nil
}

// NewestBans implements web.Source.
func (b backend) NewestBans(n int) (out []ban.Ban) {
	b.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) { out = e.NewestBans(now, n) })
	return out
}

// LongestRestricted implements web.Source.
func (b backend) LongestRestricted(n int) (out []ban.Restriction) {
	cut := func() {
		slices.SortFunc(out, func(a, b ban.Restriction) int {
			return cmp.Or(b.Until.Compare(a.Until), a.Prefix.Compare(b.Prefix), cmp.Compare(a.Flow.String(),
				b.Flow.String()))
		})
		out = out[:min(n, len(out))]
	}
	_ = b.Restricted(context.Background(), netip.Prefix{}, func(some []ban.Restriction) error {
		if out = append(out, some...); len(out) > 8*n {
			cut()
		}
		return nil
	})
	cut()
	return out
}

// NewestTrusted implements web.Source.
func (b backend) NewestTrusted(n int) (out []ban.Trust) {
	b.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) { out = e.NewestTrusted(now, n) })
	return out
}

// Activity implements web.Source.
func (b backend) Activity(n int) (a engine.Activity) {
	b.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) { a = e.Activity(now, n) })
	return a
}

var _ web.Source = backend{}
