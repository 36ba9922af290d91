package ban

import (
	"net/netip"
	"time"
)

// RestrictionKind is how a part of a source is restricted.
type RestrictionKind string

// The kinds of restrictions.
const (
	RestrictionCut     RestrictionKind = "cut"     // nothing of the flow passes
	RestrictionSlow    RestrictionKind = "slow"    // a few packets of the flow or of the source pass
	RestrictionTrickle RestrictionKind = "trickle" // the same, over UDP, of each port that never logged in
)

// Restriction is what cuts or slows some of a source, while the others there go on.
type Restriction struct {
	Kind    RestrictionKind `json:"kind"`
	Scope   Scope           `json:"scope"`                   // flow or source
	Prefix  netip.Prefix    `json:"prefix"`                  // the source
	Flow    Flow            `json:"flow,omitzero"`           // of the scope flow
	Packets int             `json:"packets,omitempty"`       // that pass, 0 if none; over TCP connections
	Every   float64         `json:"every_seconds,omitempty"` // so many of them
	Until   time.Time       `json:"until"`
	Left    float64         `json:"left_seconds"` // as of when the engine was asked
	Place                   // of Prefix; filled in when it is shown
}

// GoodFlow is a flow from which somebody logged in: it passes whatever else is banned.
type GoodFlow struct {
	Flow  Flow      `json:"flow"`
	Until time.Time `json:"until"`
	Left  float64   `json:"left_seconds"` // as of when the engine was asked
}
