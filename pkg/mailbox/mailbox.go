package mailbox

import (
	"slices"
	"sync"
)

// Options bound a mailbox.
type Options[T any] struct {
	// Limit is the most that the items which wait or are being handled may weigh together.
	Limit int
	// Weight is what an item counts against Limit, such as its bytes. nil: each counts 1.
	Weight func(T) int
	// Priority is a small number from 0 on. Where there is no room for an item, others of its own or of lower priority
	// are given up for it: the lowest first, and the oldest first of one priority. nil: none is, a full mailbox
	// refuses.
	Priority func(T) int
}

// A Mailbox takes items from any number of goroutines, none of which ever waits, and hands them on in their order to
// one consumer, who takes many at once. What is lost is returned to whoever put the item for which there was no room.
// The consumer's loop is
//
//	for {
//		switch items, ended := box.Take(most); {
//		case len(items) > 0:
//			handle(items)
//		case ended:
//			return
//		default:
//			<-box.Ready()
//		}
//	}
type Mailbox[T any] struct {
	limit    int
	weight   func(T) int
	priority func(T) int   // nil: a full mailbox refuses
	ready    chan struct{} // holds a token while there may be something to take

	mu         sync.Mutex
	chunks     [][]T // the items; no chunk is empty
	length     int   // how many items there are
	waiting    int   // weight of items
	byPriority []int // the same for each priority
	handled    int   // weight of what the last Take returned
	peak       int   // the most that waiting and handled ever were together
	closed     bool
}

// chunkItems is how many items lie together. One array for all would be copied again and again as it grows, and what is
// taken from it would have to be copied, too: 0.3 µs an event of the 4.7 that the whole program takes in a flood.
const chunkItems = 1024

// New returns an empty mailbox.
func New[T any](o Options[T]) *Mailbox[T] {
	if o.Weight == nil {
		o.Weight = func(T) int { return 1 }
	}
	return &Mailbox[T]{limit: o.Limit, weight: o.Weight, priority: o.Priority, ready: make(chan struct{}, 1)}
}

// Put appends an item. It never waits, and returns what is lost by it: mostly nothing, else older items, or the item
// itself.
func (m *Mailbox[T]) Put(item T) (lost []T) {
	weight := m.weight(item)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || weight > m.limit {
		return []T{item}
	}
	if excess := m.handled + m.waiting + weight - m.limit; excess > 0 {
		if lost = m.makeRoomLocked(item, excess); lost == nil {
			return []T{item}
		}
	}
	last := len(m.chunks) - 1
	switch {
	case last < 0:
		m.chunks = append(m.chunks, []T{item})
	case len(m.chunks[last]) >= chunkItems:
		m.chunks = append(m.chunks, append(make([]T, 0, chunkItems), item))
	default:
		m.chunks[last] = append(m.chunks[last], item)
	}
	m.countLocked(item, 1, weight)
	m.wakeLocked()
	return lost
}

// PutBack puts items that were taken in front of the others again, whatever the limit is.
func (m *Mailbox[T]) PutBack(items ...T) {
	if len(items) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.chunks = slices.Insert(m.chunks, 0, slices.Clone(items))
	for _, item := range items {
		weight := m.weight(item)
		m.handled = max(0, m.handled-weight)
		m.countLocked(item, 1, weight)
	}
	m.wakeLocked()
}

// Take returns the oldest items, at most so many and often fewer, or all if most is 0. They count against the limit
// until the next Take. ended says that the mailbox is closed and nothing is left in it.
func (m *Mailbox[T]) Take(most int) (items []T, ended bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handled = 0
	switch {
	case m.length == 0:
		return nil, m.closed
	case most <= 0:
		if items = m.chunks[0]; len(m.chunks) > 1 {
			items = slices.Concat(m.chunks...)
		}
		m.chunks, m.length = nil, 0
		m.handled, m.waiting = m.waiting, 0
		clear(m.byPriority)
		return items, false
	case most < len(m.chunks[0]):
		items = slices.Clone(m.chunks[0][:most])
		clear(m.chunks[0][:most]) // the array lives on, what it held need not
		m.chunks[0] = m.chunks[0][most:]
	default:
		items = m.chunks[0]
		m.chunks[0] = nil
		m.chunks = m.chunks[1:]
	}
	for _, item := range items {
		weight := m.weight(item)
		m.countLocked(item, -1, -weight)
		m.handled += weight
	}
	m.wakeLocked()
	return items, false
}

