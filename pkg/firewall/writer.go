package firewall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/mailbox"
)

// Causes of a rebuild besides the three of Outcome, for the hook Rebuilt.
const (
	CauseError    = "error"    // the kernel answered a change with an error
	CauseGone     = "gone"     // table, sets, chain or rules were not as they should be
	CauseElements = "elements" // the table was, but elements were missing
	CauseOverflow = "overflow" // the queue was full, so changes have to be made up for
)

// ErrQueueFull is given to the done function of a change that found no place in the queue. The Writer makes up for
// it from the list of what is desired.
var ErrQueueFull = errors.New("firewall: too many changes are waiting for the kernel")

// WriterConfig is what a Writer may be told; its zero value will do.
type WriterConfig struct {
	Log *slog.Logger
	// Rebuilt is called after each rebuild with its cause: an Outcome at the start, then one of the Cause
	// constants.
	Rebuilt func(cause string)
	// VerifyInterval is the time between two looks at the table, 5 s if 0, never if negative. A Table also hears of
	// changes at once.
	VerifyInterval time.Duration
	// Sample returns up to n of the desired changes, best different ones each time, to be looked for in the kernel
	// at each look. Sampled is told how many were looked for and found.
	Sample  func(n int) []Change
	Sampled func(looked, found int)
	// MaxPending bounds the changes that wait for the kernel, 1048576 if 0.
	MaxPending int
	// Found is what the table holds, as listed at FoundAt: where it still is there at the start, the Writer does
	// not write once more what ends at the same time.
	Found   []Element
	FoundAt time.Time
}

const (
	defaultVerify  = 5 * time.Second
	defaultPending = 1 << 20
	sampleSize     = 16
	backoffMin     = 20 * time.Millisecond
	backoffMax     = 5 * time.Second
	maxTries       = 3
	fullQuiet      = time.Minute // between two log lines about full sets
)

// generationReader is a Firewall that knows the number of the last change of any ruleset.
type generationReader interface {
	Generation() (uint32, error)
}

// rulesetWatcher is a Firewall that hears when somebody else changes the ruleset.
type rulesetWatcher interface {
	WatchRulesets(ctx context.Context, changed func()) error
}

// Writer is the one that changes a Firewall: its goroutine, or, while that has nothing to do, whoever submits a few
// changes. It writes at once when it is idle; what comes while it writes is the next batch. After an error it
// builds the table again from the list of what is desired and goes on: no change that was taken is lost.
type Writer struct {
	fw      Firewall
	desired func() []Change // everything that should be in the table
	cfg     WriterConfig

	wake    chan struct{} // holds a token while something may wait
	changed chan struct{} // holds a token when somebody else changed the ruleset

	// mu is held for moments only, and never while the kernel is asked.
	mu sync.Mutex
	// pending are the changes that nobody has begun to write, the last of each target.
	pending queue
	// overflow says that changes were not accepted into pending: the table has to be built from what is desired.
	overflow bool
	built    bool // for the first time
	ended    bool // Run has returned: nothing is taken any more
	// err is why the table is not being kept at the moment.
	err error

	// writing is the right to change the Firewall. Nobody waits for it who holds a lock, so Submit only tries.
	writing sync.Mutex

	// Of whoever has the right to write:

	// fullLogged is when it was last said that a set is full.
	fullLogged time.Time
	// lastSample is the last look in which none of lastSampleSize changes was missing.
	lastSample     verification
	lastSampleSize int
}

// submission is one call of Submit; done is called when each of its changes is settled.
type submission struct {
	unsettled int
	err       error
	done      func(error)
}

func (s *submission) settleOne(err error) {
	if s.err == nil {
		s.err = err
	}
	if s.unsettled--; s.unsettled == 0 && s.done != nil {
		s.done(s.err)
	}
}

