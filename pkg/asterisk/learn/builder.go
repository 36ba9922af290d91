package learn

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/pkg/printable"
)

const maxRefused = 100 // sentences in Knowledge.Refused, and failures in Failed

// composeKnowledge makes Knowledge of all answers.
func (l *Learner) composeKnowledge() Knowledge {
	d := newBuilder(l.cfg.Name, l.cfg.MaxPrefixes)
	d.At, d.Skipped, d.Failed = l.answeredAt, l.skipped, slices.Clone(l.failed)
	for _, q := range allQuestions() {
		if l.refusals[q.action] == denied {
			d.Denied = append(d.Denied, Denied{Action: q.action, ManagerConf: "write = " + q.class, For: q.purpose})
		}
	}
	things := l.allConfigured()
	for _, f := range things {
		d.addConfigured(f, l.resolver.Prefixes)
	}
	for _, s := range l.resolver.States() {
		if i := slices.IndexFunc(things, func(f configured) bool { return slices.Contains(f.hosts, s.Name) }); i >= 0 &&
			s.Err != nil && len(d.Failed) < maxRefused {
			d.Failed = append(d.Failed, Failure{What: things[i].origin + " (" + s.Name + ")", Err: s.Err.Error()})
		}
	}
	for _, c := range l.contacts {
		if addr, ok := l.creditedAddress(c, &d.Skipped); ok {
			d.addContact(netip.AddrPortFrom(addr, c.address.port), c.endpoint, l.cfg.MaxPerEndpoint)
		}
	}
	for _, action := range []string{"IAXpeers", "SIPpeers"} {
		for _, c := range l.peers[action].contacts {
			switch {
			case !isUsable(c.addr):
				d.Skipped.Unusable++
			case action == "SIPpeers" && isPrivate(c.addr):
				d.Skipped.Private++ // chan_sip takes it from Contact where nat= does not say otherwise
			default:
				d.addContact(netip.AddrPortFrom(c.addr, 0), c.endpoint, l.cfg.MaxPerEndpoint)
			}
		}
	}
	return d.finishKnowledge()
}

// creditedAddress returns the address of a contact that counts, or counts why it does not: see the package's comment.
func (l *Learner) creditedAddress(c contact, skipped *Skipped) (netip.Addr, bool) {
	e := l.endpoints[c.endpoint]
	known := e != nil && e.rewriteKnown
	t := c.address
	var count *int
	switch {
	case !l.answeredAt.IsZero() && c.isLongExpired(l.answeredAt.Add(l.clockAhead)):
		count = &skipped.Expired
	case c.viaProxy:
		count = &skipped.Proxied
	case t.name != "":
		count = &skipped.Named
	case !isUsable(t.addr):
		count = &skipped.Unusable
	case known && !e.rewriteContact:
		count = &skipped.Claimed
	case !known && isPrivate(t.addr):
		count = &skipped.Private
	default:
		return t.addr, true
	}
	*count++
	return netip.Addr{}, false
}

// A builder puts Knowledge together: first what is configured, then contacts in the order of their endpoints.
type builder struct {
	Knowledge
	maxPrefixes int
	notListed   int // sentences that Refused has no room for
	contacts    map[netip.Prefix]*contactOwners
	perEndpoint map[string]int // contacts
}

// contactOwners are the endpoints that one address is registered for.
type contactOwners struct {
	first, last string
	others      int                   // besides the first
	ports       map[uint16]portOwners // those that are known
}

// portOwners are the endpoints that one port of an address is registered for.
type portOwners struct {
	last  string
	count int
}

// addPort counts an endpoint once for a port; contacts come in the order of their endpoints.
func (c *contactOwners) addPort(port uint16, endpoint string) {
	if port == 0 {
		return
	}
	if p := c.ports[port]; p.last != endpoint {
		c.ports[port] = portOwners{endpoint, p.count + 1}
	}
}

// throughOnePort is how many endpoints come through the port that most come through: 1 where no port is known.
func (c *contactOwners) throughOnePort() int {
	most := 1
	for _, p := range c.ports {
		most = max(most, p.count)
	}
	return most
}

func newBuilder(pbx string, limit int) *builder {
	return &builder{
		Knowledge: Knowledge{PBX: pbx, Prefixes: map[netip.Prefix]string{}, Contacts: map[netip.Prefix]string{},
			ThroughOnePort: map[netip.Prefix]int{}},
		maxPrefixes: limit, contacts: map[netip.Prefix]*contactOwners{}, perEndpoint: map[string]int{},
	}
}

func (d *builder) addRefused(note, why string) {
	if text := note + ": " + why; len(d.Refused) >= maxRefused {
		d.notListed++
	} else if !slices.Contains(d.Refused, text) {
		d.Refused = append(d.Refused, text)
	}
}

func (d *builder) addPrefix(p netip.Prefix, note string) {
	if _, ok := d.Prefixes[p]; ok {
		return
	}
	if len(d.Prefixes) >= d.maxPrefixes {
		d.addRefused(note, fmt.Sprintf("%v is beyond the bound of %d prefixes", p, d.maxPrefixes))
		return
	}
	d.Prefixes[p] = note
}

// addConfigured adds what the administrator configured; the resolver knows the names.
func (d *builder) addConfigured(f configured, resolve func(string) []netip.Prefix) {
	for _, why := range f.refused {
		d.addRefused(f.origin, why)
	}
	for _, p := range f.prefixes {
		d.addPrefix(p, f.origin)
	}
	for _, name := range f.hosts {
		for _, p := range resolve(name) {
			d.addPrefix(p, f.origin+" ("+name+")")
		}
	}
}

// addContact adds a contact's address, at most so many of one endpoint.
func (d *builder) addContact(at netip.AddrPort, endpoint string, most int) {
	p := netip.PrefixFrom(at.Addr(), at.Addr().BitLen())
	if c := d.contacts[p]; c != nil {
		c.addPort(at.Port(), endpoint)
		if c.last != endpoint {
			c.last = endpoint
			c.others++
		}
		return
	}
	if _, ok := d.Prefixes[p]; ok {
		return
	}
	if d.perEndpoint[endpoint] >= most || len(d.Prefixes)+len(d.contacts) >= d.maxPrefixes {
		d.Skipped.Surplus++
		return
	}
	d.perEndpoint[endpoint]++
	c := &contactOwners{first: endpoint, last: endpoint, ports: map[uint16]portOwners{}}
	c.addPort(at.Port(), endpoint)
	d.contacts[p] = c
}

func (d *builder) finishKnowledge() Knowledge {
	for p, c := range d.contacts {
		note := "contact of " + printable.String(c.first)
		if c.others > 0 {
			note += fmt.Sprintf(" and %d more", c.others)
		}
		d.Contacts[p], d.ThroughOnePort[p] = note, c.throughOnePort()
	}
	if d.notListed > 0 {
		d.Refused = append(d.Refused, fmt.Sprintf("and %d more", d.notListed))
	}
	return d.Knowledge
}