// Discard gives up the oldest items that match, at most so many, and returns them.
func (m *Mailbox[T]) Discard(most int, match func(T) bool) (lost []T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deleteLocked(func(item T) bool {
		if len(lost) == most || !match(item) {
			return false
		}
		lost = append(lost, item)
		return true
	})
	return lost
}

// Ready returns the channel on which the consumer waits after a Take that returned nothing.
func (m *Mailbox[T]) Ready() <-chan struct{} { return m.ready }

// Wake lets the consumer look again, though there may be nothing to take.
func (m *Mailbox[T]) Wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wakeLocked()
}

// Close makes every further Put lose its item. The consumer takes what is left, and is told when that is nothing.
func (m *Mailbox[T]) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.wakeLocked()
}

// Len returns how many items wait.
func (m *Mailbox[T]) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.length
}

// Load returns what the items weigh that wait or are being handled, and the most that they ever did.
func (m *Mailbox[T]) Load() (now, peak int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.handled + m.waiting, m.peak
}

// Signal puts a token into a channel with room for one, unless one lies there already: whoever waits for it will look
// anyway.
func Signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (m *Mailbox[T]) wakeLocked() {
	Signal(m.ready)
}

// countLocked adds one item and its weight to what waits, or takes both off.
func (m *Mailbox[T]) countLocked(item T, one, weight int) {
	m.length += one
	m.waiting += weight
	m.peak = max(m.peak, m.handled+m.waiting)
	if m.priority == nil {
		return
	}
	p := m.priority(item)
	for p >= len(m.byPriority) {
		m.byPriority = append(m.byPriority, 0)
	}
	m.byPriority[p] += weight
}

// makeRoomLocked gives up items for a new one: so much and a sixteenth of the limit more, so that a flood does not pay
// for a pass over all items with every one of its own. It returns nil if those that may be given up do not suffice.
func (m *Mailbox[T]) makeRoomLocked(item T, excess int) (lost []T) {
	if m.priority == nil {
		return nil
	}
	var (
		highest  = min(m.priority(item), len(m.byPriority)-1)
		budget   = make([]int, len(m.byPriority)) // weight still to be given up, of each priority
		wanted   = excess + m.limit/16
		possible = 0
	)
	for p := 0; p <= highest && wanted > 0; p++ {
		budget[p] = min(wanted, m.byPriority[p])
		wanted -= budget[p]
		possible += budget[p]
	}
	if possible < excess {
		return nil
	}
	m.deleteLocked(func(old T) bool {
		p := m.priority(old)
		if budget[p] <= 0 {
			return false
		}
		budget[p] -= m.weight(old)
		lost = append(lost, old)
		return true
	})
	return lost
}

// deleteLocked deletes items, and moves the others together, so that no chunk is mostly empty.
func (m *Mailbox[T]) deleteLocked(unwanted func(T) bool) {
	chunk, at := 0, 0 // where the next one goes that is kept
	for _, items := range m.chunks {
		for _, item := range items {
			if unwanted(item) {
				m.countLocked(item, -1, -m.weight(item))
				continue
			}
			if at == len(m.chunks[chunk]) {
				chunk, at = chunk+1, 0
			}
			m.chunks[chunk][at] = item
			at++
		}
	}
	if at == 0 {
		m.chunks = nil
		return
	}
	clear(m.chunks[chunk][at:])
	m.chunks[chunk] = m.chunks[chunk][:at]
	clear(m.chunks[chunk+1:])
	m.chunks = m.chunks[:chunk+1]
}
