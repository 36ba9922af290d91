package ban

import (
	"fmt"
	"net/netip"
	"time"
)

// Ban is an active ban, or in observe mode one that would be active. Texts may hold any bytes that came by wire.
type Ban struct {
	Prefix   netip.Prefix `json:"prefix"`
	Source   netip.Addr   `json:"-"` // not valid where no single address was banned
	Reason   Reason       `json:"reason"`
	Since    time.Time    `json:"since"`
	Until    time.Time    `json:"until"`
	Duration float64      `json:"duration_seconds"` // from Since to Until; not stored
	Left     float64      `json:"left_seconds"`     // as of when the engine was asked; not stored
	Score    float64      `json:"score"`            // when it was banned
	Proven   bool         `json:"proven"`           // the source could not have been forged
	Observed bool         `json:"observed"`         // not in the kernel; never stored
	Manual   bool         `json:"manual"`           // a person said so
	Scope    Scope        `json:"scope"`            // not stored
	Closes   Closes       `json:"closes"`
	// DoorShut says of a ban that closes UDP that the trickle of ban.knock does not pass it any more.
	DoorShut bool       `json:"door_shut,omitempty"`
	Number   int        `json:"number"` // 1 for the first ban of this source, 2 for the second, …
	Comment  string     `json:"comment,omitempty"`
	Origin   string     `json:"origin,omitempty"` // the node of the fleet that told of it; empty: this one
	PBX      string     `json:"pbx"`
	Accounts []string   `json:"accounts"`       // names that were tried, of Evidence; not stored
	Attempts int        `json:"attempts"`       // that led to it, and since
	Leak     *Leak      `json:"leak,omitempty"` // the ban does not keep its packets out; not stored
	Evidence []Evidence `json:"evidence,omitempty"`
	Place               // of Prefix; filled in when it is shown
}

// Evidence is one event that counted, or that would have counted but for a rule.
type Evidence struct {
	Time      time.Time `json:"time"`
	Event     string    `json:"event"` // Asterisk's name of it
	Service   string    `json:"service"`
	Transport string    `json:"transport"`
	Account   string    `json:"account"` // as the attacker wrote it
	Reason    Reason    `json:"reason"`
	Points    float64   `json:"points"` // when it came
	Score     float64   `json:"score"`  // of the source right after it
	Proven    bool      `json:"proven"`
	PBX       string    `json:"pbx"`
	SeenBy    string    `json:"seen_by,omitempty"` // the sensor that told, where it was no event of Asterisk's
	Note      string    `json:"note,omitempty"`    // why it gave no points, if it gave none

	Multiplier float64 `json:"multiplier,omitempty"` // that is in Points, by geo.multiply; 0 where there is none
	Country    string  `json:"country,omitempty"`    // that has a multiplier
	ASN        uint32  `json:"asn,omitempty"`        // that has one
}

// Leak is what a ban did not keep out.
type Leak struct {
	Last      time.Time `json:"last"` // event
	Events    int       `json:"events"`
	Port      uint16    `json:"port"` // of Asterisk, as it calls it; 0 where it did not say
	Transport string    `json:"transport"`
}

// Where is the port at which it got through.
func (l *Leak) Where() string {
	if l.Port == 0 {
		return "Asterisk"
	}
	return fmt.Sprintf("%s port %d", l.Transport, l.Port)
}

// Offender is a source that was banned within ban.memory.
type Offender struct {
	Prefix netip.Prefix
	Bans   int
	Last   time.Time // end of the last ban
}
