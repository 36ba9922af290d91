// Package property tries what must hold on many random cases. A failure names the seed that repeats it.
package property

import (
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// seedVariable is the environment variable that repeats the cases of a failure.
const seedVariable = "RINGWALL_TEST_SEED"

// caseCount is how many cases are tried.
const caseCount = 100

// T is one case.
type T struct {
	testing.TB
	random *rand.Rand
	size   float64 // above 0, up to 1: of how many things there are at most
}

// Check calls f with one case after the other, until one fails. The first ones are small, and so is what they find.
func Check(t *testing.T, f func(t *T)) {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv(seedVariable); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedVariable, err)
		}
	}
	for i := range caseCount {
		tryCase(t, seed, i, f)
		if t.Failed() {
			return
		}
	}
}

func tryCase(t *testing.T, seed uint64, i int, f func(t *T)) {
	t.Helper()
	done := false
	defer func() { // also where f ends the test
		if !done || t.Failed() {
			t.Logf("case %d of %d; to repeat it: %s=%d go test -run '^%s$'", i+1, caseCount, seedVariable, seed,
				t.Name())
		}
	}()
	f(&T{TB: t, random: rand.New(rand.NewPCG(seed, uint64(i))), size: math.Sqrt(float64(i+1) / caseCount)})
	done = true
}

// Bool is true or false.
func Bool(t *T) bool { return t.random.IntN(2) == 0 }

// Int is a number from least to most, and more often than others one of these two.
func Int[N ~int | ~int64](t *T, least, most N) N {
	switch t.random.IntN(16) {
	case 0:
		return least
	case 1:
		return most
	}
	n := t.random.Uint64()
	if others := uint64(most) - uint64(least) + 1; others > 0 { // else every number is within
		n %= others
	}
	return least + N(n)
}

// AnyInt is any number: as often a small one as a large one.
func AnyInt(t *T) int {
	n := int(t.random.Uint64() >> t.random.IntN(64))
	if Bool(t) {
		return -n
	}
	return n
}

// AnyFloat is any finite number.
func AnyFloat(t *T) float64 {
	for {
		switch f := math.Float64frombits(t.random.Uint64()); {
		case t.random.IntN(4) == 0:
			return float64(AnyInt(t)) / 16
		case !math.IsNaN(f) && !math.IsInf(f, 0):
			return f
		}
	}
}

// Float is a number from least to below most.
func Float(t *T, least, most float64) float64 { return least + t.random.Float64()*(most-least) }

// Count is how many things there are: from least to most, and fewer in the first cases.
func Count(t *T, least, most int) int {
	return Int(t, least, least+int(math.Ceil(float64(most-least)*t.size)))
}

// Bytes are from least to most bytes, mostly of any value.
func Bytes(t *T, least, most int) []byte {
	b := make([]byte, Count(t, least, most))
	for i := range b {
		b[i] = byte(Int(t, 0, 255))
	}
	return b
}

// Text is up to most characters of an alphabet.
func Text(t *T, alphabet []rune, most int) string {
	text := make([]rune, Count(t, 0, most))
	for i := range text {
		text[i] = OneOf(t, alphabet...)
	}
	return string(text)
}

// OneOf is one of some values.
func OneOf[V any](t *T, values ...V) V { return values[t.random.IntN(len(values))] }
