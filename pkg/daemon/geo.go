package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/geo"
	"github.com/ringwall/ringwall/pkg/printable"
)

// openGeo reads the geo files. What is wrong with them is a warning: nobody is banned the less for it.
func (d *Daemon) openGeo(cfg *config.Config) {
	d.geoFiles = geo.New(d.log, cfg.Geo.Files...)
	d.tasks = append(d.tasks, d.geoFiles)
	d.pipeline.ReadEngine(func(e *engine.Engine, _ time.Time) {
		e.SetMultipliers(cfg.Geo.Multiply, d.placeOf)
		e.SetLocate(d.placeOf)
	})
}

// placeOf returns where an address is registered.
func (d *Daemon) placeOf(addr netip.Addr) ban.Place { return d.geoFiles.Place(addr) }

// geoStatus is the geo files at a glance, and what a person should look at.
func (d *Daemon) geoStatus(cfg config.Geo, now time.Time) (list []api.GeoFile, warnings []api.Warning) {
	for _, f := range d.geoFiles.Files() {
		v := api.GeoFile{Path: f.Path}
		if db := f.DB; db != nil {
			loaded := f.Loaded
			v.Type, v.Loaded, v.Bytes, v.Country, v.ASN = db.Type, &loaded, db.Bytes, db.Country, db.ASN
			if !db.Built.IsZero() {
				v.Built = &db.Built
			}
			if age := now.Sub(db.Built); v.Built != nil && age > geo.StaleAge {
				warnings = append(warnings, api.Warning{Text: fmt.Sprintf("the geo file %s is %d days old: addresses "+
					"move",
					printable.Limit(f.Path, 200), int(age.Hours()/24)),
					Try: "geoipupdate, and a timer that runs it every week"})
			}
		}
		if f.Err != nil {
			v.Error = f.Err.Error()
			if e, ok := errors.AsType[*geo.Error](f.Err); ok {
				v.Error, v.Try = e.What, e.Try
			}
			text := "the geo file " + printable.Limit(f.Path, 200) + " " + v.Error
			if f.DB != nil {
				text += "; the one that was read before is still used"
			}
			warnings = append(warnings, api.Warning{Text: text, Try: v.Try})
		}
		list = append(list, v)
	}
	for _, lack := range geo.IneffectiveMultipliers(cfg.Multiply, d.geoFiles.Files()) {
		warnings = append(warnings, api.Warning{Text: lack.Error(), Try: lack.Try})
	}
	return list, warnings
}
