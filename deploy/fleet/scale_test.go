package fleet

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/trial"
)

// TestAFleetGrows has each node of a small fleet and of one ten times as large see its share of the same attackers at
// once: in the end all kernels are the same.
//
//	RINGWALL_FLEET=full go -C deploy test -v -timeout 1h -run FleetGrows ./fleet
func TestAFleetGrows(t *testing.T) {
	for _, count := range shortOrFull([]int{4}, []int{5, 50}) {
		t.Run(fmt.Sprint(count, " nodes"), func(t *testing.T) {
			var names []string
			for i := range count {
				names = append(names, fmt.Sprintf("n%d", i))
			}
			hub, list := newFleet(t, "", names...)
			idle := sum(list, func(n *nodeHost) float64 { return memoryMB(t, n.daemon) })
			cpu := sum(list, func(n *nodeHost) float64 { return cpuTime(t, n.daemon).Seconds() })
			hubTime := cpuTime(t, hub.process)
			attackers := nths(0, shortOrFull(1000, 20_000))
			begun := time.Now()
			for i, some := range slices.Collect(slices.Chunk(attackers, len(attackers)/count)) {
				for piece := range slices.Chunk(some, 100) {
					list[i%count].proven(piece...)
				}
			}
			for _, n := range list {
				trial.WaitUntil(t, n.name+" has heard of all", func() bool { return n.fleetStatus().Records == len(attackers) })
			}
			known := time.Since(begun)
			awaitSameKernels(t, len(attackers), list...)
			took := time.Since(begun)
			for _, n := range list {
				n.awaitUpToDate()
				if refused := n.metric("ringwall_fleet_refused_records_total"); refused != 0 {
					t.Errorf("%s refuses %v", n.name, refused)
				}
			}
			perNode := func(total float64) float64 { return total / float64(count) }
			t.Logf("%d bans: all know all after %s, and have compared their kernels after %s", len(attackers),
				known.Round(10*time.Millisecond), took.Round(10*time.Millisecond))
			t.Logf("a node: %.1f s of a processor, %.0f MB, with nothing known %.0f MB",
				perNode(sum(list, func(n *nodeHost) float64 { return cpuTime(t, n.daemon).Seconds() })-cpu),
				perNode(sum(list, func(n *nodeHost) float64 { return memoryMB(t, n.daemon) })), perNode(idle))
			t.Logf("the hub: %.1f s of a processor, %.0f MB", (cpuTime(t, hub.process) - hubTime).Seconds(),
				memoryMB(t, hub.process))
		})
	}
}

// sum adds up what is true of each node.
func sum(list []*nodeHost, of func(*nodeHost) float64) (total float64) {
	for _, n := range list {
		total += of(n)
	}
	return total
}
