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

// Bounds of what is remembered of a recording of any length. What is beyond is counted but not listed, and a note
// says so.
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

type sourceKey [16]byte

// sourceState is what is remembered of a source that sent anything.
type sourceState struct {
	until    int64 // end of the last ban, ns; 0 without one
	enforced bool
	closes   ban.Closes
	trusted  bool
}

// loginCount is what is remembered of a source whose users logged in, whatever the engine's rules of trust say of it.
type loginCount struct {
	first, last int64
	logins      int64
	whileBanned int64 // while banned
	accounts    []string
	names       map[uint64]struct{} // hashes of all names, up to maxThrough
}

type tally struct {
	sum      *Summary
	firewall config.Firewall
	passage  passage
	ipv6Bits int          // of a source
	seed     maphash.Seed // of loginCount.names

	sources        map[sourceKey]sourceState
	logins         map[sourceKey]*loginCount
	banned         map[netip.Prefix]*Banned
	networks       map[netip.Prefix]sourceState // bans of prefixes that are no source
	networkLengths []int                        // the lengths in bits of networks; of IPv6 ones 1000 more
	failedAccounts nameCounter
	reports        map[reportKey]int // index in the list of its action
	boundsHit      map[string]int    // the bounds that were hit, by what they bound
}

type reportKey struct {
	action  ban.Action
	source  netip.Prefix
	account string
}

func newTally(p config.Policy, f config.Firewall) *tally {
	return &tally{
		sum:            &Summary{Reasons: map[string]int64{}},
		firewall:       f,
		passage:        newPassage(p.Ban.Knock, p.Ban.KnockSource),
		ipv6Bits:       p.IPv6Prefix,
		seed:           maphash.MakeSeed(),
		sources:        make(map[sourceKey]sourceState),
		logins:         make(map[sourceKey]*loginCount),
		banned:         make(map[netip.Prefix]*Banned),
		networks:       make(map[netip.Prefix]sourceState),
		failedAccounts: nameCounter{capacity: maxCountedNames, counts: make(map[string]int64)},
		reports:        make(map[reportKey]int),
		boundsHit:      make(map[string]int),
	}
}

func (t *tally) sourcePrefix(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = t.ipv6Bits
	}
	p, _ := a.Prefix(bits)
	return p
}

func (t *tally) keyOf(a netip.Addr) sourceKey {
	if a.Is4() {
		return a.As16()
	}
	return t.sourcePrefix(a).Addr().As16()
}

// isSource says whether a prefix is exactly one source.
func (t *tally) isSource(p netip.Prefix) bool {
	return p.Addr().Is4() && p.Bits() == 32 || p.Addr().Is6() && p.Bits() == t.ipv6Bits
}

// countEvent counts an event before the engine sees it, and reports whether it would have happened: the packets of a
// source that is banned reach Asterisk only at ports that the firewall leaves alone.
func (t *tally) countEvent(ev *event.Event, now int64) (happens bool) {
	addr := ev.Remote.AddrPort.Addr()
	k := t.keyOf(addr)
	s, ok := t.sources[k]
	if !ok {
		if len(t.sources) < maxSources {
			t.sources[k] = s
		} else {
			t.boundsHit["sources"] = maxSources
		}
	}
	prefix, banned := t.sourcePrefix(addr), s.until > now
	if len(t.networks) > 0 && (!banned || !s.enforced) {
		if p, w, ok := t.networkBanOf(addr, now); ok && (!banned || w.enforced) {
			prefix, banned, s.enforced, s.closes = p, true, w.enforced, w.closes
		}
	}
	if banned && t.passage.passesBan(ev, prefix, s.closes, now) {
		banned = false
	}
	if !banned && t.passage.isCut(ev, now) {
		banned, s.enforced = true, true
	}
	if ev.Type == event.SuccessfulAuth && ev.Service != event.AMI && ev.UsingPassword {
		t.countLogin(k, ev, now, banned)
	} else if ev.Account != noSuchAccount && ev.Account != "" && isFailure(ev.Type) {
		t.failedAccounts.countName(ev.Account)
	}
	switch {
	case !banned || !s.enforced:
		return true
	case !t.firewallStops(ev):
		t.sum.Passed++
		return true
	}
	t.sum.Blocked++
	if b := t.banned[prefix]; b != nil {
		b.Blocked++
	}
	return false
}

