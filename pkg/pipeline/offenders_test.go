package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/internal/property"
	"github.com/ringwall/ringwall/pkg/store"
)

// fate is what happens to the daemon at its end.
type fate int

const (
	ended  fate = iota // all is saved, the kernel keeps its bans
	booted             // the same, and the kernel forgets them
	killed             // after the last change was saved
	fates
)

// books is a daemon's engine and its state file, and nothing else of it. It lives in a synctest bubble.
type books struct {
	fail     func(format string, args ...any)
	path     string
	cfg      config.Config
	pipeline *Pipeline
	store    *store.Store
	end      func()
	calls    int

	told map[netip.Prefix]told // what should be remembered
}

// told is how often a source was banned, and when the last of these bans was to end; latest is the latest end of them
// all.
type told struct {
	bans         int
	last, latest time.Time
}

func newBooks(path string, fail func(format string, args ...any)) *books {
	b := &books{fail: fail, path: path, cfg: config.Default(), told: make(map[netip.Prefix]told)}
	b.cfg.State.Path = path
	b.cfg.Policy.Mode = config.Enforce
	b.open(nil)
	return b
}

// open starts the daemon, with what the kernel held before.
func (b *books) open(kernel []firewall.Element) {
	log := slog.New(slog.DiscardHandler)
	p := New(Config{Clock: NewClock(time.Now()), Log: log, Engine: engine.New(b.cfg.Policy)})
	s, _, err := store.Open(b.path, store.Options{
		Log: log, Snapshot: p.StateSnapshot, Counts: CountsOffence,
		OffenderMemory: b.cfg.Policy.Ban.Memory, TrustMemory: b.cfg.Policy.Storm.Memory,
	})
	if err != nil {
		b.fail("%v", err)
		return
	}
	p.SetStore(s)
	b.pipeline, b.store = p, s
	state, err := s.LoadCustomers(context.Background(), p.Clock().Now())
	if err == nil {
		err = p.BeginRestoring(firewall.NewDryRun(func(string) {}), state, []string{"pbx1"})
	}
	if err == nil {
		err = s.WalkBans(context.Background(), p.Clock().Now(), func(bans []ban.Ban, offenders []ban.Offender) error {
			p.restoreStored(bans, offenders)
			return nil
		})
		p.adoptFromKernel(kernel)
		p.endRestoring()
	}
	if err != nil {
		b.fail("%v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.store.Run(ctx) }()
	b.end = func() {
		cancel()
		if err := <-done; err != nil {
			b.fail("%v", err)
		}
	}
}

// restart ends the daemon, and starts it again after a time, with what the kernel held and more.
func (b *books) restart(f fate, after time.Duration, kernel ...firewall.Element) {
	b.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) {
		for _, c := range e.EnforcedBans(now) {
			if left := c.Left - after; f != booted && left > 0 && len(kernel) == 0 {
				kernel = append(kernel, firewall.Element{Prefix: c.Prefix, Remaining: left, Closes: closesFor(c)})
			}
		}
	})
	if f == killed {
		if err := b.store.Flush(context.Background()); err != nil {
			b.fail("%v", err)
		}
		file, err := os.ReadFile(b.path)
		if err != nil {
			b.fail("%v", err)
		}
		b.end()
		if err := os.WriteFile(b.path, file, 0o600); err != nil {
			b.fail("%v", err)
		}
	} else {
		b.end()
	}
	time.Sleep(after)
	b.open(kernel)
}

// decided keeps what the engine decided, and remembers its bans.
func (b *books) decided(f func(e *engine.Engine, now time.Time) []ban.Decision) {
	p := b.pipeline
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock.Now()
	var changes []store.Change
	for _, d := range f(p.engine, now) {
		changes = p.recordsLocked(&d, changes)
		widened := d.Action == ban.ActionExtend
		if d.Action != ban.ActionBan && !widened || d.Reason == ban.ReasonManual || d.Reason == ban.ReasonNetwork {
			continue
		}
		t := b.told[d.Prefix]
		if now.Sub(t.last) >= b.cfg.Policy.Ban.Memory {
			t = told{}
		}
		if !widened {
			t.bans++
		}
		t.last = now.Add(d.Duration)
		if t.latest.Before(t.last) {
			t.latest = t.last
		}
		b.told[d.Prefix] = t
	}
	p.SaveChanges(changes)
}

