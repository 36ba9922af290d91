package wording

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
)

func TestRestrictions(t *testing.T) {
	var udp, tcp ban.Flow
	for f, text := range map[*ban.Flow]string{&udp: "udp 198.51.100.10:5060", &tcp: "tcp [2001:db8::1]:4711"} {
		if err := f.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	office := netip.MustParsePrefix("198.51.100.10/32")
	for _, row := range []struct {
		r                         ban.Restriction
		who, kind, passes, prints string
	}{
		{ban.Restriction{Kind: ban.RestrictionCut, Flow: tcp, Until: noon}, "tcp [2001:db8::1]:4711", "cut", "nothing",
			"Cut: nothing from tcp [2001:db8::1]:4711 passes until 12:00; the others there go on."},
		{ban.Restriction{Kind: ban.RestrictionSlow, Flow: udp, Until: noon, Packets: 1, Every: 1},
			"udp 198.51.100.10:5060", "slow lane", "1 packet a second", "In the slow lane until 12:00: of udp " +
				"198.51.100.10:5060, 1 packet a second passes; the others there go on."},
		{ban.Restriction{Kind: ban.RestrictionSlow, Prefix: office, Until: noon, Packets: 4, Every: 600}, "198.51.100.10",
			"slow lane", "4 packets each 10m", "In the slow lane until 12:00: 4 packets each 10m pass over UDP, and as many " +
				"connections over TCP; a login ends it, and phones that have logged in go on."},
		{ban.Restriction{Kind: ban.RestrictionTrickle, Prefix: office, Until: noon, Packets: 4, Every: 60}, "198.51.100.10",
			"UDP without login", "4 packets a minute from each port", "Slow over UDP until 12:00: of whoever has not logged " +
				"in from there, 4 packets a minute from each port pass; phones that have go on."},
	} {
		if got := RestrictedWho(row.r); got != row.who {
			t.Errorf("%q, want %q", got, row.who)
		}
		if got := RestrictionKind(row.r); got != row.kind {
			t.Errorf("%q, want %q", got, row.kind)
		}
		if got := Passes(row.r); got != row.passes {
			t.Errorf("%q, want %q", got, row.passes)
		}
		if got := RestrictionSentence(row.r, clock); got != row.prints {
			t.Errorf("got  %s\nwant %s", got, row.prints)
		}
	}
}

func TestGoodFlows(t *testing.T) {
	var flows []ban.GoodFlow
	for i := range 7 {
		flows = append(flows, ban.GoodFlow{Flow: ban.Flow{UDP: true,
			Source: netip.MustParseAddrPort(fmt.Sprintf("198.51.100.10:%d", 20000+i))}})
	}
	for _, row := range []struct {
		listed, all int
		want        string
	}{
		{0, 0, ""},
		{1, 1, "Whoever logged in from there passes, whatever is banned but by hand: udp 198.51.100.10:20000."},
		{7, 40, "Whoever logged in from there passes, whatever is banned but by hand: udp 198.51.100.10:20000, " +
			"udp 198.51.100.10:20001, udp 198.51.100.10:20002, udp 198.51.100.10:20003, udp 198.51.100.10:20004 and 35 more."},
	} {
		ex := engine.Explanation{GoodFlows: flows[:row.listed], AllGoodFlows: row.all}
		if got := GoodFlowsSentence(ex); got != row.want {
			t.Errorf("got  %s\nwant %s", got, row.want)
		}
	}
}
