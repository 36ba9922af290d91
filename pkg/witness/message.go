package witness

import (
	"bytes"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/sip"
)

type method uint8

const (
	otherMethod method = iota
	registerMethod
	inviteMethod
	optionsMethod
	ackMethod    // has no answer
	cancelMethod // is not challenged (RFC 3261 section 22.1)
)

// methodOf compares as pjproject does, letter case aside.
func methodOf(name []byte) method {
	is := func(m string) bool { return len(name) == len(m) && bytes.EqualFold(name, []byte(m)) }
	switch {
	case is("REGISTER"):
		return registerMethod
	case is("INVITE"):
		return inviteMethod
	case is("OPTIONS"):
		return optionsMethod
	case is("ACK"):
		return ackMethod
	case is("CANCEL"):
		return cancelMethod
	}
	return otherMethod
}

// transaction is a request, by who sent it, Call-ID, CSeq and the topmost branch, and what became of it. What is sent
// again is the same one; with other credentials it is another attempt.
type transaction struct {
	requestedAt int64
	credentials uint64 // hash of all that it brings; 0: none
	answer      uint64 // key of what an event tells of the credentials
	sender      uint64 // key in Witness.senders of what an event of chan_sip tells of them; 0: none
	account     uint64 // key in Witness.accounts
	asked       uint64 // hash of the user that an OPTIONS asks for; 0: none
	status      uint16 // of the last answer
	method      method
	waiting     uint8 // attempts without an answer
	inDialogue  bool  // has a To tag: it is no beginning of anything
	isCut       bool  // not all of it was seen: it may have credentials
	untellable  bool  // no event can tell of its credentials
	isHidden    bool  // no event can tell of its Call-ID
	own         bool  // it answers a challenge that was sent to its sender
	invented    bool  // it answers only challenges that were never sent there
	accepted    bool  // counted as a call that Asterisk takes
}

// dialogue is what one source sends with one Call-ID.
type dialogue struct {
	isSeen  bool // by a sensor, in an answer of Asterisk's
	firstAt int64
	local   uint64 // key in Witness.locals

	pbx        *pbx // whose event told of it; nil: none did
	loginsTold bool
	// What events told and no attempt has claimed. Challenges that were seen and not told make it negative.
	challenges, failures, logins int16
	events                       uint16

	attemptedAt int64 // when it last had credentials
}

// tellsSince notes that its event told of a request of that time.
func (d *dialogue) tellsSince(requestedAt int64) {
	if d.pbx != nil { // the dialogue of an answer that is remembered may be forgotten
		d.pbx.passed = max(d.pbx.passed, requestedAt)
	}
}

func (w *Witness) dialogueKey(s uint64, callID []byte) uint64 {
	return w.of(forDialogue, s, w.bytes(callID))
}

// callID is the one that is in Asterisk's answer. Where a request has two, its events name another.
func callID(m *sip.Message) []byte { return m.First.CallID }

func (w *Witness) transactionKey(dialogue uint64, m *sip.Message) uint64 {
	name := uint64(methodOf(m.First.CSeqMethod))
	if name == uint64(otherMethod) {
		name = w.bytes(m.First.CSeqMethod)
	}
	branch := w.bytes(m.ComparableBranch())
	return w.of(forTransaction, w.combine(dialogue, branch), w.combine(uint64(m.First.CSeq), name))
}

// Message takes a SIP message that a sensor saw. It keeps nothing of it.
func (w *Witness) Message(now time.Time, s Sight, m *sip.Message) {
	w.advance(now)
	s.Asterisk, s.Remote = unmap(s.Asterisk), unmap(s.Remote)
	if m.IsRequest() == s.ToAsterisk {
		if s.ToAsterisk {
			w.request(&s, m)
		} else {
			w.answered(&s, m)
		}
	}
}

// sometimesRefused is what pjproject refuses in some places of a message: where it does, nothing is answered.
const sometimesRefused = sip.LoneCR | sip.ZeroByte

