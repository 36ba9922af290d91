package engine

import (
	"strconv"
	"testing"

	"github.com/ringwall/ringwall/pkg/policy"
	"github.com/ringwall/ringwall/pkg/security"
)

// BenchmarkTally is what an attempt costs in the counts of the day: with one name, and with names that are new each
// time.
func BenchmarkTally(b *testing.B) {
	for _, n := range []int{1, 1 << 16} {
		b.Run(strconv.Itoa(n)+"_names", func(b *testing.B) {
			list := make([]string, n)
			for i := range list {
				list[i] = "name-" + strconv.Itoa(i)
			}
			e := New(policy.Default().Policy)
			e.advance(epoch)
			ev := security.Event{}
			j := e.newJudgement(&ev, address(1), 0, nil)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				ev.Account = list[i%n]
				j.countForActivity()
			}
		})
	}
}
