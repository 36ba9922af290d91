package engine

import "github.com/ringwall/ringwall/pkg/engine/internal/table"

// sources holds what is known of each source that attacked or logged in. They stand in a queue for each class, to be
// forgotten: whoever was quiet the longest first.
type sources struct {
	numbers map[sourceKey]int32 // in pool
	pool    table.Pool[source]
	details table.Pool[details]
	ages    *table.Ages // the queues: source.number by source.class and source.queuedAt
	max     int         // policy.max_sources
}

// requeuedAtOnce is how many sources one search for the quietest moves to where they belong: some 20 µs.
const requeuedAtOnce = 128

// newSources makes room for up to max sources, of which most are forgotten after a time in seconds.
func newSources(max int, memory uint32) *sources {
	return &sources{numbers: make(map[sourceKey]int32), ages: table.NewAges(int(numClasses), memory), max: max}
}

// len returns how many sources there are.
func (t *sources) len() int { return len(t.numbers) }

// get returns a source, or nil.
func (t *sources) get(k sourceKey) *source {
	number, ok := t.numbers[k]
	if !ok {
		return nil
	}
	return t.pool.At(number)
}

// all yields the sources, in no order.
func (t *sources) all(yield func(*source) bool) {
	for _, number := range t.numbers {
		if !yield(t.pool.At(number)) {
			return
		}
	}
}

// add makes a source. It must not exist, and there must be room.
func (t *sources) add(k sourceKey, now int64) *source {
	number := t.pool.Add(source{key: k, lastSeen: now, queuedAt: seconds(now)})
	s := t.pool.At(number)
	s.number = number
	t.numbers[k] = number
	t.ages.Insert(number, int(s.class), s.queuedAt)
	return s
}

// detailsOf returns the details of a source, to be read or changed.
func (t *sources) detailsOf(s *source) *details {
	if s.detailsNumber == 0 {
		s.detailsNumber = t.details.Add(details{}) + 1
	}
	return t.details.At(s.detailsNumber - 1)
}

// dropDetails frees the details of a source, if it has some. Whoever calls it overwrites detailsNumber.
func (t *sources) dropDetails(s *source) {
	if s.detailsNumber > 0 {
		t.details.Free(s.detailsNumber - 1)
	}
}

// remove forgets a source.
func (t *sources) remove(s *source) {
	t.dropDetails(s)
	t.ages.Remove(s.number, int(s.class), s.queuedAt)
	delete(t.numbers, s.key)
	t.pool.Free(s.number)
}

// reset forgets what is known of a source but where it stands in its queue: it must be classified.
func (t *sources) reset(s *source, now int64) {
	t.dropDetails(s)
	*s = source{key: s.key, lastSeen: now, class: s.class, queuedAt: s.queuedAt, number: s.number}
}

// requeue puts a source into the queue of a class, where those stand that were seen last at a time in seconds.
func (t *sources) requeue(s *source, c sourceClass, at uint32) {
	t.ages.Remove(s.number, int(s.class), s.queuedAt)
	s.class, s.queuedAt = c, at
	t.ages.Insert(s.number, int(c), at)
}

// longestQueued returns the first source in the queue of a class, or nil. It may have been seen again since it was put
// there.
func (t *sources) longestQueued(c sourceClass) *source {
	number, ok := t.ages.Oldest(int(c))
	if !ok {
		return nil
	}
	return t.pool.At(number)
}

// quietest returns the source of a class that was quiet the longest, or nil. It is that to within the time of one list
// of ages; where many of the first in the queue were seen again, it is the quietest of requeuedAtOnce.
func (t *sources) quietest(c sourceClass) *source {
	var quiet *source
	for range requeuedAtOnce {
		s := t.longestQueued(c)
		if s == nil {
			return nil
		}
		seen := seconds(s.lastSeen)
		if seen < s.queuedAt+60 {
			return s
		}
		t.requeue(s, c, seen)
		if quiet == nil || s.lastSeen < quiet.lastSeen {
			quiet = s
		}
	}
	return quiet
}
