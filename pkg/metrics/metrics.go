package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
)

// The names of all metrics of Ringwall's own.
const (
	amiUp              = "ringwall_ami_up"
	amiEvents          = "ringwall_ami_events_total"
	amiTampered        = "ringwall_ami_tampered_total"
	amiReconnects      = "ringwall_ami_reconnects_total"
	amiDropped         = "ringwall_ami_dropped_frames_total"
	amiQueue           = "ringwall_ami_queue_bytes"
	amiLag             = "ringwall_ami_lag_seconds"
	amiBlind           = "ringwall_ami_blind_seconds_total"
	amiLastEvent       = "ringwall_ami_last_event_timestamp_seconds"
	sensorUp           = "ringwall_sensor_up"
	sensorHeard        = "ringwall_sensor_packets_total"
	sensorLost         = "ringwall_sensor_lost_packets_total"
	sensorLastHeard    = "ringwall_sensor_last_packet_timestamp_seconds"
	sensorLag          = "ringwall_sensor_lag_seconds"
	sensorAttempts     = "ringwall_sensor_events_total"
	signatureHits      = "ringwall_signature_hits_total"
	fleetConnected     = "ringwall_fleet_connected"
	fleetNodes         = "ringwall_fleet_nodes"
	fleetRecords       = "ringwall_fleet_records"
	fleetWaiting       = "ringwall_fleet_waiting_records"
	fleetRefused       = "ringwall_fleet_refused_records_total"
	fleetBans          = "ringwall_fleet_bans"
	fleetSilent        = "ringwall_fleet_silent_nodes"
	fleetAtBound       = "ringwall_fleet_bounded_nodes"
	crowdSecUp         = "ringwall_crowdsec_up"
	crowdSecBans       = "ringwall_crowdsec_bans"
	crowdSecAlerts     = "ringwall_crowdsec_alerts_total"
	crowdSecFailures   = "ringwall_crowdsec_failures_total"
	listEntries        = "ringwall_list_entries"
	listPackets        = "ringwall_list_packets_total"
	listFetched        = "ringwall_list_last_success_timestamp_seconds"
	listStale          = "ringwall_list_stale"
	listHeld           = "ringwall_list_held"
	listLeftOut        = "ringwall_list_left_out"
	decisionTime       = "ringwall_decision_seconds"
	decisionsTotal     = "ringwall_decisions_total"
	bansActive         = "ringwall_bans_active"
	goodFlows          = "ringwall_good_flows"
	slowLanes          = "ringwall_slow_lanes"
	proxies            = "ringwall_proxies"
	bansTotal          = "ringwall_bans_total"
	unbansTotal        = "ringwall_unbans_total"
	limitedTotal       = "ringwall_limited_total"
	trustedSources     = "ringwall_trusted_sources"
	trackedSources     = "ringwall_tracked_sources"
	leaksTotal         = "ringwall_leaks_total"
	leakingSources     = "ringwall_leaking_sources"
	allowedDropped     = "ringwall_allowed_dropped"
	droppedPackets     = "ringwall_dropped_packets_total"
	bansDesired        = "ringwall_kernel_bans_desired"
	bansPresent        = "ringwall_kernel_bans_present"
	rebuildsTotal      = "ringwall_kernel_rebuilds_total"
	notificationsTotal = "ringwall_notifications_total"
	kernelOK           = "ringwall_kernel_ok"
	enforcingNow       = "ringwall_enforcing"
	stateSaved         = "ringwall_state_saved"
	reloadSuccess      = "ringwall_config_reload_success"
	buildInfo          = "ringwall_build_info"
)

// Metrics are the metrics that the daemon counts as things happen. What only has a present value is asked for at each
// scrape, from the Source.
type Metrics struct {
	Registry *prometheus.Registry

	events          *prometheus.CounterVec
	tampered        *prometheus.CounterVec
	lagSeconds      prometheus.Histogram
	decisionSeconds prometheus.Histogram
	decisions       *prometheus.CounterVec
	bans            *prometheus.CounterVec
	unbans          *prometheus.CounterVec
	rebuilds        *prometheus.CounterVec
	notifications   *prometheus.CounterVec
	reloadSuccess   prometheus.Gauge
}

