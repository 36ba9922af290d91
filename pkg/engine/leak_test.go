package engine_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

const leaker = "198.51.100.7"

// newLeakWorld is a world whose bans are in a kernel, with one banned source.
func newLeakWorld(t *testing.T, change ...func(*config.Policy)) *world {
	w := newWorld(t, change...)
	w.e.WatchLeaks()
	for i := range 3 {
		w.scan(leaker, fmt.Sprintf("9%d", i), tcp) // UDP alone would close UDP, with a door
	}
	return w.wantBanned(leaker)
}

func (w *world) leaks() (list []ban.Decision) {
	for _, d := range w.log {
		if d.Action == ban.ActionLeak {
			list = append(list, d)
		}
	}
	return list
}

func (w *world) wantLeaks(n int) []ban.Decision {
	w.t.Helper()
	list := w.leaks()
	if len(list) != n {
		w.t.Fatalf("%d leaks, want %d: %+v", len(list), n, list)
	}
	return list
}

func receivedAt(local string) func(*event.Event) {
	return func(ev *event.Event) { ev.Local.AddrPort = netip.MustParseAddrPort(local) }
}

// A door that was open for a while has let through what it should: only what comes after it was shut is a leak.
func TestWhatCameThroughADoorIsNoLeak(t *testing.T) {
	w := newWorld(t)
	w.e.WatchLeaks()
	for i := range 3 {
		w.scan(leaker, fmt.Sprintf("9%d", i))
	}
	w.wantBanned(leaker).pass(time.Minute)
	for i := range 3 {
		w.scan(leaker, fmt.Sprintf("91%d", i))
	}
	w.scan(leaker, "920").pass(4*time.Second).scan(leaker, "921").wantLeaks(0)
	w.pass(3*time.Second).scan(leaker, "922").wantLeaks(1)
}

// SIP on a port that the ban does not close: Asterisk goes on to answer a banned source.
func TestABannedSourceThatGetsThroughIsALeak(t *testing.T) {
	w := newLeakWorld(t)
	w.scan(leaker, "100").pass(4*time.Second).scan(leaker, "101") // what waited in Asterisk's socket
	w.wantLeaks(0)
	w.pass(3 * time.Second)
	w.send(event.ChallengeSent, leaker, "201", receivedAt("192.0.2.1:5080"))
	d := w.wantLeaks(1)[0]
	if d.Source.String() != leaker || d.Prefix.String() != leaker+"/32" || d.Reason != ban.ReasonUnknownAccount ||
		d.PBX != "pbx" ||
		d.Account != "201" || d.Service != event.PJSIP || d.Transport != event.UDP {
		t.Errorf("%+v", d)
	}
	if !strings.Contains(d.Detail, "UDP 192.0.2.1:5080") || !strings.Contains(d.Detail, "firewall.ports") {
		t.Errorf("detail %q", d.Detail)
	}
	x := w.e.Why(w.now, netip.MustParseAddr(leaker))
	if l := x.Ban.Leak; l == nil || l.Port != 5080 || l.Transport != "UDP" || l.Events != 1 {
		t.Errorf("%+v", l)
	}
	if text := strings.Join(x.Lines, "\n"); !strings.Contains(text,
		"DOES NOT KEEP IT OUT: 1 event since then got through to UDP port 5080") {
		t.Error(text)
	}
	if s := w.e.Stats(w.now); s.Leaking != 1 || s.Leaks != 1 {
		t.Errorf("%+v", s)
	}
}

func TestALeakIsToldOnceAnHour(t *testing.T) {
	w := newLeakWorld(t, func(p *config.Policy) { p.Ban.First, p.Ban.ForgeableMax = 24*time.Hour, 24*time.Hour })
	w.pass(10 * time.Second)
	for range 50 {
		w.scan(leaker, "100").pass(time.Minute)
	}
	w.wantLeaks(1)
	w.pass(20*time.Minute).scan(leaker, "100")
	w.wantLeaks(2)
	if s := w.e.Stats(w.now); s.Leaking != 1 || s.Leaks != 102 { // each scan is two events
		t.Errorf("%+v", s)
	}
}

