package firewall

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

const chainName = "prerouting"

// Offsets in the network header: RFC 791 section 3.1 and RFC 8200 section 3.
const (
	ip4Frag, ip4Source = 6, 12 // the destination is behind the source
	ip6Source          = 8
)

// end is one of the two ends that a packet names.
type end uint8

const (
	source end = iota
	destination
)

// rule is one rule of a chain. Comments are part of the rule in the kernel and shown by nft.
type rule struct {
	comment string
	exprs   []expr.Any
	drops   setID // the set whose packets it drops, numSets for none
}

// ruleList is the rules of a chain, in order.
type ruleList []rule

func (l *ruleList) add(comment string, drops setID, exprs ...[]expr.Any) {
	*l = append(*l, rule{comment: comment, drops: drops, exprs: slices.Concat(exprs...)})
}

// addSignalling accepts what is neither to nor from, as portsAre says, one of these ports. What is after it is for
// signalling only.
func (l *ruleList) addSignalling(udp, tcp []uint16, portsAre func(*nftables.Set, bool) []expr.Any,
	addPorts func([]uint16) *nftables.Set) {
	l.add("neither UDP nor TCP", numSets, isNeither(unix.IPPROTO_UDP, unix.IPPROTO_TCP), acceptVerdict())
	l.add("IPv4 fragment without ports", numSets, isFamily(false), isFragment4(), acceptVerdict())
	l.add("IPv6 fragment without ports", numSets, isFamily(true), isFragment6(), acceptVerdict())
	for _, p := range []struct {
		proto byte
		name  string
		ports []uint16
	}{{unix.IPPROTO_UDP, "UDP", udp}, {unix.IPPROTO_TCP, "TCP", tcp}} {
		match := isProtocol(p.proto)
		if len(p.ports) > 0 {
			match = append(match, portsAre(addPorts(p.ports), true)...)
		}
		l.add(p.name+" that is not VoIP", numSets, match, acceptVerdict())
	}
}

// rulesOf builds the rules of a chain. See ruleset for the rest.
func (c *Config) rulesOf(chain string, defs [numSets]setDef, packets, bytes [numSets]uint64,
	addPorts func(ports []uint16) *nftables.Set) ruleList {
	switch chain {
	case requestsChain:
		return c.requestRules(addPorts)
	case answersChain:
		return c.answerRules(defs, addPorts)
	}
	return c.preroutingRules(defs, packets, bytes, addPorts)
}

