package engine

import (
	"encoding/json"
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/security"
)

// Action is what a decision does.
type Action string

// The actions. Ban, Extend and Unban change the kernel; the others are reports.
const (
	Ban           Action = "ban"
	Extend        Action = "extend"
	Unban         Action = "unban"
	Trust         Action = "trust"
	Untrust       Action = "untrust"
	Misconfigured Action = "misconfigured"
	Breach        Action = "breach"
	Tampering     Action = "tampering"
	Targeted      Action = "targeted"
	Guessing      Action = "guessing" // passwords are being guessed, and nobody is banned for it
	Leak          Action = "leak"     // a banned source still gets through
	Observe       Action = "observe"  // would have banned
)

// Reason is the rule behind a decision or a piece of evidence: a bounded set, fit for a metric label.
type Reason string

// The reasons. The first six are the keys of policy.points.
const (
	UnknownAccount      Reason = "unknown_account"
	WrongPassword       Reason = "wrong_password"
	ACL                 Reason = "acl"
	UnansweredChallenge Reason = "unanswered_challenge"
	Manager             Reason = "manager"
	Honeypot            Reason = "honeypot"

	Login         Reason = "login"         // a password was right
	Registered    Reason = "registered"    // Asterisk knows a contact there
	Expired       Reason = "expired"       // the time of a ban or of trust is over
	Manual        Reason = "manual"        // a person said so
	Allowed       Reason = "allowed"       // the allow list covers it now
	Protected     Reason = "protected"     // Asterisk knows it as a trunk
	Tolerance     Reason = "tolerance"     // a trusted source failed too often
	Accounts      Reason = "accounts"      // a trusted source failed on too many accounts
	Pace          Reason = "pace"          // one account fails as slowly as a phone retries
	Guessed       Reason = "guessed"       // a login after guessing
	Distributed   Reason = "distributed"   // many sources guess one account
	Storm         Reason = "storm"         // many known good sources fail at once
	Network       Reason = "network"       // many banned sources in one network
	Configuration Reason = "configuration" // Asterisk reports an error of set-up, not of a password
	Adopted       Reason = "adopted"       // found in the kernel at start
	Limit         Reason = "limit"         // a bound on bans was hit
	Malformed     Reason = "malformed"     // a frame that Asterisk does not write by itself, or bytes that no phone sends
)

// Decision is one line of Ringwall's output; its JSON form is part of the contract. Account holds bytes that an attacker
// chose: quote it before it reaches a terminal or a log.
type Decision struct {
	Time      time.Time
	Action    Action
	Source    netip.Addr   // who sent; not valid where no single address did
	Prefix    netip.Prefix // what the action applies to; not valid where a frame was tampered with
	Reason    Reason
	Points    float64 // of the last piece of evidence
	Score     float64 // after it
	Account   string
	Service   security.Service
	Transport security.Transport
	Proven    bool          // the source could not have been forged
	Duration  time.Duration // of the ban, grace or trust; 0 where none applies
	PBX       string        // name of the Asterisk
	Detail    string        // for a person: what happened, without bytes from the wire
}

type decisionJSON struct {
	Time      time.Time `json:"time"`
	Action    Action    `json:"action"`
	Source    string    `json:"source"`
	Prefix    string    `json:"prefix"`
	Reason    Reason    `json:"reason"`
	Points    float64   `json:"points"`
	Score     float64   `json:"score"`
	Account   string    `json:"account"`
	Service   string    `json:"service"`
	Transport string    `json:"transport"`
	Proven    bool      `json:"proven"`
	Duration  float64   `json:"duration_seconds"`
	PBX       string    `json:"pbx"`
	Detail    string    `json:"detail,omitempty"`
}

// MarshalJSON writes the decision line of the contract.
func (d Decision) MarshalJSON() ([]byte, error) { return d.AppendJSON(make([]byte, 0, 384)) }

// UnmarshalJSON reads the decision line of the contract back.
func (d *Decision) UnmarshalJSON(text []byte) error {
	var j decisionJSON
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	*d = Decision{
		Time: j.Time, Action: j.Action, Reason: j.Reason, Points: j.Points, Score: j.Score, Account: j.Account,
		Service: byName[security.Service](j.Service), Transport: byName[security.Transport](j.Transport), Proven: j.Proven,
		Duration: time.Duration(j.Duration * float64(time.Second)), PBX: j.PBX, Detail: j.Detail,
	}
	var err error
	if j.Source != "" {
		if d.Source, err = netip.ParseAddr(j.Source); err != nil {
			return err
		}
	}
	if j.Prefix != "" {
		d.Prefix, err = netip.ParsePrefix(j.Prefix)
	}
	return err
}
