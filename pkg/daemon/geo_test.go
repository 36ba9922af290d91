package daemon

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/geo/geotest"
)

// hostileName is what an operator could call its network.
const hostileName = "Example \x1b[2J\u202e"

func attackersAt(country string, asn uint32) geotest.Networks {
	return geotest.Networks{
		"203.0.113.0/24":  geotest.Both(country, asn, hostileName),
		"198.51.100.0/24": geotest.Both("DE", 64500, "Customers"),
	}
}

// aged makes a file look older than this minute, so that it is not taken for one that is still being written.
func aged(t *testing.T, path string) {
	t.Helper()
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, past, past); err != nil {
		t.Fatal(err)
	}
}

// TestPlacesFromTheConfigurationToWhy has an attacker from a country with a multiplier and follows its ban to everybody
// who is told, over a replaced file and a restart.
func TestPlacesFromTheConfigurationToWhy(t *testing.T) {
	path := geotest.Write(t, "places.mmdb", attackersAt("NL", 64496))
	aged(t, path)
	url, messages := hooks(t)
	r := newRig(t, func(c *config.Config) {
		c.Geo = config.Geo{Files: []string{path},
			Multiply: config.Multiply{Countries: map[string]float64{"NL": 2, "DE": 10}}}
		c.Notify = []config.Notify{hookTo(url)}
	})
	r.login("IPV4/UDP/198.51.100.10/5060", "201")
	r.await(ban.ActionTrust, "198.51.100.10/32")
	r.scan("IPV4/UDP/198.51.100.10/5060") // 40 points, were it not a customer
	r.scan(attacker)
	r.scan(attacker)
	if d := r.await(ban.ActionBan, "203.0.113.66/32"); d.Points != 8 || d.Score < 15 {
		t.Errorf("%+v", d)
	}
	if m := awaitMessage(t, messages); m.Country != "NL" || m.ASN != 64496 || m.ASName != `Example \x1b[2J\u202e` {
		t.Errorf("%+v", m)
	}

	want := ban.Place{Country: "NL", ASN: 64496, ASName: hostileName}
	bad := netip.MustParseAddr("203.0.113.66")
	why := func() engine.Explanation {
		t.Helper()
		x, err := r.client.Why(t.Context(), bad)
		if err != nil || x.Ban == nil || len(x.Evidence) == 0 {
			t.Fatalf("%+v, %v", x, err)
		}
		return x
	}
	x := why()
	if x.Place != want || x.Ban.Place != want || engine.PointsArithmetic(&x.Evidence[0]) != "4 × 2 (country NL)" ||
		!strings.Contains(strings.Join(x.Lines, "\n"),
			"16.0 points of these are 8.0 points × 2 (country NL), by geo.multiply") {
		t.Errorf("%+v", x)
	}
	text, err := json.Marshal(x)
	if err != nil || !strings.Contains(string(text), `"country":"NL","asn":64496,"as_name":"Example \u001b[2J`) {
		t.Errorf("%s, %v", text, err)
	}
	bans, err := r.client.Bans(t.Context(), api.BanFilter{})
	if err != nil || len(bans) != 1 || bans[0].Place != want {
		t.Errorf("%+v, %v", bans, err)
	}
	trusted, err := r.client.Trusted(t.Context())
	if err != nil || len(trusted) != 1 || trusted[0].Country != "DE" || trusted[0].Score > 4 {
		t.Errorf("%+v, %v", trusted, err)
	}
	history, err := r.client.History(t.Context(), time.Time{}, bad)
	if err != nil || len(history) != 1 || history[0].Place != want {
		t.Errorf("%+v, %v", history, err)
	}
	st, err := r.client.Status(t.Context())
	if err != nil || len(st.Geo) != 1 || st.Geo[0].Path != path || !st.Geo[0].Country || st.Geo[0].Built == nil ||
		st.Geo[0].Error != "" || len(st.Warnings) != 0 {
		t.Errorf("%+v, %v, %v", st.Geo, st.Warnings, err)
	}

	geotest.Put(t, path, geotest.Make(t, attackersAt("SE", 64511)))
	aged(t, path)
	r.d.geoFiles.Refresh()
	if x = why(); x.Country != "SE" || x.ASN != 64511 || engine.PointsArithmetic(&x.Evidence[0]) != "4 × 2 (country NL)" {
		t.Errorf("another file: %+v", x)
	}
	r.stop()
	r.start()
	if x = why(); x.Country != "SE" || engine.PointsArithmetic(&x.Evidence[0]) != "4 × 2 (country NL)" {
		t.Errorf("a restart: %+v", x)
	}
}