// New makes the metrics, with the Go runtime's and the process's beside them.
func New(version string, source Source) *Metrics {
	m := &Metrics{
		Registry: prometheus.NewRegistry(),
		events:   newCounterVec(amiEvents, "Security events that were decoded.", "pbx", "event", "service"),
		tampered: newCounterVec(amiTampered, "Frames that Asterisk does not write by itself; nobody is judged by them.",
			"pbx"),
		lagSeconds: newHistogram(amiLag, "Time from EventTV, Asterisk's clock, to the handled event.",
			.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10),
		decisionSeconds: newHistogram(decisionTime,
			"Time from the frame that was read to the kernel's commit of the ban.",
			.00005, .0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .5, 1, 5),
		decisions: newCounterVec(decisionsTotal, "Decisions, those that only report included.", "action", "reason"),
		bans:      newCounterVec(bansTotal, "Bans that were made.", "reason"),
		unbans:    newCounterVec(unbansTotal, "Bans that ended.", "reason"),
		rebuilds:  newCounterVec(rebuildsTotal, "Times that the kernel's table was built, by why.", "cause"),
		notifications: newCounterVec(notificationsTotal,
			"Notifications: sent, failed, dropped, or suppressed into a summary.",
			"target", "result"),
		reloadSuccess: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: reloadSuccess, Help: "Whether the configuration in force is the latest one (1) or a reload failed " +
				"(0).",
		}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: buildInfo, Help: "The running version.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	m.reloadSuccess.Set(1)
	m.Registry.MustRegister(m.events, m.tampered, m.lagSeconds, m.decisionSeconds, m.decisions, m.bans, m.unbans,
		m.rebuilds, m.notifications, m.reloadSuccess, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if source != nil {
		m.Registry.MustRegister(newPresent(source))
	}
	return m
}

func newCounterVec(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func newHistogram(name, help string, buckets ...float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
}

// PBX are the counters of one Asterisk. It is for one goroutine.
type PBX struct {
	metrics   *Metrics
	name      string
	events    map[eventKind]prometheus.Counter
	uncounted []eventKind // of events that are not counted yet
	lags      []float64   // of these
	Tampered  prometheus.Counter
}

type eventKind struct {
	eventType event.Type
	service   event.Service
}

// maxUncounted is how many events are counted together at most.
const maxUncounted = 1024

// PBX returns the counters of the Asterisk of that name in the configuration.
func (m *Metrics) PBX(name string) *PBX {
	return &PBX{metrics: m, name: name, events: make(map[eventKind]prometheus.Counter),
		Tampered: m.tampered.WithLabelValues(name)}
}

// CountEvent counts an event that took lag seconds to arrive. It is in the metrics at the next Flush: there is
// something more urgent to do first.
func (p *PBX) CountEvent(ev *event.Event, lag float64) {
	p.uncounted, p.lags = append(p.uncounted, eventKind{ev.Type, ev.Service}), append(p.lags, lag)
	if len(p.uncounted) == maxUncounted {
		p.Flush()
	}
}

// Flush brings the metrics up to date.
func (p *PBX) Flush() {
	if len(p.uncounted) == 0 {
		return
	}
	for list := p.uncounted; len(list) > 0; {
		n := 1
		for n < len(list) && list[n] == list[0] {
			n++
		}
		p.counterOf(list[0]).Add(float64(n))
		list = list[n:]
	}
	for _, lag := range p.lags {
		p.metrics.lagSeconds.Observe(lag)
	}
	p.uncounted, p.lags = p.uncounted[:0], p.lags[:0]
}

// counterOf is the counter of a kind of event, which is looked up by its labels once.
func (p *PBX) counterOf(k eventKind) prometheus.Counter {
	c := p.events[k]
	if c == nil {
		c = p.metrics.events.WithLabelValues(p.name, k.eventType.String(), k.service.String())
		p.events[k] = c
	}
	return c
}

// CountDecisions counts decisions. Neighbours of one kind are counted together.
func (m *Metrics) CountDecisions(list []ban.Decision) {
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].Action == list[0].Action && list[n].Reason == list[0].Reason {
			n++
		}
		action, reason := list[0].Action, string(list[0].Reason)
		m.decisions.WithLabelValues(string(action), reason).Add(float64(n))
		switch action {
		case ban.ActionBan:
			m.bans.WithLabelValues(reason).Add(float64(n))
		case ban.ActionUnban:
			m.unbans.WithLabelValues(reason).Add(float64(n))
		}
		list = list[n:]
	}
}

// ObserveCommits counts the seconds from frames to the kernel's commit of what they led to.
func (m *Metrics) ObserveCommits(seconds ...float64) {
	for _, s := range seconds {
		m.decisionSeconds.Observe(s)
	}
}

// CountRebuild counts a rebuild of the kernel's table.
func (m *Metrics) CountRebuild(cause string) { m.rebuilds.WithLabelValues(cause).Inc() }

// CountNotifications counts notifications of a target, by its name in the configuration; n may be 0.
func (m *Metrics) CountNotifications(target, result string, n int) {
	m.notifications.WithLabelValues(target, result).Add(float64(n))
}

// SetReloaded says whether the latest configuration is in force.
func (m *Metrics) SetReloaded(ok bool) {
	m.reloadSuccess.Set(0)
	if ok {
		m.reloadSuccess.Set(1)
	}
}
