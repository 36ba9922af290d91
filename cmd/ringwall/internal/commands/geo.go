package commands

import (
	"fmt"
	"net/netip"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/geo"
	"github.com/ringwall/ringwall/pkg/hint"
)

// readGeo reads the geo files of a configuration, and returns what is wrong with them: none of it keeps the daemon from
// its work.
func (c *commands) readGeo(cfg *config.Config) (files []geo.File, warnings []config.Warning) {
	if cfg == nil {
		return nil, nil
	}
	warn := func(key string, err error) {
		warnings = append(warnings, config.Warning{File: c.config, Key: key, What: err.Error(), Try: hint.Of(err)})
	}
	for i, path := range cfg.Geo.Files {
		db, err := geo.Read(path)
		if err != nil {
			warn(fmt.Sprintf("geo.files[%d]", i), err)
		} else if age := c.Now().Sub(db.Built); !db.Built.IsZero() && age > geo.StaleAge {
			warn(fmt.Sprintf("geo.files[%d]", i),
				&geo.Error{Path: path, What: fmt.Sprintf("is %d days old: addresses move", int(age/day)),
					Try: "geoipupdate, and a timer that runs it every week"})
		}
		files = append(files, geo.File{Path: path, DB: db, Err: err})
	}
	for _, lack := range geo.IneffectiveMultipliers(cfg.Geo.Multiply, files) {
		warnings = append(warnings, config.Warning{File: c.config, Key: lack.Path, What: lack.What, Try: lack.Try})
	}
	return files, warnings
}

// placeLookup looks addresses up in files that were read, as the daemon does.
func placeLookup(files []geo.File) func(netip.Addr) ban.Place {
	return func(a netip.Addr) ban.Place { return geo.PlaceIn(files, a) }
}