func (w *Witness) request(s *Sight, m *sip.Message) {
	w.stats.Requests++
	if w.signature != nil {
		if mark, ok := w.signature(m); ok {
			w.findScanner(s, mark, m.From.User, m.CallID)
		}
	}
	id := callID(m)
	dialogue := w.dialogueKey(w.addrPort(s.Remote), id)
	key := w.transactionKey(dialogue, m)
	faults := sip.MalformedRefused | sometimesRefused
	if s.Transport != event.UDP {
		faults &^= sip.BadStartLine // where a message begins in a stream is not always known
	}
	if m.Malformed.Any(faults) {
		w.malformed(s, m, dialogue, key)
	}
	kind := methodOf(m.Method)
	if kind == ackMethod || kind == cancelMethod || len(id) == 0 || m.CSeqMethod == nil {
		return
	}
	credentials := w.credentials(m)
	e, old := w.transactions.put(w.now, key, openTransaction)
	t := &e.value
	if old && t.credentials == credentials && t.requestedAt != 0 {
		if credentials != 0 {
			if a := w.answers.get(w.now, t.answer); a != nil {
				a.value.copies = true
			}
		}
		return
	}
	t.requestedAt, t.credentials, t.method = w.now, credentials, kind
	t.waiting = min(t.waiting+1, 100)
	t.inDialogue = len(m.To.Tag) > 0 && kind != registerMethod // pjproject's sip_ua_layer.c
	t.isCut = m.Truncated && credentials == 0
	t.isHidden = !isTellable(m.CallID)
	switch {
	case credentials != 0:
		w.readCredentials(s, m, dialogue, t)
	case kind == optionsMethod && len(m.RequestURI.User) > 0:
		t.asked = w.bytes(m.RequestURI.User)
	}
}

// credentials is a hash of all that a request brings; 0: none.
func (w *Witness) credentials(m *sip.Message) (hash uint64) {
	for i := range m.Credentials() {
		c := &m.Credentials()[i]
		hash = w.combine(hash^w.bytes(c.Response), w.bytes(c.Nonce)) | 1
	}
	return hash
}

// Sizes of the buffers of res_pjsip/security_events.c, less the zero byte.
const (
	eventNonce    = 63
	eventResponse = 255
)

func (w *Witness) readCredentials(s *Sight, m *sip.Message, dialogue uint64, t *transaction) {
	var challenge, response []byte
	first := true
	t.own, t.invented = false, true
	for i := range m.Credentials() {
		c := &m.Credentials()[i]
		if first && !c.Proxy {
			first = false
			if string(c.Scheme) == "Digest" {
				challenge, response = asTold(c.Nonce, eventNonce), asTold(c.Response, eventResponse)
			}
		}
		n := w.useNonce(c.Nonce, s.Remote.Addr())
		// Asterisk may let OPTIONS pass without a password (allow_unauthenticated_options): then nothing is proven by
		// it.
		t.own = t.own || n != nil && (t.method != optionsMethod || n.toOptions)
		t.invented = t.invented && n == nil && w.isKnownTime(c.Nonce)
	}
	t.answer = w.answerKey(dialogue, w.bytes(challenge), w.bytes(response))
	t.untellable = !isTellable(challenge) || !isTellable(response)
	t.account = w.of(forAccount, w.addr(s.Remote.Addr()), w.bytes(m.From.User))
	if w.sipEvents {
		t.sender = w.of(forSender, w.bytes(challenge), w.bytes(response))
		w.noteSender(t.sender, s)
	}
}

// asTold is what of a value an event has.
func asTold(b []byte, most int) []byte {
	b, _, _ = bytes.Cut(b, []byte{0})
	return b[:min(len(b), most)]
}

func (w *Witness) answerKey(dialogue, challenge, response uint64) uint64 {
	return w.of(forAnswer, dialogue, w.combine(challenge, response))
}

// answer is what is known of one answer to a challenge, by what an event tells of it.
type answer struct {
	attempts uint16
	events   uint16
	credited bool // an event of it stands in dialogue.failures
	copies   bool // the request was sent again
	found    uint8
}

