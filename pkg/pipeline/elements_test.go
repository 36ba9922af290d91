package pipeline

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
)

// A ban that closes UDP and then SIP as a whole is two elements, the second of which is new: what is taken out of the
// kernel for the old ban must not take out what the new one needs.
func TestABanThatGetsWiderKeepsWhatItCloses(t *testing.T) {
	source := netip.MustParseAddr("192.0.2.7")
	for _, c := range []struct {
		name   string
		before event.Transport // in which it was first banned
		closed []string
	}{
		{"over TLS alone", event.NoTransport, []string{"sip over tcp", "udp"}},
		{"over UDP first", event.UDP, []string{"sip over tcp", "udp"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
			p := New(Config{Clock: NewClock(now), Engine: engine.NewRepeatable(config.Default().Policy)})
			inKernel := make(map[string]bool)
			serial := 0
			send := func(typ event.Type, account string, transport event.Transport, password bool) []ban.Decision {
				serial++
				now = now.Add(100 * time.Millisecond)
				decisions := p.engine.Handle(now, "pbx1", &event.Event{
					Type: typ, Service: event.PJSIP, Account: account, Session: fmt.Sprint("call ", serial),
					UsingPassword: password, Remote: event.Address{AddrPort: netip.AddrPortFrom(source, uint16(20_000+serial)),
						Transport: transport},
				}, nil)
				var changes []firewall.Change
				for i := range decisions {
					changes = append(changes, p.kernelChangesLocked(&decisions[i])...)
				}
				for _, el := range p.engine.TakeChanged() {
					changes = append(changes, p.firewallChangesLocked(el)...)
				}
				for _, c := range changes {
					if c.Kind == firewall.Ban {
						inKernel[c.Closes.String()] = !c.Remove
					}
				}
				return decisions
			}
			unban := func() {
				now = now.Add(10 * time.Minute)
				for _, d := range p.engine.Unban(now, netip.PrefixFrom(source, 32), 0) {
					for _, c := range p.kernelChangesLocked(&d) {
						inKernel[c.Closes.String()] = !c.Remove
					}
				}
			}
			scan := func(n int, transport event.Transport) {
				for range n {
					send(event.InvalidAccountID, fmt.Sprint(9000+serial), transport, false)
				}
			}
			send(event.SuccessfulAuth, "201", event.TLS, true)
			if c.before != event.NoTransport {
				scan(60, event.TLS) // its trust ends
				unban()
				scan(10, c.before)
				if b, ok := p.engine.ActiveBan(now, netip.PrefixFrom(source, 32)); !ok || b.Closes != ban.ClosesUDP {
					t.Fatalf("%v, %+v", ok, b)
				}
			}
			scan(60, event.TLS)
			if b, ok := p.engine.ActiveBan(now, netip.PrefixFrom(source, 32)); !ok || b.Closes != ban.ClosesSIP {
				t.Fatalf("%v, %+v", ok, b)
			}
			maps.DeleteFunc(inKernel, func(_ string, in bool) bool { return !in })
			if got := slices.Sorted(maps.Keys(inKernel)); !slices.Equal(got, c.closed) {
				t.Errorf("closed: %q, want %q", got, c.closed)
			}
			unban()
			maps.DeleteFunc(inKernel, func(_ string, in bool) bool { return !in })
			if len(inKernel) > 0 {
				t.Errorf("left after an unban: %v", inKernel)
			}
		})
	}
}
