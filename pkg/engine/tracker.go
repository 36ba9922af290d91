package engine

const (
	none      = int32(-1)
	chunkSize = 1024
)

// tracker holds the sources in chunks that never move. What an event needs of a source lies together, the links of the
// queues and the details apart: an event of a known source touches one cache line of the index and one of the sources.
type tracker struct {
	secrets
	queues
	index   index
	sources []*[chunkSize]source
	more    []*[chunkSize]details // nil where no source of a chunk needed any yet
	free    int32
	used    int32 // slots ever used
	max     int
}

// newTracker makes a tracker for up to max sources of which most are forgotten after a time in seconds.
func newTracker(max int, memory uint32) *tracker {
	return &tracker{secrets: newSecrets(0), queues: queues{width: memory/(ages/2) + 1}, free: none, max: max}
}

func (t *tracker) slot(i int32) *source { return &t.sources[uint32(i)/chunkSize][uint32(i)%chunkSize] }

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

func (t *tracker) hash(k *key) uint32 { return hashOf(t.idOf(forSource, k, 0)) }

func (t *tracker) get(k key) *source { return t.find(&k, t.hash(&k)) }

// find is get with the hash of the key.
func (t *tracker) find(k *key, hash uint32) *source {
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
			if s := t.slot(int32(entry)); s.key == *k {
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
	t.index.add(t.hash(&k), uint32(i), 0, 1<<31)
	s := t.slot(i)
	*s = source{key: k, seen: now, placed: seconds(now), self: i}
	t.enlist(s)
	return s
}

func (t *tracker) remove(s *source) {
	t.delist(s)
	t.index.remove(t.hash(&s.key), uint32(s.self))
	t.link(s.self).next, t.free = t.free, s.self
}

// renew forgets what is known of a source but its place: it must be classified.
func (t *tracker) renew(s *source, now int64) {
	*s = source{key: s.key, seen: now, class: s.class, placed: s.placed, self: s.self}
}

// place gives a source a new place: in the queue of a class, at a time in seconds.
func (t *tracker) place(s *source, c class, at uint32) {
	t.delist(s)
	s.class, s.placed = c, at
	t.enlist(s)
}

// oldest returns the source of a class that was quiet the longest, or nil: to within the time of a list, and where many at
// the end of the queue were seen again, the quietest of the next few.
func (t *tracker) oldest(c class) *source {
	var quiet *source
	for range looks {
		i := t.last(c)
		if i == none {
			return nil
		}
		s := t.slot(i)
		seen := seconds(s.seen)
		if seen < s.placed+60 {
			return s
		}
		t.place(s, c, seen)
		if quiet == nil || s.seen < quiet.seen {
			quiet = s
		}
	}
	return quiet
}
