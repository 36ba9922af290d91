package store

import (
	"testing"
	"time"
)

func BenchmarkLoad100k(b *testing.B) {
	path := statePath(b)
	save(b, path, sampleBans(100_000, 3)...)
	for b.Loop() {
		s, _ := mustOpen(b, path, Options{Counts: countsInTests})
		if state := mustLoad(b, s, start); len(state.Bans) != 100_000 || len(state.Offenders) != 100_000 {
			b.Fatal(len(state.Bans), len(state.Offenders))
		}
		_ = s.Close()
	}
}

func BenchmarkPut(b *testing.B) {
	s, _ := mustOpen(b, statePath(b), Options{})
	banned := sampleBan(1, 3)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Put(PutBan(banned)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSave100k(b *testing.B) {
	for b.Loop() {
		save(b, statePath(b), sampleBans(100_000, 3)...)
	}
}

// BenchmarkFlood is what a flood's bans cost with their lines of history: to be encoded, to wait, and to be written.
func BenchmarkFlood(b *testing.B) {
	s, _ := mustOpen(b, statePath(b), Options{})
	banned, line := sampleBan(1, 3), sampleDecision(1, time.Now())
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		p := host(n * 7919 % (1 << 22))
		banned.Prefix, banned.Source, line.Prefix = p, p.Addr(), p
		if err := s.Put(PutBan(banned), AddDecision(line)); err != nil {
			b.Fatal(err)
		}
		if n++; n%50_000 == 0 {
			if _, err := s.writeWaiting(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
