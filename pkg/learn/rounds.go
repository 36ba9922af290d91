package learn

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/ami"
	"github.com/ringwall/ringwall/pkg/printable"
)

const (
	contactPrefix = "/registrar/contact/"
	maxContacts   = 200_000
	maxServers    = 10_000
	// staleAfter is how long after its expiry a contact still counts. Asterisk removes expired ones itself, within
	// seconds; the rest is for an Asterisk that does not say what time it has.
	staleAfter = 24 * time.Hour
)

// peers are those of one channel driver.
type peers struct {
	fixed    []fixed
	contacts []claimed
}

// A claimed is a contact's address, read.
type claimed struct {
	endpoint string
	addr     netip.Addr
}

// askContacts reads the registered contacts, by the way that needs least.
func (l *Learner) askContacts(ctx context.Context) error {
	read := readTree
	reply, err := l.action(ctx, "DBGetTree", ami.Header{Name: "Family", Value: "registrar"})
	if errors.Is(err, errRefused) {
		read = readContact
		reply, err = l.action(ctx, "PJSIPShowContacts")
	}
	if err != nil {
		return err
	}
	l.contacts, l.skipped = nil, Skipped{Malformed: len(reply.Malformed)}
	for _, m := range reply.Events {
		c, mine, ok := read(m)
		switch {
		case !mine:
		case !ok:
			l.skipped.Malformed++
		case len(l.contacts) >= maxContacts:
			l.skipped.Surplus++
		default:
			l.contacts = append(l.contacts, c)
		}
	}
	slices.SortFunc(l.contacts, func(a, b contact) int {
		if c := strings.Compare(a.endpoint, b.endpoint); c != 0 {
			return c
		}
		return a.host.addr.Compare(b.host.addr)
	})
	return l.askClock(ctx)
}

// askClock finds out how far Asterisk's clock is from ours, if contacts are out of date by ours: the clock of a PBX may be
// wrong by days or years, after a battery has died or where nothing sets it, and its phones are registered all the same.
// Nobody is denied Ping (main/manager.c: its class is 0), whose answer has the time since Asterisk 1.6.
func (l *Learner) askClock(ctx context.Context) error {
	l.ahead = 0
	now := l.cfg.Now()
	if !slices.ContainsFunc(l.contacts, func(c contact) bool { return c.stale(now) }) {
		return nil
	}
	reply, err := l.action(ctx, "Ping")
	if err != nil || reply.Response == nil {
		if errors.Is(err, errOver) {
			return err
		}
		return nil // our clock must do, and staleAfter
	}
	text, ok := field(reply.Response, "Timestamp")
	seconds, _, _ := strings.Cut(text, ".")
	if at, err := strconv.ParseInt(seconds, 10, 64); ok && err == nil && at >= 0 && at < 1<<40 {
		l.ahead = time.Unix(at, 0).Sub(l.cfg.Now())
	}
	return nil
}

// readTree reads an item of DBGetTree: Event, Key, Val, ActionID, in this order and nothing else (main/db.c,
// manager_db_tree_get()).
func readTree(m *ami.Message) (c contact, mine, ok bool) {
	h := m.Headers
	if len(h) != 4 || !is(m, "DBGetTreeResponse") || h[1].Name != "Key" || h[2].Name != "Val" || h[3].Name != "ActionID" {
		return c, true, false
	}
	if !strings.HasPrefix(h[1].Value, contactPrefix) {
		return c, false, false
	}
	c, ok = parseContact(h[2].Value)
	return c, true, ok
}

func readContact(m *ami.Message) (c contact, mine, ok bool) {
	if !is(m, "ContactList") {
		return c, true, false
	}
	// The administrator's own contacts are in the list too, with "@@" in their names and no expiry. They come to
	// Prefixes by way of their endpoint.
	if c, ok = contactOf(m); ok && c.expires == 0 {
		return c, false, false
	}
	return c, true, ok
}

// askRegistrations reads where Asterisk registers itself. AuthDetail, which holds the password, is passed over.
func (l *Learner) askRegistrations(ctx context.Context) error {
	reply, err := l.action(ctx, "PJSIPShowRegistrationsOutbound")
	if errors.Is(err, errRefused) {
		return nil
	}
	if err != nil {
		return err
	}
	var servers []fixed
	for _, m := range reply.Events {
		if !is(m, "OutboundRegistrationDetail") || len(servers) >= maxServers {
			continue
		}
		name, ok1 := field(m, "ObjectName")
		server, ok2 := field(m, "ServerUri")
		proxy, ok3 := field(m, "OutboundProxy")
		if !ok1 || !ok2 || name == "" || len(name) > maxName {
			continue
		}
		f := fixed{note: "registration " + printable.String(name)}
		t, ok := parseURI(server)
		f.put("server", t, ok)
		if ok3 && proxy != "" {
			t, ok := parseURI(proxy)
			f.put("outbound proxy", t, ok)
		}
		servers = append(servers, f)
	}
	l.servers = servers
	return nil
}

