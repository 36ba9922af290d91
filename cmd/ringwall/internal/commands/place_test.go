package commands_test

import (
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/geo/geotest"
)

// withPlaces has geo files, in which an operator calls its network something that would repaint the terminal.
func withPlaces(b *backend) {
	b.places = map[netip.Addr]ban.Place{
		netip.MustParseAddr("203.0.113.5"):    {Country: "NL", ASN: 64496, ASName: hostile},
		netip.MustParseAddr("2001:db8:bad::"): {Country: "US"},
		netip.MustParseAddr("192.0.2.20"): {ASN: 64500,
			ASName: "A provider with a name that is longer than any column can be"},
		netip.MustParseAddr("2001:db8:bad::1"):  {Country: "US"},
		netip.MustParseAddr("2001:db8:bad::77"): {Country: "US"},
	}
	ex := explanations()["banned"]
	ex.Place = b.places[netip.MustParseAddr("203.0.113.5")]
	ex.Evidence[0].Points, ex.Evidence[0].Multiplier, ex.Evidence[0].Country, ex.Evidence[0].ASN = 8, 2, "NL", 64496
	b.explain = ex
	b.status = func(st *api.Status) {
		st.Geo = []api.GeoFile{
			{Path: "/var/lib/GeoIP/GeoLite2-Country.mmdb", Type: hostile, Built: at(ago(8 * 24 * time.Hour)),
				Country: true, Bytes: 9 << 20},
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

// configured writes a configuration with a geo section.
func configured(t *testing.T, section string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ringwall.yaml")
	text := "asterisk: [{name: pbx1, address: \"127.0.0.1:5038\", username: u, secret: s}]\n" + section
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCheckReadsTheGeoFiles(t *testing.T) {
	country := geotest.Write(t, "country.mmdb", geotest.Networks{"203.0.113.0/24": geotest.Country("NL")},
		geotest.Built(ago(5*24*time.Hour)))
	old := geotest.Write(t, "old.mmdb", geotest.Networks{"203.0.113.0/24": geotest.ASN(64496, "x")},
		geotest.Built(ago(91*24*time.Hour)))
	text := filepath.Join(t.TempDir(), "text.mmdb")
	if err := os.WriteFile(text, []byte("<html>"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, section string
		want          []string // of the warnings, in order
	}{
		{"a good file", "geo: {files: [" + country + "], multiply: {countries: {NL: 2}}}\n", nil},
		{"a missing file", "geo: {files: [/none.mmdb]}\n",
			[]string{"geo.files[0]: /none.mmdb: does not exist; try: geoipupdate, or"}},
		{"an old file", "geo: {files: [" + country + ", " + old + "]}\n",
			[]string{"geo.files[1]: " + old + ": is 91 days old: addresses move; try: geoipupdate"}},
		{"no file of this format", "geo: {files: [" + text + "]}\n",
			[]string{"geo.files[0]: " + text + ": is damaged, or no file in MaxMind's format"}},
		{"networks without their file", "geo: {files: [" + country + "], multiply: {asns: {AS1: 2}}}\n",
			[]string{"geo.multiply.asns: has no effect: no geo file knows autonomous systems; try: GeoLite2-ASN.mmdb " +
				"in geo.files"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t)
			code := w.do(t, "check", "--config", configured(t, row.section))
			got := strings.Split(strings.TrimSuffix(w.err.String(), "\n"), "\n")
			if w.err.String() == "" {
				got = nil
			}
			if code != 0 || len(got) != len(row.want) {
				t.Fatalf("exit %d: %q", code, got)
			}
			for i, line := range got {
				if !strings.HasPrefix(line, "warning: ") || !strings.Contains(line, row.want[i]) {
					t.Errorf("%s, want %s", line, row.want[i])
				}
			}
		})
	}
}

// TestTheExampleOfPlacesPassesWithoutItsFiles runs check on it, on a machine without any geo file.
func TestTheExampleOfPlacesPassesWithoutItsFiles(t *testing.T) {
	text, err := os.ReadFile("../../../../examples/geo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	secret, path := filepath.Join(dir, "secret"), filepath.Join(dir, "geo.yaml")
	if err := os.WriteFile(secret, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer("/etc/ringwall/ami-secret", secret, "/var/lib/GeoIP", dir).Replace(string(text))
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.app.Env.Open = func(name string) (fs.File, error) { return os.Open(name) }
	if code := w.do(t, "check", "--config", path); code != 0 || strings.Count(w.err.String(), "warning: ") != 2 ||
		strings.Count(w.err.String(), "does not exist") != 2 ||
		!strings.Contains(w.out.String(), "is right: 1 Asterisk, policy enforce, 2 warnings") {
		t.Errorf("exit %d: %s%s", code, w.out, w.err)
	}
	geotest.Put(t, filepath.Join(dir, "GeoLite2-Country.mmdb"),
		geotest.Make(t, geotest.Networks{"203.0.113.0/24": geotest.Country("NL")}))
	geotest.Put(t, filepath.Join(dir, "GeoLite2-ASN.mmdb"),
		geotest.Make(t, geotest.Networks{"203.0.113.0/24": geotest.ASN(64496, "x")}))
	w = newWorld(t)
	w.app.Env.Open = func(name string) (fs.File, error) { return os.Open(name) }
	if code := w.do(t, "check", "--config", path); code != 0 || w.err.String() != "" {
		t.Errorf("exit %d: %s%s", code, w.out, w.err)
	}
}

// TestReplayMultipliesByPlace plays the recording of a scanner that four tries would ban: with half the points it is
// not.
func TestReplayMultipliesByPlace(t *testing.T) {
	path := geotest.Write(t, "country.mmdb", geotest.Networks{"203.0.113.0/24": geotest.Country("NL")})
	bans := func(section string) int {
		t.Helper()
		w := newWorld(t)
		if code := w.do(t, "replay", "--json", "--config", configured(t, section), recorded(t)); code != 0 ||
			w.err.String() != "" {
			t.Fatalf("exit %d: %s", code, w.err)
		}
		if noted := strings.Contains(w.out.String(), "registered today"); noted != strings.Contains(section,
			"multiply") {
			t.Errorf("%s: %s", section, w.out)
		}
		return strings.Count(w.out.String(), `"action":"ban"`)
	}
	files := "geo: {files: [" + path + "]"
	if n := bans(files + "}\n"); n != 2 {
		t.Errorf("%d bans without multipliers", n)
	}
	if n := bans(files + ", multiply: {countries: {NL: 0.5}}}\n"); n != 0 {
		t.Errorf("%d bans with half the points", n)
	}
	w := newWorld(t)
	missing := "geo: {files: [/none.mmdb], multiply: {countries: {NL: 0.5}}}\n"
	if code := w.do(t, "replay", "--config", configured(t, missing), recorded(t)); code != 0 ||
		!strings.Contains(w.err.String(), "/none.mmdb: does not exist") {
		t.Errorf("exit %d: %s", code, w.err)
	}
}
