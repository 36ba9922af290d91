package doctor

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// passage is the check of what other firewalls do to those who are allowed.
const checkAllowed = "allowed"

// maxPassages bounds the addresses that are followed through the rules of others.
const maxPassages = 64

// allowedPass follows a first packet to Asterisk, from each address that Ringwall lets in, through the chains of other
// firewalls: an allow list is of no use to somebody whom fail2ban or a rule by hand keeps out. It speaks up where a
// packet is dropped for certain; of a rule that it does not understand it believes that it lets the packet through.
func (e *exam) allowedPass(ctx context.Context, s subject, k *netlinkConn) {
	chains, err := k.lib.ListChains()
	if err != nil {
		return // said by rivals
	}
	ports := e.sipPorts()
	checked := 0
	for _, p := range e.allowed(ctx) {
		if checked == maxPassages {
			break
		}
		checked++
		for _, c := range chains {
			if !e.seesIncoming(c) {
				continue
			}
			dropped := func(at sipPort) bool {
				return packet{lib: k.lib, source: p.Addr().Unmap(), sipPort: at}.meets(c) == dropsPacket
			}
			if !slices.ContainsFunc(ports, func(at sipPort) bool { return !dropped(at) }) {
				s.fail(checkAllowed, "nft list chain "+familyName(c.Table.Family)+" "+c.Table.Name+" "+c.Name+
					"; take the rule out there, or fail2ban-client unban "+p.Addr().String(),
					"%s is on the allow list, and another firewall drops what it sends to Asterisk: chain %s %s %s",
					p, familyName(c.Table.Family), c.Table.Name, c.Name)
				break
			}
		}
	}
}

// allowed are the entries of the allow list: the daemon's, with those that commands made, or the file's.
func (e *exam) allowed(ctx context.Context) (list []netip.Prefix) {
	if e.daemon != nil && e.client != nil {
		if all, err := e.client.Allowed(ctx); err == nil {
			for _, x := range all {
				if x.Prefix.IsValid() {
					list = append(list, x.Prefix)
				}
			}
			return list
		}
	}
	for _, entry := range e.cfg.Policy.Allow {
		if entry.Prefix.IsValid() {
			list = append(list, entry.Prefix)
		}
	}
	return list
}

// sipPort is a port at which Asterisk receives.
type sipPort struct {
	protocol byte
	number   uint16
}

// sipPorts are those at which Asterisk was found to receive, and where that is not known those that a ban closes.
func (e *exam) sipPorts() (list []sipPort) {
	add := func(protocol byte, numbers ...uint16) {
		for _, n := range numbers {
			list = append(list, sipPort{protocol, n})
		}
	}
	if e.daemon != nil {
		for _, f := range e.daemon.Ports.Found {
			if f.Protocol == "udp" {
				add(unix.IPPROTO_UDP, f.Port)
			} else {
				add(unix.IPPROTO_TCP, f.Port)
			}
		}
	}
	if len(list) == 0 {
		add(unix.IPPROTO_UDP, e.cfg.Firewall.Ports.UDP...)
		add(unix.IPPROTO_TCP, e.cfg.Firewall.Ports.TCP...)
	}
	return list
}

// seesIncoming reports whether a chain of somebody else's sees packets to this machine.
func (e *exam) seesIncoming(c *nftables.Chain) bool {
	if c.Hooknum == nil || c.Table == nil || c.Table.Family == nftables.TableFamilyINet &&
		(c.Table.Name == e.cfg.Firewall.Table || c.Table.Name == e.scratchTableName()) {
		return false
	}
	switch c.Table.Family {
	case nftables.TableFamilyINet, nftables.TableFamilyIPv4, nftables.TableFamilyIPv6:
		return *c.Hooknum == *nftables.ChainHookPrerouting || *c.Hooknum == *nftables.ChainHookInput
	}
	return false
}

// packet is the first one from a source to Asterisk, from outside. What is not known of it no rule is believed about.
type packet struct {
	lib    *nftables.Conn
	source netip.Addr
	sipPort
}

