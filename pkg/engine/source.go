package engine

import (
	"math"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
	"github.com/ringwall/ringwall/pkg/policy"
)

// source is what every event needs of a source. There may be a million.
type source struct {
	key      key
	seen     int64   // the last event, ns; the scores are as of then
	score    float32 // of evidence that is enforced
	proven   float32 // the part of score that could not have been forged
	observed float32 // score, and evidence that is only observed
	attempts uint32
	evidence uint32 // sequence number of the latest record, 0 for none
	queuedAt uint32 // when it was seen before it got its place in sources.ages, seconds
	number   int32  // its own, in sources.pool
	open     uint8  // events that wait for a login
	bans     uint8  // so far, within ban.memory
	class    class
	banned   bool  // Engine.bans has an entry for exactly this source
	known    bool  // Engine.trusts has an entry for it
	detail   int32 // number in sources.details, plus one; 0 for none. A pointer would have the collector look at each source
}

// details is what only some sources have: those that log in, guess passwords, or were banned.
type details struct {
	login      int64             // the last, ns
	banEnd     int64             // of the last ban, ns
	overflow   float32           // points of the events that wait beyond maxOpen
	failing    table.DistinctFew // accounts with a wrong password
	challenged table.Distinct    // known accounts whose challenges stayed unanswered
	pace       pace              // of wrong passwords
}

// decay brings the score up to now.
func (s *source) decay(now int64, e *Engine) {
	if now <= s.seen {
		return
	}
	if s.observed > 0 {
		f := e.decayFactor(now - s.seen)
		s.score *= f
		s.proven *= f
		s.observed *= f
	}
	s.seen = now
}

// decayFactor is what a time leaves of points.
func (e *Engine) decayFactor(dt int64) float32 {
	return float32(math.Exp2(-float64(dt) / float64(e.cfg.HalfLife)))
}

// class orders sources for forgetting.
type class uint8

const (
	harmless class = iota
	suspicious
	offender // banned before, or close to it
	barred   // banned: forgotten where there is nobody else, since the ban remembers what matters
	pinned   // trusted: never forgotten to make room
	numClasses
)

// touchSource returns the source of a key, which is s, made if s is nil. It returns nil when max_sources is reached and every
// source is trusted.
func (e *Engine) touchSource(k key, s *source) *source {
	switch {
	case s == nil:
		if e.sources.len() >= e.sources.max && !e.evict() {
			e.limited["max_sources"]++
			return nil
		}
		s = e.sources.add(k, e.now)
		_, s.known = e.trusts[k]
		if b := e.bans[e.prefixOf(k)]; b != nil {
			s.banned = true
			if !b.observed && !b.manual && b.reason != ban.ReasonAdopted {
				s.bans = uint8(min(b.number, math.MaxUint8))
				e.sources.detailsOf(s).banEnd = b.until
			}
		}
	case e.forgettable(s): // as if it had been swept
		banned, known := s.banned, s.known
		e.sources.reset(s, e.now)
		s.banned, s.known = banned, known
	default:
		s.decay(e.now, e)
	}
	return s
}

// forgettable says whether nothing that is known of a source matters any more.
func (e *Engine) forgettable(s *source) bool {
	quiet := e.now - s.seen
	return quiet >= quietFor(&e.cfg) && s.class < barred &&
		(s.bans == 0 || e.now-e.sources.detailsOf(s).banEnd >= int64(e.cfg.Ban.Memory))
}

// quietFor is how long a source must be quiet before it can be forgotten, in ns.
func quietFor(p *policy.Policy) int64 { return max(10*int64(p.HalfLife), idleResetSeconds*second) }

// evict forgets the least suspicious of the sources that were quiet the longest.
func (e *Engine) evict() bool {
	var victim *source
	var least float32
	for c := harmless; c < barred; c++ {
		s := e.sources.quietest(c)
		if s == nil {
			continue
		}
		if left := s.observed * e.decayFactor(e.now-s.seen); victim == nil || left < least && s.bans <= victim.bans {
			victim, least = s, left
		}
	}
	if victim == nil {
		victim = e.sources.quietest(barred)
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
	case s.known && e.trusted(s.key) != nil:
		c = pinned
	case s.banned:
		c = barred
	case s.bans > 0 || float64(s.observed) >= e.cfg.Threshold/2:
		c = offender
	case float64(s.observed) >= e.cfg.Threshold/4:
		c = suspicious
	}
	if s.class != c {
		e.sources.requeue(s, c, seconds(s.seen))
	}
}

// sweep forgets up to n sources of which nothing matters any more, so that a quiet engine shrinks.
func (e *Engine) sweep(n int) {
	memory := uint32(quietFor(&e.cfg) / second)
	for c := harmless; c < offender; c++ {
		for ; n > 0; n-- {
			s := e.sources.longestQueued(c)
			if s == nil {
				break
			}
			if seconds(e.now)-s.queuedAt <= memory { // nor was any other in the queue quiet for much longer
				break
			}
			if e.forgettable(s) {
				e.sources.remove(s)
			} else {
				e.sources.requeue(s, c, seconds(s.seen))
			}
		}
	}
	for range min(n, 16) { // offenders wait for ban.memory: go round among them
		s := e.sources.quietest(offender)
		if s == nil {
			break
		}
		if e.forgettable(s) {
			e.sources.remove(s)
			continue
		}
		if e.now-s.seen < int64(e.cfg.HalfLife) {
			break
		}
		e.sources.requeue(s, offender, seconds(e.now))
	}
}
