package ami

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"
)

// numbered is a frame whose text tells its number, and which shows every byte that is not its own.
func numbered(i int, name string, size int) Frame {
	head := fmt.Sprintf("Event: %s\r\nN: %08d\r\nX: ", name, i)
	if name == "" {
		head = fmt.Sprintf("%08d", i)
	}
	return Frame{Text: head + strings.Repeat(string(rune('a'+i%26)), max(0, size-len(head)))}
}

// Whatever comes, in whatever sizes and classes, is taken in its order and byte for byte or counted as dropped, states
// stand where they stood, and all memory that is held stays within the bound.
func TestQueueKeepsEveryByteWhileItGivesUpOthers(t *testing.T) {
	names := []string{"ChallengeSent", "SuccessfulAuth", "InvalidAccountID", "FailedACL", "Newchannel", ""}
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 6))
		limit := []int{200 << 10, 300 << 10, 500 << 10}[seed%3]
		largest := []int{100, 500, 12_000, 130_000}[seed%4]
		total := 12_000
		if largest > 500 {
			total = 4000
		}
		q := newQueue(limit)
		var (
			handled int      // bytes of what was taken last
			order   []string // what must come: numbers and states
			came    []string
			present = make(map[string]string)
		)
		give := func() {
			items, _ := q.takeItems()
			handled = 0
			for _, it := range items {
				handled += it.weight()
				if it.state != nil {
					came = append(came, fmt.Sprint("state ", int(it.state.Blind)))
					continue
				}
				f := it.frame
				_, n, ok := strings.Cut(f.Text, "\r\nN: ")
				if !ok {
					n = f.Text
				}
				came = append(came, n[:8])
				if present[n[:8]] != f.Text {
					t.Fatalf("seed %d: %q came, %q was sent", seed, f.Text, present[n[:8]])
				}
			}
		}
		for i := range total {
			f := numbered(i, names[rnd.IntN(len(names))], rnd.IntN(1+rnd.IntN(largest)))
			n := fmt.Sprintf("%08d", i)
			order = append(order, n)
			present[n] = f.Text
			q.pushFrame(f)
			if rnd.IntN(300) == 0 {
				order = append(order, fmt.Sprint("state ", i))
				q.pushState(State{Blind: time.Duration(i)})
			}
			if i%(total/2) > total*3/8 && rnd.IntN(200) == 0 {
				give()
			}
			if counted := held(q); counted < handled || counted > limit {
				t.Fatalf("seed %d: %d bytes are handled and %d counted, with a bound of %d", seed, handled, counted,
					limit)
			}
		}
		for n := -1; n != len(came); {
			n = len(came)
			give()
		}
		at, states := 0, 0
		for _, want := range order {
			if at < len(came) && came[at] == want {
				at++
			} else if strings.HasPrefix(want, "state ") {
				t.Fatalf("seed %d: %s is lost or late; %s came", seed, want, came[min(at, len(came)-1)])
			}
			if strings.HasPrefix(want, "state ") {
				states++
			}
		}
		lost := 0
		for _, n := range dropped(q) {
			lost += int(n)
		}
		if at != len(came) || at-states+lost != total || states == 0 || lost == 0 {
			t.Errorf("seed %d: %d of %d in their order, %d dropped, %d states", seed, at, len(came), lost, states)
		}
		if now, peak := q.box.Load(); now != 0 || q.states.Load() != 0 || peak > limit {
			t.Errorf("seed %d: at the end %d bytes, %d states, peak %d", seed, now, q.states.Load(), peak)
		}
	}
}

// A few frames that must not be lost outlive many that are given up.
func TestWhatMustNotBeLostOutlivesAFlood(t *testing.T) {
	q := newQueue(4 << 20)
	for i := range 200_000 {
		name := "ChallengeSent"
		if i%500 == 0 {
			name = "SuccessfulAuth"
		}
		q.pushFrame(numbered(i, name, 400))
	}
	for i := range 20_000 {
		q.pushFrame(numbered(i, "InvalidPassword", 400))
	}
	trust := 0
	frames, _ := drainQueue(q)
	for _, f := range frames {
		if strings.Contains(f.Text, "SuccessfulAuth") {
			trust++
		}
	}
	if trust != 400 {
		t.Errorf("%d of 400", trust)
	}
}

// What the queue holds takes about as much memory as it counts, whatever the size of the frames.
func TestWhatIsCountedIsWhatMemoryIsTaken(t *testing.T) {
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	const limit = 8 << 20
	for _, size := range []int{1, 30, 300, 5000} {
		q := newQueue(limit)
		before := heap()
		for i := range 4 * limit / (size + frameCost) {
			q.pushFrame(numbered(i, "", size))
			if i%10_000 == 9_999 {
				q.takeItems()
			}
		}
		if took := heap() - before; took > limit*3/2 || took < limit/4 {
			t.Errorf("with frames of %d bytes the queue takes %d bytes, and counts %d", size, took, held(q))
		}
		runtime.KeepAlive(q)
	}
}
