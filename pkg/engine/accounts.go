package engine

// maxAccounts bounds the accounts remembered. PJSIP names only endpoints that exist, so it is a bound on a PBX's size.
const maxAccounts = 1 << 17

// account is one extension of one PBX, seen from all sources.
type account struct {
	success int64         // the last login, ns
	failing map[key]int64 // sources without trust that fail on it, and when last
	until   int64         // it is under distributed guessing
}

// accountOf returns an account, made if there is room, or nil.
func (e *Engine) accountOf(id uint64) *account {
	a := e.accounts[id]
	if a == nil {
		if len(e.accounts) >= maxAccounts {
			e.limited["accounts"]++
			return nil
		}
		a = &account{}
		e.accounts[id] = a
	}
	return a
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
	if a.failing == nil {
		a.failing = make(map[key]int64)
	}
	if _, ok := a.failing[c.key]; ok || len(a.failing) < 2*limit {
		a.failing[c.key] = c.now
	}
	if len(a.failing) >= limit {
		for k, at := range a.failing {
			if c.now-at >= int64(c.cfg.Targeted.Within) {
				delete(a.failing, k)
			}
		}
	}
	if len(a.failing) >= limit {
		a.until = c.now + int64(c.cfg.Targeted.Within)
		if !before {
			c.decide(Targeted, Distributed, c.prefixOf(c.key), 0, c.proven,
				"many sources guess this account: one more failure bans a source without trust")
		}
	}
	return before
}

// known notes that a source which is known to be good fails, and notices when many of them do.
func (c *call) known() {
	if c.cfg.Storm.Sources <= 0 || !c.knownGood(c.key) {
		return
	}
	if c.reports.get(c.now, c.hash("misconfigured", c.key[:], string(Pace), c.ev.Account)) != nil {
		return // its phone has an old password: that is no news
	}
	c.failing.seen(c.now, c.hash("failing", c.key[:]))
	if c.failing.live(c.now) < max(c.cfg.Storm.Sources, len(c.trusts)/10) {
		return
	}
	c.stormEnd = c.now + int64(c.cfg.Storm.Within)
	if !c.reports.seen(c.now, c.hash("storm", nil)) {
		c.decide(Observe, Storm, c.prefixOf(c.key), 0, c.proven,
			"many known good sources fail at once: look at the PBX; they are not banned while it lasts")
	}
}

// stormy says whether many known good sources fail at the moment.
func (e *Engine) stormy() bool { return e.stormEnd > e.now }
