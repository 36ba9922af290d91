package ami

import (
	"sync/atomic"
	"time"

	"github.com/ringwall/ringwall/pkg/mailbox"
)

// A Frame is one AMI packet.
type Frame struct {
	Text     string    // the packet without the closing CRLFCRLF, otherwise byte for byte
	Received time.Time // when the bytes that completed it came off the socket
}

const (
	batchFrames = 1024 // at most so many frames in one call of OnFrames
	frameCost   = 80   // bytes that a queued frame takes besides its text
	maxStates   = 1024 // changes of state that wait; beyond, the oldest are given up
)

// An item of the queue is a frame, or a change of state between frames.
type item struct {
	frame Frame
	kind  uint8 // of the frame: a row of kinds
	worth uint8 // of the frame: what is given up for it, and for what it is; of a state: worthState
	state *State
}

// weight returns the bytes that a frame takes. A change of state weighs nothing, so that there is always room for it.
func (it item) weight() int {
	if it.state != nil {
		return 0
	}
	return len(it.frame.Text) + frameCost
}

// A queue stands between the goroutines of a connection and the one that calls OnFrames and OnState. It has a bound in
// bytes, beyond which it gives up the frames that are worth least, and counts them.
type queue struct {
	box      *mailbox.Mailbox[item]
	received atomic.Uint64 // frames
	states   atomic.Int32  // changes of state that wait
	dropped  [len(kinds)]atomic.Uint64
}

func newQueue(limit int) *queue {
	return &queue{box: mailbox.New(mailbox.Options[item]{
		Limit: limit, Weight: item.weight, Priority: func(it item) int { return int(it.worth) },
	})}
}

// pushFrame appends a frame, and gives others up for it, or itself. It never waits.
func (q *queue) pushFrame(f Frame) {
	q.received.Add(1)
	kind := kindOf(f.Text)
	for _, lost := range q.box.Put(item{frame: f, kind: uint8(kind), worth: uint8(worthOf(kind, f.Text))}) {
		q.dropped[lost.kind].Add(1)
	}
}

// pushState appends a change of state at this place of the stream.
func (q *queue) pushState(st State) {
	if q.states.Add(1) > maxStates {
		lost := q.box.Discard(1, func(it item) bool { return it.state != nil })
		q.states.Add(-int32(len(lost)))
	}
	q.box.Put(item{worth: worthState, state: &st})
}

// takeItems returns the oldest items, whose bytes count until the next call. ended says that the queue is closed and
// empty.
func (q *queue) takeItems() (items []item, ended bool) {
	items, ended = q.box.Take(batchFrames)
	for i := range items {
		if items[i].state != nil {
			q.states.Add(-1)
		}
	}
	return items, ended
}

// addToStatus copies the queue's numbers into a Status.
func (q *queue) addToStatus(st *Status) {
	st.QueueBytes, st.QueuePeak = q.box.Load()
	st.Received = q.received.Load()
	for i := range q.dropped {
		if n := q.dropped[i].Load(); n > 0 {
			if st.Dropped == nil {
				st.Dropped = make(map[string]uint64)
			}
			st.Dropped[kinds[i].name] = n
		}
	}
}
