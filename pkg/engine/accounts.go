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
	success   int64     // the last login, ns
	failing   []failure // sources without trust that fail on it, by evidence that could not be forged
	forgeable []failure // the others
	targeted  int64     // until then it is under distributed guessing, ns
	suspected int64     // until then it would be, if all the evidence was true, ns

	suspectedAt int64             // when that began, ns
	guesses     table.LeakyBucket // from everywhere
	mass        int64             // until then it was guessed more than phones and persons do, ns
}

type failure struct {
	from key
	at   int64 // the last, ns
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
		e.forgetFailures(&a.failing)
		e.forgetFailures(&a.forgeable)
		if len(a.failing)+len(a.forgeable) == 0 && max(a.targeted, a.suspected, a.mass) <= e.now && e.now-a.success >= int64(e.cfg.Roaming.Within) {
			delete(e.accounts, id)
		}
	}
}

func (e *Engine) forgetFailures(of *[]failure) {
	*of = slices.DeleteFunc(*of, func(f failure) bool { return e.now-f.at >= int64(e.cfg.Targeted.Within) })
}

// recordLogin notes a login.
func (e *Engine) recordLogin(id uint64) {
	if a := e.accountOf(id); a != nil {
		a.success = e.now
	}
}

// roams says whether an account logged in somewhere else so lately that this may be its user in a new place.
func (e *Engine) roams(id uint64) bool {
	a := e.accounts[id]
	return a != nil && a.success != 0 && e.now-a.success < int64(e.cfg.Roaming.Within)
}

// accountGuessed notes that the source of the event fails on an account, and reports the account when many sources without
// trust do. It returns the account as it was before, or nil.
func (j *judgement) accountGuessed(id uint64) *account {
	limit := j.policy.Targeted.Sources
	if limit <= 0 {
		return nil
	}
	a := j.engine.accountOf(id)
	if a == nil {
		return nil
	}
	if a.guesses.Add(j.now, 1, massPerMinute) > massGuesses {
		a.mass = j.now + int64(j.policy.Targeted.Within)
	}
	before := *a
	if j.trust() != nil {
		return &before
	}
	of := &a.forgeable
	if j.proven {
		of = &a.failing
	}
	j.failsOn(of, limit)
	if len(a.failing) >= limit {
		a.targeted = j.now + int64(j.policy.Targeted.Within)
		if before.targeted <= j.now {
			j.decide(ban.ActionTargeted, ban.ReasonDistributed, j.engine.prefixOf(j.key), 0, j.proven,
				"many sources guess this account: one more failure bans a source without trust")
		}
	}
	if len(a.failing)+len(a.forgeable) >= limit {
		a.suspected = j.now + int64(j.policy.Targeted.Within)
		if before.suspected <= j.now {
			a.suspectedAt = j.now
			j.reportSuspected(a)
		}
	}
	return &before
}

// reportSuspected reports, once an hour for all accounts, that one may be under distributed guessing: forged packets can
// make any number of accounts look so.
func (j *judgement) reportSuspected(a *account) {
	if a.targeted <= j.now && j.engine.firstReport(forSuspected, key{}, 0) {
		j.decide(ban.ActionTargeted, ban.ReasonDistributed, j.engine.prefixOf(j.key), 0, false,
			"many sources guess this account, or somebody forges their packets: a source without trust is banned after a few failures")
	}
}

// failsOn notes that the source of the event fails on an account.
func (j *judgement) failsOn(of *[]failure, limit int) {
	if i := slices.IndexFunc(*of, func(f failure) bool { return f.from == j.key }); i >= 0 {
		(*of)[i].at = j.now
	} else {
		if len(*of) >= limit {
			j.engine.forgetFailures(of)
		}
		for len(*of) >= limit { // the freshest are enough
			oldest := slices.MinFunc(*of, func(f, g failure) int { return cmp.Compare(f.at, g.at) })
			*of = slices.DeleteFunc(*of, func(f failure) bool { return f.from == oldest.from })
		}
		*of = append(*of, failure{j.key, j.now})
	}
	if len(*of) >= limit {
		j.engine.forgetFailures(of)
	}
}

// mayBeGuessed says whether a login may be that of a guesser who found the password while he was not heard, as Asterisk
// answers a right password with a stale nonce by a challenge: many guessed the account of late, it is not known to log
// in from there, and it would be known if it had done so before. Where a person unbanned the source, he has vouched for it.
func (j *judgement) mayBeGuessed(id uint64) bool {
	a := j.engine.accounts[id]
	vouched := j.engine.absolved.Get(j.now, j.hash(forAbsolved, 0)) != nil
	return a != nil && a.mass > j.now && !vouched && !j.worksHere(id) && (a.success != 0 || j.now-j.engine.started >= int64(j.policy.Challenges.Warmup))
}
