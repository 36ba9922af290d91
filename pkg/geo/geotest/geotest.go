// Package geotest makes files in MaxMind's format for tests.
package geotest

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

// Networks are the records of a file, by network.
type Networks map[string]mmdbtype.DataType

// Country is a record of GeoLite2-Country.
func Country(code string) mmdbtype.Map {
	names := mmdbtype.Map{"en": mmdbtype.String("Land of " + code), "de": mmdbtype.String("Land " + code)}
	return mmdbtype.Map{
		"continent": mmdbtype.Map{"code": mmdbtype.String("XX"), "geoname_id": mmdbtype.Uint32(1), "names": names},
		"country":   mmdbtype.Map{"iso_code": mmdbtype.String(code), "geoname_id": mmdbtype.Uint32(2), "names": names},
	}
}

// ASN is a record of GeoLite2-ASN.
func ASN(number uint32, name string) mmdbtype.Map {
	return mmdbtype.Map{
		"autonomous_system_number":       mmdbtype.Uint32(number),
		"autonomous_system_organization": mmdbtype.String(name),
	}
}

// Both is a record that holds a country and an autonomous system.
func Both(code string, number uint32, name string) mmdbtype.Map {
	record := Country(code)
	for key, value := range ASN(number, name) {
		record[key] = value
	}
	return record
}

// Make returns a file. What options leave out is as in a file of today that knows IPv4 and IPv6.
func Make(t testing.TB, networks Networks, options ...func(*mmdbwriter.Options)) []byte {
	t.Helper()
	o := mmdbwriter.Options{
		DatabaseType: "Test-Places", Description: map[string]string{"en": "places for tests"}, BuildEpoch: time.Now().Unix(),
		IncludeReservedNetworks: true, // the networks for documentation are among them
	}
	for _, option := range options {
		option(&o)
	}
	tree, err := mmdbwriter.New(o)
	if err != nil {
		t.Fatal(err)
	}
	for text, record := range networks {
		_, network, err := net.ParseCIDR(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Insert(network, record); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	var out bytes.Buffer
	if _, err := tree.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Built sets when the file was built.
func Built(at time.Time) func(*mmdbwriter.Options) {
	return func(o *mmdbwriter.Options) { o.BuildEpoch = at.Unix() }
}

// Type sets what the file calls itself.
func Type(name string) func(*mmdbwriter.Options) {
	return func(o *mmdbwriter.Options) { o.DatabaseType = name }
}

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
func Write(t testing.TB, name string, networks Networks, options ...func(*mmdbwriter.Options)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	Put(t, path, Make(t, networks, options...))
	return path
}
