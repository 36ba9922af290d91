package engine

import (
	"cmp"
	"slices"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

// maxAccounts bounds the accounts remembered. PJSIP names only endpoints that exist, so it is a bound on a PBX's size.
const maxAccounts = 1 << 17

// account is one extension of one PBX, seen from all sources.
type account struct {
	lastLogin        int64           // the last login, ns
	failingSources   []failingSource // sources without trust that fail on it, by evidence that could not be forged
	forgeableSources []failingSource // the others
	targetedUntil    int64           // until then it is under distributed guessing, ns
	suspectedUntil   int64           // until then it would be, if all the evidence was true, ns

	suspectedSince   int64             // when that began, ns
	guesses          table.LeakyBucket // from everywhere
	massGuessedUntil int64             // until then it was guessed more than phones and persons do, ns
}

type failingSource struct {
	source sourceKey
	last   int64 // the last, ns
}

// More guesses of one account than massGuesses at once, from everywhere, are no mistakes. They leak at what the hastiest phone
// makes in a minute.
const (
	massGuesses   = 20
	massPerMinute = 30
)

// accountOf returns an account, made if there is room, or nil.
func (e *Engine) accountOf(id uint64) *account {
	a := e.accounts[id]
	if a != nil {
		return a
	}
	if len(e.accounts) >= maxAccounts && e.now-e.accountsSweptAt >= sweepPause {
		e.sweepAccounts(sweepPart)
	}
	if len(e.accounts) >= maxAccounts {
		e.hitLimits["accounts"]++
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
	e.accountsSweptAt = e.now
	for id, a := range e.accounts { // a map's order begins anywhere
		if n--; n < 0 {
			return
		}
		e.forgetOldFailures(&a.failingSources)
		e.forgetOldFailures(&a.forgeableSources)
		if len(a.failingSources)+len(a.forgeableSources) == 0 && max(a.targetedUntil, a.suspectedUntil, a.massGuessedUntil) <= e.now && e.now-a.lastLogin >= int64(e.policy.Roaming.Within) {
			delete(e.accounts, id)
		}
	}
}

func (e *Engine) forgetOldFailures(of *[]failingSource) {
	*of = slices.DeleteFunc(*of, func(f failingSource) bool { return e.now-f.last >= int64(e.policy.Targeted.Within) })
}

// recordLogin notes a login.
func (e *Engine) recordLogin(id uint64) {
	if a := e.accountOf(id); a != nil {
		a.lastLogin = e.now
	}
}

// loggedInLately says whether an account logged in somewhere else so lately that this may be its user in a new place.
func (e *Engine) loggedInLately(id uint64) bool {
	a := e.accounts[id]
	return a != nil && a.lastLogin != 0 && e.now-a.lastLogin < int64(e.policy.Roaming.Within)
}

// recordAccountFailure notes that the source of the event fails on an account, and reports the account when many sources without
// trust do. It returns the account as it was before, or nil.
func (j *judgement) recordAccountFailure(id uint64) *account {
	limit := j.policy.Targeted.Sources
	if limit <= 0 {
		return nil
	}
	a := j.engine.accountOf(id)
	if a == nil {
		return nil
	}
	if a.guesses.Add(j.now, 1, massPerMinute) > massGuesses {
		a.massGuessedUntil = j.now + int64(j.policy.Targeted.Within)
	}
	before := *a
	if j.sourceTrust() != nil {
		return &before
	}
	of := &a.forgeableSources
	if j.proven {
		of = &a.failingSources
	}
	j.recordFailingSource(of, limit)
	if len(a.failingSources) >= limit {
		a.targetedUntil = j.now + int64(j.policy.Targeted.Within)
		if before.targetedUntil <= j.now {
			j.decide(ban.ActionTargeted, ban.ReasonDistributed, j.engine.prefixOf(j.key), 0, j.proven,
				"many sources guess this account: one more failure bans a source without trust")
		}
	}
	if len(a.failingSources)+len(a.forgeableSources) >= limit {
		a.suspectedUntil = j.now + int64(j.policy.Targeted.Within)
		if before.suspectedUntil <= j.now {
			a.suspectedSince = j.now
			j.reportSuspected(a)
		}
	}
	return &before
}

// reportSuspected reports, once an hour for all accounts, that one may be under distributed guessing: forged packets can
// make any number of accounts look so.
func (j *judgement) reportSuspected(a *account) {
	if a.targetedUntil <= j.now && j.engine.firstReport(forSuspected, sourceKey{}, 0) {
		j.decide(ban.ActionTargeted, ban.ReasonDistributed, j.engine.prefixOf(j.key), 0, false,
			"many sources guess this account, or somebody forges their packets: a source without trust is banned after a few failures")
	}
}

// recordFailingSource notes that the source of the event fails on an account.
func (j *judgement) recordFailingSource(of *[]failingSource, limit int) {
	if i := slices.IndexFunc(*of, func(f failingSource) bool { return f.source == j.key }); i >= 0 {
		(*of)[i].last = j.now
	} else {
		if len(*of) >= limit {
			j.engine.forgetOldFailures(of)
		}
		for len(*of) >= limit { // the freshest are enough
			oldest := slices.MinFunc(*of, func(f, g failingSource) int { return cmp.Compare(f.last, g.last) })
			*of = slices.DeleteFunc(*of, func(f failingSource) bool { return f.source == oldest.source })
		}
		*of = append(*of, failingSource{j.key, j.now})
	}
	if len(*of) >= limit {
		j.engine.forgetOldFailures(of)
	}
}

// loginMayBeGuessed says whether a login may be that of a guesser who found the password while he was not heard, as Asterisk
// answers a right password with a stale nonce by a challenge: many guessed the account of late, it is not known to log
// in from there, and it would be known if it had done so before. Where a person unbanned the source, he has vouched for it.
func (j *judgement) loginMayBeGuessed(id uint64) bool {
	a := j.engine.accounts[id]
	vouched := j.engine.vouchedFor.Get(j.now, j.hash(forVouched, 0)) != nil
	return a != nil && a.massGuessedUntil > j.now && !vouched && !j.loggedInHere(id) && (a.lastLogin != 0 || j.engine.isWarm())
}
