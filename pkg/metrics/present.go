package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringwall/ringwall/pkg/ban"
)

// Present is what has a value at the moment of a scrape.
type Present struct {
	Sensors []SensorPresent
	// SignatureHits are requests with the mark of a scanner's program, by the list: that of Ringwall, or of files.
	SignatureHits  map[string]uint64
	Lists          []ListPresent
	Fleet          *FleetPresent    // nil: there is none
	CrowdSec       *CrowdSecPresent // nil: there is no LAPI
	PBXs           []PBXPresent
	Bans           map[BanKind]int
	GoodFlows      int // of logins, which pass whatever is banned
	SlowFlows      int
	SlowSources    int
	Trickles       int // known good sources of which new senders over UDP are slowed
	Proxies        int // sources that look like one, and that nobody allowed or named
	TrustedSources int
	TrackedSources int
	Limited        map[string]int    // bans or sources that a bound kept out, by the bound
	DroppedPackets map[string]uint64 // by set
	Leaks          uint64            // events of banned sources, since the start
	Leaking        int               // banned sources that got through within the last hour
	AllowedDropped int               // allowed sources and trunks whose packets another firewall drops
	BansDesired    int
	BansPresent    int
	KernelOK       bool // the table is as it should be
	Enforcing      bool // policy.mode is enforce, and this is no dry run
	StateSaved     bool // what happens is saved
}

// BanKind is what bans are counted by; a flow that is cut is one of the scope flow.
type BanKind struct {
	IPv6  bool
	Scope ban.Scope
}

// PBXPresent is one Asterisk at the moment of a scrape.
type PBXPresent struct {
	Name       string
	Up         bool
	Reconnects uint64
	Dropped    map[string]uint64 // by Asterisk's event name
	QueueBytes int
	Blind      float64 // seconds without a session, since the start
	LastEvent  float64 // Unix time; 0 before the first
}

// SensorPresent is a sensor at the moment of a scrape.
type SensorPresent struct {
	Name      string // tap or hep
	Up        bool
	Heard     uint64 // packets
	Lost      uint64
	LastHeard float64           // Unix time; 0 before the first
	Lag       float64           // seconds, of the last packet
	Told      map[string]uint64 // events that it told and Asterisk did not, by type
}

// FleetPresent is a node's part in a fleet at the moment of a scrape.
type FleetPresent struct {
	Connected bool   // and up to date
	Nodes     int    // that were heard, this one among them
	Records   int    // that are known
	Waiting   int    // that the servers have not confirmed
	Refused   uint64 // of what others said
	Bans      int    // in force here on the word of others
	Silent    int    // nodes that should have been heard
	AtBound   int    // nodes of which more was refused of late, for their rate or number
}

// CrowdSecPresent is a LAPI that is told of bans, at the moment of a scrape.
type CrowdSecPresent struct {
	Up                                  bool
	Told, Waiting, LeftOut, OnAllowList int // bans
	Alerts, Failures                    int // since the start
}

// ListPresent is a list of attackers at the moment of a scrape.
type ListPresent struct {
	Name    string
	Entries int
	Packets uint64         // of its sources
	Fetched float64        // Unix time; 0: never
	Stale   bool           // it was not fetched for much longer than it should have been, or never
	Held    bool           // the last that came changed by more than a list does
	LeftOut map[string]int // entries that are not used, by why
}

// Source is asked at each scrape. It must be quick, and may be called at any time.
type Source interface{ Present() Present }

type presentCollector struct {
	source                                                               Source
	up, reconnects, dropped, queue, active, limited                      *prometheus.Desc
	blind, last, kernel, enforcing, saved                                *prometheus.Desc
	trusted, tracked, packets, desired, there                            *prometheus.Desc
	sensorUp, sensorHeard, sensorLost                                    *prometheus.Desc
	sensorLast, sensorLag, sensorTold, signature                         *prometheus.Desc
	leaks, leaking, allowedDropped                                       *prometheus.Desc
	goodFlows, slowLanes, proxies                                        *prometheus.Desc
	fleetConnected, fleetNodes, fleetRecords, fleetWaiting, fleetRefused *prometheus.Desc
	fleetBans, fleetSilent, fleetAtBound                                 *prometheus.Desc
	crowdSecUp, crowdSecBans, crowdSecAlerts, crowdSecFailed             *prometheus.Desc
	listEntries, listPackets, listFetched                                *prometheus.Desc
	listStale, listHeld, listLeftOut                                     *prometheus.Desc
}

