package table

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// TestAFIFOIsAQueue compares a FIFO with a counter, over many pages and back to none.
func TestAFIFOIsAQueue(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var q FIFO[int]
	in, out := 0, 0
	for in < 20*pageSize {
		for range r.IntN(3 * pageSize) {
			in++
			q.Push(in)
			if *q.Last() != in {
				t.Fatalf("last is %d, want %d", *q.Last(), in)
			}
		}
		for range r.IntN(q.Len() + 1) {
			out++
			if *q.First() != out || q.Pop() != out {
				t.Fatalf("not %d", out)
			}
		}
		if q.Len() != in-out || len(q.pages) > q.Len()/pageSize+2 {
			t.Fatalf("%d of %d in %d pages", q.Len(), in-out, len(q.pages))
		}
		for i := range q.Len() {
			if *q.At(i) != out+1+i {
				t.Fatalf("item %d is %d, want %d", i, *q.At(i), out+1+i)
			}
		}
	}
	for q.Len() > 0 {
		q.Pop()
	}
	if q.First() != nil || q.Last() != nil || len(q.pages) > 1 {
		t.Error("something is left")
	}
}

// TestAWindowIsAMapThatForgets compares a window with a list in the order of time.
func TestAWindowIsAMapThatForgets(t *testing.T) {
	type entry struct {
		key   uint64
		at    int64
		value int
		gone  bool // removed or put again: it takes its slot all the same
	}
	const ttl = 50
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		size := []int{8, 64, 128}[r.IntN(3)]
		w := NewWindow[int](ttl, size)
		var slots []entry
		now := int64(1)
		live := func() (list []entry) {
			for _, e := range slots {
				if !e.gone && now-e.at < ttl {
					list = append(list, e)
				}
			}
			return list
		}
		put := func(key uint64, value int) {
			for n := 0; n < 4 && len(slots) > 0 && now-slots[0].at >= ttl; n++ {
				slots = slots[1:]
			}
			if len(slots) == size {
				slots = slots[1:]
			}
			slots = append(slots, entry{key: key, at: now, value: value})
		}
		for step := range 400 {
			now += r.Int64N(4)
			key := r.Uint64N(40) * 1e15
			at := slices.IndexFunc(slots, func(e entry) bool { return e.key == key && !e.gone })
			is := at >= 0 && now-slots[at].at < ttl
			switch r.IntN(10) {
			case 0:
				odd := func(v int) bool { return v%3 == 0 }
				var from uint64
				for w.RemoveSome(&from, 3, odd) {
				}
				for i := range slots {
					slots[i].gone = slots[i].gone || odd(slots[i].value)
				}
			case 1:
				if n := w.Live(now); n != len(live()) {
					t.Fatalf("seed %d: %d live, want %d", seed, n, len(live()))
				}
				for len(slots) > 0 && now-slots[0].at >= ttl {
					slots = slots[1:]
				}
			case 2:
				if v, old := w.Renew(now, key); old != is || is && *v != slots[at].value {
					t.Fatalf("seed %d: renewed %d: %v, want %v", seed, key, old, is)
				} else if !old {
					*v = step
				}
				switch {
				case is && now-slots[at].at >= ttl/2:
					value := slots[at].value
					slots[at].gone = true
					put(key, value)
				case !is:
					if at >= 0 {
						slots[at].gone = true
					}
					put(key, step)
				}
			case 3:
				if w.PutOnce(now, key) != is {
					t.Fatalf("seed %d: seen %d is %v, want %v", seed, key, !is, is)
				}
				if !is {
					if at >= 0 {
						slots[at].gone = true
					}
					put(key, 0)
				}
			default:
				if v := w.Get(now, key); (v != nil) != is || is && *v != slots[at].value {
					t.Fatalf("seed %d: key %d: %v, want %v", seed, key, v, is)
				}
			}
			var want []int
			for _, e := range live() {
				want = append(want, e.value)
			}
			if got := slices.Collect(w.Values(now)); !slices.Equal(got, want) {
				t.Fatalf("seed %d: values %v, want %v", seed, got, want)
			}
			if w.slots.Len() > size || len(w.numbers) > size {
				t.Fatalf("seed %d: %d slots, %d keys, max %d", seed, w.slots.Len(), len(w.numbers), size)
			}
		}
		if n := w.Live(1 << 40); n != 0 || w.slots.Len() != 0 {
			t.Errorf("seed %d: %d live and %d slots when all is over", seed, n, w.slots.Len())
		}
	}
}

