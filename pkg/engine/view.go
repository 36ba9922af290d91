package engine

import (
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// Explanation is the answer to "why": what the engine knows about one source, and what would change it.
type Explanation struct {
	Address   netip.Addr     `json:"address"`
	Source    netip.Prefix   `json:"source"`  // the prefix that is judged as one
	Verdict   string         `json:"verdict"` // banned, observed, trusted, allowed, protected, suspicious, unknown
	Score     float64        `json:"score"`   // now, after decay
	Threshold float64        `json:"threshold"`
	HalfLife  float64        `json:"half_life_seconds"`
	Attempts  int            `json:"attempts"`
	Bans      int            `json:"bans"` // so far, within ban.memory
	Ban       *ban.Ban       `json:"ban,omitempty"`
	Trust     *ban.Trust     `json:"trust,omitempty"`
	Allow     *ban.Exemption `json:"allow,omitempty"`
	Grace     *time.Time     `json:"grace_until,omitempty"`
	// Proxy says that many accounts log in through it: it is never banned as a whole.
	Proxy        bool              `json:"proxy,omitempty"`
	Restrictions []ban.Restriction `json:"restrictions,omitempty"` // what of it is cut or slow
	// GoodFlows pass whatever is banned; the daemon fills them in, some of AllGoodFlows.
	GoodFlows    []ban.GoodFlow `json:"good_flows,omitempty"`
	AllGoodFlows int            `json:"all_good_flows,omitempty"`
	// Listed are the lists of attackers that name the address; the daemon fills them in.
	Listed    []ban.Listing  `json:"listed,omitempty"`
	Evidence  []ban.Evidence `json:"evidence"` // oldest first
	Lost      int            `json:"lost"`     // older pieces that are no longer kept
	Lines     []string       `json:"lines"`    // the arithmetic and what would change it, for a person
	ban.Place                // of Address; the engine leaves it empty
}

// Stats are the engine's own counts.
type Stats struct {
	Sources   int            `json:"tracked_sources"`
	Trusted   int            `json:"trusted_sources"`
	Bans      int            `json:"bans"`                 // enforced, active
	FleetBans int            `json:"fleet_bans,omitempty"` // of those, on the word of other nodes
	Observed  int            `json:"observed"`             // not enforced, active
	Evicted   uint64         `json:"evicted_sources"`
	Limited   map[string]int `json:"limited,omitempty"`            // bans not made, by the bound that was hit
	LeftOut   *time.Time     `json:"last_left_out_time,omitempty"` // when a bound kept somebody from being banned
	Suspended int            `json:"suspended"`                    // bans not made because of a storm or of grace
	Leaking   int            `json:"leaking_sources"`              // banned, and got through in the last hour; to 65536
	Leaks     uint64         `json:"leaked_events"`                // of banned sources, since the start
	LastLeak  *time.Time     `json:"last_leak_time,omitempty"`

	GoodFlows   int          `json:"good_flows"`   // of logins, which pass whatever is banned
	CutFlows    int          `json:"cut_flows"`    // closed, while the others of their source go on
	SlowFlows   int          `json:"slow_flows"`   // in the slow lane
	SlowSources int          `json:"slow_sources"` // in the slow lane as a whole
	Trickles    int          `json:"trickles"`     // known good sources of which new senders over UDP are slowed
	Proxies     int          `json:"proxies"`      // that look like one, and that nobody allowed or named
	InForce     []ScopeCount `json:"-"`            // bans, and flows that are cut; also kinds of which there are none
}

// ScopeCount counts verdicts of one scope and family.
type ScopeCount struct {
	V6    bool
	Scope ban.Scope
	Count int
}
