package engine

import (
	"math"
	"net/netip"
)

// key is a source: an IPv4 address or an IPv6 prefix, in the 16-byte form of its first address.
type key [16]byte

// source is what is remembered of one source. There may be a million: it is small and holds no pointers.
type source struct {
	key        key
	prev, next int32 // in the list of its class
	class      class
	bans       uint8  // so far, within ban.memory
	many       bool   // more than one account fails
	failing    uint32 // checksum of the account that failed last, 0 for none
	attempts   uint32
	evidence   uint32 // sequence number of the latest record, 0 for none
	open       uint16 // challenges that wait for a login

	at         int64   // when the numbers below were brought up to date, ns
	score      float32 // of evidence that is enforced
	proven     float32 // the part of score that could not have been forged
	observed   float32 // score, and evidence that is only observed
	pace       pace    // of the failing account
	first      int64   // ns
	login      int64   // the last, ns
	banned     int64   // end of the last ban, ns
	challenged uint64  // a sketch of the known accounts whose challenges stayed unanswered
	sketched   int64   // when that sketch was begun, ns
}

// decay brings the numbers up to now.
func (s *source) decay(now int64, e *Engine) {
	dt := now - s.at
	if dt <= 0 {
		return
	}
	if s.observed > 0 {
		f := float32(math.Exp2(-float64(dt) / float64(e.cfg.HalfLife)))
		s.score *= f
		s.proven *= f
		s.observed *= f
	}
	s.pace.leak(dt, e.cfg.Misconfigured.PerMinute)
	s.at = now
}

// distinct estimates how many accounts the sketch has seen, by linear counting.
func distinct(sketch uint64) int {
	zero := 0
	for b := sketch; b != math.MaxUint64; b |= b + 1 {
		zero++
	}
	if zero == 0 {
		return 64 * 5
	}
	return int(math.Round(-64 * math.Log(float64(zero)/64)))
}

// class orders sources for forgetting.
type class uint8

const (
	harmless class = iota
	suspicious
	offender // banned before, or close to it
	pinned   // banned or trusted: never forgotten to make room
	numClasses
)

const (
	none      = int32(-1)
	chunkSize = 4096
)

// tracker holds the sources in chunks that never move, each in the list of its class, the latest first.
type tracker struct {
	index  map[key]int32
	chunks []*[chunkSize]source
	free   int32
	used   int32 // slots ever used
	max    int
	lists  [numClasses]struct{ head, tail int32 }
}

func newTracker(max int) *tracker {
	t := &tracker{index: make(map[key]int32), free: none, max: max}
	for i := range t.lists {
		t.lists[i].head, t.lists[i].tail = none, none
	}
	return t
}

func (t *tracker) slot(i int32) *source { return &t.chunks[i/chunkSize][i%chunkSize] }

func (t *tracker) get(k key) *source {
	if i, ok := t.index[k]; ok {
		return t.slot(i)
	}
	return nil
}

func (t *tracker) len() int { return len(t.index) }

// add makes a source. It must not exist, and there must be room.
func (t *tracker) add(k key, now int64) *source {
	i := t.free
	if i != none {
		t.free = t.slot(i).next
	} else {
		i = t.used
		t.used++
		if int(i/chunkSize) == len(t.chunks) {
			t.chunks = append(t.chunks, new([chunkSize]source))
		}
	}
	t.index[k] = i
	s := t.slot(i)
	*s = source{key: k, at: now, first: now, prev: none, next: none}
	t.link(i, s)
	return s
}

func (t *tracker) remove(s *source) {
	i := t.index[s.key]
	t.unlink(i, s)
	delete(t.index, s.key)
	s.next, t.free = t.free, i
}

// touch moves a source to the front of a class.
func (t *tracker) touch(s *source, c class) {
	if s.class == c && s.prev == none {
		return
	}
	i := t.index[s.key]
	t.unlink(i, s)
	s.class = c
	t.link(i, s)
}

func (t *tracker) link(i int32, s *source) {
	l := &t.lists[s.class]
	s.prev, s.next = none, l.head
	if l.head != none {
		t.slot(l.head).prev = i
	} else {
		l.tail = i
	}
	l.head = i
}

func (t *tracker) unlink(i int32, s *source) {
	l := &t.lists[s.class]
	if s.prev != none {
		t.slot(s.prev).next = s.next
	} else {
		l.head = s.next
	}
	if s.next != none {
		t.slot(s.next).prev = s.prev
	} else {
		l.tail = s.prev
	}
}

// oldest returns the source of a class that was touched the longest ago, or nil.
func (t *tracker) oldest(c class) *source {
	if i := t.lists[c].tail; i != none {
		return t.slot(i)
	}
	return nil
}

// keyOf returns the source that an address belongs to. The address has no zone and is not IPv4-mapped.
func (e *Engine) keyOf(a netip.Addr) key {
	if a.Is4() {
		return key(a.As16())
	}
	p, _ := a.Prefix(e.cfg.IPv6Prefix)
	return key(p.Addr().As16())
}

// prefixOf returns the prefix of a source.
func (e *Engine) prefixOf(k key) netip.Prefix {
	a := netip.AddrFrom16(k)
	if a.Is4In6() {
		return netip.PrefixFrom(a.Unmap(), 32)
	}
	return netip.PrefixFrom(a, e.cfg.IPv6Prefix)
}

// track returns the source of a key, made if need be. It is nil when max_sources is reached and every source is banned or
// trusted.
func (e *Engine) track(k key) *source {
	if s := e.sources.get(k); s != nil {
		s.decay(e.now, e)
		return s
	}
	if e.sources.len() >= e.sources.max && !e.evict() {
		e.limited["max_sources"]++
		return nil
	}
	return e.sources.add(k, e.now)
}

// evict forgets the least suspicious of the sources that were quiet the longest.
func (e *Engine) evict() bool {
	var victim *source
	for c := harmless; c < pinned; c++ {
		s := e.sources.oldest(c)
		if s == nil {
			continue
		}
		s.decay(e.now, e)
		if victim == nil || s.observed < victim.observed && s.bans <= victim.bans {
			victim = s
		}
	}
	if victim == nil {
		return false
	}
	e.sources.remove(victim)
	e.evicted++
	return true
}

// classify puts a source into the class that its present state calls for.
func (e *Engine) classify(s *source) {
	c := harmless
	switch {
	case e.isBanned(s.key) || e.trusted(s.key) != nil:
		c = pinned
	case s.bans > 0 || float64(s.observed) >= e.cfg.Threshold/2:
		c = offender
	case float64(s.observed) >= e.cfg.Threshold/4:
		c = suspicious
	}
	e.sources.touch(s, c)
}

// sweep forgets up to n sources whose score has decayed to nothing, so that a quiet engine shrinks.
func (e *Engine) sweep(n int) {
	for c := harmless; c < pinned; c++ {
		for ; n > 0; n-- {
			s := e.sources.oldest(c)
			if s == nil || e.now-s.at < 10*int64(e.cfg.HalfLife) || e.now-s.login < int64(e.cfg.HalfLife) && s.login != 0 {
				break
			}
			if s.bans > 0 && e.now-s.banned < int64(e.cfg.Ban.Memory) {
				e.sources.touch(s, c)
				s.decay(e.now, e)
				s.at = e.now - 9*int64(e.cfg.HalfLife) // look again after one half-life
				continue
			}
			e.sources.remove(s)
		}
	}
}
