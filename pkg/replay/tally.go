package replay

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
)

// What is remembered of a recording of any length. Beyond a bound it is counted, and a note says so.
const (
	maxSources     = 1 << 20
	maxLogins      = 1 << 17 // sources with logins
	maxBanned      = 1 << 17 // prefixes
	maxReports     = 1 << 12
	maxNames       = 8    // accounts of one source
	maxThrough     = 1000 // accounts of one source that are counted
	topAccounts    = 20
	noSuchAccount  = "<unknown>" // endpoint id of main/security_events.c for requests that no endpoint matches
	boundHitFormat = "more than %d %s: those beyond are counted, not listed"
)

type key [16]byte

// seen is a source that sent anything.
type seen struct {
	until    int64 // end of the last ban, ns; 0 without one
	enforced bool
	trusted  bool
}

// login is what is known of a source whose users log in. It is kept apart from the engine's trust, which has rules.
type login struct {
	first, last int64
	n           int64
	locked      int64 // while banned
	accounts    []string
	names       map[uint64]struct{} // hashes of all names, up to maxThrough
}

type tally struct {
	sum      *Summary
	firewall config.Firewall
	v6       int
	seed     maphash.Seed // of login.names

	sources map[key]seen
	logins  map[key]*login
	banned  map[netip.Prefix]*Banned
	wide    map[netip.Prefix]seen // bans of prefixes that are no source
	widths  []int                 // their lengths; IPv6 ones plus 1000
	failing frequent
	reports map[report]int // index in its list, after sorting by action
	over    map[string]int // bounds that were hit
}

type report struct {
	action  ban.Action
	source  netip.Prefix
	account string
}

func newTally(p config.Policy, f config.Firewall) *tally {
	return &tally{
		sum:      &Summary{Reasons: map[string]int64{}},
		firewall: f,
		v6:       p.IPv6Prefix,
		seed:     maphash.MakeSeed(),
		sources:  make(map[key]seen),
		logins:   make(map[key]*login),
		banned:   make(map[netip.Prefix]*Banned),
		wide:     make(map[netip.Prefix]seen),
		failing:  frequent{size: frequentNames, counts: make(map[string]int64)},
		reports:  make(map[report]int),
		over:     make(map[string]int),
	}
}

func (t *tally) prefixOf(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = t.v6
	}
	p, _ := a.Prefix(bits)
	return p
}

func (t *tally) keyOf(a netip.Addr) key {
	if a.Is4() {
		return a.As16()
	}
	return t.prefixOf(a).Addr().As16()
}

// isSource says whether a prefix is exactly one source.
func (t *tally) isSource(p netip.Prefix) bool {
	return p.Addr().Is4() && p.Bits() == 32 || p.Addr().Is6() && p.Bits() == t.v6
}

// event counts an event before the engine sees it, and says whether it would have happened: the packets of a source
// that is banned reach Asterisk only at ports that the firewall leaves alone.
func (t *tally) event(ev *event.Event, now int64) (happens bool) {
	addr := ev.Remote.AddrPort.Addr()
	k := t.keyOf(addr)
	s, ok := t.sources[k]
	if !ok {
		if len(t.sources) < maxSources {
			t.sources[k] = s
		} else {
			t.over["sources"] = maxSources
		}
	}
	prefix, banned := t.prefixOf(addr), s.until > now
	if len(t.wide) > 0 && (!banned || !s.enforced) {
		if p, w, ok := t.covering(addr, now); ok && (!banned || w.enforced) {
			prefix, banned, s.enforced = p, true, w.enforced
		}
	}
	if ev.Type == event.SuccessfulAuth && ev.Service != event.AMI && ev.UsingPassword {
		t.login(k, ev, now, banned)
	} else if ev.Account != noSuchAccount && ev.Account != "" && failure(ev.Type) {
		t.failing.add(ev.Account)
	}
	switch {
	case !banned || !s.enforced:
		return true
	case !t.stops(ev):
		t.sum.Passed++
		return true
	}
	t.sum.Blocked++
	if b := t.banned[prefix]; b != nil {
		b.Blocked++
	}
	return false
}

