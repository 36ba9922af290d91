package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Apply writes changes to the kernel, in as many transactions as their number
// needs. When it returns nil they are all in force. Changes that make no
// sense are refused before anything is written. A *FullError names what found
// no room, everything else is done. After any other error the table may have
// a part of the changes: Ensure, then say again what should be there.
func (t *Table) Apply(changes []Change) error {
	p, err := t.plan(changes)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.isClosed():
		return ErrClosed
	case t.broken:
		return fmt.Errorf("%w: Ensure has to be called first", ErrGone)
	}
	var full error
	if err = t.applyRanges(p); err == nil {
		full, err = t.applyHashed(p)
	}
	if err != nil {
		t.broken = true
		return explain("change table "+t.cfg.Table, err)
	}
	return full
}

// op is a change that has found its set.
type op struct {
	set    setID
	remove bool
	key    netip.Addr
	until  time.Time
}

// plan is what an Apply is going to do.
type plan struct {
	now    time.Time
	hashed []op
	edits  [numSets][]edit
}

func (t *Table) plan(changes []Change) (*plan, error) {
	p := &plan{now: time.Now(), hashed: make([]op, 0, len(changes))}
	removes := false
	for _, c := range changes {
		c, err := c.normalize()
		if err != nil {
			return nil, err
		}
		id, prefix, ok := setFor(c.Kind, c.Prefix, t.cfg.IPv6Prefix)
		if !ok {
			return nil, fmt.Errorf("%w: trust of %s: one address, or an IPv6 network of at least /%d", ErrChange, c.Prefix, t.cfg.IPv6Prefix)
		}
		if !t.cfg.used(id) {
			continue
		}
		end := c.end(p.now)
		if t.defs[id].shape == interval {
			p.edits[id] = append(p.edits[id], edit{prefix: prefix, until: end, remove: c.Remove})
			continue
		}
		// What ended while it waited is as good as removed.
		gone := c.Remove || over(end, p.now)
		removes = removes || gone
		p.hashed = append(p.hashed, op{set: id, remove: gone, key: prefix.Addr(), until: end})
	}
	if removes {
		p.hashed = lastOps(p.hashed)
	}
	return p, nil
}

// lastOps leaves the last of the ops on each key, in their order.
func lastOps(ops []op) []op {
	type key struct {
		set setID
		key netip.Addr
	}
	last := make(map[key]int, len(ops))
	for i := range ops {
		last[key{ops[i].set, ops[i].key}] = i
	}
	if len(last) == len(ops) {
		return ops
	}
	kept := make([]op, 0, len(last))
	for i := range ops {
		if last[key{ops[i].set, ops[i].key}] == i {
			kept = append(kept, ops[i])
		}
	}
	return kept
}

// applyRanges changes the interval sets, allowed networks first, so that none
// is dropped by a ban that comes with it.
func (t *Table) applyRanges(p *plan) error {
	for id := range p.edits {
		if len(p.edits[id]) == 0 {
			continue
		}
		err := t.editRanges(setID(id), p.edits[id], p.now)
		// Something expired in between, or was changed by somebody else: look
		// at what there is, and once more.
		for try := 0; try < 3 && (errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT)); try++ {
			if err = t.reload(setID(id)); err == nil {
				err = t.editRanges(setID(id), p.edits[id], p.now)
			}
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", t.defs[id].name, err)
		}
	}
	return nil
}

func (t *Table) editRanges(id setID, edits []edit, now time.Time) error {
	t.state.Lock()
	r := t.ranges[id]
	t.state.Unlock()
	next, del, add := r.apply(edits, now)
	b := newBatch(t.cfg.Table)
	b.del(t.defs[id].name, spanElems(del, now))
	b.add(t.defs[id].name, spanElems(add, now), true)
	if msgs := b.messages(); msgs != nil {
		if err := t.w.commit(msgs); err != nil {
			return err
		}
	}
	t.state.Lock()
	t.ranges[id] = next
	t.state.Unlock()
	return nil
}

func spanElems(spans []span, now time.Time) []elem {
	elems := make([]elem, 0, 2*len(spans))
	for i := range spans {
		elems = append(elems, spans[i].elems(now)...)
	}
	return elems
}

// reload takes the spans from the kernel and keeps what was asked for.
func (t *Table) reload(id setID) error {
	spans, err := t.listSpans(t.w, id)
	if err != nil {
		return err
	}
	t.state.Lock()
	defer t.state.Unlock()
	fresh := loaded(spans)
	known := make(map[netip.Prefix]bool, len(t.ranges[id].entries))
	entries := make([]entry, 0, len(t.ranges[id].entries))
	for _, e := range t.ranges[id].entries {
		known[e.prefix] = true
		entries = append(entries, e)
	}
	for _, e := range fresh.entries {
		if !known[e.prefix] {
			entries = append(entries, e)
		}
	}
	t.ranges[id] = ranges{entries: entries, spans: fresh.spans}
	return nil
}

