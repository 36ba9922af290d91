package engine_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

func TestOfAnOffenderRestoredTwiceTheWorseCounts(t *testing.T) {
	p := netip.MustParsePrefix(bad + "/32")
	few := ban.Offender{Prefix: p, Bans: 1, Last: start.Add(time.Hour)}
	many := ban.Offender{Prefix: p, Bans: 3, Last: start.Add(-time.Hour)}
	for _, list := range [][]ban.Offender{{few, many}, {many, few}} {
		n := newWorld(t)
		n.e.Restore(start, engine.State{Offenders: list}, []string{"pbx"})
		got, ok := n.e.Offender(p)
		if want := (ban.Offender{Prefix: p, Bans: 3, Last: few.Last}); !ok || got != want {
			t.Errorf("%+v, %v; want %+v", got, ok, want)
		}
	}
}

// Where there are more offenders than max_sources, those whose bans last are remembered.
func TestWhoIsBannedMakesNoRoomForOffendersOfBefore(t *testing.T) {
	p := netip.MustParsePrefix(bad + "/32")
	s := engine.State{
		Bans:      []ban.Ban{{Prefix: p, Source: p.Addr(), Since: start, Until: start.Add(time.Hour), Number: 2}},
		Offenders: []ban.Offender{{Prefix: p, Bans: 2, Last: start.Add(time.Hour)}},
	}
	for i := range 30 {
		a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		s.Offenders = append(s.Offenders, ban.Offender{Prefix: netip.PrefixFrom(a, 32), Bans: 5, Last: start})
	}
	n := newWorld(t, func(p *config.Policy) { p.MaxSources = 10 })
	n.e.Restore(start, s, []string{"pbx"})
	if got, ok := n.e.Offender(p); !ok || got.Bans != 2 {
		t.Errorf("%+v, %v; want two bans", got, ok)
	}
}
