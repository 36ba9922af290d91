package engine

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// look says whether an index has a number under a hash.
func (x *index) look(hash, number uint32) bool {
	places := x.places(hash)
	for place := home(hash); places != nil && places[place%segmentSize] != 0; place++ {
		if places[place%segmentSize] == uint64(hash)<<32|uint64(number) {
			return true
		}
	}
	return false
}

// TestAnIndexGrowsAndForgets fills an index like a queue, which is out of date at its front, and takes some out by name.
func TestAnIndexGrowsAndForgets(t *testing.T) {
	const size = 50_000
	r := rand.New(rand.NewPCG(1, 2))
	var x index
	first := uint32(math.MaxUint32 - 70_000) // it passes 2³²
	hashes := make(map[uint32]uint32)
	for i := range uint32(4 * size) {
		number := first + min(i, size)
		if i >= size {
			delete(hashes, first)
			first++
		}
		hash := hashOf(r.Uint64())
		x.add(hash, number, first, min(i, size))
		hashes[number] = hash
		if i%7 == 0 {
			gone := first + r.Uint32N(min(i, size)+1)
			if hash, ok := hashes[gone]; ok {
				x.remove(hash, gone)
				delete(hashes, gone)
			}
		}
		if i%10_000 == 0 || i == 4*size-1 {
			if err := x.check(); err != nil {
				t.Fatal(err)
			}
			for number, hash := range hashes {
				if !x.look(hash, number) {
					t.Fatalf("%d is not there", number)
				}
			}
		}
	}
	if x.count > 3*size {
		t.Errorf("%d entries for %d numbers", x.count, len(hashes))
	}
	if n := len(slices.Collect(x.numbers)); n != x.count {
		t.Errorf("%d numbers, counted %d", n, x.count)
	}
}

// TestAnIndexWithoutNumbers asks an index that has never had any.
func TestAnIndexWithoutNumbers(t *testing.T) {
	var x index
	x.remove(hashOf(1), 1)
	if x.look(hashOf(1), 1) || len(slices.Collect(x.numbers)) != 0 {
		t.Error("it has something")
	}
}

// TestEqualHashesStayApart gives many numbers few hashes: searches are long, and right.
func TestEqualHashesStayApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var x index
		have := make(map[uint32]bool)
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			number := rapid.Uint32Range(0, 200).Draw(t, "number")
			hash := hashOf(uint64(number%5) * 0x3fffffff)
			if have[number] {
				x.remove(hash, number)
			} else {
				x.add(hash, number, 0, math.MaxUint32)
			}
			have[number] = !have[number]
			if err := x.check(); err != nil {
				t.Fatal(err)
			}
			for n, want := range have {
				if x.look(hashOf(uint64(n%5)*0x3fffffff), n) != want {
					t.Fatalf("%d: want %v", n, want)
				}
			}
		}
	})
}

// TestAWindowPasses32Bits lets the numbers of a window's slots begin again at 0.
func TestAWindowPasses32Bits(t *testing.T) {
	const size = 4096
	w := newWindow[int](1000, size)
	w.first = math.MaxUint32 - 3*size/2
	for i := range 4 * size {
		now := int64(i) / 8 // 8,000 within the time: the size is what bounds it
		*w.put(now, uint64(i)*0x9e3779b97f4a7c15) = i
		for _, back := range []int{0, 1, 100, size - 1, size, 2 * size} {
			v := w.get(now, uint64(i-back)*0x9e3779b97f4a7c15)
			if want := back < size && back <= i; (v != nil) != want || v != nil && *v != i-back {
				t.Fatalf("%d before %d: %v, want %v", back, i, v, want)
			}
		}
		if w.keys != min(i+1, size) {
			t.Fatalf("%d keys after %d", w.keys, i+1)
		}
	}
	if n := w.live(1 << 40); n != 0 || w.size != 0 {
		t.Errorf("%d live, size %d", n, w.size)
	}
	pages := 0
	for _, p := range w.pages {
		if p != nil {
			pages++
		}
	}
	if pages > 1 {
		t.Errorf("an empty window holds %d pages", pages)
	}
}
