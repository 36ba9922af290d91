package engine

import (
	"container/heap"
	"net/netip"
)

// timer is the end of something. It may come too early, after an extension: whoever handles it looks at the real end and
// sets it again.
type timer struct {
	at     int64 // ns
	prefix netip.Prefix
	of     timerKind
}

// timerKind is what a timer ends.
type timerKind uint8

const (
	endOfBan timerKind = iota
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

// timers are those that are not over, the one that is due first on top. They are held by pointers, so that little is copied
// when there are a million.
type timers struct{ heap timerHeap }

// first returns the timer that is due first, or nil.
func (t *timers) first() *timer {
	if len(t.heap) == 0 {
		return nil
	}
	return t.heap[0]
}

// set adds a timer.
func (t *timers) set(at int64, prefix netip.Prefix, of timerKind) {
	heap.Push(&t.heap, &timer{at, prefix, of})
}

// next takes the first timer. There must be one.
func (t *timers) next() timer { return *heap.Pop(&t.heap).(*timer) }

// timerHeap implements heap.Interface.
type timerHeap []*timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].before(h[j]) }
func (h timerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *timerHeap) Push(x any)        { *h = append(*h, x.(*timer)) }
func (h *timerHeap) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return t
}
