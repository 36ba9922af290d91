package witness

import (
	"net/netip"
	"strconv"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/sip"
)

type attemptKind uint8

const (
	guess           attemptKind = iota // credentials that are wrong
	refused                            // credentials, answered by 403: chan_sip's wrong password
	unknownAccount                     // an account that does not exist
	login                              // credentials that are right
	probing                            // a number or a user that does not exist
	hiddenChallenge                    // a request of which no event can tell, without credentials
	malformed                          // what Asterisk cannot read
	unseen                             // no attempt: an event of which no sensor saw the request
)

// attempt waits for its event.
type attempt struct {
	kind        attemptKind
	isPaid      bool // an event told of it
	own         bool // it answers a challenge that was sent to its sender
	requestedAt int64
	at          int64 // when it was answered
	dialogue    uint64
	transaction uint64 // of what is malformed
	sender      uint64 // key in Witness.senders of its credentials; 0: none
	waitsFor    uint64 // key in Witness.attempts; 0: none
	mark        uint64 // is its own
	sight       Sight

	text           []byte // Call-ID, account, detail
	session, user  int    // lengths in text
	next           *attempt
	before, behind *attempt // others that wait for the same
}

func (w *Witness) newAttempt(kind attemptKind, s *Sight, m *sip.Message, dialogue uint64, t *transaction) *attempt {
	a := w.free
	if a != nil {
		w.free = a.next
	} else {
		a = new(attempt)
	}
	*a = attempt{
		kind: kind, own: t.own, requestedAt: t.requestedAt, at: w.now, dialogue: dialogue, sender: t.sender, sight: *s,
		text: a.text[:0],
		mark: w.combine(t.credentials^uint64(t.waiting), w.transactionKey(dialogue, m)),
	}
	if a.requestedAt == 0 {
		a.requestedAt = w.now
	}
	id := callID(m)
	a.text = append(a.text, id[:min(len(id), maxSession)]...)
	a.session = len(a.text)
	a.text = append(a.text, m.From.User[:min(len(m.From.User), maxAccount)]...)
	a.user = len(a.text) - a.session
	a.text = append(a.text, m.To.User[:min(len(m.To.User), maxDetail)]...)
	return a
}

func (w *Witness) recycle(a *attempt) {
	*a = attempt{next: w.free, text: a.text[:0]}
	w.free = a
}

// wait has an attempt wait for its event.
func (w *Witness) wait(kind attemptKind, s *Sight, m *sip.Message, dialogue uint64, t *transaction) *attempt {
	if w.waiting >= maxWaiting {
		w.stats.Evicted++
		return nil
	}
	a := w.newAttempt(kind, s, m, dialogue, t)
	switch kind {
	case guess, refused:
		w.expect(a, t.answer)
	case login:
		w.expect(a, w.of(forLogin, dialogue, 0))
	}
	w.enqueue(a)
	return a
}

func (w *Witness) enqueue(a *attempt) {
	w.waiting++
	if w.youngest != nil {
		w.youngest.next = a
	} else {
		w.oldest = a
	}
	w.youngest = a
}

// expect has an attempt found by what an event tells.
func (w *Witness) expect(a *attempt, key uint64) {
	a.waitsFor = key
	if a.behind = w.attempts[key]; a.behind != nil {
		a.behind.before = a
	}
	w.attempts[key] = a
}

// forgo ends that.
func (w *Witness) forgo(a *attempt) {
	if a.waitsFor == 0 {
		return
	}
	switch {
	case a.before != nil:
		a.before.behind = a.behind
	case a.behind != nil:
		w.attempts[a.waitsFor] = a.behind
	default:
		delete(w.attempts, a.waitsFor)
	}
	if a.behind != nil {
		a.behind.before = a.before
	}
	a.waitsFor, a.before, a.behind = 0, nil, nil
}

// pay notes that an event told of the attempt.
func (w *Witness) pay(a *attempt) {
	w.forgo(a)
	a.isPaid = true
}

// decideWaiting decides the attempts whose moment is over.
func (w *Witness) decideWaiting() {
	const often = 20 * millisecond // not with each packet of a flood
	if w.now-w.decidedAt < often {
		return
	}
	w.decidedAt = w.now
	var before *attempt
	for a := w.oldest; a != nil && w.now-a.at >= w.moment; {
		next := a.next
		if !a.isPaid && !w.decide(a) && w.now-a.at < patience {
			before, a = a, next
			continue
		}
		if before != nil {
			before.next = next
		} else {
			w.oldest = next
		}
		if next == nil {
			w.youngest = before
		}
		w.forgo(a)
		w.recycle(a)
		w.waiting--
		a = next
	}
}