// closesFor is what the kernel's element of a ban closes.
func closesFor(el engine.Element) firewall.Closes {
	if el.Closes == ban.ClosesUDP {
		return firewall.CloseUDPKnock
	}
	return firewall.CloseAll
}

func (b *books) attack(from netip.Addr, over event.Transport) {
	for range 3 {
		b.calls++
		ev := event.Event{
			Type: event.InvalidAccountID, Service: event.PJSIP, Account: fmt.Sprint(100 + b.calls),
			Session: fmt.Sprint("call-", b.calls),
			Local:   event.Address{AddrPort: netip.MustParseAddrPort("192.0.2.1:5060"), Transport: over},
			Remote:  event.Address{AddrPort: netip.AddrPortFrom(from, 5060), Transport: over},
		}
		asked := ev
		asked.Type, asked.Account = event.ChallengeSent, "<unknown>"
		b.decided(func(e *engine.Engine, now time.Time) []ban.Decision {
			ev.Time, asked.Time = now, now
			return e.Handle(now, "pbx1", &asked, e.Handle(now, "pbx1", &ev, nil))
		})
	}
}

func (b *books) ban(p netip.Prefix, d time.Duration) {
	b.decided(func(e *engine.Engine, now time.Time) []ban.Decision {
		out, err := e.Ban(now, p, d, "by hand")
		if err != nil {
			b.fail("%v", err)
		}
		return out
	})
}

func (b *books) unban(p netip.Prefix) {
	b.decided(func(e *engine.Engine, now time.Time) []ban.Decision { return e.Unban(now, p, 0) })
}

func (b *books) pass(d time.Duration) {
	time.Sleep(d)
	for more := true; more; {
		b.decided(func(e *engine.Engine, now time.Time) (out []ban.Decision) {
			out, more = e.Tick(now, nil)
			return out
		})
	}
}

// check compares what the engine knows of the sources with what should be remembered.
func (b *books) check(when string) {
	b.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) {
		for _, p := range suspects {
			want := b.told[p]
			got, ok := e.Offender(p)
			switch {
			case now.Sub(want.latest) >= b.cfg.Policy.Ban.Memory:
				if ok {
					b.fail("%s: %v should be forgotten: %+v", when, p, got)
				}
			case now.Sub(want.last) >= b.cfg.Policy.Ban.Memory: // an earlier ban, ended early, was to last longer
			case !ok || got.Bans != want.bans || got.Last.Before(want.last) || got.Last.After(want.latest):
				b.fail("%s: of %v is known %+v, %v; want %+v", when, p, got, ok, want)
			}
		}
	})
}

// The first of suspects, and its address.
var (
	villain      = netip.MustParseAddr("203.0.113.66")
	villainsBans = netip.PrefixFrom(villain, 32)
)

var suspects = []netip.Prefix{villainsBans, netip.MustParsePrefix("198.51.100.7/32"),
	netip.MustParsePrefix("2001:db8:7::/64")}

