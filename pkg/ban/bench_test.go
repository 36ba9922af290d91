package ban_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
)

func BenchmarkDecisionLine(b *testing.B) {
	addr := netip.MustParseAddr("203.0.113.5")
	d := ban.Decision{
		Time: time.Date(2026, 1, 2, 3, 4, 5, 60_000_000, time.UTC), Action: ban.ActionBan, Source: addr,
		Prefix: netip.PrefixFrom(addr, 32), Reason: ban.ReasonUnknownAccount, Points: 4, Score: 12, Account: "100",
		Service: event.PJSIP, Transport: event.UDP, Duration: time.Hour, PBX: "pbx1",
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.MarshalJSON(); err != nil {
			b.Fatal(err)
		}
	}
}
