package replay_test

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/replay"
)

// TestMemoryDoesNotGrowWithTheRecording compares the live heap early in a long recording with that at its end, while
// sources stay the same: reading must leave nothing behind.
func TestMemoryDoesNotGrowWithTheRecording(t *testing.T) {
	megabytes := int64(100)
	if testing.Short() {
		megabytes = 20
	}
	defer debug.SetGCPercent(debug.SetGCPercent(50))
	live := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	o := options(func(o *replay.Options) {
		o.Policy.Mode = config.Enforce
		o.Policy.MaxSources = 1000
	})
	var early, peak int64
	tr := &traffic{left: megabytes << 20, hosts: 2000}
	tr.each = func(read int64) {
		switch {
		case read < 5<<20:
		case early == 0:
			early = live()
		default:
			peak = max(peak, live())
		}
	}
	decisions := 0
	o.Decide = func(ban.Decision) error { decisions++; return nil }
	o.Stdin = tr
	s, err := replay.Run(t.Context(), []string{"-"}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d events, %d decisions, live heap %d kB early, %d kB at most later", s.Events, decisions, early>>10,
		peak>>10)
	// The engine's windows of evidence and of attempts fill up for some time. A tenth of the recording would be a leak.
	if early == 0 || peak == 0 || peak-early > megabytes<<20/10 {
		t.Errorf("the heap grew from %d kB to %d kB over %d MB", early>>10, peak>>10, megabytes)
	}
}
