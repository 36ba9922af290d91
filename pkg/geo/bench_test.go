package geo

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/ringwall/ringwall/pkg/geo/geotest"
)

// sized makes files of about the shape of GeoLite2: n networks of IPv4 and n of IPv6, 250 countries, 70,000 systems.
func sized(b testing.TB, n int) (country, asn string) {
	b.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	dir := b.TempDir()
	write := func(name string, record func(i int) mmdbtype.DataType) string {
		tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: name, Description: map[string]string{"en": name}, RecordSize: 24})
		if err != nil {
			b.Fatal(err)
		}
		for i := range n {
			v4 := binary.BigEndian.AppendUint32(nil, 1<<24+uint32(random.IntN(125<<24)))
			_ = tree.Insert(&net.IPNet{IP: net.IP(v4).Mask(net.CIDRMask(22, 32)), Mask: net.CIDRMask(22, 32)}, record(i)) // reserved ones are refused
			v6 := binary.BigEndian.AppendUint64(nil, 0x2a00<<48+uint64(random.IntN(1<<32))<<16)
			v6 = append(v6, make([]byte, 8)...)
			_ = tree.Insert(&net.IPNet{IP: net.IP(v6).Mask(net.CIDRMask(40, 128)), Mask: net.CIDRMask(40, 128)}, record(i))
		}
		path := filepath.Join(dir, name)
		f, err := os.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := tree.WriteTo(f); err != nil {
			b.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
		return path
	}
	country = write("country.mmdb", func(i int) mmdbtype.DataType {
		return geotest.Country(string([]byte{'A' + byte(i%26), 'A' + byte(i/26%10)}))
	})
	asn = write("asn.mmdb", func(i int) mmdbtype.DataType {
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
