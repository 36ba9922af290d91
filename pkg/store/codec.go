package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
)

// A record is its fields one after the other: flags a byte, numbers as varints, times in nanoseconds since 1970, floats
// in 8 bytes, strings and addresses with their length before. The last 4 bytes are the CRC-32C of the kind, the key and
// all before: bbolt has no checksum, and a flipped bit in the end of a ban would keep somebody out for ever.

var errRecord = errors.New("damaged record")

const (
	checksumSize = 4

	// How many bytes a record usually takes at most: a ban without evidence and each piece of it, and another record.
	usualBan      = 96
	usualSize     = 64
	usualDecision = 160
)

func checksum(k kind, key string, fields []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, []byte{byte(k)})
	sum = crc32.Update(sum, table, []byte(key))
	return crc32.Update(sum, table, fields)
}

// encodeRecord returns the value of a record, which takes about size bytes.
func encodeRecord(k kind, key string, size int, fields func(*codec)) []byte {
	c := codec{b: make([]byte, 0, size)}
	fields(&c)
	return binary.LittleEndian.AppendUint32(c.b, checksum(k, key, c.b))
}

// decodeRecord checks the value of a record and reads its fields.
func decodeRecord(k kind, key string, value []byte, fields func(*codec)) error {
	n := len(value) - checksumSize
	if n < 0 {
		return fmt.Errorf("%w: %d bytes", errRecord, len(value))
	}
	if binary.LittleEndian.Uint32(value[n:]) != checksum(k, key, value[:n]) {
		return fmt.Errorf("%w: wrong checksum", errRecord)
	}
	c := codec{b: value[:n], reading: true}
	if fields(&c); c.bad || len(c.b) > 0 {
		return fmt.Errorf("%w: fields do not fit", errRecord)
	}
	return nil
}

// codec writes the fields of a record, or reads them, so that what a kind of record consists of is said only once. A
// method for a field takes a pointer to it, and changes it only when it reads. After the first field that does not fit,
// bad is set and all that is read is zero.
type codec struct {
	b       []byte // written so far, or still to be read
	reading bool
	bad     bool
}

// banFlags are what a ban begins with. Of before there are the first two.
func (c *codec) banFlags(b *ban.Ban) (ofFleet bool) {
	udp, manager, sip := flagsOf(b.Closes)
	ofFleet = b.Origin != ""
	c.flags(&b.Proven, &b.Manual, &udp, &manager, &b.DoorShut, &sip, &ofFleet)
	if c.reading {
		b.Closes = closesOf(udp, manager, sip)
	}
	return ofFleet
}

// flagsOf is what a ban closes, in flags; none is everything.
func flagsOf(c ban.Closes) (udp, manager, sip bool) {
	return c == ban.ClosesUDP, c == ban.ClosesManager, c == ban.ClosesSIP
}

// closesOf is the inverse of flagsOf.
func closesOf(udp, manager, sip bool) ban.Closes {
	switch {
	case udp:
		return ban.ClosesUDP
	case manager:
		return ban.ClosesManager
	case sip:
		return ban.ClosesSIP
	}
	return ban.ClosesAll
}

func (c *codec) ban(b *ban.Ban) {
	ofFleet := c.banFlags(b)
	c.addr(&b.Source)
	c.time(&b.Since)
	c.time(&b.Until)
	textField(c, &b.Reason, maxName)
	c.float(&b.Score)
	c.int(&b.Number)
	textField(c, &b.Comment, maxText)
	textField(c, &b.PBX, maxName)
	if ofFleet {
		textField(c, &b.Origin, maxName)
	}
	c.int(&b.Attempts)
	latest := b.Evidence[max(0, len(b.Evidence)-MaxEvidence):]
	if n := c.length(len(latest), MaxEvidence); c.reading && n > 0 {
		b.Evidence = make([]ban.Evidence, n)
		latest = b.Evidence
	}
	for i := range latest {
		c.evidence(&latest[i])
	}
}

func (c *codec) evidence(e *ban.Evidence) {
	multiplied, bySensor := e.Multiplier != 0, e.SeenBy != ""
	c.flags(&e.Proven, &multiplied, &bySensor) // of before there are the first two
	c.time(&e.Time)
	textField(c, &e.Event, maxName)
	textField(c, &e.Service, maxName)
	textField(c, &e.Transport, maxName)
	if bySensor {
		textField(c, &e.SeenBy, maxName)
	}
	textField(c, &e.Account, maxName)
	textField(c, &e.Reason, maxName)
	c.float(&e.Points)
	c.float(&e.Score)
	textField(c, &e.PBX, maxName)
	textField(c, &e.Note, maxText)
	if multiplied {
		c.float(&e.Multiplier)
		textField(c, &e.Country, maxName)
		asn := int(e.ASN)
		if c.int(&asn); c.reading {
			e.ASN = uint32(asn)
		}
	}
}

