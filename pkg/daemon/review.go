package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/humanize"
)

const (
	// reviewAfter is how long Ringwall observes before it says what that has shown.
	reviewAfter = 24 * time.Hour
	// reviewAgain is when it says so again, and how far it looks back.
	reviewAgain    = 7 * 24 * time.Hour
	reviewInterval = 10 * time.Minute
	// maxReviewed bounds the sources that are told apart, and maxReviewNames those that are named.
	maxReviewed    = 100_000
	maxReviewNames = 5
)

// review sums up what observing has shown: who would be banned, and whether customers are among them. It is what the
// choice to enforce is made on.
type review struct{ daemon *Daemon }

// String names the task.
func (review) String() string { return "review of what was observed" }

// Run looks from time to time whether there is enough to say, until ctx ends.
func (r review) Run(ctx context.Context) error {
	tick := time.NewTicker(reviewInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			found, err := r.look(ctx)
			if err != nil && ctx.Err() == nil {
				r.daemon.log.LogAttrs(ctx, slog.LevelWarn, "what was observed cannot be summed up", hint.Attr(err))
			}
			r.daemon.pipeline.AnnounceReports(found)
		}
	}
}

// look returns what is to be told now: nothing, or one decision.
func (r review) look(ctx context.Context) ([]ban.Decision, error) {
	if r.daemon.config.currentConfig().Policy.Mode != config.Observe {
		return nil, nil
	}
	o := newObservations(r.daemon.pipeline.Clock().Now(), r.daemon.started)
	b := backend{r.daemon}
	err := b.History(ctx, o.now.Add(-reviewAgain), netip.Addr{}, func(some []ban.Decision) error {
		for i := range some {
			o.addDecision(&some[i])
		}
		return nil
	})
	if err != nil || !o.isDue() {
		return nil, err
	}
	// Who was trusted before all that is no news in the history.
	err = b.Trusted(ctx, func(some []ban.Trust) error {
		for i := range some {
			o.addLogin(some[i].Prefix.Addr())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return []ban.Decision{o.sumUp(r.daemon.opts.ConfigPath)}, nil
}

// observations are what the history tells of the time in which nobody was banned.
type observations struct {
	now     time.Time
	started time.Time                 // of the daemon
	first   time.Time                 // when somebody would have been banned first
	said    bool                      // it was summed up already
	sources map[netip.Prefix]struct{} // who would have been banned
	lengths map[int]struct{}          // of these prefixes, in bits
	logins  map[netip.Addr]struct{}   // who logged in
	more    bool                      // than maxReviewed
}

func newObservations(now, started time.Time) *observations {
	return &observations{now: now, started: started, sources: make(map[netip.Prefix]struct{}),
		lengths: make(map[int]struct{}), logins: make(map[netip.Addr]struct{})}
}

func (o *observations) addDecision(d *ban.Decision) {
	switch d.Action {
	case ban.ActionReview:
		o.said = true
	case ban.ActionTrust:
		o.addLogin(d.Source)
	case ban.ActionObserve:
		if !wouldBan(d) {
			return
		}
		if o.first.IsZero() {
			o.first = d.Time
		}
		if len(o.sources) >= maxReviewed {
			o.more = true
			return
		}
		o.sources[d.Prefix] = struct{}{}
		o.lengths[d.Prefix.Bits()] = struct{}{}
	}
}

// wouldBan says whether a source is out where Ringwall enforces. A flow that would be cut leaves its source in, and
// some attackers are let in whatever the mode is.
func wouldBan(d *ban.Decision) bool {
	switch d.Reason {
	case ban.ReasonAllowed, ban.ReasonProtected, ban.ReasonStorm, ban.ReasonManual, ban.ReasonLimit:
		return false
	}
	return d.Duration > 0 && d.Prefix.IsValid() && !d.Flow.IsValid()
}

func (o *observations) addLogin(a netip.Addr) {
	if a.IsValid() && len(o.logins) < maxReviewed {
		o.logins[a] = struct{}{}
	}
}

// isDue says whether there is something to say that was not said lately. A flood can push a day out of the history:
// then it counts how long the daemon runs.
func (o *observations) isDue() bool {
	return !o.said && len(o.sources) > 0 &&
		(o.now.Sub(o.first) >= reviewAfter || o.now.Sub(o.started) >= reviewAfter)
}

// customers are those among the sources who logged in, by their address.
func (o *observations) customers() (list []netip.Prefix) {
	for a := range o.logins {
		for bits := range o.lengths {
			p, err := a.Prefix(bits)
			if err != nil { // bits of IPv6
				continue
			}
			if _, ok := o.sources[p]; ok && !slices.Contains(list, p) {
				list = append(list, p)
			}
		}
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	return list
}

// sumUp is the decision that tells of it. What to type is in it: whoever reads it is about to choose.
func (o *observations) sumUp(configPath string) ban.Decision {
	count := humanize.Plural(len(o.sources), "source", "sources")
	if o.more {
		count = "more than " + count
	}
	text := fmt.Sprintf("in the last %s %s would have been banned, ",
		humanize.Duration(o.now.Sub(o.first).Truncate(time.Hour)), count)
	if customers := o.customers(); len(customers) > 0 {
		var names []string
		for _, p := range customers {
			names = append(names, humanize.Prefix(p))
		}
		text += fmt.Sprintf("and %s logged in: %s (look first: ringwall why %s; ringwall allow add %s lets it in "+
			"for good)",
			whoLoggedIn(len(customers)), humanize.Names(names, maxReviewNames), names[0], names[0])
	} else {
		if configPath == "" {
			configPath = "the configuration"
		}
		text += "and none of them ever logged in (to ban them: mode: enforce in " + configPath +
			", then: systemctl reload ringwall)"
	}
	return ban.Decision{Time: o.now.UTC(), Action: ban.ActionReview, Reason: ban.ReasonObserved, Detail: text}
}

func whoLoggedIn(n int) string {
	if n == 1 {
		return "one of them"
	}
	return fmt.Sprintf("%d of them", n)
}
