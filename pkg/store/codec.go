package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"net/netip"
	"time"
)

// A record is its fields one after the other: flags a byte, numbers as varints, times in nanoseconds since 1970, floats
// in 8 bytes, strings and addresses with their length before. The last 4 bytes are the CRC-32C of the kind, the key and
// all before: bbolt has no checksum, and a flipped bit in the end of a ban would keep somebody out for ever.

var errRecord = errors.New("damaged record")

const checksumSize = 4

// encoder appends fields. Give it room for all of them, and a record costs one allocation.
type encoder struct{ b []byte }

func newEncoder(size int) encoder { return encoder{b: make([]byte, 0, size+checksumSize)} }

// What fields other than strings take at most, in bytes.
const (
	banSize      = 120
	evidenceSize = 80
	lineSize     = 64
	smallSize    = 64 // the other records but for their strings
)

func checksum(k kind, key, data []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(kindSums(table, k), table, key)
	return crc32.Update(sum, table, data)
}

// kindSums is the checksum of a kind's byte. The slice of one byte would be an allocation for each record.
func kindSums(table *crc32.Table, k kind) uint32 {
	return ^(table[byte(0xff)^byte(k)] ^ uint32(0xffffffff)>>8)
}

// seal appends the checksum of the fields.
func (e *encoder) seal(k kind, key string) []byte {
	return binary.LittleEndian.AppendUint32(e.b, checksum(k, []byte(key), e.b))
}

func (e *encoder) bools(list ...bool) {
	var b byte
	for i, v := range list {
		if v {
			b |= 1 << i
		}
	}
	e.b = append(e.b, b)
}

func (e *encoder) int(n int) { e.b = binary.AppendVarint(e.b, int64(n)) }

func (e *encoder) float(f float64) { e.b = binary.LittleEndian.AppendUint64(e.b, math.Float64bits(f)) }

func (e *encoder) string(s string, limit int) {
	s = cut(s, limit)
	e.b = append(binary.AppendUvarint(e.b, uint64(len(s))), s...)
}

// time keeps the zero time as the smallest number, and times that nanoseconds cannot tell as the nearest that they can.
func (e *encoder) time(t time.Time) {
	ns := t.UnixNano()
	switch {
	case t.IsZero():
		ns = math.MinInt64
	case t.Before(time.Unix(0, math.MinInt64+1)):
		ns = math.MinInt64 + 1
	case t.After(time.Unix(0, math.MaxInt64)):
		ns = math.MaxInt64
	}
	e.b = binary.AppendVarint(e.b, ns)
}

func (e *encoder) addr(a netip.Addr) {
	if len(a.Zone()) > maxName {
		a = a.WithZone("")
	}
	at := len(e.b)
	e.b, _ = a.AppendBinary(append(e.b, 0)) // never fails
	e.b[at] = byte(len(e.b) - at - 1)
}

func (e *encoder) prefix(p netip.Prefix) {
	at := len(e.b)
	e.b = appendPrefix(append(e.b, 0), p)
	e.b[at] = byte(len(e.b) - at - 1)
}

// room is what a ban takes at most, while its strings are not longer than what is kept of them.
func (b *Ban) room() int {
	n := banSize + len(b.Reason) + len(b.Comment) + len(b.PBX)
	for i := range b.Evidence {
		v := &b.Evidence[i]
		n += evidenceSize + len(v.Event) + len(v.Service) + len(v.Transport) + len(v.Account) + len(v.Reason) + len(v.PBX) + len(v.Note)
	}
	return min(n, 8<<10)
}

func (e *encoder) ban(b *Ban) {
	e.bools(b.Proven, b.Manual)
	e.addr(b.Source)
	e.time(b.Since)
	e.time(b.Until)
	e.string(b.Reason, maxName)
	e.float(b.Score)
	e.int(b.Number)
	e.string(b.Comment, maxText)
	e.string(b.PBX, maxName)
	e.int(b.Attempts)
	list := b.Evidence[max(0, len(b.Evidence)-MaxEvidence):]
	e.int(len(list))
	for i := range list {
		v := &list[i]
		placed := v.Multiplier != 0
		e.bools(v.Proven, placed)
		e.time(v.Time)
		e.string(v.Event, maxName)
		e.string(v.Service, maxName)
		e.string(v.Transport, maxName)
		e.string(v.Account, maxName)
		e.string(v.Reason, maxName)
		e.float(v.Points)
		e.float(v.Score)
		e.string(v.PBX, maxName)
		e.string(v.Note, maxText)
		if placed {
			e.float(v.Multiplier)
			e.string(v.Country, maxName)
			e.int(int(v.ASN))
		}
	}
}

