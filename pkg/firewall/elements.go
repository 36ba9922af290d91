package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/firewall/internal/nfnl"
)

// Apply writes changes to the kernel, in as many transactions as their number needs. When it returns nil they are
// all in force. Changes that make no sense are refused before anything is written. A *FullError names what found no
// room, everything else is done. After any other error the table may have a part of the changes: EnsureTable, then say
// again what should be there.
func (t *Table) Apply(changes []Change) error {
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	p, err := t.makePlanLocked(changes)
	switch {
	case err != nil:
		return err
	case t.isClosed():
		return ErrClosed
	case t.mustEnsure:
		return fmt.Errorf("%w: Ensure has to be called first", ErrGone)
	}
	defer p.reset()
	if len(p.hashed) >= pauseNoticesFrom {
		defer t.pauseNotices(t.writeConn)()
	}
	var full error
	if err = t.applyRangesLocked(p); err == nil {
		full, err = t.applyHashedLocked(p)
	}
	if err != nil {
		t.mustEnsure = true
		return explainErrno("change table "+t.cfg.Table, err)
	}
	return full
}

// beginTransactionLocked begins a transaction. The one before must have been sent.
func (t *Table) beginTransactionLocked() *nfnl.Transaction {
	t.transaction.Begin(t.cfg.Table)
	return &t.transaction
}

// commitLocked sends a transaction, if there is anything in it.
func (t *Table) commitLocked(b *nfnl.Transaction) error {
	if msgs := b.Bytes(); msgs != nil {
		return t.writeConn.Commit(msgs)
	}
	return nil
}

// op is a change that has found its set.
type op struct {
	set          setID
	remove       bool
	alreadyThere bool
	known        bool
	key          nfnl.Key
	until        time.Time
	limit        nfnl.Limit
}

// plan is what an Apply is going to do. Its slices are used again.
type plan struct {
	now    time.Time
	hashed []op
	edits  [numSets][]edit
	manual map[netip.Prefix]bool // whose edits are among those
	writes [numSets]setWrites    // of a transaction
}

// keptOps is the most ops for which a plan keeps its slice.
const keptOps = 1 << 14

func (p *plan) reset() {
	if cap(p.hashed) > keptOps {
		p.hashed = nil
	}
	p.hashed, p.edits, p.manual = p.hashed[:0], [numSets][]edit{}, nil
}

// makePlanLocked fills the table's plan.
func (t *Table) makePlanLocked(changes []Change) (*plan, error) {
	p := &t.plan
	p.reset()
	p.now, p.hashed = time.Now(), slices.Grow(p.hashed[:0], len(changes))
	removes := false
	for i := range changes {
		c := &changes[i]
		if !c.normal {
			own := *c
			if err := own.normalize(); err != nil {
				return nil, err
			}
			c = &own
		}
		id, prefix, key, ok := c.target().setAndKey(t.cfg.IPv6Prefix)
		if !ok {
			return nil, fmt.Errorf("%w: %s: one address, or an IPv6 network of /%d", ErrChange, c.target(),
				t.cfg.IPv6Prefix)
		}
		if !t.cfg.hasSet(id) {
			continue
		}
		end := c.endsAt(p.now)
		if c.Kind == Ban && c.Closes == CloseAll {
			t.planManualLocked(p, c, end)
		}
		if t.defs[id].shape == interval {
			if c.alreadyThere { // EnsureTable has read it
				continue
			}
			p.edits[id] = append(p.edits[id], edit{prefix: prefix, until: end, remove: c.Remove})
			continue
		}
		// What ended while it waited is as good as removed.
		gone := c.Remove || isOver(end, p.now)
		removes = removes || gone
		o := op{set: id, remove: gone, alreadyThere: c.alreadyThere && !gone, known: c.Known, key: key, until: end}
		if c.Kind == Slow {
			o.limit = c.Pace.kernelLimit()
		}
		p.hashed = append(p.hashed, o)
	}
	if removes {
		p.hashed = lastOpPerKey(p.hashed)
	}
	return p, nil
}

// planManualLocked keeps the set of manual bans. What is no longer one, since the last change was made by the engine,
// is taken out.
func (t *Table) planManualLocked(p *plan, c *Change, end time.Time) {
	id := manualSet(c.Prefix)
	entries := t.ranges[id].entries // which nobody changes while writeMu is held
	if !c.Manual && len(entries) == 0 && len(p.edits[id]) == 0 {
		return
	}
	_, there := slices.BinarySearchFunc(entries, entry{prefix: c.Prefix}, compareEntries)
	there = there || p.manual[c.Prefix]
	switch {
	case c.Manual && !c.Remove && (there || len(entries)+len(p.edits[id]) < maxManual):
		p.edits[id] = append(p.edits[id], edit{prefix: c.Prefix, until: end})
		if p.manual == nil {
			p.manual = make(map[netip.Prefix]bool)
		}
		p.manual[c.Prefix] = true
	case there:
		p.edits[id] = append(p.edits[id], edit{prefix: c.Prefix, remove: true})
	}
}

