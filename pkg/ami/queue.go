package ami

import (
	"strings"
	"sync"
	"time"
)

// A Frame is one AMI packet.
type Frame struct {
	Text     string    // without the closing CRLFCRLF, otherwise byte for byte
	Received time.Time // when the bytes that completed it came off the socket
}

const (
	chunkFrames = 1024 // at most so many frames in one call of OnFrames
	frameCost   = 64   // bytes that a queued frame takes besides its text
	maxStates   = 1024 // queued changes of state
)

// Kinds of frames, as far as the queue must tell them apart. The order of the
// classes is the order in which frames are given up.
const (
	classLittle    = iota // neither points nor trust come from it alone
	classUnknown          // not a security event: other classes, fragments
	classForgeable        // evidence that one UDP packet with a forged source can make, as many as it likes
	classAttack           // the evidence against attackers
	classTrust            // losing it can lock a customer out
	classes
)

// kinds names what a dropped frame can be counted as, and its class.
var kinds = [...]struct {
	name  string
	class int
}{
	{"other", classUnknown}, // an event of another name
	{"fragment", classUnknown},
	{"ChallengeSent", classLittle},
	{"SuccessfulAuth", classTrust},
	{"InvalidAccountID", classAttack},
	{"ChallengeResponseFailed", classAttack},
	{"InvalidPassword", classAttack},
	{"FailedACL", classAttack},
	{"RequestNotSupported", classAttack},
	{"RequestNotAllowed", classAttack},
	{"RequestBadFormat", classAttack},
	{"SessionLimit", classLittle},
	{"InvalidTransport", classLittle},
	{"MemoryLimit", classLittle},
	{"LoadAverageLimit", classLittle},
	{"AuthMethodNotAllowed", classAttack},
	{"UnexpectedAddress", classAttack},
}

// forgeable marks an index in kinds: the same event, over UDP.
const forgeable = 0x80

// classOf returns the class of an index in kinds, which may be marked.
func classOf(kind uint8) int {
	class := kinds[kind&^forgeable].class
	if class == classAttack && kind&forgeable != 0 {
		return classForgeable
	}
	return class
}

// overUDP says whether an event names a source that may be forged. It is asked only while the queue fills up, and what an
// attacker writes into it can only cost him his own event. Few bytes of an event are a slash, hence the way of searching.
func overUDP(text string) bool {
	for {
		i := strings.IndexByte(text, '/')
		if i < 0 {
			return false
		}
		head := text[:i]
		text = text[i+1:]
		if strings.HasPrefix(text, "UDP/") &&
			(strings.HasSuffix(head, "\r\nRemoteAddress: IPV4") || strings.HasSuffix(head, "\r\nRemoteAddress: IPV6")) {
			return true
		}
	}
}

const eventPrefix = "Event: "

// kindOf returns the index in kinds. It looks at the first line only.
func kindOf(text string) uint8 {
	if !strings.HasPrefix(text, eventPrefix) {
		return 1
	}
	name := text[len(eventPrefix):]
	if i := strings.IndexByte(name[:min(len(name), 32)], '\r'); i >= 0 {
		name = name[:i]
	}
	switch name {
	case "ChallengeSent":
		return 2
	case "SuccessfulAuth":
		return 3
	case "InvalidAccountID":
		return 4
	case "ChallengeResponseFailed":
		return 5
	case "InvalidPassword":
		return 6
	case "FailedACL":
		return 7
	case "RequestNotSupported":
		return 8
	case "RequestNotAllowed":
		return 9
	case "RequestBadFormat":
		return 10
	case "SessionLimit":
		return 11
	case "InvalidTransport":
		return 12
	case "MemoryLimit":
		return 13
	case "LoadAverageLimit":
		return 14
	case "AuthMethodNotAllowed":
		return 15
	case "UnexpectedAddress":
		return 16
	}
	return 0
}

// A chunk is what the consumer gets in one go: a change of state, if there is
// one, and the frames that came after it.
type chunk struct {
	state  *State
	frames []Frame
	kinds  []uint8
	bytes  int
}

// A queue stands between the goroutine that drains the socket and the one that
// calls OnFrames. Neither ever waits for the other longer than its lock is held.
type queue struct {
	limit  int
	notify chan struct{} // holds one token while there may be something to take

	mu       sync.Mutex
	chunks   []*chunk
	spare    *chunk
	states   int
	bytes    int // queued, or handed out and not yet released
	peak     int
	byClass  [classes]int
	dropped  [len(kinds)]uint64
	received uint64
}