// preroutingRules builds the rules of the chain prerouting and, through addPorts, the anonymous sets of ports that they
// look into. packets holds what the drop rules of an older chain had counted.
//
// Fragments. At priority -300 the chain sees whole packets only where something (conntrack, at -400) reassembles
// them; elsewhere a fragment that is not the first has no ports, and the kernel stops evaluating a rule that asks
// for them (nft_payload_eval, pkt->fragoff). `th dport != {…} accept` would then not accept it, and a banned source
// would lose the tails of its datagrams to other services. So in scope VoIP these fragments are accepted by a rule
// of their own: the first fragment to a VoIP port is dropped, and without it nothing can be reassembled. In scope
// All they meet the drop rules like any packet.
func (c *Config) preroutingRules(defs [numSets]setDef, packets, bytes [numSets]uint64,
	addPorts func(ports []uint16) *nftables.Set) ruleList {
	var rules ruleList
	add := rules.add
	accept := acceptVerdict()
	// What becomes of a packet to a port of telephony that gets through.
	passes := accept
	if c.copiesPackets() {
		passes = []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: requestsChain}}
	}
	drop := func(id setID) []expr.Any {
		return []expr.Any{
			&expr.Counter{Packets: packets[id], Bytes: bytes[id]},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}
	}
	signalling := func() { rules.addSignalling(c.UDPPorts, c.TCPPorts, portIn, addPorts) }
	limited := func(rate uint32, unit expr.LimitTime, burst uint32, over bool) []expr.Any {
		return []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(rate), Unit: unit, Burst: burst,
			Over: over}}
	}
	update := func(id setID, limit []expr.Any) []expr.Any {
		return append(loadKey(defs[id], source), &expr.Dynset{
			SrcRegKey: 1, SetName: defs[id].name, Operation: unix.NFT_DYNSET_OP_UPDATE, Exprs: limit,
		})
	}
	add("the machine itself", numSets, interfaceIs(expr.MetaKeyIIFNAME, "lo"), accept)
	for _, id := range []setID{allow4, allow6} {
		add("always let in", numSets, sourceIn(defs[id]), accept)
	}
	if c.Scope == VoIP {
		signalling()
	}
	for _, id := range []setID{block4, block6} {
		add("banned by a person", id, sourceIn(defs[id]), drop(id))
	}
	// A connection that is cut is ended at its sender, who would otherwise hang in it until it times out, as would all
	// that a proxy in between does for him. Should Asterisk write to it once more, his host resets it, and that passes.
	for _, id := range []setID{cut4, cut6} {
		add("end of a cut connection", numSets, isProtocol(unix.IPPROTO_TCP), tcpFlags(tcpReset, tcpReset),
			sourceIn(defs[id]), accept)
		if c.noReject {
			continue
		}
		reject := drop(id)
		reject[1] = &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}
		add("cut", id, isProtocol(unix.IPPROTO_TCP), sourceIn(defs[id]), reject)
	}
	for _, id := range []setID{cut4, cut6} {
		match := isProtocol(unix.IPPROTO_UDP)
		if c.noReject {
			match = nil
		}
		add("cut", id, match, sourceIn(defs[id]), drop(id))
	}
	for _, id := range []setID{slowFlow4, slowFlow6} { // each element has its own limit
		if !c.hasSet(id) {
			continue
		}
		add("slow", id, isProtocol(unix.IPPROTO_UDP), sourceIn(defs[id]), drop(id))
	}
	for _, id := range []setID{good4, good6} {
		add("good", numSets, sourceIn(defs[id]), accept)
	}
	for _, id := range []setID{ban4, ban4Net24, net4, ban6, ban6Net64, net6} {
		add("banned", id, sourceIn(defs[id]), drop(id))
	}
	// In scope All what follows still is for signalling only: a ban of one service closes no other, and a call's audio
	// is more packets than the meter lets through.
	if c.Scope == All {
		signalling()
	}
	if len(c.ManagerPorts) > 0 {
		for _, id := range []setID{manager4, manager6} {
			add("banned from the manager", id, isProtocol(unix.IPPROTO_TCP), portIn(addPorts(c.ManagerPorts), false),
				sourceIn(defs[id]), drop(id))
		}
	}
	for _, id := range []setID{sip4, sip6} {
		add("banned from UDP", id, isProtocol(unix.IPPROTO_UDP), sourceIn(defs[id]), drop(id))
		match := isProtocol(unix.IPPROTO_TCP)
		if len(c.ManagerPorts) > 0 {
			match = append(match, portIn(addPorts(c.ManagerPorts), true)...)
		}
		add("banned from SIP over TCP", id, match, sourceIn(defs[id]), drop(id))
	}
	// Each port has its own bucket, so that one sender does not empty that of another, and the source has one for all
	// its ports, so that many ports are of no use; so has a network, for all its sources. Whoever finds no place in
	// these sets does not get through.
	for _, id := range []setID{knock4, knockNet4, knock6, knockNet6} {
		door, doorway, net := door4, doorway4, doorwayNet4
		if defs[id].v6 {
			door, doorway, net = door6, doorway6, doorwayNet6
		}
		if c.Knock.Port > 0 {
			knock := slices.Concat(isProtocol(unix.IPPROTO_UDP), sourceIn(defs[id]),
				update(door, limited(c.Knock.Port, expr.LimitTimeMinute, portBurst, false)),
				update(doorway, limited(c.Knock.Source, expr.LimitTimeMinute, KnockBurst, false)))
			if defs[id].shape == interval {
				knock = append(knock,
					update(net, limited(doorNet*c.Knock.Source, expr.LimitTimeMinute, doorNet*KnockBurst, false))...)
			}
			add("knocks", numSets, knock, passes)
		}
		add("banned but for knocks", id, isProtocol(unix.IPPROTO_UDP), sourceIn(defs[id]), drop(id))
	}
	for _, id := range []setID{slow4, slow6} {
		if !c.hasSet(id) {
			continue
		}
		add("slow", id, isProtocol(unix.IPPROTO_UDP), sourceIn(defs[id]), drop(id))
		add("slow", id, isProtocol(unix.IPPROTO_TCP), tcpFlags(tcpSyn|tcpAck, tcpSyn), sourceIn(defs[id]), drop(id))
	}
	if c.hasSet(trust4) {
		for _, id := range []setID{trust4, trust6} {
			add("trusted", numSets, sourceIn(defs[id]), passes)
		}
	}
	if len(c.Lists) > 0 {
		add("lists of attackers", numSets, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: listsChain}})
	}
	if c.Meter.Enabled {
		for _, id := range []setID{volume4, volume6} {
			// Of bytes the kernel lets a second's rate through at once, besides the burst (nft_limit_init).
			bytes := &expr.Limit{Type: expr.LimitTypePktBytes, Rate: max(minVolume, uint64(c.Meter.Burst)*meterBytes),
				Unit: expr.LimitTimeSecond, Over: true}
			add("too many bytes", id, isProtocol(unix.IPPROTO_TCP), update(id, []expr.Any{bytes}), drop(id))
		}
		for _, id := range []setID{meter4, meter6} {
			add("too many packets", id, update(id, limited(c.Meter.Rate, expr.LimitTimeSecond, c.Meter.Burst, true)),
				drop(id))
		}
	}
	if c.copiesPackets() {
		add("gets through", numSets, passes)
	}
	return rules
}

func (r *rule) userData() []byte {
	return userdata.AppendString(nil, userdata.TypeComment, r.comment)
}

func compareRegister(op expr.CmpOp, data ...byte) expr.Any {
	return &expr.Cmp{Op: op, Register: 1, Data: data}
}

