package daemon

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/hosts"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/store"
)

// byKernel stands in the place of the person who allowed an entry, and in its note, where only the kernel knew of it.
const byKernel = "found in the kernel when the state was lost"

// foundAllowed returns what the kernel lets pass though neither the configuration nor the stored list has it, where
// that list is lost: a command may have allowed it, and whom a person allowed is not banned because a file is gone.
// Somebody may have been taken out of the configuration at the same moment: then he stays, and a person is told. The
// same entries in a kernel beside a list that is known are of an earlier configuration, and end.
func (d *Daemon) foundAllowed(cfg *config.Config, stored []store.Allow) (found []store.Allow, err error) {
	if !d.allowed.listIsLost() {
		return nil, nil
	}
	own, err := hosts.OwnPrefixes()
	if err != nil {
		return nil, err
	}
	known := slices.Collect(maps.Keys(own))
	for _, e := range stored {
		known = append(known, e.Prefix)
	}
	for _, e := range cfg.Policy.Allow {
		known = append(known, e.Prefix)
	}
	inKernel, err := d.fw.Elements(firewall.Allow)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, el := range inKernel {
		p := el.Prefix
		covers := func(k netip.Prefix) bool { return k.IsValid() && k.Bits() <= p.Bits() && k.Contains(p.Addr()) }
		if p.Bits() < minBits(p.Addr()) || slices.ContainsFunc(known, covers) {
			continue // no command allows so wide a network
		}
		found = append(found, store.Allow{Prefix: p, Added: d.pipeline.Clock().Now(), By: byKernel, Note: byKernel})
		names = append(names, humanize.Prefix(p))
	}
	d.allowed.addFound(found)
	if len(found) > 0 {
		d.log.Warn("what the kernel lets pass stays allowed, since the list of who was allowed by a command is lost",
			"because", d.stateLost, "allowed", names, "try", foundHint)
	}
	return found, nil
}

// foundHint is what to do about entries that were found in the kernel.
const foundHint = "ringwall list allow; whom you allow, for good: ringwall allow add ENTRY; whom you do not: " +
	"ringwall allow del ENTRY"

// dropExplained forgets of what was found in the kernel all that turns out to be somebody else's matter: a trunk of
// Asterisk's, an address of a host name, a login. It goes when they let it go.
func (d *Daemon) dropExplained() {
	found := d.allowed.foundEntries()
	if len(found) == 0 {
		return
	}
	var explained []netip.Prefix
	d.pipeline.UpdateEngine(func(e *engine.Engine, _ time.Time) []ban.Decision {
		var records []store.Change
		for _, p := range found {
			if e.DisallowDuplicate(p, engine.OriginManual, byKernel) {
				explained = append(explained, p)
				records = append(records, store.DropAllow(p, ""))
			}
		}
		d.pipeline.SaveChanges(records) // before a command can put one that is meant
		return nil
	})
	d.allowed.dropFound(explained)
}

// lostWarnings say what a start without the state of before has kept, and what it has not.
func (d *Daemon) lostWarnings() (out []api.Warning) {
	if adopted := d.restorer.Adopted(); d.stateLost != "" && (d.foundAny || adopted > 0) {
		goOn := ""
		if adopted > 0 {
			goOn = humanize.Plural(adopted, "ban that only the kernel knew goes on",
				"bans that only the kernel knew go on") +
				"; "
		}
		out = append(out, api.Warning{
			Text: "at the start, " + d.stateLost + ": " + goOn +
				"who was trusted, who had a grace and who was banned before is forgotten",
			Try: "look at what became of " + filepath.Dir(d.config.currentConfig().State.Path) +
				"; to let somebody in: ringwall unban ADDRESS --grace 1h",
		})
	}
	var names []string
	for _, p := range d.allowed.foundEntries() {
		names = append(names, humanize.Prefix(p))
	}
	if len(names) == 0 {
		return out
	}
	const most = 5
	return append(out, api.Warning{
		Text: fmt.Sprintf("%s allowed only because the kernel let them pass when the state was lost: %s",
			humanize.Plural(len(names), "entry is", "entries are"), humanize.Names(names, most)),
		Try: foundHint,
	})
}