func (c *codec) offender(o *ban.Offender) {
	c.int(&o.Bans)
	c.time(&o.Last)
}

func (c *codec) trust(t *ban.Trust) {
	c.time(&t.Since)
	c.time(&t.Until)
	c.time(&t.Last)
	accounts := t.Accounts[:min(len(t.Accounts), MaxAccounts)]
	if n := c.length(len(accounts), MaxAccounts); c.reading && n > 0 {
		t.Accounts = make([]string, n)
		accounts = t.Accounts
	}
	for i := range accounts {
		textField(c, &accounts[i], maxName)
	}
	if c.reading && !c.bad && len(c.b) > 0 || !c.reading && t.Origin != "" { // which those of before have not
		textField(c, &t.Origin, maxName)
	}
}

// allow leaves out the end where there is none: so it was before entries had one.
func (c *codec) allow(a *Allow) {
	c.time(&a.Added)
	textField(c, &a.By, maxName)
	textField(c, &a.Note, maxText)
	if c.reading && !c.bad && len(c.b) > 0 || !c.reading && !a.Until.IsZero() {
		c.time(&a.Until)
	}
}

func (c *codec) grace(g *ban.Grace) {
	c.time(&g.Since)
	c.time(&g.Until)
}

// decision is one of history. Records of before have it as JSON where an empty text is now.
func (c *codec) decision(d *ban.Decision) {
	c.time(&d.Time)
	c.addr(&d.Source)
	c.prefix(&d.Prefix)
	var inJSON string
	if textField(c, &inJSON, maxDecision); inJSON != "" {
		c.bad = c.bad || json.Unmarshal([]byte(inJSON), d) != nil
		return
	}
	service, transport, duration := d.Service.String(), d.Transport.String(), int(d.Duration)
	ofFleet := d.Origin != ""
	cut, sensor, bySensor := d.Flow.IsValid(), d.SeenBy.String(), d.SeenBy != event.ByAMI
	udp, manager, sip := flagsOf(d.Closes)
	c.flags(&d.Proven, &udp, &manager, &cut, &bySensor, &sip, &ofFleet) // of before there is the first
	textField(c, &d.Action, maxName)
	textField(c, &d.Reason, maxName)
	c.float(&d.Points)
	c.float(&d.Score)
	textField(c, &d.Account, maxName)
	textField(c, &service, maxName)
	textField(c, &transport, maxName)
	if bySensor {
		if textField(c, &sensor, maxName); c.reading {
			d.SeenBy = event.SensorNamed(sensor)
		}
	}
	c.int(&duration)
	textField(c, &d.PBX, maxName)
	if ofFleet {
		textField(c, &d.Origin, maxName)
	}
	textField(c, &d.Detail, maxDetail)
	if c.reading && len(c.b) > 0 || !c.reading && d.Scope != "" { // which those of before have not
		textField(c, &d.Scope, maxName)
	}
	if cut {
		flow, _ := d.Flow.MarshalText()
		text := string(flow)
		if textField(c, &text, maxName); c.reading {
			c.bad = c.bad || d.Flow.UnmarshalText([]byte(text)) != nil
		}
	}
	if c.reading {
		d.Closes = closesOf(udp, manager, sip)
		d.Service, d.Transport, d.Duration = event.ServiceNamed(service), event.TransportNamed(transport),
			time.Duration(duration)
	}
}

// flags are up to eight of them, in one byte.
func (c *codec) flags(list ...*bool) {
	if !c.reading {
		var b byte
		for i, v := range list {
			if *v {
				b |= 1 << i
			}
		}
		c.b = append(c.b, b)
		return
	}
	if b := c.takeRaw(1); b != nil {
		for i, v := range list {
			*v = b[0]&(1<<i) != 0
		}
		c.bad = c.bad || b[0]>>len(list) != 0
	}
}

func (c *codec) int(n *int) {
	if c.reading {
		*n = int(c.varint())
	} else {
		c.b = binary.AppendVarint(c.b, int64(*n))
	}
}

// length writes a number of things that take at least a byte each, or reads it.
func (c *codec) length(n, limit int) int {
	c.int(&n)
	if c.reading && (n < 0 || n > limit || n > len(c.b)) {
		c.markBad()
		return 0
	}
	return n
}

func (c *codec) float(f *float64) {
	if !c.reading {
		c.b = binary.LittleEndian.AppendUint64(c.b, math.Float64bits(*f))
	} else if b := c.takeRaw(8); b != nil {
		*f = math.Float64frombits(binary.LittleEndian.Uint64(b))
	}
}

