package commands

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/crowdsec"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
)

func (c *commands) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the daemon, its Asterisks and the kernel are",
		Args:  takesArgs(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := c.askStatus(cmd)
			if err != nil {
				return c.explainDown(err)
			}
			if c.json {
				return c.writeJSON(st)
			}
			return c.sayStatus(st)
		},
	}
}

// askStatus asks the daemon how all is.
func (c *commands) askStatus(cmd *cobra.Command) (api.Status, error) {
	client, err := c.newClient(cmd)
	if err != nil {
		return api.Status{}, err
	}
	return client.Status(cmd.Context())
}

// explainDown adds to the error of a daemon that does not run whether bans are still in the kernel, and how to let
// everybody in without it.
func (c *commands) explainDown(err error) error {
	var e *api.Error
	if !errors.As(err, &e) || !errors.Is(err, api.ErrNotRunning) {
		return err
	}
	table := config.Default().Firewall.Table
	env := c.Env
	env.WithoutSecrets = true
	if config, _, err := config.Load(c.config, env); err == nil {
		table = config.Firewall.Table
	}
	if tableIsGone(table) {
		return hint.Errorf(e.Try, "%w; nor is its table in the kernel: nobody is kept out", e)
	}
	return hint.Errorf(e.Try+"; to let everybody in at once: ringwall panic, or: nft delete table inet "+table,
		"%w; bans of before stay in the kernel until they end", e)
}

// tableIsGone reports whether the kernel has no such table. Where this user may not ask the kernel it is false: a
// daemon that is down leaves its table there.
func tableIsGone(table string) bool {
	check, err := firewall.NewCheck(firewall.Config{Table: table})
	if err != nil {
		return false
	}
	defer check.Close()
	state, err := check.TableState()
	return err == nil && !state.Exists
}

func (c *commands) sayStatus(st api.Status) error {
	mode := "attackers are banned"
	switch {
	case st.Mode != "enforce" && st.Engine.Bans > 0:
		mode = "observing only: nobody more is banned"
	case st.Mode != "enforce":
		mode = "observing only: nobody is banned"
	case st.Kernel.DryRun:
		mode = "dry run: nobody is banned"
	case !st.Healthy():
		mode = "NOT WELL, see below"
	case len(st.Ports.OpenPorts()) > 0:
		mode = "attackers are banned, BUT NOT AT EVERY PORT, see below"
	}
	c.sayf("Ringwall %s, up %s (pid %d): %s", printable.String(st.Version),
		humanize.Duration(humanize.FromSeconds(st.Uptime)), st.PID, mode)
	c.sayf("")

	if len(st.PBXs) == 0 {
		c.sayf("There is no Asterisk here: it keeps out whom the nodes of its fleet saw.")
	}
	t := table{header: []string{"ASTERISK", "STATE", "SINCE", "EVENTS", "LAG", "NOTE"},
		rightAligned: map[int]bool{3: true, 4: true}, cutOrder: []int{5}}
	for _, p := range st.PBXs {
		state, late := "up", lagText(p.Lag)
		if !p.Up {
			state, late = "DOWN", "-"
		}
		t.addRow(printable.String(p.Name), state, c.shortTime(p.Since), strconv.FormatUint(p.Events, 10), late,
			pbxNote(p))
	}
	if len(st.PBXs) > 0 {
		if err := t.flushTo(c.out, c.Columns); err != nil {
			return err
		}
	}
	c.sayf("")
	for _, line := range slices.Concat(sensorLines(st.Sensors, c.Now()), engineLines(st), kernelLines(st.Kernel),
		portLines(st.Ports), fleetLines(st),
		listLines(st.Lists, c.Now()), crowdSecLines(st.CrowdSec), geoLines(st.Geo, c.Now())) {
		c.sayf("%-9s %s", line[0], line[1])
	}
	c.sayWarnings(st)
	return nil
}

