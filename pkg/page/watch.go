package page

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/engine"
)

const (
	// phoneFor is how long a phone is shown after its last report. The engine reports once an hour while it fails.
	phoneFor = 3 * time.Hour
	alarmFor = 24 * time.Hour
)

// watch remembers the decisions that the page shows: a bounded number of each kind.
type watch struct {
	mu     sync.Mutex
	last   []engine.Decision // the oldest first
	phones map[phone]engine.Decision
	alarms map[alarm]engine.Decision
}

// phone is a misconfigured phone.
type phone struct {
	account string
	prefix  netip.Prefix
	pbx     string
	reason  engine.Reason
}

// alarm is what a person should know of within the day.
type alarm struct {
	action  engine.Action
	reason  engine.Reason
	account string
	pbx     string
}

func (w *watch) add(decisions []engine.Decision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.phones == nil {
		w.phones, w.alarms = make(map[phone]engine.Decision), make(map[alarm]engine.Decision)
	}
	for i := range decisions {
		switch d := &decisions[i]; {
		case d.Action == engine.Misconfigured:
			insert(w.phones, phone{d.Account, d.Prefix, d.PBX, d.Reason}, d, maxPhones)
		case d.Action == engine.Breach, d.Action == engine.Tampering, d.Action == engine.Targeted, d.Action == engine.Guessing:
			insert(w.alarms, alarm{d.Action, d.Reason, d.Account, d.PBX}, d, maxAlarms)
		case d.Action == engine.Leak: // one for each Asterisk will do
			insert(w.alarms, alarm{d.Action, "", "", d.PBX}, d, maxAlarms)
		case d.Action == engine.Observe && (d.Reason == engine.Storm || d.Reason == engine.Allowed):
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
func (w *watch) has(d *engine.Decision) bool {
	for i := range w.last {
		have := &w.last[i]
		if have.Prefix == d.Prefix && have.Action == d.Action && have.Account == d.Account && have.Time.Equal(d.Time) {
			return true
		}
	}
	return false
}

// insert puts a decision into a map of at most n, in place of the oldest.
func insert[K comparable](m map[K]engine.Decision, k K, d *engine.Decision, n int) {
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

// look returns the latest decisions, the newest first, and what is still to be shown of phones and alarms.
func (w *watch) look(now time.Time) (last, phones, alarms []engine.Decision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last = slices.Clone(w.last)
	slices.Reverse(last)
	return last, current(w.phones, now.Add(-phoneFor)), current(w.alarms, now.Add(-alarmFor))
}

// current drops what is older than since and returns the rest, the newest first.
func current[K comparable](m map[K]engine.Decision, since time.Time) []engine.Decision {
	var out []engine.Decision
	for k, d := range m {
		if d.Time.Before(since) {
			delete(m, k)
			continue
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b engine.Decision) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.Account, b.Account), cmp.Compare(a.Prefix.String(), b.Prefix.String()))
	})
	return out
}
