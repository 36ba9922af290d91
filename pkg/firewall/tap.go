package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/hint"
)

// Tap copies the head of what reaches Asterisk at the ports of telephony, and of what Asterisk answers from them, to an
// NFLOG group, whether or not anybody reads it. It copies nothing of the machine itself, of the allowed, of good flows,
// and nothing that is dropped; nor what the machine forwards for others.
type Tap struct {
	// Group is the number of the NFLOG group; 0 copies nothing.
	Group uint16
	// ExceptTCPPorts are those of TCPPorts that are not copied, such as those of TLS. Nor are the ManagerPorts.
	ExceptTCPPorts []uint16
}

// What the prefix of a copy says; it is that of another's rule if it is neither.
const (
	TapRequest = "ringwall request"
	TapAnswer  = "ringwall answer"
)

// How many bytes of a packet are copied, its headers included. A head of SIP is shorter than a packet of Ethernet; what
// is longer has been put together from fragments. A segment of TCP may be 64 kB when it gets here, and a hundred
// requests.
const (
	tapUDPBytes = 4 << 10
	tapTCPBytes = 16 << 10
	// Headers alone.
	tapOpeningBytes = 128
)

// The chains of the tap: one that other rules go to with a packet that gets through, and one for what goes out.
const (
	requestsChain = "requests"
	answersChain  = "answers"
)

// answersPriority is behind the kernel's source NAT at 100, so that an answer of a container comes from the address and
// the port that were asked (linux/netfilter_ipv4.h, NF_IP_PRI_NAT_SRC).
const answersPriority = 200

// copiesPackets reports whether packets are copied.
func (c *Config) copiesPackets() bool { return c.Tap.Group != 0 && !c.noTap }

// tapTCPPorts are the TCP ports of which packets are copied.
func (c *Config) tapTCPPorts() []uint16 {
	return slices.DeleteFunc(slices.Clone(c.TCPPorts), func(p uint16) bool {
		return slices.Contains(c.ManagerPorts, p) || slices.Contains(c.Tap.ExceptTCPPorts, p)
	})
}

// requestRules are the rules for a packet that goes to a port of telephony and gets through.
func (c *Config) requestRules(addPorts func([]uint16) *nftables.Set) (l ruleList) {
	l.add("to another machine", numSets, isNotLocal(false), acceptVerdict())
	l.add("request over UDP", numSets, isProtocol(unix.IPPROTO_UDP), c.copyToGroup(TapRequest, tapUDPBytes))
	ports := c.tapTCPPorts()
	if len(ports) == 0 {
		return l
	}
	l.add("TCP that is not copied", numSets, isProtocol(unix.IPPROTO_TCP), portIn(addPorts(ports), true),
		acceptVerdict())
	l.addEmptySegments()
	l.add("request over TCP", numSets, isProtocol(unix.IPPROTO_TCP), c.copyToGroup(TapRequest, tapTCPBytes))
	return l
}

// answerRules are the rules for what leaves the machine.
func (c *Config) answerRules(defs [numSets]setDef, addPorts func([]uint16) *nftables.Set) (l ruleList) {
	l.add("the machine itself", numSets, interfaceIs(expr.MetaKeyOIFNAME, "lo"), acceptVerdict())
	l.addSignalling(c.UDPPorts, c.tapTCPPorts(), sourcePortIn, addPorts)
	l.add("of another machine", numSets, isNotLocal(true), acceptVerdict())
	for _, id := range []setID{allow4, allow6} {
		l.add("always let in", numSets, destinationIn(defs[id]), acceptVerdict())
	}
	for _, id := range []setID{good4, good6} {
		l.add("good", numSets, destinationIn(defs[id]), acceptVerdict())
	}
	l.add("answer over UDP", numSets, isProtocol(unix.IPPROTO_UDP), c.copyToGroup(TapAnswer, tapUDPBytes))
	// Who acknowledges its number received it: that tells a real connection from forged segments.
	l.add("answer to an opening", numSets, isProtocol(unix.IPPROTO_TCP), tcpFlags(tcpSyn|tcpAck, tcpSyn|tcpAck),
		c.copyToGroup(TapAnswer, tapOpeningBytes))
	l.addEmptySegments()
	l.add("answer over TCP", numSets, isProtocol(unix.IPPROTO_TCP), c.copyToGroup(TapAnswer, tapTCPBytes))
	return l
}

