package engine

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/humanize"
)

const (
	// forgedHostile is the part of the threshold that bytes which no phone sends are worth where they could be forged:
	// a packet in a customer's name must not cost more than a request for an unknown account does.
	forgedHostile = 0.4
	// pointsTolerance forgives the rounding of points, which are kept in 32 bits.
	pointsTolerance = 1e-3
)

// judgement is the judgement of one event. Its engine does nothing else meanwhile.
type judgement struct {
	engine *Engine
	policy *config.Policy
	now    int64 // of the engine, ns

	// The event, and what follows from it alone.
	event   *event.Event
	account string // its account, or the name that its dialogue began with: see accountInDialogue
	pbx     uint8  // index in Engine.pbxs
	addr    netip.Addr
	key     sourceKey // of the source that addr belongs to
	rule    *rule     // its row of the evidence table; nil: the event is worth nothing
	proven  bool      // the sender has the address: it could not be forged

	// What was looked up or computed, each once and where a rule asks for it.
	tracked      *source   // see source
	lookedUp     *source   // see findSource
	isLookedUp   bool      // lookedUp is what there is, or nil where there is none
	trust        *trust    // see rememberedTrust
	trustLoaded  bool      // trust is what there is, or nil where there is none
	dialogueHash uint64    // see dialogueKey; 0: not yet
	state        *dialogue // see dialogueState
	stateLoaded  bool      // state is what there is, or nil where there is none
	accountHash  uint64    // see accountNameHash; 0: not yet

	// What came of it.
	points     float64    // of the last charge
	score      float64    // of the source, after it
	multiplied multiplier // of the last charge
	out        []ban.Decision
}

// newJudgement begins the judgement of an event that an address sent, as an Asterisk says.
func (e *Engine) newJudgement(ev *event.Event, from netip.Addr, pbx uint8, out []ban.Decision) judgement {
	return judgement{
		engine: e, policy: &e.policy, now: e.now,
		event: ev, account: ev.Account, pbx: pbx, addr: from, key: e.keyOf(from),
		proven: ev.Proven || ev.Remote.Transport.Proven() && !ev.AddressIsClaimed(),
		out:    out,
	}
}

// hash makes a hash of a purpose, the source of the event and one more number.
func (j *judgement) hash(p purpose, detail uint64) uint64 { return j.engine.hash(p, j.key, detail) }

// source returns the source of the event, made if need be, or nil where there is no room.
func (j *judgement) source() *source {
	if j.tracked == nil {
		j.tracked = j.engine.touchSource(j.key, j.findSource())
		j.isLookedUp = false
	}
	return j.tracked
}

// findSource returns the source of the event, or nil where it is not known. It is looked up once.
func (j *judgement) findSource() *source {
	switch {
	case j.tracked != nil:
		return j.tracked
	case !j.isLookedUp:
		j.lookedUp, j.isLookedUp = j.engine.sources.get(j.key), true
	}
	return j.lookedUp
}

// finish ends the judgement and returns what was decided.
func (j *judgement) finish() []ban.Decision {
	if j.tracked != nil {
		j.engine.classifySource(j.tracked)
	}
	return j.out
}

// appendDecision appends a decision about the event and a prefix.
func (j *judgement) appendDecision(
	action ban.Action, reason ban.Reason, prefix netip.Prefix, d time.Duration, proven bool, detail string,
) {
	j.out = append(j.out, ban.Decision{
		Time: utcTime(j.now), Action: action, Source: j.addr, Prefix: prefix, Reason: reason,
		Points: j.points, Score: j.score,
		Account: truncateAccount(j.account), Service: j.event.Service, Transport: j.event.Remote.Transport,
		Proven: proven, SeenBy: j.event.SeenBy, Duration: d, PBX: j.engine.pbxName(j.pbx), Detail: detail,
	})
}

// truncateAccount copies the name of an account from the wire, and cuts it where evidence does.
func truncateAccount(name string) string {
	if len(name) > nameBytes {
		return trimPartialRune(name[:nameBytes]) + "…"
	}
	return strings.Clone(name)
}

// accountNameHash is the hash of the account's name.
func (j *judgement) accountNameHash() uint64 {
	if j.accountHash == 0 {
		j.accountHash = j.engine.hashText(j.account)
	}
	return j.accountHash
}

// accountID identifies the account of the event. chan_sip's is another than PJSIP's of the same name.
func (j *judgement) accountID() uint64 {
	return j.engine.hashAccount(j.accountNameHash(), j.event.Service, j.pbx)
}