func failure(t event.Type) bool {
	return t == event.InvalidAccountID || t == event.ChallengeResponseFailed || t == event.InvalidPassword
}

// covering returns the active ban of a network around an address, an enforced one first.
func (t *tally) covering(a netip.Addr, now int64) (found netip.Prefix, s seen, ok bool) {
	for _, n := range t.widths {
		if a.Is6() != (n >= 1000) {
			continue
		}
		p, err := a.Prefix(n % 1000)
		if err != nil {
			continue
		}
		if w := t.wide[p]; w.until > now && (!ok || w.enforced) {
			found, s, ok = p, w, true
		}
	}
	return found, s, ok
}

// stops says whether the firewall would have dropped the packets of an event of a banned source.
func (t *tally) stops(ev *event.Event) bool {
	port := ev.Local.AddrPort.Port()
	switch {
	case t.firewall.Scope == config.ScopeAll || t.firewall.Ports.Auto || port == 0: // auto closes wherever Asterisk receives
		return true
	case ev.Remote.Transport == event.UDP:
		return slices.Contains(t.firewall.Ports.UDP, port)
	case ev.Remote.Transport == event.NoTransport:
		return slices.Contains(t.firewall.Ports.UDP, port) || slices.Contains(t.firewall.Ports.TCP, port)
	}
	return slices.Contains(t.firewall.Ports.TCP, port)
}

func (t *tally) login(k key, ev *event.Event, now int64, banned bool) {
	l := t.logins[k]
	if l == nil {
		if len(t.logins) >= maxLogins {
			t.over["sources with logins"] = maxLogins
			return
		}
		l = &login{first: now}
		t.logins[k] = l
	}
	l.n++
	l.last = now
	if banned {
		l.locked++
	}
	if len(l.names) < maxThrough {
		if l.names == nil {
			l.names = make(map[uint64]struct{})
		}
		l.names[maphash.String(t.seed, ev.Account)] = struct{}{}
	}
	if len(l.accounts) < maxNames && !slices.Contains(l.accounts, ev.Account) {
		if name := cutName(ev.Account, nameBytes); !slices.Contains(l.accounts, name) {
			l.accounts = append(l.accounts, name)
		}
	}
}

// decision counts a decision.
func (t *tally) decision(d *ban.Decision) {
	switch {
	case bans(d):
		t.ban(d)
	case d.Action == ban.ActionUnban:
		t.unban(d.Prefix)
	case d.Action == ban.ActionTrust && d.Prefix.IsValid():
		k := key(d.Prefix.Addr().As16())
		if s, ok := t.sources[k]; ok && !s.trusted {
			s.trusted = true
			t.sources[k] = s
			t.sum.Trusted++
		}
	case d.Action == ban.ActionMisconfigured:
		t.report(d, &t.sum.Misconfigured)
	case d.Action == ban.ActionBreach:
		t.report(d, &t.sum.Breaches)
	case d.Action == ban.ActionTargeted:
		t.report(d, &t.sum.Targeted)
	case d.Action == ban.ActionObserve && d.Reason == ban.ReasonProxy:
		t.report(d, &t.sum.Proxies)
	case d.Action == ban.ActionNewPlace:
		t.report(d, &t.sum.NewPlaces)
	case d.Action == ban.ActionGuessing:
		t.report(d, &t.sum.Guessing)
	}
}

// bans says whether a decision bans or would ban. Observe without a duration reports why somebody is spared.
func bans(d *ban.Decision) bool {
	return d.Prefix.IsValid() && (d.Action == ban.ActionBan || d.Action == ban.ActionExtend ||
		d.Action == ban.ActionObserve && d.Duration > 0)
}

