package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// A record is its fields one after the other: flags a byte, numbers as varints, times in nanoseconds since 1970, floats
// in 8 bytes, strings and addresses with their length before. The last 4 bytes are the CRC-32C of the kind, the key and
// all before: bbolt has no checksum, and a flipped bit in the end of a ban would keep somebody out for ever.

var errRecord = errors.New("damaged record")

const checksumSize = 4

// encoder is the beginning of a record: its name and the fields so far. Methods return it with one field more, and do not
// keep it, so that it may be on the stack.
type encoder []byte

// checksum is that of a record's name, one byte after the other, and its fields: a slice of them all that crc32 takes
// would be an allocation.
func checksum(k kind, key string, fields []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := table[byte(0xff)^byte(k)] ^ uint32(0xffffffff)>>8
	for i := range len(key) {
		sum = table[byte(sum)^key[i]] ^ sum>>8
	}
	return crc32.Update(^sum, table, fields)
}

// seal copies the record, with more at its end, and appends the checksum: one allocation, of just its size.
func (e encoder) seal(named int, more []byte) item {
	record := make([]byte, 0, len(e)+len(more)+checksumSize)
	record = append(append(record, e...), more...)
	sum := crc32.Checksum(record, crc32.MakeTable(crc32.Castagnoli))
	return item{record: binary.LittleEndian.AppendUint32(record, sum), named: named}
}

func (e encoder) bools(list ...bool) encoder {
	var b byte
	for i, v := range list {
		if v {
			b |= 1 << i
		}
	}
	return append(e, b)
}

func (e encoder) int(n int) encoder { return binary.AppendVarint(e, int64(n)) }

func (e encoder) float(f float64) encoder {
	return binary.LittleEndian.AppendUint64(e, math.Float64bits(f))
}

func (e encoder) string(s string, limit int) encoder {
	s = cut(s, limit)
	return append(binary.AppendUvarint(e, uint64(len(s))), s...)
}

// time keeps the zero time as the smallest number, and times that nanoseconds cannot tell as the nearest that they can.
func (e encoder) time(t time.Time) encoder {
	ns := t.UnixNano()
	switch {
	case t.IsZero():
		ns = math.MinInt64
	case t.Before(time.Unix(0, math.MinInt64+1)):
		ns = math.MinInt64 + 1
	case t.After(time.Unix(0, math.MaxInt64)):
		ns = math.MaxInt64
	}
	return binary.AppendVarint(e, ns)
}

func (e encoder) addr(a netip.Addr) encoder {
	if len(a.Zone()) > maxName {
		a = a.WithZone("")
	}
	at := len(e)
	b, _ := a.AppendBinary(append(e, 0)) // never fails
	b[at] = byte(len(b) - at - 1)
	return b
}

func (e encoder) prefix(p netip.Prefix) encoder {
	at := len(e)
	e = appendPrefix(append(e, 0), p)
	e[at] = byte(len(e) - at - 1)
	return e
}

func (e encoder) ban(b *ban.Ban) encoder {
	e = e.bools(b.Proven, b.Manual).addr(b.Source).time(b.Since).time(b.Until).string(string(b.Reason), maxName)
	e = e.float(b.Score).int(b.Number).string(b.Comment, maxText).string(b.PBX, maxName).int(b.Attempts)
	list := b.Evidence[max(0, len(b.Evidence)-MaxEvidence):]
	e = e.int(len(list))
	for i := range list {
		v := &list[i]
		placed := v.Multiplier != 0
		e = e.bools(v.Proven, placed).time(v.Time)
		e = e.string(v.Event, maxName).string(v.Service, maxName).string(v.Transport, maxName)
		e = e.string(v.Account, maxName).string(string(v.Reason), maxName).float(v.Points).float(v.Score)
		e = e.string(v.PBX, maxName).string(v.Note, maxText)
		if placed {
			e = e.float(v.Multiplier).string(v.Country, maxName).int(int(v.ASN))
		}
	}
	return e
}

func (e encoder) offender(o *ban.Offender) encoder { return e.int(o.Bans).time(o.Last) }

