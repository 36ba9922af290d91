package engine

import (
	"math"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

// source is what the judgement of every event needs of its source. There may be a million, so it has no pointer, at
// which the garbage collector would have to look.
type source struct {
	key sourceKey

	// The score, as of lastSeen.
	lastSeen      int64   // ns
	score         float32 // of evidence that is enforced
	provenScore   float32 // the part of score that could not have been forged
	observedScore float32 // score, and that of evidence that is only observed

	// What it did.
	attempts       uint32
	latestRecord   uint32 // number in Engine.evidence, 0 for none
	openChallenges uint8  // its events in Engine.pending
	bans           uint8  // so far, within ban.memory

	// Where else it is.
	banned        bool        // Engine.bans has an entry for exactly this source
	hasTrust      bool        // Engine.trusts has an entry for it
	class         sourceClass // in sources.ages
	queuedAt      uint32      // in sources.ages: seconds
	number        int32       // in sources.pool
	detailsNumber int32       // in sources.details, plus one; 0 for none
}

// details is what only some sources have: those that log in, guess passwords, or were banned.
type details struct {
	lastLogin          int64             // ns; 0 for none
	lastBanEnd         int64             // ns; 0 for none
	managerAt          int64             // when managerScore was last brought up, ns
	managerScore       float32           // see chargeManager
	lastObservedLogin  uint32            // see recordObservedLogin: seconds; 0 for none
	overflowPoints     float32           // of events that wait for a login, beyond maxOpenChallenges
	failingAccounts    table.DistinctFew // with a wrong password
	challengedAccounts table.Distinct    // known to Asterisk, whose challenges stayed unanswered
	pace               pace              // of wrong passwords, of all accounts that never logged in from there
}

// decay brings the scores up to now.
func (s *source) decay(now int64, e *Engine) {
	if now <= s.lastSeen {
		return
	}
	if s.observedScore > 0 {
		f := e.decayFactor(now - s.lastSeen)
		s.score *= f
		s.provenScore *= f
		s.observedScore *= f
	}
	s.lastSeen = now
}

// decayFactor is the part of points that is left after a time in ns.
func (e *Engine) decayFactor(dt int64) float32 {
	return float32(math.Exp2(-float64(dt) / float64(e.policy.HalfLife)))
}

// sourceClass orders sources for forgetting.
type sourceClass uint8

const (
	classHarmless sourceClass = iota
	classSuspicious
	classOffender // banned before, or close to it
	classBanned   // forgotten where there is nobody else: the ban remembers what matters
	classTrusted  // never forgotten to make room
	numClasses
)

// touchSource returns the source of a key, brought up to now. It is s, or made where s is nil. It returns nil where
// policy.max_sources is reached and every source is trusted.
func (e *Engine) touchSource(k sourceKey, s *source) *source {
	switch {
	case s == nil:
		if e.sources.len() >= e.sources.max && !e.evictSource() {
			e.hitLimits["max_sources"]++
			return nil
		}
		s = e.sources.add(k, e.now)
		_, s.hasTrust = e.trusts[k]
		if b := e.bans[e.prefixOf(k)]; b != nil {
			s.banned = true
			if !b.observed && !b.manual && b.reason != ban.ReasonAdopted && b.origin == "" {
				s.bans = uint8(min(b.number, math.MaxUint8))
				e.sources.detailsOf(s).lastBanEnd = b.until
			}
		}
	case e.isForgettable(s): // as if sweepSources had come by
		banned, known := s.banned, s.hasTrust
		e.sources.reset(s, e.now)
		s.banned, s.hasTrust = banned, known
	default:
		s.decay(e.now, e)
	}
	return s
}

// isForgettable says whether nothing that is known of a source matters any more.
func (e *Engine) isForgettable(s *source) bool {
	quiet := e.now - s.lastSeen
	return quiet >= quietFor(&e.policy) && s.class < classBanned &&
		(s.bans == 0 || e.now-e.sources.detailsOf(s).lastBanEnd >= int64(e.policy.Ban.Memory))
}

// quietFor is how long a source must be quiet before it can be forgotten, in ns.
func quietFor(p *config.Policy) int64 { return max(10*int64(p.HalfLife), idleResetSeconds*second) }

// evictSource forgets the least suspicious of the sources that were quiet the longest, and says whether there was one.
func (e *Engine) evictSource() bool {
	var victim *source
	var least float32
	for c := classHarmless; c < classBanned; c++ {
		s := e.sources.quietest(c)
		if s == nil {
			continue
		}
		left := s.observedScore * e.decayFactor(e.now-s.lastSeen)
		if victim == nil || left < least && s.bans <= victim.bans {
			victim, least = s, left
		}
	}
	if victim == nil {
		victim = e.sources.quietest(classBanned)
	}
	if victim == nil {
		return false
	}
	e.sources.remove(victim)
	e.evictedSources++
	return true
}

// classifySource puts a source into the class that its present state calls for.
func (e *Engine) classifySource(s *source) {
	c := classHarmless
	switch {
	case s.hasTrust && e.activeTrust(s.key) != nil:
		c = classTrusted
	case s.banned:
		c = classBanned
	case s.bans > 0 || float64(s.observedScore) >= e.policy.Threshold/2:
		c = classOffender
	case float64(s.observedScore) >= e.policy.Threshold/4:
		c = classSuspicious
	}
	if s.class != c {
		e.sources.requeue(s, c, seconds(s.lastSeen))
	}
}

// sweepSources forgets up to n sources of which nothing matters any more, so that a quiet engine shrinks.
func (e *Engine) sweepSources(n int) {
	memory := uint32(quietFor(&e.policy) / second)
	for c := classHarmless; c < classOffender; c++ {
		for ; n > 0; n-- {
			s := e.sources.longestQueued(c)
			if s == nil {
				break
			}
			if seconds(e.now)-s.queuedAt <= memory { // nor is any behind it quiet for much longer
				break
			}
			if e.isForgettable(s) {
				e.sources.remove(s)
			} else {
				e.sources.requeue(s, c, seconds(s.lastSeen))
			}
		}
	}
	for range min(n, 16) { // offenders are kept for ban.memory, most of them quiet: look at each in turn
		s := e.sources.quietest(classOffender)
		if s == nil {
			break
		}
		if e.isForgettable(s) {
			e.sources.remove(s)
			continue
		}
		if e.now-s.lastSeen < int64(e.policy.HalfLife) {
			break
		}
		e.sources.requeue(s, classOffender, seconds(e.now))
	}
}