func isFailure(t event.Type) bool {
	return t == event.InvalidAccountID || t == event.ChallengeResponseFailed || t == event.InvalidPassword
}

// networkBanOf returns the active ban of a network around an address, an enforced one first.
func (t *tally) networkBanOf(a netip.Addr, now int64) (found netip.Prefix, s sourceState, ok bool) {
	for _, n := range t.networkLengths {
		if a.Is6() != (n >= 1000) {
			continue
		}
		p, err := a.Prefix(n % 1000)
		if err != nil {
			continue
		}
		if w := t.networks[p]; w.until > now && (!ok || w.enforced) {
			found, s, ok = p, w, true
		}
	}
	return found, s, ok
}

// firewallStops says whether the firewall would have dropped the packets of an event of a banned source.
func (t *tally) firewallStops(ev *event.Event) bool {
	port := ev.Local.AddrPort.Port()
	switch {
	case t.firewall.Scope == config.ScopeAll || port == 0,
		t.firewall.Ports.Auto: // closes wherever Asterisk receives
		return true
	case ev.Remote.Transport == event.UDP:
		return slices.Contains(t.firewall.Ports.UDP, port)
	case ev.Remote.Transport == event.NoTransport:
		return slices.Contains(t.firewall.Ports.UDP, port) || slices.Contains(t.firewall.Ports.TCP, port)
	}
	return slices.Contains(t.firewall.Ports.TCP, port)
}

func (t *tally) countLogin(k sourceKey, ev *event.Event, now int64, banned bool) {
	l := t.logins[k]
	if l == nil {
		if len(t.logins) >= maxLogins {
			t.boundsHit["sources with logins"] = maxLogins
			return
		}
		l = &loginCount{first: now}
		t.logins[k] = l
	}
	l.logins++
	l.last = now
	if banned {
		l.whileBanned++
	}
	if len(l.names) < maxThrough {
		if l.names == nil {
			l.names = make(map[uint64]struct{})
		}
		l.names[maphash.String(t.seed, ev.Account)] = struct{}{}
	}
	if len(l.accounts) < maxNames && !slices.Contains(l.accounts, ev.Account) {
		if name := shortenName(ev.Account, maxNameBytes); !slices.Contains(l.accounts, name) {
			l.accounts = append(l.accounts, name)
		}
	}
}

// countDecision counts a decision.
func (t *tally) countDecision(d *ban.Decision) {
	switch {
	case isBan(d):
		t.countBan(d)
	case d.Action == ban.ActionUnban:
		t.endBan(d.Prefix)
	case d.Action == ban.ActionTrust && d.Prefix.IsValid():
		k := sourceKey(d.Prefix.Addr().As16())
		if s, ok := t.sources[k]; ok && !s.trusted {
			s.trusted = true
			t.sources[k] = s
			t.sum.Trusted++
		}
	case d.Action == ban.ActionMisconfigured:
		t.addReport(d, &t.sum.Misconfigured)
	case d.Action == ban.ActionBreach:
		t.addReport(d, &t.sum.Breaches)
	case d.Action == ban.ActionTargeted:
		t.addReport(d, &t.sum.Targeted)
	case d.Action == ban.ActionProxy:
		t.addReport(d, &t.sum.Proxies)
	case d.Action == ban.ActionCut:
		t.addReport(d, &t.sum.Cuts)
	case d.Action == ban.ActionNewPlace:
		t.addReport(d, &t.sum.NewPlaces)
	case d.Action == ban.ActionGuessing:
		t.addReport(d, &t.sum.Guessing)
	}
}