// What is remembered of a source that was banned, however its ban came to its end and the daemon to its own.
func TestHowOftenASourceWasBannedSurvives(t *testing.T) {
	for name, story := range map[string]func(b *books, restart func(after time.Duration)){
		"while it is banned": func(_ *books, restart func(time.Duration)) { restart(0) },
		"when the ban ended meanwhile": func(_ *books, restart func(time.Duration)) {
			restart(3 * time.Hour)
		},
		"when the ban is removed from the file": func(_ *books, restart func(time.Duration)) {
			restart(60 * time.Hour)
			restart(time.Hour)
		},
		"when the ban ended": func(b *books, restart func(time.Duration)) {
			b.pass(2 * time.Hour)
			restart(0)
		},
		"when it was unbanned": func(b *books, restart func(time.Duration)) {
			b.unban(villainsBans)
			restart(0)
		},
		"when it was unbanned after a restart": func(b *books, restart func(time.Duration)) {
			restart(time.Minute)
			b.unban(villainsBans)
			restart(0)
		},
		"when a person prolonged the ban": func(b *books, restart func(time.Duration)) {
			b.ban(villainsBans, 100*time.Hour)
			restart(time.Hour)
		},
		"when the ban that a person prolonged ended meanwhile": func(b *books, restart func(time.Duration)) {
			b.ban(villainsBans, 100*time.Hour)
			restart(101 * time.Hour)
			restart(60 * time.Hour)
			restart(0)
		},
		"when a person banned it after that": func(b *books, restart func(time.Duration)) {
			restart(3 * time.Hour)
			b.ban(villainsBans, time.Hour)
			restart(0)
			b.unban(villainsBans)
			restart(0)
		},
		"when the kernel has a ban that was not saved": func(b *books, restart func(time.Duration)) {
			for _, after := range []time.Duration{time.Minute, 3 * time.Hour} { // the stored one lasts, and is over
				b.restart(killed, after, firewall.Element{Prefix: villainsBans, Remaining: 5 * time.Hour})
				restart(0)
			}
			b.pass(6 * time.Hour)
			restart(0)
		},
		"when a person banned somebody else": func(b *books, restart func(time.Duration)) {
			b.ban(suspects[1], time.Hour)
			restart(0)
			b.unban(suspects[1])
			restart(0)
		},
		"when it was banned again": func(b *books, restart func(time.Duration)) {
			b.pass(2 * time.Hour) // there is a record of the first ban now
			b.attack(villain, event.TLS)
			restart(time.Minute)
			b.pass(10 * time.Hour)
			restart(time.Minute)
		},
		"in observe mode": func(b *books, restart func(time.Duration)) {
			b.cfg.Policy.Mode = config.Observe
			restart(0)
			b.attack(villain, event.TLS)
			b.pass(3 * time.Hour)
			restart(0)
			b.cfg.Policy.Mode = config.Enforce
			restart(60 * time.Hour)
			restart(0)
		},
		"when all is written anew": func(b *books, restart func(time.Duration)) {
			b.pipeline.SaveChanges(b.pipeline.StateSnapshot())
			restart(0)
			b.pipeline.SaveChanges(b.pipeline.StateSnapshot())
			restart(3 * time.Hour)
		},
	} {
		for f := range fates {
			t.Run(fmt.Sprint(name, "/", [...]string{"ended", "booted", "killed"}[f]), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "state.db")
				synctest.Test(t, func(t *testing.T) {
					b := newBooks(path, t.Errorf)
					b.attack(villain, event.TLS)
					if len(b.told) != 1 {
						t.Fatalf("banned: %v", b.told)
					}
					b.check("at once")
					story(b, func(after time.Duration) {
						b.restart(f, after)
						b.check("after a restart")
					})
					b.unban(villainsBans)
					before := b.told[villainsBans].bans
					b.attack(villain, event.TLS)
					if after := b.told[villainsBans]; after.bans != before+1 {
						t.Fatalf("not banned again: %+v", after)
					}
					b.check("in the end")
					if bans := b.stored(t); len(bans) != 1 || bans[0].Number != before+1 {
						t.Errorf("stored: %+v; want ban number %d", bans, before+1)
					}
				})
			})
		}
	}
}

