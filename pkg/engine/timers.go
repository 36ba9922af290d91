package engine

import (
	"net/netip"
)

// timer is the end of something. It may come too early, after an extension: whoever handles it looks at the real end and
// sets it again.
type timer struct {
	at     int64 // ns
	prefix netip.Prefix
	kind   timerKind
}

// timerKind is what a timer ends.
type timerKind uint8

const (
	endOfBan timerKind = iota
	endOfTrust
	endOfGrace
	endOfAllow
)

// less is the order in which timers are due.
func (t *timer) less(u *timer) bool {
	if t.at != u.at {
		return t.at < u.at
	}
	if t.kind != u.kind {
		return t.kind < u.kind
	}
	return t.prefix.Compare(u.prefix) < 0
}

// setTimer has something end, or be looked at, at a time.
func (e *Engine) setTimer(at int64, prefix netip.Prefix, kind timerKind) {
	e.timers.Push(timer{at, prefix, kind})
}
