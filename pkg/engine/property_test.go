package engine

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/internal/property"
)

var epoch = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// step is one thing that happens to an engine, at one time.
type step struct {
	name string
	at   time.Time
	do   func(e *Engine, now time.Time) []ban.Decision
	tick bool // Tick first, as the daemon does before a command
}

func anyAddr(t *property.T) netip.Addr {
	if property.Int(t, 0, 3) == 0 {
		return netip.MustParseAddr(fmt.Sprintf("2001:db8:0:%d::%d", property.Int(t, 0, 1), property.Int(t, 1, 4)))
	}
	return netip.AddrFrom4([4]byte{203, 0, byte(property.Int(t, 112, 113)), byte(property.Int(t, 1, 7))})
}

func anyPrefix(t *property.T) netip.Prefix {
	a := anyAddr(t)
	bits := []int{32, 32, 32, 30, 24, 16}
	if a.Is6() {
		bits = []int{128, 128, 126, 64, 64, 48}
	}
	return netip.PrefixFrom(a, property.OneOf(t, bits...)) // not masked: nobody promises that it is
}

func anyPolicy(t *property.T) config.Policy {
	p := config.Default().Policy
	p.Mode = property.OneOf(t, config.Enforce, config.Enforce, config.Enforce, config.Observe)
	p.Services = map[string]config.Mode{"PJSIP": config.Enforce, "AMI": config.Enforce,
		"SIP": property.OneOf(t, config.Observe, config.Enforce)}
	p.Honeypots = []string{"honey"}
	p.Threshold = property.OneOf(t, 10.0, 5, 1)
	p.HalfLife = property.OneOf(t, 10*time.Minute, time.Second, 24*time.Hour)
	p.Ban.First = property.OneOf(t, time.Hour, time.Second, 100*time.Hour)
	p.Trust.Tolerance = property.OneOf(t, 10.0, 1)
	p.Trust.TTL = property.OneOf(t, 24*time.Hour, time.Minute)
	p.Trust.Accounts = property.OneOf(t, 5, 0, 1)
	p.Networks.Sources = property.OneOf(t, 0, 2, 4)
	p.Challenges.Accounts = property.OneOf(t, 20, 2)
	p.Challenges.Warmup = property.OneOf(t, time.Hour, 0)
	p.Targeted.Sources = property.OneOf(t, 10, 2, 0)
	p.Storm.Sources = property.OneOf(t, 5, 2, 0)
	p.Storm.Memory = property.OneOf(t, 168*time.Hour, time.Hour)
	p.Misconfigured.Burst = property.OneOf(t, 4, 0)
	if property.Int(t, 0, 3) == 0 {
		p.Allow = []config.AllowEntry{{Prefix: anyPrefix(t).Masked()}}
	}
	return p
}

func anyEvent(t *property.T) event.Event {
	return event.Event{
		Type: property.OneOf(t, event.InvalidAccountID, event.ChallengeSent, event.ChallengeSent,
			event.ChallengeResponseFailed, event.ChallengeResponseFailed, event.SuccessfulAuth,
			event.FailedACL,
			event.InvalidPassword, event.RequestNotAllowed, event.RequestNotSupported, event.Type(200)),
		Service: property.OneOf(t, event.PJSIP, event.PJSIP, event.PJSIP, event.AMI, event.SIP,
			event.Service(99)),
		Account: property.OneOf(t, "201", "202", "203", "204", "205", "206", "207", "<unknown>", "honey", "",
			"\xf0\x9f\x98\x80"),
		Session:       "call-" + strconv.Itoa(property.Int(t, 1, 8)),
		Challenge:     "nonce",
		Response:      strconv.Itoa(property.Int(t, 1, 1000)),
		UsingPassword: property.Int(t, 0, 4) > 0,
		ACLName:       property.OneOf(t, "", "not_match_endpoint_acl", "other"),
		Remote: event.Address{AddrPort: netip.AddrPortFrom(anyAddr(t), 5060),
			Transport: property.OneOf(t, event.UDP, event.TLS, event.NoTransport)},
	}
}

