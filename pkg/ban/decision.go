package ban

import (
	"encoding/json"
	"math"
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
)

// Decision is one line of Ringwall's output; its JSON form is part of the contract. Account holds bytes that an
// attacker chose: quote it before it reaches a terminal or a log.
type Decision struct {
	Time      time.Time
	Action    Action
	Source    netip.Addr   // who sent; not valid where no single address did
	Prefix    netip.Prefix // what the action applies to; not valid where a frame was tampered with
	Reason    Reason
	Points    float64 // of the last piece of evidence
	Score     float64 // after it
	Account   string
	Service   event.Service
	Transport event.Transport
	Proven    bool          // the source could not have been forged
	SeenBy    event.Sensor  // who told
	Scope     Scope         // of a ban or a cut, or what would be one; empty where there is none
	Closes    Closes        // of a ban
	Flow      Flow          // that was cut
	Duration  time.Duration // of the ban, grace or trust; 0 where none applies
	PBX       string        // name of the Asterisk
	Origin    string        // the node of the fleet that told of it; empty: this one
	Here      bool          // of an unban by a person: for this node alone; not in the decision line
	Detail    string        // for a person: what happened, without bytes from the wire
	Place                   // of Source, else of Prefix; filled in when it is shown
}

// decisionJSON is the decision line of the contract. An address or a prefix that is not valid is an empty text.
type decisionJSON struct {
	Time      time.Time    `json:"time"`
	Action    Action       `json:"action"`
	Source    netip.Addr   `json:"source"`
	Prefix    netip.Prefix `json:"prefix"`
	Reason    Reason       `json:"reason"`
	Points    float64      `json:"points"`
	Score     float64      `json:"score"`
	Account   string       `json:"account"`
	Service   string       `json:"service"`
	Transport string       `json:"transport"`
	Proven    bool         `json:"proven"`
	SeenBy    string       `json:"seen_by,omitempty"`
	Scope     Scope        `json:"scope,omitempty"`
	Closes    *Closes      `json:"closes,omitempty"`
	Flow      *Flow        `json:"flow,omitempty"`
	Duration  float64      `json:"duration_seconds"`
	PBX       string       `json:"pbx"`
	Origin    string       `json:"origin,omitempty"`
	Detail    string       `json:"detail,omitempty"`
	Place
}

// MarshalJSON writes the decision line of the contract.
func (d Decision) MarshalJSON() ([]byte, error) {
	line := decisionJSON{
		Time: d.Time, Action: d.Action, Source: d.Source, Prefix: d.Prefix, Reason: d.Reason, Points: Round(d.Points),
		Score: Round(d.Score), Account: d.Account, Transport: d.Transport.String(), Proven: d.Proven,
		Duration: d.Duration.Seconds(), PBX: d.PBX, Detail: d.Detail, Place: d.Place,
	}
	line.Scope, line.Origin = d.Scope, d.Origin
	if d.Scope != "" && d.Scope != ScopeFlow {
		line.Closes = &d.Closes
	}
	if d.Flow.IsValid() {
		line.Flow = &d.Flow
	}
	if d.SeenBy != event.ByAMI {
		line.SeenBy = d.SeenBy.String()
	}
	if d.Service != event.OtherService {
		line.Service = d.Service.String()
	}
	return json.Marshal(line)
}

// UnmarshalJSON reads the decision line of the contract back.
func (d *Decision) UnmarshalJSON(text []byte) error {
	var line decisionJSON
	if err := json.Unmarshal(text, &line); err != nil {
		return err
	}
	*d = Decision{
		Time: line.Time, Action: line.Action, Source: line.Source, Prefix: line.Prefix, Reason: line.Reason,
		Points: line.Points, Score: line.Score, Account: line.Account, Service: event.ServiceNamed(line.Service),
		Transport: event.TransportNamed(line.Transport), Proven: line.Proven,
		SeenBy: event.SensorNamed(line.SeenBy), Duration: time.Duration(line.Duration * float64(time.Second)),
		PBX: line.PBX, Origin: line.Origin,
		Detail: line.Detail, Place: line.Place, Scope: line.Scope,
	}
	if line.Closes != nil {
		d.Closes = *line.Closes
	}
	if line.Flow != nil {
		d.Flow = *line.Flow
	}
	return nil
}

// Round rounds points to three decimals, as they are shown.
func Round(points float64) float64 { return math.Round(points*1000) / 1000 }
