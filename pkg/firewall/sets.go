package firewall

import (
	"net/netip"
	"time"

	"github.com/google/nftables"

	"github.com/ringwall/ringwall/pkg/firewall/internal/nfnl"
)

// shape is how a set finds an address.
type shape uint8

const (
	hashed   shape = iota // exact key after a mask: constant time
	interval              // ranges: the kernel walks all of them for each insert
	dynamic               // filled by the packet path
)

// keyed is what a set's key is made of: a source address, and what else.
type keyed uint8

const (
	byAddress   keyed = iota
	byTransport       // the address and the transport
	byPort            // the address and the source port
	byFlow            // the address, the transport and the source port
)

// setID is the index of a set in the lists of all sets.
type setID uint8

const (
	allow4 setID = iota
	allow6
	block4
	block6
	cut4
	cut6
	slowFlow4
	slowFlow6
	good4
	good6
	ban4
	ban4Net24
	net4
	ban6
	ban6Net64
	net6
	manager4
	manager6
	sip4
	sip6
	knock4
	knockNet4
	knock6
	knockNet6
	door4
	door6
	doorway4
	doorway6
	doorwayNet4
	doorwayNet6
	listDoor4
	listDoor6
	slow4
	slow6
	trust4
	trust6
	meter4
	meter6
	volume4
	volume6
	numSets
)

// Sizes that do not follow MaxElements.
const (
	maxNet24    = 1 << 16
	maxMeter    = 1 << 17
	maxTrust    = 1 << 17
	maxGood     = 1 << 18
	maxCut      = 1 << 16
	maxSlow     = 1 << 16
	maxManual   = 1 << 12 // ranges: the kernel walks through them for each that is added
	meterMemory = 10 * time.Second
	// doorMemory is about as long as an empty bucket takes to be full.
	doorMemory = time.Minute
)

// setDef is what a set is; its name is what an administrator sees.
type setDef struct {
	name   string
	kind   Kind // numKinds: nobody's
	v6     bool
	shape  shape
	bits   int // prefix length of a hashed key
	key    keyed
	closes Closes
	manual bool // holds once more what another set has, since a person banned it
}

// allSets lists every set of the table in setID's order.
func allSets(v6bits int) [numSets]setDef {
	return [numSets]setDef{
		allow4:      {name: "allow4", kind: Allow, shape: interval},
		allow6:      {name: "allow6", kind: Allow, v6: true, shape: interval},
		block4:      {name: "block4", kind: Ban, shape: interval, manual: true},
		block6:      {name: "block6", kind: Ban, v6: true, shape: interval, manual: true},
		cut4:        {name: "cut4", kind: Cut, bits: 32, key: byFlow},
		cut6:        {name: "cut6", kind: Cut, v6: true, bits: 128, key: byFlow},
		slowFlow4:   {name: "slowflow4", kind: Slow, bits: 32, key: byFlow},
		slowFlow6:   {name: "slowflow6", kind: Slow, v6: true, bits: 128, key: byFlow},
		good4:       {name: "good4", kind: Good, bits: 32, key: byFlow},
		good6:       {name: "good6", kind: Good, v6: true, bits: 128, key: byFlow},
		ban4:        {name: "ban4", kind: Ban, bits: 32},
		ban4Net24:   {name: "ban4_24", kind: Ban, bits: 24},
		net4:        {name: "net4", kind: Ban, shape: interval},
		ban6:        {name: "ban6", kind: Ban, v6: true, bits: 128},
		ban6Net64:   {name: "ban6_64", kind: Ban, v6: true, bits: 64},
		net6:        {name: "net6", kind: Ban, v6: true, shape: interval},
		manager4:    {name: "manager4", kind: Ban, bits: 32, closes: CloseManager},
		manager6:    {name: "manager6", kind: Ban, v6: true, bits: v6bits, closes: CloseManager},
		sip4:        {name: "sip4", kind: Ban, bits: 32, key: byTransport},
		sip6:        {name: "sip6", kind: Ban, v6: true, bits: v6bits, key: byTransport},
		knock4:      {name: "knock4", kind: Ban, bits: 32, closes: CloseUDPKnock},
		knockNet4:   {name: "knocknet4", kind: Ban, shape: interval, closes: CloseUDPKnock},
		knock6:      {name: "knock6", kind: Ban, v6: true, bits: v6bits, closes: CloseUDPKnock},
		knockNet6:   {name: "knocknet6", kind: Ban, v6: true, shape: interval, closes: CloseUDPKnock},
		door4:       {name: "door4", kind: numKinds, shape: dynamic, bits: 32, key: byPort},
		door6:       {name: "door6", kind: numKinds, v6: true, shape: dynamic, bits: 128, key: byPort},
		doorway4:    {name: "doorway4", kind: numKinds, shape: dynamic, bits: 32},
		doorway6:    {name: "doorway6", kind: numKinds, v6: true, shape: dynamic, bits: v6bits},
		doorwayNet4: {name: "doorwaynet4", kind: numKinds, shape: dynamic, bits: 24},
		doorwayNet6: {name: "doorwaynet6", kind: numKinds, v6: true, shape: dynamic, bits: 48},
		listDoor4:   {name: "listdoor4", kind: numKinds, shape: dynamic, bits: 32, key: byPort},
		listDoor6:   {name: "listdoor6", kind: numKinds, v6: true, shape: dynamic, bits: 128, key: byPort},
		slow4:       {name: "slow4", kind: Slow, bits: 32},
		slow6:       {name: "slow6", kind: Slow, v6: true, bits: v6bits},
		trust4:      {name: "trust4", kind: Trust, bits: 32},
		trust6:      {name: "trust6", kind: Trust, v6: true, bits: v6bits},
		meter4:      {name: "meter4", kind: numKinds, shape: dynamic, bits: 32},
		meter6:      {name: "meter6", kind: numKinds, v6: true, shape: dynamic, bits: v6bits},
		volume4:     {name: "volume4", kind: numKinds, shape: dynamic, bits: 32},
		volume6:     {name: "volume6", kind: numKinds, v6: true, shape: dynamic, bits: v6bits},
	}
}

