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

// Firewall is what a daemon needs of the kernel; Table and DryRun are it. The methods may be called at any time
// from any goroutine, but changes come from one: the Writer's.
type Firewall interface {
	EnsureTable() (Outcome, error)
	Apply([]Change) error
	Elements(Kind) ([]Element, error)
	LookUpPrefix(Kind, netip.Prefix) (Element, bool, error)
	LookUp(Change) (Element, bool, error)
	DroppedPackets() (map[string]uint64, error)
	VerifyTable() error
	DeleteTable() error
	Close() error
}

// Outcome says what EnsureTable found.
type Outcome string

const (
	// Created: there was no table.
	Created Outcome = "create"
	// Adopted: a table was there and kept its elements.
	Adopted Outcome = "adopt"
	// Migrated: a table of another make was replaced, in one transaction, by one that has its elements. The kernel
	// exchanges the chains of two tables one after the other, so under a flood some 10 µs of packets pass.
	Migrated Outcome = "migrate"
)

// Table is the kernel's table. Three locks, taken in this order where more than one is: writeMu while the kernel is
// changed, readMu while it is asked on a connection of its own, stateMu for the moments in which one tells the
// other.
type Table struct {
	cfg  Config // changed by Reconfigure with writeMu and stateMu held; read with either
	defs [numSets]setDef

	// listsMu is held by who exchanges the lists, before and between the times that he holds writeMu.
	listsMu sync.Mutex
	// writeMu is held while the kernel is changed, which may take seconds.
	writeMu sync.Mutex
	// writeConn is the connection that changes are sent on; it owns the table where the kernel knows owners. nil
	// after Close.
	writeConn *nfnl.Conn
	// connUnused says that writeConn is as Open dialled it.
	connUnused bool
	// mustEnsure says that the table may not be as we believe: EnsureTable comes before the next change.
	mustEnsure bool
	// ownership is whether the kernel knows table owners, once it was asked.
	ownership ownership
	// askedForReject says that the kernel was asked whether it can end connections.
	askedForReject bool
	// askedForPaces says the same of limits of elements.
	askedForPaces bool
	// askedForTap says that the kernel can copy packets.
	askedForTap bool
	// written is what is believed of the elements of hash sets. elementsUnknown says that the kernel may have
	// others, since the table was there before us.
	written         written
	elementsUnknown bool
	// fullUntil is until when a set is believed to be full.
	fullUntil [numSets]time.Time
	// plan and transaction are those of the present Apply; their memory is used again.
	plan        plan
	transaction nfnl.Transaction

	// stateMu guards what EnsureTable and Apply leave for those who only ask.
	stateMu sync.Mutex
	// ruleHandles are the handles of each chain's rules, in order; nil before EnsureTable.
	ruleHandles map[string][]uint64
	// whyNoTap is why the kernel cannot copy packets.
	whyNoTap error
	// lists is how the lists of attackers are kept; only its holder of writeMu changes it.
	lists listState
	// ranges are the networks in interval sets, and how they are spread over the kernel's elements.
	ranges [numSets]ranges
	// ownPort is the netlink port of writeConn, by which the kernel names who made a change.
	ownPort uint32
	// owned says whether the table has an owner, and notOwnedBecause why not.
	owned           bool
	notOwnedBecause string
	closed          bool
	// lastVerify is the last look that found nothing amiss.
	lastVerify verification

	// notices is the connection on which the kernel tells of changes; it has a lock of its own.
	notices subscription

	// readMu is held while the kernel is asked, so that a question need not wait for a change.
	readMu   sync.Mutex
	readConn *nfnl.Conn // nil: to be dialled
}

var (
	_ Firewall = (*Table)(nil)
	_ Firewall = (*DryRun)(nil)
)

// Open checks the configuration and opens the lasting connection. Nothing is changed in the kernel before EnsureTable.
func Open(cfg Config) (*Table, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	cfg.clonePorts()
	t := &Table{cfg: cfg, defs: allSets(cfg.IPv6Prefix), connUnused: true, mustEnsure: true, written: newWritten()}
	if t.writeConn, err = dialNetns(cfg.NetNS); err != nil {
		return nil, err
	}
	return t, nil
}

// Close ends the connections and leaves the table, with every ban, in the kernel.
func (t *Table) Close() error {
	t.stateMu.Lock()
	t.closed = true
	t.stateMu.Unlock()
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	t.readMu.Lock()
	defer t.readMu.Unlock()
	var err error
	for _, s := range []**nfnl.Conn{&t.writeConn, &t.readConn} {
		if *s != nil {
			err = errors.Join(err, (*s).Close())
			*s = nil
		}
	}
	t.mustEnsure = true
	return err
}

