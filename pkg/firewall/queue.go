package firewall

import (
	"hash/maphash"
	"net/netip"
)

// queue holds the last change of each prefix and who waits for it. Its index is a table of open addressing with the
// places in changes, plus one (0 is none): a flood asks it of each ban, and with a Go map that costs more than all else here.
type queue struct {
	seed    maphash.Seed
	index   []uint32
	changes []Change
	waits   []wait // for the change of the same place
}

// wait is who waits for a change.
type wait struct {
	ticket *ticket
	more   []*ticket
	at     uint32 // where the index has the change
}

const (
	queueMin  = 64      // places of the index
	queueKept = 1 << 16 // changes for which an empty queue keeps room
)

func (q *queue) len() int { return len(q.changes) }

// place returns where the index has a normalized prefix, or would have it.
func (q *queue) place(k Kind, p netip.Prefix) uint32 {
	var b [18]byte
	sixteen := p.Addr().As16()
	b[0], b[1] = byte(k), byte(p.Bits())
	copy(b[2:], sixteen[:])
	mask := uint32(len(q.index) - 1)
	for i := uint32(maphash.Bytes(q.seed, b[:])) & mask; ; i = (i + 1) & mask {
		if q.index[i] == 0 {
			return i
		}
		if c := &q.changes[q.index[i]-1]; c.Kind == k && c.Prefix == p {
			return i
		}
	}
}

// find returns which of the changes is that of a prefix, negative for none.
func (q *queue) find(k Kind, p netip.Prefix) int {
	if len(q.index) == 0 {
		return -1
	}
	return int(q.index[q.place(k, p)]) - 1
}

// put adds a change, or replaces the one of the same prefix. Removals have
// twice the room: an unban that is lost would lock somebody out, and the list
// of what is desired does not say what is no longer desired.
func (q *queue) put(c *Change, t *ticket, limit int) bool {
	if len(q.index) == 0 {
		q.seed, q.index = maphash.MakeSeed(), make([]uint32, queueMin)
	}
	at := q.place(c.Kind, c.Prefix)
	if i := q.index[at]; i > 0 {
		q.changes[i-1] = *c
		if w := &q.waits[i-1]; w.ticket != t {
			w.more = append(w.more, t)
		} else {
			t.left--
		}
		return true
	}
	if c.Remove {
		limit *= 2
	}
	if len(q.changes) >= limit {
		return false
	}
	q.changes = append(q.changes, *c)
	q.waits = append(q.waits, wait{ticket: t, at: at})
	q.index[at] = uint32(len(q.changes))
	if len(q.changes) > len(q.index)/2 {
		q.grow()
	}
	return true
}

func (q *queue) grow() {
	q.index = make([]uint32, 2*len(q.index))
	for i := range q.changes {
		at := q.place(q.changes[i].Kind, q.changes[i].Prefix)
		q.index[at], q.waits[i].at = uint32(i+1), at
	}
}

// empty takes everything out. What a flood needed is not kept.
func (q *queue) empty() {
	if len(q.changes) > queueKept {
		*q = queue{}
		return
	}
	for i := range q.waits {
		q.index[q.waits[i].at] = 0
	}
	clear(q.changes)
	clear(q.waits)
	q.changes, q.waits = q.changes[:0], q.waits[:0]
}