// story draws what happens: mostly events, and sometimes what a person, Asterisk or the file orders.
func story(t *property.T) []step {
	now := epoch
	var steps []step
	for range property.Count(t, 1, 120) {
		now = now.Add(property.OneOf(t, 0, time.Millisecond, time.Millisecond, 100*time.Millisecond, time.Second,
			9*time.Second, 11*time.Second, time.Minute, time.Hour, 26*time.Hour, -time.Minute))
		s := step{at: now, tick: true}
		switch kind := property.Int(t, 0, 40); kind {
		case 0:
			p, d := anyPrefix(t), property.OneOf(t, time.Second, time.Hour, 1000*time.Hour)
			s.name, s.do = "ban", func(e *Engine, now time.Time) []ban.Decision {
				out,
					_ := e.Ban(now, p, d, "")
				return out
			}
		case 1:
			p, d := anyPrefix(t), property.OneOf(t, 0, time.Hour)
			s.name, s.do = "unban", func(e *Engine, now time.Time) []ban.Decision { return e.Unban(now, p, d) }
		case 2:
			p := anyPrefix(t)
			s.name, s.do = "allow", func(e *Engine,
				now time.Time) []ban.Decision {
				return e.Allow(now, p, OriginManual, "")
			}
		case 3:
			p := anyPrefix(t)
			s.name, s.do = "disallow", func(e *Engine,
				_ time.Time) []ban.Decision {
				e.Disallow(p, OriginManual)
				return nil
			}
		case 4:
			learned := map[netip.Prefix]string{anyPrefix(t): "a", anyPrefix(t): "b"}
			s.name, s.do = "protect", func(e *Engine,
				now time.Time) []ban.Decision {
				return e.Protect(now, "pbx", learned)
			}
		case 5:
			p := anyPolicy(t)
			s.name, s.do = "configure", func(e *Engine, now time.Time) []ban.Decision { return e.Configure(now, p) }
		case 6:
			p := anyPrefix(t)
			s.name, s.do = "adopt", func(e *Engine,
				now time.Time) []ban.Decision {
				e.AdoptBan(now, p, ban.ClosesAll, now.Add(time.Hour))
				return nil
			}
		case 7:
			s.name, s.do = "unban all", func(e *Engine, now time.Time) []ban.Decision { return e.UnbanAll(now) }
		default:
			ev := anyEvent(t)
			s.tick = false
			s.name, s.do = "event", func(e *Engine,
				now time.Time) []ban.Decision {
				return e.Handle(now, "pbx", &ev, nil)
			}
		}
		steps = append(steps, s)
	}
	return steps
}

// play lets an engine live through a story. Between the steps it ticks at the times that ticks returns for a step.
func (e *Engine) play(steps []step, ticks func(i int) []time.Time,
	after func(s step, out []ban.Decision)) []ban.Decision {
	var all []ban.Decision
	for i, s := range steps {
		var out []ban.Decision
		if ticks != nil {
			for _, at := range ticks(i) {
				out, _ = e.Tick(at, out)
			}
		}
		if s.tick {
			out, _ = e.Tick(s.at, out)
		}
		out = append(out, s.do(e, s.at)...)
		if after != nil {
			after(s, out)
		}
		all = append(all, out...)
	}
	return all
}

// TestWhateverHappens checks, after each step of any story, that nobody is banned whom the rules exempt, that bans are
// no longer than they may be, and that the books agree.
func TestWhateverHappens(t *testing.T) {
	property.Check(t, func(t *property.T) {
		cfg := anyPolicy(t)
		cfg.MaxSources = property.OneOf(t, 3, 1000)
		cfg.Limits.ForgeableBans = property.OneOf(t, 2, 1000)
		e := NewRepeatable(cfg)
		e.play(story(t), nil, func(s step, out []ban.Decision) {
			for _, d := range out {
				if !(d.Score >= 0) || !(d.Points >= 0) || math.IsInf(d.Score, 0) {
					t.Fatalf("%s: points %v, score %v", s.name, d.Points, d.Score)
				}
				if d.Action != ban.ActionBan || d.Reason == ban.ReasonManual {
					continue
				}
				if e.holdsExempt(d.Prefix) && s.name == "event" {
					t.Fatalf("banned %v, which holds an exempt address", d.Prefix)
				}
				if d.Duration > e.policy.Ban.Max || !d.Proven && d.Duration > e.policy.Ban.ForgeableMax ||
					d.Duration <= 0 {
					t.Fatalf("ban for %v, proven %v", d.Duration, d.Proven)
				}
			}
			if err := e.check(); err != nil {
				t.Fatalf("after %s: %v", s.name, err)
			}
			for _, b := range e.EnforcedBans(s.at) {
				if e.isFullyExempt(b.Prefix) {
					t.Fatalf("after %s: %v is banned, but exempt", s.name, b.Prefix)
				}
			}
			if st := e.Stats(s.at); st.Trusted != len(e.TrustedSources(s.at)) || st.Trusted != len(e.Trusted(s.at)) {
				t.Fatalf("%d trusted, %d listed", st.Trusted, len(e.TrustedSources(s.at)))
			}
			for _, a := range []string{"203.0.113.1", "2001:db8::1"} {
				x := e.Why(s.at, netip.MustParseAddr(a))
				if len(x.Lines) == 0 || (x.Verdict == "allowed" || x.Verdict == "protected") != (x.Allow != nil) {
					t.Fatalf("why %s: %+v", a, x)
				}
			}
		})
	})
}

