package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/firewall/internal/nfnl"
)

// Firewall is what a daemon needs of the kernel; Table and DryRun are it.
// The methods may be called at any time from any goroutine, but changes come
// from one: the Writer's.
type Firewall interface {
	Ensure() (Outcome, error)
	Apply([]Change) error
	Elements(Kind) ([]Element, error)
	Has(Kind, netip.Prefix) (Element, bool, error)
	Drops() (map[string]uint64, error)
	Verify() error
	Delete() error
	Close() error
}

// Outcome says what Ensure found.
type Outcome string

const (
	// Created: there was no table.
	Created Outcome = "create"
	// Adopted: a table was there and kept its elements.
	Adopted Outcome = "adopt"
	// Migrated: a table of another make was replaced, in one transaction, by
	// one that has its elements. The kernel exchanges the chains of two tables
	// one after the other, so under a flood some 10 µs of packets pass.
	Migrated Outcome = "migrate"
)

// Table is the kernel's table.
type Table struct {
	cfg  Config
	defs [numSets]setDef

	mu     sync.Mutex // writing
	w      *nfnl.Conn
	fresh  bool // the connection has not been used yet
	broken bool // the table has to be ensured before a change
	owner  ownership
	// What is believed about the hash sets; cautious is "nothing yet".
	written     written
	cautious    bool
	plan        plan
	transaction nfnl.Transaction // that is being put together
	fullUntil   [numSets]time.Time

	state  sync.Mutex // what Ensure and Apply leave for readers
	rules  []uint64   // handles of the chain's rules, in order
	ranges [numSets]ranges
	port   uint32
	owned  bool
	reason string
	closed bool
	// What the last Verify found.
	verified verified

	ears ears

	readMu sync.Mutex // reading goes its own way: a listing takes seconds
	r      *nfnl.Conn
}

var (
	_ Firewall = (*Table)(nil)
	_ Firewall = (*DryRun)(nil)
)

// Open checks the configuration and opens the lasting connection. Nothing is
// changed in the kernel before Ensure.
func Open(cfg Config) (*Table, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	cfg.UDPPorts, cfg.TCPPorts = slices.Clone(cfg.UDPPorts), slices.Clone(cfg.TCPPorts)
	t := &Table{cfg: cfg, defs: sets(cfg.IPv6Prefix), fresh: true, broken: true, written: newWritten()}
	if t.w, err = dial(cfg.NetNS); err != nil {
		return nil, err
	}
	return t, nil
}

// Close ends the connections and leaves the table, with every ban, in the
// kernel.
func (t *Table) Close() error {
	t.state.Lock()
	t.closed = true
	t.state.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.readMu.Lock()
	defer t.readMu.Unlock()
	var err error
	for _, s := range []**nfnl.Conn{&t.w, &t.r} {
		if *s != nil {
			err = errors.Join(err, (*s).Close())
			*s = nil
		}
	}
	t.broken = true
	return err
}

func (t *Table) isClosed() bool {
	t.state.Lock()
	defer t.state.Unlock()
	return t.closed
}

// Port returns the netlink port id under which this process now changes the
// table; the kernel's notices of its own changes carry it.
func (t *Table) Port() uint32 {
	t.state.Lock()
	defer t.state.Unlock()
	return t.port
}

// Owned reports whether the table is protected by owner and persist, and if
// not, why. It is known after Ensure.
func (t *Table) Owned() (bool, string) {
	t.state.Lock()
	defer t.state.Unlock()
	return t.owned, t.reason
}

// redial opens a new connection; called with mu.
func (t *Table) redial() error {
	if t.isClosed() {
		return ErrClosed
	}
	if t.w != nil {
		_ = t.w.Close() // gives an owned table up, so that the new one may take it
		t.w = nil
	}
	s, err := dial(t.cfg.NetNS)
	if err != nil {
		return err
	}
	t.w = s
	return nil
}

func (t *Table) table() *nftables.Table {
	f := nftables.Table{Name: t.cfg.Table, Family: nftables.TableFamilyINet}
	if t.owner == ownerYes {
		f.Flags = nftables.TableFlagOwner | nftables.TableFlagPersist
	}
	return &f
}

