package ami

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
	"unsafe"
)

// held is the memory that a queue has, whatever for. What was taken and not given back comes on top.
func held(q *queue) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	pages := make(map[*page]bool)
	count := func(p *page) {
		if p != nil && !pages[p] {
			pages[p] = true
			n += int(unsafe.Sizeof(*p))
		}
	}
	chunks := func(list []*chunk) {
		for _, c := range list {
			n += cap(c.frames)*int(unsafe.Sizeof(Frame{})) + cap(c.about)*int(unsafe.Sizeof(about{}))
			for i, a := range c.about {
				if count(a.page); a.page == nil {
					n += len(c.frames[i].Text)
				}
			}
		}
	}
	chunks(q.chunks)
	chunks(q.spare.list)
	count(q.texts.open)
	for _, p := range q.texts.spare.list {
		count(p)
	}
	return n
}

// numbered is a frame whose text tells its number, and which shows every byte that is not its own.
func numbered(i int, name string, size int) Frame {
	head := fmt.Sprintf("Event: %s\r\nN: %08d\r\nX: ", name, i)
	if name == "" {
		head = fmt.Sprintf("%08d", i)
	}
	return Frame{Text: head + strings.Repeat(string(rune('a'+i%26)), max(0, size-len(head)))}
}

// Whatever comes, in whatever sizes and classes, is taken in its order and byte for byte or counted as dropped, states stand
// where they stood, and all memory that is held stays within the bound. Texts that are over are overwritten, so that none
// that is still in use can share bytes with them.
func TestQueueKeepsEveryByteWhileItGivesUpOthers(t *testing.T) {
	names := []string{"ChallengeSent", "SuccessfulAuth", "InvalidAccountID", "FailedACL", "Newchannel", ""}
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 6))
		limit := []int{200 << 10, 300 << 10, 500 << 10}[seed%3]
		largest := []int{100, 500, 3 * ownBuffer, 2 * pageSize}[seed%4]
		total := 12_000
		if largest > 500 {
			total = 4000
		}
		q := newQueue(limit)
		q.texts.poison = true
		var (
			out     []*chunk // taken and not given back
			order   []string // what must come: numbers and states
			came    []string
			present = make(map[string]string)
		)
		give := func() {
			c := q.take()
			if c == nil {
				return
			}
			out = append(out, c)
			at := 0
			for i := 0; i <= len(c.frames); i++ {
				for ; at < len(c.marks) && c.marks[at].at == i; at++ {
					came = append(came, fmt.Sprint("state ", int(c.marks[at].state.Blind)))
				}
				if i < len(c.frames) {
					text := strings.Clone(c.frames[i].Text)
					_, n, ok := strings.Cut(text, "\r\nN: ")
					if !ok {
						n = text
					}
					came = append(came, n[:8])
					if present[n[:8]] != text {
						t.Fatalf("seed %d: %q came, %q was sent", seed, text, present[n[:8]])
					}
				}
			}
			if at != len(c.marks) {
				t.Fatalf("seed %d: %d of %d states, %d frames", seed, at, len(c.marks), len(c.frames))
			}
		}
		for i := range total {
			f := numbered(i, names[rnd.IntN(len(names))], rnd.IntN(1+rnd.IntN(largest)))
			n := fmt.Sprintf("%08d", i)
			order = append(order, n)
			present[n] = f.Text
			q.push(f)
			if rnd.IntN(300) == 0 {
				order = append(order, fmt.Sprint("state ", i))
				q.pushState(State{Blind: time.Duration(i)})
			}
			if i%(total/2) > total*3/8 && rnd.IntN(200) == 0 {
				give()
			}
			for len(out) > 0 && (len(out) > 1 || rnd.IntN(300) == 0) {
				q.release(out[0])
				out = out[1:]
			}
			if i%197 == 0 {
				if n, most := held(q), limit+3*pageSize+chunkFrames*frameCost; n > most || q.occupied() > limit+pageSize {
					t.Fatalf("seed %d: %d bytes are held and %d counted, with a bound of %d", seed, n, q.occupied(), limit)
				}
			}
		}
		for _, c := range out {
			q.release(c)
		}
		for n := -1; n != len(came); {
			n = len(came)
			give()
			if n != len(came) {
				q.release(out[len(out)-1])
			}
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
		dropped := 0
		for _, n := range q.dropped {
			dropped += int(n)
		}
		if at != len(came) || at-states+dropped != total || states == 0 || dropped == 0 {
			t.Errorf("seed %d: %d of %d in their order, %d dropped, %d states", seed, at, len(came), dropped, states)
		}
		if q.occupied() != 0 || q.byClass != [classes]int{} || q.states != 0 || q.peak > limit {
			t.Errorf("seed %d: at the end %d bytes, %v, %d states, peak %d", seed, q.occupied(), q.byClass, q.states, q.peak)
		}
	}
}

