package witness

import (
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/sip"
)

// Told takes an event of Asterisk's, before it is judged and in its order. It sets ev.Proven where the sender received
// what was sent to the address that the event names.
func (w *Witness) Told(now time.Time, name string, ev *event.Event) (m Match) {
	if ev.SeenBy != event.ByAMI || ev.Service != event.PJSIP && ev.Service != event.SIP {
		return Match{}
	}
	w.advance(now)
	w.stats.Events++
	remote := unmap(ev.Remote.AddrPort)
	p := w.pbx(name)
	if ev.Service == event.SIP {
		w.sipEvents = true
		m = w.toldBySIP(p, ev, remote)
	} else {
		m = w.toldByPJSIP(p, ev, remote)
	}
	if m.Seen {
		w.stats.Matched++
	}
	return m
}

func (w *Witness) toldByPJSIP(p *pbx, ev *event.Event, remote netip.AddrPort) (m Match) {
	key := w.of(forDialogue, w.addrPort(remote), w.text(ev.Session))
	e, _ := w.dialogues.put(w.now, key, oneSided)
	d := &e.value
	d.events = min(d.events+1, 1<<15)
	d.pbx = p
	switch ev.Type {
	case event.SuccessfulAuth:
		d.loginsTold = true
		if a := w.firstOf(w.of(forLogin, key, 0)); a != nil {
			p.passed = max(p.passed, a.requestedAt)
			w.pay(a)
		} else if d.logins < 100 {
			d.logins++
		}
	case event.ChallengeSent:
		if d.challenges < 100 {
			d.challenges++
		}
		if !d.isSeen {
			w.expectSight(ev, remote, key)
		}
	case event.ChallengeResponseFailed:
		m = w.toldFailure(p, ev, key, d)
		w.proveAnswer(ev, remote)
	}
	if d.isSeen {
		m.Seen = true
		w.prove(e)
	}
	return m
}

// toldFailure matches a wrong password with the attempts that Asterisk tells in the same words.
func (w *Witness) toldFailure(p *pbx, ev *event.Event, dialogue uint64, d *dialogue) (m Match) {
	key := w.answerKey(dialogue, w.text(ev.Challenge), w.text(ev.Response))
	e, _ := w.answers.put(w.now, key, 0)
	x := &e.value
	x.events = min(x.events+1, 1<<15)
	if x.found > 0 {
		x.found--
		m.Repeated = true
	}
	m.Copy = x.copies && x.events > x.attempts && x.attempts > 0
	if x.attempts == 0 && !x.credited && d.failures < 100 {
		x.credited = true
		d.failures++
	}
	for a := w.attempts[key]; a != nil; a = w.attempts[key] {
		p.passed = max(p.passed, a.requestedAt)
		w.pay(a)
	}
	return m
}

// firstOf returns the attempt that waits for a key for the longest.
func (w *Witness) firstOf(key uint64) *attempt {
	a := w.attempts[key]
	for a != nil && a.behind != nil {
		a = a.behind
	}
	return a
}

// expectSight looks later whether a sensor saw what an event tells: where it did not, it does not see all challenges.
func (w *Witness) expectSight(ev *event.Event, remote netip.AddrPort, dialogue uint64) {
	if e := w.source(remote.Addr()); e.value.unseenAt != 0 {
		return
	}
	a := w.wait(unseen, &Sight{Remote: remote, Transport: ev.Remote.Transport}, &sip.Message{}, dialogue,
		&transaction{})
	if a == nil { // it is not known who is not seen
		w.noncesSince = 0
	}
}

// proveAnswer says whether an event's answer is one to a challenge that was sent to the event's source.
func (w *Witness) proveAnswer(ev *event.Event, remote netip.AddrPort) (e *entry[nonce]) {
	if ev.Challenge == "" {
		return nil
	}
	e = w.nonces.get(w.now, w.nonceKey(w.text(ev.Challenge), remote.Addr()))
	ev.Proven = ev.Proven || e != nil
	return e
}

// toldBySIP takes an event of chan_sip's. Its SessionID is the address of a structure, and its source is what the Via
// header says: a request is found by its challenge and answer.
func (w *Witness) toldBySIP(p *pbx, ev *event.Event, remote netip.AddrPort) (m Match) {
	if e := w.proveAnswer(ev, remote); e != nil {
		m.Seen = true
		w.proveLocal(e.value.local, p, event.SIP, false)
		p.passed = max(p.passed, e.value.sentAt)
	}
	if ev.Type == event.ChallengeSent {
		ev.Proven = false // that it was sent there says nothing of who asked for it
		return m
	}
	if ev.Response == "" {
		return m
	}
	s := w.senders.get(w.now, w.of(forSender, w.text(ev.Challenge), w.text(ev.Response)))
	if s == nil {
		return m
	}
	if s.value.told = true; s.value.several {
		return m
	}
	m.Seen = true
	if a := s.value.address; a.AddrPort.Addr() != remote.Addr() {
		ev.Proven = false
		if !isBehindNAT(remote.Addr()) {
			m.Sender = a
			m.IsSenderProven = w.nonces.get(w.now, w.nonceKey(w.text(ev.Challenge), a.AddrPort.Addr())) != nil
		}
	}
	return m
}

// isBehindNAT says whether a phone may have the address where the internet sees another one (RFC 1918, RFC 6598).
func isBehindNAT(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || sharedAddresses.Contains(a)
}

var sharedAddresses = netip.MustParsePrefix("100.64.0.0/10")
