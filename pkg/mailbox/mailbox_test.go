package mailbox

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func take[T any](m *Mailbox[T], most int) []T {
	items, _ := m.Take(most)
	return items
}

func TestItemsComeInTheirOrder(t *testing.T) {
	m := New(Options[int]{Limit: 100})
	for i := range 10 {
		if lost := m.Put(i); lost != nil {
			t.Fatalf("%v is lost", lost)
		}
	}
	if got := take(m, 3); !slices.Equal(got, []int{0, 1, 2}) || m.Len() != 7 {
		t.Errorf("%v, then %d wait", got, m.Len())
	}
	m.Put(10)
	if got := take(m, 0); !slices.Equal(got, []int{3, 4, 5, 6, 7, 8, 9, 10}) {
		t.Errorf("%v", got)
	}
	if got, ended := m.Take(0); got != nil || ended {
		t.Errorf("%v, %v", got, ended)
	}
}

func TestAFullMailboxRefuses(t *testing.T) {
	m := New(Options[string]{Limit: 10, Weight: func(s string) int { return len(s) }})
	for _, s := range []string{"four", "five5"} {
		if lost := m.Put(s); lost != nil {
			t.Errorf("%v is lost", lost)
		}
	}
	for _, s := range []string{"ab", strings.Repeat("x", 11)} {
		if lost := m.Put(s); !slices.Equal(lost, []string{s}) {
			t.Errorf("%v is lost of %q", lost, s)
		}
	}
	if lost := m.Put("a"); lost != nil {
		t.Errorf("%v is lost", lost)
	}
	if got := take(m, 0); !slices.Equal(got, []string{"four", "five5", "a"}) {
		t.Errorf("%q", got)
	}
}

func TestWhatIsBeingHandledCounts(t *testing.T) {
	m := New(Options[int]{Limit: 4})
	for i := range 4 {
		m.Put(i)
	}
	take(m, 3)
	if lost := m.Put(4); len(lost) != 1 {
		t.Error("three are being handled, one waits, and a fifth is taken")
	}
	if now, peak := m.Load(); now != 4 || peak != 4 {
		t.Errorf("load %d, peak %d", now, peak)
	}
	take(m, 1)
	if lost := m.Put(5); lost != nil {
		t.Errorf("%v is lost", lost)
	}
	take(m, 0)
	take(m, 0)
	if now, peak := m.Load(); now != 0 || peak != 4 {
		t.Errorf("load %d, peak %d", now, peak)
	}
}

// item is one of a test with priorities.
type item struct{ number, weight, priority int }

func withPriorities(limit int) *Mailbox[item] {
	return New(Options[item]{Limit: limit, Weight: func(i item) int { return i.weight },
		Priority: func(i item) int { return i.priority }})
}

func TestTheLowestPriorityAndTheOldestGoFirst(t *testing.T) {
	m := withPriorities(16)
	for i := range 16 {
		m.Put(item{i, 1, i % 4})
	}
	lost := m.Put(item{16, 1, 1}) // one, and a sixteenth of the limit
	if !slices.Equal(lost, []item{{0, 1, 0}, {4, 1, 0}}) {
		t.Errorf("lost %v", lost)
	}
	m.Put(item{17, 1, 0})
	if lost := m.Put(item{18, 10, 3}); len(lost) != 11 ||
		slices.ContainsFunc(lost, func(i item) bool { return i.priority == 3 }) {
		t.Errorf("lost %v", lost)
	}
	if lost := m.Put(item{19, 8, 2}); !slices.Equal(lost, []item{{19, 8, 2}}) {
		t.Errorf("for one of a lower priority are lost %v", lost)
	}
	if lost := m.Put(item{20, 16, 3}); len(lost) == 0 || lost[0].number == 20 {
		t.Errorf("for one of the same priority are lost %v", lost)
	}
	if got := take(m, 0); len(got) != 1 || got[0].number != 20 {
		t.Errorf("left are %v", got)
	}
}