// decide says what an attempt is of which no event told until now; it is not ok where that is not known yet.
func (w *Witness) decide(a *attempt) (ok bool) {
	var d *dialogue
	if e := w.dialogues.get(w.now, a.dialogue); e != nil {
		d = &e.value
	} else {
		d = new(dialogue)
	}
	if a.kind == unseen {
		return w.decideUnseen(a, d)
	}
	l := &w.localAt(a.sight.Asterisk).value
	switch a.kind {
	case guess:
		switch {
		case d.failures > 0: // told in other words than was expected
			d.failures--
			return true
		case d.challenges > 0: // Asterisk took the credentials for those of another realm
			d.challenges--
			return true
		}
		return w.decideFailure(a, l)
	case refused, unknownAccount:
		return d.events > 0 || w.decideFailure(a, l)
	case login:
		return w.decideLogin(a, l)
	case probing:
		if d.events == 0 {
			ev := w.attemptEvent(event.Probing, a, l)
			w.find(l, ev)
		}
	case hiddenChallenge:
		if d.attemptedAt < a.at { // else its sender is known for that
			w.find(l, w.attemptEvent(event.MalformedRequest, a, l))
		}
	case malformed:
		t := w.transactions.get(w.now, a.transaction)
		understood := t != nil && t.value.status != 0 && t.value.status != 400
		if d.events == 0 && !understood {
			w.find(l, w.attemptEvent(event.MalformedRequest, a, l))
		}
	}
	return true
}

// decideUnseen notes that Asterisk challenged somebody and no sensor saw it.
func (w *Witness) decideUnseen(a *attempt, d *dialogue) (ok bool) {
	if d.isSeen {
		return true
	}
	if w.now-a.at < clearFor {
		return false
	}
	e := w.source(a.sight.Remote.Addr())
	e.value.unseenAt = w.now
	w.promote(e)
	return true
}

// decideFailure judges a failure that an event should have told of.
func (w *Witness) decideFailure(a *attempt, l *local) (ok bool) {
	since := a.requestedAt - clearFor
	blind := l.pbx != nil && l.pbx.wasBlind(since) || l.pbx == nil && w.anyBlind(since)
	switch {
	case a.kind == refused && l.service != event.SIP:
		// PJSIP refuses no wrong password so: it is an access list's word, which is told, or the set-up's.
	case blind:
		w.findOrdinaryFailure(a, l)
	case l.pbx == nil:
		w.stats.Unproven++ // something else than Asterisk may answer there, or one without AMI
	case l.service == event.SIP:
		return w.decideGuessOnSIP(a, l)
	case l.pbx.passed > a.at && a.kind == guess:
		w.findGuess(a, l, event.SilentGuess)
	case l.pbx.passed > a.at || w.now-a.at >= patience:
		w.findOrdinaryFailure(a, l)
	default:
		return false
	}
	return true
}

// decideGuessOnSIP judges a wrong password that chan_sip should have told of. It compares an answer to a challenge that
// it takes no more as well, says by stale whether the password was right, and tells nobody (check_auth in chan_sip.c).
// Its events name the address of the Via header, which may be another than what a sensor sees: challenge and answer say
// which guess is meant.
func (w *Witness) decideGuessOnSIP(a *attempt, l *local) (ok bool) {
	if a.kind != guess {
		return true
	}
	if s := w.senders.get(w.now, a.sender); s == nil || s.value.told {
		return true
	}
	if l.pbx.passed < a.at && w.now-a.at < patience {
		return false
	}
	w.findOrdinaryFailure(a, l)
	return true
}

// decideLogin judges a login that an event should have told of.
func (w *Witness) decideLogin(a *attempt, l *local) (ok bool) {
	if l.pbx == nil || l.service != event.PJSIP || !l.loginsTold || l.pbx.wasBlind(a.requestedAt-clearFor) {
		w.stats.Unproven++
		return true
	}
	if l.pbx.passed <= a.at {
		return false
	}
	w.findLogin(a, l)
	return true
}

func (w *Witness) attemptEvent(t event.Type, a *attempt, l *local) event.Event {
	ev := w.eventOf(t, &a.sight, l)
	session, rest := a.text[:a.session], a.text[a.session:]
	ev.Session = text(session, maxSession)
	ev.Account, ev.Detail = text(rest[:a.user], maxAccount), text(rest[a.user:], maxDetail)
	ev.Proven = a.own
	ev.Response = strconv.FormatUint(a.mark, 16) // tells attempts apart; credentials are not kept
	return ev
}

func (w *Witness) findGuess(a *attempt, l *local, t event.Type) {
	ev := w.attemptEvent(t, a, l)
	ev.Detail = ""
	w.find(l, ev)
}

// findOrdinaryFailure tells of a failure as an event would have that did not come: a phone with an old password is no
// program that hides.
func (w *Witness) findOrdinaryFailure(a *attempt, l *local) {
	t := event.ChallengeResponseFailed
	if a.kind == unknownAccount {
		t = event.InvalidAccountID
	}
	w.findGuess(a, l, t)
	if a.kind != unknownAccount {
		if e := w.answers.get(w.now, a.waitsFor); e != nil {
			e.value.found = min(e.value.found+1, 250)
		}
	}
}

func (w *Witness) findLogin(a *attempt, l *local) {
	w.findGuess(a, l, event.SilentLogin)
}

// malformed has a message wait that Asterisk should not be able to read.
func (w *Witness) malformed(s *Sight, m *sip.Message, dialogue, key uint64) {
	if w.isRepeated(s, w.combine(w.bytes(m.From.Raw)^uint64(m.CSeq), w.bytes(m.RequestURI.Raw)^dialogue)) {
		return
	}
	if a := w.wait(malformed, s, m, dialogue, &transaction{}); a != nil {
		a.transaction = key
	}
}

// isRepeated says whether the same came from there lately.
func (w *Witness) isRepeated(s *Sight, hash uint64) bool {
	_, old := w.messages.put(w.now, w.of(forMessage, w.addr(s.Remote.Addr()), hash), 0)
	return old
}

// unmap makes equal addresses equal.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
