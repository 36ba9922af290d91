package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/firewall/internal/nfnl"
)

// List is a list of attackers.
type List struct {
	Name    string
	Enforce bool // else its packets are counted and pass
}

// mark is the value of the list's elements in the kernel. It is made of the name, so that elements that an older
// process left are of the same list, or of none.
func (l List) mark() uint32 {
	h := fnv.New32a()
	_, _ = fmt.Fprintf(h, "%s %v", l.Name, l.Enforce)
	return h.Sum32() | 1
}

// Listed is an address, or a range of them, that a list names.
type Listed struct {
	From, To netip.Addr // both inside
	List     int        // its place among the lists that SetLists is called with
	Ends     time.Time  // zero: with the others
}

// ListTimeout is when elements of lists end that nobody has renewed: a machine whose Ringwall was taken off is not
// closed to anybody for ever. Whoever calls SetLists does so more often.
const ListTimeout = 24 * time.Hour

// Lists of attackers are kept in maps from an address to a list's mark: one of addresses, which is hashed, and one of
// ranges, for each family. Of all of these there may be two, told apart by a letter, each with chains of its own.
// Packets go to one; the other is made and filled beside it, a little at a time, so that no ban waits. Then the one
// rule that says where packets go is exchanged, and the first one goes away: a packet meets all of the lists of before
// or all of the new ones. The chains are made while the maps are empty, since the kernel walks through a map with each
// rule that looks into it (nf_tables_bind_set in net/netfilter/nf_tables_api.c).
//
// Who is allowed, good, banned or trusted does not get there: a list has less to say than anything else.

// The chains of lists: one from which packets go on, and for each letter one that looks up, and one that says what
// becomes of those who are found.
const (
	listsChain  = "lists"
	lookUpChain = "lists_"
	listedChain = "listed_"
)

const (
	firstLists  = 'a'
	secondLists = 'b'
)

// listDefs are the maps, of which the letter is missing.
func listDefs() [4]setDef {
	return [4]setDef{
		{name: "list4_", bits: 32},
		{name: "listnet4_", shape: interval},
		{name: "list6_", v6: true, bits: 128},
		{name: "listnet6_", v6: true, shape: interval},
	}
}

func withLetter(name string, letter byte) string { return name + string(rune(letter)) }

// listDefOf is which of listDefs holds what a list names.
func listDefOf(l Listed) int {
	i := 0
	if l.From.Is6() {
		i = 2
	}
	if l.From != l.To {
		i++
	}
	return i
}

// listSetNames are the maps of a letter, which is 0 where there are no lists.
func listSetNames(letter byte) (names []string) {
	if letter == 0 {
		return nil
	}
	for _, d := range listDefs() {
		names = append(names, withLetter(d.name, letter))
	}
	return names
}

// listChainNames are all chains of lists, whose rules go to those behind them.
func listChainNames() []string {
	names := []string{listsChain}
	for _, letter := range []byte{firstLists, secondLists} {
		names = append(names, withLetter(lookUpChain, letter), withLetter(listedChain, letter))
	}
	return names
}

// liveListChains are those to which packets go.
func (c *Config) liveListChains() []string {
	if len(c.Lists) == 0 {
		return nil
	}
	return []string{listsChain, withLetter(lookUpChain, c.liveLists), withLetter(listedChain, c.liveLists)}
}

func otherLetter(letter byte) byte {
	if letter == firstLists {
		return secondLists
	}
	return firstLists
}

// listState is what a Table knows of its lists.
type listState struct {
	filled bool // as SetLists was told
	epoch  int  // changes when the table is built, so that who fills maps begins anew
	spare  bool // the other maps may be there
}

// kernelMap is one of the maps in google/nftables' words.
func kernelMap(table *nftables.Table, d setDef, letter byte) *nftables.Set {
	return &nftables.Set{
		Table: table, Name: withLetter(d.name, letter), KeyType: d.keyType(), IsMap: true, DataType: nftables.TypeMark,
		HasTimeout: true, Interval: d.shape == interval,
	}
}

const counterPrefix = "list_"

