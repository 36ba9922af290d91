package engine

import (
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// Evidence is one event that counted, or that would have counted but for a rule.
type Evidence struct {
	Time      time.Time  `json:"time"`
	Event     string     `json:"event"` // Asterisk's name of it
	Service   string     `json:"service"`
	Transport string     `json:"transport"`
	Account   string     `json:"account"` // as the attacker wrote it
	Reason    ban.Reason `json:"reason"`
	Points    float64    `json:"points"` // when it came
	Score     float64    `json:"score"`  // of the source right after it
	Proven    bool       `json:"proven"`
	PBX       string     `json:"pbx"`
	Note      string     `json:"note,omitempty"` // why it gave no points, if it gave none

	Multiplier float64 `json:"multiplier,omitempty"` // that is in Points, by geo.multiply
	Country    string  `json:"country,omitempty"`    // that has a multiplier
	ASN        uint32  `json:"asn,omitempty"`        // that has one
}

// BanView is an active ban, or in observe mode one that would be active.
type BanView struct {
	Prefix    string     `json:"prefix"`
	Reason    ban.Reason `json:"reason"`
	Since     time.Time  `json:"since"`
	Until     time.Time  `json:"until"`
	Duration  float64    `json:"duration_seconds"`
	Left      float64    `json:"left_seconds"`
	Score     float64    `json:"score"` // when it was banned
	Proven    bool       `json:"proven"`
	Observed  bool       `json:"observed"` // not in the kernel
	Manual    bool       `json:"manual"`
	Number    int        `json:"number"` // 1 for the first ban of this source, 2 for the second, …
	Comment   string     `json:"comment,omitempty"`
	PBX       string     `json:"pbx"`
	Accounts  []string   `json:"accounts"`       // names that were tried
	Attempts  int        `json:"attempts"`       // that led to it, and since
	Leak      *LeakView  `json:"leak,omitempty"` // the ban does not keep its packets out
	Evidence  []Evidence `json:"evidence,omitempty"`
	ban.Place            // of Prefix; the engine leaves it empty
}

// TrustView is a source that is trusted because one of its users logged in with a password.
type TrustView struct {
	Prefix    string    `json:"prefix"`
	Since     time.Time `json:"since"`
	Until     time.Time `json:"until"`
	Left      float64   `json:"left_seconds"`
	Accounts  []string  `json:"accounts"` // that logged in from there
	Score     float64   `json:"score"`
	ban.Place           // of Prefix; the engine leaves it empty
}

// AllowView is one entry of the allow list, or of what Asterisk protects.
type AllowView struct {
	Prefix string `json:"prefix"`
	Origin string `json:"origin"` // config, manual, host, learned, or the host name that it was resolved from
	Note   string `json:"note,omitempty"`

	Until *time.Time `json:"until,omitempty"` // of what a person allowed for a time; nil: until it is taken off
}

// Explanation is the answer to "why": what the engine knows about one source, and what would change it.
type Explanation struct {
	Address   string     `json:"address"`
	Source    string     `json:"source"`  // the prefix that is judged as one
	Verdict   string     `json:"verdict"` // banned, observed, trusted, allowed, protected, suspicious, unknown
	Score     float64    `json:"score"`   // now, after decay
	Threshold float64    `json:"threshold"`
	HalfLife  float64    `json:"half_life_seconds"`
	Attempts  int        `json:"attempts"`
	Bans      int        `json:"bans"` // so far, within ban.memory
	Ban       *BanView   `json:"ban,omitempty"`
	Trust     *TrustView `json:"trust,omitempty"`
	Allow     *AllowView `json:"allow,omitempty"`
	Grace     *time.Time `json:"grace_until,omitempty"`
	Evidence  []Evidence `json:"evidence"` // oldest first
	Lost      int        `json:"lost"`     // older pieces that are no longer kept
	Lines     []string   `json:"lines"`    // the arithmetic and what would change it, for a person
	ban.Place            // of Address; the engine leaves it empty
}

// Stats are the engine's own counts.
type Stats struct {
	Sources   int            `json:"tracked_sources"`
	Trusted   int            `json:"trusted_sources"`
	Bans      int            `json:"bans"`     // enforced, active
	Bans6     int            `json:"-"`        // of them, those of IPv6
	Observed  int            `json:"observed"` // not enforced, active
	Evicted   uint64         `json:"evicted_sources"`
	Limited   map[string]int `json:"limited,omitempty"` // bans not made, by the bound that was hit
	Suspended int            `json:"suspended"`         // bans not made because of a storm or of grace
	Leaking   int            `json:"leaking_sources"`   // banned, and got through all the same within the last hour; up to 65536
	Leaks     uint64         `json:"leaked_events"`     // of banned sources, since the start
	LastLeak  *time.Time     `json:"last_leak_time,omitempty"`
}
