package engine_test

import (
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
)

// TestProxies tells of customers who log in through one connection or address, and of attackers among them.
func TestProxies(t *testing.T) {
	const proxy = "198.51.100.9"
	through := func(w *world, n int) *world { // one connection of the proxy for all
		for i := range n {
			w.login(proxy, extension(i), tls, at(5061))
		}
		return w
	}
	attack := func(w *world) *world {
		for i := range 300 {
			w.scan(proxy, strconv.Itoa(9000+i), tls, at(5061))
			w.crack(20, proxy, extension(500+i%8), tls, at(5061)).pass(time.Second)
		}
		return w
	}
	named := func(p *config.Policy) {
		p.Proxies.Addresses = []config.AllowEntry{{Prefix: netip.MustParsePrefix("198.51.100.8/30")}}
	}
	run(t, []scenario{
		{"a proxy over TLS, and an attacker behind it", nil, func(w *world) {
			attack(through(w, 200)).wantNever(proxy).wantTrusted(proxy)
			w.wantDecision(1, ban.ActionProxy, ban.ReasonProxy).wantDecision(0, ban.ActionUntrust, ban.ReasonAccounts)
			var guessed []string
			for _, d := range w.log {
				if d.Action == ban.ActionGuessing && d.Reason == ban.ReasonWrongPassword {
					guessed = append(guessed, d.Account)
				}
			}
			if slices.Sort(guessed); len(guessed) != 8 || guessed[0] != extension(500) {
				w.t.Errorf("guessed through the proxy: %q", guessed)
			}
			if got := w.e.SuspectedProxies(); len(got) != 1 || got[0].Addr().String() != proxy {
				w.t.Errorf("proxies: %v", got)
			}
		}},
		{"it is told once a day", nil, func(w *world) {
			for day := range 3 {
				for i := range 40 {
					w.login(proxy, extension(40*day+i), at(5061))
				}
				w.pass(24 * time.Hour)
			}
			w.wantDecision(3, ban.ActionProxy, ban.ReasonProxy)
		}},
		{"a proxy that is named, before anybody logged in", named, func(w *world) {
			attack(w).wantNever(proxy)
			through(w, 200).wantDecision(0, ban.ActionProxy, ban.ReasonProxy)
			if got := w.e.SuspectedProxies(); len(got) != 0 {
				w.t.Errorf("still to be named: %v", got)
			}
			w.wantGuesses(3, "198.51.100.12", func(i int) { w.scan("198.51.100.12", strconv.Itoa(i)) })
		}},
		{"a proxy that opens a connection for each client", nil, func(w *world) {
			for i := range 100 {
				w.login(proxy, extension(i), tls)
			}
			attack(w).wantNever(proxy).wantDecision(1, ban.ActionProxy, ban.ReasonProxy)
		}},
		{"an account that is guessed through a proxy and then logs in", nil, func(w *world) {
			through(w, 200).crack(20, proxy, "999", tls, at(5061)).login(proxy, "999", tls, at(5061))
			w.wantDecision(1, ban.ActionBreach, ban.ReasonGuessed).wantNever(proxy)
		}},
		{"an office of forty phones is none", nil, func(w *world) {
			for i := range 40 {
				w.login(office, extension(i), tls)
			}
			for i := range 12 {
				w.crack(2, office, "9"+strconv.Itoa(i), tls)
			}
			w.wantBanned(office).wantDecision(0, ban.ActionProxy, ban.ReasonProxy)
		}},
		{"nor is one with a gateway of eight accounts", nil, func(w *world) {
			for range 30 {
				for i := range 8 {
					w.login(office, extension(i), at(5061))
				}
				w.pass(time.Hour)
			}
			w.wantQuiet()
		}},
		{"the rule is off", func(p *config.Policy) { p.Proxies.Accounts = 0 }, func(w *world) {
			attack(through(w, 200)).wantBanned(proxy)
		}},
		{"an allowed proxy is no news", nil, func(w *world) {
			through(w.allow(proxy+"/32"), 200).wantQuiet()
		}},
		{"an attacker who knows no password is no proxy", nil, func(w *world) {
			w.wantGuesses(5, bad, func(i int) { w.crack(1, bad, extension(i), tls) })
		}},
	})
}