// hashAccount identifies an account by the hash of its name.
func (e *Engine) hashAccount(name uint64, service event.Service, pbx uint8) uint64 {
	return e.hash(forAccount, sourceKey{}, e.combine(name, uint64(service)<<8|uint64(pbx)))
}

// judgeHostile judges an event with bytes that no phone sends, whatever else it says. A login with such a Call-ID is
// nobody's phone either: its password is known to somebody who hides. It says whether the event is judged by that.
func (j *judgement) judgeHostile() (judged bool) {
	if j.rule.kind == kindLogin {
		if !j.event.UsingPassword {
			return true
		}
		j.proven = true
		j.judgeBreach(j.accountID(), nil, ban.ReasonMalformed,
			"a login by a program that hides its requests: change this account's password now")
		return true
	}
	if j.source() == nil {
		return true
	}
	// Of an event with broken lines the frame itself was reported.
	injected := j.event.Type == event.MalformedRequest
	if !injected && j.engine.firstReport(forTampering, j.key, 0) {
		j.appendDecision(ban.ActionTampering, ban.ReasonMalformed, j.engine.prefixOf(j.key), 0, j.proven,
			"control characters in a Call-ID or an answer, which no phone sends: a program that hides from log readers")
	}
	points := j.policy.Threshold
	if !j.proven {
		points *= forgedHostile
	}
	j.charge(max(0, points), ban.ReasonMalformed, noteHostile)
	return injected
}

// judgeAttempt judges a hostile request: once for each account in each dialogue.
func (j *judgement) judgeAttempt() {
	reason := j.rule.reason
	points := pointsFor(&j.policy.Points, reason)
	if reason == ban.ReasonUnknownAccount && j.isHoneypot() {
		reason, points = ban.ReasonHoneypot, j.policy.Points.Honeypot
	}
	if !j.firstSighting(j.attemptHash()) {
		return
	}
	j.creditDialogue(points)
	if reason == ban.ReasonUnknownAccount && j.deferIfChallenged(points) {
		return
	}
	j.judgeAccount(points, reason)
}

// judgeGuess judges a wrong answer to a challenge: each distinct answer once.
func (j *judgement) judgeGuess() {
	reason := j.rule.reason
	points := pointsFor(&j.policy.Points, reason)
	if j.isHoneypot() {
		reason, points = ban.ReasonHoneypot, j.policy.Points.Honeypot
	}
	var again repetition
	byPace := reason == ban.ReasonWrongPassword && (j.engine.enforcesService(j.event) || j.hasObservedLogins())
	if byPace {
		again = j.classifyAnswer(j.answerHash())
	} else if !j.firstSighting(j.answerHash()) {
		return
	}
	if d := j.dialogueState(); d != nil && d.creditedPoints > 0 && !again.copy {
		used := min(points, float64(d.creditedPoints))
		d.creditedPoints -= float32(used)
		if points -= used; points <= 0 {
			j.recordEvidence(j.source(), 0, reason, noteCovered)
			return
		}
	}
	if !byPace {
		j.judgeAccount(points, reason)
		return
	}
	j.judgeWrongPassword(failure{id: j.accountID(), points: points, reason: reason, again: again})
}

// isHoneypot says whether no phone has the account of the event: policy.honeypots.
func (j *judgement) isHoneypot() bool {
	return len(j.engine.honeypots) > 0 && j.engine.honeypots[j.account]
}

// serviceIsEnforced says whether evidence of the event's service leads to bans, and is not only observed.
func (j *judgement) serviceIsEnforced() bool {
	return j.policy.Mode != config.Observe && j.engine.enforcesService(j.event)
}

// enforcesService says whether policy.services enforces what an event is evidence of. chan_sip's are observed for the
// address that its peer may choose: a sensor saw the true one.
func (e *Engine) enforcesService(ev *event.Event) bool {
	service := ev.Service
	if service == event.SIP && !ev.AddressIsClaimed() && !e.enforces[service] {
		service = event.PJSIP
	}
	return e.enforces[service]
}