// Ensure creates the table or adopts the one that is there, with its
// elements. It may be called at any time; where nothing is amiss it changes
// nothing that a packet notices. After an error of any method it redials.
func (t *Table) Ensure() (Outcome, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ensure()
}

// ensure is Ensure; called with mu.
func (t *Table) ensure() (Outcome, error) {
	if t.isClosed() {
		return "", ErrClosed
	}
	if t.w == nil || t.broken && !t.fresh {
		if err := t.redial(); err != nil {
			return "", err
		}
	}
	t.broken, t.fresh = true, false
	t.state.Lock()
	t.verified = verified{}
	t.state.Unlock()
	if err := t.chooseOwner(); err != nil {
		return "", err
	}
	found, err := t.inspect()
	if err != nil {
		return "", explain("look at table "+t.cfg.Table, err)
	}
	outcome := Created
	var carried []Element
	switch {
	case found.table != nil && found.differs != "":
		outcome = Migrated
		if carried, err = t.carry(found); err != nil {
			return "", explain("read the older table's elements", err)
		}
	case found.table != nil:
		outcome = Adopted
	}
	if err := t.build(found, outcome == Migrated, carried); err != nil {
		return "", explain("build table "+t.cfg.Table, err)
	}
	if err := t.readBack(); err != nil {
		return "", explain("read table "+t.cfg.Table+" back", err)
	}
	t.broken = false
	t.fullUntil = [numSets]time.Time{}
	if outcome == Created {
		t.written = newWritten()
	}
	t.cautious = outcome != Created
	return outcome, nil
}

// tableDormant is NFT_TABLE_F_DORMANT: the table is there, its chains are not
// called.
const tableDormant = nftables.TableFlags(unix.NFT_TABLE_F_DORMANT)

// found is what inspect saw in the kernel.
type found struct {
	table   *nftables.Table
	sets    map[string]*nftables.Set
	packets [numSets]uint64
	bytes   [numSets]uint64
	differs string // why the table cannot be adopted as it is
}

func (t *Table) inspect() (found, error) {
	var f found
	want := t.table()
	have, err := t.w.Nftables.ListTableOfFamily(want.Name, want.Family)
	if errors.Is(err, unix.ENOENT) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	f.table = have
	// An orphan has lost the flag owner and kept persist.
	persist := have.Flags & nftables.TableFlagPersist
	if persist != want.Flags&nftables.TableFlagPersist || have.Flags&nftables.TableFlagOwner != 0 && t.owner != ownerYes {
		f.differs = "table flags"
	}
	if have.Flags&tableDormant != 0 {
		f.differs = "table is dormant"
	}
	list, err := t.w.Nftables.GetSets(want)
	if err != nil {
		return f, err
	}
	f.sets = make(map[string]*nftables.Set, len(list))
	for _, s := range list {
		f.sets[s.Name] = s
	}
	for id, d := range t.defs {
		s := f.sets[d.name]
		if s != nil && t.cfg.used(setID(id)) && !sameSet(t.cfg.kernelSet(want, setID(id), d), s) {
			f.differs = "set " + d.name
		}
	}
	c, err := t.w.Nftables.ListChain(want, chainName)
	if errors.Is(err, unix.ENOENT) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	if !t.cfg.sameChain(c) {
		f.differs = "chain " + chainName
	}
	rules, err := t.w.Nftables.GetRules(want, c)
	if err != nil {
		return f, err
	}
	for _, r := range rules {
		if id, n := t.counted(r); n != nil {
			f.packets[id] += n.Packets
			f.bytes[id] += n.Bytes
		}
	}
	return f, nil
}

// counted returns the set and the counter of a drop rule.
func (t *Table) counted(r *nftables.Rule) (setID, *expr.Counter) {
	id := numSets
	for _, e := range r.Exprs {
		name := ""
		switch e := e.(type) {
		case *expr.Lookup:
			name = e.SetName
		case *expr.Dynset:
			name = e.SetName
		case *expr.Counter:
			if id < numSets {
				return id, e
			}
		}
		if i := slices.IndexFunc(t.defs[:], func(d setDef) bool { return d.name == name }); i >= 0 {
			id = setID(i)
		}
	}
	return numSets, nil
}

