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
	items      []T
	waiting    int   // weight of items
	byPriority []int // the same for each priority
	handled    int   // weight of what the last Take returned
	peak       int   // the most that waiting and handled ever were together
	closed     bool
}

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
	m.items = append(m.items, item)
	m.countLocked(item, weight)
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
	m.items = slices.Insert(m.items, 0, items...)
	for _, item := range items {
		weight := m.weight(item)
		m.handled = max(0, m.handled-weight)
		m.countLocked(item, weight)
	}
	m.wakeLocked()
}

// Take returns the oldest items, at most so many, or all if most is 0. They count against the limit until the next
// Take. ended says that the mailbox is closed and nothing is left in it.
func (m *Mailbox[T]) Take(most int) (items []T, ended bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handled = 0
	if most <= 0 || most >= len(m.items) {
		items, m.items = m.items, nil
		m.handled, m.waiting = m.waiting, 0
		clear(m.byPriority)
		return items, m.closed && len(items) == 0
	}
	items = slices.Clone(m.items[:most])
	clear(m.items[:most]) // the array lives on, what it held need not
	m.items = m.items[most:]
	for _, item := range items {
		weight := m.weight(item)
		m.countLocked(item, -weight)
		m.handled += weight
	}
	m.wakeLocked()
	return items, false
}

// Discard gives up the oldest items that match, at most so many, and returns them.
func (m *Mailbox[T]) Discard(most int, match func(T) bool) (lost []T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.items = slices.DeleteFunc(m.items, func(item T) bool {
		if len(lost) == most || !match(item) {
			return false
		}
		m.countLocked(item, -m.weight(item))
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
	return len(m.items)
}

// Load returns what the items weigh that wait or are being handled, and the most that they ever did.
func (m *Mailbox[T]) Load() (now, peak int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.handled + m.waiting, m.peak
}

func (m *Mailbox[T]) wakeLocked() {
	select {
	case m.ready <- struct{}{}:
	default: // he will look anyway
	}
}

// countLocked adds a weight to what waits, or takes it off.
func (m *Mailbox[T]) countLocked(item T, weight int) {
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
	m.items = slices.DeleteFunc(m.items, func(old T) bool {
		p := m.priority(old)
		if budget[p] <= 0 {
			return false
		}
		weight := m.weight(old)
		budget[p] -= weight
		m.countLocked(old, -weight)
		lost = append(lost, old)
		return true
	})
	return lost
}
