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
	Evidence  []ban.Evidence `json:"evidence"` // oldest first
	Lost      int            `json:"lost"`     // older pieces that are no longer kept
	Lines     []string       `json:"lines"`    // the arithmetic and what would change it, for a person
	ban.Place                // of Address; the engine leaves it empty
}

// Stats are the engine's own counts.
type Stats struct {
	Sources   int            `json:"tracked_sources"`
	Trusted   int            `json:"trusted_sources"`
	Bans      int            `json:"bans"`     // enforced, active
	Bans6     int            `json:"-"`        // of them, those of IPv6
	Observed  int            `json:"observed"` // not enforced, active
	Evicted   uint64         `json:"evicted_sources"`
	Limited   map[string]int `json:"limited,omitempty"`            // bans not made, by the bound that was hit
	LeftOut   *time.Time     `json:"last_left_out_time,omitempty"` // when a bound kept somebody from being banned
	Suspended int            `json:"suspended"`                    // bans not made because of a storm or of grace
	Leaking   int            `json:"leaking_sources"`              // banned, and got through in the last hour; up to 65536
	Leaks     uint64         `json:"leaked_events"`                // of banned sources, since the start
	LastLeak  *time.Time     `json:"last_leak_time,omitempty"`
}