// What the kernel lets pass, or never saw, is no leak; nor is what says nothing of where it came from.
func TestWhatIsNoLeak(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(w *world)
	}{
		{"the ban is over", func(w *world) { w.pass(61*time.Minute).scan(leaker, "100") }},
		{"unbanned by hand", func(w *world) {
			w.log = append(w.log, w.e.Unban(w.now, netip.MustParsePrefix(leaker+"/32"), 0)...)
			w.pass(10*time.Second).scan(leaker, "100")
		}},
		{"another address", func(w *world) { w.pass(10*time.Second).scan("198.51.100.8", "100") }},
		{"allowed, within a banned network", func(w *world) {
			w.ban("203.0.113.0/24")
			w.log = append(w.log, w.e.Allow(w.now, netip.MustParsePrefix("203.0.113.5/32"), engine.OriginManual, "")...)
			w.pass(10*time.Second).scan("203.0.113.5", "100")
		}},
		{"a trunk, within a banned network", func(w *world) {
			w.ban("203.0.113.0/24")
			w.log = append(w.log, w.e.Protect(w.now, "pbx",
				map[netip.Prefix]string{netip.MustParsePrefix("203.0.113.5/32"): "trunk"})...)
			w.pass(10*time.Second).scan("203.0.113.5", "100")
		}},
		{"chan_sip, whose addresses the attacker writes", func(w *world) {
			w.pass(10*time.Second).send(event.InvalidAccountID, leaker, "100",
				func(ev *event.Event) { ev.Service = event.SIP })
		}},
		{"an event that happened before the ban and came late", func(w *world) {
			w.pass(time.Minute).scan(leaker, "100", func(ev *event.Event) { ev.Time = start })
		}},
		{"the machine itself", func(w *world) {
			w.ban("127.0.0.0/8")
			w.pass(10*time.Second).scan("127.0.0.1", "100")
		}},
		{"a ban that is stored, right after the start", func(w *world) {
			s := w.e.Export(w.now)
			*w = *newWorld(w.t)
			w.e.WatchLeaks()
			w.now = start.Add(time.Minute)
			w.e.Restore(w.now, s, []string{"pbx"})
			w.wantBanned(leaker).pass(time.Second).scan(leaker, "100")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newLeakWorld(t)
			tt.do(w)
			w.wantLeaks(0)
		})
	}
}

func (w *world) ban(prefix string) *world {
	w.t.Helper()
	d, err := w.e.Ban(w.now, netip.MustParsePrefix(prefix), time.Hour, "")
	if err != nil {
		w.t.Fatal(err)
	}
	w.log = append(w.log, d...)
	return w
}

// Whatever the ban is of, and whatever the event.
func TestEveryBanCanLeak(t *testing.T) {
	for _, tt := range []struct {
		name, prefix, from string
		event              func(w *world, from string)
	}{
		{"of a network", "203.0.113.0/24", "203.0.113.5", func(w *world, from string) { w.scan(from, "100") }},
		{"of half of the world", "128.0.0.0/1", "203.0.113.5", func(w *world, from string) { w.scan(from, "100") }},
		{"of an IPv6 source", "2001:db8:1:2::/64", "2001:db8:1:2::5",
			func(w *world, from string) { w.scan(from, "100") }},
		{"of an IPv6 address", "2001:db8:1:2::5/128", "2001:db8:1:2::5",
			func(w *world, from string) { w.scan(from, "100") }},
		{"of an IPv6 network", "2001:db8::/32", "2001:db8:1:2::5", func(w *world, from string) { w.scan(from, "100") }},
		{"an event that no rule is about", "203.0.113.5/32", "203.0.113.5", func(w *world, from string) {
			w.send(event.SuccessfulAuth, from, "admin", over(event.TCP),
				func(ev *event.Event) { ev.Service = event.AMI })
		}},
		{"an event without a local address", "203.0.113.5/32", "203.0.113.5", func(w *world, from string) {
			w.scan(from, "100", func(ev *event.Event) { ev.Local = event.Address{} })
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.e.WatchLeaks()
			w.ban(tt.prefix).pass(10 * time.Second)
			tt.event(w, tt.from)
			if d := w.wantLeaks(1)[0]; d.Prefix.String() != tt.prefix || d.Source.String() != tt.from {
				t.Errorf("%+v", d)
			}
			// And once it is lifted, no more.
			w.log = append(w.log, w.e.Unban(w.now, netip.MustParsePrefix(tt.prefix), 0)...)
			w.pass(2 * time.Hour)
			tt.event(w, tt.from)
			w.wantLeaks(1)
		})
	}
}

// Where bans stop nothing at all, every one of a hundred thousand banned sources gets through.
func TestLeaksAreBounded(t *testing.T) {
	w := newWorld(t)
	w.e.WatchLeaks()
	const sources = 200
	for i := range sources {
		w.ban(fmt.Sprintf("198.51.100.%d/32", i))
	}
	w.pass(10 * time.Second)
	for i := range sources {
		w.send(event.ChallengeSent, fmt.Sprintf("198.51.100.%d", i), "100")
	}
	w.wantLeaks(30)
	if s := w.e.Stats(w.now); s.Leaking != sources || s.Leaks != sources {
		t.Errorf("%+v", s)
	}
}

// In a replay of what happened without Ringwall nothing kept anybody out.
func TestWithoutAKernelNothingLeaks(t *testing.T) {
	w := newWorld(t)
	w.ban(leaker+"/32").pass(10*time.Second).scan(leaker, "100")
	w.wantLeaks(0)
}

// A PBX whose clock is wrong: its times say nothing of what waited.
func TestALeakIsSeenWhateverAsterisksClockSays(t *testing.T) {
	for _, off := range []time.Duration{-87660 * time.Hour, -time.Hour, 0, time.Hour, 87660 * time.Hour} {
		w := newLeakWorld(t)
		w.pass(10 * time.Second)
		w.send(event.ChallengeSent, leaker, "201", func(ev *event.Event) { ev.Time = ev.Time.Add(off) })
		w.wantLeaks(1)
	}
}
