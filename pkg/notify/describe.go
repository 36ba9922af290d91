package notify

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/notify/message"
	"github.com/ringwall/ringwall/pkg/printable"
)

// describeDecision brings a decision into words. Account is the only text of an attacker's in it, and is escaped.
func describeDecision(d ban.Decision, host string) message.Message {
	m := message.Message{
		Time: d.Time.UTC().Format(time.RFC3339), Host: host, Action: string(d.Action), Reason: string(d.Reason),
		Points: roundToTenths(d.Points), Score: roundToTenths(d.Score), Account: printable.String(d.Account),
		Proven:  d.Proven,
		Seconds: d.Duration.Seconds(), PBX: printable.Limit(d.PBX, 260), Detail: printable.Limit(d.Detail, 500),
		Scope: string(d.Scope),
	}
	if d.Source.IsValid() {
		m.Source = d.Source.WithZone("").String()
	}
	if d.Prefix.IsValid() {
		m.Prefix = d.Prefix.String()
	}
	if d.Flow.IsValid() {
		m.Flow = d.Flow.String()
	} else if d.Scope != "" {
		m.Closes = d.Closes.String()
	}
	if d.SeenBy != event.ByAMI {
		m.SeenBy = d.SeenBy.String()
	}
	if d.Service != event.OtherService {
		m.Service = d.Service.String()
	}
	if d.Transport != 0 {
		m.Transport = d.Transport.String()
	}
	if d.Duration > 0 {
		m.Duration = humanize.DurationToSecond(d.Duration)
	}
	m.Title = "Ringwall on " + host + ": " + titleOf(d, &m)
	m.Text = textOf(&m)
	return m
}

// describeWithPlace brings a decision into words, with the place of its source.
func (n *Notifier) describeWithPlace(d ban.Decision) message.Message {
	m := describeDecision(d, n.host)
	switch {
	case n.placeOf == nil:
	case d.Source.IsValid():
		addPlace(&m, n.placeOf(d.Source))
	case d.Prefix.IsValid():
		addPlace(&m, n.placeOf(d.Prefix.Addr()))
	}
	return m
}

// addPlace adds where an address is registered. The name is foreign text, and stays out of the sentence.
func addPlace(m *message.Message, p ban.Place) {
	if p == (ban.Place{}) {
		return
	}
	m.Country, m.ASN, m.ASName = printable.Limit(p.Country, 2), p.ASN, printable.Limit(p.ASName, 100)
	m.Text = textOf(m)
}

// titleOf says in a few words what happened. It has no account: an attacker chose it.
func titleOf(d ban.Decision, m *message.Message) string {
	who := m.Source
	if d.Prefix.IsValid() {
		who = m.Prefix
		if d.Prefix.IsSingleIP() {
			who = d.Prefix.Addr().String()
		}
	}
	if who == "" {
		who = "an unknown source"
	}
	switch d.Action {
	case ban.ActionBan:
		return who + " is banned"
	case ban.ActionExtend:
		return "the ban of " + who + " is extended"
	case ban.ActionUnban:
		return who + " is no longer banned"
	case ban.ActionObserve:
		switch d.Reason {
		case ban.ReasonAllowed:
			return who + " attacks, but is on the allow list"
		case ban.ReasonProtected:
			return who + " looks like an attacker, but Asterisk knows it"
		case ban.ReasonStorm:
			return "many customers fail at once: the fault is at Asterisk, and they are not banned"
		case ban.ReasonManual:
			return who + " attacks, and is not banned: somebody let it in for a time"
		case ban.ReasonLimit:
			return who + " attacks, and is not banned: a bound of policy.limits was hit"
		}
		if d.Duration == 0 {
			return who + " attacks, and is not banned"
		}
		return who + " would be banned"
	case ban.ActionTrust:
		return who + " is trusted"
	case ban.ActionUntrust:
		return who + " is no longer trusted"
	case ban.ActionMisconfigured:
		return "a phone at " + who + " is misconfigured"
	case ban.ActionBreach:
		if d.Reason == ban.ReasonDistributed {
			return who + " may have found a password"
		}
		return who + " has found a password"
	case ban.ActionGuessing:
		return who + " guesses passwords, and is not banned"
	case ban.ActionTampering:
		return "somebody tampers with Asterisk's events"
	case ban.ActionLeak:
		return "the ban of " + who + " does not keep it out"
	case ban.ActionBlind:
		switch d.Reason {
		case ban.ReasonAsterisk:
			return "no connection to Asterisk: attacks are not seen"
		case ban.ReasonKernel:
			return "the kernel does not hold the bans as it should"
		}
		return "one of the senses is silent"
	case ban.ActionProxy:
		return who + " looks like a proxy: many accounts log in through it"
	case ban.ActionReview:
		return "what observing has shown: who would be banned, and whether customers are among them"
	case ban.ActionCut:
		return who + " guesses passwords beside good phones: its connections end, theirs go on"
	case ban.ActionNewPlace:
		if d.Reason == ban.ReasonList {
			return "an account logged in from " + who + ", which a list of attackers names"
		}
		return "an account logged in from " + who + ", where it never was"
	case ban.ActionTargeted:
		return "many sources guess the password of one account"
	}
	return printable.String(string(d.Action)) + " " + who
}

func textOf(m *message.Message) string {
	var b strings.Builder
	b.WriteString("Reason: " + strings.ReplaceAll(m.Reason, "_", " "))
	if m.Score > 0 {
		fmt.Fprintf(&b, ", score %v", m.Score)
	}
	if m.Duration != "" {
		b.WriteString(", for " + m.Duration)
	}
	switch {
	case m.Flow != "":
		b.WriteString(", " + m.Flow)
	case m.Closes == ban.ClosesUDP.String():
		b.WriteString(", UDP only")
	case m.Closes == ban.ClosesManager.String():
		b.WriteString(", the manager's ports only")
	case m.Closes == ban.ClosesSIP.String():
		b.WriteString(", all but the manager's ports")
	}
	if m.PBX != "" {
		b.WriteString(", at " + m.PBX)
	}
	if m.Country != "" {
		b.WriteString(", from " + m.Country)
	}
	if m.ASN != 0 {
		fmt.Fprintf(&b, ", network AS%d", m.ASN)
	}
	b.WriteByte('.')
	if m.Detail != "" {
		b.WriteString(" " + m.Detail)
	}
	return b.String()
}

func roundToTenths(x float64) float64 { return math.Round(x*10) / 10 }
