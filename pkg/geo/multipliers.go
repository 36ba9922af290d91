package geo

import (
	"time"

	"github.com/ringwall/ringwall/pkg/config"
)

// StaleAge is the age from which on a file is worth a warning: addresses change hands, and their makers publish every
// week.
const StaleAge = 90 * 24 * time.Hour

// IneffectiveMultipliers returns which of the multipliers can have no effect, since no file that was read knows the
// places they name. The Path of each is its key. Where a file could not be read at all, that is trouble enough, and
// nothing is said.
func IneffectiveMultipliers(m config.Multiply, files []File) (out []*Error) {
	countries, systems := false, false
	for _, f := range files {
		if f.DB == nil {
			return nil
		}
		countries, systems = countries || f.DB.Country, systems || f.DB.ASN
	}
	if len(m.Countries) > 0 && !countries && len(files) > 0 {
		out = append(out, &Error{Path: "geo.multiply.countries", What: "has no effect: no geo file knows countries",
			Try: "GeoLite2-Country.mmdb in geo.files"})
	}
	if len(m.ASNs) > 0 && !systems && len(files) > 0 {
		out = append(out, &Error{Path: "geo.multiply.asns", What: "has no effect: no geo file knows autonomous systems",
			Try: "GeoLite2-ASN.mmdb in geo.files"})
	}
	return out
}