// NewWriter returns a Writer; Run is to be called once. desired lists every ban, allowed network and trusted source
// with the time that it has left. It is called by the Writer's goroutine, must not wait for the Writer, and should
// know of a change not later than Submit does.
func NewWriter(fw Firewall, desired func() []Change, cfg WriterConfig) *Writer {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.VerifyInterval == 0 {
		cfg.VerifyInterval = defaultVerify
	}
	if cfg.MaxPending <= 0 {
		cfg.MaxPending = defaultPending
	}
	if cfg.Rebuilt == nil {
		cfg.Rebuilt = func(string) {}
	}
	if desired == nil {
		desired = func() []Change { return nil }
	}
	return &Writer{
		fw: fw, desired: desired, cfg: cfg,
		wake: make(chan struct{}, 1), changed: make(chan struct{}, 1),
	}
}

// SetFound says what the table holds, as listed at a time, where that was not known yet when the Writer was made. It
// comes before Run.
func (w *Writer) SetFound(list []Element, at time.Time) { w.cfg.Found, w.cfg.FoundAt = list, at }

// maxInline is how many changes are written without the Writer's goroutine. More are worth waking it.
const maxInline = 8

// Submit hands changes over and returns at once. Call flush once, after letting go of every lock that done takes:
// where the Writer has nothing else to do, it writes the changes on the caller's goroutine, since waking another
// one takes longer than the kernel takes for a ban; else it does nothing, and the Writer writes them.
//
// done, which may be nil, is called once: after the kernel has committed all of them, or with the reason why one
// could not be done. It must be quick. Changes that make no sense are refused before Submit returns. Of two changes
// of one prefix the later counts; both are done when it is. The slice is the caller's again when Submit returns.
func (w *Writer) Submit(changes []Change, done func(error)) (flush func()) {
	nothing := func() {}
	if done == nil {
		done = func(error) {}
	}
	clean, err := normalizeAll(changes)
	if err != nil || len(clean) == 0 {
		done(err)
		return nothing
	}
	now := time.Now()
	t := &submission{unsettled: len(clean), done: done}
	w.mu.Lock()
	if w.ended {
		w.mu.Unlock()
		done(ErrClosed)
		return nothing
	}
	inline := w.built && w.err == nil && !w.overflow && w.pending.len() == 0 && len(clean) <= maxInline &&
		w.writing.TryLock()
	lost := 0
	for i := range clean {
		clean[i].fixEnd(now)
		if !w.pending.addOrReplace(&clean[i], t, w.cfg.MaxPending) {
			lost++
			w.overflow = true
		}
	}
	// The submission is the Writer's once the lock is free, so what was not accepted is settled under it; the caller's
	// function is not called there.
	if lost > 0 {
		t.err = ErrQueueFull
		t.unsettled -= lost
	}
	none := t.unsettled == 0
	w.mu.Unlock()
	switch {
	case inline && lost == 0:
		return w.writeInline
	case inline:
		w.writing.Unlock()
	}
	mailbox.Signal(w.wake)
	if none {
		done(ErrQueueFull)
	}
	return nothing
}

// writeInline writes what waits, once, and lets the Writer's goroutine mend what does not work. The right to write
// is held.
func (w *Writer) writeInline() {
	defer w.writing.Unlock()
	b := w.takePending()
	err := w.fw.Apply(b.changes)
	if err == nil || isPermanent(err) {
		w.settleAll(b.changes, b.waiters, err)
		return
	}
	w.cfg.Log.Warn("the kernel did not take a change, it is tried again", "changes", b.len(), hint.Attr(err))
	w.mu.Lock()
	w.pending.putBack(&b)
	w.mu.Unlock()
	mailbox.Signal(w.wake)
}

// Apply is Submit that waits for the kernel's commit. When ctx ends first the change still is in the queue.
func (w *Writer) Apply(ctx context.Context, changes []Change) error {
	result := make(chan error, 1)
	w.Submit(changes, func(err error) { result <- err })()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		if err := w.Err(); err != nil {
			return fmt.Errorf("firewall: the kernel has not taken the change yet (%w): %w", ctx.Err(), err)
		}
		return fmt.Errorf("firewall: the kernel has not taken the change yet: %w", ctx.Err())
	}
}

