package engine

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
)

// address is the n-th of 32.0.0.0 and upward.
func address(n int) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 32<<24+uint32(n))))
}

// TestMemoryOfAMillionSources fills the engine with sources that sent two requests each, a million of them unless the
// test is short or under the race detector, and weighs the heap.
func TestMemoryOfAMillionSources(t *testing.T) {
	const perSource, fixed = 250, 28 << 20 // bytes; the ring of evidence and the windows do not grow with the sources
	n, limit := 1_000_000, uint64(250e6)
	if testing.Short() || raceEnabled {
		n, limit = 100_000, 100_000*perSource+fixed
	}
	e := New(config.Default().Policy)
	before := inUse()
	now := epoch
	var out []ban.Decision
	for try := range 2 {
		for i := range n {
			ev := event.Event{Type: event.InvalidAccountID, Service: event.PJSIP, Account: strconv.Itoa(try),
				Session: "call-" + strconv.Itoa(try*n+i), Time: now,
				Remote: event.Address{AddrPort: netip.AddrPortFrom(address(i), 5060), Transport: event.UDP}}
			out = e.Handle(now, "pbx", &ev, out[:0])
			now = now.Add(50 * time.Microsecond)
			if len(out) > 0 {
				t.Fatalf("two requests: %+v", out[0])
			}
		}
	}
	used := inUse() - before
	t.Logf("%d sources: %d MB, %d bytes each", n, used/1e6, used/uint64(n))
	if used > limit {
		t.Errorf("%d sources take %d bytes, limit %d", n, used, limit)
	}
	if s := e.Stats(now); s.Sources != n {
		t.Errorf("%d sources are tracked, want %d", s.Sources, n)
	}
	runtime.KeepAlive(e)
}

// inUse is what is in use after a collection, in bytes.
func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestTheLeastSuspiciousGoFirst fills an engine to its cap.
func TestTheLeastSuspiciousGoFirst(t *testing.T) {
	cfg := config.Default().Policy
	cfg.MaxSources = 100
	e := New(cfg)
	now := epoch
	send := func(a netip.Addr, typ event.Type, account string, n int) {
		for range n {
			ev := event.Event{Type: typ, Service: event.PJSIP, Account: account, Session: now.String(),
				Response:      now.String(),
				UsingPassword: true, Remote: event.Address{AddrPort: netip.AddrPortFrom(a, 5060),
					Transport: event.TLS}}
			e.Handle(now, "pbx", &ev, nil)
			now = now.Add(time.Millisecond)
		}
	}
	banned, trusted, before, close, twice := address(1), address(2), address(3), address(4), address(5)
	send(before, event.InvalidAccountID, "x", 3)
	now = now.Add(2 * time.Hour) // its ban is over
	e.Tick(now, nil)
	send(banned, event.InvalidAccountID, "x", 3)
	send(trusted, event.SuccessfulAuth, "201", 1)
	send(close, event.InvalidAccountID, "x", 2)
	send(twice, event.ChallengeResponseFailed, "202", 2) // two mistakes, no points
	for i := range 1000 {
		send(address(1000+i), event.InvalidAccountID, "x", 1)
	}
	if n := e.sources.len(); n != 100 {
		t.Errorf("%d sources, want 100", n)
	}
	if e.sources.get(e.keyOf(twice)) != nil {
		t.Error("the least suspicious is still there")
	}
	for _, a := range []netip.Addr{banned, trusted, before, close} {
		if e.sources.get(e.keyOf(a)) == nil {
			t.Errorf("%v was forgotten", a)
		}
	}
	for i := range 95 { // of the others, the oldest went
		if e.sources.get(e.keyOf(address(1000+999-i))) == nil {
			t.Errorf("the %d. latest is not there", i)
		}
	}
	if err := e.check(); err != nil {
		t.Error(err)
	}
	if s := e.Stats(now); s.Evicted == 0 || e.activeBanOf(e.keyOf(banned)) == nil ||
		e.activeTrust(e.keyOf(trusted)) == nil {
		t.Errorf("%+v", s)
	}
}

// TestAQuietEngineShrinks lets everything decay.
func TestAQuietEngineShrinks(t *testing.T) {
	e := New(config.Default().Policy)
	now := epoch
	for i := range 5000 {
		ev := event.Event{Type: event.InvalidAccountID, Service: event.PJSIP, Account: "x", Session: "s",
			Remote: event.Address{AddrPort: netip.AddrPortFrom(address(i), 5060), Transport: event.UDP}}
		e.Handle(now, "pbx", &ev, nil)
	}
	now = now.Add(3 * time.Hour)
	for range 10 {
		e.Tick(now, nil)
	}
	if n := e.sources.len(); n != 0 {
		t.Errorf("%d sources are remembered after three quiet hours", n)
	}
}