// Whatever is put and taken: what comes is in order, and each item comes once or is said to be lost once.
func TestEveryItemIsTakenOrLost(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		m := withPriorities(200)
		state := make(map[int]string)
		last := -1
		took := func(items []item) {
			for _, i := range items {
				if state[i.number] != "waits" || i.number <= last {
					t.Fatalf("seed %d: %d comes after %d and %q", seed, i.number, last, state[i.number])
				}
				state[i.number], last = "taken", i.number
			}
		}
		for n := range 3000 {
			state[n] = "waits"
			for _, i := range m.Put(item{n, rnd.IntN(50), rnd.IntN(4)}) {
				if state[i.number] != "waits" {
					t.Fatalf("seed %d: %d is lost and %s", seed, i.number, state[i.number])
				}
				state[i.number] = "lost"
			}
			switch rnd.IntN(10) {
			case 0:
				took(take(m, 1+rnd.IntN(5)))
			case 1:
				back := take(m, 1+rnd.IntN(5))
				m.PutBack(back...)
			}
			sum, byPriority := 0, make([]int, 4)
			for _, i := range slices.Concat(m.chunks...) {
				sum += i.weight
				byPriority[i.priority] += i.weight
			}
			if slices.ContainsFunc(m.chunks, func(c []item) bool { return len(c) == 0 }) {
				t.Fatalf("seed %d: an empty chunk", seed)
			}
			if sum != m.waiting || m.handled+sum > 200+50*5 ||
				!slices.Equal(byPriority[:len(m.byPriority)], m.byPriority) {
				t.Fatalf("seed %d: %d wait, %d counted, %v, %v", seed, sum, m.waiting, byPriority, m.byPriority)
			}
		}
		took(take(m, 0))
		lost := 0
		for n, s := range state {
			if s == "waits" {
				t.Fatalf("seed %d: %d is neither taken nor lost", seed, n)
			}
			if s == "lost" {
				lost++
			}
		}
		if lost == 0 || lost == len(state) {
			t.Errorf("seed %d: %d lost of %d", seed, lost, len(state))
		}
	}
}

func TestWhatIsPutBackComesFirstWhateverTheLimit(t *testing.T) {
	m := New(Options[int]{Limit: 3})
	for i := range 3 {
		m.Put(i)
	}
	got := take(m, 0)
	take(m, 0)
	for i := range 3 {
		m.Put(10 + i)
	}
	m.PutBack(got...)
	if got := take(m, 0); !slices.Equal(got, []int{0, 1, 2, 10, 11, 12}) {
		t.Errorf("%v", got)
	}
}

func TestTheOldestThatMatchAreDiscarded(t *testing.T) {
	m := withPriorities(100)
	for i := range 9 {
		m.Put(item{i, 2, i % 3})
	}
	lost := m.Discard(2, func(i item) bool { return i.priority == 1 })
	if !slices.Equal(lost, []item{{1, 2, 1}, {4, 2, 1}}) || m.Len() != 7 || m.waiting != 14 || m.byPriority[1] != 2 {
		t.Errorf("lost %v, %d wait", lost, m.Len())
	}
}

func TestAClosedMailboxIsDrained(t *testing.T) {
	m := New(Options[int]{Limit: 10})
	m.Put(1)
	m.Put(2)
	m.Close()
	if lost := m.Put(3); !slices.Equal(lost, []int{3}) {
		t.Errorf("lost %v", lost)
	}
	if got, ended := m.Take(1); !slices.Equal(got, []int{1}) || ended {
		t.Errorf("%v, %v", got, ended)
	}
	if got, ended := m.Take(0); !slices.Equal(got, []int{2}) || ended {
		t.Errorf("%v, %v", got, ended)
	}
	if got, ended := m.Take(0); got != nil || !ended {
		t.Errorf("%v, %v", got, ended)
	}
}

