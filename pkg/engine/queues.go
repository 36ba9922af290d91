package engine

import "math/bits"

const (
	ages  = 64  // lists of a class
	looks = 128 // sources that one search for the oldest puts into a new place: some 20 µs
)

// queues hold the sources of each class by the time of their place, a list for each of the last times and one for all that
// is older. A source gets its place by the time when it was last seen, and keeps it while its class stays the same, though
// it is seen again: an event of a known source moves nothing. Whoever wants the oldest finds those that were seen since at
// the end of the queue and gives them the place that they should have. So no source has a place later than it was seen,
// except for offenders that sweep has looked at, and within one list the order is that of arrival.
type queues struct {
	links []*[chunkSize]link
	width uint32 // of the time of one list, seconds
	base  uint32 // the time of the oldest list, in widths; what is older is there too
	lists [numClasses][ages]struct{ head, tail int32 }
	full  [numClasses]uint64 // a bit for each list that is not empty
}

// link is the place of a source in its list, or in that of the free slots.
type link struct{ prev, next int32 }

func (q *queues) link(i int32) *link { return &q.links[uint32(i)/chunkSize][uint32(i)%chunkSize] }

// age is the list for a time, if it is one of the last times.
func (q *queues) age(at uint32) uint32 { return max(at/q.width, q.base) }

// enlist puts a source at the front of the list for its class and the time of its place.
func (q *queues) enlist(s *source) {
	age := q.age(s.placed)
	if age-q.base >= ages {
		q.turn(age - (ages - 1))
	}
	l := &q.lists[s.class][age%ages]
	at := link{prev: none, next: none}
	if q.full[s.class]&(1<<(age%ages)) != 0 {
		at.next = l.head
		q.link(l.head).prev = s.self
	} else {
		l.tail = s.self
		q.full[s.class] |= 1 << (age % ages)
	}
	l.head = s.self
	*q.link(s.self) = at
}

func (q *queues) delist(s *source) {
	age, at := q.age(s.placed)%ages, *q.link(s.self)
	l := &q.lists[s.class][age]
	if at.prev != none {
		q.link(at.prev).next = at.next
	} else {
		l.head = at.next
	}
	if at.next != none {
		q.link(at.next).prev = at.prev
	} else {
		l.tail = at.prev
	}
	if l.head == none {
		q.full[s.class] &^= 1 << age
	}
}

// turn makes base the time of the oldest list: those before it become one with it.
func (q *queues) turn(base uint32) {
	for n := min(base-q.base, ages); n > 0; n-- {
		to := q.base + 1
		if n == 1 {
			to = base
		}
		for c := range q.lists {
			q.join(class(c), q.base%ages, to%ages)
		}
		q.base = to
	}
}

// join puts a list behind the end of another one.
func (q *queues) join(c class, from, to uint32) {
	if q.full[c]&(1<<from) == 0 || from == to {
		return
	}
	f, t := &q.lists[c][from], &q.lists[c][to]
	if q.full[c]&(1<<to) == 0 {
		*t = *f
	} else {
		q.link(t.tail).next, q.link(f.head).prev = f.head, t.tail
		t.tail = f.tail
	}
	q.full[c] = q.full[c]&^(1<<from) | 1<<to
}

// last returns the slot of the source of a class that has its place for the longest, or none.
func (q *queues) last(c class) int32 {
	if q.full[c] == 0 {
		return none
	}
	first := q.base + uint32(bits.TrailingZeros64(bits.RotateLeft64(q.full[c], -int(q.base%ages))))
	return q.lists[c][first%ages].tail
}
