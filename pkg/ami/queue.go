package ami

import (
	"slices"
	"sync"
	"time"
)

// A Frame is one AMI packet.
type Frame struct {
	// Text is the packet without the closing CRLFCRLF, otherwise byte for byte. It is valid only during the call of
	// [Config.OnFrames]: then its bytes are used again for other frames. strings.Clone what is kept of it.
	Text     string
	Received time.Time // when the bytes that completed it came off the socket
}

const (
	chunkFrames = 1024 // at most so many frames in one call of OnFrames
	frameCost   = 64   // bytes that a queued frame takes besides its text: Frame and about
	maxStates   = 1024 // queued changes of state
)

// A chunk is what the consumer gets in one go: frames, and the changes of state among them.
type chunk struct {
	frames  []Frame
	about   []about // of each frame
	marks   []mark  // in their order
	byClass [classes]int
}

// about is what the queue knows of a frame.
type about struct {
	page *page // that holds its text; nil: none
	kind uint8
}

// mark is a change of state before the frame with the number at, or after the last frame.
type mark struct {
	at    int
	state State
}

func newChunk() *chunk {
	return &chunk{frames: make([]Frame, 0, chunkFrames), about: make([]about, 0, chunkFrames)}
}

// cut takes off all frames but the first n.
func (c *chunk) cut(n int) {
	clear(c.frames[n:])
	clear(c.about[n:])
	c.frames, c.about = c.frames[:n], c.about[:n]
}

// A queue stands between the goroutine that drains the socket and the one that
// calls OnFrames. Neither ever waits for the other longer than its lock is held.
// What it needs, it uses again: while it is not growing it allocates nothing.
type queue struct {
	limit  int
	notify chan struct{} // holds one token while there may be something to take

	mu       sync.Mutex
	chunks   []*chunk // all but the last are full
	spare    spares[chunk]
	texts    texts
	states   int
	bytes    int // cost of the frames that are queued, or handed out and not yet released
	peak     int
	byClass  [classes]int
	dropped  [len(kinds)]uint64
	received uint64
}

func newQueue(limit int) *queue {
	return &queue{limit: limit, notify: make(chan struct{}, 1), texts: texts{poison: poisoned}}
}

// occupied is what the frames take, with what lies fallow between them.
func (q *queue) occupied() int { return q.bytes + q.texts.waste }

// push appends a copy of a frame, giving others up, or the frame itself, when
// the bound is hit. It never blocks.
func (q *queue) push(f Frame) {
	kind, cost := kindOf(f.Text), len(f.Text)+frameCost
	q.mu.Lock()
	q.received++
	if q.bytes > q.limit/4 && kinds[kind].class == classAttack && overUDP(f.Text) {
		kind |= forgeable
	}
	for {
		over := q.occupied() + cost + q.texts.gap(len(f.Text)) - q.limit
		if over <= 0 {
			break
		}
		if cost > q.limit || !q.evict(over, classOf(kind)) {
			q.dropped[kind&^forgeable]++
			q.mu.Unlock()
			return
		}
	}
	first := len(q.chunks) == 0 // else the consumer is awake, or about to be
	c := q.tail()
	text, page := q.texts.put(f.Text)
	c.frames = append(c.frames, Frame{Text: text, Received: f.Received})
	c.about = append(c.about, about{page: page, kind: kind})
	class := classOf(kind)
	c.byClass[class] += cost
	q.byClass[class] += cost
	q.bytes += cost
	q.peak = max(q.peak, q.occupied())
	q.mu.Unlock()
	if first {
		q.wake()
	}
}

