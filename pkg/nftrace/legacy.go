package nftrace

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unsafe"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// The families of tables that nf_tables does not have: those of x_tables, as iptables-legacy and ip6tables-legacy make
// them.
const (
	legacyIPv4 = nftables.TableFamilyIPv4 | 0x80
	legacyIPv6 = nftables.TableFamilyIPv6 | 0x80
)

func isLegacy(f nftables.TableFamily) bool { return f == legacyIPv4 || f == legacyIPv6 }

// maxLegacyTable is how long a table is read, in bytes: some 40,000 rules.
const maxLegacyTable = 8 << 20

// legacyLayout is where what is in the structs of x_tables (linux/netfilter_ipv4/ip_tables.h, struct ipt_entry;
// linux/netfilter_ipv6/ip6_tables.h, struct ip6t_entry).
type legacyLayout struct {
	family       nftables.TableFamily
	names        string // the file with the names of the tables
	socket       int    // the family of a socket that is asked
	level        int
	addressBytes int
	sourceAt     uint32 // in the packet
	interfacesAt int
	protocolAt   int
	flagsAt      int
	gotoFlag     byte
	tosFlags     byte // what else a rule asks for, of the flags
	targetAt     int  // the offset of the target
	entryBytes   int
}

var legacyLayouts = []legacyLayout{
	{family: legacyIPv4, names: "/proc/thread-self/net/ip_tables_names", socket: unix.AF_INET, level: unix.SOL_IP,
		addressBytes: 4, sourceAt: 12, interfacesAt: 16, protocolAt: 80, flagsAt: 82, gotoFlag: 0x02, tosFlags: 0x01,
		targetAt: 88, entryBytes: 112},
	{family: legacyIPv6, names: "/proc/thread-self/net/ip6_tables_names", socket: unix.AF_INET6, level: unix.SOL_IPV6,
		addressBytes: 16, sourceAt: 8, interfacesAt: 64, protocolAt: 128, flagsAt: 131, gotoFlag: 0x04, tosFlags: 0x02,
		targetAt: 140, entryBytes: 168},
}

// Flags by which a rule of x_tables asks for the contrary.
const (
	invertInInterface = 0x01
	invertSource      = 0x08
	invertDestination = 0x10
	invertProtocol    = 0x40
	invertOther       = 0xff &^ (invertInInterface | invertSource | invertDestination | invertProtocol)
)

// legacyTable is a table of x_tables as the kernel returns it (struct ipt_getinfo, struct ipt_get_entries).
type legacyTable struct {
	name    string
	hooks   map[uint32]legacyHook // by NF_INET_PRE_ROUTING and so on
	entries []byte
}

// legacyHook is where the rules of a hook begin, and where its policy is.
type legacyHook struct{ begins, policy int }

// addLegacy adds the rules of iptables-legacy to those that are known, and returns its chains at hooks. Only root reads
// which tables there are, and whoever asks for another one has the kernel make it: for anybody else there are none.
func (r *ruleset) addLegacy() (chains []*nftables.Chain) {
	for _, layout := range legacyLayouts {
		for _, table := range readLegacy(r.netns, layout) {
			chains = append(chains, r.addLegacyTable(layout, table)...)
		}
	}
	return chains
}

