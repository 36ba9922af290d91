package engine_test

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
)

// TestWhyReadsLikeThis pins what a person reads; the texts are in testdata/why.
func TestWhyReadsLikeThis(t *testing.T) {
	for _, tt := range []struct {
		name, addr, verdict string
		play                func(w *world)
	}{
		{"banned", bad, "banned", func(w *world) { scans(w, 3, bad).pass(10 * time.Minute) }},
		{"banned by hand", bad, "banned", func(w *world) {
			if _, err := w.e.Ban(w.now, netip.MustParsePrefix(bad+"/32"), 2*time.Hour,
				"called me at night"); err != nil {
				w.t.Fatal(err)
			}
		}},
		{"observed", bad, "observed", func(w *world) {
			for range 5 {
				w.wrong(bad, "7001", chanSIP)
			}
		}},
		{"trusted with a phone that fails", office, "trusted", func(w *world) {
			w.login(office, "201").login(office, "202").rounds(3, time.Minute, office, "203", tls)
		}},
		{"allowed", bad, "allowed", func(w *world) {
			w.e.Allow(w.now, netip.MustParsePrefix(bad+"/32"), "home.example", "")
			scans(w, 3, bad)
		}},
		{"protected", "198.51.100.50", "protected", func(w *world) { w.protect("198.51.100.50/32") }},
		{"suspicious", bad, "suspicious", func(w *world) { scans(w, 2, bad).pass(10 * time.Minute) }},
		{"unbanned with a grace", bad, "suspicious", func(w *world) { scans(w, 3, bad).unban(bad+"/32", time.Hour) }},
		{"a guesser who got in", bad, "banned", func(w *world) {
			w.crack(5, bad, "201").login(bad, "201")
		}},
		{"the door is shut", bad, "banned", func(w *world) { scans(w, 3, bad).pass(10 * time.Second); scans(w, 6, bad) }},
		{"a scanner", bad, "banned", func(w *world) { w.send(event.Scanner, bad, "100", byTap) }},
		{"the manager is closed", office, "banned", func(w *world) {
			w.login(office, "201")
			for range 200 {
				w.send(event.InvalidPassword, office, "crm", manager, tcp)
			}
		}},
		{"a proxy", office, "trusted", func(w *world) {
			for i := range 25 {
				w.login(office, extension(i), tls, port(5061))
			}
		}},
		{"unknown", bad, "unknown", func(*world) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			tt.play(w)
			x := w.e.Why(w.now, netip.MustParseAddr(tt.addr))
			want, err := os.ReadFile("testdata/why/" + strings.ReplaceAll(tt.name, " ", "-") + ".txt")
			if got := strings.Join(x.Lines, "\n") + "\n"; err != nil || got != string(want) || x.Verdict != tt.verdict {
				t.Errorf("%s; got\n%s\nwant %s\n%s%v", x.Verdict, got, tt.verdict, want, err)
			}
		})
	}
}

// TestWhyQuotesNames asks about an attacker whose account name would repaint a terminal.
func TestWhyQuotesNames(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.scan(bad, "\x1b[2J\u202e")
	}
	x := w.e.Why(w.now, netip.MustParseAddr(bad))
	for _, line := range x.Lines {
		if strings.ContainsAny(line, "\x1b\u202e") {
			t.Errorf("%q", line)
		}
	}
	if !slices.ContainsFunc(x.Lines, func(l string) bool { return strings.Contains(l, `\x1b[2J`) }) {
		t.Errorf("the name is not shown: %q", x.Lines)
	}
}

// TestWhyDecidesNothing asks all the time, in one of two equal worlds.
func TestWhyDecidesNothing(t *testing.T) {
	asked, quiet := newWorld(t), newWorld(t)
	for i := range 200 {
		for _, w := range []*world{asked, quiet} {
			w.round(bad, extension(i%3)).scan(bad, "x").pass(time.Duration(i) * time.Second)
		}
		asked.e.Why(asked.now, netip.MustParseAddr(bad))
		asked.e.Trusted(asked.now)
		asked.e.Bans(asked.now)
	}
	if !slices.EqualFunc(asked.log, quiet.log, func(a, b ban.Decision) bool { return a == b }) {
		t.Errorf("%v\n%v", asked.actions(), quiet.actions())
	}
}
