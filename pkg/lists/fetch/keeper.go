package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
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
	kept    []*kept
}

// kept is one list.
type kept struct {
	Source
	ask chan request

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
)

// NewKeeper reads the copies that are on the disk. changed is called after each list that has become another; it must
// not wait.
func NewKeeper(sources []Source, dir string, log *slog.Logger, changed func()) *Keeper {
	k := &Keeper{dir: dir, log: log, changed: changed, fetcher: newFetcher()}
	for _, s := range sources {
		l := &kept{Source: s, ask: make(chan request)}
		c, err := load(dir, &s)
		if err != nil {
			log.Warn("the kept copy of a list is not used, it is fetched anew", "list", s.Name, hint.Attr(err))
		}
		l.copy = c
		if c != nil {
			l.next = c.Fetched.Add(s.Refresh)
		}
		k.kept = append(k.kept, l)
	}
	return k
}

// Run fetches until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, l := range k.kept {
		wg.Go(func() { k.keep(ctx, l) })
	}
	wg.Wait()
	return nil
}

func (k *Keeper) keep(ctx context.Context, l *kept) {
	l.mu.Lock()
	// Not all machines of a fleet at once, nor a daemon that starts again and again.
	if soonest := time.Now().Add(rand.N(startDelay)); l.copy != nil && l.next.Before(soonest) {
		l.next = soonest
	}
	l.mu.Unlock()
	for {
		l.mu.Lock()
		wait := time.Until(l.next)
		l.mu.Unlock()
		timer := time.NewTimer(max(0, wait))
		r := request{}
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case r = <-l.ask:
			timer.Stop()
		case <-timer.C:
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

// Refresh fetches a list now, and waits for it. accept takes it though it changed by more than a list does.
func (k *Keeper) Refresh(ctx context.Context, name string, accept bool) error {
	for _, l := range k.kept {
		if l.Name != name {
			continue
		}
		done := make(chan error, 1)
		select {
		case l.ask <- request{accept, done}:
		case <-ctx.Done():
			return fmt.Errorf("list %s is being fetched: %w", name, ctx.Err())
		}
		select {
		case err := <-done:
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
	all := make([]State, len(k.kept))
	now := k.fetcher.now()
	for i, l := range k.kept {
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
	all := make([]lists.List, len(k.kept))
	now := k.fetcher.now()
	for i, l := range k.kept {
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
