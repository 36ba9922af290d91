package firewall

// queue holds the last change of each target and who waits for it. It is no mailbox, which keeps every item: of two
// changes of one target only the later one is written. The zero queue is empty.
type queue struct {
	index   map[target]int // in changes
	changes []Change
	waiters [][]*submission // for the change of the same index
}

func (q *queue) len() int { return len(q.changes) }

// has says whether there is a change of a normalized target.
func (q *queue) has(t target) bool {
	_, ok := q.index[t]
	return ok
}

// addOrReplace adds a change, or replaces the one of the same target. Removals have twice the room: an unban that is
// lost would lock somebody out, and the list of what is desired does not say what is no longer desired.
func (q *queue) addOrReplace(c *Change, t *submission, limit int) bool {
	key := c.target()
	if i, ok := q.index[key]; ok {
		q.changes[i] = *c
		q.addWaiter(i, t)
		return true
	}
	if c.Remove {
		limit *= 2
	}
	if len(q.changes) >= limit {
		return false
	}
	q.add(key, c, []*submission{t})
	return true
}

func (q *queue) add(key target, c *Change, waits []*submission) {
	if q.index == nil {
		q.index = make(map[target]int)
	}
	q.index[key] = len(q.changes)
	q.changes = append(q.changes, *c)
	q.waiters = append(q.waiters, waits)
}

// addWaiter lets a ticket wait for a change: once, however many of its changes are of that target.
func (q *queue) addWaiter(i int, t *submission) {
	for _, have := range q.waiters[i] {
		if have == t {
			t.unsettled--
			return
		}
	}
	q.waiters[i] = append(q.waiters[i], t)
}

// putBack takes in what another queue had before this one. Of one target what is here came later, and counts.
func (q *queue) putBack(old *queue) {
	for i := range old.changes {
		key := old.changes[i].target()
		at, ok := q.index[key]
		if !ok { // whatever the bound is: they were accepted
			q.add(key, &old.changes[i], old.waiters[i])
			continue
		}
		for _, t := range old.waiters[i] {
			q.addWaiter(at, t)
		}
	}
}
