package store

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// entry names a record.
type entry struct {
	kind kind
	key  string
}

// name is the kind and the key in one, so that names sort as the file does.
func (e entry) name() string { return string(append([]byte{byte(e.kind)}, e.key...)) }

// item is a record that waits: its name, and its value or nil where it is gone.
type item struct {
	name  string
	value []byte
}

func (it *item) kind() kind { return kind(it.name[0]) }

// queue is what waits for the disk: of each record the last value, and lines of history.
type queue struct {
	index map[string]int32 // by name: the place in items
	items []item
	lines [][]byte
}

func newQueue() queue { return queue{index: make(map[string]int32)} }

func (q *queue) len() int { return len(q.items) + len(q.lines) }

// put adds a change, or replaces the one of the same record. Removals have twice the room: one that is lost would bring a
// ban back that a person ended.
func (q *queue) put(name string, value []byte, limit int) bool {
	if i, ok := q.index[name]; ok {
		q.items[i].value = value
		return true
	}
	if value == nil {
		limit *= 2
	}
	if len(q.items) >= limit {
		return false
	}
	q.index[name] = int32(len(q.items))
	q.items = append(q.items, item{name, value})
	return true
}

// append adds a line and drops the oldest beyond limit. It returns how many.
func (q *queue) append(line []byte, limit int) uint64 {
	q.lines = append(q.lines, line)
	return q.trim(limit)
}

func (q *queue) trim(limit int) uint64 {
	over := len(q.lines) - limit
	if over <= 0 {
		return 0
	}
	clear(q.lines[:over])
	q.lines = q.lines[over:]
	return uint64(over)
}

// forget drops the changes, not the lines.
func (q *queue) forget() { q.index, q.items = make(map[string]int32), nil }

// restore puts back what could not be saved; what came later counts.
func (q *queue) restore(old queue, limit int) uint64 {
	for _, it := range old.items {
		if _, ok := q.index[it.name]; !ok {
			q.index[it.name] = int32(len(q.items))
			q.items = append(q.items, it)
		}
	}
	q.lines = append(old.lines, q.lines...)
	return q.trim(limit)
}

// sort brings the records in the order of the file. Nothing can be put any more then.
func (q *queue) sort() {
	type place struct {
		head uint64 // of the name: all of it for a single IPv4 address
		at   int32
	}
	order := make([]place, len(q.items))
	for i := range q.items {
		var head [8]byte
		copy(head[:], q.items[i].name)
		order[i] = place{binary.BigEndian.Uint64(head[:]), int32(i)}
	}
	slices.SortFunc(order, func(a, b place) int {
		if a.head != b.head {
			return cmp.Compare(a.head, b.head)
		}
		return strings.Compare(q.items[a.at].name, q.items[b.at].name)
	})
	sorted := make([]item, len(order))
	for i := range order {
		sorted[i] = q.items[order[i].at]
	}
	q.index, q.items = nil, sorted
}

// emptied is the queue without anything in it, and with its room.
func (q *queue) emptied() queue {
	clear(q.index)
	clear(q.items)
	clear(q.lines)
	return queue{index: q.index, items: q.items[:0], lines: q.lines[:0]}
}
