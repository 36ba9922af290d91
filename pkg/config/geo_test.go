package config_test

import (
	"bytes"
	"maps"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/pkg/config"
)

const files = "geo:\n  files: [/var/lib/GeoIP/GeoLite2-Country.mmdb]\n"

func TestMistakesOfGeo(t *testing.T) {
	countries := func(entries string) string { return base + files + "  multiply:\n    countries: " + entries + "\n" }
	systems := func(entries string) string { return base + files + "  multiply:\n    asns: " + entries + "\n" }
	demand(t, []mistake{
		{"a relative path", base + "geo: {files: [GeoLite2-Country.mmdb]}\n",
			`ringwall.yaml:5: geo.files[0]: not a file's whole path: "GeoLite2-Country.mmdb"; allowed: a path that begins with /`},
		{"a file that is packed", base + "geo: {files: [/x/GeoLite2-Country.tar.gz]}\n",
			`ringwall.yaml:5: geo.files[0]: not in MaxMind's format: "/x/GeoLite2-Country.tar.gz"; try: unpack it: the .mmdb file in it, or the one of that format`},
		{"one text", base + "geo: {files: /x/a.mmdb}\n",
			`ringwall.yaml:5: geo.files: text where a list belongs; try: [/x/a.mmdb]`},
		{"a file twice", base + "geo: {files: [/x/a.mmdb, /x/a.mmdb]}\n",
			`ringwall.yaml:5: geo.files[1]: given twice: "/x/a.mmdb"; try: remove one of them`},
		{"eleven files", base + "geo: {files: [/a, /b, /c, /d, /e, /f, /g, /h, /i, /j, /k]}\n",
			`ringwall.yaml:5: geo.files: 11 files; allowed: up to 10`},
		{"a multiplier of 0", countries("{RU: 0}"),
			`ringwall.yaml:8: geo.multiply.countries.RU: with 0, every attacker from there could go on for ever: "0"; allowed: 0.1 to 10; try: 0.1, or policy.allow for the addresses of your own people`},
		{"a multiplier below 0", countries("{RU: -1}"),
			`ringwall.yaml:8: geo.multiply.countries.RU: out of range: "-1"; allowed: 0.1 to 10`},
		{"a small multiplier", countries("{RU: 0.01}"),
			`ringwall.yaml:8: geo.multiply.countries.RU: out of range: "0.01"; allowed: 0.1 to 10`},
		{"a multiplier as a ban", countries("{RU: 1000}"),
			`ringwall.yaml:8: geo.multiply.countries.RU: out of range: "1000"; allowed: 0.1 to 10; try: 10; to keep a whole country out is the work of a firewall, see deploy/docs/geo.md`},
		{"a word", countries("{RU: high}"),
			`ringwall.yaml:8: geo.multiply.countries.RU: not a number: "high"; allowed: a number such as 10 or 2.5, without quotes`},
		{"no number", countries("{RU: }"),
			`ringwall.yaml:8: geo.multiply.countries.RU: no value; allowed: a number; try: remove the key for the default; a value that begins with # & * ! or is "null" belongs in double quotes`},
		{"a country's name", countries("{Russia: 2}"),
			`ringwall.yaml:8: geo.multiply.countries.Russia: not a country's code; allowed: two letters of ISO 3166-1, such as NL`},
		{"no country", countries("{QQ: 2}"),
			`ringwall.yaml:8: geo.multiply.countries.QQ: not a country's code; allowed: two letters of ISO 3166-1, such as NL`},
		{"the United Kingdom", countries("{UK: 2}"),
			`ringwall.yaml:8: geo.multiply.countries.UK: not a country's code; allowed: two letters of ISO 3166-1, such as NL; try: GB`},
		{"the European Union", countries("{EU: 2}"),
			`ringwall.yaml:8: geo.multiply.countries.EU: not a country's code; allowed: two letters of ISO 3166-1, such as NL; try: each country by itself`},
		{"a country twice", countries("{NL: 2, nl: 3}"),
			`ringwall.yaml:8: geo.multiply.countries.nl: given twice, as NL in another spelling too; try: remove one of them`},
		{"countries as a list", countries("[NL]"),
			`ringwall.yaml:8: geo.multiply.countries: a list where a section belongs; try: {NL: 2}`},
		{"no system", systems("{ASX: 2}"),
			`ringwall.yaml:8: geo.multiply.asns.ASX: not the number of an autonomous system; allowed: AS1 to AS4294967295; try: AS64496, as ringwall why shows it`},
		{"system 0", systems("{0: 2}"),
			`ringwall.yaml:8: geo.multiply.asns.0: not the number of an autonomous system; allowed: AS1 to AS4294967295; try: AS64496, as ringwall why shows it`},
		{"a system beyond 32 bits", systems("{AS4294967296: 2}"),
			`ringwall.yaml:8: geo.multiply.asns.AS4294967296: not the number of an autonomous system; allowed: AS1 to AS4294967295; try: AS64496, as ringwall why shows it`},
		{"a system twice", systems("{AS64496: 2, 64496: 3}"),
			`ringwall.yaml:8: geo.multiply.asns.64496: given twice, as AS64496 in another spelling too; try: remove one of them`},
		{"systems as a number", systems("64496"),
			`ringwall.yaml:8: geo.multiply.asns: a number where a section belongs; try: {AS64496: 2}`},
		{"an unknown key", base + "geo: {file: [/x/a.mmdb]}\n",
			`ringwall.yaml:5: geo.file: unknown key, did you mean files?; allowed: files, multiply`},
		{"countries in the wrong place", base + "geo: {countries: {NL: 2}}\n",
			`ringwall.yaml:5: geo.countries: unknown key here; allowed: files, multiply; try: geo.multiply.countries`},
		{"a word of others", base + "geoip: {files: []}\n",
			`ringwall.yaml:5: geoip: unknown key, did you mean geo?; allowed: asterisk, policy, geo, firewall, sensors, lists, export, crowdsec, fleet, metrics, control, state, log, notify`},
	})
}

