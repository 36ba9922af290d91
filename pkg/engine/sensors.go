package engine

import (
	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
)

// shutForScanner is how long nothing at all passes a ban on a scanner's mark, that could be forged. A scanner sends its
// next packets within a second; a customer whose address was forged is in within a minute all the same.
const shutForScanner = 30 * second

// judgeSilentGuess judges a wrong password of which Asterisk sent no event: no phone can keep it from that.
func (j *judgement) judgeSilentGuess() {
	if !j.firstSighting(j.answerHash()) {
		return
	}
	points := j.policy.Points.SilentGuess
	if !j.proven {
		points = min(points, j.policy.Threshold*forgedHostile)
	}
	j.charge(points, ban.ReasonSilentGuess, noNote)
}

// judgeSilentLogin judges a right password of which Asterisk sent no event. Whoever sent it hides, and has a password:
// his connection ends, whoever else is behind his address.
func (j *judgement) judgeSilentLogin() {
	if !j.firstSighting(j.answerHash()) {
		return
	}
	if !j.proven { // with a challenge that nobody sent: who knows the password can write any source on such a packet
		j.reportBreach(j.accountID(), ban.ReasonSilentLogin,
			"somebody guessed until the password was right: change this account's password now")
		j.charge(min(j.policy.Points.SilentGuess, j.policy.Threshold*forgedHostile), ban.ReasonSilentLogin, noNote)
		return
	}
	j.judgeBreach(j.accountID(), nil, ban.ReasonSilentLogin,
		"a login that Asterisk tells nobody of, by a program that hides: change this account's password now")
	if j.isKnownGood() && !j.engine.IsExempt(j.addr) {
		j.cutFlow(ban.ReasonSilentLogin, j.serviceIsEnforced(), false)
		return
	}
	j.charge(j.policy.Threshold, ban.ReasonSilentLogin, noNote)
}

// judgeScanner judges a request with the mark of a scanner's program. One is enough, unless it came from where
// customers are.
func (j *judgement) judgeScanner() {
	if !j.firstSighting(j.attemptHash()) {
		return
	}
	if j.isKnownGood() {
		j.recordEvidence(j.source(), 0, ban.ReasonScanner, noteCustomersMark)
		j.reportTolerated(ban.ReasonScanner, "a request with the mark of a scanner's program came from a customer's "+
			"address: not banned")
		return
	}
	j.charge(j.policy.Points.Scanner, ban.ReasonScanner, noNote)
}

// judgeProbe judges a request that a customer may make by mistake: a number that does not exist, a message that
// Asterisk cannot read. A search may have one Call-ID: its requests are told apart by the mark that a sensor gives
// each.
func (j *judgement) judgeProbe() {
	if !j.firstSighting(j.answerHash()) {
		return
	}
	reason, points := j.rule.reason, pointsFor(&j.policy.Points, j.rule.reason)
	if j.event.Type == event.DialplanReport && j.event.Report == event.HoneypotNumber {
		reason, points = ban.ReasonHoneypot, j.policy.Points.Honeypot
	}
	if j.sourceLoggedIn() {
		j.recordEvidence(j.source(), 0, reason, noteCustomersMistake)
		if reason == ban.ReasonHoneypot {
			j.reportTolerated(reason, "a customer dialled a honeypot number, as your dialplan says: not banned")
		}
		return
	}
	j.charge(points, reason, noNote)
}

// judgeRefusedAccount judges credentials that Asterisk refused, and sent no event of.
func (j *judgement) judgeRefusedAccount() {
	reason, points := j.rule.reason, pointsFor(&j.policy.Points, j.rule.reason)
	if j.isHoneypot() {
		reason, points = ban.ReasonHoneypot, j.policy.Points.Honeypot
	}
	if j.firstSighting(j.answerHash()) {
		j.judgeAccount(points, reason)
	}
}
