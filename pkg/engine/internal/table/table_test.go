package table

import (
	"math/rand/v2"
	"slices"
	"testing"
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
				if w.Seen(now, key) != is {
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
					if list := a.list(p.at); list < newest {
						t.Fatalf("seed %d: %d, of list %d, comes after list %d", seed, n, list, newest)
					} else {
						newest = list
					}
					seen++
				}
				n, ok := a.Oldest(class)
				if ok != (first != ^uint32(0)) || ok && a.list(model[n].at) != a.list(first) {
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
