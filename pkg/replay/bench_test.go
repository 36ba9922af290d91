package replay_test

import (
	"context"
	"testing"

	"github.com/ringwall/ringwall/pkg/replay"
)

// BenchmarkAMI replays a recording of phones and attackers; events/s counts reading, decoding, judging and tallying.
func BenchmarkAMI(b *testing.B) {
	o := options(nil)
	events := int64(0)
	for b.Loop() {
		o.Stdin = &traffic{left: 30 << 20}
		s, err := replay.Run(context.Background(), []string{"-"}, o)
		if err != nil {
			b.Fatal(err)
		}
		events += s.Events
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}
