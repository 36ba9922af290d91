package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/lists"
)

// Keeper keeps lists: it fetches each in its time, and has the last good copy of each.
type Keeper struct {
	dir     string
	log     *slog.Logger
	changed func()
	fetcher *fetcher

	mu    sync.Mutex
	kept  []*kept
	ctx   context.Context // of Run while it runs, else nil
	tasks sync.WaitGroup  // that fetch
}

// kept is one list.
type kept struct {
	Source
	ask    chan request
	cancel context.CancelFunc // nil: it does not run yet
	ended  chan struct{}      // closed when it is fetched no more

	mu      sync.Mutex
	copy    *Copy // nil before the first
	tried   time.Time
	next    time.Time
	err     error // of the last try
	failing int   // tries in a row
	missing bool  // the copy could not be written
}

type request struct {
	accept bool
	done   chan<- error
}

// Bounds of the time between two tries.
const (
	retryFirst = time.Minute
	retryMost  = time.Hour
	startDelay = 15 * time.Second
	// clockCheck is how often it is looked whether the time has come: a machine without a battery for its clock starts
	// with the hour of its end, until somebody tells it the time.
	clockCheck = time.Minute
)

// NewKeeper reads the copies that are on the disk. changed is called after each list that has become another; it must
// not wait.
func NewKeeper(sources []Source, dir string, log *slog.Logger, changed func()) *Keeper {
	return newKeeper(sources, dir, log, changed, newFetcher())
}

func newKeeper(sources []Source, dir string, log *slog.Logger, changed func(), f *fetcher) *Keeper {
	k := &Keeper{dir: dir, log: log, changed: changed, fetcher: f}
	for _, s := range sources {
		k.kept = append(k.kept, k.newKept(s, nil))
	}
	return k
}

// newKept is a list with its copy: that of one whose place it takes, where that is the same list, else the disk's.
func (k *Keeper) newKept(s Source, before *kept) *kept {
	l := &kept{Source: s, ask: make(chan request), ended: make(chan struct{})}
	if before != nil && before.identity() == s.identity() && before.MaxPrefix == s.MaxPrefix {
		l.copy = before.copy
	}
	if l.copy == nil {
		var err error
		if l.copy, err = load(k.dir, &s); err != nil {
			k.log.Warn("the kept copy of a list is not used, it is fetched anew", "list", s.Name, hint.Attr(err))
		}
	}
	switch now := k.fetcher.now(); {
	case l.copy == nil:
	case l.copy.Fetched.After(now): // the clock was wrong, so that nobody knows when: it is fetched soon
		l.copy = l.copy.again(now)
	default:
		l.next = l.copy.Fetched.Add(s.Refresh)
	}
	return l
}

// Run fetches until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	k.mu.Lock()
	k.ctx = ctx
	for _, l := range k.kept {
		k.launchLocked(l)
	}
	k.mu.Unlock()
	<-ctx.Done()
	k.mu.Lock()
	k.ctx = nil
	k.mu.Unlock()
	k.tasks.Wait()
	return nil
}

// launchLocked begins to fetch a list.
func (k *Keeper) launchLocked(l *kept) {
	ctx, cancel := context.WithCancel(k.ctx)
	l.cancel = cancel
	k.tasks.Go(func() {
		defer close(l.ended)
		defer cancel()
		k.keep(ctx, l)
	})
}

