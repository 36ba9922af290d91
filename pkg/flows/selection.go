package flows

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// selection is what one look through the table is for.
type selection struct {
	cfg          *Config
	prefixes     []netip.Prefix
	index        map[netip.Prefix]struct{} // of them, from the first flow on that it is asked about
	bits4, bits6 []int                     // the lengths that occur
	udp, tcp     map[uint16]bool
}

func newSelection(cfg *Config, prefixes []netip.Prefix) *selection {
	s := &selection{cfg: cfg, prefixes: prefixes, udp: ports(cfg.UDPPorts), tcp: ports(cfg.TCPPorts)}
	var has4 [33]bool
	var has6 [129]bool
	for _, p := range prefixes {
		if p.Addr().Is4() {
			has4[p.Bits()] = true
		} else {
			has6[p.Bits()] = true
		}
	}
	for n, ok := range has4 {
		if ok {
			s.bits4 = append(s.bits4, n)
		}
	}
	for n, ok := range has6 {
		if ok {
			s.bits6 = append(s.bits6, n)
		}
	}
	return s
}

func ports(list []uint16) map[uint16]bool {
	m := make(map[uint16]bool, len(list))
	for _, p := range list {
		m[p] = true
	}
	return m
}

// takes says whether a flow is to end: whether the firewall would drop what
// the banned source sends in it. That is the original direction where the
// source began the flow, and the reply where the machine itself did. Either
// tuple holds addresses and ports as they are on the wire where the packets
// come in, before NAT (Linux, net/netfilter/nf_nat_core.c), which is what a
// chain at prerouting priority -300 sees too.
func (s *selection) takes(f *flow) bool {
	return s.takesTuple(f.orig) || s.takesTuple(f.reply)
}

func (s *selection) takesTuple(t tuple) bool {
	switch {
	case s.cfg.All:
	case t.proto == unix.IPPROTO_UDP && s.udp[t.dport]:
	case t.proto == unix.IPPROTO_TCP && s.tcp[t.dport]:
	default:
		return false
	}
	if !s.within(t.src) || t.src.IsLoopback() {
		return false
	}
	return s.cfg.Spare == nil || !s.cfg.Spare(t.src)
}

func (s *selection) within(a netip.Addr) bool {
	if s.index == nil {
		s.index = make(map[netip.Prefix]struct{}, len(s.prefixes))
		for _, p := range s.prefixes {
			s.index[p] = struct{}{}
		}
	}
	lengths := s.bits4
	if a.Is6() {
		lengths = s.bits6
	}
	for _, n := range lengths {
		if p, err := a.Prefix(n); err == nil {
			if _, ok := s.index[p]; ok {
				return true
			}
		}
	}
	return false
}
