package engine_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

// nth is the n-th IPv4 address of 32.0.0.0 and upward: far from everything that is exempt.
func nth(n int) netip.Addr {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 32<<24+uint32(n))
	return netip.AddrFrom4(a)
}

// BenchmarkHandle measures the judgement of one event, by kind of traffic and by how many sources are tracked. Every
// event has the shape that Asterisk gives it, and a Call-ID of its own.
func BenchmarkHandle(b *testing.B) {
	mixes := []struct {
		name   string
		events []event.Event
	}{
		{"scan", []event.Event{ // one request for an account that does not exist
			{Type: event.InvalidAccountID, Account: "1000"}, {Type: event.ChallengeSent, Account: "<unknown>"},
		}},
		{"guess", []event.Event{
			{Type: event.ChallengeSent, Account: "201"},
			{Type: event.ChallengeResponseFailed, Account: "201",
				Challenge: "1763812800/0123456789abcdef0123456789abcdef"},
		}},
		{"login", []event.Event{
			{Type: event.ChallengeSent, Account: "201"},
			{Type: event.SuccessfulAuth, Account: "201", UsingPassword: true},
		}},
		{"flood", []event.Event{{Type: event.InvalidAccountID, Account: "1000"}}},
	}
	sessions := manySessions()
	for _, sources := range []int{1_000, 100_000, 1_000_000} {
		for _, mix := range mixes {
			b.Run(fmt.Sprintf("%s/%d", mix.name, sources), func(b *testing.B) {
				p := config.Default().Policy
				e := engine.New(p)
				e.Allow(start, netip.MustParsePrefix("127.0.0.0/8"), engine.OriginHost, "")
				e.Allow(start, netip.MustParsePrefix("192.0.2.1/32"), engine.OriginHost, "")
				e.Allow(start, netip.MustParsePrefix("192.0.2.254/32"), engine.OriginHost, "")
				now, out := start, []ban.Decision(nil)
				var ev event.Event // one for all, as in the daemon
				event := func(i, n int) {
					ev = mix.events[i%len(mix.events)]
					ev.Service, ev.Time = event.PJSIP, now
					ev.Session = sessions[(i/len(mix.events))%len(sessions)]
					ev.Response = ev.Session
					ev.Remote = event.Address{AddrPort: netip.AddrPortFrom(nth(n), 5060), Transport: event.UDP}
					out = e.Handle(now, "pbx", &ev, out[:0])
					now = now.Add(50 * time.Microsecond)
					if i%4096 == 0 {
						for more := true; more; {
							out, more = e.Tick(now, out[:0])
						}
					}
				}
				for n := range sources {
					for i := range mix.events {
						event(n*len(mix.events)+i, n)
					}
				}
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					// Neighbours in the stream are seldom neighbours in memory.
					event(i, (i/len(mix.events))*7919%sources)
				}
			})
		}
	}
}

func manySessions() []string {
	s := make([]string, 1<<20)
	for i := range s {
		s[i] = "0a1b2c3d-4e5f-6071-8293-" + strconv.Itoa(1_000_000+i) + "@198.51.100.7"
	}
	return s
}

// BenchmarkSources measures an event of a known scanner that was quiet for half an hour, by how many sources there are.
func BenchmarkSources(b *testing.B) {
	sessions := manySessions()
	for _, sources := range []int{1_000, 10_000, 100_000, 1_000_000} {
		b.Run(strconv.Itoa(sources), func(b *testing.B) {
			e := engine.New(config.Default().Policy)
			for _, p := range []string{"127.0.0.0/8", "192.0.2.1/32", "192.0.2.254/32"} {
				e.Allow(start, netip.MustParsePrefix(p), engine.OriginHost, "")
			}
			now, calls, out := start, 0, []ban.Decision(nil)
			round := func() {
				for n := range sources {
					ev := event.Event{Type: event.InvalidAccountID, Service: event.PJSIP, Account: "1000",
						Time:    now,
						Session: sessions[calls%len(sessions)],
						Remote: event.Address{AddrPort: netip.AddrPortFrom(nth(n*7919%sources), 5060),
							Transport: event.UDP}}
					out = e.Handle(now, "pbx", &ev, out[:0])
					calls++
					now = now.Add(25 * time.Microsecond)
				}
				now = now.Add(30 * time.Minute)
				out, _ = e.Tick(now, out[:0])
			}
			round()
			b.ReportAllocs()
			for b.ResetTimer(); b.Loop(); {
				round()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*sources), "ns/event")
		})
	}
}
