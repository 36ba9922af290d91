package ami

import (
	"slices"
	"sync"
	"time"
)

// A Frame is one AMI packet.
type Frame struct {
	Text     string    // the packet without the closing CRLFCRLF, otherwise byte for byte
	Received time.Time // when the bytes that completed it came off the socket
}

const (
	batchFrames = 1024 // at most so many frames in one call of OnFrames
	frameCost   = 80   // bytes that a queued frame takes besides its text
	maxStates   = 1024 // queued changes of state
)

// An item is what waits in a queue: a frame, or a change of state between frames.
type item struct {
	frame Frame
	kind  uint8 // index in kinds, which may be marked forgeable
	state *State
}

func (it *item) cost() int { return len(it.frame.Text) + frameCost }

// A batch is what the consumer gets in one go: one change of state, or frames.
type batch struct {
	state  *State
	frames []Frame
	cost   int // of the frames
}

// A queue stands between the goroutine that drains the socket and the one that
// calls OnFrames. Neither ever waits for the other longer than its lock is held.
type queue struct {
	limit  int           // bytes
	notify chan struct{} // holds one token while there may be something to take

	mu       sync.Mutex
	items    []item
	states   int // of items
	bytes    int // cost of the frames that are queued, or handed out and not yet released
	peak     int // most bytes there ever were
	byClass  [classes]int
	dropped  [len(kinds)]uint64
	received uint64 // frames
}

func newQueue(limit int) *queue { return &queue{limit: limit, notify: make(chan struct{}, 1)} }

// push appends a frame, giving others up, or the frame itself, when
// the bound is hit. It never blocks.
func (q *queue) push(f Frame) {
	it := item{frame: f, kind: kindOf(f.Text)}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.received++
	if q.bytes > q.limit/4 && kinds[it.kind].class == classAttack && overUDP(f.Text) {
		it.kind |= forgeable
	}
	cost, class := it.cost(), classOf(it.kind)
	if over := q.bytes + cost - q.limit; over > 0 && (cost > q.limit || !q.evict(over, class)) {
		q.dropped[it.kind&^forgeable]++
		return
	}
	q.items = append(q.items, it)
	q.byClass[class] += cost
	q.bytes += cost
	q.peak = max(q.peak, q.bytes)
	q.wake()
}

// pushState appends a change of state at this place of the stream.
func (q *queue) pushState(st State) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.states >= maxStates {
		oldest := slices.IndexFunc(q.items, func(it item) bool { return it.state != nil })
		q.items = slices.Delete(q.items, oldest, oldest+1)
		q.states--
	}
	q.items = append(q.items, item{state: &st})
	q.states++
	q.wake()
}

// wake tells the consumer of the first item; he takes until there is none.
func (q *queue) wake() {
	if len(q.items) > 1 {
		return
	}
	select {
	case q.notify <- struct{}{}:
	default:
	}
}

// evict gives up frames of the classes up to class: over bytes and a sixteenth of the bound more, so that a flood does not
// pay for a pass over the queue with every frame. Classes go in their order, within a class the oldest first: what happens
// now decides what has to be done now. A frame never displaces one of a higher class. It reports whether there is room now.
func (q *queue) evict(over, class int) bool {
	var budget [classes]int
	need, most := over+q.limit/16, 0
	for c := 0; c <= class && need > 0; c++ {
		budget[c] = min(need, q.byClass[c])
		need -= budget[c]
		most += budget[c]
	}
	if most < over {
		return false
	}
	q.items = slices.DeleteFunc(q.items, func(it item) bool {
		c := classOf(it.kind)
		if it.state != nil || budget[c] <= 0 {
			return false
		}
		budget[c] -= it.cost()
		q.byClass[c] -= it.cost()
		q.bytes -= it.cost()
		q.dropped[it.kind&^forgeable]++
		return true
	})
	return true
}

// take returns the oldest items. The frames' cost counts until they are released.
func (q *queue) take() (b batch, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return b, false
	}
	n := slices.IndexFunc(q.items[:min(len(q.items), batchFrames)], func(it item) bool { return it.state != nil })
	switch n {
	case 0:
		b.state, n = q.items[0].state, 1
		q.states--
	default:
		if n < 0 {
			n = min(len(q.items), batchFrames)
		}
		b.frames = make([]Frame, n)
		for i := range b.frames {
			it := &q.items[i]
			b.frames[i] = it.frame
			b.cost += it.cost()
			q.byClass[classOf(it.kind)] -= it.cost()
		}
	}
	clear(q.items[:n]) // the array may live on
	if q.items = q.items[n:]; len(q.items) == 0 {
		q.items = nil
	}
	return b, true
}

// release ends the use of a batch.
func (q *queue) release(b batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= b.cost
}

// fill copies the queue's numbers into a Status.
func (q *queue) fill(st *Status) {
	q.mu.Lock()
	defer q.mu.Unlock()
	st.QueueBytes, st.QueuePeak, st.Received = q.bytes, q.peak, q.received
	for i, n := range q.dropped {
		if n > 0 {
			if st.Dropped == nil {
				st.Dropped = make(map[string]uint64)
			}
			st.Dropped[kinds[i].name] = n
		}
	}
}

func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items) == 0
}