func (t *Table) isClosed() bool {
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	return t.closed
}

// NetlinkPort returns the netlink port id under which this process now changes the table; the kernel's notices of its
// own changes carry it.
func (t *Table) NetlinkPort() uint32 {
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	return t.ownPort
}

// IsOwned reports whether the table is protected by owner and persist, and if not, why. It is known after EnsureTable.
func (t *Table) IsOwned() (bool, string) {
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	return t.owned, t.notOwnedBecause
}

// redialLocked opens a new connection.
func (t *Table) redialLocked() error {
	if t.isClosed() {
		return ErrClosed
	}
	if t.writeConn != nil {
		_ = t.writeConn.Close() // gives an owned table up, so that the new one may take it
		t.writeConn = nil
	}
	s, err := dialNetns(t.cfg.NetNS)
	if err != nil {
		return err
	}
	t.writeConn = s
	return nil
}

func (t *Table) tableRef() *nftables.Table {
	f := nftables.Table{Name: t.cfg.Table, Family: nftables.TableFamilyINet}
	if t.ownership == ownerYes {
		f.Flags = nftables.TableFlagOwner | nftables.TableFlagPersist
	}
	return &f
}

// EnsureTable creates the table or adopts the one that is there, with its elements. It may be called at any time; where
// nothing is amiss it changes nothing that a packet notices. After an error of any method it redials.
func (t *Table) EnsureTable() (Outcome, error) {
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	return t.ensureLocked()
}

// ensureLocked is EnsureTable. As everywhere in this package, it is writeMu that is locked where the name does not say
// another.
func (t *Table) ensureLocked() (Outcome, error) {
	if t.isClosed() {
		return "", ErrClosed
	}
	if t.writeConn == nil || t.mustEnsure && !t.connUnused {
		if err := t.redialLocked(); err != nil {
			return "", err
		}
	}
	t.mustEnsure, t.connUnused = true, false
	t.stateMu.Lock()
	t.lastVerify = verification{}
	t.stateMu.Unlock()
	if err := t.chooseOwnerLocked(); err != nil {
		return "", err
	}
	t.chooseRejectLocked()
	t.chooseTapLocked()
	found, err := t.findExistingLocked()
	if err != nil {
		return "", explainErrno("look at table "+t.cfg.Table, err)
	}
	outcome := Created
	var carried []Element
	switch {
	case found.table != nil && found.differs != "":
		outcome = Migrated
		if carried, err = t.readOldElementsLocked(found); err != nil {
			return "", explainErrno("read the older table's elements", err)
		}
	case found.table != nil:
		outcome = Adopted
	}
	if err := t.buildLocked(found, outcome == Migrated, carried); err != nil {
		return "", explainErrno("build table "+t.cfg.Table, err)
	}
	if t.choosePacesLocked() {
		if _, err := t.ensureLocked(); err != nil {
			return "", err
		}
		return outcome, nil
	}
	if err := t.readBackLocked(); err != nil {
		return "", explainErrno("read table "+t.cfg.Table+" back", err)
	}
	if err := t.writeSlowLocked(carried); err != nil {
		return "", explainErrno("bring back what is slow in table "+t.cfg.Table, err)
	}
	t.mustEnsure = false
	t.fullUntil = [numSets]time.Time{}
	if outcome == Created {
		t.written = newWritten()
	}
	t.elementsUnknown = outcome != Created
	return outcome, nil
}

// tableDormant is NFT_TABLE_F_DORMANT: the table is there, its chains are not called.
const tableDormant = nftables.TableFlags(unix.NFT_TABLE_F_DORMANT)

// existingTable is what inspect saw in the kernel.
type existingTable struct {
	table   *nftables.Table
	sets    map[string]*nftables.Set
	chains  map[string]bool
	packets [numSets]uint64
	bytes   [numSets]uint64
	differs string // why the table cannot be adopted as it is
	// live are the sets of lists that rules look into, and listed what was counted for each list, by its counter.
	live   byte
	listed map[string]expr.Counter
}

