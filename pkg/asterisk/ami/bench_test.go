package ami

import (
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
)

// flood reads the event over and over, n times in all.
type flood struct {
	endless
	left int // bytes
}

func (f *flood) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	n, _ := f.endless.Read(p[:min(len(p), f.left)])
	f.left -= n
	return n, nil
}

// BenchmarkReader takes frames from the bytes of a socket to OnFrames, from one goroutine to the other, with a receiver
// that is never far behind. One that falls behind is BenchmarkFullQueue.
func BenchmarkReader(b *testing.B) {
	for name, pending := range map[string]bool{"no action": false, "unanswered Ping": true} {
		b.Run(name, func(b *testing.B) {
			var got atomic.Int64
			s := New(Config{Name: "pbx1", Address: "127.0.0.1:1",
				OnFrames: func(frames []Frame) { got.Add(int64(len(frames))) }})
			done := make(chan struct{})
			go func() { defer close(done); s.deliverQueue() }()
			sent := int64(0)
			src := &flood{endless: endless{unit: []byte(event)}}
			r := readerFunc(func(p []byte) (int, error) {
				for sent-got.Load() > 1024 { // else it measures how the queue grows
					runtime.Gosched()
				}
				n, err := src.Read(p)
				sent += int64(n / len(event))
				return n, err
			})
			b.SetBytes(int64(len(event)))
			b.ReportAllocs()
			run := func(n int) {
				src.left, src.at = n*len(event), 0
				c := &connection{splitter: NewSplitter(r, Limits{}), readerEnded: make(chan struct{}),
					securityEventCame: make(chan struct{}), maxReplyBytes: 1 << 20}
				if pending {
					c.pending = []*pendingAction{{name: "Ping",
						actionIDLine: "ActionID: 0123456789abcdef0123456789abcdef", done: make(chan struct{})}}
					c.numPending.Store(1)
				}
				s.readFrames(c)
			}
			run(10000)
			b.ResetTimer()
			run(b.N)
			s.queue.box.Close()
			<-done
			if got.Load() != int64(10000+b.N) || sent < got.Load()-10000 {
				b.Fatalf("%d of %d", got.Load(), 10000+b.N)
			}
		})
	}
}

// BenchmarkFullQueue pushes ten times as much as is taken.
func BenchmarkFullQueue(b *testing.B) {
	q := newQueue(64 << 20)
	texts := [3]string{strings.TrimSuffix(event, "\r\n\r\n"),
		strings.ReplaceAll(strings.TrimSuffix(event, "\r\n\r\n"), "UDP", "TLS")}
	texts[2] = strings.Replace(texts[0], "ChallengeResponseFailed", "ChallengeSent", 1)
	b.ReportAllocs()
	for i := range 400000 {
		q.pushFrame(Frame{Text: texts[i%3]})
	}
	i := 0
	for b.Loop() {
		i++
		q.pushFrame(Frame{Text: texts[i%3]})
		if i%10240 == 0 {
			q.takeItems()
		}
	}
}
