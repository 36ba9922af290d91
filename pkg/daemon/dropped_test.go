package daemon

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
	"github.com/ringwall/ringwall/pkg/nftrace"
)

// Another firewall drops an allowed address: status, page and metrics say so, and no longer once the rule is gone.
func TestAnotherFirewallThatDropsTheAllowedIsTold(t *testing.T) {
	r := newRig(t, func(c *config.Config) {
		c.Policy.Allow = []config.AllowEntry{{Prefix: netip.MustParsePrefix(byCommand)}}
		c.Asterisk[0].Learn = config.LearnOff
	})
	metrics := func() string { return get(t, r.site()+"/metrics") }
	r.until("it is well", func() bool { s, err := r.client.Status(t.Context()); return err == nil && s.Healthy() })
	if text := metrics(); !strings.Contains(text, "ringwall_allowed_dropped 0") {
		t.Error("the metric is missing")
	}
	netnstest.NFT(t, r.space, "table inet other { chain i { type filter hook input priority 0; policy drop; }; };")
	r.d.drops.lookSoon()
	var s api.Status
	r.until("status says so", func() bool {
		var err error
		s, err = r.client.Status(t.Context())
		return err == nil && len(s.Dropped) > 0
	})
	want := []api.Dropped{{Prefix: netip.MustParsePrefix(byCommand), As: api.DroppedAllowed, Chain: "inet other i",
		Try: "nft list chain inet other i; take the rule out there, or fail2ban-client unban 203.0.113.66"}}
	if !slices.Equal(s.Dropped, want) || s.Healthy() {
		t.Errorf("healthy: %v, %+v", s.Healthy(), s.Dropped)
	}
	if text := metrics(); !strings.Contains(text, "ringwall_allowed_dropped 1") {
		t.Error("the metric does not say so")
	}
	netnstest.NFT(t, r.space, "delete table inet other")
	r.d.drops.lookSoon()
	r.until("it is well again", func() bool {
		s,
			err := r.client.Status(t.Context())
		return err == nil && s.Healthy()
	})
}

// Whom the rules are asked about: not this machine and its gateways, of which firewalls drop forged packets.
func TestWhomOtherFirewallsAreAskedAbout(t *testing.T) {
	r := newRig(t, func(c *config.Config) {
		c.Policy.Allow = []config.AllowEntry{{Prefix: netip.MustParsePrefix(byCommand)}}
		c.Asterisk[0].Learn = config.LearnOff
	})
	r.d.pipeline.UpdateEngine(func(e *engine.Engine, now time.Time) []ban.Decision {
		return e.Protect(now, "pbx1", map[netip.Prefix]string{netip.MustParsePrefix("198.51.100.7/32"): "trunk"})
	})
	r.login("IPV4/TCP/203.0.113.9/5060", "1001")
	r.until("the phone is trusted", func() bool { _, as := r.d.drops.sourcesLetIn(); return len(as) == 3 })
	list, as := r.d.drops.sourcesLetIn()
	for i, want := range []struct{ prefix, as string }{
		{byCommand, api.DroppedAllowed}, {"198.51.100.7/32", api.DroppedTrunk}, {"203.0.113.9/32", api.DroppedTrusted},
	} {
		if list[i].String() != want.prefix || as[list[i]] != want.as {
			t.Errorf("%d: %v is %q; want %v", i, list[i], as[list[i]], want)
		}
	}
	if s := (api.Status{Dropped: []api.Dropped{{As: api.DroppedTrusted}}}); s.ShutsOut() {
		t.Error("another firewall may have its reasons to drop a phone")
	}
}

func TestWhereAsteriskIs(t *testing.T) {
	own := map[netip.Prefix]string{netip.MustParsePrefix("192.0.2.1/32"): "own address"}
	for address, here := range map[string]bool{
		"": true, "127.0.0.1:5038": true, "localhost:5038": true, "[::1]:5038": true, "192.0.2.1:5038": true,
		"192.0.2.2:5038": false, "pbx.example.com:5038": false,
	} {
		cfg := config.Default()
		if address != "" {
			cfg.Asterisk = []config.Asterisk{{Address: "198.51.100.1:5038"}, {Address: address}}
		}
		if AsteriskIsHere(&cfg, own) != here {
			t.Errorf("%q: %v", address, !here)
		}
	}
}

// A look follows each change, but its cost is bounded: after one that took long comes a long rest. What could not be
// seen leaves what was known.
func TestRulesOfOthersAreLookedAtSeldom(t *testing.T) {
	r := newRig(t)
	r.stop()
	synctest.Test(t, func(t *testing.T) {
		var generation atomic.Uint32
		var looks atomic.Int32
		var cost atomic.Int64
		var failing atomic.Bool
		o := newOthersDrops(r.d)
		o.generation = func() (uint32, error) { return generation.Load(), nil }
		o.traceDrops = func(nftrace.Question) ([]nftrace.Drop, error) {
			looks.Add(1)
			time.Sleep(time.Duration(cost.Load()))
			if failing.Load() {
				return nil, errors.New("no")
			}
			return []nftrace.Drop{{Source: netip.MustParsePrefix(byCommand), Chain: "inet a i"}}, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- o.Run(ctx) }()
		count := func(after time.Duration, want int32, why string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if n := looks.Load(); n != want {
				t.Errorf("%d looks %s, want %d", n, why, want)
			}
		}
		count(time.Second, 1, "at the start")
		count(time.Hour, 1, "while nothing changes")
		generation.Add(1)
		count(dropsInterval, 2, "after a change")
		o.lookSoon()
		count(time.Second, 3, "at a reload")
		cost.Store(int64(time.Second))
		failing.Store(true)
		generation.Add(1)
		count(2*dropsInterval, 4, "after another change")
		if len(o.latestDrops()) != 1 {
			t.Error("what was known is forgotten")
		}
		for range 17 {
			generation.Add(1)
			time.Sleep(dropsInterval)
		}
		count(0, 4, "within 90 s after one that took a second")
		count(4*dropsInterval, 5, "after its rest")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
