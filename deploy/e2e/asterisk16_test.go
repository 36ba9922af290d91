package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/ban"
)

// chan_sip reports whatever address the attacker writes into Via: its events are observed, and ban nobody, where no sensor saw
// who sent.
func TestAgainstAsterisk16(t *testing.T) {
	r := newRig(t, lab.Options{Version: 16}, "sensors: {tap: off}\n")
	phone := r.Agent(t, lab.Phone, lab.AgentOptions{Timeout: trial.Patience})
	if code, err := phone.Register("7001", lab.Password("7001")); err != nil || code != 200 {
		t.Fatalf("%d, %v", code, err)
	}
	bad := r.Agent(t, lab.Attacker, lab.AgentOptions{Timeout: trial.Patience})
	for range 10 {
		if _, err := bad.GuessAnew("7002", "wrong"); err != nil {
			t.Fatal(err)
		}
	}
	local := lab.Attacker.IPv4()
	r.waitUntil("the guesses would have banned",
		func() bool { x := r.explanationOf(local); return x.Ban != nil && x.Ban.Observed })
	if r.kernelHas(local.String() + "/32") {
		t.Error("an observed source is in the kernel")
	}
	if code, err := bad.Options("7001"); err != nil {
		t.Errorf("an observed source got no reply: %d, %v", code, err)
	}
	if x := r.explanationOf(lab.Phone.IPv4()); x.Trust != nil {
		t.Error("a chan_sip login earned trust")
	}
	s := r.daemonStatus()
	if len(s.ObserveOnly) != 1 || s.ObserveOnly[0].Service != "SIP" {
		t.Errorf("status does not say that SIP is observed: %+v", s.ObserveOnly)
	}
	r.stopDaemon()
}

// Where the tap saw a packet come from the address that chan_sip reports, it is as good as PJSIP's word.
func TestAgainstAsterisk16WithTheTap(t *testing.T) {
	r := newRig(t, lab.Options{Version: 16}, "")
	bad := r.Agent(t, lab.Attacker, lab.AgentOptions{Timeout: trial.Patience / 10})
	for range 10 {
		if _, err := bad.GuessAnew("7002", "wrong"); err != nil {
			break // banned
		}
	}
	local := lab.Attacker.IPv4()
	r.waitUntil("the guesses have banned",
		func() bool { x := r.explanationOf(local); return x.Ban != nil && !x.Ban.Observed && x.Ban.Proven })
	if !r.kernelHas(local.String() + "/32") {
		t.Error("it is not in the kernel")
	}
	r.stopDaemon()
}

// accountsOf16 are those of addAccounts, for chan_sip.
func accountsOf16(file, content string) string {
	if file != "sip.conf" {
		return content
	}
	var b strings.Builder
	b.WriteString(content)
	for n := firstAccount; n <= lastAccount; n++ {
		fmt.Fprintf(&b, "[%d](phone)\nsecret = %s\n", n, lab.Password(fmt.Sprint(n)))
	}
	return b.String()
}

// victim is whose address somebody writes into Via.
var victim = netip.MustParseAddr("203.0.113.9")