// answered takes an answer of Asterisk's.
func (w *Witness) answered(s *Sight, m *sip.Message) {
	w.stats.Answers++
	kind := methodOf(m.CSeqMethod)
	id := callID(m)
	if len(id) == 0 || m.CSeqMethod == nil || kind == cancelMethod {
		return
	}
	if m.Status == 401 || m.Status == 407 {
		w.noteChallenges(s, m, kind == optionsMethod)
	}
	remote := w.addrPort(s.Remote)
	dialogue := w.dialogueKey(remote, id)
	key := w.transactionKey(dialogue, m)
	e := w.transactions.get(w.now, key)
	if e == nil { // the request was not seen: lost, or in fragments
		if m.Status < 200 || w.streamAnswers.get(w.now, key) != nil {
			return
		}
		e, _ = w.transactions.put(w.now, key, answeredTransaction)
		e.value = transaction{method: kind, waiting: 1, isCut: true, inDialogue: true}
	}
	t := &e.value
	t.status = uint16(m.Status)
	if m.Status < 200 && (kind != inviteMethod || t.credentials == 0 && m.Status < 180) || t.waiting == 0 {
		return
	}
	d := w.seeDialogue(s, id, dialogue, t)
	w.judge(s, m, d, t)
	if m.Status >= 200 && s.Transport != event.UDP {
		w.streamAnswers.put(w.now, key, 0)
	}
	if m.Status < 200 && t.credentials == 0 {
		return // of a call that is counted as accepted: the end is to come, and is none of a number that does not exist
	}
	t.waiting--
	class := answeredTransaction
	if t.credentials != 0 {
		class = attemptTransaction
	}
	if e.class != class {
		w.transactions.move(w.now, e, class)
	}
}

// seeDialogue notes that a sensor saw an answer in it.
func (w *Witness) seeDialogue(s *Sight, id []byte, key uint64, t *transaction) *entry[dialogue] {
	e, _ := w.dialogues.put(w.now, key, oneSided)
	d := &e.value
	if !d.isSeen {
		d.isSeen, d.firstAt = true, t.requestedAt
		if d.firstAt == 0 {
			d.firstAt = w.now
		}
		d.local = w.localAt(s.Asterisk).key
		w.noteSender(w.of(forSender, w.bytes(id), 0), s)
		if d.pbx != nil { // its event came first
			w.prove(e)
		}
	}
	return e
}

// prove notes that events tell of what a sensor sees.
func (w *Witness) prove(e *entry[dialogue]) {
	d := &e.value
	if e.class != bothSided {
		w.dialogues.move(w.now, e, bothSided)
	}
	w.proveLocal(d.local, d.pbx, event.PJSIP, d.loginsTold)
	d.pbx.passed = max(d.pbx.passed, d.firstAt)
}

func (w *Witness) proveLocal(key uint64, p *pbx, service event.Service, logins bool) {
	e := w.locals.get(w.now, key)
	if e == nil {
		return
	}
	if e.value.pbx == nil {
		w.locals.move(w.now, e, 1)
	}
	e.value.pbx, e.value.service = p, service
	e.value.loginsTold = e.value.loginsTold || logins
}

// judge makes of an answer what it says of its request.
func (w *Witness) judge(s *Sight, m *sip.Message, e *entry[dialogue], t *transaction) {
	d := &e.value
	hidden := t.isHidden || !isTellable(callID(m))
	if w.localAt(s.Asterisk).value.service == event.SIP { // of which no event has the Call-ID
		hidden = false
	}
	switch {
	case t.credentials != 0:
		d.attemptedAt = w.now
		w.judgeCredentials(s, m, e, t, hidden || t.untellable)
	case t.isCut && hidden && m.Status/100 == 2 && t.method == registerMethod:
		// Nobody registers without credentials: they stood where nobody saw them.
		w.hiddenLogin(s, m, e, t)
	case m.Status == 401 || m.Status == 407:
		d.challenges = max(d.challenges-1, -100)
		if hidden {
			w.wait(hiddenChallenge, s, m, e.key, t)
		}
	case t.inDialogue:
	case t.method == registerMethod && (m.Status == 404 || m.Status == 403):
		w.wait(unknownAccount, s, m, e.key, t)
	case t.method == inviteMethod && (m.Status/100 == 2 || m.Status < 200):
		if !t.accepted {
			t.accepted = true
			w.acceptCall(s.Remote.Addr())
		}
	case t.method == inviteMethod && (m.Status == 404 || m.Status == 484 || m.Status == 604):
		if !t.accepted && w.refuseCall(s.Remote.Addr()) {
			w.wait(probing, s, m, e.key, t)
		}
	case t.method == optionsMethod && t.asked != 0 && m.Status != 403:
		if w.askFor(s.Remote.Addr(), t.asked) {
			w.wait(probing, s, m, e.key, t)
		}
	}
}

