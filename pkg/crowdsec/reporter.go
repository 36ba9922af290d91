package crowdsec

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go4.org/netipx"

	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/mailbox"
	"github.com/ringwall/ringwall/pkg/printable"
)

// Ban is what the LAPI should know.
type Ban struct {
	Prefix   netip.Prefix
	Reason   string
	Since    time.Time
	Until    time.Time
	Attempts int
}

// Allowed is an address or a network of an allow list.
type Allowed struct {
	Prefix netip.Prefix
	List   string
}

// Options say what a Reporter tells, and to whom.
type Options struct {
	Account
	// Bans are those that the LAPI should have.
	Bans func(context.Context) ([]Ban, error)
	// Allow takes what the allow lists hold, each time that they were read.
	Allow func([]Allowed)
	// Fault takes why the LAPI cannot be told, nil when it can.
	Fault func(error)
	Log   *slog.Logger
}

// Status is how a Reporter is.
type Status struct {
	URL         string     `json:"url"`
	Up          bool       `json:"up"`
	LastSuccess *time.Time `json:"last_success,omitempty"`
	Error       string     `json:"error,omitempty"`
	Try         string     `json:"try,omitempty"`
	Told        int        `json:"told"`     // bans that the LAPI has
	Waiting     int        `json:"waiting"`  // that it is still to be told, or that they are over
	LeftOut     int        `json:"left_out"` // for which there is no room
	// OnAllowList are bans that are not told, since an allow list names somebody there.
	OnAllowList int  `json:"on_allow_list"`
	Allowed     int  `json:"allowed"`     // entries of its allow lists
	Refused     int  `json:"refused"`     // of them that are not honoured
	AllowLists  bool `json:"allow_lists"` // the LAPI has such
	Sent        int  `json:"sent"`        // alerts, since the start
	Removed     int  `json:"removed"`     // bans that were taken back, since the start
	Failures    int  `json:"failures"`    // rounds that failed, since the start
}

// Bounds.
const (
	// maxBans is how many alerts a LAPI keeps by default (db_config.flush.max_items).
	maxBans = 5000
	// batch is how many alerts go in one request.
	batch      = 50
	maxAllowed = 10_000
	// widest networks of an allow list that are honoured: a mistake there must not let everybody in.
	widest4, widest6 = 8, 16

	settle    = time.Second // after a change: more of them may come
	lookAgain = time.Minute // for allow lists, and for bans that were extended
	slack     = 30 * time.Second
	retryMost = time.Minute
)

// Reporter keeps a LAPI told.
type Reporter struct {
	opts    Options
	lapi    *lapi
	changed chan struct{}

	// of Run
	told    map[netip.Prefix]time.Time // until when; nil: the LAPI is asked first
	allowed *netipx.IPSet

	mu     sync.Mutex
	status Status
}

// NewReporter makes a Reporter.
func NewReporter(o Options) (*Reporter, error) {
	l, err := newLAPI(o.Account)
	if err != nil {
		return nil, err
	}
	return &Reporter{opts: o, lapi: l, changed: make(chan struct{}, 1), status: Status{URL: o.URL}}, nil
}

// String names the task.
func (*Reporter) String() string { return "crowdsec" }

// Changed says that bans are others than before. It never waits.
func (r *Reporter) Changed() { mailbox.Signal(r.changed) }

