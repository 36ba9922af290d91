//go:build !race

package store

import (
	"testing"
	"time"
)

// A flood makes a ban and a line for every few events: each is one piece of memory, of just its size.
func TestARecordIsOneAllocation(t *testing.T) {
	ban, line := sampleBan(1, 3), sampleDecision(1, start)
	var c Change
	for what, put := range map[string]func(){
		"ban":      func() { c = PutBan(ban) },
		"end":      func() { c = DropBan(ban.Prefix) },
		"offender": func() { c = PutOffender(Offender{Source: ban.Prefix, Bans: 1, Last: start}) },
		"grace":    func() { c = PutGrace(Grace{Prefix: ban.Prefix, Until: start.Add(time.Hour)}) },
		"line":     func() { c = AddLine(line) },
	} {
		if n := testing.AllocsPerRun(100, put); n != 1 || cap(c.record) > len(c.record)+len(c.record)/8+8 {
			t.Errorf("%s: %v allocations, %d bytes for %d", what, n, cap(c.record), len(c.record))
		}
	}
}