// addEmptySegments accepts segments of TCP that open, reset or acknowledge and hold nothing: those without options and
// those with timestamps alone (RFC 7323), as most are. All others have a payload or are rare. Nobody can hide a payload
// so: options of IP would make the packet longer.
func (l *ruleList) addEmptySegments() {
	l.add("opens or resets", numSets, isProtocol(unix.IPPROTO_TCP), tcpHasFlag(tcpSyn|tcpReset), acceptVerdict())
	for _, v6 := range []bool{false, true} {
		for _, words := range []uint8{5, 8} { // of the TCP header
			size := uint32(20)
			if v6 {
				size = 40
			}
			l.add("empty", numSets, isFamily(v6), isProtocol(unix.IPPROTO_TCP), tcpHeaderIs(words),
				packetIs(size+4*uint32(words)), acceptVerdict())
		}
	}
}

func acceptVerdict() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

// copyToGroup is nft's `log prefix … group … snaplen …`.
func (c *Config) copyToGroup(prefix string, bytes uint32) []expr.Any {
	return []expr.Any{&expr.Log{
		Key:   1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_SNAPLEN,
		Group: c.Tap.Group, Snaplen: bytes, Data: []byte(prefix),
	}}
}

// isNotLocal matches a destination, or a source, that is not an address of this machine (nft's `fib daddr type`).
func isNotLocal(source bool) []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: !source, FlagSADDR: source},
		compareRegister(expr.CmpOpNeq, binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)...),
	}
}

// tcpHasFlag matches where any of some flags is set.
func tcpHasFlag(some byte) []expr.Any {
	match := tcpFlags(some, 0)
	match[len(match)-1] = compareRegister(expr.CmpOpNeq, 0)
	return match
}

// tcpHeaderIs matches the length of the TCP header, in words of 32 bits (RFC 9293 section 3.1, data offset).
func tcpHeaderIs(words uint8) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 12, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{0xf0}, Xor: []byte{0}},
		compareRegister(expr.CmpOpEq, words<<4),
	}
}

// packetIs matches the length of a packet from its IP header on.
func packetIs(bytes uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyLEN, Register: 1},
		compareRegister(expr.CmpOpEq, binary.NativeEndian.AppendUint32(nil, bytes)...),
	}
}

// chooseTapLocked asks the kernel whether it can copy packets; one that could not is asked again, since a module may
// have been loaded. A container may lack one: then nothing is copied, and a table there is in any case.
func (t *Table) chooseTapLocked() {
	if t.cfg.Tap.Group == 0 || t.askedForTap {
		return
	}
	lib := t.writeConn.Nftables
	probe := lib.AddTable(probeTable(t.cfg.Table))
	chain := lib.AddChain(answersChainOf(probe))
	for _, exprs := range [][]expr.Any{isNotLocal(true), t.cfg.copyToGroup(TapAnswer, tapUDPBytes)} {
		lib.AddRule(&nftables.Rule{Table: probe, Chain: chain, Exprs: exprs})
	}
	lib.DelTable(probe)
	err := lib.Flush()
	t.askedForTap = !isUnknown(err)
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	t.cfg.noTap, t.whyNoTap = isUnknown(err), err
}

// TapError says why the kernel copies no packets though it should; nil where nothing is amiss. It is known after
// EnsureTable.
func (t *Table) TapError() error {
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	if t.cfg.Tap.Group == 0 || !t.cfg.noTap {
		return nil
	}
	return hint.Errorf("modprobe -a nft_log nfnetlink_log nft_fib_inet, on the host where this is a container",
		"%w: copies of packets for the tap (%w)", ErrUnsupported, t.whyNoTap)
}

// SetTap begins to copy packets, or ends it, in a table that is in use, as [Table.Reconfigure] changes what else there
// is. Whoever reads the group binds it first: until then its packets are for another, if he has it.
func (t *Table) SetTap(tap Tap) error {
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	cfg := t.cfg
	cfg.Tap = tap
	if err := t.changeLocked(cfg); err != nil {
		return err
	}
	err := t.TapError()
	if err != nil {
		cfg.Tap = Tap{}
		err = errors.Join(err, t.changeLocked(cfg))
	}
	return err
}

// SetTap is [Table.SetTap] in the Writer's turn, for which it waits as long as ctx.
func (w *Writer) SetTap(ctx context.Context, tap Tap) error {
	fw, ok := w.fw.(interface{ SetTap(Tap) error })
	if !ok {
		return nil
	}
	if err := w.waitForTurn(ctx); err != nil {
		return err
	}
	defer w.writing.Unlock()
	return fw.SetTap(tap)
}

func answersChainOf(table *nftables.Table) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return &nftables.Chain{
		Name: answersChain, Table: table, Type: nftables.ChainTypeFilter, Policy: &accept,
		Hooknum:  nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityRef(answersPriority),
	}
}
