package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/geo"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/printable"
)

// wellKnownAddresses are addresses that every file about the Internet knows: public resolvers and RIPE NCC.
var wellKnownAddresses = [...]string{"8.8.8.8", "1.1.1.1", "9.9.9.9", "193.0.6.139", "2001:4860:4860::8888"}

const renewGeoFiles = "geoipupdate, and a timer that runs it every week"

// examineGeoFiles reads the geo files as the daemon would, each to its end, and looks an address up.
func (e *exam) examineGeoFiles(ctx context.Context) {
	if !e.configLoaded || len(e.cfg.Geo.Files) == 0 {
		return
	}
	s := e.subjectNamed("")
	var files []geo.File
	for _, path := range e.cfg.Geo.Files {
		if ctx.Err() != nil {
			return
		}
		db, err := geo.Read(path)
		files = append(files, geo.File{Path: path, DB: db, Err: err})
		if err != nil {
			s.warn("geo", hint.Of(err), "%s; bans need no such file", errorLine(err))
			continue
		}
		e.examineGeoFile(s, path, db)
	}
	for _, lack := range geo.IneffectiveMultipliers(e.cfg.Geo.Multiply, files) {
		s.warn("geo", lack.Try, "%s", errorLine(lack))
	}
	e.proveGeoLookup(s, files)
}

func (e *exam) examineGeoFile(s subject, path string, db *geo.DB) {
	about := printable.Limit(path, 200)
	if err := db.Verify(); err != nil {
		s.warn("geo", "geoipupdate, or download it again", "%s: what can be read is used, but it %s", about,
			errorLine(err))
	}
	var knows []string
	if db.Country {
		knows = append(knows, "countries")
	}
	if db.ASN {
		knows = append(knows, "networks")
	}
	detail := fmt.Sprintf("%s (%s) knows %s", about, printable.Limit(db.Type, 60), strings.Join(knows, " and "))
	switch age := time.Since(db.Built); {
	case db.Built.IsZero():
		s.ok("geo", "%s; when it was built, it does not say", detail)
	case age > geo.StaleAge:
		s.warn("geo", renewGeoFiles, "%s, as of %s, %s ago: addresses move", detail, db.Built.Format(time.DateOnly),
			roughDuration(age))
	default:
		s.ok("geo", "%s, as of %s", detail, db.Built.Format(time.DateOnly))
	}
}

// proveGeoLookup looks well-known addresses up, until the files know one.
func (e *exam) proveGeoLookup(s subject, files []geo.File) {
	usable := false
	for _, f := range files {
		usable = usable || f.DB != nil
	}
	if !usable {
		return
	}
	for _, l := range wellKnownAddresses {
		if p := geo.PlaceIn(files, netip.MustParseAddr(l)); p != (ban.Place{}) {
			where := p.Country
			if p.ASN != 0 {
				where = strings.TrimSpace(fmt.Sprintf("%s AS%d %s", where, p.ASN, printable.Limit(p.ASName, 60)))
			}
			s.ok("geo lookup", "%s is registered in %s", l, where)
			return
		}
	}
	s.warn("geo lookup", "ringwall why ADDR with an address that you know; if it names no place, another file",
		"the files know none of %s: are they about the whole Internet?", strings.Join(wellKnownAddresses[:], ", "))
}
