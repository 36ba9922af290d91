package api

import (
	"context"
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
)

// Backend is what the server asks; the daemon implements it. Its methods are called from many goroutines at once, end
// when ctx does, and return copies: a slow client reads them long after the call. An error that is an [*Error] reaches
// the client as it is (see [Refused], [NotFound], [Invalid]; without a Code it is a 500); another one as a failure of
// the daemon.
type Backend interface {
	Status(ctx context.Context) (Status, error)
	// Bans and Trusted call each with pieces of the list, the newest bans first, trusted sources in no order. A piece
	// is each's own. What changes meanwhile may be among them or not. An error of each ends it and is returned.
	Bans(ctx context.Context, filter BanFilter, each func([]ban.Ban) error) error
	Trusted(ctx context.Context, each func([]ban.Trust) error) error
	// Restricted calls each with pieces of what is cut or slow within a prefix, or of all where it is not valid, in no
	// order.
	Restricted(ctx context.Context, within netip.Prefix, each func([]ban.Restriction) error) error
	Allowed(ctx context.Context) ([]ban.Exemption, error)
	Protected(ctx context.Context) ([]ban.Exemption, error)

	// Ban, Unban and Allow return once the kernel has the change. Their context does not end when the client goes
	// away: what a person began is finished.
	Ban(ctx context.Context, req BanRequest) (BanResult, error)
	Unban(ctx context.Context, req UnbanRequest) (UnbanResult, error)
	Allow(ctx context.Context, req AllowRequest) (AllowResult, error)

	Why(ctx context.Context, addr netip.Addr) (engine.Explanation, error)
	// Account says from where an account was tried or logged in, up to MaxNamed sources.
	Account(ctx context.Context, name string) (AccountResult, error)
	// Place says at once where an address is registered: the zero value where nobody knows, or no geo file is set up.
	// Bans, Trusted and Why fill it in; the decisions of History get it when they are written.
	Place(addr netip.Addr) ban.Place
	// History calls each with pieces of the decisions since a time, oldest first, of one source or, where addr is not
	// valid, of all.
	History(ctx context.Context, since time.Time, addr netip.Addr, each func([]ban.Decision) error) error

	// RefreshList fetches a list of attackers, and returns once it is in force.
	RefreshList(ctx context.Context, req ListRefreshRequest) (ListStatus, error)

	// ForgetNode forgets what another node of the fleet has said so far, here alone.
	ForgetNode(ctx context.Context, req ForgetRequest) (ForgetResult, error)

	// Page says where the status page is, and lets whoever opens that address within a short time change things there.
	Page(ctx context.Context, by Peer) (PageResult, error)
}

// BanFilter chooses bans. The zero value is all of them without their evidence.
type BanFilter struct {
	Within   netip.Prefix // bans that overlap it; not valid is all
	Evidence bool         // fill BanView.Evidence
}

// BanRequest bans exactly Prefix, also where the engine judges by a wider one.
type BanRequest struct {
	Prefix netip.Prefix  // masked, never wider than [MinBits4] or [MinBits6]
	For    time.Duration // 0 is policy.ban.first; else [MinDuration] to [MaxDuration]
	Reason string        // of the person, at most [MaxReason] bytes without control characters
	By     Peer

	// Session is where the person is logged in from, as far as that is known. A ban that holds it is refused without
	// Force.
	Session netip.Addr
	Force   bool
}

// BanResult is a ban as it is in force now.
type BanResult struct {
	Prefix   netip.Prefix `json:"prefix"`
	Source   netip.Prefix `json:"source"` // that the engine judges as one; wider than Prefix for an IPv6 address
	Since    time.Time    `json:"since"`
	Until    time.Time    `json:"until"`
	Duration float64      `json:"duration_seconds"`
	Renewed  bool         `json:"renewed"`  // it was banned already
	Enforced bool         `json:"enforced"` // in the kernel; false in observe mode and in a dry run
	Note     string       `json:"note,omitempty"`
}

