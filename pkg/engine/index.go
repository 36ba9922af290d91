package engine

const (
	placeBits    = 11
	segmentSize  = 1 << placeBits
	segmentFull  = segmentSize * 3 / 4
	hashAlwaysOn = 1 << 20
)

// index finds numbers by hashes, by open addressing in one or two cache lines. It holds no keys: whoever asks compares
// them. It grows by a segment of 16 KB at a time, so that no call has to wait until a table of megabytes was copied
// (extendible hashing, as Fagin, Nievergelt, Pippenger and Strong describe it). The hashes must depend on a secret.
//
// Of a hash, the lower bits choose the segment, bit 20 is set, so that no entry is 0, and the upper bits choose the place.
type index struct {
	directory []*segment // by the lower bits of the hash; its length is a power of two
	count     int        // entries, of which some may be out of date
}

type segment struct {
	places [segmentSize]uint64 // hash, number; or 0
	used   int
	depth  uint8 // how many of the lower bits are the same in all of its hashes
}

// hashOf takes the part of a key or of a longer hash that an index needs.
func hashOf(h uint64) uint32 { return uint32(h) | hashAlwaysOn }

// home is where the search for a hash begins.
func home(hash uint32) uint32 { return hash >> (32 - placeBits) }

// places returns where the entries of a hash are, from home on up to the first 0, or nil.
func (x *index) places(hash uint32) *[segmentSize]uint64 {
	if len(x.directory) == 0 {
		return nil
	}
	return &x.directory[hash&uint32(len(x.directory)-1)].places
}

// warm looks at the memory that a search for a hash and a change of its segment need.
func (x *index) warm(hash uint32) uint64 {
	if len(x.directory) == 0 {
		return 0
	}
	s, place := x.directory[hash&uint32(len(x.directory)-1)], home(hash)
	// A search that goes on ends five places further, or in the same line.
	return s.places[place%segmentSize] + s.places[(place+5)%segmentSize] + uint64(s.used)
}

// first returns the first number of a hash, or 0 where there is none.
func (x *index) first(hash uint32) uint32 {
	places := x.places(hash)
	for place := home(hash); ; place++ {
		entry := places[place%segmentSize]
		if uint32(entry>>32) == hash || entry == 0 {
			return uint32(entry)
		}
	}
}

// add enters a number that is not there. What is outside of first to first+size, counted around 2³², is out of date, and the
// first such entry on the way gives up its place.
func (x *index) add(hash, number, first, size uint32) {
	if len(x.directory) == 0 {
		x.directory = []*segment{new(segment)}
	}
	s := x.directory[hash&uint32(len(x.directory)-1)]
	for s.used >= segmentFull {
		s = x.makeRoom(hash, first, size)
	}
	place := home(hash)
	for s.places[place%segmentSize] != 0 {
		if uint32(s.places[place%segmentSize])-first >= size {
			s.places[place%segmentSize] = uint64(hash)<<32 | uint64(number)
			return
		}
		place++
	}
	s.places[place%segmentSize] = uint64(hash)<<32 | uint64(number)
	s.used++
	x.count++
}

// remove takes out a number.
func (x *index) remove(hash, number uint32) {
	if len(x.directory) == 0 {
		return
	}
	s := x.directory[hash&uint32(len(x.directory)-1)]
	want := uint64(hash)<<32 | uint64(number)
	for place := home(hash); s.places[place%segmentSize] != 0; place++ {
		if s.places[place%segmentSize] == want {
			x.clear(s, place%segmentSize)
			return
		}
	}
}

// clear empties a place, and moves up whatever the search would not find beyond the gap.
func (x *index) clear(s *segment, place uint32) {
	const mask = segmentSize - 1
	for next := (place + 1) & mask; s.places[next] != 0; next = (next + 1) & mask {
		home := home(uint32(s.places[next] >> 32))
		if (next-home)&mask >= (next-place)&mask {
			s.places[place&mask] = s.places[next]
			place = next
		}
	}
	s.places[place&mask] = 0
	s.used--
	x.count--
}

// makeRoom takes what is out of date out of the segment of a hash, and where that does not help much, splits it. It
// returns the segment that the hash has then.
func (x *index) makeRoom(hash, first, size uint32) *segment {
	s := x.directory[hash&uint32(len(x.directory)-1)]
	old := s.places
	live := 0
	for _, entry := range &old {
		if entry != 0 && uint32(entry)-first < size {
			live++
		}
	}
	x.count -= s.used - live
	s.places, s.used = [segmentSize]uint64{}, 0
	upper := s
	if live > segmentSize/2 {
		upper = x.split(s)
	}
	bit := uint32(1) << (s.depth - 1) // of no use where both are the same
	for _, entry := range &old {
		if entry == 0 || uint32(entry)-first >= size {
			continue
		}
		to := s
		if uint32(entry>>32)&bit != 0 {
			to = upper
		}
		place := home(uint32(entry >> 32))
		for to.places[place%segmentSize] != 0 {
			place++
		}
		to.places[place%segmentSize] = entry
		to.used++
	}
	return x.directory[hash&uint32(len(x.directory)-1)]
}

// split gives half of the hashes of an empty segment to a new one, which it returns.
func (x *index) split(s *segment) *segment {
	if 1<<s.depth == len(x.directory) {
		x.directory = append(x.directory, x.directory...)
	}
	upper := &segment{depth: s.depth + 1}
	for i := 0; i < segmentSize; i += 512 { // memory that is read first is given twice: a page of zeros, and then another one
		upper.places[i] = 0
	}
	s.depth++
	for i, have := range x.directory {
		if have == s && i>>(s.depth-1)&1 == 1 {
			x.directory[i] = upper
		}
	}
	return upper
}

// numbers yields all numbers, in no order. The index must not change meanwhile.
func (x *index) numbers(yield func(uint32) bool) {
	for i, s := range x.directory {
		if i >= 1<<s.depth { // seen already
			continue
		}
		for _, entry := range &s.places {
			if entry != 0 && !yield(uint32(entry)) {
				return
			}
		}
	}
}