// setSize returns the set's bound in the kernel, 0 for none.
func (c *Config) setSize(id setID) uint32 {
	switch id {
	case ban4, ban6, ban6Net64, manager4, manager6, sip4, sip6, knock4, knock6:
		return c.MaxElements
	case ban4Net24:
		return min(c.MaxElements, maxNet24)
	case trust4, trust6:
		return min(c.MaxElements, maxTrust)
	case good4, good6:
		return min(c.MaxElements, maxGood)
	case cut4, cut6:
		return min(c.MaxElements, maxCut)
	case slowFlow4, slowFlow6, slow4, slow6:
		return min(c.MaxElements, maxSlow)
	case meter4, meter6, volume4, volume6, door4, door6, doorway4, doorway6, doorwayNet4, doorwayNet6,
		listDoor4, listDoor6:
		return min(c.MaxElements, maxMeter)
	}
	return 0
}

// hasSet reports whether the table has the set at all.
func (c *Config) hasSet(id setID) bool {
	switch {
	case id == trust4 || id == trust6:
		return c.Meter.Enabled || len(c.Lists) > 0
	case id >= meter4:
		return c.Meter.Enabled
	case id == listDoor4 || id == listDoor6:
		return len(c.Lists) > 0 && c.Knock.Port > 0
	case id == slow4 || id == slow6 || id == slowFlow4 || id == slowFlow6:
		return !c.noPaces
	}
	return true
}

// kernelSet is the set in google/nftables' words.
func (c *Config) kernelSet(t *nftables.Table, id setID, d setDef) *nftables.Set {
	s := &nftables.Set{
		Table:   t,
		Name:    d.name,
		KeyType: d.keyType(),
		Size:    c.setSize(id),
	}
	s.HasTimeout = true
	s.Dynamic = d.kind == Slow // else nft would not read its elements' limits in what it has listed itself
	switch d.shape {
	case interval:
		s.Interval = true
	case dynamic:
		s.Dynamic = true
		s.Timeout = meterMemory
		if id < meter4 {
			s.Timeout = doorMemory
		}
	}
	return s
}

func (d setDef) keyType() nftables.SetDatatype {
	address := nftables.TypeIPAddr
	if d.v6 {
		address = nftables.TypeIP6Addr
	}
	switch d.key {
	case byTransport:
		return nftables.MustConcatSetType(address, nftables.TypeInetProto)
	case byPort:
		return nftables.MustConcatSetType(address, nftables.TypeInetService)
	case byFlow:
		return nftables.MustConcatSetType(address, nftables.TypeInetProto, nftables.TypeInetService)
	}
	return address
}