// readLegacy reads the tables of a family. What cannot be read is left out: nothing is said of it then.
func readLegacy(netns int, layout legacyLayout) (tables []legacyTable) {
	_ = inNamespace(netns, func() error {
		names, err := readUpTo(layout.names, 4096)
		if err != nil || len(names) == 0 {
			return err
		}
		fd, err := unix.Socket(layout.socket, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		for name := range strings.FieldsSeq(string(names)) {
			if table, err := readLegacyTable(fd, layout.level, name); err == nil {
				tables = append(tables, table)
			}
		}
		return nil
	})
	return tables
}

// readLegacyTable asks the kernel for a table.
func readLegacyTable(fd, level int, name string) (legacyTable, error) {
	const nameBytes, hooksAt, policiesAt, sizeAt, infoBytes, entriesAt = 32, 36, 56, 80, 84, 40
	const getInfo, getEntries = 64, 65 // IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES; of IPv6 the same
	if len(name) >= nameBytes {
		return legacyTable{}, fmt.Errorf("table %q: %w", name, unix.ENAMETOOLONG)
	}
	for range 5 {
		info := make([]byte, infoBytes)
		copy(info, name)
		if err := getsockopt(fd, level, getInfo, info); err != nil {
			return legacyTable{}, err
		}
		size := binary.NativeEndian.Uint32(info[sizeAt:])
		if size > maxLegacyTable {
			return legacyTable{}, fmt.Errorf("table %s: longer than %d bytes", name, maxLegacyTable)
		}
		all := make([]byte, entriesAt+size)
		copy(all, name)
		binary.NativeEndian.PutUint32(all[nameBytes:], size)
		err := getsockopt(fd, level, getEntries, all)
		if errors.Is(err, unix.EAGAIN) {
			continue // somebody has just changed it
		}
		if err != nil {
			return legacyTable{}, err
		}
		table := legacyTable{name: name, hooks: make(map[uint32]legacyHook), entries: all[entriesAt:]}
		valid := binary.NativeEndian.Uint32(info[nameBytes:])
		for hook := range uint32(5) {
			if valid&(1<<hook) != 0 {
				table.hooks[hook] = legacyHook{begins: int(binary.NativeEndian.Uint32(info[hooksAt+4*hook:])),
					policy: int(binary.NativeEndian.Uint32(info[policiesAt+4*hook:]))}
			}
		}
		return table, nil
	}
	return legacyTable{}, fmt.Errorf("table %s: %w", name, unix.EAGAIN)
}

// getsockopt fills b, whose first bytes say what is asked for. golang.org/x/sys/unix has none for bytes of one's own.
func getsockopt(fd, level, option int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	if int(size) != len(b) {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// legacyEntry is a rule, or what stands before a chain that a user made.
type legacyEntry struct {
	ip, matches []byte
	target      legacyExtension
	flags       byte
	invert      byte
	next        int // where the one behind it begins
}

// legacyExtension is a match or a target (linux/netfilter/x_tables.h, struct xt_entry_match and xt_entry_target).
type legacyExtension struct {
	name     string
	revision byte
	data     []byte
}

const (
	legacyExtensionBytes = 32      // before its data
	legacyError          = "ERROR" // the target before a chain, whose data is the chain's name
)

var errLegacyTable = errors.New("a table of x_tables that cannot be read")

func cutLegacyExtension(b []byte) (x legacyExtension, rest []byte, err error) {
	const nameAt, revisionAt = 2, 31
	if len(b) < legacyExtensionBytes {
		return x, nil, errLegacyTable
	}
	size := int(binary.NativeEndian.Uint16(b))
	if size < legacyExtensionBytes || size > len(b) {
		return x, nil, errLegacyTable
	}
	name, _, _ := bytes.Cut(b[nameAt:revisionAt], []byte{0})
	return legacyExtension{string(name), b[revisionAt], b[legacyExtensionBytes:size]}, b[size:], nil
}

// entryAt reads the entry that begins somewhere.
func (t legacyTable) entryAt(layout legacyLayout, at int) (e legacyEntry, err error) {
	if at < 0 || at > len(t.entries)-layout.entryBytes {
		return e, errLegacyTable
	}
	b := t.entries[at:]
	target := int(binary.NativeEndian.Uint16(b[layout.targetAt:]))
	next := int(binary.NativeEndian.Uint16(b[layout.targetAt+2:]))
	if target < layout.entryBytes || next < target || next > len(b) {
		return e, errLegacyTable
	}
	e = legacyEntry{ip: b[:layout.entryBytes], matches: b[layout.entryBytes:target], flags: b[layout.flagsAt],
		invert: b[layout.flagsAt+1], next: at + next}
	e.target, _, err = cutLegacyExtension(b[target:next])
	return e, err
}

// addLegacyTable puts the chains of a table among the rules that are known, in the words of nf_tables, and returns
// those at hooks.
func (r *ruleset) addLegacyTable(layout legacyLayout, t legacyTable) (chains []*nftables.Chain) {
	table := &nftables.Table{Family: layout.family, Name: t.name}
	names := make(map[int]string) // of chains, by where they begin
	policies := make(map[int]*nftables.Chain)
	for hook, at := range t.hooks {
		names[at.begins] = legacyHookName(hook)
		c := &nftables.Chain{Name: names[at.begins], Table: table,
			Hooknum: nftables.ChainHookRef(nftables.ChainHook(hook))}
		if t.name == "nat" {
			c.Type = nftables.ChainTypeNAT
		}
		chains, policies[at.policy] = append(chains, c), c
	}
	var entries []legacyEntry
	for at := 0; at < len(t.entries); {
		e, err := t.entryAt(layout, at)
		if err != nil {
			return nil
		}
		if e.target.name == legacyError {
			name, _, _ := bytes.Cut(e.target.data, []byte{0})
			names[e.next] = string(name)
		}
		entries, at = append(entries, e), e.next
	}
	rules := make(map[string][]*nftables.Rule)
	chain, at := "", 0
	for _, e := range entries {
		if name, ok := names[at]; ok {
			chain = name
			rules[chain] = []*nftables.Rule{}
		}
		switch c := policies[at]; {
		case e.target.name == legacyError:
		case c != nil:
			c.Policy = legacyPolicy(e.target)
		default:
			rules[chain] = append(rules[chain], &nftables.Rule{Table: table, Exprs: e.inWordsOfNFTables(layout, names)})
		}
		at = e.next
	}
	for name, list := range rules {
		r.rules[chainKey{table.Family, table.Name, name}] = list
	}
	return chains
}

// Verdicts of a standard target that is no jump (linux/netfilter/x_tables.h, XT_RETURN; linux/netfilter.h, NF_DROP and
// so on: what a rule does is -verdict - 1).
const (
	legacyDrop   = -1
	legacyAccept = -2
	legacyReturn = -5
)

func legacyHookName(hook uint32) string {
	return [...]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}[hook]
}

// legacyVerdict is what a standard target does, and where it jumps to if it does.
func legacyVerdict(target legacyExtension) (kind expr.VerdictKind, to int) {
	if len(target.data) < 4 {
		return expr.VerdictStolen, 0
	}
	switch n := int32(binary.NativeEndian.Uint32(target.data)); n {
	case legacyDrop:
		return expr.VerdictDrop, 0
	case legacyAccept:
		return expr.VerdictAccept, 0
	case legacyReturn:
		return expr.VerdictReturn, 0
	default:
		if n < 0 {
			return expr.VerdictStolen, 0
		}
		return expr.VerdictJump, int(n)
	}
}

func legacyPolicy(target legacyExtension) *nftables.ChainPolicy {
	policy := nftables.ChainPolicyAccept
	if kind, _ := legacyVerdict(target); target.name == "" && kind == expr.VerdictDrop {
		policy = nftables.ChainPolicyDrop
	}
	return &policy
}

// notUnderstood is a condition of which nothing is known.
func notUnderstood() expr.Any { return &expr.Match{} }

// inWordsOfNFTables is the rule as nf_tables would have it.
func (e legacyEntry) inWordsOfNFTables(layout legacyLayout, chains map[int]string) (list []expr.Any) {
	const register = 1
	equal := func(inverted byte) expr.CmpOp {
		if e.invert&inverted != 0 {
			return expr.CmpOpNeq
		}
		return expr.CmpOpEq
	}
	n := layout.addressBytes
	for i, inverted := range []byte{invertSource, invertDestination} {
		address, mask := e.ip[i*n:(i+1)*n], e.ip[(2+i)*n:(3+i)*n]
		if bytes.Count(mask, []byte{0}) == n && e.invert&inverted == 0 {
			continue
		}
		list = append(list,
			&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader,
				Offset: layout.sourceAt + uint32(i*n), Len: uint32(n)},
			&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: uint32(n), Mask: mask,
				Xor: make([]byte, n)},
			&expr.Cmp{Op: equal(inverted), Register: register, Data: address})
	}
	const nameBytes = unix.IFNAMSIZ
	in := e.ip[layout.interfacesAt:][:nameBytes]
	inMask := e.ip[layout.interfacesAt+2*nameBytes:][:nameBytes]
	outMask := e.ip[layout.interfacesAt+3*nameBytes:][:nameBytes]
	switch whole := bytes.Count(inMask, []byte{0xff}); {
	case whole == 0:
	case whole == len(bytes.TrimRight(in, "\x00"))+1: // with its end: not the first letters of many
		list = append(list, &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: register},
			&expr.Cmp{Op: equal(invertInInterface), Register: register, Data: in})
	default:
		list = append(list, notUnderstood())
	}
	// An outgoing interface; type of service and fragments.
	if bytes.Count(outMask, []byte{0}) < nameBytes || e.invert&invertOther != 0 || e.flags&layout.tosFlags != 0 {
		list = append(list, notUnderstood())
	}
	if protocol := binary.NativeEndian.Uint16(e.ip[layout.protocolAt:]); protocol != 0 {
		list = append(list, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
			&expr.Cmp{Op: equal(invertProtocol), Register: register, Data: []byte{byte(protocol)}})
	}
	family := xt.TableFamily(layout.family &^ 0x80)
	for rest := e.matches; len(rest) > 0; {
		var match legacyExtension
		var err error
		if match, rest, err = cutLegacyExtension(rest); err != nil {
			return append(list, &expr.Queue{}) // a verdict that nobody knows
		}
		info, err := xt.Unmarshal(match.name, family, uint32(match.revision), slices.Clone(match.data))
		if err != nil {
			list = append(list, notUnderstood())
			continue
		}
		list = append(list, &expr.Match{Name: match.name, Rev: uint32(match.revision), Info: info})
	}
	return append(list, e.targetInWordsOfNFTables(layout, chains, family)...)
}

func (e legacyEntry) targetInWordsOfNFTables(
	layout legacyLayout, chains map[int]string, family xt.TableFamily,
) []expr.Any {
	if e.target.name != "" {
		info, err := xt.Unmarshal(e.target.name, family, uint32(e.target.revision), slices.Clone(e.target.data))
		if err != nil {
			return []expr.Any{&expr.Queue{}}
		}
		return []expr.Any{&expr.Target{Name: e.target.name, Rev: uint32(e.target.revision), Info: info}}
	}
	kind, to := legacyVerdict(e.target)
	verdict := &expr.Verdict{Kind: kind}
	if kind == expr.VerdictJump {
		verdict.Chain = chains[to]
	}
	switch {
	case kind == expr.VerdictJump && to == e.next: // a rule without a target
		return nil
	case kind == expr.VerdictJump && verdict.Chain == "", kind == expr.VerdictStolen:
		return []expr.Any{&expr.Queue{}}
	case kind == expr.VerdictJump && e.flags&layout.gotoFlag != 0:
		verdict.Kind = expr.VerdictGoto
	}
	return []expr.Any{verdict}
}
