package engine

import "iter"

// window remembers values by key for a fixed time, in bounded memory: the oldest goes when it is full. The slots are a
// queue in the order of time; a table of open addressing finds the slot of a key, at the cost of one or two cache
// lines. It holds no pointers of its own, so that the garbage collector does not walk it. Keys are hashes already.
type window[V any] struct {
	ttl   int64 // ns
	max   int   // slots; a power of two
	slots []slot[V]
	head  int      // the oldest
	size  int      // slots in use, of which some may have lost their key
	table []uint64 // low half of the key, slot + 1, or 0; twice as many as slots, searched linearly
	keys  int
}

type slot[V any] struct {
	key   uint64
	at    int64
	value V
}

func newWindow[V any](ttl int64, max int) *window[V] { return &window[V]{ttl: ttl, max: max} }

// entry is a place of the table: the key's low half, which tells keys apart without a look at their slots, and the slot.
func entry(key uint64, i int) uint64 { return key<<32 | uint64(i) + 1 }

// slotOf returns the slot of an entry.
func slotOf(entry uint64) int { return int(uint32(entry)) - 1 }

// find returns where the table holds key, or the free place where it would.
func (w *window[V]) find(key uint64) (place uint64, ok bool) {
	mask := uint64(len(w.table) - 1)
	for place = key & mask; ; place = (place + 1) & mask {
		e := w.table[place]
		if e == 0 {
			return place, false
		}
		if e>>32 == key&(1<<32-1) && w.slots[slotOf(e)].key == key {
			return place, true
		}
	}
}

// owner returns the place of the key of slot i, unless the key has a younger slot by now or was removed.
func (w *window[V]) owner(i int) (place uint64, ok bool) {
	mask := uint64(len(w.table) - 1)
	want := entry(w.slots[i].key, i)
	for place = w.slots[i].key & mask; ; place = (place + 1) & mask {
		if e := w.table[place]; e == want || e == 0 {
			return place, e == want
		}
	}
}

// get returns the live value of key, to be changed in place until the next put.
func (w *window[V]) get(now int64, key uint64) *V {
	if w.keys == 0 {
		return nil
	}
	place, ok := w.find(key)
	if !ok {
		return nil
	}
	s := &w.slots[slotOf(w.table[place])]
	if now-s.at >= w.ttl {
		return nil
	}
	return &s.value
}

// put adds key, which must not be live, and returns its value to be filled in.
func (w *window[V]) put(now int64, key uint64) *V {
	w.expire(now, 4)
	if w.size == len(w.slots) {
		if len(w.slots) < w.max {
			w.grow()
		} else {
			w.drop()
		}
	}
	place, ok := w.find(key) // before the slot is written: a slot without a key must not be taken for it
	if !ok {
		w.keys++
	}
	i := (w.head + w.size) & (len(w.slots) - 1)
	w.slots[i] = slot[V]{key: key, at: now}
	w.size++
	w.table[place] = entry(key, i)
	return &w.slots[i].value
}

// seen puts key and reports whether it was live already.
func (w *window[V]) seen(now int64, key uint64) bool {
	if w.get(now, key) != nil {
		return true
	}
	w.put(now, key)
	return false
}

// expire drops up to n entries whose time is over.
func (w *window[V]) expire(now int64, n int) {
	for ; n > 0 && w.size > 0 && now-w.slots[w.head].at >= w.ttl; n-- {
		w.drop()
	}
}

// live counts the entries whose time is not over.
func (w *window[V]) live(now int64) int {
	w.expire(now, w.size)
	return w.keys
}

// values yields the live values, the oldest first.
func (w *window[V]) values(now int64) iter.Seq[V] {
	return func(yield func(V) bool) {
		for n := range w.size {
			i := (w.head + n) & (len(w.slots) - 1)
			if _, ok := w.owner(i); ok && now-w.slots[i].at < w.ttl && !yield(w.slots[i].value) {
				return
			}
		}
	}
}

// remove drops the entries of which f is true.
func (w *window[V]) remove(f func(V) bool) {
	for n := range w.size {
		i := (w.head + n) & (len(w.slots) - 1)
		if place, ok := w.owner(i); ok && f(w.slots[i].value) {
			w.clear(place)
		}
	}
}

// drop forgets the oldest slot.
func (w *window[V]) drop() {
	if place, ok := w.owner(w.head); ok {
		w.clear(place)
	}
	w.head = (w.head + 1) & (len(w.slots) - 1)
	w.size--
}

// clear empties a place of the table, and moves up whatever the search would not find beyond the gap.
func (w *window[V]) clear(place uint64) {
	mask := uint64(len(w.table) - 1)
	for next := (place + 1) & mask; w.table[next] != 0; next = (next + 1) & mask {
		home := w.table[next] >> 32 & mask
		if (next-home)&mask >= (next-place)&mask {
			w.table[place] = w.table[next]
			place = next
		}
	}
	w.table[place] = 0
	w.keys--
}

// grow doubles the slots.
func (w *window[V]) grow() {
	slots := make([]slot[V], min(max(2*len(w.slots), 64), w.max))
	kept := 0
	for n := range w.size {
		i := (w.head + n) & (len(w.slots) - 1)
		if _, ok := w.owner(i); ok {
			slots[kept] = w.slots[i]
			kept++
		}
	}
	w.slots, w.head, w.size = slots, 0, kept
	w.table = make([]uint64, 2*len(slots))
	for i := range kept {
		place, _ := w.find(slots[i].key)
		w.table[place] = entry(slots[i].key, i)
	}
}
