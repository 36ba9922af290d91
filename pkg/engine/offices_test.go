package engine_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// TestOfficesWhoseTrustIsOver tells of offices that were closed for more than trust.ttl, and whose phones all have
// old passwords when they open again: over UDP nothing proves a storm.
func TestOfficesWhoseTrustIsOver(t *testing.T) {
	phone := func(o, i int) string { return fmt.Sprintf("%d-%02d", o, i) }
	offices := func(w *world, n int) {
		for o := range n {
			for i := range 40 {
				w.login(host(o), phone(o, i))
			}
		}
	}
	fail := func(w *world, n int) {
		for o := range n {
			for i := range 40 {
				w.round(host(o), phone(o, i))
			}
		}
	}
	run(t, []scenario{
		{"eight offices on Monday, over UDP", nil, func(w *world) {
			offices(w, 8)
			w.pass(60 * time.Hour)
			for range 30 {
				fail(w, 8)
				w.pass(time.Minute)
			}
			for o := range 8 {
				w.wantUntrusted(host(o)).wantNever(host(o)).login(host(o), phone(o, 0)).wantTrusted(host(o))
			}
			w.wantDecision(0, ban.ActionBreach, ban.ReasonGuessed)
		}},
		{"one office on Monday, over UDP", nil, func(w *world) {
			offices(w, 1)
			w.pass(60 * time.Hour)
			for range 30 {
				fail(w, 1)
				w.pass(time.Minute)
			}
			w.wantNever(host(0)).wantDecision(0, ban.ActionGuessing, ban.ReasonPace)
		}},
		{"eight offices lose their passwords: nobody guesses", nil, func(w *world) {
			offices(w, 8)
			for range 60 {
				fail(w, 8)
				w.pass(time.Minute)
			}
			for o := range 8 {
				w.wantTrusted(host(o)).wantNever(host(o))
			}
			w.wantDecision(0, ban.ActionGuessing, ban.ReasonPace).wantDecision(8*40, ban.ActionMisconfigured,
				ban.ReasonPace)
		}},
		{"eight offices for a whole weekend, over UDP", nil, func(w *world) {
			offices(w, 8)
			for range 27 * 2 {
				fail(w, 8)
				w.pass(30 * time.Minute)
			}
			for o := range 8 {
				w.wantUntrusted(host(o)).wantNever(host(o))
			}
		}},
		{"a botnet guesses an account of the office meanwhile", nil, func(w *world) {
			offices(w, 1)
			w.pass(60 * time.Hour)
			for i := range 20 {
				w.crack(1, host(100+i), phone(0, 7), tcp)
			}
			w.wrong(host(0), phone(0, 7)).pass(5*time.Second).wrong(host(0), phone(0, 7)).wantNever(host(0))
		}},
		{"who guesses fast there is banned all the same", nil, func(w *world) {
			offices(w, 1)
			w.pass(60*time.Hour).wantGuesses(5, host(0), func(int) { w.crack(1, host(0), phone(0, 7)) })
		}},
		{"other accounts count as everywhere", nil, func(w *world) {
			offices(w, 1)
			w.pass(60*time.Hour).wantGuesses(5, host(0), func(i int) { w.crack(1, host(0), phone(1, i)) })
		}},
		{"nor is an office spared that lost its trust by guessing", nil, func(w *world) {
			w.login(bad, "201", tcp).login(bad, "202", tcp).login(bad, "203", tcp).scan(bad, "900", tcp)
			for i := range 12 { // accounts that never worked from there
				w.crack(2, bad, strconv.Itoa(910+i), tcp)
			}
			w.wantBanned(bad).pass(2*time.Hour).wantGuesses(5, bad, func(i int) { w.crack(1, bad, extension(i%3), tcp) })
		}},
	})
}
