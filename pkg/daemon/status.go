package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/metrics"
)

// Status implements api.Backend.
func (b backend) Status(context.Context) (api.Status, error) {
	cfg := b.config.currentConfig()
	s := api.Status{
		Version: b.opts.Version, PID: os.Getpid(), Time: time.Now(), Started: b.started,
		Uptime: time.Since(b.started).Seconds(), Mode: string(cfg.Policy.Mode),
		PBXs: []api.PBXStatus{}, ObserveOnly: []api.Observed{}, Warnings: []api.Warning{},
	}
	b.config.mu.Lock()
	s.Config = api.ConfigStatus{Path: b.config.path, Loaded: b.config.loaded}
	if b.config.err != nil {
		s.Config.Error, s.Config.InForce = b.config.err.Error(), b.config.inForce
	}
	for _, w := range b.config.warnings {
		s.Warnings = append(s.Warnings, api.Warning{Text: w.String()})
	}
	b.config.mu.Unlock()
	if s.Config.Restart = b.config.changedSinceStart(); len(s.Config.Restart) > 0 {
		s.Warnings = append(s.Warnings, api.Warning{
			Text: "changed in the configuration, but not in force before a restart: " +
				strings.Join(s.Config.Restart, ", "),
			Try: "systemctl restart ringwall; bans stay in force",
		})
	}
	for _, p := range b.pbxs {
		s.PBXs = append(s.PBXs, p.pbxStatus())
	}
	var proxies []netip.Prefix
	b.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) {
		s.Engine, proxies = e.Stats(now), e.SuspectedProxies()
	})
	s.Kernel = b.kernelStatus(cfg, s.Engine.Bans)
	s.Ports = b.ports.portsStatus()
	s.Dropped = b.drops.latestDrops()
	s.Sensors, s.Signatures = b.sensors.sensorStatus(cfg.Sensors), b.sensors.marks.hits()
	s.Warnings = append(s.Warnings, b.sensors.marks.warnings(time.Now())...)
	s.Warnings = append(s.Warnings, portWarnings(s.Ports)...)
	s.Warnings = append(s.Warnings, leakWarnings(s)...)
	for _, name := range sortedKeys(cfg.Policy.Services) {
		if cfg.Policy.Services[name] == config.Observe && len(cfg.Asterisk) > 0 {
			why := "policy.services says so"
			if name == "SIP" {
				why = "chan_sip reports whatever address the attacker writes into Via; use PJSIP"
			}
			s.ObserveOnly = append(s.ObserveOnly, api.Observed{Service: name, Why: why})
		}
	}
	if off := b.pipeline.Clock().Offset(); off.Abs() > time.Minute {
		s.Warnings = append(s.Warnings, api.Warning{
			Text: fmt.Sprintf("the clock was set by %v since the start: times of bans are shown as of before",
				off.Round(time.Second)),
			Try: "systemctl restart ringwall; bans stay in force",
		})
	}
	s.Warnings = append(s.Warnings, b.faults.faultWarnings()...)
	s.Warnings = append(s.Warnings, b.allowed.listWarnings()...)
	s.Warnings = append(s.Warnings, b.lostWarnings()...)
	s.Warnings = append(s.Warnings, b.allowSources.hostWarnings()...)
	var places, ofFleet []api.Warning
	s.Fleet, ofFleet = b.fleet.status()
	s.Warnings = append(s.Warnings, ofFleet...)
	s.Geo, places = b.geoStatus(cfg.Geo, time.Now())
	s.Warnings = append(s.Warnings, places...)
	if b.store != nil && b.store.Err() != nil {
		s.Warnings = append(s.Warnings, api.Warning{
			Text: "what happens is not saved: " + b.store.Err().Error(), Try: "look at the disk of " + cfg.State.Path,
		})
	}
	s.Lists, s.CrowdSec = b.lists.statuses(), b.crowdSec.status()
	s.Warnings = append(s.Warnings, listWarnings(s.Lists)...)
	s.Warnings = append(s.Warnings, proxyWarnings(proxies)...)
	for _, limit := range sortedKeys(s.Engine.Limited) {
		s.Warnings = append(s.Warnings, api.Warning{
			Text: fmt.Sprintf("the bound %q was hit %d times", limit, s.Engine.Limited[limit]),
			Try:  "see policy.limits and policy.max_sources",
		})
	}
	return s, nil
}

// maxProxyWarnings is how many proxies are named; of more the number is said.
const maxProxyWarnings = 10

