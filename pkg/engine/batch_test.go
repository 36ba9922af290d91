package engine

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/policy"
	"github.com/ringwall/ringwall/pkg/security"
	"pgregory.net/rapid"
)

// TestABatchIsJudgedAsItsEventsOneByOne plays a story with events between its steps, in batches and one by one.
func TestABatchIsJudgedAsItsEventsOneByOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg, steps := anyPolicy(t), story(t)
		event := rapid.OneOf(rapid.Custom(anyEvent), rapid.Just(security.Event{})) // what could not be decoded
		one, all := NewRepeatable(cfg), NewRepeatable(cfg)
		var wantEnds, gotEnds []int
		for i := range steps {
			size := some(t, "size", 0, 0, 0, 0, 1, 2, Batch-1, Batch, Batch+1, 2*Batch+3)
			events, do := rapid.SliceOfN(event, size, size).Draw(t, "events"), steps[i].do
			steps[i].do = func(e *Engine, now time.Time) (out []ban.Decision) {
				if e == one {
					for k := range events {
						out = e.Handle(now, "pbx", &events[k], out)
						wantEnds = append(wantEnds, len(out))
					}
				} else {
					ends := make([]int, len(events))
					out = e.HandleAll(now, "pbx", events, out, ends)
					gotEnds = append(gotEnds, ends...)
				}
				return append(out, do(e, now)...)
			}
		}
		want, got := one.play(steps, nil, nil), all.play(steps, nil, nil)
		if !reflect.DeepEqual(got, want) || !slices.Equal(gotEnds, wantEnds) {
			t.Fatalf("%v\n%v\n%v\n%v", lines(got), lines(want), gotEnds, wantEnds)
		}
		if err := all.check(); err != nil {
			t.Fatal(err)
		}
		at := steps[len(steps)-1].at
		if a, b := all.Export(at), one.Export(at); !reflect.DeepEqual(a, b) {
			t.Fatalf("%+v\n%+v", a, b)
		}
	})
}

// TestABatchHasNoMemory gives HandleAll the same events with other contents: what was found out about those before is of
// no use.
func TestABatchHasNoMemory(t *testing.T) {
	e := New(policy.Default().Policy)
	events := make([]security.Event, Batch)
	session := []byte("call-0")
	for round := range 3 {
		session[len(session)-1] = byte('0' + round)
		for i := range events {
			events[i] = security.Event{Type: security.InvalidAccountID, Service: security.PJSIP, Account: "x",
				Session: unsafe.String(&session[0], len(session)), // as good as another string in the same place
				Remote:  security.Address{AddrPort: netip.AddrPortFrom(address(i%5+5*round), 5060), Transport: security.UDP}}
		}
		if out := e.HandleAll(epoch, "pbx", events, nil, nil); len(out) > 0 {
			t.Fatalf("%+v", out)
		}
	}
	if n := e.sources.len(); n != 15 {
		t.Errorf("%d sources, want 15", n)
	}
	if n := e.attempts.live(e.now); n != 15 {
		t.Errorf("%d attempts, want 15", n)
	}
}
