package api

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/crowdsec"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/fleet"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
)

// Status is the daemon at a glance.
type Status struct {
	Version     string           `json:"version"`
	PID         int              `json:"pid"`
	Time        time.Time        `json:"time"` // when this was true
	Started     time.Time        `json:"started"`
	Uptime      float64          `json:"uptime_seconds"`
	Mode        string           `json:"mode"` // enforce or observe
	Config      ConfigStatus     `json:"config"`
	PBXs        []PBXStatus      `json:"asterisk"`
	Sensors     []Sensor         `json:"sensors"`
	Signatures  []Signature      `json:"signatures,omitempty"` // those that hit
	Engine      engine.Stats     `json:"engine"`
	Kernel      KernelStatus     `json:"kernel"`
	Ports       PortsStatus      `json:"ports"`
	Dropped     []Dropped        `json:"dropped_by_others,omitempty"` // let in by Ringwall, not by another firewall
	ObserveOnly []Observed       `json:"observe_only"`                // services whose evidence never bans
	Geo         []GeoFile        `json:"geo,omitempty"`
	Lists       []ListStatus     `json:"lists,omitempty"`
	Fleet       *fleet.Status    `json:"fleet,omitempty"`    // nil: there is none
	CrowdSec    *crowdsec.Status `json:"crowdsec,omitempty"` // nil: there is no LAPI
	Warnings    []Warning        `json:"warnings"`
}

// ConfigStatus is the file in force. Error is why a later version of it is not; where it was of no use at the start
// already, InForce says what is in its place: "the last accepted one, of DATE, FILE", or "what else it says".
type ConfigStatus struct {
	Path    string    `json:"path"`
	Loaded  time.Time `json:"loaded"`
	Error   string    `json:"error,omitempty"`
	InForce string    `json:"in_force,omitempty"`
	Restart []string  `json:"needs_restart,omitempty"` // changed keys that are read at the start alone
}

// Fault says what is wrong with the file in one line, without a full stop; empty where nothing is.
func (c ConfigStatus) Fault() string {
	switch {
	case c.Error == "":
		return ""
	case c.InForce == "":
		return "the configuration was changed, and is not in force: " + c.Error
	}
	return "the configuration is not in force as it is, but " + c.InForce + ": " + c.Error
}

// PBXStatus is one Asterisk.
type PBXStatus struct {
	Name           string     `json:"name"`
	Address        string     `json:"address"`
	Up             bool       `json:"up"`
	Since          time.Time  `json:"since"` // of the connection, or of the lack of one
	Version        string     `json:"asterisk_version,omitempty"`
	LastError      string     `json:"last_error,omitempty"`
	LastErrorTime  *time.Time `json:"last_error_time,omitempty"`
	Try            string     `json:"try,omitempty"` // what would mend LastError
	Reconnects     uint64     `json:"reconnects"`
	Events         uint64     `json:"events"`
	Tampered       uint64     `json:"tampered"`
	LastEvent      *time.Time `json:"last_event_time,omitempty"`
	Lag            float64    `json:"lag_seconds"` // from EventTV to handled, of the last event
	QueueBytes     int64      `json:"queue_bytes"`
	DroppedFrames  uint64     `json:"dropped_frames"`
	DroppedByEvent []Count    `json:"dropped_by_event,omitempty"`
	Blind          float64    `json:"blind_seconds"` // without a connection since the start
	Learned        int        `json:"learned"`       // contacts and trunks
	Denied         []Denied   `json:"denied,omitempty"`
}

// Sensor is a sense besides Asterisk's events.
type Sensor struct {
	Name      string     `json:"name"` // tap or hep
	Alive     bool       `json:"alive"`
	Off       bool       `json:"off,omitempty"` // by the configuration
	Error     string     `json:"error,omitempty"`
	LastHeard *time.Time `json:"last_heard,omitempty"`
	Heard     uint64     `json:"heard"`       // packets
	Lost      uint64     `json:"lost"`        // packets that there was no room for
	Lag       float64    `json:"lag_seconds"` // from the packet to its judgement, of the last one
}