func (e *encoder) offender(o *Offender) {
	e.int(o.Bans)
	e.time(o.Last)
}

func (e *encoder) trust(t *Trust) {
	e.time(t.Since)
	e.time(t.Until)
	e.time(t.Last)
	list := t.Accounts[:min(len(t.Accounts), MaxAccounts)]
	e.int(len(list))
	for _, name := range list {
		e.string(name, maxName)
	}
}

func (e *encoder) allow(a *Allow) {
	e.time(a.Added)
	e.string(a.By, maxName)
	e.string(a.Note, maxText)
}

func (e *encoder) grace(g *Grace) {
	e.time(g.Since)
	e.time(g.Until)
}

func (e *encoder) decision(d *Decision) {
	e.time(d.Time)
	e.addr(d.Source)
	e.prefix(d.Prefix)
	e.b = append(binary.AppendUvarint(e.b, uint64(len(d.Raw))), d.Raw...)
}

// decoder takes fields off a record. After the first that does not fit, all are zero and bad is set.
type decoder struct {
	b     []byte
	bad   bool
	words words
}

// words keeps strings that many records share once.
type words map[string]string

const (
	maxWords = 4096
	maxWord  = 64 // bytes
)

func (w words) of(b []byte) string {
	if s, ok := w[string(b)]; ok {
		return s
	}
	s := string(b)
	if w != nil && len(s) <= maxWord && len(w) < maxWords {
		w[s] = s
	}
	return s
}

// open checks a record and returns a decoder of its fields.
func open(k kind, key string, value []byte, w words) (decoder, error) {
	n := len(value) - checksumSize
	if n < 0 {
		return decoder{}, fmt.Errorf("%w: %d bytes", errRecord, len(value))
	}
	if binary.LittleEndian.Uint32(value[n:]) != checksum(k, []byte(key), value[:n]) {
		return decoder{}, fmt.Errorf("%w: wrong checksum", errRecord)
	}
	return decoder{b: value[:n], words: w}, nil
}

// close says whether all fields were there, and nothing else.
func (d *decoder) close() error {
	if d.bad || len(d.b) > 0 {
		return fmt.Errorf("%w: fields do not fit", errRecord)
	}
	return nil
}

