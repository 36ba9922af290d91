package hosts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// MinInterval is the shortest time between two look-ups of one name, but for the first ones: a name that no answer has
// come for since the start is asked for after FirstRetry, and then after twice as long each time. At the start of a
// machine the network comes up within seconds.
const (
	MinInterval = time.Minute
	FirstRetry  = time.Second
)

// What an error of a name can be about; test with errors.Is.
var (
	ErrNotFound = errors.New("no such name")
	ErrNoAddrs  = errors.New("the name has no usable address")
	ErrTooMany  = errors.New("too many")
	ErrBadName  = errors.New("not a host name")
)

// Config describes a Resolver. The zero value of everything means the default.
type Config struct {
	Lookup Lookup // nil: LookupHost of Go's resolver

	// Interval is the time between two look-ups of a name: 5 minutes, at least MinInterval, varied by a tenth so that
	// many names do not ask at once. Go's resolver does not tell a record's TTL. A name that fails is asked again after
	// MinInterval, or sooner where it has never been found.
	Interval time.Duration
	Timeout  time.Duration // of one look-up: 5 s
	// Linger is how long an address stays after the last answer that held it. 0 takes it away at once, which suits a
	// home with a changing address; a provider whose name yields now this, now that server needs longer.
	Linger   time.Duration
	MaxAddrs int // of one name: 64
	MaxNames int // 1,000

	// OnChange gets each change of a name's addresses, sorted, as single-address prefixes. A name that is taken off the
	// list loses all of them.
	OnChange func(name string, added, removed []netip.Prefix)
	// OnError is called when a name begins to fail, fails for another kind of reason, or works again (nil).
	// Addresses known before stay.
	OnError func(name string, err error)

	Log *slog.Logger // nil: none
}

// A Resolver looks host names up as long as it runs. Its callbacks come one at a time from the goroutine of Run.
type Resolver struct {
	cfg  Config
	wake chan struct{}

	mu     sync.Mutex
	wanted []string
	names  map[string]*hostState // only Run changes the map and its entries
}

type hostState struct {
	lastSeen   map[netip.Addr]time.Time // when an answer held it last
	sorted     []netip.Prefix
	nextLookup time.Time
	lastAnswer time.Time // when the last good answer came
	err        error
	truncated  bool
	confirmed  bool          // an answer has come since the start
	retryPause time.Duration // until the next look-up, where none has
}

// A State is what is known about one name.
type State struct {
	Name      string
	Prefixes  []netip.Prefix
	Resolved  time.Time // of the last good answer; zero: never
	Confirmed bool      // an answer has come since the start; else the addresses, if any, are those of Remember
	Err       error     // why the last look-up failed, or nil
}