// fleetLines are the fleet at a glance.
func fleetLines(st api.Status) [][2]string {
	f := st.Fleet
	switch {
	case f == nil:
		return nil
	case !f.Connected || !f.CaughtUp:
		return [][2]string{{"Fleet", "NOT CONNECTED: this node goes on alone with what it knew"}}
	}
	silent := 0
	for i := range f.Nodes {
		if f.Nodes[i].Silent {
			silent++
		}
	}
	text := fmt.Sprintf("connected; %s known, and %s on the word of others",
		humanize.Plural(len(f.Nodes), "node is", "nodes are"),
		humanize.Plural(st.Engine.FleetBans, "ban is", "bans are"))
	if silent > 0 {
		text += fmt.Sprintf("; %d SILENT", silent)
	}
	return [][2]string{{"Fleet", text + " (ringwall fleet status)"}}
}

func lagText(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(100 * time.Microsecond).String()
}

func pbxNote(p api.PBXStatus) string {
	var notes []string
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	if !p.Up && p.LastError != "" {
		note("%s", printable.Line(p.LastError))
	}
	if p.Version != "" {
		note("%s", printable.String(p.Version))
	}
	if p.Learned > 0 {
		note("%s known", humanize.Plural(p.Learned, "contact or trunk", "contacts and trunks"))
	}
	if p.DroppedFrames > 0 {
		note("%d frames LOST", p.DroppedFrames)
	}
	if p.Tampered > 0 {
		note("%d frames tampered with", p.Tampered)
	}
	if p.Reconnects > 0 {
		note("%s", humanize.Plural(int(p.Reconnects), "reconnect", "reconnects"))
	}
	if p.Blind >= 1 {
		note("blind for %s", humanize.Duration(humanize.FromSeconds(p.Blind)))
	}
	return strings.Join(notes, ", ")
}

// sensorLines says of each sense besides Asterisk's events whether it is alive.
func sensorLines(sensors []api.Sensor, now time.Time) (lines [][2]string) {
	for _, s := range sensors {
		text := ""
		switch {
		case s.Off:
			continue
		case !s.Alive:
			text = "DOES NOT WORK: " + printable.Line(s.Error)
		case s.LastHeard == nil:
			text = "has heard nothing yet"
		default:
			text = fmt.Sprintf("%s, the last %s ago, %s later", humanize.Plural(int(s.Heard), "packet", "packets"),
				humanize.Duration(max(0, now.Sub(*s.LastHeard))), lagText(s.Lag))
		}
		if s.Lost > 0 {
			text += fmt.Sprintf("; %d LOST", s.Lost)
		}
		name := map[string]string{"tap": "Packets", "hep": "HEP"}[s.Name]
		lines = append(lines, [2]string{cmp.Or(name, printable.String(s.Name)), text})
	}
	return lines
}

func engineLines(st api.Status) [][2]string {
	e := st.Engine
	bans := humanize.Plural(e.Bans, "ban", "bans") + " in force"
	if e.Observed > 0 {
		bans += fmt.Sprintf(", %d observed only", e.Observed)
	}
	if st.Mode != "enforce" && e.Bans > 0 {
		bans += ": they stay until they end, or ringwall unban --all"
	}
	if e.Suspended > 0 {
		bans += fmt.Sprintf(", %d suspended by a storm or by grace", e.Suspended)
	}
	lines := [][2]string{
		{"Bans", bans},
		{"Sources", fmt.Sprintf("%d trusted, %d tracked", e.Trusted, e.Sources)},
	}
	if s := narrowText(e); s != "" {
		lines = append(lines, [2]string{"Narrow", s})
	}
	if e.Leaking > 0 {
		leak := humanize.Plural(e.Leaking, "banned source", "banned sources") + " got through within the last hour"
		if st.Leaking() {
			leak += ", and STILL DO"
		}
		lines = append(lines, [2]string{"Leaks", leak})
	}
	for _, name := range slices.Sorted(maps.Keys(e.Limited)) {
		lines = append(lines, [2]string{"Limit",
			fmt.Sprintf("%d bans not made: %s", e.Limited[name], humanize.Words(name))})
	}
	return lines
}

