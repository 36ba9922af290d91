package firewall

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/firewall/internal/nfnl"
)

// anyPrefix is one of few, so that they come again.
func anyPrefix(r *rand.Rand, n int) netip.Prefix {
	a := netip.AddrFrom4([4]byte{20, byte(r.IntN(n) >> 8), byte(r.IntN(n)), 1})
	switch r.IntN(4) {
	case 0:
		return netip.PrefixFrom(a, 24).Masked()
	case 1:
		return netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(r.IntN(n))}), 128)
	}
	return netip.PrefixFrom(a, 32)
}

func TestTheQueueHoldsTheLastChangeOfEachPrefixAndAllWhoWait(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 50 {
		var q queue
		last := make(map[target]Change)
		waiting := make(map[*submission]int)
		for range r.IntN(3000) {
			c := Change{Kind: Kind(r.IntN(int(numKinds))), Prefix: anyPrefix(r, 256), Timeout: time.Duration(r.Int64())}
			tk := &submission{unsettled: 1}
			k := c.target()
			if _, ok := last[k]; q.has(c.target()) != ok {
				t.Fatalf("round %d: %v is there %v, want %v", round, c.Prefix, !ok, ok)
			}
			if !q.addOrReplace(&c, tk, 1<<20) {
				t.Fatal("no room")
			}
			last[k] = c
			waiting[tk]++
		}
		if q.len() != len(last) {
			t.Fatalf("round %d: %d changes of %d prefixes", round, q.len(), len(last))
		}
		for i, c := range q.changes {
			if last[c.target()] != c {
				t.Fatalf("round %d: %+v at %d", round, c, i)
			}
			for _, tk := range q.waiters[i] {
				waiting[tk]--
			}
		}
		for tk, n := range waiting {
			if n != 0 {
				t.Fatalf("round %d: ticket %p waits %d times too few", round, tk, n)
			}
		}
	}
}

// TestATicketWaitsOnceForAPrefix submits two changes of one prefix together, also where another waits for it
// already.
func TestATicketWaitsOnceForAPrefix(t *testing.T) {
	var q queue
	c := Change{Prefix: pfx("192.0.2.1")}
	first, second := &submission{unsettled: 1}, &submission{unsettled: 2}
	for _, tk := range []*submission{first, second, second} {
		if !q.addOrReplace(&c, tk, 10) {
			t.Fatal("no room")
		}
	}
	if len(q.waiters[0]) != 2 || first.unsettled != 1 || second.unsettled != 1 {
		t.Errorf("%d wait, for %d and %d changes", len(q.waiters[0]), first.unsettled, second.unsettled)
	}
}

func TestAFullQueueTakesOnlyRemovalsAndWhatItHas(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var q queue
	ban := func(remove bool) bool {
		c := Change{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{1, byte(r.Uint32()), byte(r.Uint32()),
			byte(r.Uint32())}), 32), Remove: remove}
		for q.has(c.target()) {
			c.Prefix = netip.PrefixFrom(c.Prefix.Addr().Next(), 32)
		}
		return q.addOrReplace(&c, &submission{unsettled: 1}, 100)
	}
	for range 100 {
		if !ban(false) {
			t.Fatal("no room before the limit")
		}
	}
	if ban(false) {
		t.Error("a ban beyond the limit is taken")
	}
	again := q.changes[7]
	if !q.addOrReplace(&again, &submission{unsettled: 1}, 100) {
		t.Error("another change of a prefix that waits is refused")
	}
	for range 100 {
		if !ban(true) {
			t.Fatal("no room for a removal")
		}
	}
	if ban(true) {
		t.Error("removals have no limit")
	}
}

func TestWhatMayBeInTheKernelIsRememberedUntilItsEnd(t *testing.T) {
	now := time.Now()
	w := newWritten()
	r := rand.New(rand.NewPCG(5, 6))
	ends := make(map[elementKey]time.Time)
	for range 200_000 {
		now = now.Add(time.Duration(r.IntN(int(20 * time.Millisecond))))
		key := keyOfElement(ban4,
			nfnl.Key{Addr: netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(r.Uint32()), byte(r.Uint32())})})
		if r.IntN(10) == 0 {
			w.forget(key)
			delete(ends, key)
			continue
		}
		until := now.Add(time.Duration(r.IntN(int(10 * time.Minute))))
		end, ok := ends[key]
		switch may := w.rememberAndTest(key, until, now); {
		case ok && end.After(now) && !may:
			t.Fatalf("%v is in the kernel and was forgotten", key.addr)
		case may && (!ok || end.Add(endTolerance).Before(now)):
			t.Fatalf("%v is taken for one that is in the kernel", key.addr)
		}
		ends[key] = until
	}
	live := 0
	for _, end := range ends {
		if !end.Before(now) {
			live++
		}
	}
	if len(w.expiry) > 3*live+minSweep {
		t.Errorf("%d elements are remembered for %d in the kernel", len(w.expiry), live)
	}
}