func (t *Table) chain(table *nftables.Table) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return &nftables.Chain{
		Name: chainName, Table: table, Type: nftables.ChainTypeFilter, Policy: &accept,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRef(nftables.ChainPriority(t.cfg.Priority)),
	}
}

func (cfg *Config) sameChain(c *nftables.Chain) bool {
	return c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookPrerouting && c.Priority != nil &&
		int(*c.Priority) == cfg.Priority && c.Type == nftables.ChainTypeFilter &&
		c.Policy != nil && *c.Policy == nftables.ChainPolicyAccept
}

// build writes table, sets, chain and rules in one transaction, so that no
// packet sees half of them.
func (t *Table) build(f found, replace bool, carried []Element) error {
	lib, table := t.w.Nftables, t.table()
	if replace {
		lib.DelTable(table)
	}
	lib.AddTable(table)
	chain := t.chain(table)
	lib.AddChain(chain)
	if f.table != nil && !replace {
		lib.FlushChain(chain)
	}
	elems, size := t.distribute(carried)
	t.w.GrowSendBuffer(size)
	for i, d := range t.defs {
		id := setID(i)
		if !t.cfg.used(id) {
			if f.sets[d.name] != nil && !replace {
				lib.DelSet(&nftables.Set{Table: table, Name: d.name})
			}
			continue
		}
		s := t.cfg.kernelSet(table, id, d)
		if err := lib.AddSet(s, elems[id]); err != nil {
			return err
		}
	}
	var failed error
	rules := t.cfg.ruleset(t.defs, f.packets, f.bytes, func(ports []uint16) *nftables.Set {
		s, e := portSet(table, ports)
		failed = errors.Join(failed, lib.AddSet(s, e))
		return s
	})
	for i := range rules {
		lib.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: rules[i].exprs, UserData: rules[i].userData()})
	}
	return errors.Join(failed, lib.Flush())
}

// distribute gives carried elements to the sets that hold them now. What does
// not fit a smaller set is what would have ended first.
func (t *Table) distribute(carried []Element) (elems [numSets][]nftables.SetElement, size int) {
	now := time.Now()
	slices.SortFunc(carried, func(a, b Element) int { return int(b.Remaining/time.Second) - int(a.Remaining/time.Second) })
	var edits [numSets][]edit
	for _, e := range carried {
		id, p, ok := setFor(e.Kind, e.Prefix, t.cfg.IPv6Prefix)
		if !ok || !t.cfg.used(id) {
			continue
		}
		if t.defs[id].shape == interval {
			ed := edit{prefix: p}
			if e.Remaining > 0 {
				ed.until = now.Add(e.Remaining)
			}
			edits[id] = append(edits[id], ed)
		} else if n := t.cfg.size(id); e.Remaining > 0 && (n == 0 || len(elems[id]) < int(n)) {
			elems[id] = append(elems[id], nftables.SetElement{Key: p.Addr().AsSlice(), Timeout: max(time.Millisecond, e.Remaining)})
			size += 100
		}
	}
	for id := range edits {
		_, _, add := ranges{}.apply(edits[id], now)
		for i := range add {
			for _, e := range add[i].elems(now) {
				elems[id] = append(elems[id], nftables.SetElement{
					Key: e.Key.AsSlice(), IntervalEnd: e.End, IntervalOpen: e.Open, Timeout: e.Timeout, Comment: e.Comment,
				})
				size += 100
			}
		}
	}
	return elems, size
}

// readBack remembers what Verify compares with, and the networks that are in
// the interval sets.
func (t *Table) readBack() error {
	table := t.table()
	rules, err := t.w.Nftables.GetRules(table, &nftables.Chain{Name: chainName, Table: table})
	if err != nil {
		return err
	}
	handles := make([]uint64, len(rules))
	for i, r := range rules {
		handles[i] = r.Handle
	}
	var loadedRanges [numSets]ranges
	for i, d := range t.defs {
		if d.shape != interval {
			continue
		}
		spans, err := t.listSpans(t.w, setID(i))
		if err != nil {
			return err
		}
		loadedRanges[i] = loaded(spans)
	}
	t.state.Lock()
	defer t.state.Unlock()
	t.rules, t.ranges, t.port = handles, loadedRanges, t.w.Port()
	t.owned = t.owner == ownerYes
	return nil
}

