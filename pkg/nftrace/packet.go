package nftrace

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"go4.org/netipx"
	"golang.org/x/sys/unix"
)

// packet is the first packet of a source, from another machine. A rule that asks for what is not known of it may match
// and may not.
type packet struct {
	*ruleset
	source       netip.Prefix // masked; of a network, any of its addresses
	to           Port
	chainsPassed int // that it came through
}

// fate is what becomes of a packet in a chain or at a rule.
type fate int

const (
	goesOn fate = iota
	leavesChain
	passesPerhaps
	dropsPacket
)

// answer is what is known of a condition.
type answer int

const (
	perhaps answer = iota
	yes
	no
)

// fateAtHook returns what becomes of the packet in a chain at a hook.
func (p *packet) fateAtHook(c *nftables.Chain) fate {
	if f := c.Table.Family; p.source.Addr().Is4() && f == nftables.TableFamilyIPv6 ||
		p.source.Addr().Is6() && f == nftables.TableFamilyIPv4 {
		return goesOn
	}
	f := p.fateInChain(c.Table, c.Name)
	if (f == goesOn || f == leavesChain) && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
		return dropsPacket
	}
	return f
}

func (p *packet) fateInChain(table *nftables.Table, chain string) fate {
	rules, ok := p.rulesOf(table, chain)
	if p.chainsPassed++; !ok || p.chainsPassed > maxChains {
		return passesPerhaps
	}
	for _, r := range rules {
		if p.rulesFollowed++; p.rulesFollowed > maxRulesFollowed {
			return passesPerhaps
		}
		switch f := p.fateAtRule(table, r); f {
		case goesOn:
		case leavesChain:
			return goesOn
		default:
			return f
		}
	}
	return goesOn
}

// fateAtRule returns what a rule does with the packet. Where it may match and may not, a drop is not certain, and
// anything else may let it through.
func (p *packet) fateAtRule(table *nftables.Table, r *nftables.Rule) fate {
	registers := make(map[uint32]registerValue)
	matches := yes
	for _, x := range r.Exprs {
		verdict := passesPerhaps
		switch x := x.(type) {
		case *expr.Counter, *expr.Log:
			continue
		case *expr.Meta:
			registers[x.Register] = p.metaValue(x)
			continue
		case *expr.Payload:
			registers[x.DestRegister] = p.payloadValue(x)
			continue
		case *expr.Ct:
			registers[x.Register] = registerValue{}
			if x.Key == expr.CtKeySTATE {
				registers[x.Register] = knownValue(binary.NativeEndian.AppendUint32(nil, expr.CtStateBitNEW))
			}
			continue
		case *expr.Bitwise:
			registers[x.DestRegister] = registers[x.SourceRegister].maskedBy(x)
			continue
		case *expr.Cmp:
			matches = bothOf(matches, registers[x.Register].compareWith(x.Op, x.Data))
		case *expr.Range:
			matches = bothOf(matches, registers[x.Register].inRange(x))
		case *expr.Lookup:
			if x.IsDestRegSet { // a map of verdicts, or of values
				return passesPerhaps
			}
			matches = bothOf(matches, p.matchSet(table, registers[x.SourceRegister], x))
		case *expr.Match:
			matches = bothOf(matches, p.matchMultiport(x))
			clear(registers)
		case *expr.Reject:
			verdict = dropsPacket
		case *expr.Target:
			if x.Name == "REJECT" {
				verdict = dropsPacket
			}
		case *expr.Verdict:
			switch x.Kind {
			case expr.VerdictDrop:
				verdict = dropsPacket
			case expr.VerdictReturn:
				verdict = leavesChain
			case expr.VerdictContinue:
				verdict = goesOn
			case expr.VerdictJump, expr.VerdictGoto:
				if matches == no {
					return goesOn
				}
				if verdict = p.fateInChain(table, x.Chain); verdict == goesOn && x.Kind == expr.VerdictGoto {
					verdict = leavesChain
				}
			}
		case *expr.Limit, *expr.Fib, *expr.Socket, *expr.Connlimit, *expr.Exthdr, *expr.Quota, *expr.Rt, *expr.Dynset,
			*expr.Byteorder:
			matches = bothOf(matches, perhaps)
			clear(registers)
		default: // address translation, queues and whatever else there will be
			return passesPerhaps
		}
		switch x.(type) {
		case *expr.Reject, *expr.Target, *expr.Verdict:
			switch {
			case matches == yes || verdict == passesPerhaps:
				return verdict
			case verdict == leavesChain:
				return passesPerhaps
			}
			return goesOn
		}
		if matches == no {
			return goesOn
		}
	}
	return goesOn
}

