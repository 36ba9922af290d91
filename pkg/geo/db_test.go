package geo

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/geo/geotest"
)

func mustParse(t testing.TB, data []byte) *DB {
	t.Helper()
	db, err := parseData(data)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// TestPlacesOfAddresses reads the layouts of those who make such files.
func TestPlacesOfAddresses(t *testing.T) {
	countries := geotest.Networks{"203.0.113.0/24": geotest.Country("NL"), "2001:db8::/32": geotest.Country("DE")}
	both := geotest.Networks{
		"203.0.113.0/25": geotest.Both("NL", 64496, "Example B.V."), "203.0.113.128/25": geotest.ASN(64497, "No Land"),
		"2001:db8::/32": geotest.Both("DE", 4200000000, "Beispiel"),
	}
	enterprise := geotest.Networks{"203.0.113.0/24": geotest.Record{
		"registered_country": geotest.Record{"iso_code": "AU"},
		"traits": geotest.Record{"autonomous_system_number": uint32(64500), "is_anycast": true,
			"autonomous_system_organization": "Anycast"},
	}}
	lite := geotest.Networks{"203.0.113.0/24": geotest.Record{"country": "Netherlands", "country_code": "NL",
		"asn": "AS64496", "as_name": "Example", "as_domain": "example.net"}}
	older := geotest.Networks{"203.0.113.0/24": geotest.Record{"country": "nl", "asn": "none"}}
	odd := geotest.Networks{
		"203.0.113.0/26": geotest.Both("N", 1, ""), "203.0.113.64/26": geotest.Country("1\x1b"),
		"203.0.113.192/26": geotest.Record{"country": uint32(5), "autonomous_system_number": "x"},
	}
	long := geotest.Networks{"203.0.113.128/26": geotest.ASN(7, strings.Repeat("\xff", 150)+strings.Repeat("a", 300))}
	for _, tt := range []struct {
		name     string
		networks geotest.Networks
		options  []func(*geotest.Options)
		addr     string
		want     ban.Place
	}{
		{"a country", countries, nil, "203.0.113.7", ban.Place{Country: "NL"}},
		{"IPv4 in an IPv6 address", countries, nil, "::ffff:203.0.113.7", ban.Place{Country: "NL"}},
		{"an IPv6 address", countries, nil, "2001:db8:1::1", ban.Place{Country: "DE"}},
		{"an IPv6 address with a zone", countries, nil, "2001:db8::1%eth0", ban.Place{Country: "DE"}},
		{"an address that is not in it", countries, nil, "192.0.2.1", ban.Place{}},
		{"24 bits", countries, []func(*geotest.Options){geotest.RecordSize(24)}, "203.0.113.7",
			ban.Place{Country: "NL"}},
		{"32 bits", countries, []func(*geotest.Options){geotest.RecordSize(32)}, "2001:db8::1",
			ban.Place{Country: "DE"}},
		{"a file for IPv4", geotest.Networks{"203.0.113.0/24": geotest.Country("NL")},
			[]func(*geotest.Options){geotest.IPv4Only}, "203.0.113.7", ban.Place{Country: "NL"}},
		{"IPv6 in a file for IPv4", geotest.Networks{"203.0.113.0/24": geotest.Country("NL")},
			[]func(*geotest.Options){geotest.IPv4Only}, "2001:db8::1", ban.Place{}},
		{"both in one file", both, nil, "203.0.113.7", ban.Place{Country: "NL", ASN: 64496, ASName: "Example B.V."}},
		{"a system without a country", both, nil, "203.0.113.200",
			ban.Place{Country: "", ASN: 64497, ASName: "No Land"}},
		{"a number of 32 bits", both, nil, "2001:db8::7",
			ban.Place{Country: "DE", ASN: 4200000000, ASName: "Beispiel"}},
		{"Enterprise, anycast", enterprise, nil, "203.0.113.7",
			ban.Place{Country: "AU", ASN: 64500, ASName: "Anycast"}},
		{"IPinfo", lite, nil, "203.0.113.7", ban.Place{Country: "NL", ASN: 64496, ASName: "Example"}},
		{"IPinfo of before", older, nil, "203.0.113.7", ban.Place{Country: "NL"}},
		{"a code of one letter", odd, nil, "203.0.113.1", ban.Place{ASN: 1}},
		{"a code of no letters", odd, nil, "203.0.113.65", ban.Place{}},
		{"a long name that is not UTF-8", long, nil, "203.0.113.129",
			ban.Place{ASN: 7, ASName: strings.Repeat("a", 50)}},
		{"another type than usual", odd, nil, "203.0.113.193", ban.Place{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			db := mustParse(t, geotest.Make(t, tt.networks, tt.options...))
			if got := db.Place(netip.MustParseAddr(tt.addr)); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if got := db.Place(netip.Addr{}); got != (ban.Place{}) {
				t.Errorf("no address is at %+v", got)
			}
			if err := db.Verify(); (err != nil) != strings.HasPrefix(tt.name, "a long name") {
				t.Errorf("Verify: %v", err)
			}
		})
	}
}

func TestAFileSaysWhatItIs(t *testing.T) {
	at := time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name         string
		record       geotest.Record
		country, asn bool
	}{
		{"countries", geotest.Country("NL"), true, false},
		{"systems", geotest.ASN(64496, "Example"), false, true},
		{"both", geotest.Both("NL", 64496, "Example"), true, true},
	} {
		data := geotest.Make(t, geotest.Networks{"203.0.113.0/24": tt.record}, geotest.Built(at),
			geotest.Type("Some-Type"))
		db := mustParse(t, data)
		if !db.Built.Equal(at) || db.Type != "Some-Type" || db.Bytes != int64(len(data)) || db.Country != tt.country ||
			db.ASN != tt.asn {
			t.Errorf("%s: %+v", tt.name, db)
		}
	}
}

