package replay

import (
	"encoding/json"
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// Summary is what a replay found. Account names in it are what peers sent: escape them before they reach a terminal.
type Summary struct {
	Events   int64 // decoded, repeated and tampered
	Decoded  int64
	Repeated int64 // more of the same, for which a decoded one stands: "message repeated 3 times"
	Tampered int64 // records that carry parts of a security event, and that nobody but an attacker makes
	Sources  int   // distinct ones: IPv4 addresses and IPv6 prefixes
	Bans     int64 // decisions that ban
	Observed int64 // decisions that would ban, were policy.mode and services not observe
	Trusted  int   // distinct sources that earned trust

	NotUnderstood int64 // records that carry parts of a security event, but mangled, or in a form that is not known

	Skipped   int64 // records too long for an event
	Truncated int64 // records whose other half is missing
	Blocked   int64 // events that would not have happened, since the firewall would have dropped the packets
	Passed    int64 // events of banned sources at ports that firewall.ports leaves open
	LoggedIn  int   // distinct sources that ever logged in with a password
	From, To  time.Time

	Customers     []Customer // banned, and ever logged in
	Banned        []Banned   // everybody who was banned, the first first
	Misconfigured []Report
	Breaches      []Report
	Targeted      []Report
	Guessing      []Report
	NewPlaces     []Report
	Proxies       []Report
	Cuts          []Report         // connections that would have been closed while others of their source go on
	Accounts      []AccountSummary // that failed most
	Reasons       map[string]int64 // of tampering
	Files         []FileSummary    // in the order in which they were played
	Notes         []string         // for a person; no bytes from the wire but names of files
}

// Banned is one prefix that was banned, or would have been.
type Banned struct {
	Prefix   netip.Prefix  `json:"prefix"`
	Bans     int           `json:"bans"`
	First    time.Time     `json:"first"`
	Last     time.Time     `json:"last"`
	Total    time.Duration `json:"-"` // of all bans
	Reason   ban.Reason    `json:"reason"`
	Account  string        `json:"account"` // of the event that led to the first ban
	Enforced bool          `json:"enforced"`
	Proven   bool          `json:"proven"`
	Closes   ban.Closes    `json:"closes"`  // all, unless each ban closed the same less
	Blocked  int64         `json:"blocked"` // events

	end time.Time // of the last ban
}

// Customer is a banned prefix from which somebody ever logged in with a password, before the ban or after.
type Customer struct {
	Banned
	Source            netip.Prefix `json:"source"` // that logged in; inside of Prefix, or around it
	Accounts          []string     `json:"accounts"`
	Through           int          `json:"accounts_count"` // different ones that logged in, up to 1000
	Logins            int64        `json:"logins"`
	FirstLogin        time.Time    `json:"first_login"`
	LastLogin         time.Time    `json:"last_login"`
	LoginsWhileBanned int64        `json:"logins_while_banned"` // these people would have been locked out
}

// Report is an account that one of the reporting decisions names, and how often.
type Report struct {
	Source  netip.Prefix `json:"source,omitzero"`
	Account string       `json:"account"`
	First   time.Time    `json:"first"`
	Times   int          `json:"times"`
	Detail  string       `json:"detail,omitempty"`
}

// AccountSummary is an account name and how often it failed. The count may be too low where a million names failed.
type AccountSummary struct {
	Account  string `json:"account"`
	Failures int64  `json:"failures"`
}

// FileSummary is what one file held.
type FileSummary struct {
	Name      string    `json:"name"`
	Format    Format    `json:"format"`
	Gzip      bool      `json:"gzip"`
	Records   int64     `json:"records"` // frames or lines
	Decoded   int64     `json:"decoded"`
	Repeated  int64     `json:"repeated"` // more of these, which stand in no record of their own
	Tampered  int64     `json:"tampered"`
	Skipped   int64     `json:"skipped"`
	Truncated int64     `json:"truncated"`
	From      time.Time `json:"from,omitzero"`
	Error     string    `json:"error,omitempty"` // why it ended early

	NotUnderstood int64   `json:"not_understood"`
	First         Unclear `json:"first_not_understood,omitzero"` // of these, by its line
}

// Failed says whether any file could not be read to its end.
func (s *Summary) Failed() bool {
	for _, f := range s.Files {
		if f.Error != "" {
			return true
		}
	}
	return false
}

// MarshalJSON writes the last line of replay --json.
func (s *Summary) MarshalJSON() ([]byte, error) {
	prefixes := make([]netip.Prefix, len(s.Customers))
	customers := make([]customerJSON, len(s.Customers))
	for i, c := range s.Customers {
		prefixes[i] = c.Prefix
		customers[i] = customerJSON{c, c.Total.Seconds()}
	}
	return json.Marshal(struct {
		Action        string           `json:"action"`
		Events        int64            `json:"events"`
		Decoded       int64            `json:"decoded"`
		Repeated      int64            `json:"repeated"`
		NotUnderstood int64            `json:"not_understood"`
		Tampered      int64            `json:"tampered"`
		Sources       int              `json:"sources"`
		Bans          int64            `json:"bans"`
		Trusted       int              `json:"trusted"`
		Observed      int64            `json:"observed"`
		LoggedIn      int              `json:"logged_in"`
		Blocked       int64            `json:"blocked"`
		Passed        int64            `json:"passed"`
		Skipped       int64            `json:"skipped"`
		Truncated     int64            `json:"truncated"`
		From          *time.Time       `json:"from"`
		To            *time.Time       `json:"to"`
		Prefixes      []netip.Prefix   `json:"would_ban_customers"`
		Customers     []customerJSON   `json:"customers"`
		Misconfigured []Report         `json:"misconfigured"`
		Breaches      []Report         `json:"breaches"`
		Targeted      []Report         `json:"targeted"`
		Guessing      []Report         `json:"guessing"`
		NewPlaces     []Report         `json:"new_places,omitempty"`
		Proxies       []Report         `json:"proxies,omitempty"`
		Cuts          []Report         `json:"cuts,omitempty"`
		Accounts      []AccountSummary `json:"top_accounts"`
		Reasons       map[string]int64 `json:"tampered_reasons"`
		Files         []FileSummary    `json:"files"`
		Notes         []string         `json:"notes"`
	}{
		"summary", s.Events, s.Decoded, s.Repeated, s.NotUnderstood, s.Tampered, s.Sources, s.Bans, s.Trusted,
		s.Observed, s.LoggedIn, s.Blocked, s.Passed, s.Skipped, s.Truncated, nilIfZero(s.From), nilIfZero(s.To),
		prefixes,
		customers,
		neverNil(s.Misconfigured), neverNil(s.Breaches), neverNil(s.Targeted), neverNil(s.Guessing), s.NewPlaces,
		s.Proxies,
		s.Cuts,
		neverNil(s.Accounts),
		s.Reasons, neverNil(s.Files), neverNil(s.Notes),
	})
}

type customerJSON struct {
	Customer
	Duration float64 `json:"duration_seconds"`
}

func nilIfZero(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// neverNil makes an empty list of nil, which would be null in JSON.
func neverNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
