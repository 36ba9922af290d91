package e2e

import (
	"testing"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/deploy/trial"
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
