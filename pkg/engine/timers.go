package engine

import (
	"container/heap"
	"net/netip"
)

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
)

type timers []timer

func (t timers) Len() int { return len(t) }
func (t timers) Less(i, j int) bool {
	if t[i].at != t[j].at {
		return t[i].at < t[j].at
	}
	if t[i].of != t[j].of {
		return t[i].of < t[j].of
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
func (t *timers) set(at int64, prefix netip.Prefix, of ending) {
	heap.Push(t, timer{at, prefix, of})
}

// next takes the first timer. There must be one.
func (t *timers) next() timer { return heap.Pop(t).(timer) }