func (t *tally) ban(d *ban.Decision) {
	enforced := d.Action != ban.ActionObserve
	if enforced {
		t.sum.Bans++
	} else {
		t.sum.Observed++
	}
	until := d.Time.Add(d.Duration).UnixNano()
	k := key(d.Prefix.Addr().As16())
	if t.isSource(d.Prefix) {
		s := t.sources[k]
		s.until, s.enforced = until, enforced
		t.sources[k] = s
	} else {
		t.wide[d.Prefix] = seen{until: until, enforced: enforced}
		width := d.Prefix.Bits()
		if d.Prefix.Addr().Is6() {
			width += 1000
		}
		if !slices.Contains(t.widths, width) {
			t.widths = append(t.widths, width)
		}
	}
	b := t.banned[d.Prefix]
	if b == nil {
		if len(t.banned) >= maxBanned && t.logins[k] == nil { // whoever logged in is always listed
			t.over["banned sources"] = maxBanned
			return
		}
		b = &Banned{Prefix: d.Prefix, First: d.Time, Reason: d.Reason, Account: d.Account}
		t.banned[d.Prefix] = b
	}
	b.Bans++
	b.Last = d.Time
	b.Total += d.Duration
	b.Enforced = b.Enforced || enforced
	b.Proven = b.Proven || d.Proven
}

func (t *tally) unban(p netip.Prefix) {
	if !t.isSource(p) {
		delete(t.wide, p)
		return
	}
	k := key(p.Addr().As16())
	if s, ok := t.sources[k]; ok && s.until != 0 {
		s.until = 1 // over, but it was
		t.sources[k] = s
	}
}

func (t *tally) report(d *ban.Decision, list *[]Report) {
	r := report{action: d.Action, account: d.Account, source: d.Prefix}
	if i, ok := t.reports[r]; ok {
		(*list)[i].Times++
		return
	}
	if len(*list) >= maxReports {
		t.over["reports of one kind"] = maxReports
		return
	}
	t.reports[r] = len(*list)
	*list = append(*list, Report{Source: r.source, Account: d.Account, First: d.Time, Times: 1, Detail: d.Detail})
}

// finish fills in the lists of the summary.
func (t *tally) finish() {
	s := t.sum
	s.Sources, s.LoggedIn = len(t.sources), len(t.logins)
	s.Accounts = t.failing.top(topAccounts)
	for k, l := range t.logins {
		t.customers(k, l)
	}
	slices.SortFunc(s.Customers, func(a, b Customer) int {
		return cmp.Or(cmp.Compare(b.LoginsWhileBanned, a.LoginsWhileBanned), cmp.Compare(b.Logins, a.Logins),
			cmp.Compare(a.Prefix.String(), b.Prefix.String()), cmp.Compare(a.Source.String(), b.Source.String()))
	})
	for _, b := range t.banned {
		s.Banned = append(s.Banned, *b)
	}
	slices.SortFunc(s.Banned, func(a, b Banned) int {
		return cmp.Or(a.First.Compare(b.First), cmp.Compare(a.Prefix.String(), b.Prefix.String()))
	})
	names := make([]string, 0, len(t.over))
	for name := range t.over {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		s.Notes = append(s.Notes, fmt.Sprintf(boundHitFormat, t.over[name], name))
	}
}

// customers lists the bans that touch a source whose users logged in.
func (t *tally) customers(k key, l *login) {
	addr := netip.AddrFrom16(k).Unmap()
	source := t.prefixOf(addr)
	add := func(b Banned) {
		t.sum.Customers = append(t.sum.Customers, Customer{
			Banned: b, Source: source, Accounts: l.accounts, Logins: l.n, LoginsWhileBanned: l.locked,
			Through:    len(l.names),
			FirstLogin: time.Unix(0, l.first).UTC(), LastLogin: time.Unix(0, l.last).UTC(),
		})
	}
	switch b := t.banned[source]; {
	case b != nil:
		add(*b)
	case t.sources[k].until != 0: // banned when the list was full
		add(Banned{Prefix: source})
	}
	for _, n := range t.widths {
		if addr.Is6() != (n >= 1000) {
			continue
		}
		if p, err := addr.Prefix(n % 1000); err == nil && n%1000 < source.Bits() {
			if b := t.banned[p]; b != nil {
				add(*b)
			}
			continue
		}
		for p, b := range t.banned { // a single address of a customer's IPv6 network
			if p.Bits() == n%1000 && source.Contains(p.Addr()) {
				add(*b)
			}
		}
	}
}