func manualSet(p netip.Prefix) setID {
	if p.Addr().Is6() {
		return block6
	}
	return block4
}

// lastOpPerKey leaves the last of the ops on each key, in their order.
func lastOpPerKey(ops []op) []op {
	type key struct {
		set setID
		key nfnl.Key
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

// applyRangesLocked changes the interval sets, allowed networks first, so that none is dropped by a ban that comes
// with it.
func (t *Table) applyRangesLocked(p *plan) error {
	for id := range p.edits {
		if len(p.edits[id]) == 0 {
			continue
		}
		err := t.editRangesLocked(setID(id), p.edits[id], p.now)
		// Something expired in between, or was changed by somebody else: look at what there is, and once more.
		for try := 0; try < 3 && (errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT)); try++ {
			if err = t.reloadRangesLocked(setID(id)); err == nil {
				err = t.editRangesLocked(setID(id), p.edits[id], p.now)
			}
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", t.defs[id].name, err)
		}
	}
	return nil
}

func (t *Table) editRangesLocked(id setID, edits []edit, now time.Time) error {
	t.stateMu.Lock()
	r := t.ranges[id]
	t.stateMu.Unlock()
	next, del, add := r.afterEdits(edits, now)
	b := t.beginTransactionLocked()
	b.Delete(t.defs[id].name, elementsOfSpans(del, now))
	b.Add(t.defs[id].name, elementsOfSpans(add, now), true)
	if err := t.commitLocked(b); err != nil {
		return err
	}
	t.stateMu.Lock()
	t.ranges[id] = next
	t.stateMu.Unlock()
	return nil
}

func elementsOfSpans(spans []span, now time.Time) []nfnl.SetElement {
	elems := make([]nfnl.SetElement, 0, 2*len(spans))
	for i := range spans {
		elems = append(elems, spans[i].kernelElements(now)...)
	}
	return elems
}

// reloadRangesLocked takes the spans from the kernel and keeps what was asked for.
func (t *Table) reloadRangesLocked(id setID) error {
	spans, err := t.listSpans(t.writeConn, id)
	if err != nil {
		return err
	}
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	fresh := rangesFromKernel(spans)
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

// setWrites are the ways in which a set's elements are written.
type setWrites struct {
	del   []nfnl.SetElement // may be missing
	fresh []nfnl.SetElement // believed to be new
	again []nfnl.SetElement // may be there
}

// appendTo adds the set's part to a transaction that fails as a whole where the belief is wrong. What is fresh goes
// first, so that of two changes to one prefix the later counts.
func (w *setWrites) appendTo(b *nfnl.Transaction, set string) {
	b.Add(set, w.del, false)
	b.Delete(set, w.del)
	b.Add(set, w.fresh, true)
	b.Add(set, w.again, false)
	b.Delete(set, w.again)
	b.Add(set, w.again, true)
}

// applyHashedLocked changes the hash sets, as many elements in a transaction as a socket takes for certain. Where
// something is not as it was believed to be, the transaction fails as a whole and is done again with care.
func (t *Table) applyHashedLocked(p *plan) (full, err error) {
	parts := &p.writes
	var refused []*FullError
	cautious := t.elementsUnknown
	t.elementsUnknown = t.elementsUnknown && len(p.hashed) == 0
	for ops := p.hashed; len(ops) > 0; {
		for id := range parts {
			w := &parts[id]
			w.del, w.fresh, w.again = w.del[:0], w.fresh[:0], w.again[:0]
		}
		n, weight := 0, 0
		for ; n < len(ops) && weight < nfnl.MaxTransaction; n++ {
			o := &ops[n]
			w, e := &parts[o.set], nfnl.SetElement{Key: o.key, Timeout: time.Minute, Limit: o.limit}
			switch {
			case o.remove:
				t.written.forget(keyOfElement(o.set, o.key))
				w.del = append(w.del, e)
				weight += 2 * e.Size()
				continue
			case isOver(t.fullUntil[o.set], p.now):
				t.fullUntil[o.set] = time.Time{}
			}
			e.Timeout = max(time.Millisecond, o.until.Sub(p.now))
			switch may := t.written.rememberAndTest(keyOfElement(o.set, o.key), o.until, p.now); {
			case o.alreadyThere:
			case may || cautious || o.known:
				w.again = append(w.again, e)
				weight += 3 * e.Size()
			default:
				w.fresh = append(w.fresh, e)
				weight += e.Size()
			}
		}
		ops = ops[n:]
		b := t.beginTransactionLocked()
		crowded := false
		for id := range parts {
			parts[id].appendTo(b, t.defs[id].name)
			crowded = crowded || !t.fullUntil[id].IsZero() && len(parts[id].fresh) > 0
		}
		if !crowded {
			err := t.commitLocked(b)
			if err == nil {
				for id := range parts {
					if len(parts[id].del) > 0 { // there may be room now
						t.fullUntil[id] = time.Time{}
					}
				}
				continue
			}
			if !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENFILE) {
				return nil, err
			}
			cautious = true
		}
		for id := range parts {
			f, err := t.applyUncertainLocked(setID(id), &parts[id], p.now)
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
			have.targets = append(have.targets, f.targets...)
			continue
		}
		bySet[f.Set] = f
		errs = append(errs, f)
	}
	return errors.Join(errs...)
}

// fullPause is how long a set that was found full is believed to be: asking costs several failing transactions of
// 20 ms.
const fullPause = time.Second

// applyUncertainLocked removes and adds where nothing is known about what is there. On a full set, what is there is
// refreshed, and of the rest as much is added as has room.
func (t *Table) applyUncertainLocked(id setID, w *setWrites, now time.Time) (*FullError, error) {
	if err := t.removeUncertainLocked(id, w.del); err != nil {
		return nil, err
	}
	if len(w.del) > 0 {
		t.fullUntil[id] = time.Time{}
	}
	adds := lastElementPerKey(slices.Concat(w.fresh, w.again))
	if t.fullUntil[id].IsZero() {
		err := t.refreshLocked(id, adds)
		if !errors.Is(err, unix.ENFILE) {
			return nil, err
		}
	}
	there, missing, err := t.partitionByPresenceLocked(id, adds)
	if err != nil {
		return nil, err
	}
	if err := t.refreshLocked(id, there); err != nil && !errors.Is(err, unix.ENFILE) {
		return nil, err
	}
	if t.fullUntil[id].IsZero() {
		if missing, err = t.addWhatFitsLocked(id, missing); err != nil {
			return nil, err
		}
		t.fullUntil[id] = now.Add(fullPause)
	}
	if len(missing) == 0 {
		return nil, nil
	}
	f := &FullError{Set: t.defs[id].name, Size: t.cfg.setSize(id)}
	for _, e := range missing {
		t.written.forget(keyOfElement(id, e.Key))
		f.Refused = append(f.Refused, netip.PrefixFrom(e.Key.Addr, t.defs[id].bits))
		f.targets = append(f.targets, t.defs[id].targetOf(e.Key))
	}
	return f, nil
}

// addWhatFitsLocked adds as many of the elements, first come, as there is room for, and returns the others. There
// is none for all of them.
func (t *Table) addWhatFitsLocked(id setID, adds []nfnl.SetElement) ([]nfnl.SetElement, error) {
	for tooMany := len(adds); tooMany > 1; {
		n := tooMany / 2
		switch err := t.refreshLocked(id, adds[:n]); {
		case err == nil:
			adds = adds[n:]
			tooMany -= n
		case errors.Is(err, unix.ENFILE):
			tooMany = n
		default:
			return nil, err
		}
	}
	return adds, nil
}

// lastElementPerKey leaves the last element of each key.
func lastElementPerKey(elems []nfnl.SetElement) []nfnl.SetElement {
	last := make(map[nfnl.Key]int, len(elems))
	for i := range elems {
		last[elems[i].Key] = i
	}
	kept := elems[:0:0]
	for i := range elems {
		if last[elems[i].Key] == i {
			kept = append(kept, elems[i])
		}
	}
	return kept
}

// removeUncertainLocked takes out what may be missing, as {add, del}: a deletion alone would abort the transaction.
// A full set has no room for that; there each is looked up, because an unban must never fail for want of room.
func (t *Table) removeUncertainLocked(id setID, dels []nfnl.SetElement) error {
	if len(dels) == 0 {
		return nil
	}
	name := t.defs[id].name
	b := t.beginTransactionLocked()
	b.Add(name, dels, false)
	b.Delete(name, dels)
	err := t.commitLocked(b)
	if !errors.Is(err, unix.ENFILE) {
		return err
	}
	for range 3 { // one may end between look and deletion
		var there []nfnl.SetElement
		if there, _, err = t.partitionByPresenceLocked(id, dels); err != nil || len(there) == 0 {
			return err
		}
		b := t.beginTransactionLocked()
		b.Delete(name, there)
		if err = t.commitLocked(b); !errors.Is(err, unix.ENOENT) {
			return err
		}
		dels = there
	}
	return err
}

// partitionByPresenceLocked asks the kernel which elements are there.
func (t *Table) partitionByPresenceLocked(id setID, elems []nfnl.SetElement) (there, missing []nfnl.SetElement,
	err error) {
	set := t.setRef(t.defs[id])
	for i := range elems {
		_, err := t.writeConn.Nftables.FindSetElements(set, []nftables.SetElement{{Key: elems[i].Key.Bytes()}})
		switch {
		case err == nil:
			there = append(there, elems[i])
		case errors.Is(err, unix.ENOENT):
			missing = append(missing, elems[i])
		default:
			return nil, nil, err
		}
	}
	return there, missing, nil
}

// refreshLocked gives elements a new timeout, present or not, as {add, del, add} in one transaction: adding what is
// there does not extend it, and a packet never sees the moment between.
func (t *Table) refreshLocked(id setID, adds []nfnl.SetElement) error {
	w := setWrites{again: adds}
	b := t.beginTransactionLocked()
	w.appendTo(b, t.defs[id].name)
	return t.commitLocked(b)
}
