package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"slices"
)

// entry names a record.
type entry struct {
	kind kind
	key  string
}

// item is a record: its name, which is the kind and the key, and its value, or nothing where it is gone.
type item struct {
	record []byte
	named  int // bytes of the name
}

func (it *item) kind() kind   { return kind(it.record[0]) }
func (it *item) name() []byte { return it.record[:it.named] }
func (it *item) key() []byte  { return it.record[1:it.named] }

// value is nil where the record is gone.
func (it *item) value() []byte {
	if len(it.record) == it.named {
		return nil
	}
	return it.record[it.named:]
}

// queue is what waits for the disk: of each record the last value, and lines of history.
type queue struct {
	index map[label]int32  // the place in items, by name
	hosts map[string]int32 // the same, of names that are too long for a label: those of host names
	items []item
	lines [][]byte
}

// label is a name, after its length; that of any prefix fits. A map of labels has no pointers, and needs no strings.
type label [1 + 1 + 1 + maxKey]byte

func labelOf(name []byte) (l label, ok bool) {
	if len(name) >= len(l) {
		return l, false
	}
	l[0] = byte(len(name))
	copy(l[1:], name)
	return l, true
}

func newQueue() queue { return queue{index: make(map[label]int32), hosts: make(map[string]int32)} }

func (q *queue) len() int { return len(q.items) + len(q.lines) }

// put adds a change, or replaces the one of the same record. Removals have twice the room: one that is lost would bring a
// ban back that a person ended.
func (q *queue) put(it item, limit int) bool {
	if it.value() == nil {
		limit *= 2
	}
	l, short := labelOf(it.name())
	var i int32
	var ok bool
	if short {
		i, ok = q.index[l]
	} else {
		i, ok = q.hosts[string(it.name())]
	}
	switch {
	case ok:
		q.items[i] = it
		return true
	case len(q.items) >= limit:
		return false
	case short:
		q.index[l] = int32(len(q.items))
	default:
		q.hosts[string(it.name())] = int32(len(q.items))
	}
	q.items = append(q.items, it)
	return true
}

// has says whether a change of the same record waits.
func (q *queue) has(it item) (ok bool) {
	if l, short := labelOf(it.name()); short {
		_, ok = q.index[l]
	} else {
		_, ok = q.hosts[string(it.name())]
	}
	return ok
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
func (q *queue) forget() {
	fresh := newQueue()
	q.index, q.hosts, q.items = fresh.index, fresh.hosts, nil
}

// restore puts back what could not be saved; what came later counts.
func (q *queue) restore(old queue, limit int) uint64 {
	for _, it := range old.items {
		if !q.has(it) {
			q.put(it, math.MaxInt32)
		}
	}
	q.lines = append(old.lines, q.lines...)
	return q.trim(limit)
}

// rank is where the records of a kind come in a batch. A batch may need several transactions, and a crash may leave the
// later ones out: offenders come before bans, so that no ban that alone said how often its source was banned is dropped,
// or overwritten by one that does not say it, before that is written down elsewhere. The other way round both are in the
// file for a while, which say the same.
func (k kind) rank() byte {
	if k == kindOffender {
		return 0
	}
	return byte(k)
}

// sort brings the records in the order of rank, and those of a kind together, in the order of their bucket. Nothing can be
// put any more then.
func (q *queue) sort() {
	type place struct {
		head uint64 // the rank, and the key's first bytes: all of it for a single IPv4 address
		at   int32
	}
	order := make([]place, len(q.items))
	for i := range q.items {
		var head [8]byte
		copy(head[:], q.items[i].name())
		head[0] = q.items[i].kind().rank()
		order[i] = place{binary.BigEndian.Uint64(head[:]), int32(i)}
	}
	slices.SortFunc(order, func(a, b place) int {
		if a.head != b.head {
			return cmp.Compare(a.head, b.head)
		}
		return bytes.Compare(q.items[a.at].name(), q.items[b.at].name())
	})
	sorted := make([]item, len(order))
	for i := range order {
		sorted[i] = q.items[order[i].at]
	}
	q.index, q.hosts, q.items = nil, nil, sorted
}

// emptied is the queue without anything in it, and with its room.
func (q *queue) emptied() queue {
	clear(q.index)
	clear(q.hosts)
	clear(q.items)
	clear(q.lines)
	return queue{index: q.index, hosts: q.hosts, items: q.items[:0], lines: q.lines[:0]}
}
