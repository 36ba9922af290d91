package learn

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/printable"
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
	return fmt.Sprintf("to learn %s, put in the user's section of manager.conf:\n%s\nand then run: asterisk -rx \"manager reload\" && systemctl restart ringwall\nBoth are needed: Asterisk reads write = at a login only. Bans stay meanwhile.",
		strings.Join(what, ", "), line)
}

// same reports whether two have the same content.
func (k Knowledge) same(o Knowledge) bool {
	return maps.Equal(k.Prefixes, o.Prefixes) && maps.Equal(k.Contacts, o.Contacts) && slices.Equal(k.Denied, o.Denied) &&
		slices.Equal(k.Refused, o.Refused) && slices.Equal(k.Failed, o.Failed) && k.Skipped == o.Skipped && k.At.IsZero() == o.At.IsZero()
}

func (k Knowledge) clone() Knowledge {
	k.Prefixes, k.Contacts = maps.Clone(k.Prefixes), maps.Clone(k.Contacts)
	k.Denied, k.Refused, k.Failed = slices.Clone(k.Denied), slices.Clone(k.Refused), slices.Clone(k.Failed)
	return k
}

const maxRefused = 100

// A fixed is one thing that the administrator configured: "trunk itsp" with its addresses and names.
type fixed struct {
	note     string
	prefixes []netip.Prefix
	names    []string
	refused  []string
}

// put adds a target, or says why not.
func (f *fixed) put(what string, t target, ok bool) {
	switch {
	case !ok:
		f.refused = append(f.refused, what+" cannot be read")
	case t.name != "":
		if !slices.Contains(f.names, t.name) {
			f.names = append(f.names, t.name)
		}
	case !possible(t.addr):
		f.refused = append(f.refused, what+" is "+t.addr.String())
	default:
		f.prefixes = append(f.prefixes, netip.PrefixFrom(t.addr, t.addr.BitLen()))
	}
}

// A draft is Knowledge in the making.
type draft struct {
	Knowledge
	max     int
	cut     int
	claims  map[netip.Prefix]*claim
	perName map[string]int
}

type claim struct {
	first, last string // endpoints; they come in order
	more        int
}

func newDraft(pbx string, limit int) *draft {
	return &draft{
		Knowledge: Knowledge{PBX: pbx, Prefixes: map[netip.Prefix]string{}, Contacts: map[netip.Prefix]string{}},
		max:       limit, claims: map[netip.Prefix]*claim{}, perName: map[string]int{},
	}
}

func (d *draft) refuse(note, why string) {
	if text := note + ": " + why; len(d.Refused) >= maxRefused {
		d.cut++
	} else if !slices.Contains(d.Refused, text) {
		d.Refused = append(d.Refused, text)
	}
}

func (d *draft) protect(p netip.Prefix, note string) {
	if _, ok := d.Prefixes[p]; ok {
		return
	}
	if len(d.Prefixes) >= d.max {
		d.refuse(note, fmt.Sprintf("%v is beyond the bound of %d prefixes", p, d.max))
		return
	}
	d.Prefixes[p] = note
}

// add adds what the administrator configured; the resolver knows the names.
func (d *draft) add(f fixed, resolve func(string) []netip.Prefix) {
	for _, why := range f.refused {
		d.refuse(f.note, why)
	}
	for _, p := range f.prefixes {
		d.protect(p, f.note)
	}
	for _, name := range f.names {
		for _, p := range resolve(name) {
			d.protect(p, f.note+" ("+name+")")
		}
	}
}

// claim adds a contact's address, in the order of endpoints. Fixed ones must have been added before.
func (d *draft) claim(addr netip.Addr, endpoint string, most int) {
	p := netip.PrefixFrom(addr, addr.BitLen())
	if c := d.claims[p]; c != nil {
		if c.last != endpoint {
			c.last = endpoint
			c.more++
		}
		return
	}
	if _, ok := d.Prefixes[p]; ok {
		return
	}
	if d.perName[endpoint] >= most || len(d.Prefixes)+len(d.claims) >= d.max {
		d.Skipped.Surplus++
		return
	}
	d.perName[endpoint]++
	d.claims[p] = &claim{first: endpoint, last: endpoint}
}

func (d *draft) finish() Knowledge {
	for p, c := range d.claims {
		note := "contact of " + printable.String(c.first)
		if c.more > 0 {
			note += fmt.Sprintf(" and %d more", c.more)
		}
		d.Contacts[p] = note
	}
	if d.cut > 0 {
		d.Refused = append(d.Refused, fmt.Sprintf("and %d more", d.cut))
	}
	return d.Knowledge
}
