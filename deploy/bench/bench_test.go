package main

import (
	"testing"

	"github.com/staskobzar/goami2"
)

// BenchmarkFrame is the way of one frame from the socket's bytes to the score, of 50,000 sources of which nobody is
// banned, beside goami2's Parse of the same frames, which only finds the headers.
func BenchmarkFrame(b *testing.B) {
	const events = 100_000
	p, texts := newPath(events, 50_000)
	n := 0
	step := func() {
		if n%events == 0 {
			b.StopTimer()
			p.letPointsFade()
			b.StartTimer()
		}
		if err := p.takeFrame(); err != nil {
			b.Fatal(err)
		}
		n++
	}
	for range events {
		step()
	}
	b.Run("score", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			step()
		}
	})
	b.Run("goami2.Parse", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := goami2.Parse(texts[i%events]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestAFrameOfTheBenchmarkIsScored(t *testing.T) {
	const events, sources = 320, 64
	p, _ := newPath(events, sources)
	bans := 0
	for range events {
		if err := p.takeFrame(); err != nil {
			t.Fatal(err)
		}
		bans += len(p.decisions)
	}
	if bans != sources {
		t.Errorf("%d decisions about %d sources that are banned", bans, sources)
	}
}
