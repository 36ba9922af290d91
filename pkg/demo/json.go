package demo

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/printable"
)

// jsonReporter reports to programs: each decision on a line as it is made, at the end one summary.
type jsonReporter struct {
	*errorWriter
	environment environment
}

func (o *jsonReporter) start(snapshot) {}

func (o *jsonReporter) progress(_ snapshot, news []ban.Decision) {
	for _, d := range news {
		o.writeObject(d)
	}
}

func (o *jsonReporter) writeObject(v any) {
	text, err := json.Marshal(v)
	if err != nil {
		if o.err == nil {
			o.err = err
		}
		return
	}
	o.write(string(printable.JSON(text)) + "\n")
}

// Summary is the last line of the demonstration's JSON.
type Summary struct {
	Action        string    `json:"action"` // "summary"
	Time          time.Time `json:"time"`
	OK            bool      `json:"ok"` // all of it happened
	Elapsed       float64   `json:"elapsed_seconds"`
	DryRun        bool      `json:"dry_run"` // nothing was banned, no packet stopped: see why
	DryRunReason  string    `json:"dry_run_reason,omitempty"`
	UserNamespace bool      `json:"user_namespace"`
	Bans          int       `json:"bans"`
	Tampered      int       `json:"tampered"`
	Sources       []Source  `json:"sources"`
	Failures      []string  `json:"failures"` // what did not happen
}

// Source is what became of one who sent packets.
type Source struct {
	Source        string  `json:"source"`
	Name          string  `json:"name"`
	Does          string  `json:"does"`
	Role          string  `json:"role"` // customer, attacker or forger
	Sent          int     `json:"sent"` // packets; connections of "AMI guesser"
	Arrived       int     `json:"arrived"`
	Stopped       int     `json:"stopped"`
	Late          int     `json:"arrived_after_ban"`
	Last          float64 `json:"last_arrival_seconds"`       // after the first packet
	Reaction      float64 `json:"reaction_seconds,omitempty"` // from the packet that was one too many to the ban
	Banned        bool    `json:"banned"`
	InKernel      bool    `json:"in_kernel"`
	Reason        string  `json:"reason,omitempty"`
	Duration      float64 `json:"duration_seconds,omitempty"`
	Trusted       bool    `json:"trusted"`
	Misconfigured bool    `json:"misconfigured"`
	Answered      bool    `json:"answered"` // after the attack
}

func (o *jsonReporter) finish(s snapshot, failures []string, err error) error {
	sum := Summary{
		Action: "summary", Time: s.start.Add(s.elapsed).UTC(), OK: err == nil, Elapsed: roundedSeconds(s.elapsed),
		DryRun: o.environment.dryRun, DryRunReason: o.environment.dryRunReason, UserNamespace: o.environment.userNS,
		Tampered: s.tampered,
		Sources:  []Source{}, Failures: append([]string{}, failures...),
	}
	if err != nil && len(failures) == 0 {
		sum.Failures = append(sum.Failures, strings.TrimPrefix(err.Error(), "demo: "))
	}
	for i := range s.rows {
		r := &s.rows[i]
		j := Source{
			Source: r.sourceLabel(), Name: r.name, Does: r.does, Role: r.role.String(), Sent: r.sent,
			Arrived: r.arrived,
			Stopped: r.stopped(), Late: r.arrivedAfterBan, Last: roundedSeconds(r.lastArrivalAfter()),
			Banned:   r.ban != nil && !s.dry,
			InKernel: r.inKernel,
			Trusted:  r.trusted, Misconfigured: r.misconfigured, Answered: r.answered,
		}
		if r.ban != nil {
			sum.Bans++
			j.Reaction = roundedSeconds(r.reaction)
			j.Reason, j.Duration = string(r.ban.Reason), r.ban.Duration.Seconds()
		}
		sum.Sources = append(sum.Sources, j)
	}
	o.writeObject(sum)
	return o.err
}

func roundedSeconds(d time.Duration) float64 { return d.Round(time.Microsecond).Seconds() }

// String is the word of the JSON form.
func (r role) String() string {
	switch r {
	case attacker:
		return "attacker"
	case forger:
		return "forger"
	}
	return "customer"
}
