package engine

import "net/netip"

// timer is due when something about a prefix may end. What was extended meanwhile, or ended already, has left its timer
// behind: whoever handles it looks at the real end.
type timer struct {
	at     int64 // ns
	prefix netip.Prefix
	kind   timerKind
}

// timerKind is what may end at a timer.
type timerKind uint8

const (
	endOfBan timerKind = iota
	endOfTrust
	endOfGrace
	endOfAllow
	endOfLane
)

// less orders timers by time, and those of one time so that the same events lead to the same decisions.
func (t *timer) less(u *timer) bool {
	if t.at != u.at {
		return t.at < u.at
	}
	if t.kind != u.kind {
		return t.kind < u.kind
	}
	return t.prefix.Compare(u.prefix) < 0
}

// setTimer has something about a prefix looked at when a time has come.
func (e *Engine) setTimer(at int64, prefix netip.Prefix, kind timerKind) {
	e.timers.Push(timer{at, prefix, kind})
}
