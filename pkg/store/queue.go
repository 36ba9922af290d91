package store

import "slices"

// entry names a record.
type entry struct {
	kind kind
	key  string
}

func compareEntries(a, b entry) int {
	if a.kind != b.kind {
		return int(a.kind) - int(b.kind)
	}
	switch {
	case a.key < b.key:
		return -1
	case a.key > b.key:
		return 1
	}
	return 0
}

// queue is what waits for the disk: of each record the last value, nil where it is gone, and lines of history.
type queue struct {
	changes map[entry][]byte
	lines   [][]byte
}

func newQueue() queue { return queue{changes: make(map[entry][]byte)} }

func (q *queue) len() int { return len(q.changes) + len(q.lines) }

// put adds a change, or replaces the one of the same record. Removals have twice the room: one that is lost would bring a
// ban back that a person ended.
func (q *queue) put(e entry, value []byte, limit int) bool {
	if _, ok := q.changes[e]; !ok {
		if value == nil {
			limit *= 2
		}
		if len(q.changes) >= limit {
			return false
		}
	}
	q.changes[e] = value
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
func (q *queue) forget() { q.changes = make(map[entry][]byte) }

// restore puts back what could not be saved; what came later counts.
func (q *queue) restore(old queue, limit int) uint64 {
	if len(q.changes) == 0 {
		q.changes = old.changes
	} else {
		for e, v := range old.changes {
			if _, ok := q.changes[e]; !ok {
				q.changes[e] = v
			}
		}
	}
	q.lines = append(old.lines, q.lines...)
	return q.trim(limit)
}

// sorted returns the records in the order of the file.
func (q *queue) sorted() []entry {
	list := make([]entry, 0, len(q.changes))
	for e := range q.changes {
		list = append(list, e)
	}
	slices.SortFunc(list, compareEntries)
	return list
}