func newPresent(s Source) *presentCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &presentCollector{
		source:     s,
		up:         desc(amiUp, "Whether the manager session is up.", "pbx"),
		reconnects: desc(amiReconnects, "Logins after the first.", "pbx"),
		dropped: desc(amiDropped, "Event frames given up because the queue was full, or because of their size.", "pbx",
			"event"),
		queue:  desc(amiQueue, "Bytes of event frames that wait to be handled.", "pbx"),
		active: desc(bansActive, "Bans in force; of the scope flow: connections that are cut.", "family", "scope"),
		goodFlows: desc(goodFlows, "Addresses with a port from which somebody logged in; they pass whatever is "+
			"banned."),
		slowLanes: desc(slowLanes,
			"Of which a few packets get through: a flow, a source, or a source's senders over UDP that never logged "+
				"in.",
			"kind"),
		proxies: desc(proxies, "Sources that look like a proxy, and that nobody allowed or named."),
		limited: desc(limitedTotal, "Bans, sources or challenges that a bound of policy.limits or of memory kept out.",
			"limit"),
		trusted:     desc(trustedSources, "Sources that are trusted because a user logged in from there."),
		tracked:     desc(trackedSources, "Sources that are remembered."),
		sensorUp:    desc(sensorUp, "Whether a sensor works.", "sensor"),
		sensorHeard: desc(sensorHeard, "Packets that a sensor has heard.", "sensor"),
		sensorLost:  desc(sensorLost, "Packets for which a sensor had no room.", "sensor"),
		sensorLast: desc(sensorLastHeard, "Unix time of the latest packet of a sensor; 0 before the first.",
			"sensor"),
		sensorLag:      desc(sensorLag, "Time from a packet to its judgement, of the latest one.", "sensor"),
		sensorTold:     desc(sensorAttempts, "What a sensor told and no event of Asterisk's.", "sensor", "event"),
		signature:      desc(signatureHits, "Requests with the mark of a scanner's program.", "list"),
		fleetConnected: desc(fleetConnected, "Whether this node hears its fleet, and has missed nothing."),
		fleetNodes:     desc(fleetNodes, "Nodes of the fleet that were heard."),
		fleetRecords:   desc(fleetRecords, "What nodes of the fleet said and that still means something."),
		fleetWaiting:   desc(fleetWaiting, "What this node said and the fleet's servers do not have."),
		fleetRefused:   desc(fleetRefused, "What other nodes said and this one refused."),
		fleetBans:      desc(fleetBans, "Bans in force on the word of other nodes of the fleet."),
		fleetSilent:    desc(fleetSilent, "Nodes of the fleet that have not been heard for minutes."),
		fleetAtBound: desc(fleetAtBound, "Nodes of the fleet of which some was refused of late since they say so "+
			"much."),
		crowdSecUp: desc(crowdSecUp, "Whether CrowdSec's LAPI was told of all bans, the last time that it was "+
			"tried."),
		crowdSecBans:   desc(crowdSecBans, "Bans, by whether CrowdSec's LAPI has them.", "state"),
		crowdSecAlerts: desc(crowdSecAlerts, "Alerts that were sent to CrowdSec's LAPI."),
		crowdSecFailed: desc(crowdSecFailures, "Times that CrowdSec's LAPI could not be told."),
		listEntries:    desc(listEntries, "Entries of a list of attackers.", "list"),
		listPackets:    desc(listPackets, "Packets of sources on a list: dropped, or only counted.", "list"),
		listFetched: desc(listFetched, "Unix time of the last time that a list was fetched; 0 before the first.",
			"list"),
		listStale: desc(listStale, "Whether a list was not fetched for three times as long as it should be.",
			"list"),
		listHeld: desc(listHeld, "Whether a list changed by too much, so that the one before is in force.",
			"list"),
		listLeftOut: desc(listLeftOut, "Entries of a list that are not used.", "list", "reason"),
		leaks:       desc(leaksTotal, "Events of sources whose ban should have kept their packets out."),
		leaking:     desc(leakingSources, "Banned sources that got through to Asterisk within the last hour."),
		allowedDropped: desc(allowedDropped,
			"Allowed sources and trunks whose packets another firewall drops."),
		packets:   desc(droppedPackets, "Packets that the kernel dropped.", "set"),
		desired:   desc(bansDesired, "Bans that should be in the kernel."),
		there:     desc(bansPresent, "Bans that are in the kernel, estimated from samples."),
		blind:     desc(amiBlind, "Seconds without a manager session; what happened then was never delivered.", "pbx"),
		last:      desc(amiLastEvent, "Unix time of the latest security event.", "pbx"),
		kernel:    desc(kernelOK, "Whether the kernel's table is as it should be."),
		enforcing: desc(enforcingNow, "Whether attackers are banned (1) or only observed (0)."),
		saved:     desc(stateSaved, "Whether what happens is saved in the state file."),
	}
}