// TestSameEventsSameDecisions plays a story to two engines, which have different seeds and map orders.
func TestSameEventsSameDecisions(t *testing.T) {
	property.Check(t, func(t *property.T) {
		cfg, steps := anyPolicy(t), story(t)
		cfg.MaxSources = property.OneOf(t, 3, 1000)
		first, second := NewRepeatable(cfg).play(steps, nil, nil), NewRepeatable(cfg).play(steps, nil, nil)
		if !reflect.DeepEqual(first, second) {
			t.Fatalf("%v\n%v", lines(first), lines(second))
		}
	})
}

// TestTicksDecideNothing plays a story with and without ticks between the steps: they make decisions come sooner, not
// different.
func TestTicksDecideNothing(t *testing.T) {
	property.Check(t, func(t *property.T) {
		cfg, steps := anyPolicy(t), story(t)
		parts := make([]int, len(steps)) // ticks before each
		for i := range parts {
			parts[i] = property.Int(t, 0, 3)
		}
		seldom := NewRepeatable(cfg).play(steps, nil, nil)
		often := NewRepeatable(cfg).play(steps, func(i int) (at []time.Time) {
			if i > 0 {
				pause := steps[i].at.Sub(steps[i-1].at)
				for n := range parts[i] {
					at = append(at, steps[i-1].at.Add(pause*time.Duration(n+1)/4))
				}
			}
			return at
		}, nil)
		if !reflect.DeepEqual(seldom, often) {
			t.Fatalf("%v\n%v", lines(seldom), lines(often))
		}
	})
}

// TestForgedPacketsTakeNothingFromACustomer forges what UDP lets anybody forge, in the name of a phone that is
// trusted: it stays so, is never banned, and no login of it looks like a breach.
func TestForgedPacketsTakeNothingFromACustomer(t *testing.T) {
	property.Check(t, func(t *property.T) {
		e, now := NewRepeatable(config.Default().Policy), epoch
		phone := netip.MustParseAddrPort("203.0.112.1:5060")
		if property.Bool(t) {
			phone = netip.MustParseAddrPort("[2001:db8:0:1::1]:5060")
		}
		login := event.Event{Type: event.SuccessfulAuth, Service: event.PJSIP, Account: "201",
			UsingPassword: true,
			Remote:        event.Address{AddrPort: phone, Transport: event.UDP}}
		var all []ban.Decision
		all = e.Handle(now, "pbx", &login, all)
		for i := range property.Count(t, 1, 200) {
			now = now.Add(property.OneOf(t, 0, time.Millisecond, 100*time.Millisecond, time.Second, time.Minute,
				time.Hour))
			all, _ = e.Tick(now, all)
			if i%20 == 19 {
				login.Session = strconv.Itoa(i)
				all = e.Handle(now, "pbx", &login, all)
				continue
			}
			ev := anyEvent(t)
			if ev.Type == event.SuccessfulAuth {
				continue // it cannot be forged
			}
			ev.Service, ev.Remote.Transport = event.PJSIP, event.UDP
			ev.Challenge, ev.Hostile = property.OneOf(t, "", "1795384137/5e8c2ab0", "nonce"),
				property.OneOf(t, false, false, false, true)
			if property.Bool(t) {
				ev.Remote.AddrPort = netip.AddrPortFrom(phone.Addr(), ev.Remote.AddrPort.Port())
			}
			all = e.Handle(now, "pbx", &ev, all)
		}
		login.Session = "last"
		all = e.Handle(now, "pbx", &login, all)
		for _, d := range all {
			if d.Action == ban.ActionBreach ||
				(d.Action == ban.ActionBan || d.Action == ban.ActionUntrust && d.Reason != ban.ReasonExpired) &&
					d.Prefix.Contains(phone.Addr()) {
				t.Fatalf("%+v", d)
			}
		}
		if x := e.Why(now, phone.Addr()); x.Trust == nil {
			t.Fatalf("no trust: %+v", x)
		}
	})
}