func (d *decoder) take(n uint64) []byte {
	if d.bad || n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) bools(list ...*bool) {
	if b := d.take(1); b != nil {
		for i, v := range list {
			*v = b[0]&(1<<i) != 0
		}
		d.bad = d.bad || b[0]>>len(list) != 0
	}
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int { return int(d.varint()) }

// length is a number of things that take at least a byte each.
func (d *decoder) length(limit int) int {
	n := d.varint()
	if n < 0 || n > int64(limit) || n > int64(len(d.b)) {
		d.bad, d.b = true, nil
		return 0
	}
	return int(n)
}

func (d *decoder) float() float64 {
	if b := d.take(8); b != nil {
		return math.Float64frombits(binary.LittleEndian.Uint64(b))
	}
	return 0
}

func (d *decoder) bytes(limit int) []byte {
	size, n := binary.Uvarint(d.b)
	if n <= 0 || size > uint64(limit) {
		d.bad, d.b = true, nil
		return nil
	}
	d.b = d.b[n:]
	return d.take(size)
}

func (d *decoder) string(limit int) string { return d.words.of(d.bytes(limit)) }

func (d *decoder) time() time.Time {
	ns := d.varint()
	if ns == math.MinInt64 || d.bad {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

func (d *decoder) addr() (a netip.Addr) {
	size := d.take(1)
	if size == nil {
		return a
	}
	if b := d.take(uint64(size[0])); b == nil || a.UnmarshalBinary(b) != nil {
		d.bad = true
	}
	return a
}

func (d *decoder) prefix() netip.Prefix {
	b := d.bytes(17)
	if len(b) == 0 {
		return netip.Prefix{}
	}
	a, ok := netip.AddrFromSlice(b[:len(b)-1])
	p := netip.PrefixFrom(a, int(b[len(b)-1]))
	d.bad = d.bad || !ok || !p.IsValid()
	return p
}

func decodeBan(key string, value []byte, w words) (b Ban, err error) {
	d, err := open(kindBan, key, value, w)
	if err != nil {
		return Ban{}, err
	}
	var ok bool
	if b.Prefix, ok = prefixOf(key); !ok {
		return Ban{}, fmt.Errorf("%w: key", errRecord)
	}
	d.bools(&b.Proven, &b.Manual)
	b.Source = d.addr()
	b.Since, b.Until = d.time(), d.time()
	b.Reason = d.string(maxName)
	b.Score = d.float()
	b.Number = d.int()
	b.Comment = d.string(maxText)
	b.PBX = d.string(maxName)
	b.Attempts = d.int()
	if n := d.length(MaxEvidence); n > 0 {
		b.Evidence = make([]Evidence, n)
	}
	for i := range b.Evidence {
		v := &b.Evidence[i]
		placed := false
		d.bools(&v.Proven, &placed)
		v.Time = d.time()
		v.Event, v.Service, v.Transport = d.string(maxName), d.string(maxName), d.string(maxName)
		v.Account, v.Reason = d.string(maxName), d.string(maxName)
		v.Points, v.Score = d.float(), d.float()
		v.PBX, v.Note = d.string(maxName), d.string(maxText)
		if placed {
			v.Multiplier, v.Country, v.ASN = d.float(), d.string(maxName), uint32(d.int())
		}
	}
	return b, d.close()
}

func decodeOffender(key string, value []byte) (o Offender, err error) {
	d, err := open(kindOffender, key, value, nil)
	if err != nil {
		return Offender{}, err
	}
	var ok bool
	if o.Source, ok = prefixOf(key); !ok {
		return Offender{}, fmt.Errorf("%w: key", errRecord)
	}
	o.Bans, o.Last = d.int(), d.time()
	return o, d.close()
}

func decodeTrust(key string, value []byte, w words) (t Trust, err error) {
	d, err := open(kindTrust, key, value, w)
	if err != nil {
		return Trust{}, err
	}
	var ok bool
	if t.Source, ok = prefixOf(key); !ok {
		return Trust{}, fmt.Errorf("%w: key", errRecord)
	}
	t.Since, t.Until, t.Last = d.time(), d.time(), d.time()
	if n := d.length(MaxAccounts); n > 0 {
		t.Accounts = make([]string, n)
	}
	for i := range t.Accounts {
		t.Accounts[i] = d.string(maxName)
	}
	return t, d.close()
}

func decodeAllow(key string, value []byte) (a Allow, err error) {
	d, err := open(kindAllow, key, value, nil)
	if err != nil {
		return Allow{}, err
	}
	var ok bool
	switch {
	case len(key) > 1 && key[0] == 'p':
		a.Prefix, ok = prefixOf(key[1:])
	case len(key) > 1 && key[0] == 'h':
		a.Host, ok = key[1:], len(key)-1 <= maxHost
	}
	if !ok {
		return Allow{}, fmt.Errorf("%w: key", errRecord)
	}
	a.Added, a.By, a.Note = d.time(), d.string(maxName), d.string(maxText)
	return a, d.close()
}

func decodeGrace(key string, value []byte) (g Grace, err error) {
	d, err := open(kindGrace, key, value, nil)
	if err != nil {
		return Grace{}, err
	}
	var ok bool
	if g.Prefix, ok = prefixOf(key); !ok {
		return Grace{}, fmt.Errorf("%w: key", errRecord)
	}
	g.Since, g.Until = d.time(), d.time()
	return g, d.close()
}

// decodeDecision leaves Raw to alias value.
func decodeDecision(value []byte) (line Decision, err error) {
	d, err := open(kindDecision, "", value, nil)
	if err != nil {
		return Decision{}, err
	}
	line.Time, line.Source, line.Prefix, line.Raw = d.time(), d.addr(), d.prefix(), d.bytes(MaxDecision)
	return line, d.close()
}
