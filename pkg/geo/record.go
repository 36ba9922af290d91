package geo

import (
	"strconv"
	"strings"

	"github.com/oschwald/maxminddb-golang/v2"

	"github.com/ringwall/ringwall/pkg/ban"
)

// maxmindRecord is what is read of an entry, in MaxMind's layout, which DB-IP and IP2Location follow
// (https://dev.maxmind.com/geoip/docs/databases): GeoLite2 and GeoIP2 Country, City, ASN, ISP and Enterprise.
type maxmindRecord struct {
	Country countryField `maxminddb:"country"`
	// Registered is all that is known of some satellites and anycast networks.
	Registered countryField `maxminddb:"registered_country"`
	ASN        uint         `maxminddb:"autonomous_system_number"`
	Traits     struct {
		ASN    uint   `maxminddb:"autonomous_system_number"`
		ASName string `maxminddb:"autonomous_system_organization"`
	} `maxminddb:"traits"`
	ASName string `maxminddb:"autonomous_system_organization"`
}

type countryField struct {
	Code string `maxminddb:"iso_code"`
}

func (r *maxmindRecord) toPlace() ban.Place {
	p := ban.Place{Country: countryCode(r.Country.Code)}
	if p.Country == "" {
		p.Country = countryCode(r.Registered.Code)
	}
	asn, name := r.ASN, r.ASName
	if asn == 0 {
		asn, name = r.Traits.ASN, r.Traits.ASName
	}
	return withSystem(p, asn, name)
}

// ipinfoRecord is IPinfo's layout (https://ipinfo.io/developers/ipinfo-lite-database).
type ipinfoRecord struct {
	Code    string `maxminddb:"country_code"`
	Country string `maxminddb:"country"` // a code in older files, else the country's name
	ASN     string `maxminddb:"asn"`     // with AS in front
	ASName  string `maxminddb:"as_name"`
}

func (r *ipinfoRecord) toPlace() ban.Place {
	p := ban.Place{Country: countryCode(r.Code)}
	if p.Country == "" {
		p.Country = countryCode(r.Country)
	}
	digits, _ := strings.CutPrefix(r.ASN, "AS")
	asn, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return p
	}
	return withSystem(p, uint(asn), r.ASName)
}

func withSystem(p ban.Place, asn uint, text string) ban.Place {
	if asn > 0 && asn <= 1<<32-1 {
		p.ASN, p.ASName = uint32(asn), cleanName(text)
	}
	return p
}

// layout says how the entries of a file are read.
type layout uint8

const (
	maxmindLayout layout = iota
	ipinfoLayout
)

// readPlace returns the place that an entry tells of. An entry of another layout tells of none.
func (l layout) readPlace(result *maxminddb.Result) (ban.Place, error) {
	if l == ipinfoLayout {
		var r ipinfoRecord
		err := result.Decode(&r)
		return r.toPlace(), err
	}
	var r maxmindRecord
	err := result.Decode(&r)
	return r.toPlace(), err
}