// TestAgesOrderByTime compares the lists with a map, and wants the oldest to within the time of a list.
func TestAgesOrderByTime(t *testing.T) {
	type place struct {
		class int
		at    uint32
	}
	const classes = 3
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		a := NewAges(classes, []uint32{60, 3600, 86400}[r.IntN(3)])
		now := 1 + r.Uint32N(1e9)
		model := make(map[int32]place)
		for range 300 {
			now += []uint32{r.Uint32N(90), r.Uint32N(7200), r.Uint32N(1e6)}[r.IntN(3)]
			number := r.Int32N(3 * pageSize)
			have, ok := model[number]
			if ok {
				a.Remove(number, have.class, have.at)
				delete(model, number)
			}
			if !ok || r.IntN(3) > 0 {
				p := place{r.IntN(classes), now - r.Uint32N(min(now, 200))}
				a.Insert(number, p.class, p.at)
				model[number] = p
			}
			seen := 0
			for class := range classes {
				first, newest := ^uint32(0), uint32(0)
				for _, p := range model {
					if p.class == class {
						first = min(first, p.at)
					}
				}
				for n := range a.All(class) {
					p, ok := model[n]
					if !ok || p.class != class {
						t.Fatalf("seed %d: %d is in class %d, want %+v, %v", seed, n, class, p, ok)
					}
					// Whatever is older than the oldest list is in that list, in any order.
					if list := a.listFor(p.at); list < newest {
						t.Fatalf("seed %d: %d, of list %d, comes after list %d", seed, n, list, newest)
					} else {
						newest = list
					}
					seen++
				}
				n, ok := a.Oldest(class)
				if ok != (first != ^uint32(0)) || ok && a.listFor(model[n].at) != a.listFor(first) {
					t.Fatalf("seed %d: the oldest of class %d is of %d, want %d", seed, class, model[n].at, first)
				}
			}
			if seen != len(model) {
				t.Fatalf("seed %d: the lists hold %d of %d", seed, seen, len(model))
			}
		}
	}
}

// TestAPoolKeepsItemsInTheirPlace frees and adds items, whose pointers stay good.
func TestAPoolKeepsItemsInTheirPlace(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	var p Pool[int]
	held := make(map[int32]*int)
	for i := range 20 * pageSize {
		if r.IntN(3) == 0 && len(held) > 0 {
			for number, item := range held {
				if p.At(number) != item {
					t.Fatalf("%d has moved", number)
				}
				p.Free(number)
				delete(held, number)
				break
			}
			continue
		}
		number := p.Add(i)
		if held[number] != nil || *p.At(number) != i {
			t.Fatalf("number %d is given out twice, or holds %d for %d", number, *p.At(number), i)
		}
		held[number] = p.At(number)
	}
	if int(p.used) > len(held)+pageSize*7 {
		t.Errorf("%d numbers were used for %d items", p.used, len(held))
	}
}

// BenchmarkWindow puts keys into a full window, as a flood does: the target is 250 ns.
func BenchmarkWindow(b *testing.B) {
	w := NewWindow[[20]byte](1<<40, 1<<18)
	for i := 0; b.Loop(); i++ {
		w.Put(int64(i), uint64(i)*0x9e3779b97f4a7c15)
	}
}

func TestPrefixesAgreeWithAWalk(t *testing.T) {
	var p Prefixes[int]
	var all []netip.Prefix
	for i, s := range []string{"0.0.0.0/3", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "192.168.0.0/15",
		"203.0.113.128/25",
		"fd00::/8", "fd00:1::/48", "fd00:1::5/128", "::/0"} {
		q := netip.MustParsePrefix(s)
		p.Set(q, i)
		all = append(all, q)
		for _, a := range []string{"10.1.2.3", "10.1.2.4", "10.1.3.1", "10.2.0.1", "11.0.0.1", "64.0.0.1",
			"192.169.255.255", "192.170.0.0",
			"203.0.113.127", "203.0.113.128", "fd00:1::5", "fd00:1::6", "fd01::1", "2001:db8::1"} {
			addr := netip.MustParseAddr(a)
			var want netip.Prefix
			for _, q := range all {
				if q.Contains(addr) && (!want.IsValid() || q.Bits() > want.Bits()) {
					want = q
				}
			}
			if got, ok := p.Covering(addr); got != want || ok != want.IsValid() {
				t.Errorf("covering(%s) = %v, want %v", a, got, want)
			}
			for bits := range addr.BitLen() + 1 {
				q, _ := addr.Prefix(bits)
				overlaps := slices.ContainsFunc(all, q.Overlaps)
				if have, ok := p.Overlapping(q); ok != overlaps || ok && !have.Overlaps(q) {
					t.Errorf("overlapping(%v) = %v, %v; want %v", q, have, ok, overlaps)
				}
			}
		}
	}
}

// TestAHeapSorts pushes and pops, and compares with a sorted list.
func TestAHeapSorts(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	h := NewHeap(func(a, b *int) bool { return *a < *b })
	var want []int
	for range 2000 {
		if r.IntN(3) == 0 && len(want) > 0 {
			if *h.First() != want[0] || h.Pop() != want[0] {
				t.Fatalf("not %d", want[0])
			}
			want = want[1:]
			continue
		}
		n := r.IntN(1000)
		h.Push(n)
		at, _ := slices.BinarySearch(want, n)
		want = slices.Insert(want, at, n)
	}
	for _, n := range want {
		if got := h.Pop(); got != n {
			t.Fatalf("%d, want %d", got, n)
		}
	}
	if h.First() != nil {
		t.Error("something is left")
	}
}

