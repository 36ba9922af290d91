package engine_test

import (
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
)

func contacts(addrs ...string) map[netip.Prefix]int {
	m := make(map[netip.Prefix]int)
	for _, a := range addrs {
		p := netip.MustParseAddr(a)
		m[netip.PrefixFrom(p, p.BitLen())] = 1
	}
	return m
}

func (w *world) vouch(addrs ...string) *world {
	w.log = append(w.log, w.e.TrustContacts(w.now, "pbx", contacts(addrs...))...)
	return w
}

// On the day of the installation nobody has logged in yet under Ringwall's eyes, but the phones are registered.
func TestARegisteredOfficeIsTrustedFromTheFirstMinute(t *testing.T) {
	w := newWorld(t).vouch(office).wantTrusted(office)
	w.wantDecision(1, ban.ActionTrust, ban.ReasonRegistered)
	for range 9 {
		w.scan(office, "100")
	}
	w.wantNever(office)
	for range 20 { // asked again every five minutes
		w.pass(5 * time.Minute).vouch(office)
	}
	w.wantTrusted(office).wantDecision(1, ban.ActionTrust, ban.ReasonRegistered)
	w.pass(2*time.Hour).wantDecision(1, ban.ActionUntrust, ban.ReasonExpired)
}

// One stolen password registers any contact: that must not make an attacker immune.
func TestARegistrationIsProbationNotImmunity(t *testing.T) {
	w := newWorld(t).vouch(bad)
	for i := range 40 {
		w.wrong(bad, string(rune('a'+i)), over(event.TLS))
	}
	w.wantBanned(bad).wantDecision(1, ban.ActionUntrust, ban.ReasonAccounts)
	w.vouch(bad).wantBanned(bad)
	w.pass(2 * time.Hour).vouch(bad)
	if w.e.Why(w.now, netip.MustParseAddr(bad)).Trust != nil {
		t.Error("a registration brought back trust that was lost")
	}
}

func TestARegistrationAfterGuessingEarnsNothing(t *testing.T) {
	w := newWorld(t, func(p *config.Policy) { p.Mode = config.Observe })
	for range 6 {
		w.wrong(bad, "201")
	}
	w.login(bad, "201").wantDecision(1, ban.ActionBreach, ban.ReasonGuessed)
	w.vouch(bad).wantDecision(0, ban.ActionTrust, ban.ReasonRegistered)
}

func TestARegistrationEndsTheBanOfItsNetwork(t *testing.T) {
	w := newWorld(t, func(p *config.Policy) { p.Networks.Sources = 3 })
	for _, a := range []string{"203.0.113.1", "203.0.113.2", "203.0.113.3"} {
		for range 3 {
			w.scan(a, "100", over(event.TCP))
		}
	}
	w.wantBanned("203.0.113.200").vouch("203.0.113.200").wantFree("203.0.113.200").wantBanned("203.0.113.1")
}

func TestARegistrationEndsAForgeableBanOnly(t *testing.T) {
	w := newWorld(t)
	other := "203.0.113.67"
	for range 3 {
		w.scan(office, "100").scan(other, "100", over(event.TCP))
	}
	w.wantBanned(office, other).vouch(office, other).wantFree(office).wantBanned(other)
}

// The customers of a proxy are registered, and the proxy is scanned before one of them logs in again: nobody may be
// locked out. The same from fewer accounts, or from as many ports as accounts, is an office.
func TestAProxyIsKnownByItsContacts(t *testing.T) {
	const proxy = "198.51.100.9"
	registered := func(accounts int) *world {
		w := newWorld(t)
		for range 3 { // asked again every five minutes
			p := netip.PrefixFrom(netip.MustParseAddr(proxy), 32)
			w.log = append(w.log, w.e.TrustContacts(w.now, "pbx", map[netip.Prefix]int{p: accounts})...)
			w.pass(5 * time.Minute)
		}
		for i := range 300 {
			w.scan(proxy, strconv.Itoa(9000+i), tls, at(5061))
		}
		return w
	}
	limit := config.Default().Policy.Proxies.Accounts
	registered(limit).wantNever(proxy).wantTrusted(proxy).wantDecision(1, ban.ActionProxy, ban.ReasonProxy)
	registered(limit-1).wantBanned(proxy).wantDecision(0, ban.ActionProxy, ban.ReasonProxy)
}