// counter is the list's counter in the kernel, which both letters' rules use.
func (l List) counter(table *nftables.Table, n expr.Counter) *nftables.NamedObj {
	return &nftables.NamedObj{Table: table, Name: counterPrefix + l.Name, Type: nftables.ObjTypeCounter, Obj: &n}
}

// findListsLocked reads which maps packets meet, and the counters of lists.
func (t *Table) findListsLocked(f *existingTable) error {
	table := t.tableRef()
	if f.chains[listsChain] {
		rules, err := t.writeConn.Nftables.GetRules(table, &nftables.Chain{Name: listsChain, Table: table})
		if err != nil {
			return err
		}
		for _, r := range rules {
			for _, e := range r.Exprs {
				v, ok := e.(*expr.Verdict)
				if !ok {
					continue
				}
				if letter, ok := strings.CutPrefix(v.Chain, lookUpChain); ok && len(letter) == 1 {
					f.live = letter[0]
				}
			}
		}
	}
	var err error
	f.listed, err = readListed(t.writeConn, table)
	return err
}

// readListed reads the counters of lists, by their names.
func readListed(conn *nfnl.Conn, table *nftables.Table) (map[string]expr.Counter, error) {
	objects, err := conn.Nftables.GetNamedObjects(table)
	if err != nil {
		return nil, err
	}
	listed := make(map[string]expr.Counter)
	for _, o := range objects {
		named, ok := o.(*nftables.NamedObj)
		if !ok || !strings.HasPrefix(named.Name, counterPrefix) {
			continue
		}
		if n, ok := named.Obj.(*expr.Counter); ok {
			listed[named.Name] = *n
		}
	}
	return listed, nil
}

// chooseListsLocked decides which maps packets are going to meet: those that they meet, if all are there.
func (t *Table) chooseListsLocked(f existingTable, replace bool) {
	letter, filled := byte(0), false
	if len(t.cfg.Lists) > 0 {
		letter = firstLists
		if !replace && (f.live == firstLists || f.live == secondLists) && hasListMaps(f, f.live) {
			letter, filled = f.live, t.lists.filled && t.cfg.liveLists == f.live
		}
	}
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	t.cfg.liveLists = letter
	t.lists = listState{filled: filled, epoch: t.lists.epoch + 1}
}

// hasListMaps reports whether an existing table has all maps of a letter.
func hasListMaps(f existingTable, letter byte) bool {
	for _, d := range listDefs() {
		want := kernelMap(nil, d, letter)
		s := f.sets[want.Name]
		if s == nil || s.KeyType.Bytes != want.KeyType.Bytes || !s.IsMap || s.DataType.Bytes != want.DataType.Bytes ||
			s.Interval != want.Interval || !s.HasTimeout || s.Timeout != 0 || s.Size != 0 {
			return false
		}
	}
	return true
}

// buildListSetsLocked makes the maps and counters that packets meet, and takes away what is not wanted. The chains are
// empty.
func (t *Table) buildListSetsLocked(f existingTable, replace bool) {
	lib, table, live := t.writeConn.Nftables, t.tableRef(), t.cfg.liveLists
	keep := live != 0 && live == f.live && !replace && hasListMaps(f, live)
	for _, letter := range []byte{firstLists, secondLists} {
		for _, name := range listSetNames(letter) {
			if f.sets[name] != nil && !replace && (letter != live || !keep) {
				lib.DelSet(&nftables.Set{Table: table, Name: name})
			}
		}
	}
	if live != 0 && !keep {
		for _, d := range listDefs() {
			_ = lib.AddSet(kernelMap(table, d, live), nil) // fails only with elements
		}
	}
	wanted := make(map[string]bool)
	for _, l := range t.cfg.Lists {
		o := l.counter(table, f.listed[counterPrefix+l.Name])
		if wanted[o.Name] = true; replace || f.listed[o.Name] == (expr.Counter{}) {
			lib.AddObj(o)
		}
	}
	for name := range f.listed {
		if !wanted[name] && !replace {
			lib.DeleteObject(&nftables.NamedObj{Table: table, Name: name, Type: nftables.ObjTypeCounter})
		}
	}
}