func (t *Table) findExistingLocked() (existingTable, error) {
	var f existingTable
	want := t.tableRef()
	have, err := t.writeConn.Nftables.ListTableOfFamily(want.Name, want.Family)
	if errors.Is(err, unix.ENOENT) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	f.table = have
	// An orphan has lost the flag owner and kept persist.
	persist := have.Flags & nftables.TableFlagPersist
	if persist != want.Flags&nftables.TableFlagPersist ||
		have.Flags&nftables.TableFlagOwner != 0 && t.ownership != ownerYes {
		f.differs = "table flags"
	}
	if have.Flags&tableDormant != 0 {
		f.differs = "table is dormant"
	}
	list, err := t.writeConn.Nftables.GetSets(want)
	if err != nil {
		return f, err
	}
	f.sets = make(map[string]*nftables.Set, len(list))
	for _, s := range list {
		f.sets[s.Name] = s
	}
	for id, d := range t.defs {
		s := f.sets[d.name]
		if s != nil && t.cfg.hasSet(setID(id)) && !sameSet(t.cfg.kernelSet(want, setID(id), d), s) {
			f.differs = "set " + d.name
		}
	}
	f.chains = make(map[string]bool)
	wanted := t.cfg.wantedChains(want)
	for _, name := range slices.Concat([]string{chainName, requestsChain, answersChain}, listChainNames()) {
		c, err := t.writeConn.Nftables.ListChain(want, name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return f, err
		}
		f.chains[name] = true
		if w := chainNamed(wanted, name); w != nil && !sameChain(w, c) {
			f.differs = "chain " + name
		}
	}
	if err = t.findListsLocked(&f); err != nil {
		return f, err
	}
	if !f.chains[chainName] {
		return f, nil
	}
	rules, err := t.writeConn.Nftables.GetRules(want, &nftables.Chain{Name: chainName, Table: want})
	if err != nil {
		return f, err
	}
	for _, r := range rules {
		if id, n := t.dropCounter(r); n != nil {
			f.packets[id] += n.Packets
			f.bytes[id] += n.Bytes
		}
	}
	return f, nil
}