// Status says how it is.
func (r *Reporter) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// Run tells until ctx ends.
func (r *Reporter) Run(ctx context.Context) error {
	failures := 0
	for {
		began := time.Now()
		err := r.round(ctx)
		took := time.Since(began)
		if ctx.Err() != nil {
			return nil
		}
		r.note(err)
		pause, changed := lookAgain, r.changed
		if err == nil {
			failures = 0
		} else {
			failures++
			r.told = nil // an answer may have been lost
			pause, changed = retryPause(failures, err), nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-changed:
			select {
			case <-time.After(max(settle, 10*took)): // with very many bans
			case <-ctx.Done():
			}
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// retryPause is how long a LAPI that fails is left alone: longer each time, and anything from its half up.
func retryPause(failures int, err error) time.Duration {
	d := min(retryMost, time.Second<<min(failures-1, 10))
	d = d/2 + rand.N(d/2+1)
	if asked, ok := errors.AsType[*statusError](err); ok {
		d = max(d, asked.after)
	}
	return d
}

// note keeps how a round went, and tells.
func (r *Reporter) note(err error) {
	r.mu.Lock()
	s := &r.status
	first := err == nil && s.LastSuccess == nil
	s.Up, s.Error, s.Try = err == nil, "", ""
	if err != nil {
		s.Failures++
		s.Error, s.Try = printable.Line(err.Error()), hint.Of(err)
	} else {
		now := r.lapi.now()
		s.LastSuccess = &now
	}
	now := *s
	r.mu.Unlock()
	r.opts.Fault(err)
	if first {
		r.opts.Log.Info("CrowdSec is told of bans", "lapi", now.URL, "bans", now.Told, "allowed", now.Allowed)
	}
}

// round brings what the LAPI has to what it should have.
func (r *Reporter) round(ctx context.Context) error {
	bans, err := r.opts.Bans(ctx)
	if err != nil {
		return err
	}
	told := r.told
	err = r.readAllowLists(ctx)
	if err == nil && told == nil {
		told, err = r.lapi.own(ctx)
	}
	if err != nil {
		r.count(len(bans))
		return err
	}
	r.told = told
	wanted := r.choose(bans)
	add, remove := compare(wanted, r.told, r.lapi.now())
	waiting := len(add) + len(remove)
	defer func() { r.count(waiting) }()
	for _, p := range remove {
		if err := r.lapi.remove(ctx, p); err != nil {
			return err
		}
		delete(r.told, p)
		waiting--
		r.add(0, 1)
	}
	for some := range slices.Chunk(add, batch) {
		if err := r.lapi.add(ctx, some); err != nil {
			return err
		}
		for _, b := range some {
			r.told[b.Prefix] = b.Until
		}
		waiting -= len(some)
		r.add(len(some), 0)
	}
	return nil
}

func (r *Reporter) count(waiting int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Told, r.status.Waiting = len(r.told), waiting
}

func (r *Reporter) add(sent, removed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Sent += sent
	r.status.Removed += removed
}

// readAllowLists reads them, and passes on what is honoured. Until then those of before count.
func (r *Reporter) readAllowLists(ctx context.Context) error {
	all, known, err := r.lapi.allowLists(ctx)
	if err != nil {
		return err
	}
	var honoured []Allowed
	var set netipx.IPSetBuilder
	for _, a := range all {
		widest := widest4
		if a.Prefix.Addr().Is6() {
			widest = widest6
		}
		if a.Prefix.Bits() >= widest && len(honoured) < maxAllowed {
			honoured = append(honoured, a)
			set.AddPrefix(a.Prefix)
		}
	}
	if r.allowed, err = set.IPSet(); err != nil {
		return err
	}
	refused := len(all) - len(honoured)
	r.mu.Lock()
	before := r.status.Refused
	r.status.Allowed, r.status.Refused, r.status.AllowLists = len(honoured), refused, known
	r.mu.Unlock()
	if refused > before {
		r.opts.Log.Warn("entries of CrowdSec's allow lists are not honoured: they are too wide, or too many",
			"entries", refused)
	}
	r.opts.Allow(honoured)
	return nil
}

// choose returns the bans that the LAPI is to have: none where its allow lists have somebody, and no more than it
// keeps.
func (r *Reporter) choose(bans []Ban) map[netip.Prefix]Ban {
	onAllowList := 0
	list := make([]Ban, 0, len(bans))
	for _, b := range bans {
		if r.allowed.OverlapsPrefix(b.Prefix) {
			onAllowList++
			continue
		}
		list = append(list, b)
	}
	left := 0
	if len(list) > maxBans {
		slices.SortFunc(list, func(a, b Ban) int {
			return cmp.Or(b.Until.Compare(a.Until), a.Prefix.Addr().Compare(b.Prefix.Addr()))
		})
		left = len(list) - maxBans
		list = list[:maxBans]
	}
	r.mu.Lock()
	before := r.status
	r.status.LeftOut, r.status.OnAllowList = left, onAllowList
	r.mu.Unlock()
	if left > 0 && before.LeftOut == 0 {
		r.opts.Log.Warn("CrowdSec is told only of the bans that last longest: a LAPI keeps no more alerts",
			"told", len(list), "left_out", left)
	}
	if onAllowList > before.OnAllowList {
		r.opts.Log.Warn("CrowdSec is not told of bans where its allow lists name somebody", "bans", onAllowList)
	}
	wanted := make(map[netip.Prefix]Ban, len(list))
	for _, b := range list {
		if have, ok := wanted[b.Prefix]; !ok || have.Until.Before(b.Until) {
			wanted[b.Prefix] = b
		}
	}
	return wanted
}

// compare returns what is to be sent and what is to be taken back. What ends soon anyway is left to end, and a ban that
// is extended little by little is not sent each time.
func compare(wanted map[netip.Prefix]Ban, told map[netip.Prefix]time.Time, now time.Time) (add []Ban,
	remove []netip.Prefix) {
	for p, until := range told {
		b, ok := wanted[p]
		switch left := until.Sub(now); {
		case left <= 0:
			delete(told, p)
		case !ok && left > slack, ok && until.Sub(b.Until) > slack:
			remove = append(remove, p)
		}
	}
	for p, b := range wanted {
		left := b.Until.Sub(now)
		until, ok := told[p]
		switch {
		case left <= time.Second:
		case !ok, until.Sub(b.Until) > slack, until.Before(b.Until) && until.Sub(now) < left*3/4:
			add = append(add, b)
		}
	}
	slices.SortFunc(add, func(a, b Ban) int { return a.Prefix.Addr().Compare(b.Prefix.Addr()) })
	slices.SortFunc(remove, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return add, remove
}