// Signature is a line of policy.signatures that hit.
type Signature struct {
	Line        string     `json:"line"` // as it stands in its list
	List        string     `json:"list"` // the file, or "built-in"
	Hits        uint64     `json:"hits"`
	LastHit     *time.Time `json:"last_hit,omitempty"`
	OnCustomers uint64     `json:"hits_on_customers,omitempty"`
}

// Count is a number with a name.
type Count struct {
	Name  string `json:"name"`
	Count uint64 `json:"count"`
}

// Denied is an action that Asterisk refused to Ringwall.
type Denied struct {
	Action      string `json:"action"`
	ManagerConf string `json:"manager_conf"` // the line that would allow it
	For         string `json:"for"`          // what Ringwall cannot know without it
}

// KernelStatus is the firewall.
type KernelStatus struct {
	Table         string     `json:"table"` // such as "inet ringwall"
	OK            bool       `json:"ok"`    // the table is as it should be
	DryRun        bool       `json:"dry_run"`
	DryRunReason  string     `json:"dry_run_reason,omitempty"`
	Desired       int        `json:"desired_bans"`
	Present       int        `json:"present_bans"` // as of PresentTime
	PresentTime   *time.Time `json:"present_time,omitempty"`
	Owner         bool       `json:"owner"` // table flags owner and persist
	Rebuilds      []Count    `json:"rebuilds,omitempty"`
	Dropped       []Count    `json:"dropped_packets,omitempty"` // by set
	LastError     string     `json:"last_error,omitempty"`
	LastErrorTime *time.Time `json:"last_error_time,omitempty"`
	Try           string     `json:"try,omitempty"`
}

// PortsStatus says which ports a ban closes, and where Asterisk was found to listen.
type PortsStatus struct {
	Auto  bool        `json:"auto"`
	All   bool        `json:"all"` // firewall.scope: a ban closes every port
	UDP   []uint16    `json:"udp"` // closed to the banned
	TCP   []uint16    `json:"tcp"`
	Found []FoundPort `json:"found"`           // at which Asterisk received something
	Error string      `json:"error,omitempty"` // why a port that was found is not closed yet
}

// FoundPort is a port at which an Asterisk receives.
type FoundPort struct {
	Protocol string `json:"protocol"` // udp or tcp
	Port     uint16 `json:"port"`
	PBX      string `json:"pbx"`
	Behind   uint16 `json:"behind,omitempty"` // the port that Asterisk itself calls it, where a NAT publishes another
	Open     bool   `json:"open"`             // to the banned
}

// Name is a port for a person: "UDP 5060".
func (f FoundPort) Name() string {
	return strings.ToUpper(printable.String(f.Protocol)) + " " + strconv.Itoa(int(f.Port))
}

// Dropped is somebody whom Ringwall lets in and of whom another firewall drops what he sends to Asterisk.
type Dropped struct {
	Prefix netip.Prefix `json:"prefix"`
	As     string       `json:"as"`    // one of those below
	Chain  string       `json:"chain"` // such as "inet filter input"
	Try    string       `json:"try"`
}

// As what Ringwall lets somebody in.
const (
	DroppedAllowed = "allowed"
	DroppedTrunk   = "trunk"
	DroppedTrusted = "trusted" // another firewall may have its reasons
)

// Text says it in one line.
func (d Dropped) Text() string {
	who := map[string]string{
		DroppedAllowed: " is on the allow list", DroppedTrunk: " is a trunk of Asterisk's",
		DroppedTrusted: " is trusted since a login",
	}
	return humanize.Prefix(d.Prefix) + who[d.As] + ", and another firewall drops what it sends to Asterisk: chain " +
		printable.String(d.Chain)
}

// Serious says whether somebody is kept out who must not be.
func (d Dropped) Serious() bool { return d.As != DroppedTrusted }