// charge adds points to the score of the source, keeps the event as evidence, and bans the source when the score is
// enough.
func (j *judgement) charge(points float64, reason ban.Reason, n note) {
	s := j.source()
	if s == nil {
		return
	}
	enforce := j.serviceIsEnforced()
	if _, ok := j.engine.allow.Covering(j.addr); ok {
		j.reportAllowedGuesser(s, points, reason)
		points, n = 0, noteAllowed
	} else if _, ok := j.engine.protected.Covering(j.addr); ok {
		n = noteProtected
	} else if points > 0 && j.isProxy() {
		j.reportThroughProxy(reason)
		points, n = 0, noteProxy
	}
	if j.engine.placeOf != nil && points > 0 {
		points = j.applyMultiplier(points, reason)
	}
	s.attempts++
	if reason == ban.ReasonManager && j.isKnownGood() {
		j.chargeManager(s, points, n)
		return
	}
	s.observedScore += float32(points)
	if enforce {
		s.score += float32(points)
		if j.proven {
			s.provenScore += float32(points)
		}
	} else if n == noNote {
		n = noteObserved
	}
	b := j.recordEvidence(s, points, reason, n)
	j.points, j.score = points, float64(s.observedScore)
	if enforce {
		j.score = float64(s.score)
	}
	if b != nil {
		b.attempts++
	}
	if points > 0 {
		j.countForActivity()
		// Wrong passwords are counted already, by judgeStrangerFailure.
		countedAlready := reason == ban.ReasonWrongPassword || reason == ban.ReasonDistributed
		if !countedAlready && j.sourceTrust() == nil {
			j.chargeWiderNetworks(points)
		}
		j.applyThreshold(s, b, reason, enforce)
	}
}

// chargeManager is charge for the manager's clients of a known good source: what they do says nothing of the phones
// there, so it has a score of its own, and closes nothing but the manager's ports.
func (j *judgement) chargeManager(s *source, points float64, n note) {
	details, enforce := j.engine.sources.detailsOf(s), j.serviceIsEnforced()
	details.managerScore *= j.engine.decayFactor(j.now - details.managerAt)
	details.managerScore += float32(points)
	details.managerAt = j.now
	if !enforce && n == noNote {
		n = noteObserved
	}
	b := j.recordEvidence(s, points, ban.ReasonManager, n)
	j.points, j.score = points, float64(details.managerScore)
	if b != nil {
		b.attempts++
	}
	if points <= 0 {
		return
	}
	j.countForActivity()
	limit := j.policy.Threshold
	if j.sourceTrust() != nil {
		limit *= j.policy.Trust.Tolerance
	}
	if j.score >= limit-pointsTolerance {
		j.banSource(s, b, ban.ReasonManager, enforce, true)
	}
}

// applyThreshold bans the source if its score is enough; b is its active ban, or nil. Of a known good source it closes
// what guesses, and no more.
func (j *judgement) applyThreshold(s *source, b *activeBan, reason ban.Reason, enforce bool) {
	limit := j.policy.Threshold
	t := j.sourceTrust()
	var guesser, provenGuesser bool
	if t != nil {
		guesser, provenGuesser = j.isGuesser(t)
		limit *= j.policy.Trust.Tolerance
		if float64(s.observedScore) < limit-pointsTolerance && !guesser {
			return
		}
	}
	proven := float64(s.provenScore) >= limit-pointsTolerance || provenGuesser
	switch {
	case t == nil:
	case !proven:
		// Packets that can be forged must not take trust from a customer.
		j.reportTolerated(ban.ReasonTolerance,
			"a trusted source fails more than is tolerated, but the evidence could be forged: not banned")
		j.reportGuessing(reason, "a trusted source guesses faster than any phone: it is not banned, "+
			"since the packets could be forged in a customer's name")
		j.slowUnproven(enforce)
		return
	case j.engine.inStorm() && t.explainedByStorm(j.now):
		j.reportTolerated(ban.ReasonStorm,
			"a trusted source fails more than is tolerated while many others do: "+stormText)
		return
	}
	if proven && j.isKnownGood() && reason != ban.ReasonManager {
		if !j.engine.IsExempt(j.addr) && !j.isSuspended(j.engine.prefixOf(j.key), enforce, true) {
			j.cutFlow(reason, enforce, provenGuesser)
		}
		return
	}
	switch {
	case enforce && float64(s.score) >= limit-pointsTolerance:
		j.banSource(s, b, reason, true, proven)
	case float64(s.observedScore) >= limit-pointsTolerance:
		j.banSource(s, b, reason, false, proven)
	}
}