// narrowText says what is cut, slow and spared while its neighbours are judged otherwise; empty where nothing is.
func narrowText(e engine.Stats) string {
	var parts []string
	add := func(n int, one, many string) {
		if n > 0 {
			parts = append(parts, humanize.Plural(n, one, many))
		}
	}
	add(e.CutFlows, "connection cut", "connections cut")
	add(e.SlowFlows+e.SlowSources, "slow lane", "slow lanes")
	add(e.Trickles, "source slow over UDP but for its phones", "sources slow over UDP but for their phones")
	add(e.GoodFlows, "sender that no automatic ban stops", "senders that no automatic ban stops")
	return strings.Join(parts, ", ")
}

func kernelLines(k api.KernelStatus) [][2]string {
	state := "is in place"
	switch {
	case k.DryRun:
		state = "is not touched (" + printable.Line(k.DryRunReason) + ")"
	case !k.OK:
		state = "is NOT as it should be"
	case k.Owner:
		state += " and protected from nft flush"
	}
	lines := [][2]string{
		{"Kernel", fmt.Sprintf("table %s %s; %d bans wanted, %d present", printable.String(k.Table), state, k.Desired,
			k.Present)},
	}
	dropping := slices.DeleteFunc(slices.Clone(k.Dropped), func(n api.Count) bool { return n.Count == 0 })
	switch {
	case len(dropping) > 0:
		lines = append(lines, [2]string{"Dropped", "packets by set: " + countsText(dropping)})
	case len(k.Dropped) > 0:
		lines = append(lines, [2]string{"Dropped", "no packet yet"})
	}
	if s := countsText(k.Rebuilds); s != "" {
		lines = append(lines, [2]string{"Rebuilt", s})
	}
	return lines
}

// portLines say which ports a ban closes, and which of them were found.
func portLines(p api.PortsStatus) [][2]string {
	if p.All {
		return [][2]string{{"Closed", "every port, to the banned (firewall.scope: all)"}}
	}
	if len(p.UDP)+len(p.TCP) == 0 {
		return nil
	}
	var open, published []string
	for _, f := range p.Found {
		name := f.Name()
		if f.Open {
			open = append(open, name)
		}
		if f.Behind != 0 {
			published = append(published, fmt.Sprintf("%s for Asterisk's %d", name, f.Behind))
		}
	}
	how := "to the banned"
	if p.Auto {
		how += ", and wherever else Asterisk is found"
	}
	lines := [][2]string{{"Closed", p.ClosedPorts() + " " + how}}
	if len(published) > 0 {
		lines = append(lines, [2]string{"NAT", "publishes " + strings.Join(published, ", ")})
	}
	if len(open) > 0 {
		lines = append(lines, [2]string{"OPEN",
			strings.Join(open, ", ") + ", where Asterisk listens: bans stop nothing there"})
	}
	return lines
}

// listLines say how each list of attackers is.
func listLines(all []api.ListStatus, now time.Time) (lines [][2]string) {
	for _, l := range all {
		text := fmt.Sprintf("%s: %s, %s", printable.String(l.Name), humanize.Plural(l.Entries, "entry", "entries"),
			humanize.Plural(int(l.Packets), "packet", "packets"))
		switch {
		case l.Mode == "observe":
			text += " counted"
		default:
			text += " dropped"
		}
		if l.Fetched != nil {
			text += fmt.Sprintf(", fetched %s ago", humanize.Duration(max(0, now.Sub(*l.Fetched))))
		}
		if note := listNote(l); l.Error != "" || l.Over || l.Stale {
			text += "; " + note
		}
		lines = append(lines, [2]string{"List", text})
	}
	return lines
}

