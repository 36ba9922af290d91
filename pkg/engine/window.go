package engine

import "iter"

// window remembers values by key for a fixed time, in bounded memory: the oldest goes when it is full. It holds no
// pointers of its own, so that the garbage collector does not walk it.
type window[V any] struct {
	ttl   int64             // ns
	max   int               // a power of two
	index map[uint64]uint32 // key → slot
	slots []slot[V]
	head  int // the oldest
	size  int
}

type slot[V any] struct {
	key   uint64
	at    int64
	value V
}

func newWindow[V any](ttl int64, max int) *window[V] {
	return &window[V]{ttl: ttl, max: max, index: make(map[uint64]uint32)}
}

// get returns the live value of key, to be changed in place until the next put.
func (w *window[V]) get(now int64, key uint64) *V {
	i, ok := w.index[key]
	if !ok || now-w.slots[i].at >= w.ttl {
		return nil
	}
	return &w.slots[i].value
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
	i := (w.head + w.size) & (len(w.slots) - 1)
	w.slots[i] = slot[V]{key: key, at: now}
	w.size++
	w.index[key] = uint32(i)
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
	return len(w.index)
}

// values yields the live values, the oldest first.
func (w *window[V]) values(now int64) iter.Seq[V] {
	return func(yield func(V) bool) {
		for n := range w.size {
			if s := w.nth(now, n); s != nil && !yield(s.value) {
				return
			}
		}
	}
}

// drain drops the live values of which f is true.
func (w *window[V]) drain(now int64, f func(V) bool) {
	for n := range w.size {
		if s := w.nth(now, n); s != nil && f(s.value) {
			delete(w.index, s.key)
		}
	}
}

// nth returns the n-th slot if its value is live.
func (w *window[V]) nth(now int64, n int) *slot[V] {
	i := (w.head + n) & (len(w.slots) - 1)
	s := &w.slots[i]
	if have, ok := w.index[s.key]; ok && int(have) == i && now-s.at < w.ttl {
		return s
	}
	return nil
}

func (w *window[V]) drop() {
	s := &w.slots[w.head]
	if i, ok := w.index[s.key]; ok && int(i) == w.head {
		delete(w.index, s.key)
	}
	w.head = (w.head + 1) & (len(w.slots) - 1)
	w.size--
}

func (w *window[V]) grow() {
	n := min(max(2*len(w.slots), 64), w.max)
	slots := make([]slot[V], n)
	for i := range w.size {
		slots[i] = w.slots[(w.head+i)&(len(w.slots)-1)]
		if have, ok := w.index[slots[i].key]; ok && int(have) == (w.head+i)&(len(w.slots)-1) {
			w.index[slots[i].key] = uint32(i)
		}
	}
	w.slots, w.head = slots, 0
}
