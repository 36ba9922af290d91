package api

import (
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/engine"
)

// A daemon that has no room for a ban does not keep attackers out, and neither does one whose bans stop nothing.
func TestWhoeverGetsThroughIsNotWell(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	for name, row := range map[string]struct {
		stats   engine.Stats
		healthy bool
		dropped []Dropped
	}{
		"nobody":                      {engine.Stats{}, true, nil},
		"a ban was left out":          {engine.Stats{LeftOut: ago(time.Minute)}, false, nil},
		"and that is long ago":        {engine.Stats{LeftOut: ago(time.Hour)}, true, nil},
		"a banned source got through": {engine.Stats{LastLeak: ago(time.Minute)}, false, nil},
		"an allowed one does not":     {engine.Stats{}, false, []Dropped{{As: DroppedAllowed}}},
		"a trunk does not":            {engine.Stats{}, false, []Dropped{{As: DroppedTrunk}}},
		"a trusted one does not":      {engine.Stats{}, true, []Dropped{{As: DroppedTrusted}}},
	} {
		s := Status{Time: now, Dropped: row.dropped, Engine: row.stats, Kernel: KernelStatus{OK: true},
			PBXs: []PBXStatus{{Up: true}}}
		if s.Healthy() != row.healthy {
			t.Errorf("%s: healthy %v, want %v", name, s.Healthy(), row.healthy)
		}
	}
}
