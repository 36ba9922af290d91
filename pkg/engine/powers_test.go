package engine

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestHalvesAreThoseOfExp2 compares half with the standard library's function.
func TestHalvesAreThoseOfExp2(t *testing.T) {
	p := newPowers()
	next := 0
	same := func(x float64) {
		got, want := p.half(x), float32(math.Exp2(-x))
		switch {
		case got == want:
		case got == math.Nextafter32(want, 1) || got == math.Nextafter32(want, -1):
			next++
		default:
			t.Fatalf("2^-%v is %v, want %v", x, got, want)
		}
	}
	r := rand.New(rand.NewPCG(7, 8))
	for range 1_000_000 {
		same(r.Float64())
		same(r.Float64() * 160)
		same(math.Abs(r.NormFloat64()) * 1e-6)
		same(float64(r.Int64N(1e13)) / 600e9) // nanoseconds of a day, half-lives of ten minutes
	}
	if next > 20 {
		t.Errorf("%d of 4 million differ in the last bit", next)
	}
	for n := range 160 {
		if got, want := p.half(float64(n)), float32(math.Ldexp(1, -n)); got != want {
			t.Errorf("2^-%d is %v, want %v", n, got, want)
		}
	}
	if got := [3]float32{p.half(0), p.half(math.Inf(1)), p.half(math.MaxFloat64)}; got != [3]float32{1, 0, 0} {
		t.Errorf("at the ends: %v", got)
	}
	if got := p.half(math.NaN()); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func BenchmarkHalf(b *testing.B) {
	p, x, sum := newPowers(), 0.0, float32(0)
	for b.Loop() {
		sum += p.half(x)
		x += 0.01
		if x > 20 {
			x = 0
		}
	}
	_ = sum
}
