package table

import "math/bits"

const (
	none     = int32(-1)
	ageLists = 64 // of a class
)

// Ages order the numbers of a Pool, in classes, by a time in seconds: a list for each of the last times and one for all
// that is older. Within one list the order is that of arrival. The owner keeps the class and time of each number, and
// names them again to take it out; a number that is only seen again need not be moved.
type Ages struct {
	links []*[pageSize]link
	width uint32 // of the time of one list, seconds
	base  uint32 // the time of the oldest list, in widths; what is older is there too
	lists [][ageLists]struct{ head, tail int32 }
	full  []uint64 // of each class: a bit for each list that is not empty
}

// link is the place of a number in its list.
type link struct{ prev, next int32 }

// NewAges makes empty lists for so many classes, which tell times apart within the last seconds: to a 32nd of them.
func NewAges(classes int, seconds uint32) *Ages {
	return &Ages{
		width: seconds/(ageLists/2) + 1,
		lists: make([][ageLists]struct{ head, tail int32 }, classes), full: make([]uint64, classes),
	}
}

func (a *Ages) link(number int32) *link {
	return &a.links[uint32(number)/pageSize][uint32(number)%pageSize]
}

// listFor is the list for a time, if it is one of the last times.
func (a *Ages) listFor(at uint32) uint32 { return max(at/a.width, a.base) }

// Insert puts a number in front of those of its class and time.
func (a *Ages) Insert(number int32, class int, at uint32) {
	for int(number)/pageSize >= len(a.links) {
		a.links = append(a.links, new([pageSize]link))
	}
	list := a.listFor(at)
	if list-a.base >= ageLists {
		a.advance(list - (ageLists - 1))
	}
	l := &a.lists[class][list%ageLists]
	here := link{prev: none, next: none}
	if a.full[class]&(1<<(list%ageLists)) != 0 {
		here.next = l.head
		a.link(l.head).prev = number
	} else {
		l.tail = number
		a.full[class] |= 1 << (list % ageLists)
	}
	l.head = number
	*a.link(number) = here
}

// Remove takes a number out of the class and time that it was inserted with.
func (a *Ages) Remove(number int32, class int, at uint32) {
	list, here := a.listFor(at)%ageLists, *a.link(number)
	l := &a.lists[class][list]
	if here.prev != none {
		a.link(here.prev).next = here.next
	} else {
		l.head = here.next
	}
	if here.next != none {
		a.link(here.next).prev = here.prev
	} else {
		l.tail = here.prev
	}
	if l.head == none {
		a.full[class] &^= 1 << list
	}
}

// advance makes base the time of the oldest list: those before it become one with it.
func (a *Ages) advance(base uint32) {
	for n := min(base-a.base, ageLists); n > 0; n-- {
		to := a.base + 1
		if n == 1 {
			to = base
		}
		for class := range a.lists {
			a.appendList(class, a.base%ageLists, to%ageLists)
		}
		a.base = to
	}
}

// appendList puts a list behind the end of another one.
func (a *Ages) appendList(class int, from, to uint32) {
	if a.full[class]&(1<<from) == 0 || from == to {
		return
	}
	f, t := &a.lists[class][from], &a.lists[class][to]
	if a.full[class]&(1<<to) == 0 {
		*t = *f
	} else {
		a.link(t.tail).next, a.link(f.head).prev = f.head, t.tail
		t.tail = f.tail
	}
	a.full[class] = a.full[class]&^(1<<from) | 1<<to
}

// Oldest returns the number of a class that has its place for the longest, to within the time of a list.
func (a *Ages) Oldest(class int) (number int32, ok bool) {
	if a.full[class] == 0 {
		return 0, false
	}
	first := a.base + uint32(bits.TrailingZeros64(bits.RotateLeft64(a.full[class], -int(a.base%ageLists))))
	return a.lists[class][first%ageLists].tail, true
}

// All yields the numbers of a class, the oldest first.
func (a *Ages) All(class int) func(yield func(int32) bool) {
	return func(yield func(int32) bool) {
		for list := a.base; list < a.base+ageLists; list++ {
			if a.full[class]&(1<<(list%ageLists)) == 0 {
				continue
			}
			for i := a.lists[class][list%ageLists].tail; i != none; i = a.link(i).prev {
				if !yield(i) {
					return
				}
			}
		}
	}
}