// fate is what becomes of a packet in a chain.
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

// meets returns what becomes of the packet in a chain at a hook.
func (p packet) meets(c *nftables.Chain) fate {
	if f := c.Table.Family; p.source.Is4() && f == nftables.TableFamilyIPv6 ||
		p.source.Is6() && f == nftables.TableFamilyIPv4 {
		return passesPerhaps
	}
	seen := 0
	f := p.follow(c.Table, c.Name, &seen)
	if (f == goesOn || f == leavesChain) && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
		return dropsPacket
	}
	return f
}

func (p packet) follow(table *nftables.Table, chain string, seen *int) fate {
	if *seen++; *seen > 100 {
		return passesPerhaps
	}
	rules, err := p.lib.GetRules(table, &nftables.Chain{Name: chain, Table: table})
	if err != nil {
		return passesPerhaps
	}
	for _, r := range rules {
		switch f := p.rule(table, r, seen); f {
		case goesOn:
		case leavesChain:
			return goesOn
		default:
			return f
		}
	}
	return goesOn
}

// rule returns what a rule does with the packet. Where it may match and may not, a drop is not certain, and anything
// else may let it through.
func (p packet) rule(table *nftables.Table, r *nftables.Rule, seen *int) fate {
	registers := make(map[uint32][]byte) // of those whose content is known
	matches := yes
	for _, x := range r.Exprs {
		verdict := passesPerhaps
		switch x := x.(type) {
		case *expr.Counter, *expr.Log:
			continue
		case *expr.Meta:
			p.load(registers, x.Register, p.meta(x))
			continue
		case *expr.Payload:
			p.load(registers, x.DestRegister, p.payload(x))
			continue
		case *expr.Ct:
			p.load(registers, x.Register, nil)
			if x.Key == expr.CtKeySTATE {
				p.load(registers, x.Register, binary.NativeEndian.AppendUint32(nil, expr.CtStateBitNEW))
			}
			continue
		case *expr.Bitwise:
			p.load(registers, x.DestRegister, masked(registers[x.SourceRegister], x))
			continue
		case *expr.Cmp:
			matches = both(matches, compare(registers[x.Register], x.Op, x.Data))
		case *expr.Range:
			matches = both(matches, inRange(registers[x.Register], x))
		case *expr.Lookup:
			if x.IsDestRegSet { // a map of verdicts, or of values
				return passesPerhaps
			}
			matches = both(matches, p.lookup(table, registers[x.SourceRegister], x))
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
				if verdict = p.follow(table, x.Chain, seen); verdict == goesOn && x.Kind == expr.VerdictGoto {
					verdict = leavesChain
				}
			}
		case *expr.Limit, *expr.Match, *expr.Fib, *expr.Socket, *expr.Connlimit, *expr.Exthdr, *expr.Quota, *expr.Rt,
			*expr.Dynset, *expr.Byteorder:
			matches = both(matches, perhaps)
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

func (p packet) load(registers map[uint32][]byte, register uint32, value []byte) {
	if delete(registers, register); value != nil {
		registers[register] = value
	}
}

func (p packet) meta(x *expr.Meta) []byte {
	switch {
	case x.SourceRegister:
	case x.Key == expr.MetaKeyNFPROTO && p.source.Is4():
		return []byte{unix.NFPROTO_IPV4}
	case x.Key == expr.MetaKeyNFPROTO:
		return []byte{unix.NFPROTO_IPV6}
	case x.Key == expr.MetaKeyL4PROTO:
		return []byte{p.protocol}
	case x.Key == expr.MetaKeyIIFTYPE:
		return binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_ETHER)
	case x.Key == expr.MetaKeyIIF, x.Key == expr.MetaKeyIIFNAME:
		return outside
	}
	return nil
}

// outside is an interface that is not lo, whatever else it is.
var outside = []byte("outside")

// payload returns bytes of the packet that are known (RFC 791, 8200, 768, 9293), or nil.
func (p packet) payload(x *expr.Payload) []byte {
	if x.OperationType == expr.PayloadWrite {
		return nil
	}
	address := p.source.AsSlice()
	at, protocolAt := 12, 9
	if p.source.Is6() {
		at, protocolAt = 8, 6
	}
	offset, length := int(x.Offset), int(x.Len)
	switch {
	case x.Base == expr.PayloadBaseNetworkHeader && offset >= at && offset+length <= at+len(address):
		return address[offset-at : offset-at+length]
	case x.Base == expr.PayloadBaseNetworkHeader && offset == protocolAt && length == 1:
		return []byte{p.protocol}
	case x.Base == expr.PayloadBaseTransportHeader && offset == 2 && length == 2:
		return binary.BigEndian.AppendUint16(nil, p.number)
	}
	return nil
}

func isOutside(value []byte) bool { return len(value) > 0 && &value[0] == &outside[0] }

func masked(value []byte, x *expr.Bitwise) []byte {
	if value == nil || isOutside(value) || len(value) != len(x.Mask) || len(value) != len(x.Xor) {
		return nil
	}
	out := make([]byte, len(value))
	for i := range out {
		out[i] = value[i]&x.Mask[i] ^ x.Xor[i]
	}
	return out
}

func both(a, b answer) answer {
	switch {
	case a == no || b == no:
		return no
	case a == yes && b == yes:
		return yes
	}
	return perhaps
}

func certainly(ok bool) answer {
	if ok {
		return yes
	}
	return no
}

func compare(value []byte, op expr.CmpOp, data []byte) answer {
	if isOutside(value) {
		loopback := bytes.Equal(bytes.TrimRight(data, "\x00"), []byte("lo")) ||
			bytes.Equal(data, binary.NativeEndian.AppendUint32(nil, 1))
		switch {
		case !loopback:
			return perhaps
		case op == expr.CmpOpEq:
			return no
		case op == expr.CmpOpNeq:
			return yes
		}
		return perhaps
	}
	if value == nil || len(value) != len(data) {
		return perhaps
	}
	order := bytes.Compare(value, data)
	switch op {
	case expr.CmpOpEq:
		return certainly(order == 0)
	case expr.CmpOpNeq:
		return certainly(order != 0)
	case expr.CmpOpLt:
		return certainly(order < 0)
	case expr.CmpOpLte:
		return certainly(order <= 0)
	case expr.CmpOpGt:
		return certainly(order > 0)
	case expr.CmpOpGte:
		return certainly(order >= 0)
	}
	return perhaps
}

func inRange(value []byte, x *expr.Range) answer {
	if value == nil || isOutside(value) || len(value) != len(x.FromData) || len(value) != len(x.ToData) {
		return perhaps
	}
	inside := bytes.Compare(value, x.FromData) >= 0 && bytes.Compare(value, x.ToData) <= 0
	return certainly(inside == (x.Op == expr.CmpOpEq))
}

func (p packet) lookup(table *nftables.Table, value []byte, x *expr.Lookup) answer {
	if value == nil || isOutside(value) {
		return perhaps
	}
	set, err := p.lib.GetSetByName(table, x.SetName)
	if err != nil || set.IsMap || set.Concatenation {
		return perhaps
	}
	elements, err := p.lib.GetSetElements(set)
	if err != nil {
		return perhaps
	}
	inside := false
	if set.Interval { // bounds in any order: of the greatest that is not above, whether it begins something
		var last *nftables.SetElement
		for i := range elements {
			el := &elements[i]
			if len(el.Key) == len(value) && bytes.Compare(el.Key, value) <= 0 &&
				(last == nil || bytes.Compare(el.Key, last.Key) > 0 || bytes.Equal(el.Key, last.Key) && !el.IntervalEnd) {
				last = el
			}
		}
		inside = last != nil && !last.IntervalEnd
	} else {
		inside = slices.ContainsFunc(elements, func(el nftables.SetElement) bool { return bytes.Equal(el.Key, value) })
	}
	return certainly(inside != x.Invert)
}
