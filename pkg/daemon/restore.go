package daemon

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/store"
)

const (
	// startPatience is how long the start waits for the bans of before. With more of them than that, they come back while
	// events are judged already: an attacker who comes first of all does not get in meanwhile.
	startPatience = 300 * time.Millisecond

	restoredAhead = 64      // pieces that may wait for the kernel
	maxLifted     = 1 << 16 // bans that end while others are brought back
	maxWithin     = 1000    // of them, prefixes that persons let in
	maxRounds     = 2       // through the kernel's list, where it was changed meanwhile
	maxPause      = 100 * time.Millisecond
	endsSoon      = 2 * time.Second
)

// restorer brings the bans of before back: those that are stored, and then those that only the kernel knows. Bans that
// should not be there it takes out of the kernel.
type restorer struct {
	d *Daemon

	known  chan struct{} // closed when all stored bans are known
	placed chan struct{} // closed when they are in the kernel, too
	done   chan struct{} // closed when the kernel's list has been read, too
	err    error         // once done
	stop   context.CancelFunc

	// Of the goroutine:
	commits chan error
	open    int
	found   []firewall.Element // while the start waits: what the kernel holds
	asked   time.Time
	paused  time.Time // last
	adopted int
}

func newRestorer(d *Daemon) *restorer {
	return &restorer{d: d, known: make(chan struct{}), placed: make(chan struct{}),
		done: make(chan struct{}), commits: make(chan error, restoredAhead)}
}

// begin begins, and returns when all is done or the start has waited for long enough.
func (r *restorer) begin() error {
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() {
		defer close(r.done)
		r.err = r.run(ctx)
	}()
	r.d.closers = append(r.d.closers, func() error {
		cancel()
		<-r.done
		return nil
	})
	patience := time.NewTimer(cmp.Or(r.d.opts.patience, startPatience))
	defer patience.Stop()
	select {
	case <-r.done:
		r.d.writer.Found(r.found, r.asked)
		r.found = nil
		return r.err
	case <-patience.C:
	}
	j := r.d.judge
	j.mu.Lock()
	defer j.mu.Unlock()
	j.late = true
	return nil
}

// String names the task.
func (r *restorer) String() string { return "the bans of before" }

// Run waits for the rest.
func (r *restorer) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		r.stop()
		<-r.done
		return nil
	case <-r.done:
		return r.err
	}
}

