package firewall

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

const chainName = "prerouting"

// Offsets in the network header: RFC 791 section 3.1 and RFC 8200 section 3.
const (
	ip4Frag, ip4Source = 6, 12
	ip6Source          = 8
)

// rule is one rule of the chain. Comments are part of the rule in the kernel and shown by nft.
type rule struct {
	comment string
	exprs   []expr.Any
	drops   setID // the set whose packets it drops, numSets for none
}

// ruleset builds the chain's rules and, through addPorts, the anonymous sets of ports that they look into. packets
// holds what the drop rules of an older chain had counted.
//
// Fragments. At priority -300 the chain sees whole packets only where something (conntrack, at -400) reassembles
// them; elsewhere a fragment that is not the first has no ports, and the kernel stops evaluating a rule that asks
// for them (nft_payload_eval, pkt->fragoff). `th dport != {…} accept` would then not accept it, and a banned source
// would lose the tails of its datagrams to other services. So in scope VoIP these fragments are accepted by a rule
// of their own: the first fragment to a VoIP port is dropped, and without it nothing can be reassembled. In scope
// All they meet the drop rules like any packet.
func (c *Config) ruleset(defs [numSets]setDef, packets, bytes [numSets]uint64,
	addPorts func(ports []uint16) *nftables.Set) []rule {
	var rules []rule
	add := func(comment string, drops setID, exprs ...[]expr.Any) {
		r := rule{comment: comment, drops: drops}
		for _, e := range exprs {
			r.exprs = append(r.exprs, e...)
		}
		rules = append(rules, r)
	}
	accept := []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	drop := func(id setID) []expr.Any {
		return []expr.Any{
			&expr.Counter{Packets: packets[id], Bytes: bytes[id]},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}
	}
	signalling := func() {
		add("neither UDP nor TCP", numSets, isNeither(unix.IPPROTO_UDP, unix.IPPROTO_TCP), accept)
		add("IPv4 fragment without ports", numSets, isFamily(false), isFragment4(), accept)
		add("IPv6 fragment without ports", numSets, isFamily(true), isFragment6(), accept)
		for _, p := range []struct {
			proto byte
			name  string
			ports []uint16
		}{{unix.IPPROTO_UDP, "UDP", c.UDPPorts}, {unix.IPPROTO_TCP, "TCP", c.TCPPorts}} {
			match := isProtocol(p.proto)
			if len(p.ports) > 0 {
				match = append(match, portNotIn(addPorts(p.ports))...)
			}
			add(p.name+" that is not VoIP", numSets, match, accept)
		}
	}

	add("the machine itself", numSets, fromLoopback(), accept)
	for _, id := range []setID{allow4, allow6} {
		add("always let in", numSets, sourceIn(defs[id]), accept)
	}
	if c.Scope == VoIP {
		signalling()
	}
	for _, id := range []setID{ban4, ban4Net24, net4, ban6, ban6Net64, net6} {
		add("banned", id, sourceIn(defs[id]), drop(id))
	}
	if !c.Meter.Enabled {
		return rules
	}
	for _, id := range []setID{trust4, trust6} {
		add("trusted", numSets, sourceIn(defs[id]), accept)
	}
	// In scope All the meter still is for signalling only: a call's audio is 50 packets a second and more.
	if c.Scope == All {
		signalling()
	}
	for _, id := range []setID{meter4, meter6} {
		add("too many packets", id, loadSource(defs[id]), []expr.Any{&expr.Dynset{
			SrcRegKey: 1,
			SetName:   defs[id].name,
			Operation: unix.NFT_DYNSET_OP_UPDATE,
			Exprs: []expr.Any{&expr.Limit{
				Type: expr.LimitTypePkts, Rate: uint64(c.Meter.Rate), Unit: expr.LimitTimeSecond,
				Burst: c.Meter.Burst, Over: true,
			}},
		}}, drop(id))
	}
	return rules
}

func (r *rule) userData() []byte {
	return userdata.AppendString(nil, userdata.TypeComment, r.comment)
}

func compareRegister(op expr.CmpOp, data ...byte) expr.Any {
	return &expr.Cmp{Op: op, Register: 1, Data: data}
}

func fromLoopback() []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, "lo")
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, compareRegister(expr.CmpOpEq, name...)}
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

// portNotIn matches a destination port outside the set; in UDP and in TCP it is the second half-word (RFC 768, RFC
// 9293 section 3.1).
func portNotIn(ports *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: 1, SetName: ports.Name, SetID: ports.ID, Invert: true},
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

// loadSource loads the packet's source into register 1, masked to the set's key.
func loadSource(d setDef) []expr.Any {
	e := isFamily(d.v6)
	load := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: ip4Source, Len: 4}
	whole := 32
	if d.v6 {
		load.Offset, load.Len, whole = ip6Source, 16, 128
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

func sourceIn(d setDef) []expr.Any {
	return append(loadSource(d), &expr.Lookup{SourceRegister: 1, SetName: d.name})
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
