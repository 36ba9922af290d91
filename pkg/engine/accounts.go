package engine

import (
	"cmp"
	"slices"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

// maxAccounts bounds the accounts remembered. PJSIP names only endpoints that exist, so it is a bound on a PBX's size.
const maxAccounts = 1 << 17

// account is what all sources do to one account of one PBX. Times are in ns.
type account struct {
	lastLogin int64 // 0 for none

	// Guessing from many sources without trust: policy.targeted.
	failingSources   []failingSource // by evidence that could not be forged
	forgeableSources []failingSource // the others
	attackState

	// Guessing from anywhere.
	guesses          table.LeakyBucket
	massGuessedUntil int64 // until then, guesses were more than massGuesses of late

	// Where it logged in.
	goodFlows   int // it was the first on
	places      []accountPlace
	placesSince uint32 // when it was first known to be anywhere: seconds
}

// attackState is whether an account is guessed from many sources. Times are in ns.
type attackState struct {
	targetedUntil  int64 // until then it is
	suspectedUntil int64 // until then it would be, if no evidence was forged
	suspectedSince int64 // when that began
}

// failingSource is a source that fails on an account.
type failingSource struct {
	source sourceKey
	last   int64 // failure, ns
}

const (
	// massGuesses is how many guesses of one account at once, from everywhere, are the most that phones and persons
	// make.
	massGuesses = 20
	// massPerMinute is how many of them are forgotten in a minute: what the hastiest phone makes.
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

// While there is no room, sweepPart of the accounts are looked at each sweepPause: all of them within seconds, and no
// call takes long.
const (
	sweepPart  = 512
	sweepPause = second / 100 // ns
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
		guessed := len(a.failingSources)+len(a.forgeableSources) > 0 ||
			max(a.targetedUntil, a.suspectedUntil, a.massGuessedUntil) > e.now
		if !guessed && e.now-a.lastLogin >= int64(e.policy.Roaming.Within) {
			delete(e.accounts, id)
		}
	}
}

// forgetOldFailures takes off the list those who have not failed within targeted.within.
func (e *Engine) forgetOldFailures(of *[]failingSource) {
	*of = slices.DeleteFunc(*of, func(f failingSource) bool { return e.now-f.last >= int64(e.policy.Targeted.Within) })
}

// loggedInLately says whether an account logged in anywhere within roaming.within: whoever fails may be its user,
// elsewhere.
func (e *Engine) loggedInLately(id uint64) bool {
	a := e.accounts[id]
	return a != nil && a.lastLogin != 0 && e.now-a.lastLogin < int64(e.policy.Roaming.Within)
}

// recordAccountFailure notes that the source of the event fails on an account, and reports the account when many
// sources without trust do. It returns what was known of such an attack before.
func (j *judgement) recordAccountFailure(id uint64) (before attackState) {
	limit := j.policy.Targeted.Sources
	if limit <= 0 {
		return before
	}
	a := j.engine.accountOf(id)
	if a == nil {
		return before
	}
	if a.guesses.Add(j.now, 1, massPerMinute) > massGuesses {
		a.massGuessedUntil = j.now + int64(j.policy.Targeted.Within)
	}
	before = a.attackState
	if j.sourceTrust() != nil {
		return before
	}
	of := &a.forgeableSources
	if j.proven {
		of = &a.failingSources
	}
	j.recordFailingSource(of, limit)
	if len(a.failingSources) >= limit {
		a.targetedUntil = j.now + int64(j.policy.Targeted.Within)
		if before.targetedUntil <= j.now {
			j.appendDecision(ban.ActionTargeted, ban.ReasonDistributed, j.engine.prefixOf(j.key), 0, j.proven,
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
	return before
}

// reportSuspected reports, once an hour for all accounts, that one may be under distributed guessing: forged packets
// can make any number of accounts look so.
func (j *judgement) reportSuspected(a *account) {
	if a.targetedUntil <= j.now && j.engine.firstReport(forSuspected, sourceKey{}, 0) {
		j.appendDecision(ban.ActionTargeted, ban.ReasonDistributed, j.engine.prefixOf(j.key), 0, false,
			"many sources guess this account, or somebody forges their packets: "+
				"a source without trust is banned after a few failures")
	}
}

// recordFailingSource puts the source of the event on the list of those who fail on an account: limit of them, the
// latest.
func (j *judgement) recordFailingSource(of *[]failingSource, limit int) {
	if i := slices.IndexFunc(*of, func(f failingSource) bool { return f.source == j.key }); i >= 0 {
		(*of)[i].last = j.now
	} else {
		if len(*of) >= limit {
			j.engine.forgetOldFailures(of)
		}
		for len(*of) >= limit {
			oldest := slices.MinFunc(*of, func(f, g failingSource) int { return cmp.Compare(f.last, g.last) })
			*of = slices.DeleteFunc(*of, func(f failingSource) bool { return f.source == oldest.source })
		}
		*of = append(*of, failingSource{j.key, j.now})
	}
	if len(*of) >= limit {
		j.engine.forgetOldFailures(of)
	}
}

// loginMayBeGuessed says whether a login may be that of a guesser: many guessed the account of late, it never logged in
// from there, and that would be known. He may have found the password without an event that says so, since Asterisk
// answers a right password with a stale nonce by one more challenge. Where a person unbanned the source, he has vouched
// for it.
func (j *judgement) loginMayBeGuessed(id uint64) bool {
	a := j.engine.accounts[id]
	vouchedFor := j.engine.vouchedFor.Get(j.now, j.hash(forVouched, 0)) != nil
	return a != nil && a.massGuessedUntil > j.now && !vouchedFor && !j.loggedInHere(id) &&
		(a.lastLogin != 0 || j.engine.isWarm())
}