// await returns when all stored bans are known: nobody can lift or list what is not.
func (r *restorer) await(ctx context.Context) error {
	select {
	case <-r.known:
		return nil
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *restorer) run(ctx context.Context) error {
	began, j := time.Now(), r.d.judge
	stored := 0
	if r.d.store != nil {
		var kernel error
		err := r.d.store.WalkBans(ctx, j.clock.now(), func(bans []ban.Ban, offenders []ban.Offender) error {
			stored += len(bans)
			kernel = r.submit(ctx, j.restore(bans, offenders))
			return kernel
		})
		switch {
		case kernel != nil:
			return fmt.Errorf("the kernel's firewall: %w", kernel)
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("the state: %w", err)
		case err != nil: // what the kernel holds is adopted
			r.d.log.Error("the bans in the state file cannot be read; what the kernel holds is adopted", "err", err)
		}
	}
	close(r.known)
	if err := r.settle(ctx, 0); err != nil {
		return err
	}
	close(r.placed)
	restored := time.Since(began)
	if err := r.list(ctx); err != nil {
		return fmt.Errorf("the kernel's firewall: %w", err)
	}
	if err := r.settle(ctx, 0); err != nil {
		return err
	}
	j.settled()
	if stored+r.adopted > 0 {
		r.d.log.Info("bans of before stay in force", "bans", stored+r.adopted, "only_in_the_kernel", r.adopted,
			"restored_after", restored.Round(time.Millisecond), "compared_after", time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// submit hands changes to the kernel's writer, not too far ahead of it.
func (r *restorer) submit(ctx context.Context, changes []firewall.Change) error {
	if len(changes) == 0 {
		return nil
	}
	r.open++
	r.d.writer.Submit(changes, func(err error) { r.commits <- err })()
	return r.settle(ctx, restoredAhead-1)
}

// settle waits until no more than some of what was submitted is open. What the kernel refuses the writer logs, and makes up
// for.
func (r *restorer) settle(ctx context.Context, most int) error {
	for r.open > most {
		select {
		case <-r.commits:
			r.open--
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// walker is a firewall with a list that is read while others change it.
type walker interface {
	Walk(ctx context.Context, k firewall.Kind, each func([]firewall.Element) error) (whole bool, err error)
}

// list compares what the kernel has with what is known. While the list is read, bans are made and end, so that it may miss
// some: then once more, and also where it had something that was not known.
func (r *restorer) list(ctx context.Context) error {
	fw, ok := r.d.fw.(walker)
	if !ok {
		list, err := r.d.fw.Elements(firewall.Ban)
		if err != nil {
			return err
		}
		return r.compare(ctx, list)
	}
	for range maxRounds {
		before := r.adopted
		r.found = nil
		whole, err := fw.Walk(ctx, firewall.Ban, func(some []firewall.Element) error { return r.compare(ctx, some) })
		if err != nil || whole && r.adopted == before {
			return err
		}
	}
	return nil
}

// compare takes over a piece of the kernel's list.
func (r *restorer) compare(ctx context.Context, some []firewall.Element) error {
	if r.asked.IsZero() {
		r.asked = time.Now()
	}
	now := time.Now()
	changes, adopted, late := r.d.judge.adopt(some)
	r.adopted += adopted
	if !late { // the writer has not begun
		for _, e := range some {
			e.Remaining += now.Sub(r.asked) // as of then
			r.found = append(r.found, e)
		}
		return cmp.Or(ctx.Err(), r.d.fw.Apply(changes))
	}
	if err := r.submit(ctx, changes); err != nil {
		return err
	}
	// The kernel takes long for each piece of a long list: leave the processor to others half of the time.
	if !r.paused.IsZero() {
		select {
		case <-time.After(min(maxPause, now.Sub(r.paused))):
		case <-ctx.Done():
		}
	}
	r.paused = time.Now()
	return ctx.Err()
}

// lifted is what ended while the bans of before were being brought back: it must not come back from the file or from a list
// that was made a moment earlier.
type lifted struct {
	prefixes map[netip.Prefix]bool
	within   []netip.Prefix // what persons let in
	all      bool
}

func (l *lifted) add(p netip.Prefix) {
	if l.prefixes == nil {
		l.prefixes = make(map[netip.Prefix]bool)
	}
	if l.prefixes[p] = true; len(l.prefixes) > maxLifted {
		l.all, l.prefixes = true, nil // rather let an attacker in than keep a customer out
	}
}

func (l *lifted) has(p netip.Prefix) bool {
	if l.all || l.prefixes[p] {
		return true
	}
	for _, q := range l.within {
		if q.Overlaps(p) {
			return true
		}
	}
	return false
}

// restore gives the engine bans and offenders that were stored. It returns what is to be written to the kernel: nothing
// while the writer has not begun, since that begins with all that is known.
func (j *judge) restore(bans []ban.Ban, offenders []ban.Offender) (changes []firewall.Change) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.clock.now()
	bans = slices.DeleteFunc(bans, func(b ban.Ban) bool { return j.lifted.has(b.Prefix) })
	j.engine.Restore(now, engine.State{Bans: bans, Offenders: offenders}, nil)
	if !j.late {
		return nil
	}
	for i := range bans {
		p := bans[i].Prefix
		if left, ok := j.engine.Left(now, p); ok {
			left = max(left, firewall.MinTimeout)
			changes = append(changes, firewall.Change{Kind: firewall.Ban, Prefix: p, Timeout: left, Known: true})
		}
	}
	return changes
}

// adopt takes over bans that only the kernel knows, and returns what the kernel should not have.
func (j *judge) adopt(list []firewall.Element) (changes []firewall.Change, adopted int, late bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.clock.now()
	var unsaved []store.Change
	for _, el := range list {
		before, known := j.engine.Left(now, el.Prefix)
		switch {
		case known && j.late: // it was written just now
			continue
		case el.Remaining < endsSoon && !known: // the kernel ends it by itself
			continue
		case j.lifted.has(el.Prefix):
			changes = append(changes, firewall.Change{Kind: firewall.Ban, Prefix: el.Prefix, Remove: true})
			continue
		}
		j.engine.Adopt(now, el.Prefix, now.Add(el.Remaining))
		left, ok := j.engine.Left(now, el.Prefix)
		if !ok { // somebody whom nobody bans any more
			changes = append(changes, firewall.Change{Kind: firewall.Ban, Prefix: el.Prefix, Remove: true})
			continue
		}
		if !known {
			adopted++
		}
		// The kernel has a ban at once, the file within a second: after a crash in between, it has only the kernel's word.
		if b, _ := j.engine.BanOf(el.Prefix); j.store != nil && left-before > time.Second {
			unsaved = j.offenderLocked(el.Prefix, append(unsaved, store.PutBan(b)))
		}
	}
	j.save(unsaved)
	return changes, adopted, j.late
}

// settled ends what is only done while the bans of before come back.
func (j *judge) settled() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lifted, j.unsettled = lifted{}, false
}

// letIn makes sure that a person's word counts for bans, too, that only the kernel knows, and returns when those are out
// whose prefixes it can tell.
func (j *judge) letIn(ctx context.Context, within netip.Prefix, source netip.Prefix) error {
	j.mu.Lock()
	if !j.unsettled {
		j.mu.Unlock()
		return nil
	}
	var changes []firewall.Change
	if within.IsValid() && len(j.lifted.within) < maxWithin {
		j.lifted.within = append(j.lifted.within, within)
		for _, p := range []netip.Prefix{within, source} {
			if _, banned := j.engine.Left(j.clock.now(), p); p.IsValid() && !banned {
				changes = append(changes, firewall.Change{Kind: firewall.Ban, Prefix: p, Remove: true})
			}
		}
	} else {
		j.lifted.all = true
	}
	done := make(chan error, 1)
	flush := j.writer.Submit(changes, func(err error) { done <- err })
	j.mu.Unlock()
	flush()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin gives the engine what spares customers, which comes before the first event, and takes out of the kernel what should
// not be there: allowed prefixes of an earlier configuration. In observe mode bans stay, too, as they do after a reload: that
// mode makes none.
func (j *judge) begin(fw firewall.Firewall, stored store.State, pbxs []string) error {
	allowed, err := fw.Elements(firewall.Allow)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.restoreCustomersLocked(stored, pbxs)
	j.exempt = make(map[netip.Prefix]bool)
	for _, el := range allowed {
		j.exempt[el.Prefix] = true
	}
	j.unsettled = true
	return fw.Apply(j.exemptions())
}
