package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/ringwall/ringwall/pkg/ban"
)

func drawText(t *rapid.T, limit int, label string) string {
	b := rapid.SliceOfN(rapid.Byte(), 0, limit).Draw(t, label)
	return string(b)
}

func drawTime(t *rapid.T, label string) time.Time {
	if rapid.Bool().Draw(t, label+"?") {
		return time.Time{}
	}
	return time.Unix(0, rapid.Int64Range(-1<<62, 1<<62).Draw(t, label)).UTC()
}

func drawAddr(t *rapid.T, label string) netip.Addr {
	switch rapid.IntRange(0, 3).Draw(t, label+" family") {
	case 0:
		return netip.Addr{}
	case 1:
		return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, label)))
	case 2:
		return netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, label)))
	}
	return netip.MustParseAddr("fe80::1%eth0")
}

func drawPrefix(t *rapid.T, label string) netip.Prefix {
	a := drawAddr(t, label).WithZone("")
	if !a.IsValid() {
		a = netip.MustParseAddr("192.0.2.1")
	}
	return netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, label+" bits")).Masked()
}

func drawBan(t *rapid.T) ban.Ban {
	b := ban.Ban{
		Prefix: drawPrefix(t, "prefix"), Source: drawAddr(t, "source"), Since: drawTime(t, "since"), Until: drawTime(t, "until"),
		Reason: ban.Reason(drawText(t, maxName, "reason")), Score: rapid.Float64().Draw(t, "score"), Proven: rapid.Bool().Draw(t, "proven"),
		Manual: rapid.Bool().Draw(t, "manual"), Number: rapid.Int().Draw(t, "number"), Comment: drawText(t, maxText, "comment"),
		PBX: drawText(t, maxName, "pbx"), Attempts: rapid.Int().Draw(t, "attempts"),
	}
	for range rapid.IntRange(0, MaxEvidence).Draw(t, "pieces") {
		var placed ban.Evidence
		if rapid.Bool().Draw(t, "placed?") {
			placed = ban.Evidence{Multiplier: rapid.Float64Range(0.1, 10).Draw(t, "multiplier"), Country: drawText(t, maxName, "country"),
				ASN: rapid.Uint32().Draw(t, "asn")}
		}
		b.Evidence = append(b.Evidence, ban.Evidence{
			Time: drawTime(t, "time"), Event: drawText(t, maxName, "event"), Service: drawText(t, maxName, "service"),
			Transport: drawText(t, maxName, "transport"), Account: drawText(t, maxName, "account"),
			Reason: ban.Reason(drawText(t, maxName, "reason")), Points: rapid.Float64().Draw(t, "points"),
			Score: rapid.Float64().Draw(t, "score"), Proven: rapid.Bool().Draw(t, "proven"), PBX: drawText(t, maxName, "pbx"),
			Note: drawText(t, maxText, "note"), Multiplier: placed.Multiplier, Country: placed.Country, ASN: placed.ASN,
		})
	}
	return b
}

func same(t *rapid.T, got, want any, err error) {
	t.Helper()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %#v, %v\nwant %#v", got, err, want)
	}
}

func TestRecordsComeBackAsTheyWere(t *testing.T) {
	t.Run("ban", rapid.MakeCheck(func(t *rapid.T) {
		want := drawBan(t)
		c := PutBan(want)
		got, err := decodeBan(keyOf(c), c.value(), make(words))
		same(t, got, want, err)
	}))
	t.Run("offender", rapid.MakeCheck(func(t *rapid.T) {
		want := ban.Offender{Prefix: drawPrefix(t, "source"), Bans: rapid.Int().Draw(t, "bans"), Last: drawTime(t, "last")}
		c := PutOffender(want)
		got, err := decodeOffender(keyOf(c), c.value())
		same(t, got, want, err)
	}))
	t.Run("trust", rapid.MakeCheck(func(t *rapid.T) {
		want := ban.Trust{Prefix: drawPrefix(t, "source"), Since: drawTime(t, "since"), Until: drawTime(t, "until"),
			Last: drawTime(t, "last")}
		for range rapid.IntRange(0, 20).Draw(t, "accounts") {
			want.Accounts = append(want.Accounts, drawText(t, maxName, "account"))
		}
		c := PutTrust(want)
		got, err := decodeTrust(keyOf(c), c.value(), nil)
		same(t, got, want, err)
	}))
	t.Run("allow", rapid.MakeCheck(func(t *rapid.T) {
		want := Allow{Added: drawTime(t, "added"), By: drawText(t, maxName, "by"), Note: drawText(t, maxText, "note")}
		if rapid.Bool().Draw(t, "host?") {
			want.Host = "h" + drawText(t, maxHost-1, "host")
		} else {
			want.Prefix = drawPrefix(t, "prefix")
		}
		if rapid.Bool().Draw(t, "ends?") {
			want.Until = drawTime(t, "until")
		}
		c := PutAllow(want)
		got, err := decodeAllow(keyOf(c), c.value())
		same(t, got, want, err)
	}))
	t.Run("grace", rapid.MakeCheck(func(t *rapid.T) {
		want := ban.Grace{Prefix: drawPrefix(t, "prefix"), Since: drawTime(t, "since"), Until: drawTime(t, "until")}
		c := PutGrace(want)
		got, err := decodeGrace(keyOf(c), c.value())
		same(t, got, want, err)
	}))
	t.Run("decision", rapid.MakeCheck(func(t *rapid.T) {
		raw, err := json.Marshal(rapid.String().Draw(t, "line"))
		if err != nil {
			t.Fatal(err)
		}
		want := Decision{Time: drawTime(t, "time"), Source: drawAddr(t, "source"), Raw: raw}
		if rapid.Bool().Draw(t, "prefix?") {
			want.Prefix = drawPrefix(t, "prefix")
		}
		got, err := decodeDecision(valueOf(AddDecision(want)))
		same(t, got, want, err)
	}))
}