// TestWithoutItsGeoFileTheDaemonBans is about all that can be wrong with the files: it costs their answers and no more.
func TestWithoutItsGeoFileTheDaemonBans(t *testing.T) {
	dir := t.TempDir()
	missing, old := filepath.Join(dir, "missing.mmdb"), filepath.Join(dir, "old.mmdb")
	geotest.Put(t, old, geotest.Make(t, geotest.Networks{"203.0.113.0/24": geotest.Country("NL")},
		geotest.Built(time.Now().Add(-100*24*time.Hour))))
	r := newRig(t, func(c *config.Config) {
		c.Geo = config.Geo{Files: []string{missing},
			Multiply: config.Multiply{Countries: map[string]float64{"NL": 0.1}}}
	})
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32")
	warned := func(want ...string) {
		t.Helper()
		st, err := r.client.Status(t.Context())
		if err != nil || len(st.Warnings) != len(want) {
			t.Fatalf("%+v, %v", st.Warnings, err)
		}
		for i, w := range st.Warnings {
			if w.Text != want[i] || w.Try == "" {
				t.Errorf("%+v, want %s", w, want[i])
			}
		}
	}
	warned("the geo file " + missing + " does not exist")
	x, err := r.client.Why(t.Context(), netip.MustParseAddr("203.0.113.66"))
	if err != nil || x.Place != (ban.Place{}) || x.Evidence[0].Multiplier != 0 {
		t.Errorf("%+v, %v", x, err)
	}

	r.d.geoFiles.Configure([]string{old})
	warned("the geo file " + old + " is 100 days old: addresses move")
	if err := os.WriteFile(old, []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	aged(t, old)
	r.d.geoFiles.Refresh()
	st, err := r.client.Status(t.Context())
	if err != nil || len(st.Warnings) != 2 || !strings.Contains(st.Warnings[1].Text,
		"the one that was read before is still used") ||
		st.Geo[0].Error == "" || !st.Geo[0].Country {
		t.Errorf("%+v, %+v, %v", st.Warnings, st.Geo, err)
	}
}

// TestReloadChangesPlaces begins without any, as most people do.
func TestReloadChangesPlaces(t *testing.T) {
	path := geotest.Write(t, "places.mmdb", attackersAt("NL", 64496))
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "ringwall.yaml")
	reload := func(more string) {
		t.Helper()
		text := "asterisk: [{name: pbx1, address: \"" + r.address + "\", username: ringwall, secret: s3cret}]\n" +
			"metrics: {listen: \"127.0.0.1:0\"}\ncontrol: {socket: " + r.cfg.Control.Socket + "}\nstate: {path: " +
			r.cfg.State.Path + "}\n" + more
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r.d.config.path = file
		r.d.Reload(t.Context())
		if r.d.config.err != nil {
			t.Fatal(r.d.config.err)
		}
	}
	place := func() ban.Place { return r.d.Backend().Place(netip.MustParseAddr("203.0.113.66")) }
	if place() != (ban.Place{}) {
		t.Error("a place out of nothing")
	}
	reload("geo: {files: [" + path + "], multiply: {asns: {64496: 3}}}\n")
	if place().ASN != 64496 {
		t.Errorf("%+v", place())
	}
	r.scan(attacker)
	if d := r.await(ban.ActionBan, "203.0.113.66/32"); d.Points != 12 {
		t.Errorf("%+v", d)
	}
	reload("")
	if place() != (ban.Place{}) {
		t.Errorf("%+v", place())
	}
}
