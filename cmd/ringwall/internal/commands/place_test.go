package commands_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/control"
	"github.com/ringwall/ringwall/pkg/engine"
)

// withPlaces has geo files, in which an operator calls its network something that would repaint the terminal.
func withPlaces(b *backend) {
	b.places = map[netip.Addr]engine.Place{
		netip.MustParseAddr("203.0.113.5"):      {Country: "NL", ASN: 64496, ASName: hostile},
		netip.MustParseAddr("2001:db8:bad::"):   {Country: "US"},
		netip.MustParseAddr("192.0.2.20"):       {ASN: 64500, ASName: "A provider with a name that is longer than any column can be"},
		netip.MustParseAddr("2001:db8:bad::1"):  {Country: "US"},
		netip.MustParseAddr("2001:db8:bad::77"): {Country: "US"},
	}
	ex := explanations()["banned"]
	ex.Place = b.places[netip.MustParseAddr("203.0.113.5")]
	ex.Evidence[0].Points, ex.Evidence[0].Multiplier, ex.Evidence[0].Country, ex.Evidence[0].ASN = 8, 2, "NL", 64496
	b.explain = ex
	b.status = func(st *control.Status) {
		st.Geo = []control.GeoFile{
			{Path: "/var/lib/GeoIP/GeoLite2-Country.mmdb", Type: hostile, Built: at(ago(8 * 24 * time.Hour)), Country: true, Bytes: 9 << 20},
			{Path: "/var/lib/GeoIP/GeoLite2-ASN.mmdb", Error: "does not exist", Try: "geoipupdate"},
			{Path: "/var/lib/GeoIP/GeoLite2-City.mmdb", Built: at(ago(25 * time.Hour)), Country: true, ASN: true},
		}
	}
}

func TestPlacesForPeople(t *testing.T) {
	for name, row := range map[string]struct {
		args    []string
		columns int
	}{
		"bans-places":        {[]string{"list"}, 0},
		"bans-places-narrow": {[]string{"list"}, 100},
		"bans-places.json":   {[]string{"list", "--json"}, 0},
		"trust-places":       {[]string{"list", "trust"}, 80},
		"history-places":     {[]string{"history"}, 0},
		"why-places":         {[]string{"why", "203.0.113.5"}, 0},
		"why-places.json":    {[]string{"why", "203.0.113.5", "--json"}, 0},
		"status-places":      {[]string{"status"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.app.Columns = row.columns
			withPlaces(w.backend)
			if code := w.do(t, row.args...); code != 0 || w.err.String() != "" {
				t.Fatalf("exit %d: %s", code, w.err)
			}
			golden(t, name, w.out.String())
			if strings.ContainsAny(w.out.String(), "\x1b\u202e\u009b") {
				t.Errorf("a name reaches the terminal as it is: %q", w.out.String())
			}
		})
	}
}