func newQueue(limit int) *queue {
	return &queue{limit: limit, notify: make(chan struct{}, 1)}
}

// push appends a frame, giving others up, or the frame itself, when the bound
// is hit. It never blocks.
func (q *queue) push(f Frame) {
	kind, cost := kindOf(f.Text), len(f.Text)+frameCost
	q.mu.Lock()
	q.received++
	if q.bytes > q.limit/4 && kinds[kind].class == classAttack && overUDP(f.Text) {
		kind |= forgeable
	}
	if q.bytes+cost > q.limit {
		q.evict(cost, classOf(kind))
	}
	if q.bytes+cost > q.limit {
		q.dropped[kind&^forgeable]++
		q.mu.Unlock()
		return
	}
	c := q.tail()
	c.frames = append(c.frames, f)
	c.kinds = append(c.kinds, kind)
	c.bytes += cost
	q.byClass[classOf(kind)] += cost
	q.bytes += cost
	q.peak = max(q.peak, q.bytes)
	q.mu.Unlock()
	q.wake()
}

// pushState appends a change of state at this place of the stream.
func (q *queue) pushState(st State) {
	q.mu.Lock()
	if q.states >= maxStates {
		for _, c := range q.chunks {
			if c.state != nil {
				c.state = nil
				q.states--
				break
			}
		}
	}
	q.chunks = append(q.chunks, &chunk{state: &st})
	q.states++
	q.mu.Unlock()
	q.wake()
}

func (q *queue) wake() {
	select {
	case q.notify <- struct{}{}:
	default:
	}
}

func (q *queue) tail() *chunk {
	if n := len(q.chunks); n > 0 && len(q.chunks[n-1].frames) < chunkFrames {
		return q.chunks[n-1]
	}
	c := q.spare
	if c == nil {
		c = &chunk{}
	}
	q.spare = nil
	q.chunks = append(q.chunks, c)
	return c
}

// evict makes room for cost bytes and a sixteenth of the bound more, so that a
// flood does not pay for a pass over the queue with every frame. Classes go in
// their order, within a class the oldest first: what happens now decides what
// has to be done now. A frame never displaces one of a higher class.
func (q *queue) evict(cost, class int) {
	need := q.bytes + cost - q.limit + q.limit/16
	var budget [classes]int
	for c := 0; c <= class && need > 0; c++ {
		budget[c] = min(need, q.byClass[c])
		need -= budget[c]
	}
	kept := q.chunks[:0]
	for _, c := range q.chunks {
		n := 0
		for i, f := range c.frames {
			class, cost := classOf(c.kinds[i]), len(f.Text)+frameCost
			if budget[class] > 0 {
				budget[class] -= cost
				q.byClass[class] -= cost
				q.bytes -= cost
				c.bytes -= cost
				q.dropped[c.kinds[i]&^forgeable]++
				continue
			}
			c.frames[n], c.kinds[n] = f, c.kinds[i]
			n++
		}
		clear(c.frames[n:])
		c.frames, c.kinds = c.frames[:n], c.kinds[:n]
		if n > 0 || c.state != nil {
			kept = append(kept, c)
		}
	}
	clear(q.chunks[len(kept):])
	q.chunks = kept
}

// take returns the oldest chunk, or nil. Give it back with release.
func (q *queue) take() *chunk {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.chunks) == 0 {
		return nil
	}
	c := q.chunks[0]
	if len(q.chunks) == 1 {
		q.chunks[0] = nil
		q.chunks = q.chunks[:0]
	} else {
		q.chunks[0] = nil
		q.chunks = q.chunks[1:]
	}
	for i, f := range c.frames {
		q.byClass[classOf(c.kinds[i])] -= len(f.Text) + frameCost
	}
	if c.state != nil {
		q.states--
	}
	return c
}

func (q *queue) release(c *chunk) {
	clear(c.frames)
	q.mu.Lock()
	q.bytes -= c.bytes
	*c = chunk{frames: c.frames[:0], kinds: c.kinds[:0]}
	q.spare = c
	q.mu.Unlock()
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
	return len(q.chunks) == 0
}
