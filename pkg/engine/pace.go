package engine

import "github.com/ringwall/ringwall/pkg/engine/internal/table"

// pace is how fast guesses come: it tells a phone with an old password from a guesser. After idleResetSeconds of
// silence all of it begins anew.
type pace struct {
	leakedAt int64 // when tokens, copies and resent leaked last, ns

	// Distinct answers.
	tokens    float32 // leaking at a phone's pace: misconfigured.per_minute
	peak      float32 // most tokens since there were none
	guesses   uint8   // since there were no tokens
	uncharged uint8   // of guesses, those that were spared as a phone's

	// Copies of an answer: the first is none. See repetition.
	unchargedCopies uint8   // of copies
	resentInBurst   uint8   // of resent, those of one request
	copies          float32 // that came when no retransmission was due, leaking like tokens
	resent          float32 // that came when a retransmission was due, leaking one each transaction
	resentAt        uint32  // the latest of resent: milliseconds

	// For how long it has gone on.
	failingSince uint32 // seconds
	countedSince uint32 // total and sparedCopies count the hour that begins then: seconds
	total        uint16 // guesses
	sparedCopies uint16
}

// failures is how one account fails at one source.
type failures struct {
	pace
	stormPace table.LeakyBucket // see recordStormPace
	proven    bool              // at least one guess could not have been forged
}

// idleResetSeconds is how long a source or a phone is silent before what it does begins anew.
const idleResetSeconds = 3600

// drain brings the pace up to date.
func (p *pace) drain(now int64, perMinute float64) {
	dt := now - p.leakedAt
	if dt <= 0 {
		return
	}
	if dt >= idleResetSeconds*second {
		*p = pace{leakedAt: now}
		return
	}
	p.leakedAt = now
	leaked := float32(perMinute * float64(dt) / float64(minute))
	p.resent = max(0, p.resent-float32(dt)/float32(transactionMillis*millisecond))
	if p.copies = max(0, p.copies-leaked); p.copies == 0 {
		p.unchargedCopies = 0
	}
	if p.tokens <= 0 {
		return
	}
	if p.tokens -= leaked; p.tokens <= 0 {
		p.tokens, p.peak, p.guesses, p.uncharged = 0, 0, 0, 0
	}
}

// addGuess counts one more distinct answer. The pace is up to date.
func (p *pace) addGuess(now int64) {
	if p.failingSince == 0 {
		p.failingSince = seconds(now)
	}
	if p.total == 0 || seconds(now)-p.countedSince >= idleResetSeconds {
		p.countedSince, p.total, p.sparedCopies = seconds(now), 0, 0
	}
	p.leakedAt = now
	p.tokens++
	p.peak = max(p.peak, p.tokens)
	p.guesses = min(p.guesses+1, 250)
	p.total = min(p.total+1, 1<<15)
}

// isPhonePace says whether the pace is that of a phone.
func (p *pace) isPhonePace(burst int) bool {
	return burst > 0 && float64(p.tokens) <= float64(burst) && !p.tooManyCopies(burst)
}

// keepsFailing says whether the failures have gone on for long enough to be reported as a wrong set-up.
func (p *pace) keepsFailing(now int64) bool {
	return (p.total >= 3 || p.countedSince != p.failingSince) && seconds(now)-p.failingSince >= 30
}

// showsGuessing says whether there were n guesses, faster than a phone's or a person's.
func (p *pace) showsGuessing(n int) bool {
	return n > 0 && int(p.guesses) >= n && float64(p.peak) > float64(n-1)
}

// takeUncharged returns how many guesses are charged now: this one, if it is none of the copies, and those that were
// held back as a phone's.
func (p *pace) takeUncharged(r repetition) float64 {
	n := float64(p.uncharged) + float64(p.unchargedCopies)
	if !r.copy {
		n++
	}
	p.uncharged, p.unchargedCopies = 0, 0
	return max(n, 1)
}

// seconds is a time in the short form that sources keep, good until the year 2106.
func seconds(ns int64) uint32 { return uint32(ns / second) }
