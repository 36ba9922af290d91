package firewall

import (
	"net/netip"
	"time"

	"github.com/google/nftables"
)

// shape is how a set finds an address.
type shape uint8

const (
	hashed   shape = iota // exact key after a mask: constant time
	interval              // ranges: the kernel walks all of them for each insert
	dynamic               // filled by the packet path
)

// setID is the index of a set in the lists of all sets.
type setID uint8

const (
	allow4 setID = iota
	allow6
	ban4
	ban4Net24
	net4
	ban6
	ban6Net64
	net6
	trust4
	trust6
	meter4
	meter6
	numSets
)

// Sizes that do not follow MaxElements.
const (
	maxNet24    = 1 << 16
	maxMeter    = 1 << 17
	maxTrust    = 1 << 17
	meterMemory = 10 * time.Second
)

// setDef is what a set is; its name is what an administrator sees.
type setDef struct {
	name  string
	kind  Kind
	v6    bool
	shape shape
	bits  int // prefix length of a hashed key
}

// allSets lists every set of the table in setID's order.
func allSets(v6bits int) [numSets]setDef {
	return [numSets]setDef{
		allow4:    {"allow4", Allow, false, interval, 0},
		allow6:    {"allow6", Allow, true, interval, 0},
		ban4:      {"ban4", Ban, false, hashed, 32},
		ban4Net24: {"ban4_24", Ban, false, hashed, 24},
		net4:      {"net4", Ban, false, interval, 0},
		ban6:      {"ban6", Ban, true, hashed, 128},
		ban6Net64: {"ban6_64", Ban, true, hashed, 64},
		net6:      {"net6", Ban, true, interval, 0},
		trust4:    {"trust4", Trust, false, hashed, 32},
		trust6:    {"trust6", Trust, true, hashed, v6bits},
		meter4:    {"meter4", numKinds, false, dynamic, 32},
		meter6:    {"meter6", numKinds, true, dynamic, v6bits},
	}
}

// setSize returns the set's bound in the kernel, 0 for none.
func (c *Config) setSize(id setID) uint32 {
	switch id {
	case ban4, ban6, ban6Net64:
		return c.MaxElements
	case ban4Net24:
		return min(c.MaxElements, maxNet24)
	case trust4, trust6:
		return min(c.MaxElements, maxTrust)
	case meter4, meter6:
		return min(c.MaxElements, maxMeter)
	}
	return 0
}

// hasSet reports whether the table has the set at all.
func (c *Config) hasSet(id setID) bool { return id < trust4 || c.Meter.Enabled }

// kernelSet is the set in google/nftables' words.
func (c *Config) kernelSet(t *nftables.Table, id setID, d setDef) *nftables.Set {
	s := &nftables.Set{
		Table:   t,
		Name:    d.name,
		KeyType: nftables.TypeIPAddr,
		Size:    c.setSize(id),
	}
	if d.v6 {
		s.KeyType = nftables.TypeIP6Addr
	}
	s.HasTimeout = true
	switch d.shape {
	case interval:
		s.Interval = true
	case dynamic:
		s.Dynamic = true
		s.Timeout = meterMemory
	}
	return s
}

// sameSet reports whether the kernel's set is the one that we would make. Size is left out for sets without one.
func sameSet(want, have *nftables.Set) bool {
	return want.KeyType.Name == have.KeyType.Name && want.KeyType.Bytes == have.KeyType.Bytes &&
		want.Interval == have.Interval && want.HasTimeout == have.HasTimeout && want.Dynamic == have.Dynamic &&
		want.Timeout == have.Timeout && want.Size == have.Size && !have.Constant && !have.IsMap && !have.Concatenation
}

// setFor returns the set that holds a normalized prefix, and whether there is one. A trusted network longer than
// the set's key is widened to it: one IPv6 site is one source.
func setFor(k Kind, p netip.Prefix, v6bits int) (setID, netip.Prefix, bool) {
	v6, bits := p.Addr().Is6(), p.Bits()
	switch k {
	case Allow:
		if v6 {
			return allow6, p, true
		}
		return allow4, p, true
	case Trust:
		switch {
		case !v6:
			return trust4, p, bits == 32
		case bits < v6bits:
			return trust6, p, false
		}
		return trust6, netip.PrefixFrom(p.Addr(), v6bits).Masked(), true
	}
	switch {
	case v6 && bits == 128:
		return ban6, p, true
	case v6 && bits == 64:
		return ban6Net64, p, true
	case v6:
		return net6, p, true
	case bits == 32:
		return ban4, p, true
	case bits == 24:
		return ban4Net24, p, true
	}
	return net4, p, true
}