func keyOf(c Change) string   { return string(c.key()) }
func valueOf(c Change) []byte { return c.value() }

func TestALongRecordIsCutNotRefused(t *testing.T) {
	long := strings.Repeat("é", 4000)
	b := sampleBan(1, 40)
	b.Comment, b.Evidence[39].Account = long, long
	c := PutBan(b)
	got, err := decodeBan(keyOf(c), c.value(), nil)
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
	if got := cut(strings.Repeat("\x80", 300), 256); len(got) != 256 {
		t.Errorf("bytes that are no text are cut to %d", len(got))
	}
}

func TestWhatCannotBeKeptIsRefused(t *testing.T) {
	s, _ := mustOpen(t, statePath(t), Options{})
	for name, c := range map[string]Change{
		"ban of nothing":      PutBan(ban.Ban{}),
		"drop of nothing":     DropBan(netip.Prefix{}),
		"allow of nothing":    PutAllow(Allow{}),
		"host name too long":  PutAllow(Allow{Host: strings.Repeat("a", 254)}),
		"decision no JSON":    AddDecision(Decision{Raw: []byte("{")}),
		"decision too long":   AddDecision(Decision{Raw: []byte(`"` + strings.Repeat("a", MaxDecision) + `"`)}),
		"decision of nothing": AddDecision(Decision{}),
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
	for i := range c.value() {
		for bit := range 8 {
			b := bytes.Clone(c.value())
			b[i] ^= 1 << bit
			if _, err := decodeBan(keyOf(c), b, nil); err == nil {
				t.Fatalf("bit %d of byte %d may flip", bit, i)
			}
		}
	}
	if _, err := decodeBan(keyOf(PutBan(sampleBan(8, 0))), c.value(), nil); err == nil {
		t.Error("a ban may move to another prefix")
	}
}

// FuzzLoad decodes hostile records. The checksum is made right, or else nothing would get past it.
func FuzzLoad(f *testing.F) {
	for _, c := range []Change{
		PutBan(sampleBan(1, 3)), PutOffender(ban.Offender{Prefix: host(1), Bans: 2, Last: start}),
		PutTrust(ban.Trust{Prefix: host(2), Since: start, Until: start, Last: start, Accounts: []string{"100", "\xff"}}),
		PutAllow(Allow{Host: "office.example", Added: start, By: "root", Note: "x"}),
		PutGrace(ban.Grace{Prefix: host(3), Since: start, Until: start}), AddDecision(sampleDecision(1, start)),
	} {
		f.Add(byte(c.kind()), c.key(), c.value()[:len(c.value())-checksumSize])
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
			v, err := decodeBan(string(key), value, make(words))
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
			v, err := decodeTrust(string(key), value, nil)
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
			return // Raw may be no JSON here
		}
		if again.err != nil || keyOf(again) != string(key) {
			t.Fatalf("a %s that can be read cannot be kept: %v", kind, again.err)
		}
		l := loader{s: &Store{o: Options{Counts: countsInTests}.withDefaults()}, now: start}
		l.add(kind, string(key), value)
		for _, b := range l.state.Bans {
			if !b.Until.After(start) || b.Since.After(start) {
				t.Fatalf("a ban is loaded that is over, or not begun: %+v", b)
			}
		}
	})
}
