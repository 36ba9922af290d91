package store

import "testing"

func BenchmarkLoad100k(b *testing.B) {
	path := statePath(b)
	save(b, path, sampleBans(100_000, 3)...)
	for b.Loop() {
		s, _ := mustOpen(b, path, Options{})
		if n := len(mustLoad(b, s, start).Bans); n != 100_000 {
			b.Fatal(n)
		}
		_ = s.Close()
	}
}

func BenchmarkPut(b *testing.B) {
	s, _ := mustOpen(b, statePath(b), Options{})
	ban := sampleBan(1, 3)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Put(PutBan(ban)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSave100k(b *testing.B) {
	for b.Loop() {
		save(b, statePath(b), sampleBans(100_000, 3)...)
	}
}
