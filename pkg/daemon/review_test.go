package daemon

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
)

// observedBan is what the history tells of a ban that nobody made.
func observedBan(prefix string, at time.Time) ban.Decision {
	p := netip.MustParsePrefix(prefix)
	return ban.Decision{Time: at, Action: ban.ActionObserve, Reason: ban.ReasonUnknownAccount, Source: p.Addr(), Prefix: p,
		Duration: time.Hour}
}

func loginFrom(addr string, at time.Time) ban.Decision {
	a := netip.MustParseAddr(addr)
	return ban.Decision{Time: at, Action: ban.ActionTrust, Reason: ban.ReasonLogin, Source: a,
		Prefix: netip.PrefixFrom(a, a.BitLen())}
}

func TestADayOfObservingIsSummedUp(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	ago := func(h int) time.Time { return now.Add(-time.Duration(h) * time.Hour) }
	reason := func(d ban.Decision, r ban.Reason) ban.Decision { d.Reason = r; return d }
	cut := observedBan("192.0.2.9/32", ago(30))
	cut.Flow = ban.Flow{Source: netip.MustParseAddrPort("192.0.2.9:5060")}
	for name, row := range map[string]struct {
		decisions []ban.Decision
		runs      int // hours
		want      []string
	}{
		"nobody logged in": {[]ban.Decision{observedBan("203.0.113.1/32", ago(25)), observedBan("203.0.113.1/32", ago(2)),
			observedBan("2001:db8::/64", ago(1)), loginFrom("198.51.100.1", ago(3))}, 25,
			[]string{"in the last 1d 1h 2 sources would have been banned, and none of them ever logged in", "mode: enforce",
				"/etc/ringwall/ringwall.yaml", "systemctl reload ringwall"}},
		"a customer, before and after": {[]ban.Decision{loginFrom("203.0.113.1", ago(30)), observedBan("203.0.113.1/32", ago(25)),
			observedBan("203.0.113.2/32", ago(2)), observedBan("2001:db8::/64", ago(1)), loginFrom("2001:db8::7", ago(1))}, 25,
			[]string{"3 sources would", "2 of them logged in: 203.0.113.1", "2001:db8::/64", "ringwall why 203.0.113.1"}},
		"in a network": {[]ban.Decision{observedBan("203.0.113.0/24", ago(25)), loginFrom("203.0.113.77", ago(1))}, 25,
			[]string{"1 source would", "one of them logged in: 203.0.113.0/24"}},
		"not a day yet":        {[]ban.Decision{observedBan("203.0.113.1/32", ago(23))}, 23, nil},
		"a flood took the day": {[]ban.Decision{observedBan("203.0.113.1/32", ago(1))}, 24, []string{"in the last 1h 1 source"}},
		"a restart meanwhile":  {[]ban.Decision{observedBan("203.0.113.1/32", ago(24))}, 1, []string{"1 source"}},
		"said already": {[]ban.Decision{observedBan("203.0.113.1/32", ago(48)), {Time: ago(24), Action: ban.ActionReview}}, 50,
			nil},
		"nobody attacked": {[]ban.Decision{loginFrom("203.0.113.1", ago(30))}, 50, nil},
		"who would be let in all the same": {[]ban.Decision{reason(observedBan("203.0.113.1/32", ago(30)), ban.ReasonAllowed),
			reason(observedBan("203.0.113.2/32", ago(30)), ban.ReasonStorm), cut}, 50, nil},
	} {
		t.Run(name, func(t *testing.T) {
			o := newObservations(now, ago(row.runs))
			for i := range row.decisions {
				o.addDecision(&row.decisions[i])
			}
			if o.isDue() != (row.want != nil) {
				t.Fatalf("it is due: %v", o.isDue())
			}
			if row.want == nil {
				return
			}
			d := o.sumUp("/etc/ringwall/ringwall.yaml")
			if d.Action != ban.ActionReview || d.Reason != ban.ReasonObserved || !d.Time.Equal(now) {
				t.Errorf("%+v", d)
			}
			for _, want := range row.want {
				if !strings.Contains(d.Detail, want) {
					t.Errorf("%q is not in %q", want, d.Detail)
				}
			}
			if strings.Contains(d.Detail, "enforce") && strings.Contains(d.Detail, "of them logged in") {
				t.Errorf("it advises to ban customers: %s", d.Detail)
			}
		})
	}
}

func TestTheDaemonSaysOnceWhatItHasObserved(t *testing.T) {
	for _, mode := range []config.Mode{config.Observe, config.Enforce} {
		r := newRig(t, func(c *config.Config) { c.Policy.Mode = mode })
		now := r.d.pipeline.Clock().Now()
		r.d.pipeline.AnnounceReports([]ban.Decision{observedBan("203.0.113.1/32", now.Add(-25*time.Hour))})
		found, err := review{r.d}.look(t.Context())
		if err != nil || len(found) != 1 && mode == config.Observe || len(found) != 0 && mode == config.Enforce {
			t.Fatalf("%s: %+v, %v", mode, found, err)
		}
		r.d.pipeline.AnnounceReports(found)
		if found, err := (review{r.d}).look(t.Context()); err != nil || len(found) != 0 {
			t.Errorf("%s, said again: %+v, %v", mode, found, err)
		}
	}
}
