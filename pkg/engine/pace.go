package engine

// pace is how fast one account fails from one source: it tells a phone with an old password from a guesser.
type pace struct {
	first   int64   // failure, ns
	tokens  float32 // distinct guesses, leaking at a phone's pace
	guesses uint8   // since tokens were last zero
	held    uint8   // of them not charged, as a phone's
	total   uint16  // guesses since first
}

// leak brings the tokens up to date, dt ns later.
func (p *pace) leak(dt int64, perMinute float64) {
	if p.tokens <= 0 {
		return
	}
	if p.tokens -= float32(perMinute * float64(dt) / float64(minute)); p.tokens <= 0 {
		p.tokens, p.guesses, p.held = 0, 0, 0
	}
}

// add counts one more distinct guess.
func (p *pace) add(now int64) {
	if p.total == 0 {
		p.first = now
	}
	p.tokens++
	p.guesses = min(p.guesses+1, 250)
	p.total = min(p.total+1, 1<<15)
}

// phone says whether the pace is that of a phone.
func (p *pace) phone(burst int) bool { return burst > 0 && float64(p.tokens) <= float64(burst) }

// stubborn says whether the failures have gone on for long enough to be reported as a wrong set-up.
func (p *pace) stubborn(now int64) bool { return p.total >= 3 && now-p.first >= minute/2 }

// release returns how many guesses are charged now: this one and those that were held back as a phone's.
func (p *pace) release() float64 {
	n := float64(p.held) + 1
	p.held = 0
	return n
}
