package store

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/internal/property"
)

func drawText(t *property.T, limit int) string {
	b := property.Bytes(t, 0, limit)
	return string(b)
}

func drawTime(t *property.T) time.Time {
	if property.Bool(t) {
		return time.Time{}
	}
	return time.Unix(0, property.Int[int64](t, -1<<62, 1<<62)).UTC()
}

func drawAddr(t *property.T) netip.Addr {
	switch property.Int(t, 0, 3) {
	case 0:
		return netip.Addr{}
	case 1:
		return netip.AddrFrom4([4]byte(property.Bytes(t, 4, 4)))
	case 2:
		return netip.AddrFrom16([16]byte(property.Bytes(t, 16, 16)))
	}
	return netip.MustParseAddr("fe80::1%eth0")
}

func drawPrefix(t *property.T) netip.Prefix {
	a := drawAddr(t).WithZone("")
	if !a.IsValid() {
		a = netip.MustParseAddr("192.0.2.1")
	}
	return netip.PrefixFrom(a, property.Int(t, 0, a.BitLen())).Masked()
}

func drawCloses(t *property.T) ban.Closes {
	return property.OneOf(t, ban.ClosesAll, ban.ClosesUDP, ban.ClosesManager, ban.ClosesSIP)
}

func drawBan(t *property.T) ban.Ban {
	b := ban.Ban{
		Prefix: drawPrefix(t), Source: drawAddr(t), Since: drawTime(t), Until: drawTime(t),
		Reason: ban.Reason(drawText(t, maxName)), Score: property.AnyFloat(t), Proven: property.Bool(t),
		Manual: property.Bool(t), Number: property.AnyInt(t), Comment: drawText(t, maxText),
		PBX: drawText(t, maxName), Origin: drawText(t, maxName), Attempts: property.AnyInt(t), Closes: drawCloses(t),
		DoorShut: property.Bool(t),
	}
	for range property.Count(t, 0, MaxEvidence) {
		var placed ban.Evidence
		if property.Bool(t) {
			placed = ban.Evidence{Multiplier: property.Float(t, 0.1, 10), Country: drawText(t, maxName),
				ASN: uint32(property.Int(t, 0, 1<<32-1))}
		}
		b.Evidence = append(b.Evidence, ban.Evidence{
			Time: drawTime(t), Event: drawText(t, maxName), Service: drawText(t, maxName),
			Transport: drawText(t, maxName), Account: drawText(t, maxName),
			Reason: ban.Reason(drawText(t, maxName)), Points: property.AnyFloat(t),
			Score: property.AnyFloat(t), Proven: property.Bool(t), PBX: drawText(t, maxName), SeenBy: drawText(t, maxName),
			Note: drawText(t, maxText), Multiplier: placed.Multiplier, Country: placed.Country, ASN: placed.ASN,
		})
	}
	return b
}

func checked(f func(t *property.T)) func(t *testing.T) {
	return func(t *testing.T) { property.Check(t, f) }
}

func same(t *property.T, got, want any, err error) {
	t.Helper()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %#v, %v\nwant %#v", got, err, want)
	}
}

func TestRecordsComeBackAsTheyWere(t *testing.T) {
	t.Run("ban", checked(func(t *property.T) {
		want := drawBan(t)
		c := PutBan(want)
		got, err := decodeBan(c.key, c.value)
		same(t, got, want, err)
	}))
	t.Run("offender", checked(func(t *property.T) {
		want := ban.Offender{Prefix: drawPrefix(t), Bans: property.AnyInt(t), Last: drawTime(t)}
		c := PutOffender(want)
		got, err := decodeOffender(c.key, c.value)
		same(t, got, want, err)
	}))
	t.Run("trust", checked(func(t *property.T) {
		want := ban.Trust{Prefix: drawPrefix(t), Since: drawTime(t), Until: drawTime(t),
			Last: drawTime(t)}
		for range property.Count(t, 0, 20) {
			want.Accounts = append(want.Accounts, drawText(t, maxName))
		}
		c := PutTrust(want)
		got, err := decodeTrust(c.key, c.value)
		same(t, got, want, err)
	}))
	t.Run("allow", checked(func(t *property.T) {
		want := Allow{Added: drawTime(t), By: drawText(t, maxName), Note: drawText(t, maxText)}
		if property.Bool(t) {
			want.Host = "h" + drawText(t, maxHost-1)
		} else {
			want.Prefix = drawPrefix(t)
		}
		if property.Bool(t) {
			want.Until = drawTime(t)
		}
		c := PutAllow(want)
		got, err := decodeAllow(c.key, c.value)
		same(t, got, want, err)
	}))
	t.Run("grace", checked(func(t *property.T) {
		want := ban.Grace{Prefix: drawPrefix(t), Since: drawTime(t), Until: drawTime(t)}
		c := PutGrace(want)
		got, err := decodeGrace(c.key, c.value)
		same(t, got, want, err)
	}))
	t.Run("decision", checked(func(t *property.T) {
		want := ban.Decision{Time: drawTime(t), Source: drawAddr(t),
			Account: property.Text(t, []rune("aZ09 \"\\\n\x00\x1bü€😀"), 40)}
		if property.Bool(t) {
			want.Prefix = drawPrefix(t)
		}
		want.Proven, want.Points, want.Duration = property.Bool(t), 4, time.Hour
		want.Closes = drawCloses(t)
		want.Origin = property.OneOf(t, "", "pbx2")
		want.SeenBy = property.OneOf(t, event.ByAMI, event.ByTap, event.ByHEP, event.ByDialplan)
		want.Service, want.Transport, want.Action, want.Reason = event.PJSIP, event.TLS, ban.ActionBan,
			ban.ReasonLogin
		got, err := decodeDecision(AddDecision(want).value)
		same(t, got, want, err)
	}))
}