// sameSet reports whether the kernel's set is the one that we would make. Size is left out for sets without one.
func sameSet(want, have *nftables.Set) bool {
	return want.KeyType.Name == have.KeyType.Name && want.KeyType.Bytes == have.KeyType.Bytes &&
		want.Interval == have.Interval && want.HasTimeout == have.HasTimeout && want.Dynamic == have.Dynamic &&
		want.Timeout == have.Timeout && want.Size == have.Size && !have.Constant && !have.IsMap && !have.Concatenation
}

// setAndKey is where the kernel keeps what a normalized target says: a set, and the element's key in it; of an interval
// set the prefix. ok is false where there is no set for it. A trusted or slow network longer than the set's key is
// widened to it: one IPv6 site is one source. A ban is not widened, it would hit others.
func (t target) setAndKey(v6bits int) (id setID, p netip.Prefix, key nfnl.Key, ok bool) {
	if t.flow != (Flow{}) {
		a := t.flow.Source.Addr()
		key = nfnl.Key{Addr: a, Protocol: uint8(t.flow.Transport), Port: t.flow.Source.Port()}
		switch t.kind {
		case Cut:
			id = cut4
		case Good:
			id = good4
		default:
			id = slowFlow4
		}
		if a.Is6() {
			id++ // cut6, good6, slowFlow6
		}
		return id, netip.PrefixFrom(a, a.BitLen()), key, true
	}
	switch {
	case t.kind == Ban && t.closes != CloseAll:
		id, p, ok = t.narrowBan(v6bits)
	default:
		id, p, ok = setFor(t.kind, t.prefix, v6bits)
	}
	key.Addr = p.Addr()
	switch {
	case t.closes == CloseUDP:
		key.Protocol = uint8(UDP)
	case t.closes == CloseSIPOverTCP:
		key.Protocol = uint8(TCP)
	}
	return id, p, key, ok
}

// narrowBan is the set of a ban that does not close all ports.
func (t target) narrowBan(v6bits int) (setID, netip.Prefix, bool) {
	v6, source := t.prefix.Addr().Is6(), 32
	if v6 {
		source = v6bits
	}
	var id setID // of IPv4; that of IPv6 follows
	switch t.closes {
	case CloseManager:
		id = manager4
	case CloseUDPKnock:
		switch {
		case v6 && t.prefix.Bits() == source:
			return knock6, t.prefix, true
		case v6:
			return knockNet6, t.prefix, true
		case t.prefix.Bits() == source:
			return knock4, t.prefix, true
		}
		return knockNet4, t.prefix, true
	default:
		id = sip4
	}
	if v6 {
		id++
	}
	return id, t.prefix, t.prefix.Bits() == source
}

// targetOf is what an element of a set is of.
func (d setDef) targetOf(key nfnl.Key) target {
	t := target{kind: d.kind, closes: d.closes}
	switch {
	case d.key == byFlow:
		t.flow = Flow{Transport(key.Protocol), netip.AddrPortFrom(key.Addr, key.Port)}
		return t
	case d.key == byTransport && Transport(key.Protocol) == UDP:
		t.closes = CloseUDP
	case d.key == byTransport:
		t.closes = CloseSIPOverTCP
	}
	bits := d.bits
	if d.shape == interval {
		bits = key.Addr.BitLen()
	}
	t.prefix = netip.PrefixFrom(key.Addr, bits)
	return t
}

// setFor returns the set that holds a normalized prefix, and whether there is one.
func setFor(k Kind, p netip.Prefix, v6bits int) (setID, netip.Prefix, bool) {
	v6, bits := p.Addr().Is6(), p.Bits()
	switch k {
	case Allow:
		if v6 {
			return allow6, p, true
		}
		return allow4, p, true
	case Trust, Slow:
		id := trust4
		if k == Slow {
			id = slow4
		}
		switch {
		case !v6:
			return id, p, bits == 32
		case bits < v6bits:
			return id + 1, p, false
		}
		return id + 1, netip.PrefixFrom(p.Addr(), v6bits).Masked(), true
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
