package engine

import (
	"strconv"
	"testing"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/config"
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
			e := New(config.Default().Policy)
			e.advanceTime(epoch)
			ev := event.Event{}
			j := e.newJudgement(&ev, address(1), 0, nil)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				ev.Account = list[i%n]
				j.countForActivity()
			}
		})
	}
}
