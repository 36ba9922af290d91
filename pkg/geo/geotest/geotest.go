// Package geotest makes files in MaxMind's format for tests.
package geotest

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Networks are the records of a file, by network. Those of a network within another one take its place there.
type Networks map[string]Record

// Record is what a file knows of a network: string, bool, uint16, uint32, uint64, []any, and map[string]any.
type Record map[string]any

// Country is a record of GeoLite2-Country.
func Country(code string) Record {
	names := map[string]any{"en": "Land of " + code, "de": "Land " + code}
	return Record{
		"continent": map[string]any{"code": "XX", "geoname_id": uint32(1), "names": names},
		"country":   map[string]any{"iso_code": code, "geoname_id": uint32(2), "names": names},
	}
}

// ASN is a record of GeoLite2-ASN.
func ASN(number uint32, name string) Record {
	return Record{"autonomous_system_number": number, "autonomous_system_organization": name}
}

// Both is a record that holds a country and an autonomous system.
func Both(code string, number uint32, name string) Record {
	record := Country(code)
	for key, value := range ASN(number, name) {
		record[key] = value
	}
	return record
}

// Make returns a file. What options leave out is as in a file of today that knows IPv4 and IPv6.
func Make(t testing.TB, networks Networks, options ...func(*Options)) []byte {
	t.Helper()
	o := Options{Type: "Test-Places", Built: time.Now().Unix(), RecordSize: 28}
	for _, option := range options {
		option(&o)
	}
	records := make(map[netip.Prefix]any, len(networks))
	for text, record := range networks {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		records[p.Masked()] = record
	}
	return encodeFile(records, o)
}

// Built sets when the file was built.
func Built(at time.Time) func(*Options) { return func(o *Options) { o.Built = at.Unix() } }

// Type sets what the file calls itself.
func Type(name string) func(*Options) { return func(o *Options) { o.Type = name } }

// RecordSize sets how many bits half a node has: 24, 28 or 32.
func RecordSize(bits int) func(*Options) { return func(o *Options) { o.RecordSize = bits } }

// IPv4Only makes a file that knows no IPv6.
func IPv4Only(o *Options) { o.IPv4Only = true }

// Put writes data in place of the file at path as geoipupdate does: under another name, which then takes its place.
func Put(t testing.TB, path string, data []byte) {
	t.Helper()
	next := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".next")
	if err := os.WriteFile(next, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

// Write makes a file in a folder of the test's and returns its path.
func Write(t testing.TB, name string, networks Networks, options ...func(*Options)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	Put(t, path, Make(t, networks, options...))
	return path
}
