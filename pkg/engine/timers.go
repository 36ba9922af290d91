package engine

import (
	"container/heap"
	"net/netip"
)

// timer is the end of a ban or of trust. It may come too early, after an extension: whoever handles it looks at the real
// end and sets it again.
type timer struct {
	at     int64
	prefix netip.Prefix
	trust  bool
}

type timers []timer

func (t timers) Len() int { return len(t) }
func (t timers) Less(i, j int) bool {
	if t[i].at != t[j].at {
		return t[i].at < t[j].at
	}
	if t[i].trust != t[j].trust {
		return t[j].trust
	}
	return comparePrefix(t[i].prefix, t[j].prefix) < 0
}
func (t timers) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)   { *t = append(*t, x.(timer)) }
func (t *timers) Pop() any {
	last := len(*t) - 1
	x := (*t)[last]
	*t = (*t)[:last]
	return x
}

// set adds a timer.
func (t *timers) set(at int64, prefix netip.Prefix, trust bool) {
	heap.Push(t, timer{at, prefix, trust})
}

// due takes the next timer that is over at now.
func (t *timers) due(now int64) (timer, bool) {
	if len(*t) == 0 || (*t)[0].at > now {
		return timer{}, false
	}
	return heap.Pop(t).(timer), true
}
