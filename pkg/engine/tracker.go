package engine

const (
	none      = int32(-1)
	chunkSize = 1024
)

// tracker holds the sources in chunks that never move, each source in the list of its class, the latest first. What an
// event needs of a source lies together, the links of the lists and the details apart: an event of a known source
// touches one cache line of the index and one of the sources.
type tracker struct {
	secrets
	index   index
	sources []*[chunkSize]source
	links   []*[chunkSize]link
	more    []*[chunkSize]details // nil where no source of a chunk needed any yet
	free    int32
	used    int32 // slots ever used
	max     int
	lists   [numClasses]struct{ head, tail int32 }
}

// link is the place of a source in the list of its class, or in that of the free slots.
type link struct{ prev, next int32 }

func newTracker(max int) *tracker {
	t := &tracker{secrets: newSecrets(), free: none, max: max}
	for i := range t.lists {
		t.lists[i].head, t.lists[i].tail = none, none
	}
	return t
}

func (t *tracker) slot(i int32) *source { return &t.sources[uint32(i)/chunkSize][uint32(i)%chunkSize] }
func (t *tracker) link(i int32) *link   { return &t.links[uint32(i)/chunkSize][uint32(i)%chunkSize] }

// details returns the details of a source, to be read or changed.
func (t *tracker) details(s *source) *details {
	chunk := &t.more[s.self/chunkSize]
	if *chunk == nil {
		*chunk = new([chunkSize]details)
	}
	d := &(*chunk)[s.self%chunkSize]
	if !s.detailed { // what a source before it left there
		*d, s.detailed = details{}, true
	}
	return d
}

func (t *tracker) hash(k key) uint32 { return hashOf(t.id(forSource, k, 0)) }

func (t *tracker) get(k key) *source {
	hash := t.hash(k)
	places := t.index.places(hash)
	if places == nil {
		return nil
	}
	for place := home(hash); ; place++ {
		entry := places[place%segmentSize]
		if entry == 0 {
			return nil
		}
		if uint32(entry>>32) == hash {
			if s := t.slot(int32(entry)); s.key == k {
				return s
			}
		}
	}
}

func (t *tracker) len() int { return t.index.count }

// add makes a source. It must not exist, and there must be room.
func (t *tracker) add(k key, now int64) *source {
	i := t.free
	if i != none {
		t.free = t.link(i).next
	} else {
		i = t.used
		t.used++
		if int(i/chunkSize) == len(t.sources) {
			t.sources = append(t.sources, new([chunkSize]source))
			t.links = append(t.links, new([chunkSize]link))
			t.more = append(t.more, nil)
		}
	}
	t.index.add(t.hash(k), uint32(i), 0, 1<<31)
	s := t.slot(i)
	*s = source{key: k, seen: now, touched: seconds(now), self: i}
	t.enlist(s)
	return s
}

func (t *tracker) remove(s *source) {
	t.delist(s)
	t.index.remove(t.hash(s.key), uint32(s.self))
	t.link(s.self).next, t.free = t.free, s.self
}

// renew forgets what is known of a source, as remove and add do, without a look at the index.
func (t *tracker) renew(s *source, now int64) {
	t.delist(s)
	*s = source{key: s.key, seen: now, touched: seconds(now), self: s.self}
	t.enlist(s)
}

// touch moves a source to the front of a class.
func (t *tracker) touch(s *source, c class) {
	if s.class == c && t.lists[c].head == s.self {
		return
	}
	t.delist(s)
	s.class = c
	t.enlist(s)
}

func (t *tracker) enlist(s *source) {
	l := &t.lists[s.class]
	*t.link(s.self) = link{prev: none, next: l.head}
	if l.head != none {
		t.link(l.head).prev = s.self
	} else {
		l.tail = s.self
	}
	l.head = s.self
}

func (t *tracker) delist(s *source) {
	l, at := &t.lists[s.class], *t.link(s.self)
	if at.prev != none {
		t.link(at.prev).next = at.next
	} else {
		l.head = at.next
	}
	if at.next != none {
		t.link(at.next).prev = at.prev
	} else {
		l.tail = at.prev
	}
}

// neighbours looks at the links that change when a source moves.
func (t *tracker) neighbours(i int32) (sum int32) {
	at := *t.link(i)
	if at.prev != none {
		sum += t.link(at.prev).next
	}
	if at.next != none {
		sum += t.link(at.next).prev
	}
	return sum
}

// oldest returns the source of a class that was touched the longest ago, or nil.
func (t *tracker) oldest(c class) *source {
	if i := t.lists[c].tail; i != none {
		return t.slot(i)
	}
	return nil
}