func (p *packet) metaValue(x *expr.Meta) registerValue {
	switch {
	case x.SourceRegister:
	case x.Key == expr.MetaKeyNFPROTO && p.source.Addr().Is4():
		return knownValue([]byte{unix.NFPROTO_IPV4})
	case x.Key == expr.MetaKeyNFPROTO:
		return knownValue([]byte{unix.NFPROTO_IPV6})
	case x.Key == expr.MetaKeyL4PROTO:
		return knownValue([]byte{p.to.Protocol})
	case x.Key == expr.MetaKeyIIFTYPE:
		return knownValue(binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_ETHER))
	case x.Key == expr.MetaKeyIIF, x.Key == expr.MetaKeyIIFNAME:
		return registerValue{outside: true}
	}
	return registerValue{}
}

// payloadValue returns what is known of bytes of the packet (RFC 791, 8200, 768, 9293).
func (p *packet) payloadValue(x *expr.Payload) registerValue {
	if x.OperationType == expr.PayloadWrite {
		return registerValue{}
	}
	low, high := p.source.Addr().AsSlice(), netipx.PrefixLastIP(p.source).AsSlice()
	at, protocolAt := 12, 9
	if p.source.Addr().Is6() {
		at, protocolAt = 8, 6
	}
	offset, length := int(x.Offset), int(x.Len)
	switch {
	case x.Base == expr.PayloadBaseNetworkHeader && offset >= at && offset+length <= at+len(low):
		return registerValue{low: low[offset-at : offset-at+length], high: high[offset-at : offset-at+length]}
	case x.Base == expr.PayloadBaseNetworkHeader && offset == protocolAt && length == 1:
		return knownValue([]byte{p.to.Protocol})
	case x.Base == expr.PayloadBaseTransportHeader && offset == 2 && length == 2:
		return knownValue(binary.BigEndian.AppendUint16(nil, p.to.Number))
	}
	return registerValue{}
}

// matchSet answers whether the kernel has a value in a set.
func (p *packet) matchSet(table *nftables.Table, v registerValue, x *expr.Lookup) answer {
	if !v.isCertain() {
		return perhaps
	}
	set := p.setNamed(table, x.SetName)
	if set == nil || set.IsMap || set.Concatenation {
		return perhaps
	}
	found, err := p.setContains(set, v.low)
	if err != nil {
		return perhaps
	}
	return answerOf(found != x.Invert)
}

// matchMultiport answers an extension of iptables, where it is the one by which fail2ban chooses ports: multiport
// (include/uapi/linux/netfilter/xt_multiport.h, struct xt_multiport_v1).
func (p *packet) matchMultiport(x *expr.Match) answer {
	const listAt, flagsAt, invertAt, destination, either = 2, 32, 47, 1, 2
	info, ok := x.Info.(*xt.Unknown)
	if x.Name != "multiport" || x.Rev != 1 || !ok || len(*info) <= invertAt {
		return perhaps
	}
	b := *info
	// Of "either" nothing is known where the destination is not among them.
	if b[0] != destination && b[0] != either || b[1] > 15 {
		return perhaps
	}
	found := false
	for i := 0; i < int(b[1]); i++ {
		from := binary.NativeEndian.Uint16(b[listAt+2*i:])
		to := from
		if b[flagsAt+i] != 0 && i+1 < int(b[1]) { // the next is the end of a range
			i++
			to = binary.NativeEndian.Uint16(b[listAt+2*i:])
		}
		found = found || from <= p.to.Number && p.to.Number <= to
	}
	if b[0] == either && !found {
		return perhaps
	}
	return answerOf(found != (b[invertAt] != 0))
}