// lookUpMark loads the mark of a packet's source into register 1, and ends the rule where it has none.
func lookUpMark(d setDef, letter byte) []expr.Any {
	return append(loadAddress(d, source), &expr.Lookup{
		SourceRegister: 1, SetName: withLetter(d.name, letter), DestRegister: 1, IsDestRegSet: true,
	})
}

func gotoChain(name string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: name}}
}

// greyPackets are how many packets of a port in half a minute are not even let through the door for listed sources: a
// scanner sends one and goes, a phone sends its request again (RFC 3261 section 17.1.2.2: 0.5, 1.5 and 3.5 s after it).
const greyPackets = 3

// listRules are the rules of the chains of lists; nil for other chains.
func (c *Config) listRules(chain string, defs [numSets]setDef) (rules ruleList) {
	if chain == listsChain {
		rules.add("lists as they are now", numSets, gotoChain(withLetter(lookUpChain, c.liveLists)))
		return rules
	}
	for _, letter := range []byte{firstLists, secondLists} {
		switch chain {
		case withLetter(lookUpChain, letter):
			for _, d := range listDefs() {
				rules.add("on a list", numSets, lookUpMark(d, letter), gotoChain(withLetter(listedChain, letter)))
			}
		case withLetter(listedChain, letter):
			rules = c.listedRules(letter, defs)
		}
	}
	return rules
}

// listedRules are the rules for packets of listed sources. Whoever can log in over UDP gets in by the same door as
// through a ban on evidence that could be forged, but not with his first packets.
func (c *Config) listedRules(letter byte, defs [numSets]setDef) (rules ruleList) {
	count := func(l List, verdict expr.VerdictKind) {
		for _, d := range listDefs() {
			rules.add("list "+l.Name, numSets, lookUpMark(d, letter), []expr.Any{
				compareRegister(expr.CmpOpEq, binary.NativeEndian.AppendUint32(nil, l.mark())...),
				&expr.Objref{Type: int(nftables.ObjTypeCounter), Name: counterPrefix + l.Name},
				&expr.Verdict{Kind: verdict},
			})
		}
	}
	for _, l := range c.Lists {
		if !l.Enforce {
			count(l, expr.VerdictReturn)
		}
	}
	for _, v6 := range []bool{false, true} {
		if c.Knock.Port > 0 {
			rules.add("knocks though on a list", numSets, c.knocksAtLists(defs, v6))
		}
	}
	for _, l := range c.Lists {
		if l.Enforce {
			count(l, expr.VerdictDrop)
		}
	}
	return rules
}

// knocksAtLists lets through what is neither the first of its port nor too much.
func (c *Config) knocksAtLists(defs [numSets]setDef, v6 bool) []expr.Any {
	grey, door, doorway := listDoor4, door4, doorway4
	if v6 {
		grey, door, doorway = listDoor6, door6, doorway6
	}
	match := slices.Concat(isFamily(v6), isProtocol(unix.IPPROTO_UDP))
	for _, u := range []struct {
		set   setID
		limit expr.Limit
	}{
		{grey, expr.Limit{Rate: 2, Burst: greyPackets, Over: true}},
		{door, expr.Limit{Rate: uint64(c.Knock.Port), Burst: portBurst}},
		{doorway, expr.Limit{Rate: uint64(c.Knock.Source), Burst: KnockBurst}},
	} {
		u.limit.Type, u.limit.Unit = expr.LimitTypePkts, expr.LimitTimeMinute
		match = append(append(match, loadKey(defs[u.set], source)...), &expr.Dynset{
			SrcRegKey: 1, SetName: defs[u.set].name, Operation: unix.NFT_DYNSET_OP_UPDATE, Exprs: []expr.Any{&u.limit},
		})
	}
	if c.copiesPackets() {
		return append(match, gotoChain(requestsChain)...)
	}
	return append(match, acceptVerdict()...)
}

// errListsRebuilt says that the table was built anew while lists were being written.
var errListsRebuilt = errors.New("the table was built anew meanwhile")