// dropCounter returns the set and the counter of a drop rule.
func (t *Table) dropCounter(r *nftables.Rule) (setID, *expr.Counter) {
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

// wantedChains are those that the table has. Rules of each may go to those behind it.
func (c *Config) wantedChains(table *nftables.Table) []*nftables.Chain {
	accept := nftables.ChainPolicyAccept
	list := []*nftables.Chain{{
		Name: chainName, Table: table, Type: nftables.ChainTypeFilter, Policy: &accept,
		Hooknum:  nftables.ChainHookPrerouting,
		Priority: nftables.ChainPriorityRef(nftables.ChainPriority(c.Priority)),
	}}
	for _, name := range c.liveListChains() {
		list = append(list, &nftables.Chain{Name: name, Table: table})
	}
	if c.copiesPackets() {
		list = append(list, answersChainOf(table), &nftables.Chain{Name: requestsChain, Table: table})
	}
	return list
}

func chainNamed(list []*nftables.Chain, name string) *nftables.Chain {
	i := slices.IndexFunc(list, func(c *nftables.Chain) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return list[i]
}

func sameChain(want, have *nftables.Chain) bool {
	return want.Type == have.Type && sameOrBothNil(want.Hooknum, have.Hooknum) && sameOrBothNil(want.Priority,
		have.Priority) &&
		sameOrBothNil(want.Policy, have.Policy)
}

// sameOrBothNil reports whether two that may be missing are equal.
func sameOrBothNil[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }

// buildLocked writes table, sets, chain and rules in one transaction, so that no packet sees half of them.
func (t *Table) buildLocked(f existingTable, replace bool, carried []Element) error {
	lib, table := t.writeConn.Nftables, t.tableRef()
	t.chooseListsLocked(f, replace)
	if replace {
		lib.DelTable(table)
	}
	lib.AddTable(table)
	chains := t.cfg.wantedChains(table)
	for _, c := range chains {
		lib.AddChain(c)
	}
	if f.table != nil && !replace {
		t.emptyChainsLocked(f, chains)
	}
	elems, size := t.elementsForSets(carried)
	t.writeConn.GrowSendBuffer(size)
	for i, d := range t.defs {
		id := setID(i)
		if !t.cfg.hasSet(id) {
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
	addPorts := func(ports []uint16) *nftables.Set {
		s, e := newPortSet(table, ports)
		failed = errors.Join(failed, lib.AddSet(s, e))
		return s
	}
	t.buildListSetsLocked(f, replace)
	for _, c := range chains {
		rules := t.cfg.listRules(c.Name, t.defs)
		if rules == nil {
			rules = t.cfg.rulesOf(c.Name, t.defs, f.packets, f.bytes, addPorts)
		}
		for _, r := range rules {
			lib.AddRule(&nftables.Rule{Table: table, Chain: c, Exprs: r.exprs, UserData: r.userData()})
		}
	}
	return errors.Join(failed, lib.Flush())
}

// emptyChainsLocked takes the rules out of chains that are there, and takes away those that are no longer wanted: the
// first one is emptied first, since its rules go to others.
func (t *Table) emptyChainsLocked(f existingTable, wanted []*nftables.Chain) {
	lib := t.writeConn.Nftables
	for _, c := range wanted {
		lib.FlushChain(c) // one that was not there is there now
	}
	for _, name := range append(listChainNames(), answersChain, requestsChain) {
		if f.chains[name] && chainNamed(wanted, name) == nil {
			c := &nftables.Chain{Name: name, Table: wanted[0].Table}
			lib.FlushChain(c)
			lib.DelChain(c)
		}
	}
}

// writeSlowLocked writes what was slow in an older table: buildLocked cannot. Each begins with a full bucket.
func (t *Table) writeSlowLocked(carried []Element) error {
	var elems [numSets][]nfnl.SetElement
	for i := range carried {
		e := &carried[i]
		id, _, key, ok := e.target().setAndKey(t.cfg.IPv6Prefix)
		if e.Kind != Slow || !ok || !t.cfg.hasSet(id) || e.Remaining <= 0 || len(elems[id]) >= int(t.cfg.setSize(id)) {
			continue
		}
		elems[id] = append(elems[id], nfnl.SetElement{Key: key, Timeout: e.Remaining, Limit: e.Pace.kernelLimit()})
	}
	for id := range elems {
		for part := range slices.Chunk(elems[id], slowChunk) {
			b := t.beginTransactionLocked()
			b.Add(t.defs[id].name, part, false)
			if err := t.commitLocked(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// slowChunk is how many elements with a limit are less than nfnl.MaxTransaction.
const slowChunk = 512

// elementsForSets gives carried elements to the sets that hold them now. What does not fit a smaller set is what
// would have ended first.
func (t *Table) elementsForSets(carried []Element) (elems [numSets][]nftables.SetElement, size int) {
	now := time.Now()
	slices.SortFunc(carried, func(a, b Element) int {
		return int(b.Remaining/time.Second) - int(a.Remaining/time.Second)
	})
	var edits [numSets][]edit
	for _, e := range carried {
		id, p, key, ok := e.target().setAndKey(t.cfg.IPv6Prefix)
		if !ok || !t.cfg.hasSet(id) || e.Kind == Slow { // the library knows no limits of elements
			continue
		}
		if e.manual {
			id = manualSet(p)
		}
		if t.defs[id].shape == interval {
			ed := edit{prefix: p}
			if e.Remaining > 0 {
				ed.until = now.Add(e.Remaining)
			}
			edits[id] = append(edits[id], ed)
		} else if n := t.cfg.setSize(id); e.Remaining > 0 && (n == 0 || len(elems[id]) < int(n)) {
			elems[id] = append(elems[id], nftables.SetElement{Key: key.Bytes(),
				Timeout: max(time.Millisecond, e.Remaining)})
			size += 100
		}
	}
	for id := range edits {
		_, _, add := ranges{}.afterEdits(edits[id], now)
		for i := range add {
			for _, e := range add[i].kernelElements(now) {
				elems[id] = append(elems[id], nftables.SetElement{
					Key: e.Key.Bytes(), IntervalEnd: e.End, IntervalOpen: e.Open, Timeout: e.Timeout,
					Comment: e.Comment,
				})
				size += 100
			}
		}
	}
	return elems, size
}

// readBackLocked remembers what VerifyTable compares with, and the networks that are in the interval sets.
func (t *Table) readBackLocked() error {
	table := t.tableRef()
	handles := make(map[string][]uint64)
	for _, c := range t.cfg.wantedChains(table) {
		rules, err := t.writeConn.Nftables.GetRules(table, c)
		if err != nil {
			return err
		}
		for _, r := range rules {
			handles[c.Name] = append(handles[c.Name], r.Handle)
		}
	}
	var loadedRanges [numSets]ranges
	for i, d := range t.defs {
		if d.shape != interval {
			continue
		}
		spans, err := t.listSpans(t.writeConn, setID(i))
		if err != nil {
			return err
		}
		loadedRanges[i] = rangesFromKernel(spans)
	}
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	t.ruleHandles, t.ranges, t.ownPort = handles, loadedRanges, t.writeConn.NetlinkPort()
	t.owned = t.ownership == ownerYes
	return nil
}

// VerifyTable checks, in a fraction of a millisecond, that table, sets, chain and rules are those that EnsureTable
// left. It does not look at elements; LookUpPrefix does. Where no ruleset has changed since the last time, within a
// minute, it only asks for that.
func (t *Table) VerifyTable() error {
	g, err := t.Generation()
	if err != nil {
		return err
	}
	t.stateMu.Lock()
	still := t.lastVerify.unchanged(g)
	t.stateMu.Unlock()
	if still {
		return nil
	}
	err = t.compareWithKernel()
	if errors.Is(err, ErrGone) {
		// An EnsureTable may have been between the kernel's commit and our notes of it: look again when it is through.
		t.writeMu.Lock()
		err = t.compareWithKernel()
		t.writeMu.Unlock()
	}
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	t.lastVerify = verification{}
	if err == nil {
		t.lastVerify = verification{g, time.Now()} // asked for before the look: what came in between is looked at again
	}
	return err
}

// compareWithKernel holds what EnsureTable left against what the kernel has.
func (t *Table) compareWithKernel() error {
	t.stateMu.Lock()
	handles, port, owned, cfg := t.ruleHandles, t.ownPort, t.owned, t.cfg
	t.stateMu.Unlock()
	if handles == nil {
		return fmt.Errorf("%w: Ensure was not called", ErrGone)
	}
	return t.useReadConn("verify the table", func(s *nfnl.Conn) error {
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
			if !cfg.hasSet(setID(id)) {
				continue
			}
			i := slices.IndexFunc(list, func(s *nftables.Set) bool { return s.Name == d.name })
			if i < 0 || !sameSet(cfg.kernelSet(&want, setID(id), d), list[i]) {
				return fmt.Errorf("%w: set %s is missing or was changed", ErrGone, d.name)
			}
		}
		for _, name := range listSetNames(cfg.liveLists) {
			if !slices.ContainsFunc(list, func(s *nftables.Set) bool { return s.Name == name }) {
				return fmt.Errorf("%w: set %s is missing", ErrGone, name)
			}
		}
		for _, c := range cfg.wantedChains(&want) {
			have, err := s.Nftables.ListChain(&want, c.Name)
			if err != nil {
				return err
			}
			if !sameChain(c, have) {
				return fmt.Errorf("%w: chain %s was changed", ErrGone, c.Name)
			}
			rules, err := s.Nftables.GetRules(&want, c)
			if err != nil {
				return err
			}
			// A rule is never changed, only replaced by one with another handle.
			if !slices.EqualFunc(rules, handles[c.Name], func(r *nftables.Rule,
				h uint64) bool {
				return r.Handle == h
			}) {
				return fmt.Errorf("%w: the rules of chain %s were changed", ErrGone, c.Name)
			}
		}
		return nil
	})
}

// DeleteTable takes the table and every element out of the kernel. Other tables stay. A table that is not there is no
// error.
func (t *Table) DeleteTable() error {
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	if t.writeConn == nil {
		if err := t.redialLocked(); err != nil {
			return err
		}
	}
	t.mustEnsure = true
	t.writeConn.Nftables.DelTable(&nftables.Table{Name: t.cfg.Table, Family: nftables.TableFamilyINet})
	if err := t.writeConn.Nftables.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return explainErrno("delete table "+t.cfg.Table, err)
	}
	return nil
}

// useReadConn runs f on the connection for reading, and drops it after an error.
func (t *Table) useReadConn(what string, f func(*nfnl.Conn) error) error {
	t.readMu.Lock()
	defer t.readMu.Unlock()
	if t.isClosed() {
		return ErrClosed
	}
	if t.readConn == nil {
		s, err := dialNetns(t.cfg.NetNS)
		if err != nil {
			return err
		}
		t.readConn = s
	}
	err := f(t.readConn)
	if err == nil || errors.Is(err, ErrGone) {
		return err
	}
	if !errors.Is(err, unix.ENOENT) {
		_ = t.readConn.Close()
		t.readConn = nil
	}
	return explainErrno(what, err)
}

func dialNetns(netns int) (*nfnl.Conn, error) {
	conn, err := nfnl.Dial(netns)
	return conn, explainErrno("open a netlink socket", err)
}