// NewResolver returns a Resolver that does nothing until Run.
func NewResolver(cfg Config) *Resolver {
	if cfg.Lookup == nil {
		cfg.Lookup = LookupHost(net.DefaultResolver)
	}
	if cfg.Interval <= 0 {
		cfg.Interval = 5 * time.Minute
	}
	cfg.Interval = max(cfg.Interval, MinInterval)
	if cfg.Timeout <= 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.MaxAddrs <= 0 {
		cfg.MaxAddrs = 64
	}
	if cfg.MaxNames <= 0 {
		cfg.MaxNames = 1000
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Resolver{cfg: cfg, wake: make(chan struct{}, 1), names: make(map[string]*hostState)}
}

// String names the task.
func (r *Resolver) String() string { return "hosts" }

// Set replaces the list of names. New ones are looked up at once, those that stay keep their addresses and their time.
// The error names entries that are no host names (ErrBadName) or beyond MaxNames (ErrTooMany); all others count.
func (r *Resolver) Set(names []string) error {
	var errs []error
	wanted := make([]string, 0, len(names))
	for _, n := range names {
		if good, ok := NormalizeName(n); ok {
			wanted = append(wanted, good)
		} else {
			errs = append(errs, fmt.Errorf("hosts: %q: %w", n, ErrBadName))
		}
	}
	slices.Sort(wanted)
	wanted = slices.Compact(wanted)
	if len(wanted) > r.cfg.MaxNames {
		errs = append(errs, fmt.Errorf("hosts: %w names: %d, at most %d are looked up", ErrTooMany, len(wanted),
			r.cfg.MaxNames))
		wanted = wanted[:r.cfg.MaxNames]
	}
	r.mu.Lock()
	r.wanted = wanted
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return errors.Join(errs...)
}

// Remember gives a name the addresses that it had before a restart; they stay until an answer comes. It is to be called
// before Run, and the name to be among those of Set: OnChange is not told.
func (r *Resolver) Remember(name string, addrs []netip.Addr, resolved time.Time) {
	name, ok := NormalizeName(name)
	if !ok {
		return
	}
	h := &hostState{lastSeen: make(map[netip.Addr]time.Time), lastAnswer: resolved}
	for _, a := range addrs {
		if a = a.Unmap(); a.Zone() == "" && isUsable(a) && len(h.lastSeen) < r.cfg.MaxAddrs {
			h.lastSeen[a] = resolved
		}
	}
	h.sortAddresses()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names[name] = h
}

// Prefixes returns the addresses of a name, sorted.
func (r *Resolver) Prefixes(name string) []netip.Prefix {
	name, _ = NormalizeName(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.names[name]; h != nil {
		return slices.Clone(h.sorted)
	}
	return nil
}

// States returns what is known about every name, sorted.
func (r *Resolver) States() []State {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]State, 0, len(r.names))
	for name, h := range r.names {
		out = append(out, State{Name: name, Prefixes: slices.Clone(h.sorted), Resolved: h.lastAnswer,
			Confirmed: h.confirmed,
			Err:       h.err})
	}
	slices.SortFunc(out, func(a, b State) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Run looks names up until ctx ends, and returns nil then.
func (r *Resolver) Run(ctx context.Context) error {
	for {
		due, next := r.takeOverNames(time.Now())
		if len(due) > 0 {
			r.resolveNames(ctx, due)
			if ctx.Err() != nil {
				return nil
			}
			continue
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-r.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// takeOverNames makes the names of Set those that are looked up. It returns those whose look-up is due, and when the
// next one will be.
func (r *Resolver) takeOverNames(now time.Time) (due []string, next time.Time) {
	type loss struct {
		name    string
		removed []netip.Prefix
	}
	var losses []loss
	next = now.Add(r.cfg.Interval)
	r.mu.Lock()
	for name, h := range r.names {
		if _, ok := slices.BinarySearch(r.wanted, name); !ok {
			losses = append(losses, loss{name, h.sorted})
			delete(r.names, name)
		}
	}
	for _, name := range r.wanted {
		h := r.names[name]
		if h == nil {
			h = &hostState{lastSeen: make(map[netip.Addr]time.Time), nextLookup: now}
			r.names[name] = h
		}
		if !h.nextLookup.After(now) {
			due = append(due, name)
		} else if h.nextLookup.Before(next) {
			next = h.nextLookup
		}
	}
	r.mu.Unlock()
	slices.SortFunc(losses, func(a, b loss) int { return strings.Compare(a.name, b.name) })
	for _, l := range losses {
		r.reportChange(l.name, nil, l.removed)
	}
	return due, next
}

// resolveNames looks names up, a few at a time, and applies the answers.
func (r *Resolver) resolveNames(ctx context.Context, names []string) {
	type answer struct {
		addrs []netip.Addr
		err   error
	}
	answers := make([]answer, len(names))
	slots := make(chan struct{}, 16)
	var wg sync.WaitGroup
	for i, name := range names {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
			defer cancel()
			answers[i].addrs, answers[i].err = r.cfg.Lookup(ctx, name)
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return
	}
	for i, name := range names {
		r.applyAnswer(name, answers[i].addrs, answers[i].err, time.Now())
	}
}

// applyAnswer takes one answer over.
func (r *Resolver) applyAnswer(name string, addrs []netip.Addr, err error, now time.Time) {
	var good []netip.Addr
	for _, a := range addrs {
		if a = a.Unmap(); a.Zone() == "" && isUsable(a) {
			good = append(good, a)
		}
	}
	slices.SortFunc(good, netip.Addr.Compare)
	good = slices.Compact(good)
	switch {
	case err == nil && len(good) == 0:
		err = ErrNoAddrs
	case isNotFound(err):
		err = fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	r.mu.Lock()
	h := r.names[name]
	before, old := h.sorted, h.err
	var cut error
	if err == nil {
		h.lastAnswer, h.nextLookup, h.confirmed = now, now.Add(withJitter(r.cfg.Interval)), true
		cut = h.mergeAnswer(good, now, r.cfg)
	} else {
		h.nextLookup = now.Add(h.retryDelay())
		if err = fmt.Errorf("hosts: %q: %w", name, err); errorKind(err) == errorKind(old) {
			err = old // the same, but for a port number
		}
	}
	h.err = err
	reportCut := cut != nil && !h.truncated
	h.truncated = cut != nil
	after := h.sorted
	r.mu.Unlock()

	added, removed := diffPrefixes(before, after)
	r.reportChange(name, added, removed)
	if errorKind(err) != errorKind(old) {
		r.reportFailure(name, err)
	}
	if reportCut {
		r.reportFailure(name, fmt.Errorf("hosts: %q: %w", name, cut))
	}
}

// mergeAnswer makes the answer, and what lingers of those before, the name's addresses. Addresses that are known come
// first where there are too many, so that a name with more of them than fit does not change all the time.
func (h *hostState) mergeAnswer(good []netip.Addr, now time.Time, cfg Config) error {
	known := maps.Clone(h.lastSeen)
	for a, seen := range h.lastSeen {
		if now.Sub(seen) >= cfg.Linger {
			delete(h.lastSeen, a)
		}
	}
	for _, fresh := range []bool{false, true} {
		for _, a := range good {
			if _, ok := known[a]; ok == fresh {
				continue
			}
			if _, ok := h.lastSeen[a]; ok || len(h.lastSeen) < cfg.MaxAddrs {
				h.lastSeen[a] = now
			}
		}
	}
	var err error
	for _, a := range good {
		if _, ok := h.lastSeen[a]; !ok {
			err = fmt.Errorf("%w addresses: %d of them in one answer, %d are used", ErrTooMany, len(good), cfg.MaxAddrs)
			break
		}
	}
	h.sortAddresses()
	return err
}

// sortAddresses makes the list of the addresses.
func (h *hostState) sortAddresses() {
	h.sorted = make([]netip.Prefix, 0, len(h.lastSeen))
	for _, a := range slices.SortedFunc(maps.Keys(h.lastSeen), netip.Addr.Compare) {
		h.sorted = append(h.sorted, netip.PrefixFrom(a, a.BitLen()))
	}
}

// retryDelay returns the time until the next look-up of a name that has just failed.
func (h *hostState) retryDelay() time.Duration {
	if h.confirmed || h.retryPause >= MinInterval {
		return withJitter(MinInterval)
	}
	h.retryPause = max(FirstRetry, 2*h.retryPause)
	return min(h.retryPause, MinInterval)
}

func (r *Resolver) reportChange(name string, added, removed []netip.Prefix) {
	if len(added)+len(removed) == 0 {
		return
	}
	r.cfg.Log.Info("addresses of a host name", "name", name, "added", added, "removed", removed)
	if r.cfg.OnChange != nil {
		r.cfg.OnChange(name, added, removed)
	}
}

func (r *Resolver) reportFailure(name string, err error) {
	if err != nil {
		r.cfg.Log.Warn("host name", "name", name, "error", err)
	} else {
		r.cfg.Log.Info("host name is found again", "name", name)
	}
	if r.cfg.OnError != nil {
		r.cfg.OnError(name, err)
	}
}

// errorKind sorts errors, whose texts hold changing port numbers.
func errorKind(err error) string {
	dns, _ := errors.AsType[*net.DNSError](err)
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrNoAddrs):
		return "empty"
	case errors.Is(err, ErrNotFound):
		return "not found"
	case errors.Is(err, context.DeadlineExceeded), dns != nil && dns.IsTimeout:
		return "timeout"
	}
	return "other"
}

// diffPrefixes compares two sorted lists.
func diffPrefixes(before, after []netip.Prefix) (added, removed []netip.Prefix) {
	for _, p := range after {
		if !slices.Contains(before, p) {
			added = append(added, p)
		}
	}
	for _, p := range before {
		if !slices.Contains(after, p) {
			removed = append(removed, p)
		}
	}
	return added, removed
}

// withJitter varies a time by a tenth, and never below MinInterval.
func withJitter(d time.Duration) time.Duration {
	return max(d*9/10+rand.N(d/5+1), MinInterval)
}
