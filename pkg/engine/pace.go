package engine

import "github.com/ringwall/ringwall/pkg/engine/internal/table"

// pace is how fast guesses come: it tells a phone with an old password from a guesser.
type pace struct {
	leakedAt        int64   // of the last leak, ns
	tokens          float32 // distinct guesses, leaking at a phone's pace
	peak            float32 // most tokens since they were last zero
	copies          float32 // copies of an answer when none was due, leaking like tokens
	resent          float32 // retransmissions when they were due, leaking one each transaction
	failingSince    uint32  // first failure after a spell of silence, seconds
	countedSince    uint32  // failure that total counts, seconds
	total           uint16  // guesses since first, within a spell
	sparedCopies    uint16  // copies that were spared since first
	guesses         uint8   // since tokens were last zero
	uncharged       uint8   // of them not charged, as a phone's
	unchargedCopies uint8   // of copies not charged
	resentInBurst   uint8   // of resent just now

	resentAt uint32 // the latest of resent, milliseconds
}

// failures is how an account fails at one source.
type failures struct {
	pace
	stormPace table.LeakyBucket // of guesses, as fast as phones may be when a PBX has lost their passwords
	proven    bool              // at least one guess could not have been forged
}

// spell is how long a phone may be silent before its failures begin anew, in seconds.
const idleResetSeconds = 3600

// drain brings the tokens up to date.
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

// addGuess counts one more distinct guess. The pace is up to date.
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

// takeUncharged returns how many guesses are charged now: this one, if it is none of the copies, and those that were held back
// as a phone's.
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