// ShutsOut says whether another firewall keeps somebody out who is allowed or a trunk.
func (s Status) ShutsOut() bool { return slices.ContainsFunc(s.Dropped, Dropped.Serious) }

// ClosedPorts lists the ports that a ban closes, for a person: "UDP 5060 5160, TCP 5060".
func (p PortsStatus) ClosedPorts() string {
	var lists []string
	for _, l := range []struct {
		protocol string
		ports    []uint16
	}{{"UDP", p.UDP}, {"TCP", p.TCP}} {
		if len(l.ports) > 0 {
			lists = append(lists, l.protocol+" "+strings.Trim(fmt.Sprint(l.ports), "[]"))
		}
	}
	return strings.Join(lists, ", ")
}

// OpenPorts returns the ports that Asterisk was found at and that a ban leaves open.
func (p PortsStatus) OpenPorts() (open []FoundPort) {
	for _, f := range p.Found {
		if f.Open {
			open = append(open, f)
		}
	}
	return open
}

// ConfigLine is what to write into the configuration so that these ports are closed to the banned as well.
func (p PortsStatus) ConfigLine(more []FoundPort) string {
	udp, tcp := slices.Clone(p.UDP), slices.Clone(p.TCP)
	for _, f := range more {
		list := &tcp
		if f.Protocol == "udp" {
			list = &udp
		}
		if !slices.Contains(*list, f.Port) {
			*list = append(*list, f.Port)
		}
	}
	list := func(ports []uint16) string { return strings.ReplaceAll(fmt.Sprint(ports), " ", ", ") }
	return fmt.Sprintf("firewall: {ports: {udp: %s, tcp: %s}}", list(udp), list(tcp))
}

// GeoFile is a file of geo.files, in their order. One that could not be read at all has an Error and no Type; after a
// bad replacement there is an Error, and the rest is about the file that is still used.
type GeoFile struct {
	Path    string     `json:"path"`
	Type    string     `json:"type,omitempty"`    // as the file calls itself, such as GeoLite2-Country: foreign text
	Built   *time.Time `json:"built,omitempty"`   // by its maker
	Loaded  *time.Time `json:"loaded,omitempty"`  // by the daemon
	Bytes   int64      `json:"bytes,omitempty"`   // in memory
	Country bool       `json:"country,omitempty"` // it knows countries
	ASN     bool       `json:"asn,omitempty"`     // it knows autonomous systems
	Error   string     `json:"error,omitempty"`
	Try     string     `json:"try,omitempty"`
}

// Observed is a service whose evidence never bans, and why.
type Observed struct {
	Service string `json:"service"`
	Why     string `json:"why"`
}

// Warning is something a person should look at.
type Warning struct {
	Text string `json:"text"`
	Try  string `json:"try,omitempty"`
}

// recentWindow is for how long an event of a banned source, or of one that could not be banned, counts as the present
// state: after that it is history.
const recentWindow = 10 * time.Minute

// Leaking says whether banned sources get through at present.
func (s Status) Leaking() bool { return s.isRecent(s.Engine.LastLeak) }

// LeavesOut says whether attackers are not banned at present, because bans are at one of policy.limits.
func (s Status) LeavesOut() bool { return s.isRecent(s.Engine.LeftOut) }

func (s Status) isRecent(at *time.Time) bool { return at != nil && s.Time.Sub(*at) < recentWindow }

// Healthy says whether attackers are being kept out right now and nobody else: each Asterisk answers, the kernel holds
// the table, no banned source gets through, there is room for bans, and no other firewall drops who is allowed. A
// daemon that only observes, or runs dry, is healthy in what it does.
func (s Status) Healthy() bool {
	for _, p := range s.PBXs {
		if !p.Up {
			return false
		}
	}
	return !s.ShutsOut() && !s.Leaking() && !s.LeavesOut() && (s.Kernel.OK || s.Kernel.DryRun) &&
		s.Kernel.LastError == "" && s.Config.Error == ""
}
