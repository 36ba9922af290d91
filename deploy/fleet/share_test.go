package fleet

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/api"
)

// TestWhatOneNodeLearnsIsInEveryKernel is a fleet of three on its ordinary days.
func TestWhatOneNodeLearnsIsInEveryKernel(t *testing.T) {
	_, list := newFleet(t, "", "a", "b", "c")
	a, b, c := list[0], list[1], list[2]
	t.Run("a proven ban and an unban, one after the other", func(t *testing.T) {
		const count = 200
		var own, banned, unbanned []time.Duration
		for i := range count {
			attacker := nth(i)
			begun := time.Now()
			a.proven(attacker)
			at := awaitEach(t, attacker, true, a, b, c)
			own = append(own, at[0].Sub(begun))
			banned = append(banned, at[1].Sub(at[0]), at[2].Sub(at[0]))
		}
		sameKernels(t, a, b, c)
		for i := range count {
			attacker := nth(i)
			if _, err := b.client.Unban(t.Context(), api.UnbanRequest{Prefix: single(attacker)}); err != nil {
				t.Fatal(err)
			}
			begun := time.Now() // b's kernel has it: its answer says so
			at := awaitEach(t, attacker, false, b, a, c)
			unbanned = append(unbanned, at[1].Sub(begun), at[2].Sub(begun))
		}
		sameKernels(t, a, b, c)
		t.Logf("event to a's own kernel: %s", quantiles(own))
		t.Logf("from a's kernel to b's and c's, a ban: %s", quantiles(banned))
		t.Logf("from b's kernel to a's and c's, an unban: %s", quantiles(unbanned))
		most := 50 * time.Millisecond
		if isFullLength() && (quantile(banned, 0.99) > most || quantile(unbanned, 0.99) > most) {
			t.Errorf("the slowest of a hundred take more than %s", most)
		}
	})
	t.Run("a customer of one is a customer of all", func(t *testing.T) {
		customer := netip.MustParseAddr("192.88.98.10")
		a.login(customer, "6001")
		trial.WaitUntil(t, "b trusts whom a knows", func() bool { return b.trusts(customer) && c.trusts(customer) })
		stranger := customer.Next()
		for i := range 3 {
			b.tell("InvalidAccountID", fmt.Sprint(1000+i), "UDP", customer)
			b.tell("InvalidAccountID", fmt.Sprint(1000+i), "UDP", stranger)
		}
		trial.WaitUntil(t, "b keeps out who did the same, and is nobody's customer", func() bool { return b.bans(stranger) })
		c.proven(nth(5000)) // which comes after it, at b too
		b.proven(nth(5001))
		awaitEach(t, nth(5000), true, a, b, c)
		awaitEach(t, nth(5001), true, a, b, c)
		for _, n := range []*nodeHost{a, b, c} {
			if n.bans(customer) {
				t.Errorf("%s bans the customer:\n%s", n.name, n.run("why", customer.String()))
			}
		}
		// Where he guesses in c's eyes, beyond doubt, he is out there, and not where he is a customer.
		guesser := netip.MustParseAddr("192.88.98.20")
		a.login(guesser, "6002")
		trial.WaitUntil(t, "b trusts whom a knows", func() bool { return b.trusts(guesser) && c.trusts(guesser) })
		for i := range 100 {
			c.tell("ChallengeResponseFailed", fmt.Sprint(7000+i), "TCP", guesser, "Challenge: 1", fmt.Sprint("Response: ", i),
				"ExpectedResponse: ")
		}
		trial.WaitUntil(t, "c bans who guesses", func() bool { return c.bans(guesser) })
		c.proven(nth(5002))
		awaitEach(t, nth(5002), true, a, b, c)
		if a.bans(guesser) {
			t.Error("a bans its own customer")
		}
	})
	t.Run("a forged flood at one is nobody's ban elsewhere", func(t *testing.T) {
		forged := nths(10_000, 300)
		a.forged(forged...)
		trial.WaitUntil(t, "a keeps them out of UDP", func() bool { return allBanned(a, forged) })
		a.proven(nth(20_000)) // its record comes after theirs
		awaitEach(t, nth(20_000), true, a, b, c)
		a.awaitUpToDate()
		for _, n := range []*nodeHost{b, c} {
			if i := slices.IndexFunc(forged, n.bans); i >= 0 {
				t.Errorf("%s bans %s, of whom one node was told by whoever wanted to", n.name, forged[i])
			}
		}
		seen := forged[:100]
		b.forged(seen...)
		trial.WaitUntil(t, "of those that two saw all are out everywhere", func() bool { return allBanned(c, seen) })
		b.proven(nth(20_001))
		awaitEach(t, nth(20_001), true, a, b, c)
		if i := slices.IndexFunc(forged[100:], c.bans); i >= 0 {
			t.Errorf("c bans %s, whom one node saw", forged[100+i])
		}
	})
}

// trusts says whether a node trusts an address.
func (n *nodeHost) trusts(a netip.Addr) bool {
	list, err := n.client.Trusted(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	now := time.Now()
	for i := range list {
		if list[i].Prefix == single(a) && list[i].Until.After(now) {
			return true
		}
	}
	return false
}

func allBanned(n *nodeHost, list []netip.Addr) bool {
	return !slices.ContainsFunc(list, func(a netip.Addr) bool { return !n.bans(a) })
}

// awaitEach waits until each of some nodes' kernels keeps an address out, or does no more, and returns since when.
func awaitEach(t *testing.T, a netip.Addr, banned bool, list ...*nodeHost) []time.Time {
	t.Helper()
	at := make([]time.Time, len(list))
	var wait sync.WaitGroup
	for i, n := range list {
		wait.Go(func() {
			for deadline := time.Now().Add(trial.Patience); time.Now().Before(deadline); time.Sleep(200 * time.Microsecond) {
				if n.bans(a) == banned {
					at[i] = time.Now()
					return
				}
			}
		})
	}
	wait.Wait()
	for i, n := range list {
		if at[i].IsZero() {
			t.Fatalf("%s, banned at %s: not %t in time\n%+v", a, n.name, banned, n.fleetStatus())
		}
	}
	return at
}

// quantile is the time below which a part of some times are.
func quantile(list []time.Duration, part float64) time.Duration {
	list = slices.Sorted(slices.Values(list))
	return list[min(int(part*float64(len(list))), len(list)-1)]
}

func quantiles(list []time.Duration) string {
	round := func(d time.Duration) time.Duration { return max(d, 0).Round(10 * time.Microsecond) }
	return fmt.Sprintf("median %s, p99 %s, slowest %s of %d", round(quantile(list, 0.5)), round(quantile(list, 0.99)),
		round(quantile(list, 1)), len(list))
}
