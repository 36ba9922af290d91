package engine_test

import (
	"fmt"
	"hash/crc32"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

// world is an engine with a clock of its own and the decisions so far.
type world struct {
	t     *testing.T
	e     *engine.Engine
	now   time.Time
	calls int
	log   []ban.Decision
}

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func newWorld(t *testing.T, change ...func(*config.Policy)) *world {
	p := config.Default().Policy
	for _, f := range change {
		f(&p)
	}
	return &world{t: t, e: engine.NewRepeatable(p), now: start}
}

// pass lets time go by in steps, as the daemon's ticks do.
func (w *world) pass(d time.Duration) *world {
	end := w.now.Add(d)
	step := max(d/1000, 100*time.Millisecond)
	for w.now.Before(end) {
		w.now = w.now.Add(min(step, end.Sub(w.now)))
		for more := true; more; {
			w.log, more = w.e.Tick(w.now, w.log)
		}
	}
	return w
}

// dialogue returns a Call-ID that was not used before.
func (w *world) dialogue() string {
	w.calls++
	return fmt.Sprintf("call-%d@test", w.calls)
}

func (w *world) send(typ event.Type, from, account string, change ...func(*event.Event)) *world {
	ev := event.Event{
		Type: typ, Service: event.PJSIP, Time: w.now, Account: account, Session: w.dialogue(),
		Local: event.Address{AddrPort: netip.MustParseAddrPort("192.0.2.1:5060"), Transport: event.UDP},
		Remote: event.Address{AddrPort: netip.AddrPortFrom(netip.MustParseAddr(from), portOf(account)),
			Transport: event.UDP},
	}
	for _, f := range change {
		f(&ev)
	}
	w.log = w.e.Handle(w.now, "pbx", &ev, w.log)
	w.now = w.now.Add(time.Millisecond)
	return w
}

// portOf is the port that a NAT gives to the phone of an account.
func portOf(account string) uint16 {
	return uint16(20_000 + crc32.ChecksumIEEE([]byte(account))%40_000)
}

func over(tr event.Transport) func(*event.Event) {
	return func(ev *event.Event) { ev.Remote.Transport = tr }
}

func in(session string) func(*event.Event) {
	return func(ev *event.Event) { ev.Session = session }
}

func answering(challenge, response string) func(*event.Event) {
	return func(ev *event.Event) { ev.Challenge, ev.Response = challenge, response }
}

// login is what a phone with the right password makes.
func (w *world) login(from, account string, change ...func(*event.Event)) *world {
	call := w.dialogue()
	w.send(event.ChallengeSent, from, account, append(change, in(call))...)
	return w.send(event.SuccessfulAuth, from, account,
		append(change, in(call), func(ev *event.Event) { ev.UsingPassword = true })...)
}

// wrong is one wrong password.
func (w *world) wrong(from, account string, change ...func(*event.Event)) *world {
	call := w.dialogue()
	w.send(event.ChallengeSent, from, account, append([]func(*event.Event){in(call)}, change...)...)
	return w.send(event.ChallengeResponseFailed, from, account,
		append([]func(*event.Event){in(call), answering(call, call)}, change...)...)
}

// scan is one request for an account that does not exist, without credentials.
func (w *world) scan(from, account string, change ...func(*event.Event)) *world {
	call := w.dialogue()
	w.send(event.InvalidAccountID, from, account, append(change, in(call))...)
	return w.send(event.ChallengeSent, from, "<unknown>", append(change, in(call))...)
}

func (w *world) banned(addr string) bool {
	x := w.e.Why(w.now, netip.MustParseAddr(addr))
	return x.Ban != nil && !x.Ban.Observed
}

func (w *world) wantBanned(addrs ...string) *world {
	w.t.Helper()
	for _, a := range addrs {
		if !w.banned(a) {
			w.t.Errorf("%s is not banned at %v; decisions: %v", a, w.now.Sub(start), w.actions())
		}
	}
	return w
}

func (w *world) wantFree(addrs ...string) *world {
	w.t.Helper()
	for _, a := range addrs {
		if w.banned(a) {
			w.t.Errorf("%s is banned at %v; decisions: %v", a, w.now.Sub(start), w.actions())
		}
	}
	return w
}

// wantNever fails if an address was ever banned.
func (w *world) wantNever(addrs ...string) *world {
	w.t.Helper()
	for _, a := range addrs {
		for _, d := range w.log {
			if (d.Action == ban.ActionBan || d.Action == ban.ActionExtend) &&
				d.Prefix.Contains(netip.MustParseAddr(a)) {
				w.t.Errorf("%s was banned by %v", a, brief(d))
			}
		}
	}
	return w
}

func (w *world) wantTrusted(addrs ...string) *world {
	w.t.Helper()
	for _, a := range addrs {
		if w.e.Why(w.now, netip.MustParseAddr(a)).Trust == nil {
			w.t.Errorf("%s is not trusted; decisions: %v", a, w.actions())
		}
	}
	return w
}

// wantDecision wants n decisions of an action and reason.
func (w *world) wantDecision(n int, a ban.Action, r ban.Reason) *world {
	w.t.Helper()
	got := 0
	for _, d := range w.log {
		if d.Action == a && d.Reason == r {
			got++
		}
	}
	if got != n {
		w.t.Errorf("%d decisions %s/%s, want %d; decisions: %v", got, a, r, n, w.actions())
	}
	return w
}

func (w *world) actions() []string {
	var out []string
	for _, d := range w.log {
		out = append(out, brief(d))
	}
	if len(out) > 40 {
		out = append(slices.Clone(out[:40]), "…")
	}
	return out
}

func brief(d ban.Decision) string {
	return fmt.Sprintf("%v %s %v %s %.1f %v", d.Time.Sub(start), d.Action, d.Prefix, d.Reason, d.Score, d.Duration)
}

// scenario is a story with a name that a person would give it, and its end.
type scenario struct {
	name   string
	policy func(*config.Policy) // changes to the default, or nil
	play   func(w *world)
}

func run(t *testing.T, scenarios []scenario) {
	t.Helper()
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			var change []func(*config.Policy)
			if s.policy != nil {
				change = append(change, s.policy)
			}
			s.play(newWorld(t, change...))
		})
	}
}

