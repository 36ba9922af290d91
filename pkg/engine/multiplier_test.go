package engine_test

import (
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

// elsewhere is where the attacker of these tests is registered; the office is in a country of which nothing is said.
func elsewhere(a netip.Addr) ban.Place {
	switch a.String() {
	case bad, "2001:db8:bad::1":
		return ban.Place{Country: "NL", ASN: 64496, ASName: "Example"}
	case office:
		return ban.Place{Country: "DE", ASN: 64497, ASName: "Office"}
	}
	return ban.Place{}
}

func byCountry(factor float64) config.Multiply {
	return config.Multiply{Countries: map[string]float64{"NL": factor}}
}

// placed is a world with multipliers.
func placed(t *testing.T, m config.Multiply, change ...func(*config.Policy)) *world {
	w := newWorld(t, change...)
	w.e.SetMultipliers(m, elsewhere)
	return w
}

func score(w *world, addr string) float64 {
	return w.e.Why(w.now, netip.MustParseAddr(addr)).Score
}

// TestPointsByPlace is the arithmetic: of one unknown account, worth 4 points.
func TestPointsByPlace(t *testing.T) {
	for _, tt := range []struct {
		name string
		m    config.Multiply
		addr string
		want float64
		text string
	}{
		{"no multiplier", config.Multiply{}, bad, 4, ""},
		{"a country", byCountry(2), bad, 8, "4 × 2 (country NL)"},
		{"a country that is spared", byCountry(0.5), bad, 2, "4 × 0.5 (country NL)"},
		{"another country", byCountry(2), office, 4, ""},
		{"no country", byCountry(2), "192.0.2.200", 4, ""},
		{"a system", config.Multiply{ASNs: map[config.ASN]float64{64496: 1.5}}, bad, 6, "4 × 1.5 (AS64496)"},
		{"IPv6", byCountry(2), "2001:db8:bad::1", 8, "4 × 2 (country NL)"},
		{"IPv4 in IPv6", byCountry(2), "::ffff:" + bad, 8, "4 × 2 (country NL)"},
		{"both", config.Multiply{Countries: map[string]float64{"NL": 2}, ASNs: map[config.ASN]float64{64496: 0.75}},
			bad, 6,
			"4 × 1.5 (country NL, AS64496)"},
		{"both, at the bound", config.Multiply{Countries: map[string]float64{"NL": 9},
			ASNs: map[config.ASN]float64{64496: 9}}, bad, 40,
			"4 × 10 (country NL, AS64496)"},
		{"both, that cancel out", config.Multiply{Countries: map[string]float64{"NL": 2},
			ASNs: map[config.ASN]float64{64496: 0.5}}, bad, 4, ""},
		{"more digits than are kept", byCountry(1.23456), bad, 4.94, "4 × 1.235 (country NL)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := placed(t, tt.m).scan(tt.addr, "100")
			x := w.e.Why(w.now, netip.MustParseAddr(tt.addr))
			if len(x.Evidence) != 1 || x.Evidence[0].Points != tt.want || engine.PointsArithmetic(&x.Evidence[0]) != tt.text {
				t.Errorf("%+v, %q", x.Evidence, engine.PointsArithmetic(&x.Evidence[0]))
			}
			if lines := strings.Join(x.Lines, "\n"); strings.Contains(lines, "geo.multiply") != (tt.text != "") {
				t.Error(lines)
			}
		})
	}
}

func TestAMultiplierMakesABanSoonerOrLater(t *testing.T) {
	scans(placed(t, byCountry(2)), 1, bad).wantFree(bad)
	scans(placed(t, byCountry(2)), 2, bad).wantBanned(bad)
	scans(placed(t, byCountry(0.5)), 4, bad).wantFree(bad)
	scans(placed(t, byCountry(0.5)), 6, bad).wantBanned(bad)
}

// TestACustomerInABadCountryStaysIn logs in from the country with the highest multiplier there is, and has a phone that
// fails; and it comes back when its trust has ended.
func TestACustomerInABadCountryStaysIn(t *testing.T) {
	worst := config.Multiply{Countries: map[string]float64{"DE": 10, "NL": 10}, ASNs: map[config.ASN]float64{64497: 10}}
	w := placed(t, worst)
	w.login(office, "201").rounds(30, 30*time.Second, office, "203", tls)
	for range 12 {
		w.wrong(office, "201", tls)
	}
	plain := newWorld(t)
	plain.login(office, "201").rounds(30, 30*time.Second, office, "203", tls)
	for range 12 {
		plain.wrong(office, "201", tls)
	}
	if got, want := score(w, office), score(plain, office); got != want {
		t.Errorf("a score of %v, without multipliers %v", got, want)
	}
	w.wantNever(office)
	w.pass(30*time.Hour).scan(office, "mistyped").wantNever(office)
	if got := score(w, office); got > 4 {
		t.Errorf("a customer of yesterday has %v points", got)
	}
	scans(w, 1, bad).wantBanned(bad)
}