func TestALongRecordIsCutNotRefused(t *testing.T) {
	long := strings.Repeat("é", 4000)
	b := sampleBan(1, 40)
	b.Comment, b.Evidence[39].Account = long, long
	c := PutBan(b)
	got, err := decodeBan(c.key, c.value)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Evidence) != MaxEvidence || got.Evidence[0].Time != b.Evidence[40-MaxEvidence].Time {
		t.Errorf("%d pieces are kept, from %v: not the latest", len(got.Evidence), got.Evidence[0].Time)
	}
	for what, s := range map[string]string{"comment": got.Comment, "account": got.Evidence[MaxEvidence-1].Account} {
		if len(s) == 0 || len(s) >= len(long) || !utf8.ValidString(s) {
			t.Errorf("the %s has %d bytes, cut within a character: %v", what, len(s), !utf8.ValidString(s))
		}
	}
	if got := cutBytes(strings.Repeat("\x80", 300), 256); len(got) != 256 {
		t.Errorf("bytes that are no text are cut to %d", len(got))
	}
}

func TestWhatCannotBeKeptIsRefused(t *testing.T) {
	s, _ := mustOpen(t, statePath(t), Options{})
	for name, c := range map[string]Change{
		"ban of nothing":     PutBan(ban.Ban{}),
		"drop of nothing":    DropBan(netip.Prefix{}),
		"allow of nothing":   PutAllow(Allow{}),
		"host name too long": PutAllow(Allow{Host: strings.Repeat("a", 254)}),
	} {
		if err := s.Put(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if n := s.Stats().Pending; n != 0 {
		t.Errorf("%d changes wait", n)
	}
}

func TestAFlippedBitInARecordIsNoticed(t *testing.T) {
	c := PutBan(sampleBan(7, 3))
	for i := range c.value {
		for bit := range 8 {
			b := bytes.Clone(c.value)
			b[i] ^= 1 << bit
			if _, err := decodeBan(c.key, b); err == nil {
				t.Fatalf("bit %d of byte %d may flip", bit, i)
			}
		}
	}
	if _, err := decodeBan(PutBan(sampleBan(8, 0)).key, c.value); err == nil {
		t.Error("a ban may move to another prefix")
	}
}

// FuzzLoad decodes hostile records. The checksum is made right, or else nothing would get past it.
func FuzzLoad(f *testing.F) {
	for _, c := range []Change{
		PutBan(sampleBan(1, 3)), PutOffender(ban.Offender{Prefix: host(1), Bans: 2, Last: start}),
		PutTrust(ban.Trust{Prefix: host(2), Since: start, Until: start, Last: start,
			Accounts: []string{"100", "\xff"}}),
		PutAllow(Allow{Host: "office.example", Added: start, By: "root", Note: "x"}),
		PutGrace(ban.Grace{Prefix: host(3), Since: start, Until: start}), AddDecision(sampleDecision(1, start)),
	} {
		f.Add(byte(c.kind), []byte(c.key), c.value[:len(c.value)-checksumSize])
	}
	f.Fuzz(func(t *testing.T, k byte, key, payload []byte) {
		kind := kind(k%byte(kindDecision)) + 1
		sumKey := key
		if kind == kindDecision {
			sumKey = nil
		}
		value := binary.LittleEndian.AppendUint32(bytes.Clone(payload), checksum(kind, string(sumKey), payload))
		var again Change
		switch kind {
		case kindBan:
			v, err := decodeBan(string(key), value)
			if err != nil {
				return
			}
			again = PutBan(v)
		case kindOffender:
			v, err := decodeOffender(string(key), value)
			if err != nil {
				return
			}
			again = PutOffender(v)
		case kindTrust:
			v, err := decodeTrust(string(key), value)
			if err != nil {
				return
			}
			again = PutTrust(v)
		case kindAllow:
			v, err := decodeAllow(string(key), value)
			if err != nil {
				return
			}
			again = PutAllow(v)
		case kindGrace:
			v, err := decodeGrace(string(key), value)
			if err != nil {
				return
			}
			again = PutGrace(v)
		case kindDecision:
			if _, err := decodeDecision(value); err != nil {
				return
			}
			return // the text may be no JSON here
		}
		if again.err != nil || again.key != string(key) {
			t.Fatalf("a %s that can be read cannot be kept: %v", kind, again.err)
		}
		l := loader{s: &Store{o: Options{Counts: countsInTests}.withDefaults()}, now: start}
		l.addRecord(recordID{kind, string(key)}, value)
		for _, b := range l.state.Bans {
			if !b.Until.After(start) || b.Since.After(start) {
				t.Fatalf("a ban is loaded that is over, or not begun: %+v", b)
			}
		}
	})
}
