package doctor

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/geo/geotest"
)

// placed examines the geo files of a section.
func placed(t *testing.T, section string) []Check {
	t.Helper()
	e := &exam{Options: Options{ConfigPath: file(t, "127.0.0.1:1", section)}}
	e.examineConfiguration(t.Context())
	before := len(e.checks)
	e.examineGeoFiles(t.Context())
	return e.checks[before:]
}

func TestGeoFilesAreReadAndAsked(t *testing.T) {
	country := geotest.Write(t, "country.mmdb",
		geotest.Networks{"8.8.8.0/24": geotest.Country("US"), "203.0.113.0/24": geotest.Country("NL")},
		geotest.Type("Some\x1b[2J-Country"))
	systems := geotest.Write(t, "asn.mmdb", geotest.Networks{"8.8.8.0/24": geotest.ASN(64496, "Example \u202e")})
	list := placed(t, "geo: {files: ["+country+", "+systems+"], multiply: {countries: {NL: 2}, asns: {AS64496: 2}}}\n")
	geo := of(list, "geo")
	if len(list) != 3 || len(geo) != 2 {
		t.Fatalf("%+v", list)
	}
	is(t, geo[0], OK, country, `Some\x1b[2J-Country`, "knows countries, as of ")
	is(t, geo[1], OK, systems, "knows networks")
	is(t, one(t, list, "geo lookup"), OK, `8.8.8.8 is registered in US AS64496 Example \u202e`)

	if list := placed(t, ""); len(list) != 0 {
		t.Errorf("without files: %+v", list)
	}
}

// TestWhatIsWrongWithGeoFiles is all warnings: none of it lets an attacker in.
func TestWhatIsWrongWithGeoFiles(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "old.mmdb")
	geotest.Put(t, old, geotest.Make(t, geotest.Networks{"203.0.113.0/24": geotest.Country("NL")},
		geotest.Built(time.Now().Add(-100*24*time.Hour))))
	list := placed(t, "geo: {files: [/none/x.mmdb, "+old+"]}\n")
	geo := of(list, "geo")
	if len(geo) != 2 {
		t.Fatalf("%+v", list)
	}
	is(t, geo[0], Warn, "/none/x.mmdb: does not exist; bans need no such file", "geoipupdate")
	is(t, geo[1], Warn, "100 days ago", "geoipupdate")
	is(t, one(t, list, "geo lookup"), Warn, "know none of 8.8.8.8", "ringwall why")

	list = placed(t, "geo: {files: ["+dir+"/none.mmdb]}\n")
	if len(list) != 1 {
		t.Errorf("a lookup without a file: %+v", list)
	}
	list = placed(t, "geo: {files: ["+old+"], multiply: {asns: {AS64496: 2}}}\n")
	is(t, of(list, "geo")[1], Warn, "geo.multiply.asns: has no effect", "GeoLite2-ASN.mmdb")

	data := geotest.Make(t, geotest.Networks{"8.8.8.0/24": geotest.Country("US")})
	damaged := filepath.Join(dir, "damaged.mmdb")
	data = bytes.Replace(data, []byte("geoname_id"), []byte("geoname_\xff\xfe"), 1)
	if err := os.WriteFile(damaged, data, 0o600); err != nil {
		t.Fatal(err)
	}
	list = placed(t, "geo: {files: ["+damaged+"]}\n")
	is(t, of(list, "geo")[0], Warn, "what can be read is used", "download it again")
	is(t, one(t, list, "geo lookup"), OK, "8.8.8.8 is registered in US")
}
