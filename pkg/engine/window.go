package engine

import "iter"

// pageSize is how many slots of a window lie together.
const pageSize = 1024

// window remembers values by key for a fixed time, in bounded memory: the oldest goes when it is full. The slots are a
// queue in the order of time, in pages that come and go and are never copied; an index finds the slot of a key. Slots are
// numbered in the order in which they were made, around 2³², so that an entry of the index tells by its number alone
// whether it is out of date: what leaves the queue costs no look at the index. It holds no pointers of its own but those
// to pages, so that the garbage collector does not walk it. Keys are hashes already.
type window[V any] struct {
	ttl   int64 // ns
	max   int   // slots; a power of two
	pages []*[pageSize]slot[V]
	spare *[pageSize]slot[V]
	first uint32 // the oldest
	size  int    // slots in use, of which some may have lost their key
	index index
	keys  int
}

type slot[V any] struct {
	key   uint64
	at    int64
	value V
	lost  bool // the key has a younger slot by now or was removed
}

func newWindow[V any](ttl int64, max int) *window[V] {
	pages := 2 // one more than what is in use takes, since the queue may begin within a page
	for pages*pageSize < max+pageSize {
		pages *= 2
	}
	return &window[V]{ttl: ttl, max: max, pages: make([]*[pageSize]slot[V], pages)}
}

// page returns where the pointer to the page of a slot is.
func (w *window[V]) page(number uint32) **[pageSize]slot[V] {
	return &w.pages[number/pageSize&uint32(len(w.pages)-1)]
}

func (w *window[V]) slot(number uint32) *slot[V] { return &(*w.page(number))[number%pageSize] }

// find returns the slot of a key, or nil.
func (w *window[V]) find(key uint64) *slot[V] {
	if w.keys == 0 {
		return nil
	}
	hash := hashOf(key)
	places := w.index.places(hash)
	for place := home(hash); ; place++ {
		entry := places[place%segmentSize]
		if entry == 0 {
			return nil
		}
		if uint32(entry>>32) == hash && uint32(entry)-w.first < uint32(w.size) {
			if s := w.slot(uint32(entry)); s.key == key && !s.lost {
				return s
			}
		}
	}
}

// get returns the live value of key, to be changed in place until the next put.
func (w *window[V]) get(now int64, key uint64) *V {
	if s := w.find(key); s != nil && now-s.at < w.ttl {
		return &s.value
	}
	return nil
}

// put adds key, which must not be live, and returns its value to be filled in.
func (w *window[V]) put(now int64, key uint64) *V {
	v, _ := w.obtain(now, key)
	return v
}

// obtain returns the live value of key, added if need be, and says whether it was there.
func (w *window[V]) obtain(now int64, key uint64) (v *V, old bool) {
	if s := w.find(key); s != nil {
		if now-s.at < w.ttl {
			return &s.value, true
		}
		s.lost = true
		w.keys--
	}
	w.expire(now, 4)
	if w.size == w.max {
		w.drop()
	}
	number := w.first + uint32(w.size)
	if p := w.page(number); *p == nil {
		if *p, w.spare = w.spare, nil; *p == nil {
			*p = new([pageSize]slot[V])
		}
	}
	s := w.slot(number)
	var none V
	s.key, s.at, s.value, s.lost = key, now, none, false
	w.index.add(hashOf(key), number, w.first, uint32(w.size))
	w.size++
	w.keys++
	return &s.value, false
}

// renew is obtain, and makes key live for at least half of the time to live from now on.
func (w *window[V]) renew(now int64, key uint64) (v *V, old bool) {
	s := w.find(key)
	if s == nil || now-s.at < w.ttl/2 || now-s.at >= w.ttl {
		return w.obtain(now, key)
	}
	value := s.value
	s.lost = true
	w.keys--
	v, _ = w.obtain(now, key)
	*v = value
	return v, true
}

// seen puts key and reports whether it was live already.
func (w *window[V]) seen(now int64, key uint64) bool {
	_, old := w.obtain(now, key)
	return old
}

// expire drops up to n entries whose time is over.
func (w *window[V]) expire(now int64, n int) {
	for ; n > 0 && w.size > 0 && now-w.slot(w.first).at >= w.ttl; n-- {
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
		for n := range uint32(w.size) {
			if s := w.slot(w.first + n); !s.lost && now-s.at < w.ttl && !yield(s.value) {
				return
			}
		}
	}
}

// removeSome drops the entries of which f is true among n slots from a number on, which is w.first at first, and says whether
// there are more.
func (w *window[V]) removeSome(from *uint32, n int, f func(V) bool) (more bool) {
	if w.first-*from < 1<<31 { // the queue has gone on
		*from = w.first
	}
	for end := w.first + uint32(w.size); *from != end; *from++ {
		if n--; n < 0 {
			return true
		}
		if s := w.slot(*from); !s.lost && f(s.value) {
			s.lost = true
			w.keys--
		}
	}
	return false
}

// drop forgets the oldest slot.
func (w *window[V]) drop() {
	if !w.slot(w.first).lost {
		w.keys--
	}
	w.first++
	w.size--
	if w.first%pageSize == 0 || w.size == 0 && w.spare == nil {
		p := w.page(w.first - 1)
		w.spare, *p = *p, nil
	}
}
