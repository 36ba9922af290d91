package engine

import (
	"math"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
)

// judgeLogin judges a right password: trust for the source, unless it was guessed.
func (j *judgement) judgeLogin() {
	if !j.event.UsingPassword {
		return
	}
	if j.event.Service == event.SIP && !j.engine.enforcesService(j.event) {
		j.recordObservedLogin()
		return
	}
	j.proven = true // the nonce is bound to the source address: the answer came from there
	id := j.accountID()
	s := j.source()
	flow := j.loginFlow(id)
	known := j.engine.loginFlows.Get(j.now, flow) != nil // this phone logged in before: it did not guess
	if !known {
		guesses := j.recentFailures(id)
		if guesses != nil && guesses.showsGuessing(j.policy.Breach.Failures) {
			const detail = "a login right after guessing: change this account's password now"
			if j.judgeBreach(id, guesses, ban.ReasonGuessed, detail) {
				return
			}
		} else if have := j.engine.guessedLogins.Get(j.now, j.hash(forBreach, id)); have != nil && have.until > j.now {
			return
		}
	}
	if s != nil {
		details := j.engine.sources.detailsOf(s)
		details.lastLogin, details.overflowPoints, s.openChallenges = j.now, 0, 0
	}
	if !known && j.loginMayBeGuessed(id) {
		j.recordEvidence(s, 0, ban.ReasonLogin, notePossibleBreach)
		j.reportBreach(id, ban.ReasonDistributed,
			"this account is being guessed, and logged in from where it never was: perhaps a guess was right; "+
				"no trust while it goes on")
		return
	}
	j.engine.loginFlows.Renew(j.now, flow)
	account := j.engine.accountOf(id)
	j.noticePlace(id, account)
	j.keepFlowGood(id, account)
	if m := j.policy.Trust.Match; m != nil && !m.MatchString(j.event.Account) {
		return
	}
	if account != nil {
		account.lastLogin = j.now
	}
	j.grantTrust(s, id)
	j.forgiveFirstName()
	j.endSlowness()
	if !known {
		j.detectProxy()
	}
	// The source has just proven itself: a ban on evidence that could be forged, or for its neighbours' sake, is over.
	if s == nil || s.banned {
		if b := j.engine.activeBanOf(j.key); b != nil && !b.proven && !b.manual {
			j.unbanAfterLogin(b)
		}
	}
	for _, net := range j.engine.networksOf(j.engine.prefixOf(j.key)) {
		if b := j.engine.bans[net]; b != nil && b.reason == ban.ReasonNetwork && b.until > j.now {
			j.unbanAfterLogin(b)
		}
	}
}

// recordObservedLogin notes a login through chan_sip where that is only observed. It earns no trust, since chan_sip
// reports whatever address its peer writes; but what is observed there is judged as an office's.
func (j *judgement) recordObservedLogin() {
	if s := j.source(); s != nil {
		j.engine.sources.detailsOf(s).lastObservedLogin = seconds(j.now)
	}
}

// hasObservedLogins says whether somebody logged in from the source of a chan_sip event within trust.ttl, while that is
// only observed, as far as the source is not forgotten.
func (j *judgement) hasObservedLogins() bool {
	if j.event.Service != event.SIP || j.engine.enforces[event.SIP] {
		return false
	}
	s := j.source()
	if s == nil || s.detailsNumber == 0 {
		return false
	}
	at := j.engine.sources.detailsOf(s).lastObservedLogin
	return at != 0 && int64(seconds(j.now)-at)*second < int64(j.policy.Trust.TTL)
}

// loginFlow identifies the exact sender of an account's login: address, port and transport. Nobody else has its
// packets.
func (j *judgement) loginFlow(account uint64) uint64 {
	to := uint64(j.event.Remote.AddrPort.Port())<<8 | uint64(j.event.Remote.Transport)
	return j.engine.hash(forLoginFlow, j.addressKey(), j.engine.combine(account, to))
}

// addressKey is the address of the event itself: an IPv6 source is a network of many.
func (j *judgement) addressKey() sourceKey { return sourceKey(j.addr.As16()) }

// judgeBreach judges a login after guesses of its account from the same source, which are nil where the login itself is
// hostile. It says whether the login earns no trust. Forged packets can make any login look guessed, so guesses that
// could be forged take nothing from an account that logged in from there before, and are remembered for
// ban.forgeable_max only.
func (j *judgement) judgeBreach(id uint64, guesses *failures, reason ban.Reason, detail string) (untrusted bool) {
	j.recordEvidence(j.source(), 0, ban.ReasonLogin, noteBreach)
	j.reportBreach(id, reason, detail)
	until := int64(math.MaxInt64)
	if guesses != nil && !guesses.proven {
		if j.loggedInHere(id) {
			guesses.pace = pace{leakedAt: j.now}
			return false
		}
		until = j.now + int64(j.policy.Ban.ForgeableMax)
	}
	b, _ := j.engine.guessedLogins.Put(j.now, j.hash(forBreach, id))
	b.from, b.until = j.key, max(b.until, until)
	return true
}

// guessedLogin is a login after guessing, of one account from one source.
type guessedLogin struct {
	from  sourceKey
	until int64 // a login like it earns no trust until then, ns
}

// reportBreach reports a breach, once an hour for each source, account and reason.
func (j *judgement) reportBreach(id uint64, reason ban.Reason, detail string) {
	if j.engine.firstReport(forBreachReport, j.key, j.engine.combine(id, uint64(reasonIndex(reason)))) {
		j.appendDecision(ban.ActionBreach, reason, j.engine.prefixOf(j.key), 0, true, detail)
	}
}

// unbanAfterLogin ends a ban because of a login.
func (j *judgement) unbanAfterLogin(b *activeBan) {
	j.engine.removeBan(b)
	if !b.observed {
		j.appendDecision(ban.ActionUnban, ban.ReasonLogin, b.prefix, 0, true,
			"a user logged in from there with a password")
		d := &j.out[len(j.out)-1]
		d.Scope, d.Closes = j.engine.scopeOf(b), b.closes // which tells where the kernel has it
	}
}