func (e encoder) trust(t *ban.Trust) encoder {
	list := t.Accounts[:min(len(t.Accounts), MaxAccounts)]
	e = e.time(t.Since).time(t.Until).time(t.Last).int(len(list))
	for _, name := range list {
		e = e.string(name, maxName)
	}
	return e
}

func (e encoder) allow(a *Allow) encoder {
	e = e.time(a.Added).string(a.By, maxName).string(a.Note, maxText)
	if !a.Until.IsZero() { // what has no end is written as it always was
		e = e.time(a.Until)
	}
	return e
}

func (e encoder) grace(g *ban.Grace) encoder { return e.time(g.Since).time(g.Until) }

// decision appends all but the line itself.
func (e encoder) decision(d *Decision) encoder {
	return binary.AppendUvarint(e.time(d.Time).addr(d.Source).prefix(d.Prefix), uint64(len(d.Raw)))
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
	if binary.LittleEndian.Uint32(value[n:]) != checksum(k, key, value[:n]) {
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

// banSince reads only when a ban began, in ns, and checks nothing: it is to put records into their order.
func banSince(value []byte) int64 {
	d := decoder{b: value}
	d.take(1)
	if size := d.take(1); size != nil {
		d.take(uint64(size[0]))
	}
	return d.varint()
}

func decodeBan(key string, value []byte, w words) (b ban.Ban, err error) {
	d, err := open(kindBan, key, value, w)
	if err != nil {
		return ban.Ban{}, err
	}
	var ok bool
	if b.Prefix, ok = prefixOf(key); !ok {
		return ban.Ban{}, fmt.Errorf("%w: key", errRecord)
	}
	d.bools(&b.Proven, &b.Manual)
	b.Source = d.addr()
	b.Since, b.Until = d.time(), d.time()
	b.Reason = ban.Reason(d.string(maxName))
	b.Score = d.float()
	b.Number = d.int()
	b.Comment = d.string(maxText)
	b.PBX = d.string(maxName)
	b.Attempts = d.int()
	if n := d.length(MaxEvidence); n > 0 {
		b.Evidence = make([]ban.Evidence, n)
	}
	for i := range b.Evidence {
		v := &b.Evidence[i]
		placed := false
		d.bools(&v.Proven, &placed)
		v.Time = d.time()
		v.Event, v.Service, v.Transport = d.string(maxName), d.string(maxName), d.string(maxName)
		v.Account, v.Reason = d.string(maxName), ban.Reason(d.string(maxName))
		v.Points, v.Score = d.float(), d.float()
		v.PBX, v.Note = d.string(maxName), d.string(maxText)
		if placed {
			v.Multiplier, v.Country, v.ASN = d.float(), d.string(maxName), uint32(d.int())
		}
	}
	return b, d.close()
}

func decodeOffender(key string, value []byte) (o ban.Offender, err error) {
	d, err := open(kindOffender, key, value, nil)
	if err != nil {
		return ban.Offender{}, err
	}
	var ok bool
	if o.Prefix, ok = prefixOf(key); !ok {
		return ban.Offender{}, fmt.Errorf("%w: key", errRecord)
	}
	o.Bans, o.Last = d.int(), d.time()
	return o, d.close()
}

func decodeTrust(key string, value []byte, w words) (t ban.Trust, err error) {
	d, err := open(kindTrust, key, value, w)
	if err != nil {
		return ban.Trust{}, err
	}
	var ok bool
	if t.Prefix, ok = prefixOf(key); !ok {
		return ban.Trust{}, fmt.Errorf("%w: key", errRecord)
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
	if !d.bad && len(d.b) > 0 {
		a.Until = d.time()
	}
	return a, d.close()
}

func decodeGrace(key string, value []byte) (g ban.Grace, err error) {
	d, err := open(kindGrace, key, value, nil)
	if err != nil {
		return ban.Grace{}, err
	}
	var ok bool
	if g.Prefix, ok = prefixOf(key); !ok {
		return ban.Grace{}, fmt.Errorf("%w: key", errRecord)
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
