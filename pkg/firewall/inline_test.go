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

func TestAnIdleWriterWritesOnTheCallersGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		w := NewWriter(f, nil, WriterConfig{})
		stop := start(t, w)
		synctest.Wait()
		said := ""
		flush := w.Submit([]Change{ban("192.0.2.1", time.Hour)}, func(err error) {
			_, ok, _ := f.LookUpPrefix(Ban, pfx("192.0.2.1"))
			said = fmt.Sprint(ok, err)
		})
		synctest.Wait()
		if _, ok, _ := f.LookUpPrefix(Ban, pfx("192.0.2.1")); ok || said != "" {
			t.Error("it was written before flush")
		}
		flush() // and no other goroutine has to run for it
		if said != "true <nil>" {
			t.Error(said)
		}
		w.Submit([]Change{ban("192.0.2.1", -time.Second)}, func(err error) { said = fmt.Sprint(err) })()
		if said == "<nil>" || w.Pending() != 0 {
			t.Errorf("a change that makes no sense: %s, %d wait", said, w.Pending())
		}
		stop()
		w.Submit([]Change{ban("192.0.2.1", time.Hour)},
			func(err error) { said = fmt.Sprint(errors.Is(err, ErrClosed)) })()
		if said != "true" {
			t.Error("a change after the end: ", said)
		}
	})
}

func TestAWriterAtWorkLetsNobodyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.gate = make(chan struct{})
		w := NewWriter(f, nil, WriterConfig{})
		w.Submit([]Change{ban("192.0.2.1", time.Hour)}, nil)() // before the table is built
		stop := start(t, w)
		synctest.Wait() // it writes that
		begun, done := time.Now(), false
		w.Submit([]Change{ban("192.0.2.2", time.Hour)}, func(error) { done = true })()
		if done || time.Since(begun) > 0 {
			t.Error("who submits waits for the kernel")
		}
		close(f.gate)
		synctest.Wait()
		if !done {
			t.Error("what came in the midst of a transaction was not written")
		}
		stop()
	})
}

// What is submitted between Submit and flush counts more than what flush writes, also where that fails and is tried
// again.
func TestAFailedFlushIsMendedAndOverridesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		rebuilt, causes := causes()
		desired := []Change{ban("192.0.2.9", time.Hour)}
		w := NewWriter(f, func() []Change { return desired }, WriterConfig{Rebuilt: rebuilt})
		stop := start(t, w)
		synctest.Wait()
		var ended []string
		flush := w.Submit([]Change{ban("192.0.2.1", time.Hour), ban("192.0.2.2", time.Hour)},
			func(err error) { ended = append(ended, fmt.Sprint("ban ", err)) })
		f.mu.Lock()
		f.fail = []error{syscall.EPERM, ErrGone}
		f.mu.Unlock()
		w.Submit([]Change{unban("192.0.2.1")}, func(err error) { ended = append(ended, fmt.Sprint("unban ", err)) })()
		flush()
		synctest.Wait()
		if len(ended) != 2 || ended[0] == ended[1] {
			t.Error(ended)
		}
		if _, ok, _ := f.LookUpPrefix(Ban, pfx("192.0.2.1")); ok {
			t.Error("what was unbanned is banned")
		}
		if _, ok, _ := f.LookUpPrefix(Ban, pfx("192.0.2.2")); !ok {
			t.Error("what the kernel refused at first is not banned")
		}
		if got := fmt.Sprint(causes()); got != "[create error]" {
			t.Errorf("rebuilds %s", got)
		}
		stop()
	})
}

// TestWhatComesWhileAFlushFailsStaysTheLastWord has a change come while the kernel refuses another one of its
// prefix.
func TestWhatComesWhileAFlushFailsStaysTheLastWord(t *testing.T) {
	var late queue
	removed := unban("192.0.2.1")
	after := &submission{unsettled: 1}
	late.addOrReplace(&removed, after, 10)
	var old queue
	banned, other := ban("192.0.2.1", time.Hour), ban("192.0.2.2", time.Hour)
	before := &submission{unsettled: 2}
	old.addOrReplace(&banned, before, 10)
	old.addOrReplace(&other, before, 10)
	late.putBack(&old)
	if late.len() != 2 || !late.changes[0].Remove || late.changes[1].Prefix != other.Prefix {
		t.Errorf("%+v", late.changes)
	}
	for i := range late.waiters {
		for _, w := range late.waiters[i] {
			w.settleOne(nil)
		}
	}
	if before.unsettled != 0 || after.unsettled != 0 {
		t.Errorf("%d and %d changes are waited for when all are done", before.unsettled, after.unsettled)
	}
}

func TestAFlushSaysWhatFoundNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		w := NewWriter(f, nil, WriterConfig{})
		stop := start(t, w)
		synctest.Wait()
		f.mu.Lock()
		f.fail = []error{&FullError{Set: "ban4", Refused: []netip.Prefix{pfx("192.0.2.1")}}}
		f.mu.Unlock()
		got := ""
		w.Submit([]Change{ban("192.0.2.1", time.Hour)}, func(err error) { got = fmt.Sprint(errors.Is(err, ErrFull)) })()
		if got != "true" || w.Pending() != 0 {
			t.Errorf("%s, %d wait", got, w.Pending())
		}
		stop()
	})
}