// Pending returns how many prefixes wait for the kernel.
func (w *Writer) Pending() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pending.len()
}

// Err returns why the table is not being kept at the moment, nil if it is.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *Writer) setErr(err error) {
	w.mu.Lock()
	w.err = err
	w.mu.Unlock()
}

// Run builds the table, then keeps it until ctx ends; what is waiting then is tried once more. The table stays in
// the kernel. Run returns nil; troubles with the kernel are logged and retried, not returned.
func (w *Writer) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer w.drainQueue()
	if fw, ok := w.fw.(rulesetWatcher); ok && w.cfg.VerifyInterval > 0 {
		watching, stop := context.WithCancel(ctx)
		defer stop()
		wg.Go(func() { w.watchRulesets(watching, fw) })
	}
	if !w.buildFirst(ctx) {
		return nil
	}
	if w.cfg.VerifyInterval > 0 { // nobody listened when Found was listed
		w.whileWriting(func() { w.verifyTable(ctx) })
	}
	var tick <-chan time.Time
	if w.cfg.VerifyInterval > 0 {
		t := time.NewTicker(w.cfg.VerifyInterval)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
			w.whileWriting(func() { w.flushQueue(ctx) })
		case <-w.changed:
			w.whileWriting(func() { w.verifyTable(ctx) })
		case <-tick:
			w.whileWriting(func() { w.verifyTable(ctx) })
		}
	}
}

func (w *Writer) whileWriting(f func()) {
	w.writing.Lock()
	defer w.writing.Unlock()
	f()
}

// buildFirst builds the table.
func (w *Writer) buildFirst(ctx context.Context) bool {
	w.writing.Lock()
	defer w.writing.Unlock()
	ok := w.rebuildTable(ctx, "")
	w.mu.Lock()
	w.built = ok
	w.mu.Unlock()
	return ok
}

// watchRulesets passes on what the kernel says about others' changes.
func (w *Writer) watchRulesets(ctx context.Context, fw rulesetWatcher) {
	for {
		err := fw.WatchRulesets(ctx, func() { mailbox.Signal(w.changed) })
		if ctx.Err() != nil {
			return
		}
		w.cfg.Log.Warn("changes of the ruleset are found by polling only for now", hint.Attr(err))
		if !sleep(ctx, backoffMax) {
			return
		}
	}
}

// drainQueue tries what is left once and refuses what comes later.
func (w *Writer) drainQueue() {
	w.writing.Lock()
	defer w.writing.Unlock()
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	b := w.takePending()
	if b.len() == 0 {
		return
	}
	w.settleAll(b.changes, b.waiters, w.fw.Apply(b.changes))
}

// takePending swaps the queue for an empty one.
func (w *Writer) takePending() queue {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.pending
	w.pending = queue{}
	return b
}

// flushQueue writes all that waits.
func (w *Writer) flushQueue(ctx context.Context) {
	b := w.takePending()
	if changes := b.changes; len(changes) > 0 {
		for try := 0; ; try++ {
			err := w.fw.Apply(changes)
			if err == nil || isPermanent(err) {
				w.settleAll(changes, b.waiters, err)
				break
			}
			w.setErr(err)
			w.cfg.Log.Warn("the kernel did not take a change, the table is built again", "changes", len(changes),
				hint.Attr(err))
			if try > 0 && !sleep(ctx, backoffMin<<try) || !w.rebuildTable(ctx, CauseError) {
				w.settleAll(changes, b.waiters, fmt.Errorf("%w: %w", ErrClosed, err))
				return
			}
			if try == maxTries {
				w.writeSingly(ctx, b)
				break
			}
		}
	}
	w.mu.Lock()
	overflow := w.overflow && w.pending.len() == 0
	w.overflow = w.overflow && !overflow
	w.mu.Unlock()
	if overflow {
		w.cfg.Log.Warn("more changes came than the queue holds, they are made up for now", "max_pending",
			w.cfg.MaxPending)
		w.rebuildTable(ctx, CauseOverflow)
	}
}