// TestALostTrustIsNoShield has a login and then a search: what follows is judged by the place again.
func TestALostTrustIsNoShield(t *testing.T) {
	w := placed(t, byCountry(2), func(p *config.Policy) { p.Trust.Accounts = 1 })
	w.login(bad, "201")
	for i := range 4 {
		w.wrong(bad, extension(i), tls)
	}
	x := w.scan(bad, "x", tls).e.Why(w.now, netip.MustParseAddr(bad))
	last := x.Evidence[len(x.Evidence)-1]
	if x.Trust != nil || last.Multiplier != 2 {
		t.Errorf("%+v", last)
	}
}

// TestWhoIsNeverBannedStaysSo gives the place of everybody the highest multiplier.
func TestWhoIsNeverBannedStaysSo(t *testing.T) {
	w := placed(t, byCountry(10))
	w.allow(bad + "/32")
	scans(w, 20, bad).wantNever(bad)
	w = placed(t, byCountry(10))
	w.protect(bad + "/32")
	scans(w, 20, bad).wantNever(bad)
	w = placed(t, byCountry(10))
	w.rounds(10, time.Minute, bad, "201", tls).wantNever(bad) // a phone with an old password
}

// TestAGuessOfATargetedAccountIsEnough is the rule that a small multiplier must not undo.
func TestAGuessOfATargetedAccountIsEnough(t *testing.T) {
	for _, m := range []config.Multiply{{}, byCountry(0.1)} {
		w := placed(t, m, func(p *config.Policy) { p.Targeted.Sources = 3 })
		for i := range 3 {
			w.crack(6, []string{"192.0.2.201", "192.0.2.202", "192.0.2.203"}[i], "201", tcp)
		}
		w.crack(1, bad, "201", tcp).wantBanned(bad)
	}
}

// TestAnotherFileJudgesNothingAgain changes what is known of the places in the middle of an attack.
func TestAnotherFileJudgesNothingAgain(t *testing.T) {
	w := placed(t, byCountry(2)).scan(bad, "100")
	before := w.e.Why(w.now, netip.MustParseAddr(bad))
	w.e.SetMultipliers(byCountry(0.5), func(netip.Addr) ban.Place { return ban.Place{Country: "NL"} })
	after := w.e.Why(w.now, netip.MustParseAddr(bad))
	if !reflect.DeepEqual(before, after) {
		t.Errorf("%+v\n%+v", before, after)
	}
	w.scan(bad, "101")
	if x := w.e.Why(w.now, netip.MustParseAddr(bad)); x.Evidence[0].Points != 8 || x.Evidence[1].Points != 2 {
		t.Errorf("%+v", x.Evidence)
	}
	w.e.SetMultipliers(config.Multiply{}, elsewhere)
	w.scan(bad, "102").wantBanned(bad)
}

// TestPlacesAreAskedForWithPointsAlone counts the questions.
func TestPlacesAreAskedForWithPointsAlone(t *testing.T) {
	asked := 0
	where := func(a netip.Addr) ban.Place { asked++; return elsewhere(a) }
	play := func(w *world) {
		w.login(office, "201").rounds(3, time.Minute, office, "201", tls).wrong(bad, "201", tls)
		w.allow("192.0.2.77/32").scan("192.0.2.77", "x")
	}
	w := newWorld(t)
	w.e.SetMultipliers(config.Multiply{}, where)
	play(w)
	scans(w, 5, bad)
	if asked != 0 {
		t.Errorf("asked %d times without a multiplier", asked)
	}
	w = newWorld(t)
	w.e.SetMultipliers(byCountry(2), where)
	if play(w); asked != 0 {
		t.Errorf("asked %d times where there are no points", asked)
	}
	if w.scan(bad, "x"); asked != 1 {
		t.Errorf("asked %d times about one event", asked)
	}
}

// TestWithoutMultipliersAllIsAsBefore plays the same day in three worlds.
func TestWithoutMultipliersAllIsAsBefore(t *testing.T) {
	worlds := []*world{newWorld(t), newWorld(t), newWorld(t)}
	worlds[1].e.SetMultipliers(config.Multiply{}, elsewhere)
	worlds[2].e.SetMultipliers(config.Multiply{Countries: map[string]float64{"NL": 1}}, elsewhere)
	for _, w := range worlds {
		for i := range 300 {
			w.round(bad, extension(i%3)).scan(bad, "x").round(office, "201").login(office,
				"202").pass(time.Duration(i) * time.Second)
		}
	}
	for _, w := range worlds[1:] {
		if !slices.EqualFunc(w.log, worlds[0].log, func(a, b ban.Decision) bool { return a == b }) {
			t.Errorf("%v\n%v", w.actions(), worlds[0].actions())
		}
		if a, b := w.e.Export(w.now), worlds[0].e.Export(worlds[0].now); !reflect.DeepEqual(a, b) {
			t.Errorf("%+v\n%+v", a, b)
		}
	}
}