// catalogueOfChanSIP is what of the catalogue concerns chan_sip.
func catalogueOfChanSIP() []attack {
	return []attack{
		{name: "wrong passwords, UDP", send: guesses("REGISTER", "%s-%d"), most: 6},
		{name: "wrong passwords, TCP", way: overTCP, send: guesses("REGISTER", "%s-%d"), most: 6},
		{name: "wrong passwords, Call-ID with 0xff, UDP", send: guesses("REGISTER", "%s-%d\xff"), most: 6},
		{name: "wrong passwords, Call-ID with 0xff, TCP", way: overTCP, send: guesses("REGISTER", "%s-%d\xff"), most: 6},
		{name: "INVITE, wrong passwords", send: guesses("INVITE", "%s-%d"), most: 6},
		{name: "wrong passwords of unknown accounts", send: func(a *assailant, try int) int {
			r := a.request("REGISTER", fmt.Sprintf("%s-%d", a.account, try), try)
			r.User = fmt.Sprint("nobody", try)
			if !a.ask(r) {
				return 0
			}
			r.Credentials = a.answerTo(r, "wrong")
			return a.exchange(r)
		}, most: 6},
		{name: "another's address in Via, wrong passwords", send: func(a *assailant, try int) int {
			a.challenge = nil // a new one for each
			return replaced(";branch=", ";maddr="+victim.String()+";branch=")(a, try)
		}, most: 6},
		{name: "OPTIONS by a scanner's program", send: names("OPTIONS", friendlyScanner), most: 1},
		{name: "OPTIONS of many names", send: names("OPTIONS", plainAgent), most: 24, every: 4},
		{name: "compact forms", send: changed(func(m string, _ int) []string { return []string{compactForms.Replace(m)} }),
			most: 6},
		{name: "svwar", send: names("REGISTER", friendlyScanner), most: 1},
		{name: "svwar with a phone's User-Agent", send: names("REGISTER", plainAgent), onlyAsks: true},
		{name: "svcrack", send: oneChallenge(friendlyScanner), most: 1},
		{name: "svcrack with a phone's User-Agent", send: oneChallenge(plainAgent), most: 6},
		{name: "wrong passwords, 0xff behind Via", send: behind("Via"), most: 6},
		{name: "wrong passwords, 0xff behind From", send: behind("From"), most: 6},
		{name: "wrong passwords, 0xff in the branch", send: replaced(";branch=z9hG4bK", ";branch=z9hG4bK\xff"), most: 6},
		{name: "no CSeq", send: unreadable("CSeq: ", "X-CSeq: "), most: 6},
		{name: "a bad request line", send: unreadable(" SIP/2.0\r\n", "\r\n")},
	}
}

// With the tap, chan_sip may be enforced: every attack of the catalogue that finds something out ends in a ban of him who
// makes it, and of nobody whose address he writes.
func TestCatalogueOfAttacksOnChanSIP(t *testing.T) {
	l := lab.Start(t, lab.Options{Version: 16, Edit: accountsOf16})
	rows := catalogueOfChanSIP()
	session, told := l.DialAMI(t, lab.Ringwall), toldBy{}
	r := newRigOn(t, l, lab.Ringwall, "policy: {services: {SIP: enforce}}\nsensors: {tap: auto}\n")
	r.untilSensing("tap")
	all := runAll(r, rows, 1, func(int) bool { return true })
	told.add(session.DrainFrames())
	phone := r.Agent(t, lab.Phone, lab.AgentOptions{Timeout: trial.Patience, Retransmit: true})
	if code, err := phone.Register("7001", lab.Password("7001")); err != nil || code != 200 {
		t.Errorf("a phone: %d, %v", code, err)
	}
	for _, a := range []netip.Addr{victim, lab.Phone.IPv4()} {
		if x := r.explanationOf(a); x.Ban != nil || x.Score != 0 {
			t.Errorf("%s: %+v", a, x)
		}
	}
	r.wantNoLeak()
	r.stopDaemon()

	var table strings.Builder
	table.WriteString("| Attack on chan_sip | Asterisk's events | Tap | Answered before the ban, at most | Reason |\n" +
		"|---|---|---|---|---|\n")
	for i := range rows {
		row, o := &rows[i], &all[i]
		reason, most := "`"+string(o.reason)+"`", fmt.Sprint(row.most)
		if row.onlyAsks {
			reason, most = "–", "all"
		}
		if o.banned == row.onlyAsks || !row.onlyAsks && o.answered > row.most {
			t.Errorf("%s: %+v", row.name, o)
		}
		events, tap := "no", "–"
		switch n := told[o.from]; {
		case o.reason == ban.ReasonScanner:
			events = "–"
		case n > 0 && n < o.attempts:
			events = "of the first"
		case n > 0:
			events = "yes"
		}
		if o.seenBy == "tap" || o.reason == ban.ReasonScanner {
			tap = "yes"
		}
		fmt.Fprintf(&table, "| %s | %s | %s | %s | %s |\n", row.name, events, tap, most, reason)
	}
	compareCatalogue(t, "catalogue of chan_sip", table.String())
}