// interfaceIs matches the name of the interface that a packet comes in or goes out by.
func interfaceIs(key expr.MetaKey, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, compareRegister(expr.CmpOpEq, padded...)}
}

func isFamily(v6 bool) []expr.Any {
	f := byte(unix.NFPROTO_IPV4)
	if v6 {
		f = unix.NFPROTO_IPV6
	}
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, compareRegister(expr.CmpOpEq, f)}
}

func isProtocol(p byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, compareRegister(expr.CmpOpEq, p)}
}

func isNeither(a, b byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		compareRegister(expr.CmpOpNeq, a), compareRegister(expr.CmpOpNeq, b),
	}
}

// loadPort loads a port; in UDP and in TCP the source is the first half-word and the destination the second (RFC 768,
// RFC 9293 section 3.1).
func loadPort(of end, register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2 * uint32(of), Len: 2}
}

// portIn matches a destination port in the set, or outside of it.
func portIn(ports *nftables.Set, outside bool) []expr.Any {
	return []expr.Any{
		loadPort(destination, 1),
		&expr.Lookup{SourceRegister: 1, SetName: ports.Name, SetID: ports.ID, Invert: outside},
	}
}

// sourcePortIn matches a source port in the set, or outside of it.
func sourcePortIn(ports *nftables.Set, outside bool) []expr.Any {
	match := portIn(ports, outside)
	match[0] = loadPort(source, 1)
	return match
}

// Flags in the TCP header (RFC 9293 section 3.1).
const (
	tcpSyn   = 0x02
	tcpReset = 0x04
	tcpAck   = 0x10
)

// tcpFlags matches where of some flags only those of want are set.
func tcpFlags(some, want byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{some}, Xor: []byte{0}},
		compareRegister(expr.CmpOpEq, want),
	}
}

// isFragment4 matches a fragment offset that is not 0 (RFC 791, 13 bits).
func isFragment4() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: ip4Frag, Len: 2},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{0x1f, 0xff}, Xor: []byte{0, 0}},
		compareRegister(expr.CmpOpNeq, 0, 0),
	}
}

// isFragment6 matches the same in the fragment header (RFC 8200 section 4.5).
func isFragment6() []expr.Any {
	return []expr.Any{
		&expr.Exthdr{DestRegister: 1, Type: unix.IPPROTO_FRAGMENT, Offset: 2, Len: 2, Op: expr.ExthdrOpIpv6},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{0xff, 0xf8}, Xor: []byte{0, 0}},
		compareRegister(expr.CmpOpNeq, 0, 0),
	}
}

// loadAddress loads an address of the packet into register 1, masked to the set's key.
func loadAddress(d setDef, of end) []expr.Any {
	e := isFamily(d.v6)
	load := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: ip4Source, Len: 4}
	whole := 32
	if d.v6 {
		load.Offset, load.Len, whole = ip6Source, 16, 128
	}
	if of == destination {
		load.Offset += load.Len
	}
	e = append(e, load)
	if d.shape != interval && d.bits < whole {
		e = append(e, &expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: load.Len,
			Mask: netmask(d.v6, d.bits), Xor: make([]byte, load.Len),
		})
	}
	return e
}

func sourceIn(d setDef) []expr.Any { return endIn(d, source) }

func destinationIn(d setDef) []expr.Any { return endIn(d, destination) }

func endIn(d setDef, of end) []expr.Any {
	return append(loadKey(d, of), &expr.Lookup{SourceRegister: 1, SetName: d.name})
}

// Registers of four bytes (NFT_REG32_00 in linux/netfilter/nf_tables.h) behind an address in register 1.
const (
	registerAfter4 = unix.NFT_REG32_01
	registerAfter6 = unix.NFT_REG32_04
)

// loadKey loads the key of a set from register 1 on. Each part of it begins a register of its own.
func loadKey(d setDef, of end) []expr.Any {
	e := loadAddress(d, of)
	next := uint32(registerAfter4)
	if d.v6 {
		next = registerAfter6
	}
	if d.key == byTransport || d.key == byFlow {
		e = append(e, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: next})
		next++
	}
	if d.key == byPort || d.key == byFlow {
		e = append(e, loadPort(of, next))
	}
	return e
}

// netmask returns the netmask of a length as bytes.
func netmask(v6 bool, bits int) []byte {
	ones := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	if v6 {
		ones = netip.AddrFrom16([16]byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
			255})
	}
	return netip.PrefixFrom(ones, bits).Masked().Addr().AsSlice()
}

// newPortSet is the anonymous set of the ports in a rule.
func newPortSet(t *nftables.Table, ports []uint16) (*nftables.Set, []nftables.SetElement) {
	s := &nftables.Set{Table: t, Anonymous: true, Constant: true, KeyType: nftables.TypeInetService}
	seen := make(map[uint16]bool, len(ports))
	var elems []nftables.SetElement
	for _, p := range ports {
		if !seen[p] {
			seen[p] = true
			elems = append(elems, nftables.SetElement{Key: binaryutil.BigEndian.PutUint16(p)})
		}
	}
	return s, elems
}