// TestChainsKeepTheLatestOfAll compares chains with a list of all that was ever added.
func TestChainsKeepTheLatestOfAll(t *testing.T) {
	const size = 4 * chainPage
	type added struct{ owner, item int }
	r := rand.New(rand.NewPCG(11, 12))
	c := NewChains[int, int](size)
	latest := make(map[int]uint32)
	var all []added
	for i := range 3 * size {
		owner := int(r.ExpFloat64() * 20)
		item, number := c.Add(owner, latest[owner])
		if *item != 0 {
			t.Fatalf("a new item is %d", *item)
		}
		*item, latest[owner] = i, number
		all = append(all, added{owner, i})
		kept := all[max(0, len(all)-size):]

		owner, n := int(r.ExpFloat64()*20), r.IntN(40)-1
		var want []int
		before := 0 // of the owner's, all of them
		for _, a := range all {
			if a.owner == owner {
				before++
			}
		}
		for _, a := range kept {
			if a.owner == owner {
				want = append(want, a.item)
			}
		}
		want = want[len(want)-min(len(want), max(n, 0)):]
		got, more := c.Chain(owner, latest[owner], n)
		if !slices.Equal(got, want) || more != (before > len(want)) {
			t.Fatalf("%d of owner %d: %v, more %v; want %v of %d", n, owner, got, more, want, before)
		}
		if i%97 == 0 {
			at := len(kept)
			for owner, item := range c.All() {
				at--
				if kept[at] != (added{owner, *item}) {
					t.Fatalf("%d of %d, want %+v", *item, owner, kept[at])
				}
			}
			if at != 0 {
				t.Fatalf("%d items are missing", at)
			}
		}
	}
}

// TestChainsEndWhereTheirNumbersAreUsedUp lets the numbers begin anew.
func TestChainsEndWhereTheirNumbersAreUsedUp(t *testing.T) {
	c := NewChains[string, int](chainPage)
	_, a := c.Add("a", 0)
	c.latest = math.MaxUint32
	item, b := c.Add("b", math.MaxUint32)
	*item = 7
	if got, _ := c.Chain("a", a, 9); b != 1 || len(got) > 0 {
		t.Errorf("number %d, and %v of another owner", b, got)
	}
	if got, more := c.Chain("b", b, 9); !slices.Equal(got, []int{7}) || !more {
		t.Errorf("%v, more %v", got, more)
	}
}

// TestDistinctThingsAreCounted counts things with random hashes, exactly where there are few.
func TestDistinctThingsAreCounted(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	for _, n := range []int{0, 1, 3, 4, 5, 20, 60} {
		sum := 0
		for range 200 {
			var d DistinctFew
			hashes := make([]uint64, n)
			for i := range hashes {
				hashes[i] = r.Uint64()
			}
			for range 3 { // again and again
				for _, h := range hashes {
					d.Add(1000, 60, h, uint8(h%64))
				}
			}
			if got := d.AtLeast(); got > n || n <= 4 && got != n {
				t.Fatalf("at least %d of %d", got, n)
			}
			sum += d.Estimate()
			if d.Add(1060, 60, 1<<40, 3); d.AtLeast() != 1 || d.Estimate() != 1 {
				t.Fatal("what was seen a span before is counted")
			}
		}
		if mean := float64(sum) / 200; math.Abs(mean-float64(n)) > 0.1*float64(n) {
			t.Errorf("%d things are estimated as %.1f", n, mean)
		}
	}
	if EstimateDistinct(math.MaxUint64) != 320 {
		t.Error("a full word")
	}
}

// TestABucketLeaks fills one for a minute and lets it rest.
func TestABucketLeaks(t *testing.T) {
	var b LeakyBucket
	now := int64(time.Hour)
	for range 60 {
		b.Add(now, 2, 60)
		now += int64(time.Second)
	}
	if b.Level() < 60 || b.Level() > 62 {
		t.Errorf("two a second and one leaks: %g after a minute", b.Level())
	}
	if got := b.Add(now+int64(time.Hour), 1, 60); got != 1 {
		t.Errorf("%g after an hour", got)
	}
}

// TestTheMostFrequentStayInAFlood counts a few keys often and many keys once.
func TestTheMostFrequentStayInAFlood(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	f := new(Frequent[uint64])
	often := make(map[uint64]uint32)
	for range 50 {
		often[r.Uint64()|1] = 0
	}
	for range 400 {
		for key := range often {
			value, fresh := f.Add(key)
			if fresh && often[key] > 0 || !fresh && *value != key {
				t.Fatalf("%x: fresh %v, value %x", key, fresh, *value)
			}
			*value = key
			often[key]++
		}
		for range 50 {
			key := r.Uint64() | 1
			value, _ := f.Add(key)
			*value = key
		}
	}
	for c := range f.All() {
		if n, ok := often[c.Key]; ok && (c.Count > n || c.Count < n-n/4) || !ok && c.Count > 1 || *c.Value != c.Key {
			t.Errorf("%x was counted %d times, came %d times", c.Key, c.Count, n)
		}
		delete(often, c.Key)
	}
	if len(often) > 0 {
		t.Errorf("%d keys were forgotten", len(often))
	}
}
