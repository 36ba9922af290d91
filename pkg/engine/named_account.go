package engine

import (
	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
)

// accountName is the name of an account, of a long one its beginning.
type accountName struct {
	length uint8
	text   [nameBytes]byte
}

// nameAccount finds out which account the event is about. PJSIP answers a request for an account that it does not have
// with an InvalidAccountID, which has the name, and speaks of "<unknown>" from then on in the same dialogue: a person
// who reads of it must know which device to mend.
func (j *judgement) nameAccount() {
	if j.event.Service != event.PJSIP {
		return
	}
	switch {
	case j.event.Account == unknownAccount && j.event.Type != event.ChallengeSent: // which is told of nobody
		if name := j.dialogueName(); name != nil {
			j.account = string(name.text[:name.length])
		}
	case j.event.Type == event.InvalidAccountID && j.event.Account != "" && len(j.event.Account) <= nameBytes:
		j.ownDialogue()
		if j.dialogueName() == nil {
			var name *accountName
			name, j.state.name = j.engine.dialogueNames.Add(j.dialogueKey(), 0)
			name.length = uint8(copy(name.text[:], j.event.Account))
		}
	}
}

// dialogueName returns the account that the dialogue of the event named first, where Asterisk does not have it, or nil.
func (j *judgement) dialogueName() *accountName {
	d := j.dialogueState()
	if d == nil {
		return nil
	}
	return j.engine.dialogueNames.Get(j.dialogueKey(), d.name)
}

// judgeAccount judges an attempt that failed for another reason than a wrong password: the account does not exist, its
// ACL forbids the address, or it is a manager user's. One or few accounts at a device's pace are a device that somebody
// should mend, and cost nothing beyond the first attempt.
func (j *judgement) judgeAccount(points float64, reason ban.Reason) {
	j.judgeAccountOf(failure{id: j.accountID(), points: points, reason: reason})
}

// judgeAccountOf is judgeAccount for a failure.
func (j *judgement) judgeAccountOf(now failure) {
	switch {
	case now.reason == ban.ReasonHoneypot || j.engine.IsExempt(j.addr): // no device has it; nobody is banned for it
		j.charge(now.points, now.reason, noNote)
	case now.reason == ban.ReasonManager: // says nothing of the phones there: it does not count against their trust
		j.judgeStrangerAttempt(now)
	default:
		if t := j.sourceTrust(); t != nil && j.hasRoomForFailures(t, now.id) {
			j.judgeCustomerFailure(t, now)
			return
		}
		j.judgeStrangerAttempt(now)
	}
}

// hasRoomForFailures says whether a failure of an account can be remembered at a trusted source without losing that of
// another: a scan must not hide whose passwords are being guessed.
func (j *judgement) hasRoomForFailures(t *trust, id uint64) bool {
	j.forgetOldFailures(t)
	return t.failures[id] != nil || len(t.failures) < failuresPerTrust/2
}

// repeatedAtPace is how many attempts of one account, leaking at misconfigured.per_minute, are no more than a device
// makes that tries again and again: one at a time, and what its clock is off by.
const repeatedAtPace = 1.5

// judgeStrangerAttempt judges an attempt from a source without trust, or of a manager user: the first one of an account
// costs points, since a scanner goes on to the next name, and so does whatever is faster than a device.
func (j *judgement) judgeStrangerAttempt(now failure) {
	s := j.source()
	if s == nil {
		return
	}
	loggedInHere := j.loggedInHere(now.id) // a phone of an account that was deleted
	if !loggedInHere && j.bannedBefore(s) {
		j.charge(now.points, now.reason, noNote)
		return
	}
	f := j.failuresIn(j.engine.strangerAttempts, now.id)
	first := f.total == 0
	f.addGuess(j.now)
	f.proven = f.proven || j.proven
	burst := j.policy.Misconfigured.Burst
	if loggedInHere {
		j.chargeByPace(&f.pace, f, burst, noteDevice, now)
		return
	}
	if first || burst <= 0 || f.tokens > repeatedAtPace {
		j.charge(now.points*f.takeUncharged(now.again), now.reason, noNote)
		return
	}
	details := j.engine.sources.detailsOf(s)
	details.failingAccounts.Add(seconds(j.now), idleResetSeconds, j.accountNameHash(), j.engine.sketchBit(j.account))
	if details.failingAccounts.AtLeast() > j.policy.Misconfigured.Accounts {
		j.charge(now.points, now.reason, noNote)
		return
	}
	j.sparePace(&f.pace, f, noteDevice, now)
}

// bannedBefore says whether a source was banned within ban.memory, and no person has vouched for it since.
func (j *judgement) bannedBefore(s *source) bool {
	return s.bans > 0 && j.engine.vouchedFor.Get(j.now, j.hash(forVouched, 0)) == nil
}

// forgiveFirstName forgets that the name with which the dialogue of a login began does not exist: with auth_username in
// endpoint_identifier_order, a healthy phone may show another.
func (j *judgement) forgiveFirstName() {
	if j.event.Service != event.PJSIP {
		return
	}
	t := j.rememberedTrust()
	if t == nil || len(t.failures) == 0 {
		return
	}
	if name := j.dialogueName(); name != nil {
		first := j.engine.hashText(string(name.text[:name.length]))
		delete(t.failures, j.engine.hashAccount(first, j.event.Service, j.pbx))
	}
}
