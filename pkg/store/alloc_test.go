//go:build !race

package store

import (
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// A flood makes a ban and a line for every few events: each is one piece of memory, of just its size.
func TestARecordIsOneAllocation(t *testing.T) {
	banned, line := sampleBan(1, 3), sampleDecision(1, start)
	var c Change
	for what, put := range map[string]func(){
		"ban":      func() { c = PutBan(banned) },
		"end":      func() { c = DropBan(banned.Prefix) },
		"offender": func() { c = PutOffender(ban.Offender{Prefix: banned.Prefix, Bans: 1, Last: start}) },
		"grace":    func() { c = PutGrace(ban.Grace{Prefix: banned.Prefix, Until: start.Add(time.Hour)}) },
		"line":     func() { c = AddLine(line) },
	} {
		if n := testing.AllocsPerRun(100, put); n != 1 || cap(c.record) > len(c.record)+len(c.record)/8+8 {
			t.Errorf("%s: %v allocations, %d bytes for %d", what, n, cap(c.record), len(c.record))
		}
	}
}
