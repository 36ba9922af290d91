package firewall

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
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
	type key struct {
		kind   Kind
		prefix netip.Prefix
	}
	r := rand.New(rand.NewPCG(1, 2))
	var q queue
	for turn := range 50 {
		last := make(map[key]Change)
		waiting := make(map[*ticket]int)
		for range r.IntN(3000) {
			c := Change{Kind: Kind(r.IntN(int(kinds))), Prefix: anyPrefix(r, 256), Timeout: time.Duration(r.Int64())}
			tk := &ticket{left: 1}
			k := key{c.Kind, c.Prefix}
			if i := q.find(c.Kind, c.Prefix); i < 0 == (last[k] != Change{}) || i >= 0 && q.changes[i] != last[k] {
				t.Fatalf("turn %d: %v is found at %d and was %+v", turn, c.Prefix, i, last[k])
			}
			if !q.put(&c, tk, 1<<20) {
				t.Fatal("no room")
			}
			last[k] = c
			waiting[tk]++
		}
		if q.len() != len(last) {
			t.Fatalf("turn %d: %d changes of %d prefixes", turn, q.len(), len(last))
		}
		for i, c := range q.changes {
			if last[key{c.Kind, c.Prefix}] != c || q.find(c.Kind, c.Prefix) != i {
				t.Fatalf("turn %d: %+v at %d", turn, c, i)
			}
			for _, tk := range append(q.waits[i].more, q.waits[i].ticket) {
				waiting[tk]--
			}
		}
		for tk, n := range waiting {
			if n != 0 {
				t.Fatalf("turn %d: ticket %p waits %d times too few", turn, tk, n)
			}
		}
		q.empty()
		if q.len() != 0 {
			t.Fatal("an emptied queue is not empty")
		}
		for i, n := range q.index {
			if n != 0 {
				t.Fatalf("turn %d: place %d of an emptied queue is taken", turn, i)
			}
		}
	}
}

func TestAFullQueueTakesOnlyRemovalsAndWhatItHas(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var q queue
	ban := func(remove bool) bool {
		c := Change{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{1, byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}), 32), Remove: remove}
		for q.find(c.Kind, c.Prefix) >= 0 {
			c.Prefix = netip.PrefixFrom(c.Prefix.Addr().Next(), 32)
		}
		return q.put(&c, &ticket{left: 1}, 100)
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
	if !q.put(&again, &ticket{left: 1}, 100) {
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
	p := newPresent(now)
	r := rand.New(rand.NewPCG(5, 6))
	note := func(a netip.Addr, until time.Time) bool { return p.note(p.hash(ban4, a), until, now) }
	ends := make(map[netip.Addr]time.Time)
	wrong, forgotten := 0, 0 // nearly never: 31 bits of a hash tell the elements apart
	for range 200_000 {
		now = now.Add(time.Duration(r.IntN(int(20 * time.Millisecond))))
		a := netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(r.Uint32()), byte(r.Uint32())})
		switch end, ok := ends[a]; {
		case r.IntN(10) == 0:
			p.forget(p.hash(ban4, a))
			delete(ends, a)
		default:
			until := now.Add(time.Duration(r.IntN(int(10 * time.Minute))))
			may := note(a, until)
			if ok && end.After(now) && !may { // with another that has the same hash
				forgotten++
			}
			if may && (!ok || end.Add((slack+1)*time.Second).Before(now)) {
				wrong++
			}
			ends[a] = until
		}
	}
	places := 0
	for i := range p.parts {
		places += len(p.parts[i].places)
	}
	if forgotten > 20 {
		t.Errorf("%d elements that are in the kernel were forgotten", forgotten)
	}
	if wrong > 20 {
		t.Errorf("%d elements that were not there are taken for some that were", wrong)
	}
	if places > 1<<20 {
		t.Errorf("%d places for at most %d elements", places, len(ends))
	}
	p.look([]op{{set: ban4, key: netip.MustParseAddr("10.0.0.1")}})
}
