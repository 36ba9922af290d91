package geo

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/ringwall/ringwall/pkg/geo/geotest"
)

// sized makes files of about the shape of GeoLite2: n networks of IPv4 and n of IPv6, 250 countries, 70,000 systems.
func sized(b testing.TB, n int) (country, asn string) {
	b.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	write := func(name string, record func(i int) geotest.Record) string {
		networks := geotest.Networks{}
		for i := range n {
			v4 := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 1<<24+uint32(random.IntN(125<<24)))))
			networks[netip.PrefixFrom(v4, 22).Masked().String()] = record(i)
			v6 := binary.BigEndian.AppendUint64(nil, 0x2a00<<48+uint64(random.IntN(1<<32))<<16)
			networks[netip.PrefixFrom(netip.AddrFrom16([16]byte(append(v6, make([]byte, 8)...))),
				40).Masked().String()] = record(i)
		}
		return geotest.Write(b, name, networks, geotest.Type(name), geotest.RecordSize(24))
	}
	country = write("country.mmdb", func(i int) geotest.Record {
		return geotest.Country(string([]byte{'A' + byte(i%26), 'A' + byte(i/26%10)}))
	})
	asn = write("asn.mmdb", func(i int) geotest.Record {
		return geotest.ASN(uint32(i%70_000+1), fmt.Sprintf("Operator number %d of a country", i%70_000))
	})
	return country, asn
}

// BenchmarkPlace asks two files of some 10 MB for addresses all over the Internet.
func BenchmarkPlace(b *testing.B) {
	country, asn := sized(b, 100_000)
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	random := rand.New(rand.NewPCG(3, 4))
	spread := make([]netip.Addr, 1<<16)
	for i := range spread {
		spread[i] = netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 1<<24+uint32(random.IntN(125<<24)))))
	}
	for _, row := range []struct {
		name  string
		files []string
		addrs []netip.Addr
	}{
		{"country/one", []string{country}, spread[:1]}, {"country/spread", []string{country}, spread},
		{"both/one", []string{country, asn}, spread[:1]}, {"both/spread", []string{country, asn}, spread},
		{"none", nil, spread},
	} {
		b.Run(row.name, func(b *testing.B) {
			a := New(log, row.files...)
			bytes := int64(0)
			for _, f := range a.Files() {
				bytes += f.DB.Bytes
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				a.Place(row.addrs[i%len(row.addrs)])
			}
			b.ReportMetric(float64(bytes)/1e6, "MB")
		})
	}
}

// BenchmarkRead reads a file as at the start of the daemon.
func BenchmarkRead(b *testing.B) {
	_, asn := sized(b, 100_000)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		db, err := Read(asn)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(db.Bytes)
	}
}