// DoctorTest is the Reason by which ringwall doctor tries whether a ban works. Such a ban, if it is not longer than
// [MaxDoctorTest], is in the kernel like any other, and in no history, count or notification.
const (
	DoctorTest    = "ringwall doctor: a test"
	MaxDoctorTest = 10 * time.Second
)

// UnbanRequest lifts the bans of Prefix and of everything inside it, or all bans, with what is cut or slow there; or
// what cuts or slows one flow, and nothing else.
type UnbanRequest struct {
	Prefix netip.Prefix
	Flow   ban.Flow
	All    bool
	Grace  time.Duration // no new automatic ban of these sources for so long; 0 to [MaxDuration]
	By     Peer

	// Fleet lifts them at all nodes of the fleet, Here at this one alone. Without either it is as fleet.unban says, and
	// All is here.
	Fleet, Here bool
}

// mayLiftMany reports whether there may be hundreds of thousands of bans to lift.
func (r *UnbanRequest) mayLiftMany() bool {
	return r.All || r.Prefix.IsValid() && !r.Prefix.IsSingleIP()
}

// UnbanResult says what was lifted.
type UnbanResult struct {
	Removed []netip.Prefix `json:"removed"` // at most [MaxNamed] prefixes; Count has them all
	Count   int            `json:"count"`
	Grace   *time.Time     `json:"grace_until,omitempty"`
	// Restrictions are what was cut or slow, at most [MaxNamed]; RestrictionCount counts all.
	Restrictions     []ban.Restriction `json:"restrictions,omitempty"`
	RestrictionCount int               `json:"restriction_count,omitempty"`
	Note             string            `json:"note,omitempty"`

	Origins   []string `json:"origins,omitempty"` // nodes of the fleet on whose word it was banned, some of them
	Reach     Reach    `json:"reach,omitempty"`
	FleetNote string   `json:"fleet_note,omitempty"`
}

// Reach says where somebody is unbanned.
type Reach string

// The values of Reach; without a fleet there is none.
const (
	ReachFleet Reach = "fleet" // at all nodes of the fleet
	ReachHere  Reach = "here"  // at this node alone
)

// AllowRequest adds an entry to the allow list or removes one that was added by hand.
type AllowRequest struct {
	Prefix netip.Prefix  // valid, or
	Host   string        // a host name, resolved again and again
	For    time.Duration // of a Prefix that is added; 0 is until it is removed, else [MinDuration] to [MaxDuration]
	Remove bool
	By     Peer
}

// AccountResult is where an account was tried from, the latest first. Account holds bytes of whoever asked.
type AccountResult struct {
	Account string                 `json:"account"`
	Sources []engine.AccountSource `json:"sources"`
	All     int                    `json:"all"` // sources, of which at most [MaxNamed] are listed
}

// AllowResult is the change of the allow list, and the bans that ended with it.
type AllowResult struct {
	Entry     string         `json:"entry"`
	Added     bool           `json:"added"`
	Removed   bool           `json:"removed"`
	Addresses []netip.Addr   `json:"addresses,omitempty"` // what a host name stands for now
	Unbanned  []netip.Prefix `json:"unbanned,omitempty"`
	Lasting   bool           `json:"lasting"` // survives a restart of the daemon

	Until *time.Time `json:"until,omitempty"` // nil: until it is removed
	Note  string     `json:"note,omitempty"`
}

// PageResult is where the status page is. Address is a secret while Writable is true: it opens the page, once, with the
// right to unban and to allow.
type PageResult struct {
	Address  string     `json:"address"`
	Writable bool       `json:"writable"`
	Expires  *time.Time `json:"expires,omitempty"` // until when Address must have been opened
	Note     string     `json:"note,omitempty"`
}

// Bounds of requests.
const (
	MinBits4    = 8  // a wider IPv4 network is refused as a slip of the finger
	MinBits6    = 16 // the same for IPv6; no registry assigns a wider one to a provider
	MinDuration = time.Second
	MaxDuration = 365 * 24 * time.Hour
	MaxReason   = 200 // bytes
	MaxNamed    = 100
)