// reportSpared reports, once an hour for each source and reason, that a prefix is not banned.
func (j *judgement) reportSpared(p netip.Prefix, reason ban.Reason, proven bool, detail string) {
	if j.engine.firstReport(forSpared, j.key, j.engine.hashText(string(reason))) {
		j.appendDecision(ban.ActionObserve, reason, p, 0, proven, detail)
	}
}

// reportTolerated reports, once an hour, that a trusted source is not banned.
func (j *judgement) reportTolerated(reason ban.Reason, detail string) {
	j.reportSpared(j.engine.prefixOf(j.key), reason, j.proven, detail)
}

// reportAllowedGuesser reports, once an hour, that a source guesses passwords that must not be banned: nobody else
// would tell.
func (j *judgement) reportAllowedGuesser(s *source, points float64, reason ban.Reason) {
	if points <= 0 {
		return
	}
	switch reason {
	case ban.ReasonWrongPassword, ban.ReasonDistributed, ban.ReasonManager, ban.ReasonHoneypot, ban.ReasonMalformed:
		j.reportSpared(j.engine.prefixOf(j.key), ban.ReasonAllowed, j.proven, fmt.Sprintf(
			"the allow list covers it: never banned, but it guesses passwords (%s so far)",
			humanize.Plural(int(s.attempts)+1, "attempt", "attempts")))
	}
}

// reportMisconfigured reports an error of set-up once an hour.
func (j *judgement) reportMisconfigured(reason ban.Reason, detail string) {
	if j.engine.firstReport(forMisconfigured+purpose(reasonIndex(reason)), j.key, j.accountNameHash()) {
		j.appendDecision(ban.ActionMisconfigured, reason, j.engine.prefixOf(j.key), 0, j.proven, detail)
	}
}

// reportRefusal keeps and reports that Asterisk refused a request for its set-up.
func (j *judgement) reportRefusal() {
	j.recordEvidence(j.source(), 0, ban.ReasonConfiguration, noteMisconfigured)
	j.reportMisconfigured(ban.ReasonConfiguration, refusalText(j.event))
}

// judgeRefusal judges a request that PJSIP refused for its set-up. It does so after a right password, and then the
// device, or Asterisk, is set up wrongly. Where nobody ever logged in from there, no password was asked for: the
// endpoint has no auth, as "anonymous" has none, and whoever comes may try what it lets him do.
func (j *judgement) judgeRefusal() {
	reason, points := j.rule.reason, pointsFor(&j.policy.Points, j.rule.reason)
	if j.isHoneypot() {
		reason, points = ban.ReasonHoneypot, j.policy.Points.Honeypot
	}
	if reason != ban.ReasonHoneypot && (j.sourceLoggedIn() || j.engine.IsExempt(j.addr)) {
		j.reportRefusal()
		return
	}
	if j.firstSighting(j.attemptHash()) {
		j.judgeAccountOf(failure{id: j.accountID(), points: points, reason: reason, refusal: refusalText(j.event)})
	}
}

// sourceLoggedIn says whether somebody logged in from the source of the event.
func (j *judgement) sourceLoggedIn() bool {
	s := j.source() // as far as it is not forgotten, whether or not somebody came by to forget it
	return j.isKnownGood() ||
		s != nil && s.detailsNumber > 0 && j.engine.sources.detailsOf(s).lastLogin != 0
}

// refusalText says, for a person, why Asterisk refused a request.
func refusalText(ev *event.Event) string {
	return "Asterisk refused the request for its set-up: " + configurationHint(ev)
}

// configurationHint says which part of Asterisk's set-up refused a request.
func configurationHint(ev *event.Event) string {
	switch ev.ACLName {
	case "registrar_attempt_exceeds_maximum_configured_contacts":
		return "more contacts than max_contacts of the AOR"
	case "registrar_attempt_without_configured_aors":
		return "the endpoint has no aors"
	case "registrar_invalid_contacts_provided":
		return "the phone sent an invalid Contact"
	case "registrar_invalid_uri_in_to_received":
		return "the phone sent an invalid To"
	case "peer_not_dynamic":
		return "the peer has no host=dynamic"
	}
	switch ev.Type {
	case event.RequestNotSupported:
		return "no such AOR for the endpoint"
	case event.RequestNotAllowed:
		return "a manager user lacks a privilege"
	case event.RequestBadFormat:
		return "a manager user sent an unknown action"
	case event.InvalidTransport:
		return "the peer may not use this transport"
	}
	return ev.Type.String()
}