// crowdSecLines say what a LAPI was told.
func crowdSecLines(s *crowdsec.Status) [][2]string {
	if s == nil {
		return nil
	}
	text := fmt.Sprintf("%s: %s told", printable.String(s.URL), humanize.Plural(s.Told, "ban", "bans"))
	for _, part := range []struct {
		n    int
		text string
	}{{s.Waiting, "waiting"}, {s.LeftOut, "without room"}, {s.OnAllowList, "on its allow lists"}} {
		if part.n > 0 {
			text += fmt.Sprintf(", %d %s", part.n, part.text)
		}
	}
	if s.Error != "" {
		text += "; " + printable.Line(s.Error)
	}
	return [][2]string{{"CrowdSec", text}}
}

// geoLines say which files know places, and how old they are.
func geoLines(files []api.GeoFile, now time.Time) [][2]string {
	var lines [][2]string
	for _, f := range files {
		knows := "cannot be used"
		switch {
		case f.Country && f.ASN:
			knows = "countries and networks"
		case f.Country:
			knows = "countries"
		case f.ASN:
			knows = "networks"
		}
		line := printable.Limit(f.Path, 60) + ": " + knows
		if f.Built != nil {
			line += fmt.Sprintf(" of %s, %s old", f.Built.Format(time.DateOnly),
				humanize.Plural(int(now.Sub(*f.Built)/day), "day", "days"))
		}
		lines = append(lines, [2]string{"Places", line})
	}
	return lines
}

func countsText(list []api.Count) string {
	var parts []string
	for _, n := range list {
		parts = append(parts, fmt.Sprintf("%s %d", printable.String(n.Name), n.Count))
	}
	return strings.Join(parts, ", ")
}

// deniedActions names what Asterisk did not want to do for us.
func deniedActions(list []api.Denied) string {
	var actions []string
	for _, d := range list {
		if d.Action != "Command" { // which nobody should allow
			actions = append(actions, d.Action)
		}
	}
	return humanize.Names(actions, 3)
}

// sayWarnings collects what needs a person, with what to try, under one heading.
func (c *commands) sayWarnings(st api.Status) {
	list := append([]api.Warning(nil), st.Warnings...)
	for _, p := range st.PBXs {
		if !p.Up && p.Try != "" {
			list = append(list, api.Warning{Text: p.Name + ": " + p.LastError, Try: p.Try})
		}
		if len(p.Denied) > 0 {
			list = append(list, api.Warning{
				Text: fmt.Sprintf("%s does not tell Ringwall its trunks and contacts (%s): only policy.allow "+
					"protects your providers", p.Name, deniedActions(p.Denied)),
				Try: "ringwall doctor says what Asterisk would have to allow",
			})
		}
	}
	for _, d := range st.Dropped {
		list = append(list, api.Warning{Text: d.Text(), Try: d.Try})
	}
	if st.Kernel.LastError != "" {
		list = append(list, api.Warning{Text: "kernel: " + st.Kernel.LastError, Try: st.Kernel.Try})
	}
	if st.Config.Error != "" {
		list = append(list, api.Warning{
			Text: st.Config.Fault(), Try: "ringwall check --config " + st.Config.Path,
		})
	}
	for _, o := range st.ObserveOnly {
		list = append(list, api.Warning{Text: fmt.Sprintf("service %s never leads to a ban: %s", o.Service, o.Why)})
	}
	if len(list) == 0 {
		return
	}
	c.sayf("")
	c.sayf("Note:")
	for _, w := range list {
		c.sayf("- %s", w.Text)
		if w.Try != "" {
			first, more, _ := strings.Cut(w.Try, "\n")
			c.sayf("  Try: %s", first)
			for line := range strings.SplitSeq(more, "\n") {
				if line != "" {
					c.sayf("       %s", line)
				}
			}
		}
	}
}
