package witness

// A cache remembers values by key. Its entries are in classes: a class that is full forgets its oldest, and that of
// another class stays. Keys are hashes that depend on a secret, so that nobody can choose two that are the same.
type cache[V any] struct {
	ttl     int64 // ns; 0: for ever
	entries map[uint64]*entry[V]
	classes []class[V]
	free    *entry[V]
	evicted uint64
	forget  func(*entry[V]) // called for each entry that gives way to another one; nil: nobody asks
}

type class[V any] struct {
	oldest, youngest *entry[V]
	size, max        int
}

type entry[V any] struct {
	key            uint64
	at             int64 // when it was put, or moved
	older, younger *entry[V]
	class          uint8
	value          V
}

// newCache makes a cache with one class for each number, which is how many entries that has at most.
func newCache[V any](ttl int64, sizes ...int) *cache[V] {
	c := &cache[V]{ttl: ttl, entries: make(map[uint64]*entry[V]), classes: make([]class[V], len(sizes))}
	for i, n := range sizes {
		c.classes[i].max = n
	}
	return c
}

// get returns the live entry of a key, or nil. It is valid until the next put or move.
func (c *cache[V]) get(now int64, key uint64) *entry[V] {
	e := c.entries[key]
	if e == nil || c.isOver(now, e) {
		return nil
	}
	return e
}

func (c *cache[V]) isOver(now int64, e *entry[V]) bool { return c.ttl != 0 && now-e.at >= c.ttl }

// put returns the live entry of a key, and says whether it was there. A new one is in the class, with the zero value.
func (c *cache[V]) put(now int64, key uint64, class uint8) (e *entry[V], old bool) {
	if e = c.entries[key]; e != nil {
		if !c.isOver(now, e) {
			return e, true
		}
		c.remove(e)
	}
	for range 2 { // more than one, so that what is over goes away
		if oldest := c.classes[class].oldest; oldest != nil && c.isOver(now, oldest) {
			c.remove(oldest)
		}
	}
	c.makeRoom(class)
	if e = c.free; e != nil {
		c.free = e.older
		*e = entry[V]{}
	} else {
		e = new(entry[V])
	}
	e.key, e.at, e.class = key, now, class
	c.entries[key] = e
	c.link(e)
	return e, false
}

// move makes an entry the youngest of a class.
func (c *cache[V]) move(now int64, e *entry[V], class uint8) {
	c.unlink(e)
	c.makeRoom(class)
	e.at, e.class = now, class
	c.link(e)
}

func (c *cache[V]) remove(e *entry[V]) {
	c.unlink(e)
	delete(c.entries, e.key)
	e.older, c.free = c.free, e
}

func (c *cache[V]) makeRoom(class uint8) {
	if k := &c.classes[class]; k.size >= k.max {
		c.evicted++
		if c.forget != nil {
			c.forget(k.oldest)
		}
		c.remove(k.oldest)
	}
}

func (c *cache[V]) link(e *entry[V]) {
	k := &c.classes[e.class]
	e.older, e.younger = k.youngest, nil
	if k.youngest != nil {
		k.youngest.younger = e
	} else {
		k.oldest = e
	}
	k.youngest = e
	k.size++
}

func (c *cache[V]) unlink(e *entry[V]) {
	k := &c.classes[e.class]
	if e.older != nil {
		e.older.younger = e.younger
	} else {
		k.oldest = e.younger
	}
	if e.younger != nil {
		e.younger.older = e.older
	} else {
		k.youngest = e.older
	}
	k.size--
}

func (c *cache[V]) len() int { return len(c.entries) }
