package firewall

import (
	"time"

	"github.com/ringwall/ringwall/pkg/firewall/internal/nfnl"
)

// written remembers which hashed elements may be in the kernel. It only chooses the cheaper way of writing one: a
// transaction that fails costs 20 ms in the kernel (it waits for RCU), adding with care three times as much as
// adding what is new. A wrong "may be" costs microseconds; a wrong "is not" is found out by the kernel, and the
// transaction done again.
//
// Its map holds no pointers, so that the collector need not walk through a hundred thousand elements.
type written struct {
	expiry  map[elementKey]int64 // Unix time, ns
	sweepAt int                  // elements from which what is over is thrown out
}

// elementKey is an element of a hash set.
type elementKey struct {
	set      setID
	protocol uint8
	port     uint16
	addr     [16]byte
}

func keyOfElement(set setID, k nfnl.Key) elementKey {
	return elementKey{set, k.Protocol, k.Port, k.Addr.As16()}
}

const (
	// endTolerance covers the kernel's jiffies, and clocks that are read one after the other.
	endTolerance = 2 * time.Second
	minSweep     = 1024
)

func newWritten() written { return written{expiry: make(map[elementKey]int64), sweepAt: minSweep} }

// rememberAndTest records an element and reports whether it may have been there before.
func (w *written) rememberAndTest(key elementKey, until, now time.Time) bool {
	before, ok := w.expiry[key]
	if !ok && len(w.expiry) >= w.sweepAt {
		w.sweepEnded(now)
	}
	w.expiry[key] = until.Add(endTolerance).UnixNano()
	return ok && before >= now.UnixNano()
}

// forget takes an element out.
func (w *written) forget(key elementKey) { delete(w.expiry, key) }

// sweepEnded throws out what is over, and makes room for as much again as is left.
func (w *written) sweepEnded(now time.Time) {
	for key, end := range w.expiry {
		if end < now.UnixNano() {
			delete(w.expiry, key)
		}
	}
	w.sweepAt = max(minSweep, 2*len(w.expiry))
}