// Configure keeps other lists. Those that did not change go on, and one of which the address is the same has its copy.
// It is not for two goroutines at once.
func (k *Keeper) Configure(sources []Source) {
	next := make([]*kept, len(sources))
	old := make(map[string]*kept)
	k.mu.Lock()
	for _, l := range k.kept {
		if i := slices.Index(sources, l.Source); i >= 0 {
			next[i] = l
			continue
		}
		old[l.Name] = l
		if l.cancel != nil {
			l.cancel()
		}
	}
	k.mu.Unlock()
	for _, l := range old { // what it last fetched must not come to the disk behind what its successor does
		if l.cancel != nil {
			<-l.ended
		}
	}
	for i, s := range sources {
		if next[i] == nil {
			next[i] = k.newKept(s, old[s.Name])
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept = next
	for _, l := range next {
		if l.cancel == nil && k.ctx != nil {
			k.launchLocked(l)
		}
	}
}

// all returns the lists that are kept, in their order.
func (k *Keeper) all() []*kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.kept
}

func (k *Keeper) keep(ctx context.Context, l *kept) {
	l.mu.Lock()
	// Not all machines of a fleet at once, nor a daemon that starts again and again.
	if soonest := k.fetcher.now().Add(rand.N(startDelay)); l.copy != nil && l.next.Before(soonest) {
		l.next = soonest
	}
	l.mu.Unlock()
	for {
		l.mu.Lock()
		wait := l.next.Sub(k.fetcher.now())
		l.mu.Unlock()
		if wait > 2*max(l.Refresh, maxRetryAfter) { // the clock was set back
			wait = 0
		}
		timer := time.NewTimer(max(0, min(wait, clockCheck)))
		r := request{}
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case r = <-l.ask:
			timer.Stop()
		case <-timer.C:
			if wait > clockCheck {
				continue
			}
		}
		err := k.refresh(ctx, l, r.accept)
		if r.done != nil {
			r.done <- err
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// refresh fetches a list once.
func (k *Keeper) refresh(ctx context.Context, l *kept, accept bool) error {
	l.mu.Lock()
	last := l.copy
	l.mu.Unlock()
	got, err := k.fetcher.get(ctx, &l.Source, last, accept, func(c *Copy) { k.take(l, c) })
	if ctx.Err() != nil {
		if got != nil {
			k.take(l, got)
		}
		return ctx.Err()
	}
	if got != nil {
		k.take(l, got)
	}
	now := k.fetcher.now()
	l.mu.Lock()
	l.tried = now
	told := l.err == nil || err == nil || l.err.Error() != err.Error()
	l.err = err
	if err == nil {
		l.failing = 0
		l.next = now.Add(jittered(l.Refresh))
	} else {
		l.failing++
		l.next = now.Add(l.pauseAfter(err))
	}
	n := 0
	if l.copy != nil {
		n = len(l.copy.Entries)
	}
	next := l.next
	l.mu.Unlock()
	switch {
	case err != nil && told:
		k.log.Warn("a list could not be taken over, the last good one stays", "list", l.Name, "entries", n, "retry",
			next.UTC().Format(time.RFC3339), hint.Attr(err))
	case err == nil && told && last == nil:
		k.log.Info("a list was fetched", "list", l.Name, "entries", n)
	}
	return err
}

// pauseAfter is when to try again after an error: a list that is held back is looked at as often as ever, since what is
// there next may be good.
func (l *kept) pauseAfter(err error) time.Duration {
	pause := min(retryFirst<<min(l.failing-1, 10), retryMost, l.Refresh)
	if _, held := errors.AsType[*lists.ErrHeld](err); held {
		pause = l.Refresh
	}
	if retry, ok := errors.AsType[*retryError](err); ok {
		pause = max(pause, retry.after)
	}
	return jittered(pause)
}

// jittered is a time, and up to a tenth of it more.
func jittered(d time.Duration) time.Duration { return d + rand.N(d/10+1) }

// take makes a copy the one that counts.
func (k *Keeper) take(l *kept, c *Copy) {
	l.mu.Lock()
	before := l.copy
	l.copy = c
	l.mu.Unlock()
	// What is not on the disk is fetched again after a restart.
	err := c.save(k.dir, l.Name)
	l.mu.Lock()
	told := (err != nil) != l.missing
	l.missing = err != nil
	l.mu.Unlock()
	if err != nil && told {
		k.log.Error("a list cannot be kept on the disk, after a restart it is missing until it was fetched",
			"list", l.Name, hint.Attr(err))
	}
	if before == nil || !before.Changed.Equal(c.Changed) {
		k.changed()
	}
}

// ErrUnknown is a list that the configuration does not have.
var ErrUnknown = errors.New("there is no such list")

// errReplaced is a list that is no longer fetched as it was.
var errReplaced = errors.New("the configuration was read again meanwhile, or the daemon ends")

// Refresh fetches a list now, and waits for it. accept takes it though it changed by more than a list does.
func (k *Keeper) Refresh(ctx context.Context, name string, accept bool) error {
	for _, l := range k.all() {
		if l.Name != name {
			continue
		}
		done := make(chan error, 1)
		select {
		case l.ask <- request{accept, done}:
		case <-l.ended:
			return errReplaced
		case <-ctx.Done():
			return fmt.Errorf("list %s is being fetched: %w", name, ctx.Err())
		}
		select {
		case err := <-done:
			if errors.Is(err, context.Canceled) && ctx.Err() == nil {
				return errReplaced
			}
			return err
		case <-ctx.Done():
			return fmt.Errorf("list %s is being fetched: %w", name, ctx.Err())
		}
	}
	return fmt.Errorf("%w: %s", ErrUnknown, name)
}

// State is what is known of a list.
type State struct {
	Source
	Entries int
	Fetched time.Time // zero: never
	Changed time.Time
	Tried   time.Time
	Next    time.Time
	Err     error // of the last try
	Held    bool  // the last try brought one that changed by more than a list does
	Over    bool  // it could not be fetched for so long that it no longer counts
	Credit  string
	Bad     int
	Sample  string // of the bad lines
	LeftOut lists.LeftOut
}

// States are those of all lists, in their order.
func (k *Keeper) States() []State {
	kept := k.all()
	all := make([]State, len(kept))
	now := k.fetcher.now()
	for i, l := range kept {
		l.mu.Lock()
		s := State{Source: l.Source, Tried: l.tried, Next: l.next, Err: l.err}
		_, s.Held = errors.AsType[*lists.ErrHeld](l.err)
		if c := l.copy; c != nil {
			s.Entries, s.Fetched, s.Changed = len(c.Entries), c.Fetched, c.Changed
			s.Credit, s.Bad, s.Sample, s.LeftOut = c.Credit, c.Bad, c.Sample, c.LeftOut
			s.Over = l.isOver(now)
		}
		l.mu.Unlock()
		all[i] = s
	}
	return all
}

// isOver reports whether the copy is older than the list's TTL. Addresses of APIBAN's have their own ends.
func (l *kept) isOver(now time.Time) bool {
	return l.Format != lists.APIBAN && now.Sub(l.copy.Fetched) > l.TTL
}

// Lists are all lists as they count now, in their order.
func (k *Keeper) Lists() []lists.List {
	kept := k.all()
	all := make([]lists.List, len(kept))
	now := k.fetcher.now()
	for i, l := range kept {
		l.mu.Lock()
		all[i] = lists.List{Name: l.Name, Enforce: l.Enforce}
		if l.copy != nil && !l.isOver(now) {
			all[i].Entries = l.copy.Entries
		}
		l.mu.Unlock()
	}
	return all
}

// Naming is a list that names an address.
type Naming struct {
	Name    string
	Enforce bool
	Prefix  netip.Prefix
}

// Naming returns the lists that name an address.
func (k *Keeper) Naming(a netip.Addr) []Naming {
	var all []Naming
	now := k.fetcher.now()
	for _, l := range k.Lists() {
		if p, ok := lists.Holding(l.Entries, a, now); ok {
			all = append(all, Naming{l.Name, l.Enforce, p})
		}
	}
	return all
}
