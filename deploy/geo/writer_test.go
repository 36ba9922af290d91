// Package geo compares the files that tests make with those of MaxMind's own program.
package geo

import (
	"bytes"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"go4.org/netipx"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/geo"
	"github.com/ringwall/ringwall/pkg/geo/geotest"
)

// overlappingNetworks overlap, and reach from a single address to half of the Internet.
func overlappingNetworks() geotest.Networks {
	return geotest.Networks{
		"0.0.0.0/1": geotest.Country("US"), "203.0.113.0/24": geotest.Both("NL", 64496, "Example B.V."),
		"203.0.113.128/25": geotest.ASN(64497, "No Land"), "203.0.113.200/32": geotest.Country("DE"),
		"2001:db8::/32": geotest.Both("DE", 4200000000, "Beispiel"), "2001:db8:8000::/33": geotest.Country("SE"),
		"198.51.100.0/24": {"country": "Netherlands", "country_code": "NL", "asn": "AS64496", "as_name": "Example"},
		"192.0.2.0/24": {"registered_country": map[string]any{"iso_code": "AU"}, "traits": map[string]any{
			"autonomous_system_number": uint32(64500), "is_anycast": true,
			"autonomous_system_organization": "Anycast"}},
	}
}

// byMaxMindWriter makes the same file with MaxMind's writer.
func byMaxMindWriter(t *testing.T, records geotest.Networks, size, version int) []byte {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test-Places", BuildEpoch: time.Now().Unix(),
		RecordSize: size,
		IPVersion:  version, IncludeReservedNetworks: true, DisableIPv4Aliasing: true})
	if err != nil {
		t.Fatal(err)
	}
	for bits := range 129 { // networks within others later
		for text, record := range records {
			_, network, err := net.ParseCIDR(text)
			if err != nil {
				t.Fatal(err)
			}
			if ones, _ := network.Mask.Size(); ones != bits {
				continue
			}
			if err := tree.Insert(network, mmdbValue(t, map[string]any(record))); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
	}
	var out bytes.Buffer
	if _, err := tree.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func mmdbValue(t *testing.T, v any) mmdbtype.DataType {
	switch v := v.(type) {
	case string:
		return mmdbtype.String(v)
	case uint32:
		return mmdbtype.Uint32(v)
	case bool:
		return mmdbtype.Bool(v)
	case map[string]any:
		m := mmdbtype.Map{}
		for key, inner := range v {
			m[mmdbtype.String(key)] = mmdbValue(t, inner)
		}
		return m
	}
	t.Fatalf("a value of type %T", v)
	return nil
}

func TestFilesForTestsAreAsThoseOfMaxMind(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{24, 28, 32} {
		for _, version := range []int{4, 6} {
			records := overlappingNetworks()
			options := []func(*geotest.Options){geotest.RecordSize(size)}
			if version == 4 {
				options = append(options, geotest.IPv4Only)
				delete(records, "2001:db8::/32")
				delete(records, "2001:db8:8000::/33")
			}
			theirs, err := geo.Parse(byMaxMindWriter(t, records, size, version))
			if err != nil {
				t.Fatal(err)
			}
			ours, err := geo.Parse(geotest.Make(t, records, options...))
			if err != nil {
				t.Fatal(err)
			}
			if theirs.Country != ours.Country || theirs.ASN != ours.ASN || theirs.Type != ours.Type {
				t.Errorf("%d bits, IPv%d: it says of itself %+v, and %+v", size, version, ours, theirs)
			}
			places := map[ban.Place]bool{}
			check := func(a netip.Addr) {
				if places[theirs.Place(a)] = true; ours.Place(a) != theirs.Place(a) {
					t.Errorf("%d bits, IPv%d: %s is in %+v, and in %+v", size, version, a, ours.Place(a),
						theirs.Place(a))
				}
			}
			for text := range records { // the edges
				p := netip.MustParsePrefix(text)
				check(p.Addr())
				check(p.Addr().Prev())
				check(netipx.PrefixLastIP(p))
				check(netipx.PrefixLastIP(p).Next())
			}
			for range 1000 {
				check(netip.AddrFrom4([4]byte{byte(random.IntN(256)), 0, byte(random.IntN(256)),
					byte(random.IntN(256))}))
				check(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(random.IntN(256)),
					15: byte(random.IntN(256))}))
			}
			if len(places) < 6 {
				t.Errorf("%d bits, IPv%d: only %d places were met", size, version, len(places))
			}
		}
	}
}
