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
	chainsPassed int            // that it came through
	mark         registerValue  // as rules have set it
	recentlySet  map[string]int // how often rules have put it into which list of xt_recent

	// Where it was dropped: the chain of the rule, and the list of xt_recent for which the rule, or one that jumped
	// there, was about it.
	droppedIn, listed string
	foundInList       string // of xt_recent, by the match that was answered last
}

// fate is what becomes of a packet in a chain or at a rule.
type fate int

const (
	goesOn fate = iota
	leavesChain
	leavesPerhaps
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
	switch c.Table.Family {
	case nftables.TableFamilyIPv4, legacyIPv4:
		if p.source.Addr().Is6() {
			return goesOn
		}
	case nftables.TableFamilyIPv6, legacyIPv6:
		if p.source.Addr().Is4() {
			return goesOn
		}
	}
	f := p.fateInChain(c.Table, c.Name)
	if (f == goesOn || f == leavesChain) && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
		p.droppedIn, p.listed = c.Name, ""
		return dropsPacket
	}
	return f
}

func (p *packet) fateInChain(table *nftables.Table, chain string) fate {
	rules, ok := p.rulesOf(table, chain)
	if p.chainsPassed++; !ok || p.chainsPassed > maxChains {
		return passesPerhaps
	}
	mayHaveLeft := false
	for _, r := range rules {
		if p.rulesFollowed++; p.rulesFollowed > maxRulesFollowed {
			return passesPerhaps
		}
		switch f := p.fateAtRule(table, chain, r); f {
		case goesOn:
		case leavesPerhaps: // what comes behind matters where it drops the packet
			mayHaveLeft = true
		case leavesChain:
			return goesOn
		case dropsPacket:
			if mayHaveLeft {
				return passesPerhaps
			}
			return f
		default:
			return f
		}
	}
	return goesOn
}

// fateAtRule returns what a rule does with the packet. Where it may match and may not, a drop is not certain, and
// anything else may let it through.
func (p *packet) fateAtRule(table *nftables.Table, chain string, r *nftables.Rule) fate {
	registers := make(map[uint32]registerValue)
	matches, list := yes, ""
	for _, x := range r.Exprs {
		verdict := passesPerhaps
		switch x := x.(type) {
		case *expr.Counter, *expr.Log:
			continue
		case *expr.Meta:
			if x.SourceRegister && x.Key == expr.MetaKeyMARK {
				p.setMark(matches, registers[x.Register])
			}
			registers[x.Register] = p.metaValue(x)
			continue
		case *expr.Payload:
			registers[x.DestRegister] = p.payloadValue(x)
			continue
		case *expr.Ct:
			registers[x.Register] = conntrackValue(x)
			continue
		case *expr.Immediate:
			registers[x.Register] = knownValue(x.Data)
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
			found := p.matchExtension(x)
			if found == yes && matches == yes && x.Name == "recent" {
				list = p.foundInList
			}
			matches = bothOf(matches, found)
			clear(registers)
		case *expr.Reject:
			verdict = dropsPacket
		case *expr.Target:
			switch x.Name {
			case "REJECT":
				verdict = dropsPacket
			case "LOG", "NFLOG", "CONNMARK", "MARK", "SET":
				verdict = goesOn
				if x.Name == "MARK" || x.Name == "CONNMARK" {
					p.setMark(matches, markOfTarget(x))
				}
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
				if verdict == dropsPacket && p.listed == "" {
					p.listed = list
				}
			}
		case *expr.Fib:
			registers[x.Register] = p.routeValue(x)
			continue
		case *expr.Limit, *expr.Socket, *expr.Connlimit, *expr.Exthdr, *expr.Quota, *expr.Rt, *expr.Dynset,
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
				if v, isJump := x.(*expr.Verdict); verdict == dropsPacket && (!isJump || v.Chain == "") {
					p.droppedIn, p.listed = chain, list
				}
				return verdict
			case verdict == leavesChain:
				return leavesPerhaps
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
	case x.Key == expr.MetaKeyMARK:
		return p.mark
	case x.Key == expr.MetaKeyNFPROTO && p.source.Addr().Is4():
		return knownValue([]byte{unix.NFPROTO_IPV4})
	case x.Key == expr.MetaKeyNFPROTO:
		return knownValue([]byte{unix.NFPROTO_IPV6})
	case x.Key == expr.MetaKeyL4PROTO:
		return knownValue([]byte{p.to.Protocol})
	case x.Key == expr.MetaKeyPKTTYPE:
		return knownValue([]byte{unix.PACKET_HOST})
	case x.Key == expr.MetaKeyIIFTYPE:
		return knownValue(binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_ETHER))
	case x.Key == expr.MetaKeyIIF, x.Key == expr.MetaKeyIIFNAME:
		return registerValue{outside: true}
	}
	return registerValue{}
}