func (w *Witness) judgeCredentials(s *Sight, m *sip.Message, e *entry[dialogue], t *transaction, untellable bool) {
	switch {
	case m.Status == 401 || m.Status == 407:
		if isStale(m) {
			e.value.challenges = max(e.value.challenges-1, -100)
			w.judgeStale(s, m, e, t, untellable)
			return
		}
		if t.invented {
			if n, _ := w.accounts.put(w.now, t.account, 0); n.value < 250 {
				n.value++
			}
		}
		w.attempt(guess, s, m, e, t, untellable)
	case m.Status == 403 && (untellable || t.method == registerMethod):
		w.attempt(refused, s, m, e, t, untellable)
	case t.inDialogue:
	case isAfterLogin(m.Status, t.method):
		if t.isHidden || !isTellable(callID(m)) {
			w.hiddenLogin(s, m, e, t)
			return
		}
		if e.value.logins > 0 {
			e.value.logins--
			e.value.tellsSince(t.requestedAt)
			return
		}
		if t.own {
			w.wait(login, s, m, e.key, t)
		}
	}
}

func isStale(m *sip.Message) bool {
	for i := range m.Challenges() {
		if m.Challenges()[i].Stale {
			return true
		}
	}
	return false
}

// isAfterLogin says whether Asterisk gives such an answer only to who is in: others come from pjproject, or from an
// overload, before any password is looked at.
func isAfterLogin(status int, kind method) bool {
	switch {
	case status/100 == 2:
		return true
	case kind != inviteMethod:
		return false
	}
	switch status {
	case 404, 480, 484, 486, 488, 600, 603, 604, 606:
		return true
	}
	return status < 200
}

// fewInvented is how many wrong passwords with challenges that were never sent make a right one a find: a phone that
// comes from another Asterisk has one such challenge, and then has a right one.
const fewInvented = 3

// judgeStale judges a right password with a challenge that is not valid (res_pjsip_authenticator_digest.c looks at the
// challenge after the answer). Phones do that whenever they register again, with one that was sent to them.
func (w *Witness) judgeStale(s *Sight, m *sip.Message, e *entry[dialogue], t *transaction, untellable bool) {
	if !untellable {
		if !t.invented || w.isUnseen(s.Remote.Addr()) {
			return
		}
		if n := w.accounts.get(w.now, t.account); n == nil || n.value < fewInvented {
			return
		}
	}
	l := &w.localAt(s.Asterisk).value
	if l.pbx == nil || l.service != event.PJSIP || l.pbx.wasBlind(w.now-clearFor) {
		w.stats.Unproven++
		return
	}
	a := w.newAttempt(login, s, m, e.key, t)
	w.findLogin(a, l)
	w.recycle(a)
}

// hiddenLogin judges a login of which no event can tell.
func (w *Witness) hiddenLogin(s *Sight, m *sip.Message, e *entry[dialogue], t *transaction) {
	l := &w.localAt(s.Asterisk).value
	if l.pbx == nil || l.service != event.PJSIP || l.pbx.wasBlind(w.now-clearFor) || !t.own && !t.isCut {
		w.stats.Unproven++
		return
	}
	a := w.newAttempt(login, s, m, e.key, t)
	a.own = true // Asterisk took it: its challenge was sent to its sender, whether that was seen or not
	w.findLogin(a, l)
	w.recycle(a)
}

// attempt judges a wrong password.
func (w *Witness) attempt(
	kind attemptKind, s *Sight, m *sip.Message, e *entry[dialogue], t *transaction, untellable bool,
) {
	if untellable {
		a := w.newAttempt(kind, s, m, e.key, t)
		w.findGuess(a, &w.localAt(s.Asterisk).value, event.SilentGuess)
		w.recycle(a)
		return
	}
	x, _ := w.answers.put(w.now, t.answer, 0)
	x.value.attempts = min(x.value.attempts+1, 1<<15)
	if x.value.credited {
		x.value.credited = false
		e.value.failures--
		e.value.tellsSince(t.requestedAt)
	}
	if x.value.events > 0 {
		return
	}
	w.wait(kind, s, m, e.key, t)
}
