package geo

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"

	"github.com/ringwall/ringwall/pkg/ban"
)

// DB is one file, in memory. Its methods may be called from many goroutines.
type DB struct {
	Type    string // as the file calls itself, such as GeoLite2-Country: foreign text
	Built   time.Time
	Bytes   int64
	Country bool // it knows countries
	ASN     bool // it knows autonomous systems

	reader *maxminddb.Reader
	layout layout
}

// How much of a file is looked at to learn what it knows. Both are bounds against a search tree that has no end.
const (
	maxSteps  = 1 << 16 // networks
	maxSample = 256     // of them with an entry
)

// Parse takes over data, which must not change any more. It returns an [*Error] without a Path.
func Parse(data []byte) (db *DB, err error) {
	defer func() { // the parser is fuzzed, and a file is no reason to end a daemon
		if p := recover(); p != nil {
			db, err = nil, damagedError(fmt.Errorf("%v", p))
		}
	}()
	return parseData(data)
}

func parseData(data []byte) (*DB, error) {
	reader, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, damagedError(err)
	}
	m := &reader.Metadata
	switch {
	case m.BinaryFormatMajorVersion != 2:
		return nil, damagedError(fmt.Errorf("version %d of the format", m.BinaryFormatMajorVersion))
	case m.IPVersion != 4 && m.IPVersion != 6, m.RecordSize != 24 && m.RecordSize != 28 && m.RecordSize != 32,
		m.NodeCount == 0:
		return nil, damagedError(errors.New("its description of itself makes no sense"))
	}
	db := &DB{Type: cleanName(m.DatabaseType), Bytes: int64(len(data)), reader: reader}
	if m.BuildEpoch > 0 && uint64(m.BuildEpoch) < 1<<40 {
		db.Built = time.Unix(int64(m.BuildEpoch), 0).UTC()
	}
	for _, l := range []layout{maxmindLayout, ipinfoLayout} {
		if err := db.detectContents(l); err != nil {
			return nil, err
		}
		if db.Country || db.ASN {
			return db, nil
		}
	}
	return nil, &Error{What: "knows neither countries nor autonomous systems",
		Try: "a file such as GeoLite2-Country.mmdb or GeoLite2-ASN.mmdb"}
}

// detectContents looks at the first entries, to learn what the file knows.
func (db *DB) detectContents(l layout) error {
	db.layout = l
	steps, entries := 0, 0
	for result := range db.reader.Networks(maxminddb.IncludeNetworksWithoutData(), maxminddb.IncludeAliasedNetworks()) {
		if err := result.Err(); err != nil {
			return damagedError(err)
		}
		if result.Found() {
			p, err := l.readPlace(&result)
			if broken := (maxminddb.InvalidDatabaseError{}); errors.As(err, &broken) {
				return damagedError(err)
			}
			db.Country, db.ASN = db.Country || p.Country != "", db.ASN || p.ASN != 0
			entries++
		}
		if steps++; steps == maxSteps || entries == maxSample || db.Country && db.ASN {
			break
		}
	}
	return nil
}

// Place returns where an address is registered, as far as the file knows.
func (db *DB) Place(addr netip.Addr) (p ban.Place) {
	defer func() { // see Parse
		if recover() != nil {
			p = ban.Place{}
		}
	}()
	p, _ = db.lookupPlace(addr) // a damaged entry tells nothing
	return p
}

func (db *DB) lookupPlace(addr netip.Addr) (ban.Place, error) {
	addr = addr.Unmap()
	if !addr.IsValid() {
		return ban.Place{}, nil
	}
	result := db.reader.Lookup(addr)
	if !result.Found() {
		return ban.Place{}, result.Err() // of an IPv6 address in a file for IPv4 too
	}
	return db.layout.readPlace(&result)
}

// Verify reads the whole file, which takes seconds where it is large, and returns what is wrong with it.
func (db *DB) Verify() (err error) {
	defer func() { // see Parse
		if p := recover(); p != nil {
			err = damagedError(fmt.Errorf("%v", p))
		}
	}()
	if err := db.reader.Verify(); err != nil {
		return damagedError(err)
	}
	return nil
}
