package engine_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

// TestPBX tells what becomes of providers, of faults at the PBX itself, of networks, and of what a person orders.
func TestPBX(t *testing.T) {
	const provider = "198.51.100.50"
	call := func(w *world, n int, from string) {
		for i := range n {
			w.scan(from, "+4930"+strconv.Itoa(i)).pass(time.Minute)
		}
	}
	run(t, []scenario{
		{"provider that is not in identify, but that Asterisk registers with", nil, func(w *world) {
			w.protect(provider + "/32")
			call(w, 600, provider)
			w.wantNever(provider).wantDecision(10, ban.ActionObserve, ban.ReasonProtected)
		}},
		{"provider that is not in identify, and that nobody knows", nil, func(w *world) {
			call(w, 10, provider) // it looks like a scanner: that is why trunks are learned
			w.wantBanned(provider).protect(provider+"/32").wantFree(provider).wantDecision(1, ban.ActionUnban,
				ban.ReasonProtected)
			call(w, 10, provider)
			w.wantFree(provider)
		}},
		{"provider with a network of its own", nil, func(w *world) {
			w.protect("198.51.100.48/28")
			for i := range 16 {
				call(w, 5, fmt.Sprintf("198.51.100.%d", 48+i))
			}
			w.wantDecision(0, ban.ActionBan, ban.ReasonUnknownAccount)
			call(w, 5, "198.51.100.64")
			w.wantBanned("198.51.100.64")
		}},
		{"keepalives of a provider that Asterisk knows", nil, func(w *world) {
			for range 2000 {
				w.options(provider, "trunk").pass(30 * time.Second)
			}
			w.wantQuiet()
		}},
		{"keepalives of a provider that Asterisk does not know", nil, func(w *world) {
			w.allow(provider + "/32")
			for range 200 {
				w.scan(provider, "ping").pass(30 * time.Second)
			}
			w.wantQuiet()
		}},
		{"a trunk that is no longer learned", nil, func(w *world) {
			w.protect(provider + "/32").protect("203.0.113.1/32")
			call(w, 5, provider)
			w.wantBanned(provider)
		}},
		{"two trunks in the /64 of an attacker", nil, func(w *world) {
			w.protect("2001:db8:7::1/128", "2001:db8:7::2/128")
			for i := range 5 {
				for _, a := range []string{"2001:db8:7::1", "2001:db8:7::2", "2001:db8:7::bad"} {
					w.scan(a, strconv.Itoa(i), tls)
				}
			}
			w.wantNever("2001:db8:7::1", "2001:db8:7::2").wantBanned("2001:db8:7::bad").wantFree("2001:db8:7::3")
			w.wantDecision(1, ban.ActionBan, ban.ReasonUnknownAccount)
		}},
		{"the database loses all passwords: ten offices over TLS", nil, func(w *world) {
			for o := range 10 {
				for i := range 10 {
					w.login(host(o), extension(10*o+i), tls)
				}
			}
			w.pass(time.Hour)
			for range 30 {
				for i := range 10 {
					for o := range 10 {
						w.crack(6, host(o), extension(10*o+i), tls)
					}
				}
				for o := range 10 { // a new phone in each office that never worked
					w.round(host(o), extension(500+o), tls)
				}
				w.pass(10 * time.Second)
			}
			for o := range 10 {
				w.wantFree(host(o))
			}
			w.wantDecision(1+10, ban.ActionObserve, ban.ReasonStorm) // one for all, and one for each that is spared
			w.crack(9, bad, "201").wantBanned(bad)                   // but strangers are none of it
			for o := range 10 {
				w.login(host(o), extension(10*o), tls).wantTrusted(host(o))
			}
		}},
		{"an office is banned just before the storm is noticed", nil, func(w *world) {
			for o := range 6 {
				w.login(host(o), extension(o), tls)
			}
			for i := range 5 { // its phones, that logged in before
				w.login(host(0), extension(10+i), tls)
			}
			for i := range 5 {
				w.crack(12, host(0), extension(10+i), tls)
			}
			w.wantDecision(2, ban.ActionCut, ban.ReasonWrongPassword).pass(10 * time.Second) // the fifth slows new ones
			for o := 1; o < 5; o++ {
				w.crack(1, host(o), extension(o), tls)
			}
			w.wantFree(host(0)).wantDecision(1, ban.ActionObserve, ban.ReasonStorm)
			w.wantNoLane(host(0))
		}},
		{"one office alone is no storm", nil, func(w *world) {
			w.login(office, "201", tls).crack(60, office, "900", tls).wantDecision(1, ban.ActionCut, ban.ReasonWrongPassword).
				wantDecision(0, ban.ActionObserve, ban.ReasonStorm)
		}},
		{"after the storm bans are made again", nil, func(w *world) {
			for o := range 6 {
				w.login(host(o), extension(o), tls)
			}
			for o := range 6 {
				w.crack(2, host(o), "9"+strconv.Itoa(o), tls)
			}
			w.pass(10*time.Minute).crack(60, host(0), "900", tls).wantDecision(1, ban.ActionCut, ban.ReasonWrongPassword)
		}},
		{"a network full of attackers", nets, func(w *world) {
			for i := range 5 {
				w.wantFree("203.0.113.200")
				for n := range 3 {
					w.scan(fmt.Sprintf("203.0.113.%d", i+1), strconv.Itoa(n), tls)
				}
			}
			w.wantBanned("203.0.113.200").wantFree("203.0.114.1").wantDecision(1, ban.ActionBan, ban.ReasonNetwork)
			w.pass(61*time.Minute).wantFree("203.0.113.200", "203.0.113.1").wantDecision(6, ban.ActionUnban,
				ban.ReasonExpired)
		}},
		{"a network of attackers with a customer in it", nets, func(w *world) {
			w.login("203.0.113.77", "201")
			attackNet(w)
			w.wantFree("203.0.113.77", "203.0.113.200").wantBanned("203.0.113.1", "203.0.113.9").wantDecision(0,
				ban.ActionBan, ban.ReasonNetwork)
		}},
		{"a network of attackers with an allowed address in it", nets, func(w *world) {
			attackNet(w.allow("203.0.113.77/32"))
			w.wantDecision(0, ban.ActionBan, ban.ReasonNetwork)
		}},
		{"a network of attackers with a trunk in it", nets, func(w *world) {
			attackNet(w.protect("203.0.113.77/32"))
			w.wantDecision(0, ban.ActionBan, ban.ReasonNetwork)
		}},
		{"a customer logs in from a banned network by another port", nets, func(w *world) {
			attackNet(w)
			w.wantBanned("203.0.113.77").login("203.0.113.77", "201").wantFree("203.0.113.77").wantBanned("203.0.113.1")
		}},
		{"networks are not banned unless asked for", nil, func(w *world) {
			attackNet(w)
			w.wantDecision(0, ban.ActionBan, ban.ReasonNetwork)
		}},
		{"unban with a grace of an hour", nil, func(w *world) {
			scans(w, 5, bad).wantBanned(bad).unban(bad+"/32", time.Hour).wantFree(bad)
			scans(w, 50, bad).wantFree(bad).wantDecision(1, ban.ActionObserve, ban.ReasonManual)
			scans(w.pass(61*time.Minute), 3, bad).wantBanned(bad).wantLast(bad, ban.ActionBan, ban.ReasonUnknownAccount)
			if d := w.log[len(w.log)-1]; d.Duration != 4*time.Hour {
				w.t.Error("the ban before was forgotten:", brief(d))
			}
		}},
		{"unban of a network with a grace covers all of it", nets, func(w *world) {
			attackNet(w)
			w.unban("203.0.113.0/24", time.Hour)
			attackNet(w)
			scans(w, 5, "203.0.113.99")
			w.wantFree("203.0.113.1", "203.0.113.99", "203.0.113.200")
			attackNet(w.pass(2 * time.Hour))
			w.wantBanned("203.0.113.1")
		}},
		{"unban without a grace forgets the points", nil, func(w *world) {
			scans(w, 3, bad).wantBanned(bad).unban(bad+"/32", 0)
			scans(w, 2, bad).wantFree(bad)
			scans(w, 1, bad).wantBanned(bad)
		}},
		{"a customer who guessed, was let in by a person, and has the right password now", nil, func(w *world) {
			w.crack(6, "192.0.2.73", "201").wantBanned("192.0.2.73").unban("192.0.2.73/32",
				time.Hour).login("192.0.2.73", "201")
			w.wantTrusted("192.0.2.73").wantDecision(0, ban.ActionBreach, ban.ReasonGuessed)
		}},
		{"unban of everybody", nil, func(w *world) {
			attackNet(w)
			w.log = append(w.log, w.e.UnbanAll(w.now)...)
			if n := len(w.e.EnforcedBans(w.now)); n != 0 {
				w.t.Error(n, "bans left")
			}
		}},
		{"a person bans a customer's network, and is refused", nil, func(w *world) {
			w.protect("198.51.100.50/32")
			if _, err := w.e.Ban(w.now, netip.MustParsePrefix("198.51.100.0/24"), time.Hour, ""); err == nil {
				w.t.Error("not refused")
			}
		}},
		{"a ban by hand is not lifted by a login", nil, func(w *world) {
			d, err := w.e.Ban(w.now, netip.MustParsePrefix(bad+"/32"), time.Hour, "")
			if err != nil {
				w.t.Fatal(err)
			}
			w.log = append(w.log, d...)
			w.login(bad, "201").wantBanned(bad).pass(2 * time.Hour).wantFree(bad)
		}},
		{"the host itself, its gateway and loopback", nil, func(w *world) {
			for _, p := range []string{"127.0.0.0/8", "192.0.2.1/32", "192.0.2.254/32", "fe80::/10"} {
				w.log = append(w.log, w.e.Allow(w.now, netip.MustParsePrefix(p), engine.OriginHost, "")...)
			}
			for i := range 50 {
				for _, a := range []string{"127.0.0.1", "192.0.2.1", "192.0.2.254", "fe80::1"} {
					w.scan(a, strconv.Itoa(i)).send(event.InvalidPassword, a, "x", manager, tcp)
				}
			}
			w.wantNever("127.0.0.1", "192.0.2.1", "192.0.2.254", "fe80::1").wantDecision(4, ban.ActionObserve,
				ban.ReasonAllowed)
		}},
		{"a host name in the allow list that moves", nil, func(w *world) {
			old, now := netip.MustParsePrefix("192.0.2.90/32"), netip.MustParsePrefix("192.0.2.91/32")
			w.e.Allow(w.now, old, "home.example", "")
			scans(w, 9, "192.0.2.90").wantFree("192.0.2.90")
			scans(w, 9, "192.0.2.91").wantBanned("192.0.2.91")
			w.log = append(w.log, w.e.Allow(w.now, now, "home.example", "")...)
			w.e.Disallow(old, "home.example")
			w.wantFree("192.0.2.91")
			scans(w, 1, "192.0.2.90").wantFree("192.0.2.90") // its events before cost nothing
			scans(w, 2, "192.0.2.90").wantBanned("192.0.2.90")
		}},
		{"a restart finds bans in the kernel, one of somebody allowed since", nil, func(w *world) {
			w.allow("192.0.2.90/32").protect("2001:db8:7::1/128")
			for _, p := range []string{bad + "/32", "192.0.2.90/32", "2001:db8:7::/64"} {
				w.e.AdoptBan(w.now, netip.MustParsePrefix(p), ban.ClosesAll, w.now.Add(time.Hour))
			}
			w.wantBanned(bad).wantFree("192.0.2.90", "2001:db8:7::1", "2001:db8:7::2")
		}},
		{"observe mode for a week, then enforce", func(p *config.Policy) { p.Mode = config.Observe }, func(w *world) {
			scans(w, 9, bad).wantNever(bad).wantLast(bad, ban.ActionObserve, ban.ReasonUnknownAccount)
			w.log = append(w.log, w.e.Configure(w.now, config.Default().Policy)...)
			scans(w, 3, bad).wantBanned(bad)
		}},
		{"a reload with a new allow list frees who is on it now", nil, func(w *world) {
			scans(w, 3, bad).wantBanned(bad)
			p := config.Default().Policy
			p.Allow = []config.AllowEntry{{Prefix: netip.MustParsePrefix("203.0.113.0/24")}}
			w.log = append(w.log, w.e.Configure(w.now, p)...)
			w.wantFree(bad).wantDecision(1, ban.ActionUnban, ban.ReasonAllowed)
		}},
		{"accounts of a form that earns trust (Wazo)", wazo, func(w *world) {
			w.login("192.0.2.92", "201").wantUntrusted("192.0.2.92").login("192.0.2.93",
				"a1b2c3d4").wantTrusted("192.0.2.93")
		}},
		{"every rule switched off", everythingOff, func(w *world) {
			w.pass(2*time.Hour).login(office, "201").crack(50, bad, "201")
			scans(w, 50, bad)
			for i := range 50 {
				w.options(bad, extension(i)).send(event.ChallengeSent, bad, "<unknown>")
			}
			w.pass(time.Minute).wantQuiet()
		}},
		{"hostile bytes in the stream", nil, func(w *world) {
			for range 100 {
				w.log = w.e.ReportTampering(w.now, "pbx", "a key twice", nil, w.log)
			}
			w.wantDecision(1, ban.ActionTampering, ban.ReasonMalformed)
			w.now = w.now.Add(2 * time.Hour)
			w.log = w.e.ReportTampering(w.now, "pbx", "a key twice", nil, w.log)
			w.wantDecision(2, ban.ActionTampering, ban.ReasonMalformed)
		}},
	})
}

func scans(w *world, n int, from string) *world {
	for i := range n {
		w.scan(from, strconv.Itoa(i))
	}
	return w
}

func attackNet(w *world) {
	for i := range 10 {
		for n := range 3 {
			w.scan(fmt.Sprintf("203.0.113.%d", i+1), strconv.Itoa(n), tls)
		}
	}
}

func nets(p *config.Policy) { p.Networks.Sources = 5 }

func wazo(p *config.Policy) { p.Trust.Match = regexp.MustCompile(`^[a-z0-9]{8}$`) }

func everythingOff(p *config.Policy) {
	p.Points = config.Points{}
	p.Misconfigured, p.Challenges, p.Breach = config.MisconfiguredRule{}, config.ChallengesRule{}, config.BreachRule{}
	p.Targeted, p.Roaming, p.Storm = config.TargetedRule{}, config.RoamingRule{}, config.StormRule{}
}
