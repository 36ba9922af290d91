package web

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

const (
	// phoneShownFor is how long a phone is shown after its last report. The engine reports once an hour while it fails.
	phoneShownFor = 3 * time.Hour
	alarmShownFor = 24 * time.Hour
)

// recentDecisions remembers the decisions that the page shows: a bounded number of each kind.
type recentDecisions struct {
	mu        sync.Mutex
	decisions []ban.Decision // the oldest first
	phones    map[phoneKey]ban.Decision
	alarms    map[alarmKey]ban.Decision
}

// phoneKey is what tells misconfigured phones apart.
type phoneKey struct {
	account string
	prefix  netip.Prefix
	pbx     string
	reason  ban.Reason
}

// alarmKey is what tells apart what a person should know of within the day.
type alarmKey struct {
	action  ban.Action
	reason  ban.Reason
	account string
	pbx     string
}

func (w *recentDecisions) addDecisions(decisions []ban.Decision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range decisions {
		switch d := &decisions[i]; {
		case d.Action == ban.ActionMisconfigured:
			putBounded(&w.phones, phoneKey{d.Account, d.Prefix, d.PBX, d.Reason}, *d, maxPhones, decisionTime)
		case d.Action == ban.ActionBreach, d.Action == ban.ActionTampering, d.Action == ban.ActionTargeted,
			d.Action == ban.ActionGuessing, d.Action == ban.ActionNewPlace, d.Action == ban.ActionCut,
			d.Action == ban.ActionBlind, d.Action == ban.ActionReview:
			putBounded(&w.alarms, alarmKey{d.Action, d.Reason, d.Account, d.PBX}, *d, maxAlarms, decisionTime)
		case d.Action == ban.ActionLeak: // one for each Asterisk will do
			putBounded(&w.alarms, alarmKey{d.Action, "", "", d.PBX}, *d, maxAlarms, decisionTime)
		case d.Action == ban.ActionObserve && (d.Reason == ban.ReasonStorm || d.Reason == ban.ReasonAllowed):
			putBounded(&w.alarms, alarmKey{d.Action, d.Reason, "", d.PBX}, *d, maxAlarms, decisionTime)
		}
	}
	fresh := decisions[max(0, len(decisions)-maxDecisions):]
	for i := range fresh {
		if !w.hasDecision(&fresh[i]) {
			w.decisions = append(w.decisions, fresh[i])
		}
	}
	if n := len(w.decisions) - maxDecisions; n > 0 {
		w.decisions = append(w.decisions[:0], w.decisions[n:]...)
	}
}

// hasDecision reports whether a decision is among the latest: history and feed may overlap.
func (w *recentDecisions) hasDecision(d *ban.Decision) bool {
	for i := range w.decisions {
		have := &w.decisions[i]
		if have.Prefix == d.Prefix && have.Action == d.Action && have.Account == d.Account && have.Time.Equal(d.Time) {
			return true
		}
	}
	return false
}

// putBounded puts a value into a map of at most most, which is made where it is nil. Where it is full, the value with
// the earliest time goes.
func putBounded[K comparable, V any](m *map[K]V, key K, value V, most int, timeOf func(V) time.Time) {
	if *m == nil {
		*m = make(map[K]V)
	}
	if _, ok := (*m)[key]; !ok && len(*m) >= most {
		var earliest K
		var at time.Time
		for k, v := range *m {
			if t := timeOf(v); at.IsZero() || t.Before(at) {
				earliest, at = k, t
			}
		}
		delete(*m, earliest)
	}
	(*m)[key] = value
}

func decisionTime(d ban.Decision) time.Time { return d.Time }

// current returns the latest decisions, and what is still to be shown of phones and alarms: all of them the newest
// first.
func (w *recentDecisions) current(now time.Time) (last, phones, alarms []ban.Decision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last = slices.Clone(w.decisions)
	slices.Reverse(last)
	return last, takeSince(w.phones, now.Add(-phoneShownFor)), takeSince(w.alarms, now.Add(-alarmShownFor))
}

// takeSince deletes decisions before since and returns the rest, the newest first.
func takeSince[K comparable](m map[K]ban.Decision, since time.Time) []ban.Decision {
	var out []ban.Decision
	for k, d := range m {
		if d.Time.Before(since) {
			delete(m, k)
			continue
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b ban.Decision) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.Account, b.Account), cmp.Compare(a.Prefix.String(),
			b.Prefix.String()))
	})
	return out
}