// routeValue returns what the kernel's routing says of the packet, which is for this machine if not for another.
func (p *packet) routeValue(x *expr.Fib) registerValue {
	if x.ResultADDRTYPE && x.FlagDADDR && !x.FlagSADDR && !p.forwarded {
		return knownValue(binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL))
	}
	return registerValue{}
}

// payloadValue returns what is known of bytes of the packet (RFC 791, 8200, 768, 9293).
func (p *packet) payloadValue(x *expr.Payload) registerValue {
	if x.OperationType == expr.PayloadWrite {
		return registerValue{}
	}
	low, high := p.source.Addr().AsSlice(), netipx.PrefixLastIP(p.source).AsSlice()
	at, protocolAt := 12, 9 // a destination is behind its source
	if p.source.Addr().Is6() {
		at, protocolAt = 8, 6
	}
	offset, length := int(x.Offset), int(x.Len)
	switch {
	case x.Base == expr.PayloadBaseNetworkHeader && offset >= at && offset+length <= at+len(low):
		return registerValue{low: low[offset-at : offset-at+length], high: high[offset-at : offset-at+length]}
	case x.Base == expr.PayloadBaseNetworkHeader && offset == at+len(low) && length <= len(low):
		if len(low) == 16 {
			return registerValue{firstBelow: 0xff} // RFC 4291, section 2.7: multicast
		}
		return registerValue{firstBelow: 224} // RFC 1112, section 4, and broadcast
	case x.Base == expr.PayloadBaseNetworkHeader && offset == protocolAt && length == 1:
		return knownValue([]byte{p.to.Protocol})
	case x.Base == expr.PayloadBaseTransportHeader && offset == 2 && length == 2:
		return knownValue(binary.BigEndian.AppendUint16(nil, p.to.Number))
	case x.Base == expr.PayloadBaseTransportHeader && offset == 0 && length == 4: // from any port
		return registerValue{low: binary.BigEndian.AppendUint16([]byte{0, 0}, p.to.Number),
			high: binary.BigEndian.AppendUint16([]byte{0xff, 0xff}, p.to.Number)}
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

// conntrackValue returns what is known of the connection that a first packet begins. Who changed its addresses is not
// known where anybody may have.
func conntrackValue(x *expr.Ct) registerValue {
	switch x.Key {
	case expr.CtKeySTATE:
		return knownValue(binary.NativeEndian.AppendUint32(nil, expr.CtStateBitNEW))
	case expr.CtKeySTATUS: // linux/netfilter/nf_conntrack_common.h, enum ip_conntrack_status
		const expected, seenReply, assured, sourceNAT, destinationNAT = 1 << 0, 1 << 1, 1 << 2, 1 << 4, 1 << 5
		const never = expected | seenReply | assured | sourceNAT | destinationNAT
		return registerValue{low: make([]byte, 4), high: binary.NativeEndian.AppendUint32(nil, ^uint32(never))}
	}
	return registerValue{}
}

// setMark notes that a rule sets the mark.
func (p *packet) setMark(matches answer, v registerValue) {
	switch matches {
	case yes:
		p.mark = v
	case perhaps:
		p.mark = registerValue{}
	}
}

// markOfTarget is the mark that a rule of iptables sets whatever it was before (linux/netfilter/xt_mark.h, struct
// xt_mark_tginfo2).
func markOfTarget(x *expr.Target) registerValue {
	info, ok := x.Info.(*xt.Unknown)
	if !ok || x.Name != "MARK" || x.Rev != 2 || len(*info) < 8 {
		return registerValue{}
	}
	b := *info
	if binary.NativeEndian.Uint32(b[4:]) != 1<<32-1 {
		return registerValue{}
	}
	return knownValue(b[:4:4])
}

// matchExtension answers an extension of iptables.
func (p *packet) matchExtension(x *expr.Match) answer {
	switch x.Name {
	case "comment":
		return yes
	case "multiport":
		return p.matchMultiport(x)
	case "recent":
		return p.matchRecent(x)
	case "conntrack", "state":
		return matchConntrack(x)
	case "addrtype":
		return p.matchAddressType(x)
	case "mark":
		return p.matchMark(x)
	case "pkttype": // linux/netfilter/xt_pkttype.h
		if info, ok := x.Info.(*xt.Unknown); ok && len(*info) >= 8 {
			found := binary.NativeEndian.Uint32(*info) == unix.PACKET_HOST
			return answerOf(found != (binary.NativeEndian.Uint32((*info)[4:]) != 0))
		}
	case "tcp":
		if info, ok := x.Info.(*xt.Tcp); ok && info.Option == 0 && info.FlagsMask == 0 &&
			info.InvFlags&^xt.TcpInvDestPorts == 0 {
			return p.matchPorts(unix.IPPROTO_TCP, info.SrcPorts, info.DstPorts, info.InvFlags != 0)
		}
	case "udp":
		if info, ok := x.Info.(*xt.Udp); ok && info.InvFlags&^xt.UdpInvDestPorts == 0 {
			return p.matchPorts(unix.IPPROTO_UDP, info.SrcPorts, info.DstPorts, info.InvFlags != 0)
		}
	}
	return perhaps
}

// matchPorts answers a range of destination ports. Of the source's nothing is known.
func (p *packet) matchPorts(protocol byte, from, to [2]uint16, invert bool) answer {
	if p.to.Protocol != protocol {
		return no
	}
	found := answerOf((to[0] <= p.to.Number && p.to.Number <= to[1]) != invert)
	if from != [2]uint16{0, 65535} {
		found = bothOf(found, perhaps)
	}
	return found
}

// matchConntrack answers a match of the connection's state alone (linux/netfilter/xt_conntrack.h and xt_state.h).
func matchConntrack(x *expr.Match) answer {
	const stateFlag, stateAlias = 1 << 0, 1 << 13 // the latter as iptables -m state writes it
	const stateNew, stateSourceNAT, stateDestinationNAT = 1 << 3, 1 << 6, 1 << 7
	var flags, inverted, states uint32
	switch info := x.Info.(type) {
	case *xt.ConntrackMtinfo1:
		flags, inverted, states = uint32(info.MatchFlags), uint32(info.InvertFlags), uint32(info.StateMask)
	case *xt.ConntrackMtinfo2:
		flags, inverted, states = uint32(info.MatchFlags), uint32(info.InvertFlags), uint32(info.StateMask)
	case *xt.ConntrackMtinfo3:
		flags, inverted, states = uint32(info.MatchFlags), uint32(info.InvertFlags), uint32(info.StateMask)
	case *xt.Unknown: // state, before conntrack had it
		if x.Name != "state" || len(*info) < 4 {
			return perhaps
		}
		flags, states = stateFlag, binary.NativeEndian.Uint32(*info)
	default:
		return perhaps
	}
	found := answerOf(states&stateNew != 0)
	switch {
	case flags&^stateAlias != stateFlag:
		return perhaps
	case found == no && states&(stateSourceNAT|stateDestinationNAT) != 0:
		return perhaps
	case inverted&stateFlag != 0:
		return negationOf(found)
	}
	return found
}

// matchAddressType answers whether the packet is for this machine (linux/netfilter/xt_addrtype.h).
func (p *packet) matchAddressType(x *expr.Match) answer {
	const invertDestination = 1 << 1
	info, ok := x.Info.(*xt.AddrTypeV1)
	if !ok || p.forwarded || info.Source != 0 || uint32(info.Flags)&^invertDestination != 0 {
		return perhaps
	}
	return answerOf((info.Dest&(1<<unix.RTN_LOCAL) != 0) != (uint32(info.Flags)&invertDestination != 0))
}

// matchMark answers a match of the mark (linux/netfilter/xt_mark.h, struct xt_mark_mtinfo1).
func (p *packet) matchMark(x *expr.Match) answer {
	info, ok := x.Info.(*xt.Unknown)
	if !ok || x.Rev != 1 || len(*info) < 9 || !p.mark.isCertain() {
		return perhaps
	}
	b := *info
	have := binary.NativeEndian.Uint32(p.mark.low) & binary.NativeEndian.Uint32(b[4:])
	return answerOf((have == binary.NativeEndian.Uint32(b)) != (b[8] != 0))
}

// matchMultiport answers the extension by which fail2ban chooses ports (include/uapi/linux/netfilter/xt_multiport.h,
// struct xt_multiport_v1).
func (p *packet) matchMultiport(x *expr.Match) answer {
	const listAt, flagsAt, invertAt, destination, either = 2, 32, 47, 1, 2
	info, ok := x.Info.(*xt.Unknown)
	if x.Rev != 1 || !ok || len(*info) <= invertAt {
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
