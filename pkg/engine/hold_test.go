package engine_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
)

// While somebody on the allow list is not known yet, only evidence that nobody can forge bans.
func TestNobodyIsBannedByForgeableEvidenceWhileANameIsUnknown(t *testing.T) {
	w := newWorld(t)
	attack := func(from string, tr event.Transport) {
		for i := range 5 {
			w.scan(from, strconv.Itoa(100+i), over(tr))
		}
	}
	w.e.HoldForgeable(w.now.Add(time.Minute))
	attack("203.0.113.9", event.UDP)
	attack("203.0.113.10", event.TLS)
	w.wantFree("203.0.113.9").wantBanned("203.0.113.10")
	if d := w.log[0]; d.Action != ban.ActionObserve || d.Reason != ban.ReasonAllowed || d.Detail == "" {
		t.Errorf("%+v; want it said why", d)
	}
	w.pass(time.Minute) // after that a typo must not disarm us
	attack("203.0.113.9", event.UDP)
	w.wantBanned("203.0.113.9")

	w.e.HoldForgeable(w.now.Add(time.Minute))
	w.e.HoldForgeable(time.Time{}) // the name is found
	attack("203.0.113.11", event.UDP)
	w.wantBanned("203.0.113.11")
}

// A network of IPv6 is no exception: its sources may be the provider whose name is not known yet.
func TestNoIPv6NetworkIsBannedForgeablyWhileBansAreHeld(t *testing.T) {
	for _, held := range []time.Duration{0, time.Minute} {
		w := newWorld(t)
		w.e.HoldForgeable(w.now.Add(held))
		for i := range 20 {
			w.crack(1, fmt.Sprintf("2001:db8:66:%x00::1", i+1), "201")
		}
		if got := w.banned("2001:db8:66:ff00::1"); got != (held == 0) {
			t.Errorf("held for %v: banned %v", held, got)
		}
	}
}