// applyHashed changes the hash sets. It first supposes that new bans are new
// and removed ones present, which costs one message for each set; where that
// is wrong the transaction fails as a whole and is done again with care.
func (t *Table) applyHashed(p *plan) (full, err error) {
	var adds, dels [numSets][]elem
	var refused []*FullError
	ops := p.hashed
	for len(ops) > 0 {
		for id := range adds {
			adds[id], dels[id] = adds[id][:0], dels[id][:0]
		}
		n, weight := 0, 0
		for ; n < len(ops) && weight < maxBatch; n++ {
			o := &ops[n]
			e := elem{key: o.key}
			if o.remove {
				dels[o.set] = append(dels[o.set], e)
			} else {
				e.timeout = max(time.Millisecond, o.until.Sub(p.now))
				adds[o.set] = append(adds[o.set], e)
			}
			weight += e.weight()
		}
		ops = ops[n:]
		b := newBatch(t.cfg.Table)
		for id := range adds {
			b.del(t.defs[id].name, dels[id])
			b.add(t.defs[id].name, adds[id], true)
		}
		err := t.w.commit(b.messages())
		if err == nil {
			continue
		}
		if !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENFILE) {
			return nil, err
		}
		for id := range adds {
			f, err := t.careful(setID(id), dels[id], adds[id])
			if err != nil {
				return nil, fmt.Errorf("set %s: %w", t.defs[id].name, err)
			}
			if f != nil {
				refused = append(refused, f)
			}
		}
	}
	return joinFull(refused), nil
}

// joinFull makes one error of many, one for each set.
func joinFull(list []*FullError) error {
	var errs []error
	bySet := make(map[string]*FullError)
	for _, f := range list {
		if have := bySet[f.Set]; have != nil {
			have.Refused = append(have.Refused, f.Refused...)
			continue
		}
		bySet[f.Set] = f
		errs = append(errs, f)
	}
	return errors.Join(errs...)
}

// careful removes and adds where nothing is known about what is there.
func (t *Table) careful(id setID, dels, adds []elem) (*FullError, error) {
	if err := t.remove(id, dels); err != nil {
		return nil, err
	}
	var refused []netip.Prefix
	if err := t.refresh(id, lastElems(adds), &refused); err != nil {
		return nil, err
	}
	if refused == nil {
		return nil, nil
	}
	return &FullError{Set: t.defs[id].name, Size: t.cfg.size(id), Refused: refused}, nil
}

// lastElems leaves the last element of each key.
func lastElems(elems []elem) []elem {
	last := make(map[netip.Addr]int, len(elems))
	for i := range elems {
		last[elems[i].key] = i
	}
	kept := elems[:0:0]
	for i := range elems {
		if last[elems[i].key] == i {
			kept = append(kept, elems[i])
		}
	}
	return kept
}

// remove takes out what may be missing, as {add, del}: a deletion alone would
// abort the transaction. A full set has no room for that; there it goes one by
// one, because an unban must never fail for want of room.
func (t *Table) remove(id setID, dels []elem) error {
	if len(dels) == 0 {
		return nil
	}
	name := t.defs[id].name
	for i := range dels {
		dels[i].timeout = time.Minute
	}
	b := newBatch(t.cfg.Table)
	b.add(name, dels, false)
	b.del(name, dels)
	err := t.w.commit(b.messages())
	if !errors.Is(err, unix.ENFILE) {
		return err
	}
	for i := range dels {
		b := newBatch(t.cfg.Table)
		b.del(name, dels[i:i+1])
		if err := t.w.commit(b.messages()); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// refresh gives elements a new timeout, present or not, as {add, del, add} in
// one transaction: adding what is there does not extend it, and a packet
// never sees the moment between. On a full set the halves are tried, down to
// the elements that have no room.
func (t *Table) refresh(id setID, adds []elem, refused *[]netip.Prefix) error {
	if len(adds) == 0 {
		return nil
	}
	d := t.defs[id]
	b := newBatch(t.cfg.Table)
	b.add(d.name, adds, false)
	b.del(d.name, adds)
	b.add(d.name, adds, true)
	err := t.w.commit(b.messages())
	if !errors.Is(err, unix.ENFILE) {
		return err
	}
	if len(adds) == 1 {
		*refused = append(*refused, netip.PrefixFrom(adds[0].key, d.bits))
		return nil
	}
	half := len(adds) / 2
	if err := t.refresh(id, adds[:half], refused); err != nil {
		return err
	}
	return t.refresh(id, adds[half:], refused)
}
