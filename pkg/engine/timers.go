package engine

import "net/netip"

// timer is the end of something. It may come too early, after an extension: whoever handles it looks at the real end and
// sets it again.
type timer struct {
	at     int64
	prefix netip.Prefix
	of     ending
}

// ending is what a timer ends.
type ending uint8

const (
	endOfBan ending = iota
	endOfTrust
	endOfGrace
	endOfAllow
)

func (t *timer) before(u *timer) bool {
	if t.at != u.at {
		return t.at < u.at
	}
	if t.of != u.of {
		return t.of < u.of
	}
	return comparePrefix(t.prefix, u.prefix) < 0
}

const timerPage = 512

// timers are a heap, the first timer on top, in pages that are never copied: a million bans would be 50 MB in one piece.
type timers struct {
	pages []*[timerPage]timer
	n     int
}

func (t *timers) at(i int) *timer { return &t.pages[i/timerPage][i%timerPage] }

// first returns the timer that is due first, or nil.
func (t *timers) first() *timer {
	if t.n == 0 {
		return nil
	}
	return t.at(0)
}

// set adds a timer.
func (t *timers) set(at int64, prefix netip.Prefix, of ending) {
	if t.n == len(t.pages)*timerPage {
		t.pages = append(t.pages, new([timerPage]timer))
	}
	fresh := timer{at, prefix, of}
	i := t.n
	t.n++
	for i > 0 {
		above := t.at((i - 1) / 2)
		if !fresh.before(above) {
			break
		}
		*t.at(i) = *above
		i = (i - 1) / 2
	}
	*t.at(i) = fresh
}

// next takes the first timer. There must be one.
func (t *timers) next() timer {
	top, last := *t.at(0), *t.at(t.n - 1)
	*t.at(t.n - 1) = timer{}
	t.n--
	i := 0
	for below := 1; below < t.n; below = 2*i + 1 {
		if below+1 < t.n && t.at(below+1).before(t.at(below)) {
			below++
		}
		if !t.at(below).before(&last) {
			break
		}
		*t.at(i) = *t.at(below)
		i = below
	}
	if t.n > 0 {
		*t.at(i) = last
	}
	if spare := len(t.pages) - 1; t.n < (spare-1)*timerPage { // one page is kept, for what comes and goes at its edge
		t.pages[spare] = nil
		t.pages = t.pages[:spare]
	}
	return top
}