// The consumer of the doc comment gets everything, whoever puts how much at which time.
func TestTheConsumerIsWokenAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options[string]{Limit: 1 << 20})
		seen := make(map[string]bool)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				switch items, ended := m.Take(3); {
				case len(items) > 0:
					for _, s := range items {
						seen[s] = true
					}
				case ended:
					return
				default:
					<-m.Ready()
				}
			}
		}()
		var wg sync.WaitGroup
		for p := range 5 {
			wg.Go(func() {
				for i := range 100 {
					m.Put(fmt.Sprint(p, " ", i))
					if i%(7+p) == 0 {
						time.Sleep(time.Millisecond)
					}
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if m.Len() != 0 { // he waits, and nothing does
			t.Errorf("%d wait", m.Len())
		}
		m.Close()
		<-done
		if len(seen) != 500 {
			t.Errorf("%d came", len(seen))
		}
	})
}

func TestWakeLetsTheConsumerLook(t *testing.T) {
	m := New(Options[int]{Limit: 1})
	m.Wake()
	m.Wake()
	<-m.Ready()
	select {
	case <-m.Ready():
		t.Error("woken twice")
	default:
	}
}

// What was taken or given up is not kept in memory by what still waits.
func TestWhatIsGoneIsNotKept(t *testing.T) {
	m := New(Options[*[1 << 20]byte]{Limit: 64, Priority: func(*[1 << 20]byte) int { return 0 }})
	gone := make(chan struct{}, 200)
	put := func(n int) {
		for range n {
			b := new([1 << 20]byte)
			runtime.AddCleanup(b, func(struct{}) { gone <- struct{}{} }, struct{}{})
			m.Put(b)
		}
	}
	put(100) // more than the limit: some are given up
	take(m, 16)
	waits := m.Len()
	if waits == 0 || waits > 48 {
		t.Fatalf("%d wait", waits)
	}
	for n := 0; n < 100-waits; n++ {
		for collected := false; !collected; {
			runtime.GC()
			select {
			case <-gone:
				collected = true
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	runtime.KeepAlive(m)
}

func BenchmarkPutAndTake(b *testing.B) {
	m := withPriorities(1 << 20)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if m.Put(item{i, 1, i & 3}); i&255 == 255 {
			take(m, 0)
		}
		i++
	}
}

// BenchmarkFlood puts into a mailbox that is full.
func BenchmarkFlood(b *testing.B) {
	m := withPriorities(1 << 16)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		m.Put(item{i, 1, i & 3})
		i++
	}
}

// More items than a chunk holds come as they were put, and what is deleted among them leaves nothing behind.
func TestManyItemsComeInTheirOrder(t *testing.T) {
	const number = 5*chunkItems + 7
	for _, most := range []int{0, 1, chunkItems - 1, chunkItems, chunkItems + 1, 2 * chunkItems} {
		m := New(Options[int]{Limit: 2 * number})
		for i := range number {
			m.Put(i)
		}
		lost := m.Discard(number, func(i int) bool { return i%3 == 0 })
		m.Put(number)
		if len(lost) != (number+2)/3 || m.Len() != number-len(lost)+1 || m.waiting != m.Len() {
			t.Fatalf("%d lost, %d wait, %d counted", len(lost), m.Len(), m.waiting)
		}
		var got []int
		for items := take(m, most); len(items) > 0; items = take(m, most) {
			got = append(got, items...)
			if now, _ := m.Load(); most > 0 && len(items) > most || now != m.Len()+len(items) {
				t.Fatalf("%d taken of at most %d, load %d", len(items), most, now)
			}
		}
		if len(got) != number-len(lost)+1 || !slices.IsSorted(got) ||
			slices.ContainsFunc(got[:len(got)-1], func(i int) bool { return i%3 == 0 }) {
			t.Errorf("%d came, by %d", len(got), most)
		}
	}
}
