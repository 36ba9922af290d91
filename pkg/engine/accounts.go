package engine

import (
	"cmp"
	"slices"
)

// maxAccounts bounds the accounts remembered. PJSIP names only endpoints that exist, so it is a bound on a PBX's size.
const maxAccounts = 1 << 17

// account is one extension of one PBX, seen from all sources.
type account struct {
	success int64     // the last login, ns
	failing []failure // sources without trust that fail on it
	until   int64     // it is under distributed guessing
}

type failure struct {
	from key
	at   int64 // the last, ns
}

// accountOf returns an account, made if there is room, or nil.
func (e *Engine) accountOf(id uint64) *account {
	a := e.accounts[id]
	if a != nil {
		return a
	}
	if len(e.accounts) >= maxAccounts && e.now-e.swept >= sweepPause {
		e.sweepAccounts(sweepPart)
	}
	if len(e.accounts) >= maxAccounts {
		e.limited["accounts"]++
		return nil
	}
	a = &account{}
	e.accounts[id] = a
	return a
}

// While there is no room, so many accounts are looked at every so often, ns: all of them within seconds, and no call takes
// long.
const (
	sweepPart  = 512
	sweepPause = second / 100
)

// sweepAccounts forgets those of n accounts of which nothing matters any more.
func (e *Engine) sweepAccounts(n int) {
	e.swept = e.now
	for id, a := range e.accounts { // a map's order begins anywhere
		if n--; n < 0 {
			return
		}
		e.forgetFailures(a)
		if len(a.failing) == 0 && a.until <= e.now && e.now-a.success >= int64(e.cfg.Roaming.Within) {
			delete(e.accounts, id)
		}
	}
}

func (e *Engine) forgetFailures(a *account) {
	a.failing = slices.DeleteFunc(a.failing, func(f failure) bool { return e.now-f.at >= int64(e.cfg.Targeted.Within) })
}

// succeed notes a login.
func (e *Engine) succeed(id uint64) {
	if a := e.accountOf(id); a != nil {
		a.success = e.now
	}
}

// roams says whether an account logged in somewhere else so lately that this may be its user in a new place.
func (e *Engine) roams(id uint64) bool {
	a := e.accounts[id]
	return a != nil && a.success != 0 && e.now-a.success < int64(e.cfg.Roaming.Within)
}

// underAttack notes that the source of the case fails on an account, reports the account when many sources do, and says
// whether it was under distributed guessing before.
func (c *call) underAttack(id uint64) bool {
	limit := c.cfg.Targeted.Sources
	if limit <= 0 {
		return false
	}
	a := c.accountOf(id)
	if a == nil {
		return false
	}
	before := a.until > c.now
	if i := slices.IndexFunc(a.failing, func(f failure) bool { return f.from == c.key }); i >= 0 {
		a.failing[i].at = c.now
	} else {
		if len(a.failing) >= limit {
			c.forgetFailures(a)
		}
		for len(a.failing) >= limit { // the freshest are enough
			oldest := slices.MinFunc(a.failing, func(f, g failure) int { return cmp.Compare(f.at, g.at) })
			a.failing = slices.DeleteFunc(a.failing, func(f failure) bool { return f.from == oldest.from })
		}
		a.failing = append(a.failing, failure{c.key, c.now})
	}
	if len(a.failing) < limit {
		return before
	}
	if c.forgetFailures(a); len(a.failing) >= limit {
		a.until = c.now + int64(c.cfg.Targeted.Within)
		if !before {
			c.decide(Targeted, Distributed, c.prefixOf(c.key), 0, c.proven,
				"many sources guess this account: one more failure bans a source without trust")
		}
	}
	return before
}

const stormText = "many known good sources fail at once: the fault is at the PBX; they are not banned while it lasts"

// goodFails notices when many sources fail that are known to be good.
func (c *call) goodFails() {
	if c.cfg.Storm.Sources <= 0 || !c.knownGood(c.key) {
		return
	}
	pace := forMisconfigured + purpose(reasonIndex(Pace))
	if c.reports.get(c.now, c.id(pace, c.key, c.name())) != nil {
		return // its phone has an old password: that is no news
	}
	id := c.id(forFailing, c.key, 0)
	if c.failing.get(c.now, id) == nil {
		*c.failing.put(c.now, id) = c.key
	}
	if c.failing.live(c.now) < max(c.cfg.Storm.Sources, len(c.trusts)/10) {
		return
	}
	fresh := !c.stormy()
	c.stormEnd = c.now + int64(c.cfg.Storm.Within)
	if !c.reports.seen(c.now, c.id(forStorm, key{}, 0)) {
		c.decide(Observe, Storm, c.prefixOf(c.key), 0, c.proven, stormText)
	}
	if !fresh {
		return
	}
	// Who was banned in the minute before it was clear what happens gets in again.
	for k := range c.failing.values(c.now) {
		if b := c.banOf(k); b != nil && !b.observed && !b.manual && c.now-b.since < int64(c.cfg.Storm.Within) {
			c.suspended++
			c.out = append(c.out, c.pardon([]*ban{b}, Storm, stormText)...)
		}
	}
}

// stormy says whether many known good sources fail at the moment.
func (e *Engine) stormy() bool { return e.stormEnd > e.now }