func lines(decisions []ban.Decision) (out []string) {
	for _, d := range decisions {
		out = append(out, fmt.Sprintf("%v %s %s %v %.3f %v\n", d.Time.Sub(epoch), d.Action, d.Reason, d.Prefix, d.Score,
			d.Duration))
	}
	return out
}

// TestSourcesAreAMapWithQueues compares sources with a map.
func TestSourcesAreAMapWithQueues(t *testing.T) {
	type known struct {
		class sourceClass
		seen  int64
	}
	property.Check(t, func(t *property.T) {
		memory := property.OneOf[uint32](t, 60, 3600, 86400)
		tr, width, latest := newSources(1000, memory), memory/32+1, int64(0)
		now := property.Int[int64](t, 1, 1e9) * second
		model := make(map[sourceKey]known)
		for range property.Count(t, 1, 200) {
			now += second * property.Int(t, 0, property.OneOf[int64](t, 90, 7200, 1e6))
			latest = max(latest, now)
			k := sourceKey{byte(property.Int(t, 1, 20))}
			c := sourceClass(property.Int(t, 0, int(numClasses)-1))
			s, have := tr.get(k), model[k]
			if (have.seen != 0) != (s != nil) {
				t.Fatalf("%v: known %v, want %v", k, s != nil, have)
			}
			switch what := property.Int(t, 0, 5); {
			case s == nil:
				tr.requeue(tr.add(k, now), c, seconds(now))
				model[k] = known{c, now}
			case what == 0:
				tr.remove(s)
				delete(model, k)
			case what == 1:
				tr.requeue(s, c, seconds(s.lastSeen))
				model[k] = known{c, have.seen}
			case what == 2:
				tr.reset(s, now)
				model[k] = known{have.class, now}
			default: // as most events: nothing moves
				s.lastSeen = now
				model[k] = known{have.class, now}
			}
			if property.Bool(t) {
				c := sourceClass(property.Int(t, 0, int(numClasses)-1))
				o, first := tr.quietest(c), int64(math.MaxInt64)
				for _, m := range model {
					if m.class == c {
						first = min(first, m.seen)
					}
				}
				switch {
				case (o == nil) != (first == math.MaxInt64):
					t.Fatalf("oldest of class %d is %v, the first was seen at %d", c, o, first)
				// Whatever is older than the oldest list is in that list, in any order.
				case o != nil && seconds(o.lastSeen) > max(seconds(first),
					seconds(latest)-min(seconds(latest), 64*width))+60+2*width:
					t.Fatalf("oldest of class %d was seen at %d, the first at %d", c, o.lastSeen, first)
				}
			}
			if err := tr.check(); err != nil {
				t.Fatal(err)
			}
			for k, m := range model {
				if s := tr.get(k); s == nil || s.class != m.class || s.lastSeen != m.seen {
					t.Fatalf("%v: %+v, want %+v", k, s, m)
				}
			}
		}
	})
}

// TestSketchesAreSecret pins the places of an engine for recordings, where they would else differ from run to run, and
// wants other ones where an attacker could use them.
func TestSketchesAreSecret(t *testing.T) {
	cfg := config.Default().Policy
	fixed := NewRepeatable(cfg)
	for account, want := range map[string]uint8{"": 62, "201": 22, "alice": 4} {
		if got := fixed.sketchBit(account); got != want {
			t.Errorf("bitOf(%q) = %d, want %d", account, got, want)
		}
	}
	same := 0
	for range 8 {
		e := New(cfg)
		for i := range 64 {
			if account := strconv.Itoa(200 + i); e.sketchBit(account) == fixed.sketchBit(account) {
				same++
			}
		}
	}
	if same > 8*64/4 { // by chance one of 64
		t.Errorf("%d of %d accounts have the place that anybody can compute", same, 8*64)
	}
}
