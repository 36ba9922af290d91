package geo

import (
	"strconv"
	"strings"

	"github.com/oschwald/maxminddb-golang/v2"
)

// record is what is read of an entry, in MaxMind's layout, which DB-IP and IP2Location follow
// (https://dev.maxmind.com/geoip/docs/databases): GeoLite2 and GeoIP2 Country, City, ASN, ISP and Enterprise.
type record struct {
	Country    coded `maxminddb:"country"`
	Registered coded `maxminddb:"registered_country"` // all that is known of some satellites and anycast networks
	ASN        uint  `maxminddb:"autonomous_system_number"`
	Traits     struct {
		ASN    uint   `maxminddb:"autonomous_system_number"`
		ASName string `maxminddb:"autonomous_system_organization"`
	} `maxminddb:"traits"`
	ASName string `maxminddb:"autonomous_system_organization"`
}

type coded struct {
	Code string `maxminddb:"iso_code"`
}

func (r *record) place() Place {
	p := Place{Country: country(r.Country.Code)}
	if p.Country == "" {
		p.Country = country(r.Registered.Code)
	}
	asn, name := r.ASN, r.ASName
	if asn == 0 {
		asn, name = r.Traits.ASN, r.Traits.ASName
	}
	return p.system(asn, name)
}

// flat is IPinfo's layout (https://ipinfo.io/developers/ipinfo-lite-database).
type flat struct {
	Code    string `maxminddb:"country_code"`
	Country string `maxminddb:"country"` // a code in older files, else the country's name
	ASN     string `maxminddb:"asn"`     // with AS in front
	ASName  string `maxminddb:"as_name"`
}

func (r *flat) place() Place {
	p := Place{Country: country(r.Code)}
	if p.Country == "" {
		p.Country = country(r.Country)
	}
	digits, _ := strings.CutPrefix(r.ASN, "AS")
	asn, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return p
	}
	return p.system(uint(asn), r.ASName)
}

func (p Place) system(asn uint, text string) Place {
	if asn > 0 && asn <= 1<<32-1 {
		p.ASN, p.ASName = uint32(asn), name(text)
	}
	return p
}

// layout says how the entries of a file are read.
type layout uint8

const (
	maxmind layout = iota
	ipinfo
)

// read returns the place that an entry tells of. An entry of another layout tells of none.
func (l layout) read(result *maxminddb.Result) (Place, error) {
	if l == ipinfo {
		var r flat
		err := result.Decode(&r)
		return r.place(), err
	}
	var r record
	err := result.Decode(&r)
	return r.place(), err
}
