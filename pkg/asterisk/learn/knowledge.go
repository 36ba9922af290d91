package learn

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Knowledge is what one Asterisk knows about its customers. Its texts are fit for a terminal. The receiver owns it.
type Knowledge struct {
	PBX string
	At  time.Time // of the last round of questions that Asterisk answered; zero: none yet

	// Prefixes were configured by the PBX's administrator: never to be banned. The values are notes such as
	// "trunk itsp" and "registration itsp-reg (sip.example.net)".
	Prefixes map[netip.Prefix]string
	// Contacts are known from registrations only, with notes such as "contact of 6001 and 3 more". They deserve the
	// trust of a login and must never be immune; see the package's comment. None of them is in Prefixes.
	Contacts map[netip.Prefix]string
	// ThroughOnePort says of each of Contacts how many endpoints are registered through one port of it, where that are
	// most. Many are a proxy.
	ThroughOnePort map[netip.Prefix]int

	Denied  []Denied  // what Asterisk does not let this user ask
	Refused []string  // what was found and is deliberately not learned, at most 100 sentences
	Failed  []Failure // what could not be found out this time; what was known before stays
	Skipped Skipped
}

// Denied is an action that Asterisk denies the user. It is tried once in a connection.
type Denied struct {
	Action      string // "DBGetTree"
	ManagerConf string // the line for the user's section of manager.conf: "write = reporting"
	For         string // "registered contacts"
}

// Failure is a question without a usable answer.
type Failure struct {
	What string // an action, or "registration itsp-reg (sip.example.net)"
	Err  string // one line
}

// Skipped counts contacts that are not in Contacts.
type Skipped struct {
	Claimed   int // the address is only claimed: rewrite_contact=no
	Private   int // a private address that may only be claimed
	Named     int // a host name in place of an address
	Proxied   int // reached through a proxy (Path)
	Expired   int // for more than a day
	Unusable  int // loopback, multicast, unspecified or link-local
	Malformed int // cannot be read, or more than once in one item
	Surplus   int // beyond the bounds
}

// Hint says how to let Asterisk tell more, or is "".
func (k Knowledge) Hint() string {
	line, what := "", []string{}
	for _, d := range k.Denied {
		if d.Action == "Command" {
			continue // never advised: class command runs any console command
		}
		if line == "" || d.ManagerConf == "write = system" {
			line = d.ManagerConf
		}
		if !slices.Contains(what, d.For) {
			what = append(what, d.For)
		}
	}
	if line == "" {
		return ""
	}
	if line == "write = system" {
		line = "write = system,reporting"
	}
	return fmt.Sprintf("to learn %s, put in the user's section of manager.conf:\n%s\nand then run: asterisk -rx "+
		"\"manager reload\" && systemctl restart ringwall\nBoth are needed: Asterisk reads write = at a login only. "+
		"Bans stay meanwhile.",
		strings.Join(what, ", "), line)
}

// equalTo reports whether two have the same content.
func (k Knowledge) equalTo(o Knowledge) bool {
	return maps.Equal(k.Prefixes, o.Prefixes) && maps.Equal(k.Contacts, o.Contacts) &&
		maps.Equal(k.ThroughOnePort, o.ThroughOnePort) &&
		slices.Equal(k.Denied, o.Denied) &&
		slices.Equal(k.Refused, o.Refused) && slices.Equal(k.Failed, o.Failed) && k.Skipped == o.Skipped &&
		k.At.IsZero() == o.At.IsZero()
}

func (k Knowledge) deepCopy() Knowledge {
	k.Prefixes, k.Contacts = maps.Clone(k.Prefixes), maps.Clone(k.Contacts)
	k.ThroughOnePort = maps.Clone(k.ThroughOnePort)
	k.Denied, k.Refused, k.Failed = slices.Clone(k.Denied), slices.Clone(k.Refused), slices.Clone(k.Failed)
	return k
}
