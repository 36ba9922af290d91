package property

import (
	"math"
	"testing"
)

// A case depends on the seed and its number alone.
func TestASeedRepeatsItsCases(t *testing.T) {
	t.Setenv(seedVariable, "7")
	draw := func() (drawn []string) {
		Check(t, func(t *T) { drawn = append(drawn, Text(t, []rune("abcdefgh"), 20)) })
		return drawn
	}
	first, second := draw(), draw()
	different := map[string]bool{}
	for i := range first {
		if different[first[i]] = true; first[i] != second[i] {
			t.Fatalf("case %d is %q and then %q", i, first[i], second[i])
		}
	}
	if len(first) != caseCount || len(different) < caseCount/2 {
		t.Errorf("%d cases, of which %d differ", len(first), len(different))
	}
}

func TestNumbersAreWithinTheirBounds(t *testing.T) {
	edges := map[int64]int{}
	Check(t, func(t *T) {
		for range 100 {
			n := Int(t, int64(math.MinInt64), math.MaxInt64)
			edges[n]++
			if n := Int(t, -1, 1); n < -1 || n > 1 {
				t.Errorf("%d is not from -1 to 1", n)
			}
			if n := Int(t, 5, 5); n != 5 {
				t.Errorf("%d is not 5", n)
			}
			if n := Count(t, 2, 40); n < 2 || n > 40 {
				t.Errorf("%d is not from 2 to 40", n)
			}
			if f := Float(t, 0.1, 10); f < 0.1 || f >= 10 {
				t.Errorf("%g is not from 0.1 to 10", f)
			}
			if f := AnyFloat(t); math.IsNaN(f) || math.IsInf(f, 0) {
				t.Errorf("%g is not finite", f)
			}
			if b := Bytes(t, 4, 4); len(b) != 4 {
				t.Errorf("%d bytes, not 4", len(b))
			}
		}
	})
	if edges[math.MinInt64] == 0 || edges[math.MaxInt64] == 0 {
		t.Error("the bounds themselves never come")
	}
}
