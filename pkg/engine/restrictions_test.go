package engine_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
)

// restrictions are what is cut and slow within a prefix, or everywhere, one source a step.
func (w *world) restrictions(within netip.Prefix) (out []ban.Restriction) {
	var walk engine.RestrictionWalk
	defer walk.Close()
	for more := true; more; {
		out, more = w.e.WalkRestrictions(w.now, &walk, 1, within, out)
	}
	return out
}

// guessInOffice has somebody guess over TLS from ten ports of an office with a phone, and flood it over UDP.
func (w *world) guessInOffice(addr string) *world {
	w.login(addr, "201", port(5060))
	for n := range uint16(4) {
		w.crack(60, addr, "9250", tls, port(30000+n))
	}
	return w.crack(2000, addr, "250", port(5060))
}

func TestRestrictionsAreListed(t *testing.T) {
	w := newWorld(t).guessInOffice(office).guessInOffice("198.51.100.11").login(bad, "202", port(40000))
	list := w.restrictions(netip.Prefix{})
	if w.restrictions(netip.MustParsePrefix("203.0.113.0/24")) != nil {
		t.Error("something is cut where nobody is")
	}
	one := netip.MustParsePrefix(office + "/32")
	have := make(map[ban.RestrictionKind]ban.Restriction)
	cuts := 0
	for _, r := range w.restrictions(one) {
		if have[r.Kind] = r; r.Kind == ban.RestrictionCut {
			cuts++
		}
		if !slices.Contains(list, r) || !slices.Contains(w.restrictions(netip.MustParsePrefix("198.51.100.0/24")), r) {
			t.Errorf("%+v is not among those of its network, or of all", r)
		}
		if r.Prefix != one || !r.Until.Equal(w.now.Add(time.Duration(r.Left*float64(time.Second)))) || r.Left <= 0 {
			t.Errorf("%+v", r)
		}
	}
	if r := have[ban.RestrictionCut]; cuts == 0 || r.Scope != ban.ScopeFlow || r.Packets != 0 || r.Left > 600 ||
		!strings.HasPrefix(r.Flow.String(), "tcp "+office+":3000") {
		t.Errorf("%d cuts, the last %+v", cuts, r)
	}
	if r := have[ban.RestrictionTrickle]; r.Scope != ban.ScopeSource || r.Packets != 4 || r.Every != 60 || r.Flow.IsValid() {
		t.Errorf("%+v", r)
	}
	slow := slices.IndexFunc(list, func(r ban.Restriction) bool {
		return r.Kind == ban.RestrictionSlow && r.Flow == flow("udp "+office+":5060") && r.Packets == 1 && r.Every == 1
	})
	if slow < 0 {
		t.Errorf("the good flow that guesses is not among %+v", list)
	}
	if x := w.e.Why(w.now, netip.MustParseAddr(office)); !slices.Equal(x.Restrictions, w.restrictions(one)) {
		t.Errorf("why: %+v", x.Restrictions)
	}
	s := w.e.Stats(w.now)
	if s.CutFlows != 2*cuts || s.SlowFlows != 2 || s.Trickles != 2 || s.GoodFlows != 3 {
		t.Errorf("%+v", s)
	}
	if !slices.Contains(s.InForce, engine.ScopeCount{Scope: ban.ScopeFlow, Count: 2 * cuts}) {
		t.Errorf("in force: %+v", s.InForce)
	}
	if w.pass(2 * time.Hour); w.restrictions(netip.Prefix{}) != nil {
		t.Errorf("two hours later: %+v", w.restrictions(netip.Prefix{}))
	}
	if s := w.e.Stats(w.now); s.CutFlows+s.SlowFlows+s.SlowSources+s.Trickles != 0 {
		t.Errorf("two hours later: %+v", s)
	}
}

func TestGoodFlowsOfAnAddressAreListed(t *testing.T) {
	w := newWorld(t)
	for i := range 30 {
		w.login(office, extension(i), port(uint16(20000+i)))
	}
	w.login(bad, "202", tls, port(40000))
	for within, want := range map[string]int{office + "/32": 30, bad + "/32": 1, "192.0.2.1/32": 0} {
		var walk engine.FlowWalk
		var got []ban.GoodFlow
		for more := true; more; {
			got, more = w.e.WalkGoodFlows(w.now, &walk, 7, netip.MustParsePrefix(within), got)
		}
		walk.Close()
		if len(got) != want {
			t.Errorf("%s: %+v", within, got)
		}
	}
}

// TestUnbanLiftsAllOfASource asks for what a person wants who types "unban": nothing of the address is banned, cut or
// slow afterwards, whether it is named alone, with its network, or with everybody.
func TestUnbanLiftsAllOfASource(t *testing.T) {
	for _, text := range []string{office + "/32", "198.51.100.0/24", ""} {
		var within netip.Prefix
		if text != "" {
			within = netip.MustParsePrefix(text)
		}
		w := newWorld(t).guessInOffice(office)
		want := w.restrictions(netip.Prefix{})
		w.e.TakeChanged()
		pardon := engine.NewPardon(within, 0)
		var got []ban.Restriction
		for more := true; more; {
			_, more = w.e.UnbanSome(w.now, pardon, 1)
			got = append(got, pardon.Restrictions...)
		}
		pardon.Close()
		if len(want) == 0 || !slices.Equal(got, want) {
			t.Errorf("%q lifted %+v of %+v", text, got, want)
		}
		if left := w.restrictions(netip.Prefix{}); left != nil {
			t.Errorf("%q leaves %+v", text, left)
		}
		removed := 0
		for _, el := range w.e.TakeChanged() {
			if el.Remove {
				removed++
			}
		}
		if removed != len(want) {
			t.Errorf("%q: the kernel is told of %d of %d", text, removed, len(want))
		}
	}
}

func TestUncutLetsOneFlowGoOn(t *testing.T) {
	w := newWorld(t).guessInOffice(office)
	before := w.restrictions(netip.Prefix{})
	w.e.TakeChanged()
	for _, f := range []ban.Flow{flow("tcp " + office + ":30000"), flow("udp " + office + ":5060")} {
		if got := w.e.LiftFlow(w.now, f); len(got) != 1 || got[0].Flow != f {
			t.Errorf("%v: %+v", f, got)
		}
		if got := w.e.LiftFlow(w.now, f); got != nil {
			t.Errorf("%v a second time: %+v", f, got)
		}
	}
	want := []engine.Element{{Kind: engine.CutFlow, Flow: flow("tcp " + office + ":30000"), Remove: true},
		{Kind: engine.SlowFlow, Flow: flow("udp " + office + ":5060"), Remove: true}}
	if got := w.e.TakeChanged(); !slices.Equal(got, want) {
		t.Errorf("the kernel is told %+v", got)
	}
	if got := w.restrictions(netip.Prefix{}); len(got) != len(before)-2 {
		t.Errorf("%+v are left of %+v", got, before)
	}
}

// TestAPhoneThatIsMendedIsNotSlow tells of a phone beside others with an old password, whose flow is in the slow lane:
// its first login takes it out.
func TestAPhoneThatIsMendedIsNotSlow(t *testing.T) {
	w := newWorld(t).login(office, "200")
	for range 60 {
		w.wrong(office, "217", port(40017)).pass(30 * time.Second)
	}
	slow := engine.Element{Kind: engine.SlowFlow, Flow: flow("udp " + office + ":40017"), Pace: engine.PaceMinute}
	w.wantElement(slow).login(office, "217", port(40017)).wantNoLane(office)
}
