package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestATurnWritesAtOnceOnTheCallersGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		w := NewWriter(f, nil, WriterConfig{})
		if w.Turn() != nil {
			t.Error("a turn before the table is built")
		}
		stop := start(t, w)
		synctest.Wait()
		turn := w.Turn()
		if turn == nil {
			t.Fatal("no turn though the writer is idle")
		}
		if w.Turn() != nil {
			t.Error("two turns at once")
		}
		order := ""
		turn.Write([]Change{ban("192.0.2.1", time.Hour)}, func() {
			_, ok, _ := f.Has(Ban, pfx("192.0.2.1"))
			order += fmt.Sprintf("there %v,", ok)
		}, func(err error) { order += fmt.Sprintf("done %v", err) })
		if order != "there true,done <nil>" {
			t.Error(order)
		}
		turn = w.Turn()
		if turn == nil {
			t.Fatal("no second turn")
		}
		turn.Write([]Change{ban("192.0.2.1", time.Millisecond)}, nil, func(err error) { order = fmt.Sprint(err) })
		if order == "<nil>" || w.Pending() != 0 {
			t.Errorf("a change that makes no sense: %s, %d wait", order, w.Pending())
		}
		stop()
		if w.Turn() != nil {
			t.Error("a turn after the end")
		}
	})
}

func TestNoTurnWhileTheWriterIsAtWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.gate = make(chan struct{})
		w := NewWriter(f, nil, WriterConfig{})
		stop := start(t, w)
		synctest.Wait()
		w.Submit([]Change{ban("192.0.2.1", time.Hour)}, nil)
		if w.Turn() != nil {
			t.Error("a turn while a change waits")
		}
		synctest.Wait()
		if w.Turn() != nil {
			t.Error("a turn in the midst of a transaction")
		}
		close(f.gate)
		synctest.Wait()
		if w.Turn() == nil {
			t.Error("no turn afterwards")
		} else {
			w.turn.Unlock()
		}
		stop()
	})
}

// What comes while a turn is taken counts more than what the turn writes, also where that fails and is tried again.
func TestAFailedTurnIsMendedAndOverridesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		rebuilt, causes := causes()
		desired := []Change{ban("192.0.2.9", time.Hour)}
		w := NewWriter(f, func() []Change { return desired }, WriterConfig{Rebuilt: rebuilt})
		stop := start(t, w)
		synctest.Wait()
		turn := w.Turn()
		f.mu.Lock()
		f.fail = []error{syscall.EPERM, ErrGone}
		f.mu.Unlock()
		var ended []string
		w.Submit([]Change{unban("192.0.2.1")}, func(err error) { ended = append(ended, fmt.Sprint("unban ", err)) })
		turn.Write([]Change{ban("192.0.2.1", time.Hour), ban("192.0.2.2", time.Hour)}, nil,
			func(err error) { ended = append(ended, fmt.Sprint("ban ", err)) })
		synctest.Wait()
		if got := fmt.Sprint(ended); got != "[unban <nil> ban <nil>]" {
			t.Error(got)
		}
		if _, ok, _ := f.Has(Ban, pfx("192.0.2.1")); ok {
			t.Error("what was unbanned is banned")
		}
		if _, ok, _ := f.Has(Ban, pfx("192.0.2.2")); !ok {
			t.Error("what the kernel refused at first is not banned")
		}
		if got := fmt.Sprint(causes()); got != "[create error]" {
			t.Errorf("rebuilds %s", got)
		}
		stop()
	})
}

func TestATurnSaysWhatFoundNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		w := NewWriter(f, nil, WriterConfig{})
		stop := start(t, w)
		synctest.Wait()
		f.mu.Lock()
		f.fail = []error{&FullError{Set: "ban4", Refused: []netip.Prefix{pfx("192.0.2.1")}}}
		f.mu.Unlock()
		got := ""
		w.Turn().Write([]Change{ban("192.0.2.1", time.Hour)}, nil, func(err error) { got = fmt.Sprint(errors.Is(err, ErrFull)) })
		if got != "true" || w.Pending() != 0 {
			t.Errorf("%s, %d wait", got, w.Pending())
		}
		stop()
	})
}
