package table

import "iter"

// Window remembers values by key for a fixed time, in bounded memory: the oldest gives way when it is full. Keys are
// hashes that depend on a secret, so that nobody can choose two that are the same. Times are Unix times in ns that
// never go back.
type Window[V any] struct {
	ttl     int64 // ns
	max     int   // slots
	slots   FIFO[slot[V]]
	dropped uint64            // slots that have left; the oldest is number dropped, the next dropped+1, …
	numbers map[uint64]uint64 // of the slot of each key
}

type slot[V any] struct {
	key   uint64 // noKey: it was removed, or has a younger slot
	at    int64
	value V
}

// noKey is no key: a hash of that value counts as the next one.
const noKey = 0

// NewWindow makes a window of so many slots at most. What is put again while it is there takes another one.
func NewWindow[V any](ttl int64, max int) *Window[V] {
	return &Window[V]{ttl: ttl, max: max, numbers: make(map[uint64]uint64)}
}

// SetTTL changes the time for what is there, too.
func (w *Window[V]) SetTTL(ttl int64) { w.ttl = ttl }

// find returns the slot of a key, or nil.
func (w *Window[V]) find(key uint64) *slot[V] {
	number, ok := w.numbers[max(key, noKey+1)]
	if !ok {
		return nil
	}
	return w.slots.At(int(number - w.dropped))
}

// Get returns the live value of a key, to be changed in place until the next Put, or nil.
func (w *Window[V]) Get(now int64, key uint64) *V {
	if s := w.find(key); s != nil && now-s.at < w.ttl {
		return &s.value
	}
	return nil
}

// Put returns the live value of a key, the zero value added if need be, and says whether it was there.
func (w *Window[V]) Put(now int64, key uint64) (value *V, old bool) {
	if s := w.find(key); s != nil {
		if now-s.at < w.ttl {
			return &s.value, true
		}
		s.key = noKey
	}
	return w.add(now, key), false
}

// Renew is Put, and makes the key live for at least half of the time from now on.
func (w *Window[V]) Renew(now int64, key uint64) (value *V, old bool) {
	s := w.find(key)
	if s == nil {
		return w.add(now, key), false
	}
	age := now - s.at
	if age < w.ttl/2 {
		return &s.value, true
	}
	s.key = noKey
	if age >= w.ttl {
		return w.add(now, key), false
	}
	kept := s.value
	value = w.add(now, key)
	*value = kept
	return value, true
}

// add gives a key a new slot.
func (w *Window[V]) add(now int64, key uint64) *V {
	w.dropEnded(now, 4)
	if w.slots.Len() == w.max {
		w.dropOldest()
	}
	key = max(key, noKey+1)
	w.numbers[key] = w.dropped + uint64(w.slots.Len())
	w.slots.Push(slot[V]{key: key, at: now})
	return &w.slots.Last().value
}

// PutOnce puts a key and reports whether it was live already.
func (w *Window[V]) PutOnce(now int64, key uint64) bool {
	_, old := w.Put(now, key)
	return old
}

// dropEnded drops up to n slots whose time is over.
func (w *Window[V]) dropEnded(now int64, n int) {
	for ; n > 0 && w.slots.Len() > 0 && now-w.slots.First().at >= w.ttl; n-- {
		w.dropOldest()
	}
}

// dropOldest forgets the oldest slot.
func (w *Window[V]) dropOldest() {
	if s := w.slots.First(); s.key != noKey {
		delete(w.numbers, s.key)
	}
	w.slots.Pop()
	w.dropped++
}

// Live counts the keys whose time is not over.
func (w *Window[V]) Live(now int64) int {
	w.dropEnded(now, w.slots.Len())
	return len(w.numbers)
}

// Values yields the live values, the oldest first.
func (w *Window[V]) Values(now int64) iter.Seq[V] {
	return func(yield func(V) bool) {
		for i := range w.slots.Len() {
			if s := w.slots.At(i); now-s.at < w.ttl && s.key != noKey && !yield(s.value) {
				return
			}
		}
	}
}

// RemoveSome looks at n slots from a number on, removes those of which f is true, and says whether there are more. It
// moves the number on; 0 is before the oldest one.
func (w *Window[V]) RemoveSome(from *uint64, n int, f func(V) bool) (more bool) {
	*from = max(*from, w.dropped)
	for end := w.dropped + uint64(w.slots.Len()); *from < end; *from++ {
		if n--; n < 0 {
			return true
		}
		if s := w.slots.At(int(*from - w.dropped)); s.key != noKey && f(s.value) {
			delete(w.numbers, s.key)
			s.key = noKey
		}
	}
	return false
}