// Verify checks, in a fraction of a millisecond, that table, sets, chain and rules are those
// that Ensure left. It does not look at elements; Has does. Where no ruleset has changed since
// the last time, within a minute, it only asks for that.
func (t *Table) Verify() error {
	g, err := t.Generation()
	if err != nil {
		return err
	}
	t.state.Lock()
	still := t.verified.still(g)
	t.state.Unlock()
	if still {
		return nil
	}
	err = t.compare()
	if errors.Is(err, ErrGone) {
		// An Ensure may have been between the kernel's commit and our notes of it: look again when it is through.
		t.mu.Lock()
		err = t.compare()
		t.mu.Unlock()
	}
	t.state.Lock()
	defer t.state.Unlock()
	t.verified = verified{}
	if err == nil {
		t.verified = verified{g, time.Now()} // asked for before the look: what came in between is looked at again
	}
	return err
}

// compare holds what Ensure left against what the kernel has.
func (t *Table) compare() error {
	t.state.Lock()
	handles, port, owned, cfg := t.rules, t.port, t.owned, t.cfg
	t.state.Unlock()
	if handles == nil {
		return fmt.Errorf("%w: Ensure was not called", ErrGone)
	}
	return t.read("verify the table", func(s *nfnl.Conn) error {
		want := nftables.Table{Name: cfg.Table, Family: nftables.TableFamilyINet}
		have, err := s.Nftables.ListTableOfFamily(want.Name, want.Family)
		if err != nil {
			return err
		}
		if owned && have.Owner != port {
			return fmt.Errorf("%w: another process took table %s over", ErrGone, want.Name)
		}
		if have.Flags&tableDormant != 0 {
			return fmt.Errorf("%w: table %s was made dormant", ErrGone, want.Name)
		}
		list, err := s.Nftables.GetSets(&want)
		if err != nil {
			return err
		}
		for id, d := range t.defs {
			if !cfg.used(setID(id)) {
				continue
			}
			i := slices.IndexFunc(list, func(s *nftables.Set) bool { return s.Name == d.name })
			if i < 0 || !sameSet(cfg.kernelSet(&want, setID(id), d), list[i]) {
				return fmt.Errorf("%w: set %s is missing or was changed", ErrGone, d.name)
			}
		}
		c, err := s.Nftables.ListChain(&want, chainName)
		if err != nil {
			return err
		}
		if !cfg.sameChain(c) {
			return fmt.Errorf("%w: chain %s was changed", ErrGone, chainName)
		}
		rules, err := s.Nftables.GetRules(&want, c)
		if err != nil {
			return err
		}
		// A rule is never changed, only replaced by one with another handle.
		if !slices.EqualFunc(rules, handles, func(r *nftables.Rule, h uint64) bool { return r.Handle == h }) {
			return fmt.Errorf("%w: the rules of chain %s were changed", ErrGone, chainName)
		}
		return nil
	})
}

// Delete takes the table and every element out of the kernel. Other tables
// stay. A table that is not there is no error.
func (t *Table) Delete() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.w == nil {
		if err := t.redial(); err != nil {
			return err
		}
	}
	t.broken = true
	t.w.Nftables.DelTable(&nftables.Table{Name: t.cfg.Table, Family: nftables.TableFamilyINet})
	if err := t.w.Nftables.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return explain("delete table "+t.cfg.Table, err)
	}
	return nil
}

// read runs f on the connection for reading, and drops it after an error.
func (t *Table) read(what string, f func(*nfnl.Conn) error) error {
	t.readMu.Lock()
	defer t.readMu.Unlock()
	if t.isClosed() {
		return ErrClosed
	}
	if t.r == nil {
		s, err := dial(t.cfg.NetNS)
		if err != nil {
			return err
		}
		t.r = s
	}
	err := f(t.r)
	if err == nil || errors.Is(err, ErrGone) {
		return err
	}
	if !errors.Is(err, unix.ENOENT) {
		_ = t.r.Close()
		t.r = nil
	}
	return explain(what, err)
}

func dial(netns int) (*nfnl.Conn, error) {
	conn, err := nfnl.Dial(netns)
	return conn, explain("open a netlink socket", err)
}