// askPeers reads the peers of the older channel drivers.
func (l *Learner) askPeers(ctx context.Context) error {
	for _, q := range []struct{ action, channel, kind string }{{"IAXpeers", "IAX2", "IAX"}, {"SIPpeers", "SIP", "SIP"}} {
		reply, err := l.action(ctx, q.action)
		if errors.Is(err, errRefused) {
			continue
		}
		if errors.Is(err, errOver) {
			return err
		}
		if err != nil {
			continue
		}
		items := reply.Events
		if len(items) == 0 {
			items = untagged(reply, "PeerEntry")
		}
		if reply.Response != nil && !complete(reply, len(items)) {
			l.fail(q.action, errors.New("learn: the list does not have as many items as its end says; it is asked again later"))
			continue
		}
		var p peers
		for _, m := range items {
			p.take(m, q.channel, q.kind)
		}
		l.peers[q.action] = p
	}
	return nil
}

// untagged returns the items that carry no ActionID (chan_iax2.c, manager_iax2_show_peers()).
func untagged(reply *ami.Reply, event string) []*ami.Message {
	var out []*ami.Message
	for _, text := range reply.Untagged {
		if m, err := ami.ParseMessage(text); err == nil && is(m, event) {
			out = append(out, m)
		}
	}
	return out
}

func (p *peers) take(m *ami.Message, channel, kind string) {
	name, ok1 := field(m, "ObjectName")
	ip, ok2 := field(m, "IPaddress")
	dynamic, ok3 := field(m, "Dynamic")
	driver, ok4 := field(m, "Channeltype")
	if !is(m, "PeerEntry") || !ok1 || !ok2 || !ok3 || !ok4 || driver != channel || name == "" || len(name) > maxName {
		return
	}
	// chan_iax2 writes name/username.
	name, _, _ = strings.Cut(name, "/")
	addr, ok := parseAddr(ip)
	if !ok {
		return // "-none-", "(null)"
	}
	switch {
	case strings.EqualFold(dynamic, "no") && len(p.fixed) < maxServers:
		f := fixed{note: "trunk " + printable.String(name) + " (" + kind + " peer)"}
		f.put("address", target{addr: addr}, true)
		p.fixed = append(p.fixed, f)
	case strings.EqualFold(dynamic, "yes") && len(p.contacts) < maxContacts:
		p.contacts = append(p.contacts, claimed{endpoint: name, addr: addr})
	}
}

// fixedThings returns everything that the administrator configured, in an order that does not change.
func (l *Learner) fixedThings() []fixed {
	var out []fixed
	for _, e := range l.endpoints {
		out = append(out, e.fixed...)
	}
	out = append(append(out, l.listed...), l.servers...)
	for _, p := range l.peers {
		out = append(out, p.fixed...)
	}
	last := func(f fixed) bool { return strings.HasPrefix(f.note, "registration ") } // a trunk's name says more
	slices.SortStableFunc(out, func(a, b fixed) int {
		if last(a) != last(b) {
			return map[bool]int{true: 1, false: -1}[last(a)]
		}
		return strings.Compare(a.note, b.note)
	})
	return out
}

// watchNames hands the names of servers to the resolver.
func (l *Learner) watchNames() {
	var names []string
	for _, f := range l.fixedThings() {
		names = append(names, f.names...)
	}
	if err := l.resolver.Set(names); err != nil {
		l.fail("names", err)
	}
}

// compose makes Knowledge of all answers.
func (l *Learner) compose() Knowledge {
	d := newDraft(l.cfg.Name, l.cfg.MaxPrefixes)
	d.At, d.Skipped, d.Failed = l.at, l.skipped, slices.Clone(l.failed)
	for _, q := range questions() {
		if l.verdicts[q.action] == denied {
			d.Denied = append(d.Denied, Denied{Action: q.action, ManagerConf: "write = " + q.class, For: q.what})
		}
	}
	things := l.fixedThings()
	for _, f := range things {
		d.add(f, l.resolver.Prefixes)
	}
	for _, s := range l.resolver.States() {
		if i := slices.IndexFunc(things, func(f fixed) bool { return slices.Contains(f.names, s.Name) }); i >= 0 && s.Err != nil && len(d.Failed) < maxRefused {
			d.Failed = append(d.Failed, Failure{What: things[i].note + " (" + s.Name + ")", Err: s.Err.Error()})
		}
	}
	for _, c := range l.contacts {
		if addr, ok := l.judge(c, &d.Skipped); ok {
			d.claim(addr, c.endpoint, l.cfg.MaxPerEndpoint)
		}
	}
	for _, action := range []string{"IAXpeers", "SIPpeers"} {
		for _, c := range l.peers[action].contacts {
			switch {
			case !possible(c.addr):
				d.Skipped.Unusable++
			case action == "SIPpeers" && inside(c.addr):
				d.Skipped.Private++ // chan_sip takes it from Contact where nat= does not say otherwise
			default:
				d.claim(c.addr, c.endpoint, l.cfg.MaxPerEndpoint)
			}
		}
	}
	return d.finish()
}

// judge returns the address of a contact that counts; see the package's comment.
func (l *Learner) judge(c contact, skipped *Skipped) (netip.Addr, bool) {
	e := l.endpoints[c.endpoint]
	known := e != nil && e.known
	t := c.host
	var count *int
	switch {
	case !l.at.IsZero() && c.stale(l.at.Add(l.ahead)):
		count = &skipped.Expired
	case c.proxied:
		count = &skipped.Proxied
	case t.name != "":
		count = &skipped.Named
	case !possible(t.addr):
		count = &skipped.Unusable
	case known && !e.rewrite:
		count = &skipped.Claimed
	case !known && inside(t.addr):
		count = &skipped.Private
	default:
		return t.addr, true
	}
	*count++
	return netip.Addr{}, false
}
