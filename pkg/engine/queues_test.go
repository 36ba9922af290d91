package engine

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// TestTimersComeInTheirOrder compares the heap with a sorted list, over many pages and back to none.
func TestTimersComeInTheirOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var heap timers
	var list []timer
	order := func(a, b timer) int {
		if a.before(&b) {
			return -1
		}
		if b.before(&a) {
			return 1
		}
		return 0
	}
	for round, n := range []int{3, 5 * timerPage, 1, timerPage} {
		for range n {
			tm := timer{at: r.Int64N(500), prefix: netip.PrefixFrom(address(r.IntN(50)), 32-r.IntN(2)), of: ending(r.IntN(3))}
			heap.set(tm.at, tm.prefix, tm.of)
			list = append(list, tm)
		}
		slices.SortFunc(list, order)
		take := len(list) / 2
		if round == 3 {
			take = len(list)
		}
		for i := range take {
			if first := heap.first(); first == nil || *first != list[i] {
				t.Fatalf("round %d: first is %+v, want %+v", round, first, list[i])
			}
			if got := heap.next(); got != list[i] {
				t.Fatalf("round %d: %+v, want %+v", round, got, list[i])
			}
		}
		list = list[take:]
	}
	if heap.first() != nil || heap.n != 0 || len(heap.pages) > 2 {
		t.Errorf("%d timers are left, in %d pages", heap.n, len(heap.pages))
	}
}

// TestWhatWaitsComesInItsOrder compares the queue with a counter.
func TestWhatWaitsComesInItsOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var w waiting
	in, out := int64(0), int64(0)
	for in < 20*waitingPage {
		for range r.IntN(3 * waitingPage) {
			in++
			w.push(pending{due: in})
			if w.last().due != in {
				t.Fatalf("last is %d, want %d", w.last().due, in)
			}
		}
		for range r.IntN(w.n + 1) {
			out++
			if p := w.pop(); p.due != out {
				t.Fatalf("%d, want %d", p.due, out)
			}
		}
		if w.n != int(in-out) || len(w.pages) > w.n/waitingPage+2 {
			t.Fatalf("%d of %d in %d pages", w.n, in-out, len(w.pages))
		}
	}
	for w.n > 0 {
		w.pop()
	}
	if w.first() != nil || w.last() != nil || len(w.pages) > 1 {
		t.Error("something is left")
	}
}