// listChunk is how many ranges are written at once: the kernel looks at all that there are in each transaction.
const listChunk = 1 << 14

// SetLists exchanges what the lists name, all of it at one moment; of addresses no two may be the same, and no two
// ranges may overlap. Of lists that Config.Lists has not, or in another mode, nothing is in force. It may be called
// beside the Writer, and is to be called again when ListsFilled is false, after a Reconfigure that changes the lists,
// and before ListTimeout is over. After an error the kernel has what it had.
func (t *Table) SetLists(ctx context.Context, lists []List, listed iter.Seq[Listed]) error {
	t.listsMu.Lock()
	defer t.listsMu.Unlock()
	err := errListsRebuilt
	for try := 0; try < maxTries && errors.Is(err, errListsRebuilt); try++ {
		err = t.setLists(ctx, lists, listed)
	}
	if err != nil {
		return explainErrno("write the lists into table "+t.cfg.Table, err)
	}
	return nil
}

// ListsFilled reports whether the kernel has what SetLists last wrote, as far as is known without asking.
func (t *Table) ListsFilled() bool {
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	return t.lists.filled
}

func (t *Table) setLists(ctx context.Context, lists []List, listed iter.Seq[Listed]) error {
	epoch, letter, err := t.beginLists()
	if err != nil {
		return err
	}
	now := time.Now()
	var marks []uint32
	for _, l := range lists {
		marks = append(marks, l.mark())
	}
	var waiting [4][]nfnl.SetElement
	write := func(i int) error {
		elems := waiting[i]
		waiting[i] = elems[:0]
		if err := ctx.Err(); err != nil || len(elems) == 0 {
			return err
		}
		return t.whileLists(epoch, func() error {
			b := t.beginTransactionLocked()
			b.Add(withLetter(listDefs()[i].name, letter), elems, true)
			defer t.pauseNotices(t.writeConn)()
			return t.commitLocked(b)
		})
	}
	for l := range listed {
		s := span{from: l.From, to: l.To, until: now.Add(ListTimeout)}
		if !l.Ends.IsZero() && l.Ends.Before(s.until) {
			if s.until = l.Ends; !s.until.After(now) {
				continue
			}
		}
		i, most := listDefOf(l), nfnl.MaxTransaction/64
		if l.From == l.To {
			waiting[i] = append(waiting[i], nfnl.SetElement{Key: nfnl.Key{Addr: l.From}, Value: marks[l.List],
				Timeout: s.until.Sub(now)})
		} else {
			most = 2 * listChunk
			e := s.kernelElements(now)
			e[0].Value = marks[l.List]
			waiting[i] = append(waiting[i], e...)
		}
		if len(waiting[i]) >= most {
			if err := write(i); err != nil {
				return err
			}
		}
	}
	for i := range waiting {
		if err := write(i); err != nil {
			return err
		}
	}
	if err := t.whileLists(epoch, func() error { return t.exchangeListsLocked(letter) }); err != nil {
		return err
	}
	return t.whileLists(epoch, t.deleteSpareListsLocked)
}

// whileLists runs f with the right to write, unless the table was built anew.
func (t *Table) whileLists(epoch int, f func() error) error {
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	switch {
	case t.isClosed():
		return ErrClosed
	case t.mustEnsure:
		return fmt.Errorf("%w: Ensure has to be called first", ErrGone)
	case t.lists.epoch != epoch:
		return errListsRebuilt
	}
	return f()
}

// beginLists makes the maps that are to be filled, with their chains.
func (t *Table) beginLists() (epoch int, letter byte, err error) {
	t.stateMu.Lock()
	epoch = t.lists.epoch
	t.stateMu.Unlock()
	err = t.whileLists(epoch, func() error {
		if t.cfg.liveLists == 0 {
			return fmt.Errorf("%w: the table was made without lists", ErrChange)
		}
		letter = otherLetter(t.cfg.liveLists)
		if t.lists.spare {
			if err := t.deleteSpareListsLocked(); err != nil {
				return err
			}
		}
		lib, table := t.writeConn.Nftables, t.tableRef()
		for _, d := range listDefs() {
			if err := lib.AddSet(kernelMap(table, d, letter), nil); err != nil {
				return err
			}
		}
		names := []string{withLetter(lookUpChain, letter), withLetter(listedChain, letter)}
		for _, name := range names {
			lib.AddChain(&nftables.Chain{Name: name, Table: table})
		}
		for _, name := range names {
			t.addListRulesLocked(name)
		}
		t.setListState(func() { t.lists.spare = true })
		return lib.Flush()
	})
	return epoch, letter, err
}