// stored ends the daemon and returns the bans in its file.
func (b *books) stored(t *testing.T) []ban.Ban {
	t.Helper()
	b.end()
	s, _, err := store.Open(b.path, store.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	state, err := s.Load(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return state.Bans
}

// While a source's own ban is stored, it is the only record of it.
func TestABanNeedsNoSecondRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	synctest.Test(t, func(t *testing.T) {
		b := newBooks(path, t.Errorf)
		b.attack(villain, event.TLS)
		b.end()
		s, _, err := store.Open(path, store.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		if state, err := s.Load(t.Context(), time.Now()); err != nil || len(state.Bans) != 1 ||
			len(state.Offenders) != 0 {
			t.Errorf("%+v, %v; want a ban alone", state, err)
		}
	})
}

// A file of before has a record of the offender beside that of the ban: the worse counts.
func TestAFileOfBeforeWithBothRecords(t *testing.T) {
	for _, recorded := range []told{{bans: 2}, {bans: 1, last: time.Now()}, {bans: 7}} {
		path := filepath.Join(t.TempDir(), "state.db")
		synctest.Test(t, func(t *testing.T) {
			b := newBooks(path, t.Errorf)
			b.attack(villain, event.TLS)
			b.pass(2 * time.Hour)
			b.attack(villain, event.TLS)
			want := b.told[villainsBans]
			if recorded.last.IsZero() {
				recorded.last = want.last
			} else { // that of the first ban was left
				recorded.last = want.last.Add(-5 * time.Hour)
			}
			if err := b.store.Put(store.PutOffender(ban.Offender{Prefix: villainsBans, Bans: recorded.bans,
				Last: recorded.last})); err != nil {
				t.Fatal(err)
			}
			want.bans = max(want.bans, recorded.bans)
			b.told[villainsBans] = want
			b.restart(booted, time.Minute)
			b.check("after a restart")
			b.end()
		})
	}
}

// step is one thing that happens.
type step struct {
	what   byte // attack, ban, unban, pass, restart, restart where the kernel has a ban of its own
	source int
	over   event.Transport
	mode   config.Mode
	fate   fate
	time   time.Duration
}

func (s step) String() string {
	return fmt.Sprintf("%c %d %v %s %d %v", s.what, s.source, s.over, s.mode, s.fate, s.time)
}

func drawStep(t *property.T) step {
	return step{
		what: property.OneOf(t, []byte("aaabuppRRRK")...), source: property.Int(t, 0, 2),
		over: property.OneOf(t, event.TLS, event.UDP),
		mode: property.OneOf(t, config.Enforce, config.Enforce, config.Enforce, config.Observe),
		fate: fate(property.Int(t, 0, int(fates)-1)),
		time: property.OneOf(t, time.Minute, 3*time.Hour, 60*time.Hour, 400*time.Hour),
	}
}

func drawSteps(t *property.T) []step {
	steps := make([]step, property.Count(t, 1, 25))
	for i := range steps {
		steps[i] = drawStep(t)
	}
	return steps
}

// Whatever happens in whatever order, after a restart the engine knows of each source what was told of it.
func TestWhatIsRememberedIsWhatHappened(t *testing.T) {
	dir := t.TempDir()
	property.Check(t, func(rt *property.T) {
		steps := drawSteps(rt)
		path := filepath.Join(dir, "state.db")
		defer func() { _ = os.Remove(path) }()
		wrong := ""
		synctest.Test(t, func(*testing.T) {
			now := ""
			b := newBooks(path, func(format string, args ...any) {
				if wrong == "" {
					wrong = now + fmt.Sprintf(format, args...)
				}
			})
			for i := 0; i < len(steps) && wrong == ""; i++ {
				now = fmt.Sprintf("step %d: ", i)
				b.take(steps[i])
				b.check("")
			}
			b.end()
		})
		if wrong != "" {
			rt.Fatalf("%s\n%v", wrong, steps)
		}
	})
}

func (b *books) take(s step) {
	p := suspects[s.source]
	switch s.what {
	case 'a':
		b.attack(p.Addr(), s.over)
	case 'b':
		b.ban(p, s.time)
	case 'u':
		b.unban(p)
	case 'p':
		b.pass(s.time)
	case 'R':
		b.cfg.Policy.Mode = s.mode
		b.restart(s.fate, s.time)
	case 'K':
		b.restart(s.fate, 3*time.Hour, firewall.Element{Prefix: p, Remaining: s.time})
	}
}