// writeSingly writes one change at a time, so that one which the kernel never takes does not hold up the others.
func (w *Writer) writeSingly(ctx context.Context, b queue) {
	for i := range b.changes {
		one := b.changes[i : i+1]
		err := w.fw.Apply(one)
		w.settleAll(one, b.waiters[i:i+1], err)
		if err != nil && !isPermanent(err) {
			w.cfg.Log.Error("the kernel does not take a change, it is given up", "change", one[0].String(),
				hint.Attr(err))
			w.rebuildTable(ctx, CauseError)
		}
	}
}

// isPermanent reports an error that a new try would not mend.
func isPermanent(err error) bool {
	return errors.Is(err, ErrFull) || errors.Is(err, ErrChange) || errors.Is(err, ErrTimeout)
}

// settleAll tells everybody who waits. A full set is the trouble only of those whose prefixes found no room.
func (w *Writer) settleAll(changes []Change, waits [][]*submission, err error) {
	var refused map[target]bool
	if errors.Is(err, ErrFull) {
		refused = w.refusedTargets(err)
	}
	for i := range changes {
		e := err
		if c := &changes[i]; refused != nil && (c.Remove || !refused[c.target()]) {
			e = nil
		}
		for _, t := range waits[i] {
			t.settleOne(e)
		}
	}
}

// refusedTargets collects what found no room and says so now and then.
func (w *Writer) refusedTargets(err error) map[target]bool {
	set := make(map[target]bool)
	for _, f := range fullErrors(err) {
		for _, t := range f.targets {
			set[t] = true
		}
		if f.targets == nil { // another Firewall's
			for _, p := range f.Refused {
				set[target{kind: Ban, prefix: p}] = true
			}
		}
	}
	if now := time.Now(); now.Sub(w.fullLogged) > fullQuiet {
		w.fullLogged = now
		w.cfg.Log.Error("changes found no room in the kernel", "refused", len(set), hint.Attr(err))
	}
	return set
}

func fullErrors(err error) []*FullError {
	if f, ok := err.(*FullError); ok {
		return []*FullError{f}
	}
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		var list []*FullError
		for _, e := range j.Unwrap() {
			list = append(list, fullErrors(e)...)
		}
		return list
	}
	return nil
}

// rebuildTable ensures the table and puts everything desired into it, again and again until it works; false means that
// ctx ended first. An empty cause takes what EnsureTable found.
func (w *Writer) rebuildTable(ctx context.Context, cause string) bool {
	start := time.Now()
	for wait := backoffMin; ; wait = min(2*wait, backoffMax) {
		outcome, n, err := w.tryRebuild()
		if err == nil {
			w.setErr(nil)
			if cause == "" {
				cause = string(outcome)
			}
			w.cfg.Rebuilt(cause)
			w.cfg.Log.Info("the kernel's table is in place", "cause", cause, "found", string(outcome),
				"elements", n, "took", time.Since(start).Round(time.Microsecond))
			return true
		}
		w.setErr(err)
		w.cfg.Log.Error("the kernel's table could not be built, bans are not enforced", "retry_in", wait,
			hint.Attr(err))
		if !sleep(ctx, wait) {
			return false
		}
	}
}

func (w *Writer) tryRebuild() (Outcome, int, error) {
	found := w.cfg.Found
	w.cfg.Found = nil // true of the first attempt alone: a second one may adopt what the first has made
	outcome, err := w.fw.EnsureTable()
	if err != nil {
		return "", 0, err
	}
	list := w.validDesired(time.Now())
	if outcome == Adopted {
		markAlreadyThere(list, found, w.cfg.FoundAt)
	}
	err = w.fw.Apply(list)
	if errors.Is(err, ErrFull) {
		w.refusedTargets(err)
		err = nil
	}
	return outcome, len(list), err
}

