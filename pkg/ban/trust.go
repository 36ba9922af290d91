package ban

import (
	"net/netip"
	"time"
)

// Trust is a source whose users logged in with a password. Until is not after Last where the source lost its trust.
type Trust struct {
	Prefix   netip.Prefix `json:"prefix"`
	Since    time.Time    `json:"since"`
	Until    time.Time    `json:"until"`
	Last     time.Time    `json:"-"`                // login or registration
	Left     float64      `json:"left_seconds"`     // as of when the engine was asked; not stored
	Accounts []string     `json:"accounts"`         // that logged in from there
	Score    float64      `json:"score"`            // now; not stored
	Origin   string       `json:"origin,omitempty"` // the node of the fleet where they did; empty: this one
	Place                 // of Prefix; filled in when it is shown
}

// Grace is a prefix that a person unbanned, and that is not to be banned again for a time.
type Grace struct {
	Prefix netip.Prefix
	Since  time.Time
	Until  time.Time
}

// Exemption is one entry of the allow list, or of what Asterisk protects. Prefix is not valid where it is a host name
// that has no address.
type Exemption struct {
	Prefix netip.Prefix `json:"prefix"`
	Origin string       `json:"origin"` // config, manual, host, learned, or the host name that it was resolved from
	Note   string       `json:"note,omitempty"`

	Until *time.Time `json:"until,omitempty"` // of what a person allowed for a time; nil: until it is taken off
}
