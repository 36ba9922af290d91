package engine

import (
	"cmp"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

const (
	slots = 24 * 60 // minutes that activity reaches back

	buckets = 64 // of names
	ways    = 8  // names in each
	spanned = 12 * 60 * minute
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
	Since    time.Time      `json:"since"`   // from when on anything is known: the start of the engine, if that is later
	Minutes  []Minute       `json:"minutes"` // oldest first; the last one is under way
	Tried    time.Time      `json:"tried_since"`
	Accounts []AccountTries `json:"accounts"` // the most tried first
}

// activity counts attempts by minute and by account, in a fixed amount of memory and without allocating.
type activity struct {
	minutes [slots]counts
	latest  *counts   // of the last count
	over    int64     // its end, ns
	names   [2]*names // of this half of the day and of the one before
	began   int64     // of names[0], ns
	prior   int64     // of names[1]
}

type counts struct {
	minute         int64 // since the epoch
	attempts, bans uint32
}

// names are the most tried accounts: a space-saving sketch (Metwally, Agrawal, El Abbadi 2005) in buckets that a keyed hash
// chooses, so that an attempt costs a look at one bucket and a flood of invented names forgets names, and no more.
type names [buckets]struct {
	hash  [ways]uint64
	count [ways]uint32
	over  [ways]uint32 // by which count may be too high: of the name that was there before
	tried [ways]tried
}

type tried struct {
	from    uint64 // sources, as a sketch
	last    uint32 // seconds
	length  uint8  // over nameBytes where the name was cut
	account [nameBytes]byte
}

// at is the minute of now. Time does not go back.
func (a *activity) at(now int64) *counts {
	if now < a.over {
		return a.latest
	}
	n := now / minute
	a.latest, a.over = &a.minutes[n%slots], (n+1)*minute
	if a.latest.minute != n {
		*a.latest = counts{minute: n}
	}
	return a.latest
}

// banned counts a ban.
func (a *activity) banned(now int64) {
	a.at(now).bans++
}

// countForActivity counts an attempt of the event's source at the event's account.
func (j *judgement) countForActivity() {
	a := &j.engine.activity
	a.at(j.engine.now).attempts++
	if name := j.ev.Account; name != "" && name != unknown {
		a.turn(j.engine.now)
		a.names[0].add(j.accountNameHash(), j.engine.id(forTally, j.key, 0), j.engine.now, name)
	}
}

// turn begins a new half of the day when it is time.
func (a *activity) turn(now int64) {
	switch {
	case a.names[0] == nil:
		a.names[0], a.names[1], a.began = new(names), new(names), now
		a.prior = now
	case now-a.began >= 2*spanned:
		*a.names[0], *a.names[1] = names{}, names{}
		a.began, a.prior = now, now
	case now-a.began >= spanned:
		a.names[0], a.names[1] = a.names[1], a.names[0]
		*a.names[0] = names{}
		a.began, a.prior = a.began+spanned, a.began
	}
}

func (n *names) add(hash, source uint64, now int64, name string) {
	hash |= 1 // 0 is a free place
	b := &n[hash>>32%buckets]
	for i, h := range b.hash {
		if h == hash {
			b.count[i]++
			b.tried[i].from |= 1 << (source >> 58)
			b.tried[i].last = seconds(now)
			return
		}
	}
	least := 0
	for i, n := range b.count {
		if n < b.count[least] {
			least = i
		}
	}
	t := &b.tried[least]
	b.hash[least], b.over[least] = hash, b.count[least]
	b.count[least]++
	t.from, t.last, t.length = 1<<(source>>58), seconds(now), uint8(min(len(name), nameBytes+1))
	clear(t.account[copy(t.account[:], name):])
}

// Activity returns the last day, with up to n accounts.
func (e *Engine) Activity(now time.Time, n int) Activity {
	e.advance(now)
	a := &e.activity
	last := e.now / minute
	out := Activity{Begin: stamp((last - slots + 1) * minute), Since: stamp(e.started), Minutes: make([]Minute, slots), Tried: stamp(e.started)}
	for i := range out.Minutes {
		at := last - slots + 1 + int64(i)
		if m := &a.minutes[at%slots]; m.minute == at {
			out.Minutes[i] = Minute{Attempts: int(m.attempts), Bans: int(m.bans)}
		}
	}
	if a.names[0] == nil {
		return out
	}
	a.turn(e.now)
	if a.prior > e.started {
		out.Tried = stamp(a.prior)
	}
	out.Accounts = a.most(n)
	return out
}

// most returns the n most tried accounts of both halves. What a count may be too high by is taken off, so that nothing is
// said to have been tried more often than it was.
func (a *activity) most(n int) []AccountTries {
	type place struct {
		count  uint32
		at     *tried
		from   uint64
		latest uint32
	}
	found := make(map[uint64]place, 2*buckets*ways)
	for _, half := range a.names {
		for b := range half {
			for i, h := range half[b].hash {
				if h == 0 {
					continue
				}
				p, t := found[h], &half[b].tried[i]
				p.count += half[b].count[i] - half[b].over[i]
				p.from |= t.from
				p.latest = max(p.latest, t.last)
				p.at = t
				found[h] = p
			}
		}
	}
	all := make([]place, 0, len(found))
	for _, p := range found {
		all = append(all, p)
	}
	slices.SortFunc(all, func(p, q place) int {
		return cmp.Or(cmp.Compare(q.count, p.count), cmp.Compare(q.latest, p.latest),
			slices.Compare(p.at.account[:], q.at.account[:]))
	})
	all = all[:min(len(all), n)]
	out := make([]AccountTries, 0, len(all))
	for _, p := range all {
		r := record{length: p.at.length, account: p.at.account}
		out = append(out, AccountTries{Account: r.name(), Tries: int(p.count),
			Sources: min((&sketch{seen: p.from}).distinct(), 300), Last: time.Unix(int64(p.latest), 0)})
	}
	return out
}

// NewestBans returns up to n of what Bans returns, the newest first, without a look at them all.
func (e *Engine) NewestBans(now time.Time, n int) []ban.Ban {
	e.advance(now)
	out := make([]ban.Ban, 0, min(n, len(e.bans)))
	for b := e.newest; b != nil && len(out) < n; b = b.older {
		if b.until > e.now {
			out = append(out, e.viewBan(b, false))
		}
	}
	return out
}

// NewestTrusted returns up to n of what Trusted returns: those at which an account fails first, then the newest.
func (e *Engine) NewestTrusted(now time.Time, n int) []ban.Trust {
	e.advance(now)
	order := func(a, b *trust) int {
		if fa, fb := len(a.fails) > 0, len(b.fails) > 0; fa != fb {
			if fa {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(b.since, a.since), slices.Compare(a.key[:], b.key[:]))
	}
	var best []*trust
	cut := func() {
		slices.SortFunc(best, order)
		best = best[:min(n, len(best))]
	}
	for _, t := range e.trusts {
		if t.until <= e.now {
			continue
		}
		if best = append(best, t); len(best) >= 4*n+64 {
			cut()
		}
	}
	cut()
	out := make([]ban.Trust, 0, len(best))
	for _, t := range best {
		out = append(out, e.viewTrust(t))
	}
	return out
}
