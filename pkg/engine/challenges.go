package engine

import (
	"net/netip"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

// maxOpenChallenges is how many requests of one source wait for its login one by one.
const maxOpenChallenges = 32

// pendingEvent is an event that counts only if no login answers it in time. It has what its judgement will need of the
// event.
type pendingEvent struct {
	since        int64 // when it came, ns
	due          int64 // when the time for a login is over, ns
	points       float32
	knownAccount bool // Asterisk knows the account: it sent no "<unknown>"
	key          sourceKey
	addr         netip.AddrPort
	pbx          uint8
	typ          event.Type
	service      event.Service
	transport    event.Transport
	length       uint8 // of account
	account      [nameBytes]byte
}

// challengedAccount is how one source asks in the name of an account that Asterisk knows.
type challengedAccount struct {
	rate       table.LeakyBucket // of its requests
	waitsSince int64             // one of them waits in Engine.pending since then, ns; 0 for none
}

// judgeChallenge judges a ChallengeSent. By itself it says nothing: every healthy phone gets one. Without a login after
// it, for "<unknown>" it is a request that no endpoint matches, and for many known accounts it is enumeration.
func (j *judgement) judgeChallenge() {
	if j.policy.Challenges.AnswerWithin <= 0 {
		return
	}
	if j.event.Account != unknownAccount {
		// Whoever logged in from there knows the names of accounts already.
		if j.sourceTrust() != nil || j.loggedInHere(j.accountID()) {
			return
		}
		challenged, _ := j.engine.challenged.Renew(j.now, j.hash(forChallenged, j.accountNameHash()))
		waits := challenged.waitsSince != 0 && j.now-challenged.waitsSince < dialogueTTL
		if j.policy.Challenges.Accounts > 0 && !waits {
			challenged.waitsSince = j.now
		}
		j.meterChallenges(&challenged.rate)
		if j.policy.Challenges.Accounts > 0 && !waits {
			j.enqueuePending(pendingEvent{knownAccount: true, points: float32(j.policy.Points.UnansweredChallenge)})
		}
		return
	}
	// A request that no endpoint matches has an InvalidAccountID or a FailedACL before the challenge, which counts
	// already. Without one, endpoint_identifier_order has auth_username, and healthy phones look like this too.
	if d := j.dialogueState(); d != nil && !d.onlyChallenged || j.sourceTrust() != nil {
		return
	}
	if j.firstSighting(j.hash(forChallenge, j.dialogueKey())) {
		if d := j.dialogueState(); d != nil {
			d.onlyChallenged = true
		}
		j.deferCharge(j.policy.Points.UnansweredChallenge)
	}
}

// challengeBurst is how many requests of a known account may go unanswered at once: a phone that starts asks for each
// key that shows somebody's state.
const challengeBurst = 20

// meterChallenges counts a request of a known account that has no password yet, and lets it cost points where there are
// more than phones send, unless a login from there follows.
func (j *judgement) meterChallenges(rate *table.LeakyBucket) {
	perMinute := j.policy.Challenges.PerMinute
	if perMinute <= 0 {
		return
	}
	// Only then it is worth remembering which of them are retransmissions.
	if rate.Add(j.now, 1, perMinute) > challengeBurst && j.ownDialogue().isNewChallenge() {
		j.deferCharge(j.policy.Points.UnansweredChallenge)
	}
}

// deferIfChallenged keeps an InvalidAccountID back where the source has challenges open that came without one: there
// endpoint_identifier_order has auth_username, and several phones behind one address get InvalidAccountID while all is
// well (from the fifth request in five seconds; res_pjsip/pjsip_distributor.c).
func (j *judgement) deferIfChallenged(points float64) bool {
	s := j.findSource()
	if s == nil || s.openChallenges == 0 || j.sourceTrust() != nil {
		return false
	}
	j.deferCharge(points)
	return true
}

// deferCharge gives the source of the event time to log in before the event costs points. Beyond maxOpenChallenges of
// one source there is one sum of points for all, so that no source fills the queue.
func (j *judgement) deferCharge(points float64) {
	s := j.source()
	if s == nil {
		return
	}
	if s.openChallenges >= maxOpenChallenges {
		j.engine.sources.detailsOf(s).overflowPoints += float32(points)
		return
	}
	if j.enqueuePending(pendingEvent{points: float32(points)}) {
		s.openChallenges++
	}
}

// enqueuePending puts an event off until challenges.answer_within is over, and says whether there was room.
func (j *judgement) enqueuePending(p pendingEvent) bool {
	if j.engine.pending.Len() >= maxPending {
		j.engine.hitLimits["challenges"]++
		return false
	}
	p.since, p.due = j.now, j.now+int64(j.policy.Challenges.AnswerWithin)
	if last := j.engine.pending.Last(); last != nil {
		p.due = max(p.due, last.due) // answer_within was shortened meanwhile
	}
	p.key, p.addr, p.pbx = j.key, j.event.Remote.AddrPort, j.pbx
	p.typ, p.service, p.transport = j.event.Type, j.event.Service, j.event.Remote.Transport
	p.length = uint8(min(len(j.event.Account), nameBytes))
	copy(p.account[:], j.event.Account)
	j.engine.pending.Push(p)
	return true
}

// settlePending judges an event whose time for a login is over.
func (e *Engine) settlePending(p *pendingEvent, out []ban.Decision) []ban.Decision {
	answered, overflow := e.activeTrust(p.key) != nil, float32(0)
	if s := e.sources.get(p.key); s != nil {
		details := e.sources.detailsOf(s)
		answered = answered || details.lastLogin != 0 && details.lastLogin >= p.since
		if !p.knownAccount && s.openChallenges > 0 && details.lastLogin < p.since { // a login closes all that was open
			s.openChallenges--
			overflow, details.overflowPoints = details.overflowPoints, 0
		}
	}
	if answered {
		return out
	}
	ev := event.Event{Type: p.typ, Service: p.service, Account: string(p.account[:p.length]),
		Remote: event.Address{AddrPort: p.addr, Transport: p.transport}}
	j := e.newJudgement(&ev, p.addr.Addr().Unmap(), p.pbx, out)
	switch {
	case p.knownAccount:
		j.recordUnanswered(float64(p.points), e.sketchBit(ev.Account))
	case p.typ == event.InvalidAccountID:
		j.charge(float64(p.points+overflow), ban.ReasonUnknownAccount, noteUnanswered)
	default:
		j.charge(float64(p.points+overflow), ban.ReasonUnansweredChallenge, noteUnanswered)
	}
	return j.finish()
}

// recordUnanswered notes a known account whose challenge stayed unanswered, and charges the source once there are many.
func (j *judgement) recordUnanswered(points float64, bit uint8) {
	s := j.source()
	if s == nil {
		return
	}
	challenged := &j.engine.sources.detailsOf(s).challengedAccounts
	fresh := challenged.Add(seconds(j.now), idleResetSeconds, bit)
	if fresh && challenged.Estimate() > j.policy.Challenges.Accounts && j.engine.isWarm() {
		j.charge(points, ban.ReasonUnansweredChallenge, noteEnumeration)
	}
}

// isWarm says whether the engine has run for so long that every phone has logged in.
func (e *Engine) isWarm() bool { return e.now-e.started >= int64(e.policy.Challenges.Warmup) }
