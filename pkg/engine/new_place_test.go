package engine_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

// locate makes the engine know where addresses are: the second byte of an address is its operator, the first one says
// the country, and of addresses that begin with 9 nobody knows.
func (w *world) locate() *world {
	w.e.SetLocate(func(a netip.Addr) ban.Place {
		b := a.As4()
		if b[0] == 9 {
			return ban.Place{}
		}
		return ban.Place{Country: string([]byte{'A' + b[0]%2, 'A'}), ASN: uint32(b[1])}
	})
	return w
}

// atWork lets an account log in from one place, each eight hours.
func (w *world) atWork(days int) *world {
	for range 3 * days {
		w.login(office, "203").pass(8 * time.Hour)
	}
	return w
}

// TestNewPlaces tells of accounts that log in from where they never were: their users, or somebody who has the password.
func TestNewPlaces(t *testing.T) {
	run(t, []scenario{
		{"a stolen password, used from one place after a week", nil, func(w *world) {
			w.atWork(8).login(bad, "203").wantNamed(ban.ActionNewPlace, "203").wantNever(bad, office).wantTrusted(bad)
			w.login(bad, "203", at(7777)).wantDecision(1, ban.ActionNewPlace, ban.ReasonLogin)
		}},
		{"a stolen password, used from four places in the first night", nil, func(w *world) {
			w.atWork(1)
			for _, from := range []string{"203.0.113.50", "203.0.113.120", "192.0.2.200", "198.18.0.7"} {
				w.login(from, "203").pass(time.Second)
			}
			w.wantDecision(1, ban.ActionNewPlace, ban.ReasonLogin).wantNamed(ban.ActionNewPlace, "203")
		}},
		{"a user who goes home and to a customer in the first week", nil, func(w *world) {
			w.atWork(2).login("192.0.2.70", "203").pass(time.Hour).login("203.0.113.9", "203").atWork(1).wantQuiet()
		}},
		{"a new phone that is tried in three networks before it is sold", nil, func(w *world) {
			for i := range 4 {
				w.login(fmt.Sprintf("192.%d.2.70", i), "203").pass(10 * time.Minute)
			}
			w.wantQuiet()
		}},
		{"a user who works at home and at work for months", nil, func(w *world) {
			for range 60 {
				w.login(office, "203").pass(12*time.Hour).login("192.0.2.70", "203").pass(12 * time.Hour)
			}
			w.wantQuiet()
		}},
		{"a home whose provider gives it another address each day", nil, func(w *world) {
			for i := range 60 {
				w.login(fmt.Sprintf("192.0.%d.70", i), "203").pass(24 * time.Hour)
			}
			w.wantQuiet()
		}},
		{"another network of the same operator in the same country", nil, func(w *world) {
			w.locate()
			for range 10 {
				w.login("10.7.0.1", "1").login("100.7.2.3", "203").pass(24 * time.Hour)
			}
			w.login("102.7.9.9", "203").wantQuiet()
		}},
		{"another operator, and another country of the same operator", nil, func(w *world) {
			w.locate()
			for range 10 {
				w.login("100.7.2.3", "203").login("100.7.2.3", "204").pass(24 * time.Hour)
			}
			w.login("100.8.2.3", "203").login("101.7.2.3", "204").wantNamed(ban.ActionNewPlace, "203", "204")
		}},
		{"a network of which nobody knows the operator", nil, func(w *world) {
			w.locate()
			for range 10 {
				w.login("100.7.2.3", "203").pass(24 * time.Hour)
			}
			w.login("9.7.2.3", "203").wantNamed(ban.ActionNewPlace, "203")
		}},
		{"an allowed address, and those of the house", nil, func(w *world) {
			w.allow("192.0.2.0/24").atWork(8).login("192.0.2.70", "203").wantQuiet()
			w = newWorld(t)
			for i := range 20 {
				w.login(fmt.Sprintf("10.%d.0.7", i), "203").pass(24 * time.Hour)
			}
			w.wantQuiet()
		}},
		{"the rule is off", func(p *config.Policy) { p.NewPlace.Learning = 0 }, func(w *world) {
			w.atWork(8).login(bad, "203").wantQuiet()
		}},
		{"a restart in between", nil, func(w *world) {
			w.atWork(8)
			state := w.e.Export(w.now)
			w.e = engine.NewRepeatable(config.Default().Policy)
			w.e.Restore(w.now, state, []string{"pbx"})
			w.login(office, "203", at(7777)).wantQuiet().login(bad, "203").wantNamed(ban.ActionNewPlace, "203")
		}},
	})
}
