package fail2ban_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/fail2ban"
)

// randomJails writes one to four jails as people might have them.
func randomJails(r *rand.Rand) string {
	var b strings.Builder
	seconds := func() int { return []int{10, 60, 600, 3600, 86400, 30 * 86400}[r.IntN(6)] * (1 + r.IntN(3)) }
	span := func() string {
		switch n := min(seconds(), 30*86400); r.IntN(3) {
		case 0:
			return fmt.Sprint(n)
		case 1:
			return fmt.Sprintf("%dm", max(n/60, 1))
		default:
			return fmt.Sprintf("%ds", n)
		}
	}
	kinds := [][2]string{
		{"asterisk", "asterisk"}, {"asterisk-auth", "asterisk-auth"}, {"asterisk-scan", "asterisk-scan"},
		{"asterisk-ami", "asterisk-ami"},
		{"sip-passwords", "my-pjsip-password"}, {"enumeration", "pjsip-enum"}, {"freepbx-gui", "freepbx"},
		{"recidive", "recidive"},
	}
	for i, k := range r.Perm(len(kinds))[:1+r.IntN(4)] {
		fmt.Fprintf(&b, "[%s]\nenabled = true\nfilter = %s\nport = %s\n", kinds[k][0], kinds[k][1],
			[]string{"5060,5061", "0:65535", "sip,5080:5090", "10000:20000", ""}[r.IntN(5)])
		if i == 0 || r.IntN(3) > 0 {
			fmt.Fprintf(&b, "maxretry = %d\n", []int{1, 2, 3, 4, 5, 6, 10, 50, 1000, 1 + r.IntN(1000)}[r.IntN(10)])
		}
		if r.IntN(4) > 0 {
			fmt.Fprintf(&b, "findtime = %s\n", span())
		}
		switch r.IntN(4) {
		case 0:
			b.WriteString("bantime = -1\n")
		case 1:
		default:
			fmt.Fprintf(&b, "bantime = %s\n", span())
		}
		if r.IntN(4) == 0 {
			fmt.Fprintf(&b, "bantime.increment = true\nbantime.maxtime = %s\n", span())
		}
	}
	return b.String()
}

// day plays events to a policy, and remembers when an address was first banned.
type day struct {
	e      *engine.Engine
	begin  time.Time
	calls  int
	banned map[netip.Addr]time.Time
}

func newDay(p config.Policy) *day {
	p.Mode = config.Enforce
	return &day{e: engine.New(p), begin: now, banned: map[netip.Addr]time.Time{}}
}

func (d *day) note(list []ban.Decision) {
	for _, dec := range list {
		if dec.Action == ban.ActionBan {
			if _, again := d.banned[dec.Prefix.Addr()]; !again {
				d.banned[dec.Prefix.Addr()] = dec.Time
			}
		}
	}
}

// send is one dialogue at a time after the beginning: Asterisk's challenge, where there is one, and what it says then.
func (d *day) send(at time.Duration, transport event.Transport, from, account string, types ...event.Type) {
	d.calls++
	call := fmt.Sprintf("%d@office", d.calls)
	for i, typ := range types {
		when := d.begin.Add(at + time.Duration(i)*20*time.Millisecond)
		ev := event.Event{
			Type: typ, Service: event.PJSIP, Time: when, Account: account, Session: call,
			UsingPassword: typ == event.SuccessfulAuth,
			Local:         event.Address{AddrPort: netip.MustParseAddrPort("192.0.2.1:5060"), Transport: transport},
			Remote: event.Address{AddrPort: netip.AddrPortFrom(netip.MustParseAddr(from), 5060),
				Transport: transport},
		}
		if typ == event.ChallengeResponseFailed {
			ev.Challenge, ev.Response = call, fmt.Sprintf("%032x", d.calls)
		}
		d.note(d.e.Handle(when, "pbx", &ev, nil))
	}
}

func (d *day) tick(at time.Duration) {
	for more := true; more; {
		var list []ban.Decision
		list, more = d.e.Tick(d.begin.Add(at), nil)
		d.note(list)
	}
}

