package firewall

import "time"

// Turn is the right to write, lent by a Writer that has nothing to do. Waking
// another goroutine takes longer than the kernel takes for a ban.
type Turn struct{ w *Writer }

// Turn lends the right to write, or nothing where the Writer is at work, waits
// for something or has troubles: Submit then. It never waits. What others
// Submit from now on comes after what is written in this turn, which must end
// soon, with Write.
func (w *Writer) Turn() *Turn {
	if !w.turn.TryLock() {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.built || w.ended || w.err != nil || w.overflow || w.pending.len() > 0 {
		w.turn.Unlock()
		return nil
	}
	return &Turn{w}
}

// Write does what Submit does, on the caller's goroutine: when it returns the
// kernel has taken the changes and done was called, or the Writer has them in
// its queue and is about to mend what is wrong. between, if not nil, is called
// after the kernel's answer and before done. The slice is the caller's again
// when done is called.
func (t *Turn) Write(changes []Change, between func(), done func(error)) {
	w := t.w
	defer w.turn.Unlock()
	clean, err := normalized(changes)
	now := time.Now()
	for i := range clean {
		clean[i].stamp(now)
	}
	if err == nil && len(clean) > 0 {
		err = w.fw.Apply(clean)
	}
	if between != nil {
		between()
	}
	switch {
	case err == nil:
		done(nil)
	case len(clean) == 0: // refused
		done(err)
	default:
		w.late(clean, err, done)
	}
}

// late settles changes that the kernel refused, or puts them in the queue. What is there already came later.
func (w *Writer) late(changes []Change, err error, done func(error)) {
	t := &ticket{left: len(changes), done: done}
	if final(err) {
		waits := make([]wait, len(changes))
		for i := range waits {
			waits[i].ticket = t
		}
		w.settle(changes, waits, err)
		return
	}
	w.cfg.Log.Warn("the kernel did not take a change, it is tried again", "changes", len(changes), "err", err)
	w.mu.Lock()
	for _, c := range changes {
		if i := w.pending.find(c.Kind, c.Prefix); i >= 0 {
			w.pending.waits[i].more = append(w.pending.waits[i].more, t)
			continue
		}
		w.pending.put(&c, t, w.pending.len()+1) // a few, whatever the bound is
	}
	w.mu.Unlock()
	signal(w.wake)
}