// round is what a phone with a wrong password makes each time it tries: it answers two challenges, and gives up.
func (w *world) round(from, account string, change ...func(*event.Event)) *world {
	call := w.dialogue()
	w.send(event.ChallengeSent, from, account, append([]func(*event.Event){in(call)}, change...)...)
	for i := range 2 {
		w.send(event.ChallengeResponseFailed, from, account,
			append([]func(*event.Event){in(call), answering(call+strconv.Itoa(i), call)}, change...)...)
	}
	return w
}

// rounds is a phone that tries n times.
func (w *world) rounds(n int, every time.Duration, from, account string, change ...func(*event.Event)) *world {
	for range n {
		w.round(from, account, change...).pass(every)
	}
	return w
}

// crack is n guesses on one nonce, as svcrack makes them.
func (w *world) crack(n int, from, account string, change ...func(*event.Event)) *world {
	call := w.dialogue()
	w.send(event.ChallengeSent, from, account, append([]func(*event.Event){in(call)}, change...)...)
	for i := range n {
		w.send(event.ChallengeResponseFailed, from, account,
			append([]func(*event.Event){in(call), answering(call, call+strconv.Itoa(i))}, change...)...)
	}
	return w
}

// options is a keepalive of somebody whom Asterisk knows: a challenge that nobody answers.
func (w *world) options(from, account string) *world {
	return w.send(event.ChallengeSent, from, account)
}

// accounts counts from 201.
func extension(i int) string { return strconv.Itoa(201 + i) }

// host is an address of a botnet, each in a network of its own.
func host(i int) string { return fmt.Sprintf("100.%d.%d.7", 64+i/200, i%200) }

// wantLast wants the latest decision about an address to be of an action and reason.
func (w *world) wantLast(addr string, a ban.Action, r ban.Reason) *world {
	w.t.Helper()
	for _, d := range slices.Backward(w.log) {
		if d.Prefix.IsValid() && d.Prefix.Contains(netip.MustParseAddr(addr)) {
			if d.Action != a || d.Reason != r {
				w.t.Errorf("%s: latest is %s, want %s/%s", addr, brief(d), a, r)
			}
			return w
		}
	}
	w.t.Errorf("nothing about %s, want %s/%s", addr, a, r)
	return w
}

// wantQuiet wants no decision but trust and its end.
func (w *world) wantQuiet() *world {
	w.t.Helper()
	for _, d := range w.log {
		if d.Action != ban.ActionTrust && d.Action != ban.ActionUntrust {
			w.t.Errorf("unexpected: %v", brief(d))
		}
	}
	return w
}

func (w *world) wantUntrusted(addrs ...string) *world {
	w.t.Helper()
	for _, a := range addrs {
		if w.e.Why(w.now, netip.MustParseAddr(a)).Trust != nil {
			w.t.Errorf("%s is trusted; decisions: %v", a, w.actions())
		}
	}
	return w
}

// protect makes Asterisk know prefixes.
func (w *world) protect(prefixes ...string) *world {
	learned := make(map[netip.Prefix]string)
	for _, p := range prefixes {
		learned[netip.MustParsePrefix(p)] = "trunk"
	}
	w.log = append(w.log, w.e.Protect(w.now, "pbx", learned)...)
	return w
}

func (w *world) allow(prefix string) *world {
	w.log = append(w.log, w.e.Allow(w.now, netip.MustParsePrefix(prefix), engine.OriginManual, "")...)
	return w
}

func (w *world) unban(prefix string, grace time.Duration) *world {
	w.log = append(w.log, w.e.Unban(w.now, netip.MustParsePrefix(prefix), grace)...)
	return w
}
