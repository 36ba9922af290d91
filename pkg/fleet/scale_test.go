package fleet_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/fleet"
)

// BenchmarkConverge is how long it takes until all nodes of a fleet know 20,000 bans that they make at once, and what
// that takes in this one process, with its server. Each node's knowledge is compared with all others'.
func BenchmarkConverge(b *testing.B) {
	const bans = 20_000
	for _, count := range []int{5, 50} {
		b.Run(fmt.Sprintf("nodes=%d", count), func(b *testing.B) {
			for b.Loop() {
				s := startServer(b, b.TempDir(), -1, nil)
				nodes := make([]*fleet.Fleet, count)
				stops := make([]func(), count)
				for i := range nodes {
					nodes[i], stops[i] = run(b, configOf(s.ClientURL(), fmt.Sprintf("n%d", i)))
				}
				for _, f := range nodes {
					await(b, f, "connected", func() bool { return f.Status().CaughtUp })
				}
				begun, cpu := time.Now(), cpuTime()
				for i := range bans {
					nodes[i%count].Say(banOf(address(i)))
				}
				said := time.Since(begun)
				for _, f := range nodes {
					await(b, f, "all know all", func() bool { return f.Status().Records == bans })
				}
				took, cpu := time.Since(begun), cpuTime()-cpu
				want := banned(nodes[0])
				for _, f := range nodes {
					if !slices.Equal(banned(f), want) || len(want) != bans {
						b.Fatal("they do not know the same")
					}
				}
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				b.ReportMetric(said.Seconds(), "s-said")
				b.ReportMetric(took.Seconds(), "s-known")
				b.ReportMetric(cpu.Seconds(), "cpu-s")
				b.ReportMetric(float64(m.HeapAlloc)/float64(1<<20)/float64(count), "MB/node")
				for _, stop := range stops {
					stop()
				}
				stopServer(s)
			}
		})
	}
}