func TestWarningsOfGeo(t *testing.T) {
	for _, row := range []struct{ name, text, want string }{
		{"no files", base + "geo: {multiply: {countries: {NL: 2}}}\n",
			`geo.multiply: without geo.files nobody's place is known, so nothing is multiplied; try: files: [/var/lib/GeoIP/GeoLite2-Country.mmdb]`},
		{"one event is enough", base + files + "  multiply: {countries: {NL: 2.5, SE: 2}, asns: {AS64496: 0.5}}\n",
			`geo.multiply.countries: with 2.5 for NL, a single event reaches the threshold, a customer's mistake too; try: less than 2.5`},
		{"one event of a system is enough", base + files + "  multiply: {asns: {AS64496: 10}}\n",
			`geo.multiply.asns: with 10 for AS64496, a single event reaches the threshold, a customer's mistake too; try: less than 2.5`},
		{"a file that is not there, which is for the daemon to see", base + files, ""},
		{"points that are enough by themselves are said once",
			base + files + "  multiply: {countries: {NL: 2}}\npolicy: {threshold: 4}\n", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, warnings, err := parse(row.text)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, w := range warnings {
				if strings.HasPrefix(w.Key, "geo") {
					got = append(got, w.String())
				}
			}
			if text := strings.Join(got, "\n"); row.want == "" && text != "" || !strings.HasSuffix(text, row.want) ||
				len(got) > 1 {
				t.Errorf("got %s\nwant %s", text, row.want)
			}
		})
	}
}

// TestGeoIsReadAsPeopleWriteIt has keys that YAML could take for something else: NO is no yes or no, 64496 no text.
func TestGeoIsReadAsPeopleWriteIt(t *testing.T) {
	c, _, err := parse(base + files + "  multiply:\n    countries: {NO: 2, no: 2, nl: 0.5, 'SE': 1}\n")
	if err == nil {
		t.Fatalf("NO and no: %+v", c.Geo)
	}
	c, _, err = parse(base + files + "  multiply:\n    countries: {NO: 2, nl: 0.5, 'SE': 1}\n    asns: {AS64496: 2, " +
		"as64497: 0.25, ASN64498: 1.5, 4200000000: 0.1}\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]float64{"NO": 2, "NL": 0.5, "SE": 1}; !maps.Equal(c.Geo.Multiply.Countries, want) {
		t.Errorf("%v", c.Geo.Multiply.Countries)
	}
	if want := map[config.ASN]float64{64496: 2, 64497: 0.25, 64498: 1.5,
		4200000000: 0.1}; !maps.Equal(c.Geo.Multiply.ASNs, want) {
		t.Errorf("%v", c.Geo.Multiply.ASNs)
	}
	var out bytes.Buffer
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\n  files:\n    - /var/lib/GeoIP/GeoLite2-Country.mmdb\n",
		"\n    countries:\n      NL: 0.5\n      \"NO\": 2\n      SE: 1\n",
		"\n    asns:\n      AS64496: 2\n      AS64497: 0.25\n      AS64498: 1.5\n      AS4200000000: 0.1\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	again, _, err := parse(out.String())
	if err != nil || !maps.Equal(again.Geo.Multiply.Countries, c.Geo.Multiply.Countries) ||
		!maps.Equal(again.Geo.Multiply.ASNs, c.Geo.Multiply.ASNs) {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestWhatPointsAreMultipliedBy(t *testing.T) {
	m := config.Multiply{Countries: map[string]float64{"NL": 2, "SE": 0.2, "DE": 6},
		ASNs: map[config.ASN]float64{64496: 3, 64497: 0.3}}
	for _, row := range []struct {
		country string
		asn     uint32
		want    float64
	}{
		{"", 0, 1}, {"US", 64511, 1}, {"NL", 0, 2}, {"", 64496, 3}, {"NL", 64496, 6}, {"NL", 64511, 2},
		{"US", 64497, 0.3},
		{"SE", 64497, 0.1}, {"DE", 64496, 10}, {"NL", 64497, 0.6},
	} {
		if got := m.Factor(row.country, row.asn); got < row.want-1e-9 || got > row.want+1e-9 {
			t.Errorf("%s, AS%d: %v, want %v", row.country, row.asn, got, row.want)
		}
	}
	if none := (config.Multiply{}); !none.IsZero() || none.Factor("NL", 1) != 1 || m.IsZero() {
		t.Error("nothing multiplies")
	}
}
