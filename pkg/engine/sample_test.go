package engine

import (
	"github.com/ringwall/ringwall/pkg/ban"
	"net/netip"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/config"
)

// TestSample takes some of the bans, each of which comes up sooner or later.
func TestSample(t *testing.T) {
	e := New(config.Default().Policy)
	if s := e.SampleBans(epoch, 8); len(s) != 0 {
		t.Errorf("%v of no bans", s)
	}
	const bans = 100
	for i := range bans {
		e.Adopt(epoch, netip.PrefixFrom(address(i), 32), ban.ClosesAll, epoch.Add(time.Hour))
	}
	seen := make(map[netip.Prefix]bool)
	for range 10_000 {
		sample := e.SampleBans(epoch.Add(time.Minute), 8)
		if len(sample) != 8 {
			t.Fatalf("%d bans, want 8", len(sample))
		}
		once := make(map[netip.Prefix]bool)
		for _, c := range sample {
			if once[c.Prefix] || c.Left != 59*time.Minute {
				t.Fatalf("%+v in %+v", c, sample)
			}
			once[c.Prefix], seen[c.Prefix] = true, true
		}
	}
	if len(seen) != bans {
		t.Errorf("%d of %d bans were ever sampled", len(seen), bans)
	}
	if s := e.SampleBans(epoch.Add(2*time.Hour), 8); len(s) != 0 {
		t.Errorf("%v when all bans are over", s)
	}
}
