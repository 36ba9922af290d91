package table

import (
	"math"
	"math/bits"
)

// Distinct counts different things within a span of time, roughly and in 16 bytes.
type Distinct struct {
	seen  uint64 // a bit for each thing, which may share it with others
	begun uint32 // when the first was seen, seconds
}

// Add counts a thing, which has one of 64 bits, and says whether that is new. What was seen a span before is forgotten.
// Times are in seconds.
func (d *Distinct) Add(now, span uint32, bit uint8) bool {
	if d.isOver(now, span) {
		d.seen, d.begun = 0, now
	}
	fresh := d.seen&(1<<bit) == 0
	d.seen |= 1 << bit
	return fresh
}

func (d *Distinct) isOver(now, span uint32) bool { return d.seen == 0 || now-d.begun >= span }

// Estimate is how many things there were, roughly.
func (d *Distinct) Estimate() int { return EstimateDistinct(d.seen) }

// EstimateDistinct is how many things set the bits of a word, by linear counting (Whang, Vander-Zanden, Taylor 1990);
// 320 stands for any number that set them all.
func EstimateDistinct(word uint64) int {
	zero := 64 - bits.OnesCount64(word)
	if zero == 0 {
		return 64 * 5
	}
	return int(math.Round(-64 * math.Log(float64(zero)/64)))
}

// DistinctFew is a Distinct that counts the first four things exactly, and never says more than there were.
type DistinctFew struct {
	Distinct
	first [4]uint32 // marks; see AddMark
}

// Add counts a thing, which has a hash and one of 64 bits. Times are in seconds.
func (d *DistinctFew) Add(now, span uint32, hash uint64, bit uint8) {
	if d.isOver(now, span) {
		d.first = [4]uint32{}
	}
	d.Distinct.Add(now, span, bit)
	AddMark(d.first[:], hash)
}

// AtLeast is how many things there were at least.
func (d *DistinctFew) AtLeast() int {
	for i, mark := range d.first {
		if mark == 0 {
			return i
		}
	}
	return max(len(d.first), bits.OnesCount64(d.seen))
}

// AddMark adds a thing by its hash to a list of different ones, in which 0 is free room, if there is room. It returns
// how many there are.
func AddMark(marks []uint32, hash uint64) int {
	mark, n := uint32(hash>>32)|1, 0
	for i := range marks {
		if marks[i] == 0 {
			marks[i] = mark
		}
		n++
		if marks[i] == mark {
			break
		}
	}
	for n < len(marks) && marks[n] != 0 {
		n++
	}
	return n
}