// proxyWarnings name sources that look like a proxy, with what to do.
func proxyWarnings(proxies []netip.Prefix) (list []api.Warning) {
	for i, p := range proxies {
		if i == maxProxyWarnings {
			return append(list, api.Warning{
				Text: humanize.Plural(len(proxies)-i, "source more looks", "sources more look") + " like a proxy",
				Try:  "ringwall history --since 30d tells each of them once a day, as proxy",
			})
		}
		list = append(list, api.Warning{
			Text: humanize.Prefix(p) + " looks like a proxy: many accounts log in through it, so it is never banned " +
				"as a whole, and attackers behind it are only reported",
			Try: "if you know it: ringwall allow add " + humanize.Prefix(p) + ", or name it in " +
				"policy.proxies.addresses\nand at the proxy: a Ringwall with its Asterisk, or the proxy's own " +
				"limits; it alone knows who is behind it",
		})
	}
	return list
}

// leakWarnings warn of banned sources that get through.
func leakWarnings(s api.Status) []api.Warning {
	if s.Engine.Leaking == 0 || s.Engine.LastLeak == nil {
		return nil
	}
	w := api.Warning{
		Text: fmt.Sprintf("%d banned sources got through to Asterisk within the last hour, the last at %s",
			s.Engine.Leaking,
			s.Engine.LastLeak.Format("15:04:05 MST")),
		Try: "ringwall history, for the ports that they came to; ringwall doctor",
	}
	if s.Engine.Leaking == 1 {
		w.Text = "one banned source got through to Asterisk within the last hour, the last time at " +
			s.Engine.LastLeak.Format("15:04:05 MST")
	}
	return []api.Warning{w}
}

func (d *Daemon) kernelStatus(cfg *config.Config, desired int) api.KernelStatus {
	k := api.KernelStatus{Table: "inet " + cfg.Firewall.Table, DryRun: d.opts.DryRun, Desired: desired}
	if d.opts.DryRun {
		k.DryRunReason = "asked for"
	}
	err := d.kernelError()
	if k.OK = err == nil; err != nil {
		k.LastError, k.Try = err.Error(), kernelHint(err)
	}
	n, at := d.kernel.estimatePresent(desired)
	k.Present = n
	if !at.IsZero() {
		k.PresentTime = &at
	}
	if t, ok := d.fw.(*firewall.Table); ok {
		k.Owner, _ = t.IsOwned()
	}
	dropped := d.kernel.droppedPackets(d.fw)
	for _, set := range sortedKeys(dropped) {
		k.Dropped = append(k.Dropped, api.Count{Name: set, Count: dropped[set]})
	}
	d.kernel.mu.Lock()
	defer d.kernel.mu.Unlock()
	for _, cause := range sortedKeys(d.kernel.rebuilds) {
		k.Rebuilds = append(k.Rebuilds, api.Count{Name: cause, Count: d.kernel.rebuilds[cause]})
	}
	return k
}

// errBuilding is the state before everything desired is in the kernel for the first time.
var errBuilding = errors.New("the bans are being put into the kernel")

// kernelError says what is wrong with the kernel's table, nil if nothing is.
func (d *Daemon) kernelError() error {
	select {
	case <-d.allBuilt:
	default:
		return errBuilding
	}
	if err := d.writer.Err(); err != nil {
		return err
	}
	return d.fw.VerifyTable()
}

// Present implements metrics.Source.
func (d *Daemon) Present() metrics.Present {
	fleetBans := 0
	p := metrics.Present{Bans: make(map[metrics.BanKind]int), DroppedPackets: d.kernel.droppedPackets(d.fw)}
	d.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) {
		stats := e.Stats(now)
		p.TrustedSources, p.TrackedSources, p.Limited, p.BansDesired = stats.Trusted, stats.Sources, stats.Limited,
			stats.Bans
		p.Leaks, p.Leaking = stats.Leaks, stats.Leaking
		for _, n := range stats.InForce {
			p.Bans[metrics.BanKind{IPv6: n.V6, Scope: n.Scope}] += n.Count
		}
		p.GoodFlows, p.SlowFlows, p.SlowSources, p.Trickles = stats.GoodFlows, stats.SlowFlows, stats.SlowSources,
			stats.Trickles
		p.Proxies, fleetBans = stats.Proxies, stats.FleetBans
	})
	p.Sensors = d.sensors.presentSensors(d.config.currentConfig().Sensors)
	p.SignatureHits = d.sensors.marks.hitsByList()
	p.Lists, p.CrowdSec = d.lists.presentLists(), d.crowdSec.present()
	if p.Fleet = d.fleet.present(); p.Fleet != nil {
		p.Fleet.Bans = fleetBans
	}
	for _, dropped := range d.drops.latestDrops() {
		if dropped.Serious() {
			p.AllowedDropped++
		}
	}
	p.BansPresent, _ = d.kernel.estimatePresent(p.BansDesired)
	p.KernelOK = d.kernelError() == nil
	p.Enforcing = d.config.currentConfig().Policy.Mode == config.Enforce && !d.opts.DryRun
	p.StateSaved = d.store != nil && d.store.Err() == nil
	for _, b := range d.pbxs {
		p.PBXs = append(p.PBXs, b.metricsView())
	}
	return p
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
