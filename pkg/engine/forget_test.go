package engine

import (
	"math/rand/v2"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/config"
)

// crowd lets numbered sources send events to an engine.
type crowd struct {
	*Engine
	at    time.Time
	calls int
	seen  map[int]time.Time
}

func newCrowd(cfg config.Policy) *crowd {
	return &crowd{Engine: New(cfg), at: epoch, seen: make(map[int]time.Time)}
}

// send is an event of a source that costs nothing, or the points of an unknown account.
func (c *crowd) send(n int, hostile bool) {
	c.calls++
	ev := event.Event{Type: event.RequestNotAllowed, Service: event.AMI, Account: "201",
		Session: strconv.Itoa(c.calls),
		Remote:  event.Address{AddrPort: netip.AddrPortFrom(address(n), 5060), Transport: event.UDP}}
	if hostile { // another account each time: one at a device's pace costs nothing
		ev.Type, ev.Service, ev.Account = event.InvalidAccountID, event.PJSIP, ev.Session
	}
	c.Handle(c.at, "pbx", &ev, nil)
	c.seen[n] = c.at
}

func (c *crowd) has(n int) bool { return c.sources.get(c.keyOf(address(n))) != nil }

// TestSourcesAreForgottenInTime has sources that come back for a while and then no more, and always new ones.
func TestSourcesAreForgottenInTime(t *testing.T) {
	cfg := config.Default().Policy
	c := newCrowd(cfg)
	memory := time.Duration(quietFor(&cfg))
	late := memory + memory/32 + 13*time.Second // the time of a list of ages, and the pause between two events
	r := rand.New(rand.NewPCG(5, 6))
	forgotten := 0
	for step := range 3000 { // 10 s each
		for range 3 {
			c.send(step/4+r.IntN(1+step%400), r.IntN(40) == 0)
		}
		if c.at = c.at.Add(10 * time.Second); step%2 == 0 {
			c.Tick(c.at, nil)
		}
		if step%50 > 0 {
			continue
		}
		for n, seen := range c.seen {
			quiet := c.at.Sub(seen)
			if s := c.sources.get(c.keyOf(address(n))); s == nil && quiet < memory {
				t.Fatalf("source %d was forgotten %v after it was seen", n, quiet)
			} else if s != nil && s.class < classOffender && quiet > late {
				t.Fatalf("source %d is remembered %v after it was seen", n, quiet)
			} else if s == nil {
				forgotten++
				delete(c.seen, n)
			}
		}
		if err := c.check(); err != nil {
			t.Fatal(err)
		}
	}
	if forgotten < 100 {
		t.Errorf("%d sources were forgotten", forgotten)
	}
}

// TestWhoIsActiveOutlivesWhoIsQuiet floods an engine that is full with new sources.
func TestWhoIsActiveOutlivesWhoIsQuiet(t *testing.T) {
	cfg := config.Default().Policy
	cfg.MaxSources = 300
	c := newCrowd(cfg)
	const suspects, regulars = 20, 60
	for n := range suspects {
		c.send(n, true) // a third of what a ban takes
	}
	for n := range 200 {
		c.send(1000+n, false) // once, and never again
	}
	fresh, evicted := 2000, 0
	for step := range 400 { // 10 s each
		for n := range regulars {
			if (step+n)%5 == 0 {
				c.send(100+n, false)
			}
		}
		for n := range suspects {
			if (step+n)%5 == 0 {
				c.send(n, step%30 < 5) // their class comes and goes
			}
		}
		for range 7 {
			c.send(fresh, false)
			fresh++
		}
		if step%3 == 0 {
			c.Tick(c.at, nil)
		}
		for n := range suspects {
			if !c.has(n) {
				t.Fatalf("step %d: the suspect %d was forgotten", step, n)
			}
		}
		for n := range regulars {
			if step > 5 && !c.has(100+n) {
				t.Fatalf("step %d: %d, which comes every 50 s, was forgotten", step, n)
			}
		}
		if err := c.check(); err != nil {
			t.Fatal(err)
		}
		c.at = c.at.Add(10 * time.Second)
	}
	if n := c.sources.len(); n > cfg.MaxSources {
		t.Errorf("%d sources", n)
	}
	if evicted = int(c.Stats(c.at).Evicted); evicted < 2000 {
		t.Errorf("%d sources made room", evicted)
	}
}

// TestAFloodMovesFewSourcesAtATime fills an engine with sources that were all seen again: each search for the oldest is
// bounded.
func TestAFloodMovesFewSourcesAtATime(t *testing.T) {
	cfg := config.Default().Policy
	cfg.MaxSources = 1000
	c := newCrowd(cfg)
	for range 2 {
		for n := range cfg.MaxSources {
			c.send(n, false)
		}
		c.at = c.at.Add(10 * time.Minute)
	}
	moved := func() (n int) {
		for s := range c.sources.all {
			if seconds(s.lastSeen) >= s.queuedAt+60 {
				n++
			}
		}
		return n
	}
	for n := range 200 {
		before := moved()
		c.send(cfg.MaxSources+n, false)
		if after := moved(); before-after > requeuedAtOnce+1 {
			t.Fatalf("%d sources moved in one call", before-after)
		}
	}
	if n := c.sources.len(); n != cfg.MaxSources {
		t.Errorf("%d sources", n)
	}
	if err := c.check(); err != nil {
		t.Error(err)
	}
}