// Describe implements prometheus.Collector.
func (p *presentCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{p.up, p.reconnects, p.dropped, p.queue, p.active, p.limited, p.trusted,
		p.tracked,
		p.packets, p.desired, p.there, p.leaks, p.leaking, p.allowedDropped, p.sensorUp, p.sensorHeard, p.sensorLost,
		p.sensorLast, p.sensorLag, p.sensorTold,
		p.signature, p.blind, p.last, p.kernel, p.enforcing,
		p.fleetConnected, p.fleetNodes, p.fleetRecords, p.fleetWaiting, p.fleetRefused,
		p.fleetBans, p.fleetSilent, p.fleetAtBound,
		p.crowdSecUp, p.crowdSecBans, p.crowdSecAlerts, p.crowdSecFailed,
		p.listEntries, p.listPackets, p.listFetched, p.listStale, p.listHeld, p.listLeftOut,
		p.saved, p.goodFlows, p.slowLanes, p.proxies} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (p *presentCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	now := p.source.Present()
	for _, b := range now.PBXs {
		gauge(p.up, boolValue(b.Up), b.Name)
		counter(p.blind, b.Blind, b.Name)
		if b.LastEvent > 0 {
			gauge(p.last, b.LastEvent, b.Name)
		}
		counter(p.reconnects, float64(b.Reconnects), b.Name)
		gauge(p.queue, float64(b.QueueBytes), b.Name)
		for event, n := range b.Dropped {
			counter(p.dropped, float64(n), b.Name, event)
		}
	}
	for _, scope := range ban.Scopes() {
		gauge(p.active, float64(now.Bans[BanKind{Scope: scope}]), "ipv4", string(scope))
		gauge(p.active, float64(now.Bans[BanKind{IPv6: true, Scope: scope}]), "ipv6", string(scope))
	}
	gauge(p.goodFlows, float64(now.GoodFlows))
	gauge(p.slowLanes, float64(now.SlowFlows), "flow")
	gauge(p.slowLanes, float64(now.SlowSources), "source")
	gauge(p.slowLanes, float64(now.Trickles), "trickle")
	gauge(p.proxies, float64(now.Proxies))
	for _, s := range now.Sensors {
		gauge(p.sensorUp, boolValue(s.Up), s.Name)
		counter(p.sensorHeard, float64(s.Heard), s.Name)
		counter(p.sensorLost, float64(s.Lost), s.Name)
		gauge(p.sensorLag, s.Lag, s.Name)
		gauge(p.sensorLast, s.LastHeard, s.Name)
		for event, n := range s.Told {
			counter(p.sensorTold, float64(n), s.Name, event)
		}
	}
	for line, n := range now.SignatureHits {
		counter(p.signature, float64(n), line)
	}
	if f := now.Fleet; f != nil {
		gauge(p.fleetConnected, boolValue(f.Connected))
		gauge(p.fleetNodes, float64(f.Nodes))
		gauge(p.fleetRecords, float64(f.Records))
		gauge(p.fleetWaiting, float64(f.Waiting))
		counter(p.fleetRefused, float64(f.Refused))
		gauge(p.fleetBans, float64(f.Bans))
		gauge(p.fleetSilent, float64(f.Silent))
		gauge(p.fleetAtBound, float64(f.AtBound))
	}
	if c := now.CrowdSec; c != nil {
		gauge(p.crowdSecUp, boolValue(c.Up))
		gauge(p.crowdSecBans, float64(c.Told), "told")
		gauge(p.crowdSecBans, float64(c.Waiting), "waiting")
		gauge(p.crowdSecBans, float64(c.LeftOut), "left_out")
		gauge(p.crowdSecBans, float64(c.OnAllowList), "on_allow_list")
		counter(p.crowdSecAlerts, float64(c.Alerts))
		counter(p.crowdSecFailed, float64(c.Failures))
	}
	for _, l := range now.Lists {
		gauge(p.listEntries, float64(l.Entries), l.Name)
		counter(p.listPackets, float64(l.Packets), l.Name)
		gauge(p.listFetched, l.Fetched, l.Name)
		gauge(p.listStale, boolValue(l.Stale), l.Name)
		gauge(p.listHeld, boolValue(l.Held), l.Name)
		for why, n := range l.LeftOut {
			gauge(p.listLeftOut, float64(n), l.Name, why)
		}
	}
	for limit, n := range now.Limited {
		counter(p.limited, float64(n), limit)
	}
	for set, n := range now.DroppedPackets {
		counter(p.packets, float64(n), set)
	}
	counter(p.leaks, float64(now.Leaks))
	gauge(p.leaking, float64(now.Leaking))
	gauge(p.allowedDropped, float64(now.AllowedDropped))
	gauge(p.trusted, float64(now.TrustedSources))
	gauge(p.tracked, float64(now.TrackedSources))
	gauge(p.desired, float64(now.BansDesired))
	gauge(p.there, float64(now.BansPresent))
	gauge(p.kernel, boolValue(now.KernelOK))
	gauge(p.enforcing, boolValue(now.Enforcing))
	gauge(p.saved, boolValue(now.StateSaved))
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