// isBan says whether a decision bans or would ban. Observe without a duration reports why somebody is spared.
func isBan(d *ban.Decision) bool {
	return d.Prefix.IsValid() && (d.Action == ban.ActionBan || d.Action == ban.ActionExtend ||
		d.Action == ban.ActionObserve && d.Duration > 0)
}

func (t *tally) countBan(d *ban.Decision) {
	enforced := d.Action != ban.ActionObserve
	switch {
	case d.Action == ban.ActionExtend: // the same ban closes more
	case enforced:
		t.sum.Bans++
	default:
		t.sum.Observed++
	}
	until := d.Time.Add(d.Duration).UnixNano()
	k := sourceKey(d.Prefix.Addr().As16())
	if t.isSource(d.Prefix) {
		s := t.sources[k]
		s.until, s.enforced, s.closes = until, enforced, d.Closes
		t.sources[k] = s
	} else {
		t.networks[d.Prefix] = sourceState{until: until, enforced: enforced, closes: d.Closes}
		width := d.Prefix.Bits()
		if d.Prefix.Addr().Is6() {
			width += 1000
		}
		if !slices.Contains(t.networkLengths, width) {
			t.networkLengths = append(t.networkLengths, width)
		}
	}
	b := t.banned[d.Prefix]
	if b == nil {
		if len(t.banned) >= maxBanned && t.logins[k] == nil { // whoever logged in is always listed
			t.boundsHit["banned sources"] = maxBanned
			return
		}
		b = &Banned{Prefix: d.Prefix, First: d.Time, Reason: d.Reason, Account: d.Account, Closes: d.Closes}
		t.banned[d.Prefix] = b
	}
	b.Proven = b.Proven || d.Proven
	if b.Closes != d.Closes {
		b.Closes = ban.ClosesAll
	}
	if d.Action == ban.ActionExtend {
		b.Total += max(0, d.Time.Add(d.Duration).Sub(b.end))
		b.end = d.Time.Add(d.Duration)
		return
	}
	b.Bans++
	b.Last = d.Time
	b.Total += d.Duration
	b.end = d.Time.Add(d.Duration)
	b.Enforced = b.Enforced || enforced
}

func (t *tally) endBan(p netip.Prefix) {
	if !t.isSource(p) {
		delete(t.networks, p)
		return
	}
	k := sourceKey(p.Addr().As16())
	if s, ok := t.sources[k]; ok && s.until != 0 {
		s.until = 1 // over, but it was
		t.sources[k] = s
	}
}

func (t *tally) addReport(d *ban.Decision, list *[]Report) {
	r := reportKey{action: d.Action, account: d.Account, source: d.Prefix}
	if i, ok := t.reports[r]; ok {
		(*list)[i].Times++
		return
	}
	if len(*list) >= maxReports {
		t.boundsHit["reports of one kind"] = maxReports
		return
	}
	t.reports[r] = len(*list)
	*list = append(*list, Report{Source: r.source, Account: d.Account, First: d.Time, Times: 1, Detail: d.Detail})
}

// finishLists fills in the lists of the summary.
func (t *tally) finishLists() {
	s := t.sum
	s.Sources, s.LoggedIn = len(t.sources), len(t.logins)
	s.Accounts = t.failedAccounts.mostFrequent(topAccounts)
	for k, l := range t.logins {
		t.addCustomers(k, l)
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
	names := make([]string, 0, len(t.boundsHit))
	for name := range t.boundsHit {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		s.Notes = append(s.Notes, fmt.Sprintf(boundHitFormat, t.boundsHit[name], name))
	}
}

// addCustomers lists the bans that touch a source whose users logged in.
func (t *tally) addCustomers(k sourceKey, l *loginCount) {
	addr := netip.AddrFrom16(k).Unmap()
	source := t.sourcePrefix(addr)
	add := func(b Banned) {
		t.sum.Customers = append(t.sum.Customers, Customer{
			Banned: b, Source: source, Accounts: l.accounts, Logins: l.logins, LoginsWhileBanned: l.whileBanned,
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
	for _, n := range t.networkLengths {
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
