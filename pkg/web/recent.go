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
	// phoneFor is how long a phone is shown after its last report. The engine reports once an hour while it fails.
	phoneFor = 3 * time.Hour
	alarmFor = 24 * time.Hour
)

// recentDecisions remembers the decisions that the page shows: a bounded number of each kind.
type recentDecisions struct {
	mu     sync.Mutex
	last   []ban.Decision // the oldest first
	phones map[phone]ban.Decision
	alarms map[alarm]ban.Decision
}

// phone is a misconfigured phone.
type phone struct {
	account string
	prefix  netip.Prefix
	pbx     string
	reason  ban.Reason
}

// alarm is what a person should know of within the day.
type alarm struct {
	action  ban.Action
	reason  ban.Reason
	account string
	pbx     string
}

func (w *recentDecisions) add(decisions []ban.Decision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.phones == nil {
		w.phones, w.alarms = make(map[phone]ban.Decision), make(map[alarm]ban.Decision)
	}
	for i := range decisions {
		switch d := &decisions[i]; {
		case d.Action == ban.ActionMisconfigured:
			insert(w.phones, phone{d.Account, d.Prefix, d.PBX, d.Reason}, d, maxPhones)
		case d.Action == ban.ActionBreach, d.Action == ban.ActionTampering, d.Action == ban.ActionTargeted,
			d.Action == ban.ActionGuessing, d.Action == ban.ActionNewPlace:
			insert(w.alarms, alarm{d.Action, d.Reason, d.Account, d.PBX}, d, maxAlarms)
		case d.Action == ban.ActionLeak: // one for each Asterisk will do
			insert(w.alarms, alarm{d.Action, "", "", d.PBX}, d, maxAlarms)
		case d.Action == ban.ActionObserve && (d.Reason == ban.ReasonStorm || d.Reason == ban.ReasonAllowed):
			insert(w.alarms, alarm{d.Action, d.Reason, "", d.PBX}, d, maxAlarms)
		}
	}
	fresh := decisions[max(0, len(decisions)-maxDecisions):]
	for i := range fresh {
		if !w.has(&fresh[i]) {
			w.last = append(w.last, fresh[i])
		}
	}
	if n := len(w.last) - maxDecisions; n > 0 {
		w.last = append(w.last[:0], w.last[n:]...)
	}
}

// has says whether a decision is among the last: history and what is new may overlap.
func (w *recentDecisions) has(d *ban.Decision) bool {
	for i := range w.last {
		have := &w.last[i]
		if have.Prefix == d.Prefix && have.Action == d.Action && have.Account == d.Account && have.Time.Equal(d.Time) {
			return true
		}
	}
	return false
}

// insert puts a decision into a map of at most n, in place of the oldest.
func insert[K comparable](m map[K]ban.Decision, k K, d *ban.Decision, n int) {
	if _, ok := m[k]; !ok && len(m) >= n {
		var oldest K
		var at time.Time
		for k, have := range m {
			if at.IsZero() || have.Time.Before(at) {
				oldest, at = k, have.Time
			}
		}
		delete(m, oldest)
	}
	m[k] = *d
}

// latest returns the latest decisions, the newest first, and what is still to be shown of phones and alarms.
func (w *recentDecisions) latest(now time.Time) (last, phones, alarms []ban.Decision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last = slices.Clone(w.last)
	slices.Reverse(last)
	return last, current(w.phones, now.Add(-phoneFor)), current(w.alarms, now.Add(-alarmFor))
}

// current drops what is older than since and returns the rest, the newest first.
func current[K comparable](m map[K]ban.Decision, since time.Time) []ban.Decision {
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