// customers plays ten hours of an office of forty phones, of which three have old passwords and one a deleted account,
// of two phones at home with an old password, and of somebody who mistypes a password three times.
func (d *day) customers() []string {
	const office, home, typist = "198.51.100.46", "198.51.100.77", "198.51.100.78"
	for phone := 37; phone < 40; phone++ { // the first in the morning, before anybody of the office is known
		d.send(0, event.TLS, office, fmt.Sprint(200+phone), event.ChallengeSent, event.ChallengeResponseFailed)
	}
	for at := time.Duration(0); at < 10*time.Hour; at += 10 * time.Second {
		for phone := range 40 {
			shift := time.Duration(phone) * 10 * time.Second
			switch {
			case phone >= 37:
				if at > 0 && at%(30*time.Second) == 0 {
					d.send(at, event.TLS, office, fmt.Sprint(200+phone), event.ChallengeSent,
						event.ChallengeResponseFailed)
				}
			case phone == 36:
				if at >= time.Minute && at%time.Minute == 0 {
					d.send(at, event.TLS, office, "299", event.InvalidAccountID)
				}
			case at%(15*time.Minute) == shift%(15*time.Minute):
				d.send(at, event.TLS, office, fmt.Sprint(200+phone), event.ChallengeSent, event.SuccessfulAuth)
			}
		}
		if at%(20*time.Second) == 0 {
			d.send(at, event.UDP, home, fmt.Sprint(250+at/(20*time.Second)%2), event.ChallengeSent,
				event.ChallengeResponseFailed)
		}
		switch at {
		case time.Hour, time.Hour + 10*time.Second, time.Hour + 20*time.Second:
			d.send(at, event.TLS, typist, "260", event.ChallengeSent, event.ChallengeResponseFailed)
		case time.Hour + 30*time.Second:
			d.send(at, event.TLS, typist, "260", event.ChallengeSent, event.SuccessfulAuth)
		}
		if at%time.Minute == 0 {
			d.tick(at)
		}
	}
	return []string{office, home, typist}
}

// attack plays attempts at a pace until the ban, and returns how many it took; 0 is none.
func attack(p config.Policy, transport event.Transport, accounts int, pace time.Duration,
	types ...event.Type) int {
	const from, most = "203.0.113.66", 200
	d := newDay(p)
	d.begin = d.begin.Add(2 * time.Hour)
	for i := range most {
		at := time.Duration(i) * pace
		d.tick(at)
		d.send(at, transport, from, fmt.Sprint(100+i%accounts), types...)
		d.tick(at + 50*time.Millisecond)
		if len(d.banned) > 0 {
			return i + 1
		}
	}
	return 0
}

// TestAnyImportedPolicy plays the policies of many random jails: none bans a customer, and none bans an attacker later
// than the default does, but for scanners where a jail for scans alone says so: those within ten attempts.
func TestAnyImportedPolicy(t *testing.T) {
	db := database(t)
	seen := map[string]bool{}
	def := config.Default().Policy
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(1, seed))
		text := randomJails(r)
		im := read(t, fail2ban.Options{Jail: files(t, map[string]string{"jail.local": text}), DB: db})
		c, yaml := parsed(t, im)
		p := c.Policy
		key := fmt.Sprint(p.Threshold, p.HalfLife, p.Points, p.Misconfigured, p.Trust, p.Ban)
		if seen[key] {
			continue
		}
		seen[key] = true
		d := newDay(p)
		for _, who := range d.customers() {
			if at, banned := d.banned[netip.MustParseAddr(who)]; banned {
				t.Errorf("seed %d: the customer %s is banned after %v\n%s\n%s", seed, who, at.Sub(d.begin), text, yaml)
			}
		}
		for _, transport := range []event.Transport{event.UDP, event.TLS} {
			for _, pace := range []time.Duration{100 * time.Millisecond, time.Second, 3 * time.Second,
				7 * time.Second} {
				for _, row := range []struct {
					name     string
					accounts int
					types    []event.Type
				}{
					{"guesser", 1, []event.Type{event.ChallengeSent, event.ChallengeResponseFailed}},
					{"guesser of several accounts", 5,
						[]event.Type{event.ChallengeSent, event.ChallengeResponseFailed}},
					{"scanner", 1000, []event.Type{event.InvalidAccountID}},
				} {
					if row.name == "scanner" && p.Points.UnknownAccount < def.Points.UnknownAccount {
						if got := attack(p, transport, row.accounts, pace, row.types...); got == 0 || got > 12 {
							t.Errorf("seed %d: scanner over %v each %v is banned at attempt %d\n%s", seed, transport,
								pace, got, yaml)
						}
						continue
					}
					want, got := attack(def, transport, row.accounts, pace, row.types...),
						attack(p, transport, row.accounts, pace, row.types...)
					if want == 0 || got == 0 || got > want {
						t.Errorf("seed %d: %s over %v each %v is banned at attempt %d, by the default at %d\n%s\n%s",
							seed, row.name, transport, pace, got, want, text, yaml)
					}
				}
			}
		}
		if t.Failed() {
			return
		}
	}
	if len(seen) < 40 {
		t.Errorf("the jails make only %d different policies", len(seen))
	}
	t.Logf("%d different policies", len(seen))
}
