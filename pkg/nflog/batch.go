package nflog

import (
	"math/bits"
	"time"
)

// Batching. A message for each packet costs as much as ten packets in one message, so the kernel gathers what comes in
// batchTime, and no packet waits longer while packets come as they did. When they stop, the kernel waits for the unit
// of its timeout, 10 ms.
const (
	batchTime    = 2 * time.Millisecond
	maxThreshold = 64
	// windowTime is for counting, calmWindows how many of them have to be calm before less is gathered, so that the
	// threshold does not go to and fro with each burst.
	windowTime  = 20 * time.Millisecond
	calmWindows = 10
)

// batcher chooses how many packets the kernel gathers before it sends them.
type batcher struct {
	threshold int
	began     time.Time // of the window
	packets   int       // in it
	calm      int       // windows
}

// note counts packets that came, and reports whether the threshold is another one now. Without packets it is called
// each windowTime while the threshold is more than 1.
func (b *batcher) note(packets int, now time.Time) (changed bool) {
	b.packets += packets
	elapsed := now.Sub(b.began)
	if elapsed < windowTime {
		return false
	}
	want := thresholdFor(b.packets, elapsed)
	b.began, b.packets = now, 0
	switch {
	case want > b.threshold:
		b.threshold, b.calm = want, 0
		return true
	case want == b.threshold:
		b.calm = 0
		return false
	}
	b.calm += int(min(calmWindows, elapsed/windowTime))
	if b.calm < calmWindows {
		return false
	}
	b.threshold, b.calm = want, 0
	return true
}

// overrun gathers as much as can be, since what came found no room.
func (b *batcher) overrun() (changed bool) {
	changed = b.threshold != maxThreshold
	b.threshold, b.calm = maxThreshold, 0
	return changed
}

// thresholdFor is the power of two that is nearest to what comes in batchTime, from below.
func thresholdFor(packets int, elapsed time.Duration) int {
	n := uint64(packets) * uint64(batchTime) / uint64(elapsed)
	if n <= 1 {
		return 1
	}
	return min(maxThreshold, 1<<(bits.Len64(n)-1))
}

// bufferFor is the size of a message of the kernel's. It takes as much for each, and gives back what is not used by
// copying, so it should fit. What does not fit ends the message.
func bufferFor(threshold int) uint32 { return uint32(max(4<<10, threshold<<10)) }