// pushState appends a change of state at this place of the stream.
func (q *queue) pushState(st State) {
	q.mu.Lock()
	if q.states >= maxStates {
		for _, c := range q.chunks {
			if len(c.marks) > 0 {
				c.marks = slices.Delete(c.marks, 0, 1)
				q.states--
				break
			}
		}
	}
	var c *chunk
	if n := len(q.chunks); n > 0 {
		c = q.chunks[n-1]
	} else {
		c = q.tail()
	}
	c.marks = append(c.marks, mark{at: len(c.frames), state: st})
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

// tail returns a chunk with room for a frame.
func (q *queue) tail() *chunk {
	if n := len(q.chunks); n > 0 && len(q.chunks[n-1].frames) < chunkFrames {
		return q.chunks[n-1]
	}
	c := q.spare.get()
	if c == nil {
		c = newChunk()
	}
	q.chunks = append(q.chunks, c)
	return c
}

// evict gives up frames of the classes up to class: over bytes and a sixteenth of the bound more, so that a flood does not
// pay for a pass over the queue with every frame. Classes go in their order, within a class the oldest first: what happens
// now decides what has to be done now. A frame never displaces one of a higher class. It reports whether there were any.
func (q *queue) evict(over, class int) bool {
	var budget [classes]int
	need, some := over+q.limit/16, false
	for c := 0; c <= class && need > 0; c++ {
		budget[c] = min(need, q.byClass[c])
		need -= budget[c]
		some = some || budget[c] > 0
	}
	if !some {
		return false
	}
	kept, last := 0, 0 // frames that stay and move up, and the last chunk with a mark
	for i, c := range q.chunks {
		marks := slices.Clone(c.marks)
		c.marks, c.byClass = c.marks[:0], [classes]int{}
		for k := 0; ; k++ {
			for ; len(marks) > 0 && marks[0].at == k; marks = marks[1:] {
				last = min(kept/chunkFrames, i)
				to := q.chunks[last]
				to.marks = append(to.marks, mark{at: kept - last*chunkFrames, state: marks[0].state})
			}
			if k == len(c.frames) {
				break
			}
			f, a := c.frames[k], c.about[k]
			class, cost := classOf(a.kind), len(f.Text)+frameCost
			if budget[class] > 0 {
				budget[class] -= cost
				q.byClass[class] -= cost
				q.bytes -= cost
				q.dropped[a.kind&^forgeable]++
				if a.page != nil {
					a.page.holes += int32(len(f.Text))
				}
				q.texts.over(f.Text)
				q.drop(a.page, 1)
				continue
			}
			to, n := q.chunks[kept/chunkFrames], kept%chunkFrames
			to.frames[n], to.about[n] = f, a
			to.byClass[class] += cost
			kept++
		}
	}
	chunks := max((kept+chunkFrames-1)/chunkFrames, last+1)
	for i, c := range q.chunks {
		c.cut(min(max(kept-i*chunkFrames, 0), len(c.frames)))
		if i >= chunks {
			q.keep(c)
		}
	}
	clear(q.chunks[chunks:])
	q.chunks = q.chunks[:chunks]
	q.compact()
	return true
}

// compact moves the texts beside which others were given up, so that no page is kept for a few of them. The page that is
// written to has its turn when it is full.
func (q *queue) compact() {
	for _, c := range q.chunks {
		for i := range c.about {
			if old := c.about[i].page; old != nil && old.holes > 0 && old != q.texts.open {
				text := c.frames[i].Text
				c.frames[i].Text, c.about[i].page = q.texts.put(text)
				q.texts.over(text)
				q.drop(old, 1)
			}
		}
	}
}

// take returns the oldest chunk, or nil. Give it back with release.
func (q *queue) take() *chunk {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.chunks) == 0 {
		return nil
	}
	c := q.chunks[0]
	q.chunks = slices.Delete(q.chunks, 0, 1)
	for class, n := range c.byClass {
		q.byClass[class] -= n
	}
	q.states -= len(c.marks)
	return c
}

// release takes a chunk back. Its frames' texts are no more.
func (q *queue) release(c *chunk) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, n := range c.byClass {
		q.bytes -= n // first: it makes room for the pages
	}
	for i := range c.frames {
		q.texts.over(c.frames[i].Text)
	}
	for i := 0; i < len(c.about); {
		p, n := c.about[i].page, 1
		for i+n < len(c.about) && c.about[i+n].page == p {
			n++
		}
		q.drop(p, n)
		i += n
	}
	c.byClass = [classes]int{}
	c.cut(0)
	q.keep(c)
}

// keep keeps an empty chunk for later, if there is room.
func (q *queue) keep(c *chunk) {
	c.marks = nil
	q.spare.put(c, q.room(chunkFrames*frameCost))
}

// drop ends the use of n texts of a page, and keeps that for later if they were the last ones in it and there is room.
func (q *queue) drop(p *page, n int) {
	if p != nil && q.texts.drop(p, n) {
		q.texts.spare.put(p, q.room(pageSize))
	}
}

// room says whether n bytes more may be kept for later: the bound is one of all that is held.
func (q *queue) room(n int) bool {
	return q.occupied()+q.texts.spare.len()*pageSize+q.spare.len()*chunkFrames*frameCost+n <= q.limit
}

// excess says whether more is kept for later than a calm stream needs.
func (q *queue) excess() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.spare.len() > 1 || q.texts.spare.len() > 1
}

// trim lets go of what was kept for later and not needed since it was last called.
func (q *queue) trim() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.spare.trim()
	q.texts.spare.trim()
}

// fill copies the queue's numbers into a Status.
func (q *queue) fill(st *Status) {
	q.mu.Lock()
	defer q.mu.Unlock()
	st.QueueBytes, st.QueuePeak, st.Received = q.occupied(), q.peak, q.received
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