func (t *Table) addListRulesLocked(chain string) {
	table := t.tableRef()
	for _, r := range t.cfg.listRules(chain, t.defs) {
		t.writeConn.Nftables.AddRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: chain, Table: table},
			Exprs: r.exprs, UserData: r.userData()})
	}
}

func (t *Table) setListState(change func()) {
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	change()
}

// exchangeListsLocked makes packets go to the other maps.
func (t *Table) exchangeListsLocked(letter byte) error {
	lib, table := t.writeConn.Nftables, t.tableRef()
	before := t.cfg.liveLists
	t.setListState(func() { t.cfg.liveLists = letter })
	lib.FlushChain(&nftables.Chain{Name: listsChain, Table: table})
	t.addListRulesLocked(listsChain)
	if err := lib.Flush(); err != nil {
		t.setListState(func() { t.cfg.liveLists = before })
		return err
	}
	next := maps.Clone(t.ruleHandles) // which somebody may be comparing
	for _, name := range t.cfg.liveListChains() {
		rules, err := lib.GetRules(table, &nftables.Chain{Name: name, Table: table})
		if err != nil {
			t.mustEnsure = true
			return err
		}
		handles := make([]uint64, len(rules))
		for i, r := range rules {
			handles[i] = r.Handle
		}
		next[name] = handles
	}
	t.setListState(func() { t.ruleHandles, t.lists.filled = next, true })
	return nil
}

// deleteSpareListsLocked deletes the maps to which no packet goes, and their chains.
func (t *Table) deleteSpareListsLocked() error {
	lib, table := t.writeConn.Nftables, t.tableRef()
	spare := otherLetter(t.cfg.liveLists)
	for _, name := range []string{lookUpChain, listedChain} {
		c := &nftables.Chain{Name: withLetter(name, spare), Table: table}
		lib.FlushChain(c)
		lib.DelChain(c)
	}
	for _, name := range listSetNames(spare) {
		lib.DelSet(&nftables.Set{Table: table, Name: name})
	}
	if err := lib.Flush(); err != nil {
		return err
	}
	t.setListState(func() { t.lists.spare = false })
	return nil
}

// ListPackets returns how many packets came from each list's sources, by its name: dropped, or counted alone.
func (t *Table) ListPackets() (map[string]uint64, error) {
	packets := make(map[string]uint64)
	cfg := t.currentConfig()
	if len(cfg.Lists) == 0 {
		return packets, nil
	}
	err := t.useReadConn("read the counters of lists", func(s *nfnl.Conn) error {
		listed, err := readListed(s, &nftables.Table{Name: cfg.Table, Family: nftables.TableFamilyINet})
		for _, l := range cfg.Lists {
			packets[l.Name] = listed[counterPrefix+l.Name].Packets
		}
		return err
	})
	return packets, err
}

// OnList reports whether the kernel has an address of a list's, or the first one of a range.
func (t *Table) OnList(l Listed) (bool, error) {
	t.stateMu.Lock()
	live := t.cfg.liveLists
	t.stateMu.Unlock()
	d := listDefs()[listDefOf(l)]
	err := t.useReadConn("look "+l.From.String()+" up on the lists", func(s *nfnl.Conn) error {
		set := kernelMap(&nftables.Table{Name: t.cfg.Table, Family: nftables.TableFamilyINet}, d, live)
		got, err := s.Nftables.FindSetElements(set, []nftables.SetElement{{Key: l.From.AsSlice()}})
		if err == nil && len(got) == 0 {
			err = unix.ENOENT
		}
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}