// A few frames that must not be lost, among many that are given up, keep no more memory than they need.
func TestWhatRemainsOfAFloodIsPackedTogether(t *testing.T) {
	q := newQueue(4 << 20)
	for i := range 200_000 {
		name := "ChallengeSent"
		if i%500 == 0 {
			name = "SuccessfulAuth"
		}
		q.push(numbered(i, name, 400))
	}
	for i := range 20_000 {
		q.push(numbered(i, "InvalidPassword", 400))
	}
	if n := held(q); n > q.limit+2*pageSize {
		t.Errorf("%d bytes are held, with a bound of %d", n, q.limit)
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

func TestTextsAreOverwrittenOnceReleased(t *testing.T) {
	q := newQueue(1 << 20)
	q.texts.poison = true
	var kept []string
	for i, size := range []int{0, 30, 400, ownBuffer, ownBuffer + 1, 2 * pageSize} {
		q.push(numbered(i, "InvalidAccountID", size))
	}
	c := q.take()
	for _, f := range c.frames {
		if !utf8.ValidString(f.Text) {
			t.Errorf("%q before its time", f.Text)
		}
		kept = append(kept, f.Text)
	}
	q.release(c)
	for _, text := range kept {
		if want := strings.Repeat("\xfe", len(text)); text != want {
			t.Errorf("%.40q… is still there", text)
		}
	}
}

// The bytes that NextBytes gave are nobody's after the next call, so that the tests of the session notice whoever keeps them.
func TestReadBytesAreOverwrittenInTestsOfRaces(t *testing.T) {
	sp := NewSplitter(strings.NewReader("Event: A\r\n\r\nEvent: B\r\n\r\n"), Limits{})
	first, err := sp.NextBytes()
	if err != nil || string(first) != "Event: A" {
		t.Fatalf("%q, %v", first, err)
	}
	second, err := sp.NextBytes()
	if err != nil || string(second) != "Event: B" {
		t.Fatalf("%q, %v", second, err)
	}
	if overwritten := string(first) == strings.Repeat("\xfe", len(first)); overwritten != poisoned {
		t.Errorf("%q", first)
	}
}

func TestSessionAllocatesNothingForAFrame(t *testing.T) {
	s := New(Config{Address: "127.0.0.1:1"})
	src := &endless{unit: []byte(event)}
	left := 0
	c := &conn{sp: NewSplitter(readerFunc(func(p []byte) (int, error) {
		if left == 0 {
			return 0, io.EOF
		}
		n, err := src.Read(p[:min(len(p), left)])
		left -= n
		return n, err
	}), Limits{}), proof: make(chan struct{})}
	step := func() { // 300 frames are more than a page holds
		for range 300 {
			left += len(event)
			frame, err := c.sp.NextBytes()
			if err != nil {
				t.Fatal(err)
			}
			s.handle(c, Frame{Text: view(frame), Received: c.sp.Received()})
		}
		s.queue.release(s.queue.take())
	}
	step()
	step()
	if n := testing.AllocsPerRun(100, step); n >= 1 {
		t.Errorf("%v allocations for 300 frames", n)
	}
}

// What a flood needed is let go when it is over, also where some events still come.
func TestMemoryIsGivenBackWhenItIsCalm(t *testing.T) {
	for name, drizzle := range map[string]bool{"silence": false, "some events": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := 0
				s := New(Config{Address: "127.0.0.1:1", OnFrames: func(frames []Frame) { got += len(frames) }})
				stop, done := make(chan struct{}), make(chan struct{})
				for i := range 50_000 {
					s.queue.push(numbered(i, "InvalidAccountID", 400))
				}
				go func() { defer close(done); s.deliver(stop) }()
				synctest.Wait()
				if n := held(s.queue); n < 4<<20 {
					t.Errorf("%d bytes right after the flood: the next wave would allocate again", n)
				}
				for i := range 50 {
					time.Sleep(calm / 10)
					if drizzle {
						s.queue.push(numbered(i, "InvalidAccountID", 400))
						synctest.Wait()
					}
				}
				synctest.Wait()
				if n := held(s.queue); n > 3*pageSize+2*chunkFrames*frameCost {
					t.Errorf("%d bytes when it is calm", n)
				}
				close(stop)
				<-done
				if drizzle && got != 50_050 || !drizzle && got != 50_000 {
					t.Errorf("%d frames", got)
				}
			})
		})
	}
}
