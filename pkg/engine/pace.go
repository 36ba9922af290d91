package engine

// pace is how fast guesses come: it tells a phone with an old password from a guesser.
type pace struct {
	at      int64   // of the last leak, ns
	tokens  float32 // distinct guesses, leaking at a phone's pace
	peak    float32 // most tokens since they were last zero
	first   uint32  // failure of this spell, seconds
	guesses uint8   // since tokens were last zero
	held    uint8   // of them not charged, as a phone's
	total   uint16  // guesses since first
}

// spell is how long a phone may be silent before its failures begin anew, in seconds.
const spell = 3600

// leak brings the tokens up to date.
func (p *pace) leak(now int64, perMinute float64) {
	dt := now - p.at
	if dt <= 0 {
		return
	}
	if dt >= spell*second {
		*p = pace{at: now}
		return
	}
	p.at = now
	if p.tokens <= 0 {
		return
	}
	if p.tokens -= float32(perMinute * float64(dt) / float64(minute)); p.tokens <= 0 {
		p.tokens, p.peak, p.guesses, p.held = 0, 0, 0, 0
	}
}

// add counts one more distinct guess. The pace is up to date.
func (p *pace) add(now int64) {
	if p.total == 0 {
		p.first = seconds(now)
	}
	p.at = now
	p.tokens++
	p.peak = max(p.peak, p.tokens)
	p.guesses = min(p.guesses+1, 250)
	p.total = min(p.total+1, 1<<15)
}

// phone says whether the pace is that of a phone.
func (p *pace) phone(burst int) bool { return burst > 0 && float64(p.tokens) <= float64(burst) }

// stubborn says whether the failures have gone on for long enough to be reported as a wrong set-up.
func (p *pace) stubborn(now int64) bool { return p.total >= 3 && seconds(now)-p.first >= 30 }

// guessed says whether there were n guesses, faster than a phone's or a person's.
func (p *pace) guessed(n int) bool { return int(p.guesses) >= n && float64(p.peak) > float64(n-1) }

// release returns how many guesses are charged now: this one and those that were held back as a phone's.
func (p *pace) release() float64 {
	n := float64(p.held) + 1
	p.held = 0
	return n
}

// seconds is a time in the short form that sources keep, good until the year 2106.
func seconds(ns int64) uint32 { return uint32(ns / second) }