func TestTheMultiplierSurvivesARestart(t *testing.T) {
	w := scans(placed(t, config.Multiply{Countries: map[string]float64{"NL": 2},
		ASNs: map[config.ASN]float64{64496: 0.75}}), 3, bad)
	w.wantBanned(bad)
	again := newWorld(t)
	again.now = w.now
	again.e.Restore(w.now, w.e.Export(w.now), []string{"pbx"})
	x := again.e.Why(w.now, netip.MustParseAddr(bad))
	if len(x.Evidence) == 0 || engine.PointsArithmetic(&x.Evidence[0]) != "4 × 1.5 (country NL, AS64496)" {
		t.Errorf("%+v", x)
	}
}

// TestWhySaysWhatThePlaceAdded pins what a person reads.
func TestWhySaysWhatThePlaceAdded(t *testing.T) {
	w := placed(t, byCountry(2)).scan(bad, "100").wrong(bad, "201", tls)
	w.e.SetMultipliers(config.Multiply{ASNs: map[config.ASN]float64{64496: 3}}, elsewhere)
	w.scan(bad, "101").pass(10 * time.Minute)
	x := w.e.Why(w.now, netip.MustParseAddr(bad))
	want, err := os.ReadFile("testdata/why/banned-by-its-place.txt")
	if got := strings.Join(x.Lines, "\n") + "\n"; err != nil || got != string(want) {
		t.Errorf("got\n%s\nwant\n%s%v", got, want, err)
	}
}

// TestTheDocsMultiplyAsTheEngineDoes plays the example of geo.md.
func TestTheDocsMultiplyAsTheEngineDoes(t *testing.T) {
	page, err := os.ReadFile("../../deploy/docs/geo.md")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, row := range []struct {
		name string
		m    config.Multiply
	}{{"with   ", config.Multiply{Countries: map[string]float64{"SE": 2}}}, {"without", config.Multiply{}}} {
		w := newWorld(t)
		w.e.SetMultipliers(row.m, func(netip.Addr) ban.Place { return ban.Place{Country: "SE"} })
		for i := 0; !w.banned(bad); i++ {
			at := w.now
			w.scan(bad, fmt.Sprint(100+i))
			evidence := w.e.Why(w.now, netip.MustParseAddr(bad)).Evidence
			last := evidence[len(evidence)-1]
			fmt.Fprintf(&b, "%s  %s  %s %s: %.1f points, score %.1f", row.name, at.Format(time.TimeOnly), last.Event,
				last.Account, last.Points, last.Score)
			if text := engine.PointsArithmetic(&last); text != "" {
				b.WriteString(": " + text)
			}
			b.WriteByte('\n')
			if w.banned(bad) {
				fmt.Fprintf(&b, "%s  %s  → ban\n", row.name, at.Format(time.TimeOnly))
			}
			w.pass(2 * time.Minute)
		}
	}
	_, rest, _ := strings.Cut(string(page), "<!-- example -->\n```\n")
	if got, _, ok := strings.Cut(rest, "```\n<!-- end -->\n"); !ok || got != b.String() {
		t.Errorf("geo.md says\n%s\nand the engine\n%s", got, b.String())
	}
}

// BenchmarkPlaces measures what multipliers cost an event of a scanner: nothing without them, and with them what the
// answer to the question costs, which is that of the geo files.
func BenchmarkPlaces(b *testing.B) {
	where := func(netip.Addr) ban.Place { return ban.Place{Country: "NL", ASN: 64496} }
	for _, row := range []struct {
		name string
		m    config.Multiply
	}{
		{"without", config.Multiply{}}, {"with",
			config.Multiply{Countries: map[string]float64{"NL": 2}, ASNs: map[config.ASN]float64{64496: 0.75}}},
	} {
		b.Run(row.name, func(b *testing.B) {
			e := engine.New(config.Default().Policy)
			e.SetMultipliers(row.m, where)
			sessions := manySessions()
			now, out := start, []ban.Decision(nil)
			ev := event.Event{Type: event.InvalidAccountID, Service: event.PJSIP, Account: "1000"}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				ev.Time, ev.Session = now, sessions[i%len(sessions)]
				ev.Remote = event.Address{AddrPort: netip.AddrPortFrom(nth(i%100_000), 5060),
					Transport: event.UDP}
				out = e.Handle(now, "pbx", &ev, out[:0])
				now = now.Add(50 * time.Microsecond)
			}
		})
	}
}