// textField cuts what is longer when it writes.
func textField[T ~string](c *codec, s *T, limit int) {
	if c.reading {
		*s = T(c.takeBytes(limit))
		return
	}
	short := cutBytes(*s, limit)
	c.b = append(binary.AppendUvarint(c.b, uint64(len(short))), short...)
}

// time keeps the zero time as the smallest number, and times that nanoseconds cannot tell as the nearest that they can.
func (c *codec) time(t *time.Time) {
	if c.reading {
		if ns := c.varint(); ns != math.MinInt64 && !c.bad {
			*t = time.Unix(0, ns).UTC()
		}
		return
	}
	ns := t.UnixNano()
	switch {
	case t.IsZero():
		ns = math.MinInt64
	case t.Before(time.Unix(0, math.MinInt64+1)):
		ns = math.MinInt64 + 1
	case t.After(time.Unix(0, math.MaxInt64)):
		ns = math.MaxInt64
	}
	c.b = binary.AppendVarint(c.b, ns)
}

func (c *codec) addr(a *netip.Addr) {
	if c.reading {
		if size := c.takeRaw(1); size != nil {
			if b := c.takeRaw(uint64(size[0])); b == nil || a.UnmarshalBinary(b) != nil {
				c.markBad()
			}
		}
		return
	}
	out := *a
	if len(out.Zone()) > maxName {
		out = out.WithZone("")
	}
	at := len(c.b)
	c.b, _ = out.AppendBinary(append(c.b, 0)) // never fails
	c.b[at] = byte(len(c.b) - at - 1)
}

func (c *codec) prefix(p *netip.Prefix) {
	if !c.reading {
		at := len(c.b)
		c.b = appendPrefix(append(c.b, 0), *p)
		c.b[at] = byte(len(c.b) - at - 1)
		return
	}
	b := c.takeBytes(maxPrefix)
	if len(b) == 0 {
		return
	}
	a, _ := netip.AddrFromSlice(b[:len(b)-1])
	if *p = netip.PrefixFrom(a, int(b[len(b)-1])); !p.IsValid() {
		c.markBad()
	}
}

func (c *codec) markBad() { c.bad, c.b = true, nil }

func (c *codec) takeRaw(n uint64) []byte {
	if c.bad || n > uint64(len(c.b)) {
		c.markBad()
		return nil
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

func (c *codec) varint() int64 {
	v, n := binary.Varint(c.b)
	if n <= 0 {
		c.markBad()
		return 0
	}
	c.b = c.b[n:]
	return v
}

// takeBytes takes what has its length before it.
func (c *codec) takeBytes(limit int) []byte {
	size, n := binary.Uvarint(c.b)
	if n <= 0 || size > uint64(limit) {
		c.markBad()
		return nil
	}
	c.b = c.b[n:]
	return c.takeRaw(size)
}

// banSince reads only when a ban began, in ns, and checks nothing: it is to put records into their order.
func banSince(value []byte) int64 {
	c := codec{b: value, reading: true}
	var b ban.Ban
	c.banFlags(&b)
	c.addr(&b.Source)
	return c.varint()
}

// decodeOf reads a record whose key is a prefix.
func decodeOf(k kind, key string, value []byte, prefix *netip.Prefix, fields func(*codec)) (err error) {
	if *prefix, err = prefixOf(key); err != nil {
		return err
	}
	return decodeRecord(k, key, value, fields)
}

func decodeBan(key string, value []byte) (b ban.Ban, err error) {
	err = decodeOf(kindBan, key, value, &b.Prefix, func(c *codec) { c.ban(&b) })
	return b, err
}

func decodeOffender(key string, value []byte) (o ban.Offender, err error) {
	err = decodeOf(kindOffender, key, value, &o.Prefix, func(c *codec) { c.offender(&o) })
	return o, err
}

func decodeTrust(key string, value []byte) (t ban.Trust, err error) {
	err = decodeOf(kindTrust, key, value, &t.Prefix, func(c *codec) { c.trust(&t) })
	return t, err
}

func decodeGrace(key string, value []byte) (g ban.Grace, err error) {
	err = decodeOf(kindGrace, key, value, &g.Prefix, func(c *codec) { c.grace(&g) })
	return g, err
}

func decodeAllow(key string, value []byte) (a Allow, err error) {
	switch {
	case len(key) > 1 && key[0] == 'p':
		a.Prefix, err = prefixOf(key[1:])
	case len(key) > 1 && key[0] == 'h' && len(key)-1 <= maxHost:
		a.Host = key[1:]
	default:
		err = fmt.Errorf("%w: key", errRecord)
	}
	if err == nil {
		err = decodeRecord(kindAllow, key, value, func(c *codec) { c.allow(&a) })
	}
	return a, err
}

func decodeDecision(value []byte) (d ban.Decision, err error) {
	err = decodeRecord(kindDecision, "", value, func(c *codec) { c.decision(&d) })
	return d, err
}