func TestDataThatIsNoUse(t *testing.T) {
	whole := geotest.Make(t, geotest.Networks{"203.0.113.0/24": geotest.Country("NL")})
	for name, row := range map[string]struct {
		data []byte
		want string
	}{
		"nothing": {nil, "is damaged, or no file in MaxMind's format: error opening database: invalid MaxMind DB file"},
		"text": {[]byte("<html>404</html>"),
			"is damaged, or no file in MaxMind's format: error opening database: invalid MaxMind DB file"},
		"the first half": {whole[:len(whole)/2],
			"is damaged, or no file in MaxMind's format: error opening database: invalid MaxMind DB file"},
		"the last half": {whole[len(whole)/2:],
			"is damaged, or no file in MaxMind's format: the MaxMind DB contains invalid metadata"},
		"the end cut off": {whole[:len(whole)-40], "is damaged, or no file in MaxMind's format: "},
		"another purpose": {geotest.Make(t, geotest.Networks{"203.0.113.0/24": geotest.Record{"is_tor_exit_node": true}}),
			"knows neither countries nor autonomous systems"},
		"an empty one":     {geotest.Make(t, geotest.Networks{}), ""},
		"a marker alone":   {[]byte("\xab\xcd\xefMaxMind.com"), "is damaged, or no file in MaxMind's format: "},
		"a marker, a map ": {[]byte("\xab\xcd\xefMaxMind.com\xe0"), "is damaged, or no file in MaxMind's format: "},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := Parse(row.data)
			var bad *Error
			if db != nil || !errors.As(err, &bad) || !strings.HasPrefix(bad.What, row.want) || bad.Try == "" {
				t.Errorf("%v, %v", db, err)
			}
		})
	}
}

// TestDamageNeverPanics turns single bits and bytes of a file and asks what is left, without the net that Place has.
func TestDamageNeverPanics(t *testing.T) {
	whole := geotest.Make(t, geotest.Networks{
		"203.0.113.0/24": geotest.Both("NL", 64496, "Example"), "198.51.100.0/24": geotest.Both("DE", 64497, "Other"),
		"2001:db8::/32": geotest.Country("US"),
	})
	random := rand.New(rand.NewPCG(1, 2))
	data := bytes.Clone(whole)
	refused := 0
	for range 5_000 {
		at := random.IntN(len(data))
		before := data[at]
		data[at] = byte(random.Uint32())
		if random.IntN(2) == 0 {
			data[at] = before ^ 1<<random.IntN(8)
		}
		if !survives(data) {
			refused++
		}
		data[at] = before
	}
	if refused == 0 {
		t.Error("no damage was noticed")
	}
}

// survives asks a file for a few addresses, and says whether it can be used.
func survives(data []byte) bool {
	db, err := parseData(data)
	if err != nil {
		return false
	}
	for _, addr := range []string{"203.0.113.7", "198.51.100.1", "2001:db8::1", "2001::1", "0.0.0.0", "255.255.255.255",
		"::"} {
		p, _ := db.lookupPlace(netip.MustParseAddr(addr))
		if p.Country != countryCode(p.Country) || len(p.ASName) > maxName {
			panic(p)
		}
	}
	return true
}

func FuzzParse(f *testing.F) {
	for _, bits := range []int{24, 28, 32} {
		f.Add(geotest.Make(f, geotest.Networks{"203.0.113.0/24": geotest.Both("NL", 64496, "Example"),
			"2001:db8::/32": geotest.Country("US")}, geotest.RecordSize(bits)))
	}
	f.Add(geotest.Make(f, geotest.Networks{"203.0.113.0/24": geotest.Country("NL")}, geotest.IPv4Only))
	f.Add(geotest.Make(f, geotest.Networks{"203.0.113.0/24": geotest.Record{"country_code": "NL", "asn": "AS1"}},
		geotest.IPv4Only))
	f.Add([]byte("\xab\xcd\xefMaxMind.com\xe9"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if survives(data) && len(data) < 1<<16 {
			db, _ := parseData(data)
			_ = db.reader.Verify()
		}
	})
}
