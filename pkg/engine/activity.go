package engine

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

const (
	minutesKept = 24 * 60 // that activity reaches back
	halfDay     = 12 * 60 * minute
)

// Minute is what happened within one minute.
type Minute struct {
	Attempts int `json:"attempts"` // that gave points
	Bans     int `json:"bans"`     // made, or in observe mode those that would have been
}

// AccountTries says how often an account was tried.
type AccountTries struct {
	Account string    `json:"account"` // as the attackers wrote it
	Tries   int       `json:"tries"`   // at least
	Sources int       `json:"sources"` // that tried it, roughly; 300 stands for any number above
	Last    time.Time `json:"last"`
}

// Activity is what attackers did within the last day.
type Activity struct {
	Begin    time.Time      `json:"begin"`   // of the first minute
	Since    time.Time      `json:"since"`   // from when on anything is known: not before the start of the engine
	Minutes  []Minute       `json:"minutes"` // oldest first; the last one is under way
	Tried    time.Time      `json:"tried_since"`
	Accounts []AccountTries `json:"accounts"` // the most tried first
}

// activity counts attempts by minute and by account, in a fixed amount of memory and without allocating.
type activity struct {
	minutes      [minutesKept]minuteCounts // by the minute since the epoch, modulo minutesKept
	latestMinute *minuteCounts             // the one that was counted in last
	latestEnds   int64                     // when that minute is over, ns

	// The accounts that are tried, by the hash of their names: in this half of the day, and in the one before.
	halves     [2]*table.Frequent[triedAccount]
	halfBegan  int64 // halves[0], ns
	priorBegan int64 // halves[1], ns
}

// minuteCounts is what happened within one minute.
type minuteCounts struct {
	minute         int64 // since the epoch
	attempts, bans uint32
}

// triedAccount is what is known of an account that is tried.
type triedAccount struct {
	sources uint64 // a bit for each, which may share it with others
	last    uint32 // seconds
	length  uint8  // over nameBytes where the name was cut
	account [nameBytes]byte
}

// minuteAt returns the counts of the minute that it is at now. Time does not go back.
func (a *activity) minuteAt(now int64) *minuteCounts {
	if now < a.latestEnds {
		return a.latestMinute
	}
	n := now / minute
	a.latestMinute, a.latestEnds = &a.minutes[n%minutesKept], (n+1)*minute
	if a.latestMinute.minute != n {
		*a.latestMinute = minuteCounts{minute: n}
	}
	return a.latestMinute
}

// countBan counts a ban.
func (a *activity) countBan(now int64) {
	a.minuteAt(now).bans++
}

// countForActivity counts an attempt of the event's source at the event's account.
func (j *judgement) countForActivity() {
	a := &j.engine.activity
	a.minuteAt(j.now).attempts++
	if name := j.account; name != "" && name != unknownAccount {
		a.rotateHalves(j.now)
		a.countTry(j.accountNameHash(), j.hash(forActivity, 0), j.now, name)
	}
}

// rotateHalves begins a new half of the day when the present one is over.
func (a *activity) rotateHalves(now int64) {
	switch {
	case a.halves[0] == nil:
		a.halves[0], a.halves[1] = new(table.Frequent[triedAccount]), new(table.Frequent[triedAccount])
		a.halfBegan = now
		a.priorBegan = now
	case now-a.halfBegan >= 2*halfDay:
		*a.halves[0], *a.halves[1] = table.Frequent[triedAccount]{}, table.Frequent[triedAccount]{}
		a.halfBegan, a.priorBegan = now, now
	case now-a.halfBegan >= halfDay:
		a.halves[0], a.halves[1] = a.halves[1], a.halves[0]
		*a.halves[0] = table.Frequent[triedAccount]{}
		a.halfBegan, a.priorBegan = a.halfBegan+halfDay, a.halfBegan
	}
}

// countTry counts a try of an account by a source, both of them hashes.
func (a *activity) countTry(account, source uint64, now int64, name string) {
	t, fresh := a.halves[0].Add(account)
	if fresh {
		*t = triedAccount{length: uint8(min(len(name), nameBytes+1))}
		copy(t.account[:], name)
	}
	t.sources |= 1 << (source >> 58)
	t.last = seconds(now)
}

// Activity returns the last day, with up to n accounts.
func (e *Engine) Activity(now time.Time, n int) Activity {
	e.advanceTime(now)
	a := &e.activity
	last := e.now / minute
	out := Activity{
		Begin: utcTime((last - minutesKept + 1) * minute), Since: utcTime(e.started),
		Minutes: make([]Minute, minutesKept), Tried: utcTime(e.started),
	}
	for i := range out.Minutes {
		at := last - minutesKept + 1 + int64(i)
		if m := &a.minutes[at%minutesKept]; m.minute == at {
			out.Minutes[i] = Minute{Attempts: int(m.attempts), Bans: int(m.bans)}
		}
	}
	if a.halves[0] == nil {
		return out
	}
	a.rotateHalves(e.now)
	if a.priorBegan > e.started {
		out.Tried = utcTime(a.priorBegan)
	}
	out.Accounts = a.mostTried(n)
	return out
}

// mostTried returns the n most tried accounts of both halves. Nothing is said to have been tried more often than it
// was.
func (a *activity) mostTried(n int) []AccountTries {
	type total struct {
		count   uint32
		tried   *triedAccount
		sources uint64
		last    uint32
	}
	totals := make(map[uint64]total)
	for _, half := range a.halves {
		for c := range half.All() {
			t := totals[c.Key]
			t.count += c.Count
			t.sources |= c.Value.sources
			t.last = max(t.last, c.Value.last)
			t.tried = c.Value
			totals[c.Key] = t
		}
	}
	all := slices.SortedFunc(maps.Values(totals), func(t, u total) int {
		return cmp.Or(cmp.Compare(u.count, t.count), cmp.Compare(u.last, t.last),
			slices.Compare(t.tried.account[:], u.tried.account[:]))
	})
	all = all[:min(len(all), n)]
	out := make([]AccountTries, 0, len(all))
	for _, t := range all {
		r := record{length: t.tried.length, account: t.tried.account}
		out = append(out, AccountTries{Account: r.accountName(), Tries: int(t.count),
			Sources: min(table.EstimateDistinct(t.sources), 300), Last: time.Unix(int64(t.last), 0)})
	}
	return out
}