// markAlreadyThere marks the changes that the kernel has already.
func markAlreadyThere(list []Change, found []Element, at time.Time) {
	if len(found) == 0 {
		return
	}
	ends := make(map[target]time.Time, len(found))
	for _, e := range found {
		if e.Remaining > 0 {
			ends[e.target()] = at.Add(e.Remaining)
		}
	}
	for i := range list {
		c := &list[i]
		end, ok := ends[c.target()]
		c.alreadyThere = ok && (c.Kind == Ban || c.Kind == Cut || c.Kind == Good) && !c.until.IsZero() &&
			c.until.Sub(end).Abs() < endTolerance
	}
}

// validDesired is what is desired, without what is over or makes no sense.
func (w *Writer) validDesired(now time.Time) []Change {
	list := w.desired()
	kept := make([]Change, 0, len(list))
	for _, c := range list {
		if c.Remove || c.Timeout < 0 || c.Timeout == 0 && c.Kind != Allow {
			continue
		}
		if c.fixEnd(now); c.Timeout > 0 {
			c.Timeout = max(c.Timeout, MinTimeout)
		}
		if err := c.normalize(); err != nil {
			w.cfg.Log.Error("something desired cannot be done", hint.Attr(err))
			continue
		}
		kept = append(kept, c)
	}
	return kept
}

func (w *Writer) verifyTable(ctx context.Context) {
	var now verification
	if fw, ok := w.fw.(generationReader); ok {
		if g, err := fw.Generation(); err == nil {
			if w.lastSample.unchanged(g) { // nobody changed anything, and we did not either
				if w.cfg.Sampled != nil {
					w.cfg.Sampled(w.lastSampleSize, w.lastSampleSize)
				}
				return
			}
			now = verification{g, time.Now()}
		}
	}
	w.lastSample = verification{}
	if err := w.fw.VerifyTable(); err != nil {
		w.setErr(err)
		w.cfg.Log.Warn("somebody changed the kernel's table, it is built again", hint.Attr(err))
		w.rebuildTable(ctx, CauseGone)
		return
	}
	if w.cfg.Sample == nil {
		return
	}
	looked := 0
	var missing []Change
	for _, c := range w.cfg.Sample(sampleSize) {
		// What waits is not there yet, what ends soon may be gone already.
		if c.Remove || c.Timeout != 0 && c.Timeout < 2*MinTimeout || w.isPending(c) {
			continue
		}
		looked++
		missing = append(missing, c)
	}
	missing, err := w.notInKernel(missing)
	// A change may be known to the sample a moment before it is handed over.
	if err == nil && len(missing) > 0 && sleep(ctx, backoffMin) {
		missing, err = w.notInKernel(missing)
	}
	if err != nil {
		w.cfg.Log.Warn("elements could not be looked up", hint.Attr(err))
		return
	}
	found := looked - len(missing)
	if w.cfg.Sampled != nil {
		w.cfg.Sampled(looked, found)
	}
	if found == looked {
		w.lastSample, w.lastSampleSize = now, looked
	}
	// In a full set some are always missing.
	if found < looked && time.Since(w.fullLogged) > fullQuiet {
		cause := CauseElements
		if w.fw.VerifyTable() != nil { // it went while we looked
			cause = CauseGone
		}
		w.cfg.Log.Warn("elements are missing in the kernel, they are put back", "cause", cause, "looked", looked,
			"found",
			found)
		w.rebuildTable(ctx, cause)
	}
}

// notInKernel returns the changes that are neither in the kernel nor in the queue.
func (w *Writer) notInKernel(list []Change) ([]Change, error) {
	var missing []Change
	for _, c := range list {
		_, ok, err := w.fw.LookUp(c)
		if err != nil {
			return nil, err
		}
		if !ok && !w.isPending(c) {
			missing = append(missing, c)
		}
	}
	return missing, nil
}

func (w *Writer) isPending(c Change) bool {
	var err error
	if c.Prefix, c.Flow, err = normalizeTarget(c.Kind, c.Prefix, c.Flow); err != nil {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pending.has(c.target())
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
