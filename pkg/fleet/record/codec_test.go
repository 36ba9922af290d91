package record_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/fleet/record"
	"github.com/ringwall/ringwall/pkg/internal/property"
)

func TestARecordIsReadAsItWasWritten(t *testing.T) {
	property.Check(t, func(t *property.T) {
		want := anyRecord(t)
		data, err := record.Encode(want)
		if err != nil {
			t.Fatalf("%+v: %v", want, err)
		}
		key, err := record.ParseSubject("acme", want.Subject("acme"))
		if err != nil {
			t.Fatalf("%s: %v", want.Subject("acme"), err)
		}
		got, err := record.Decode(key, data)
		if err != nil || got != want {
			t.Errorf("%s is read as %+v, %v; want %+v", data, got, err, want)
		}
	})
}

// The largest that there is: under 300 bytes, whatever is in it.
func TestTheLargestRecord(t *testing.T) {
	r := banOf(strings.Repeat("n", 32), attacker, start.Add(record.MaxLife))
	for _, reason := range ban.Reasons() {
		if len(reason) > len(r.Reason) {
			r.Reason = reason
		}
	}
	r.Evidence = strings.Repeat("x", record.MaxEvidence)
	if data, err := record.Encode(r); err != nil || len(data) > record.MaxBytes {
		t.Errorf("%d bytes: %v", len(data), err)
	}
	r.Evidence += "x"
	if _, err := record.Encode(r); !errors.Is(err, record.ErrMalformed) {
		t.Errorf("a longer text: %v", err)
	}
}

func TestWhatIsNoSubject(t *testing.T) {
	good := banOf("a", attacker, minutes(1)).Subject("acme")
	if good != "ringwall.acme.a.ban.198-51-100-7/32" {
		t.Fatalf("the subject is %s", good)
	}
	for _, subject := range []string{
		"", "ringwall", "ringwall.acme.a.ban", good + ".x", "ringwall.other.a.ban.198-51-100-7/32",
		"ringwall.acme..ban.198-51-100-7/32", "ringwall.acme.a.bans.198-51-100-7/32",
		"ringwall.acme.a b.ban.198-51-100-7/32", "ringwall.acme.a.ban.198-51-100-7",
		"ringwall.acme.a.ban.198-51-100-7/24",  // not masked
		"ringwall.acme.a.ban.198-51-100-07/32", // not as it is written
		"ringwall.acme.a.ban.2001:DB8::/64", "ringwall.acme.a.ban.fe80::%25eth0/64",
		"ringwall.acme.a.ban.::ffff:198-51-100-7/128x", strings.Repeat("x", 1<<20),
		"ringwall.acme." + strings.Repeat("n", 33) + ".ban.198-51-100-7/32",
	} {
		if k, err := record.ParseSubject("acme", subject); !errors.Is(err, record.ErrSubject) {
			t.Errorf("%.60q is read as %+v, %v", subject, k, err)
		}
	}
}

func TestWhatIsNoRecord(t *testing.T) {
	const made, until = `"made":1930280767000000000`, `"until":1930284367000000000`
	const head = `{"format":1,` + made + `,` + until
	const good = head + `,"reason":"scanner","closes":"all","proven":true}`
	key := record.Key{Node: "a", Kind: record.Ban, Prefix: attacker}
	if _, err := record.Decode(key, []byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		data string
		want error
	}{
		{"", record.ErrMalformed},
		{"null", record.ErrFormat},
		{"[]", record.ErrMalformed},
		{good + " ", record.ErrMalformed},
		{good + good, record.ErrMalformed},
		{strings.Repeat("[", 10000), record.ErrSize},
		{good + strings.Repeat(" ", 10<<20), record.ErrSize},
		{`{"format":2,"what":"later"}`, record.ErrFormat},
		{head + `,"reason":"scanner","closes":"all","proven":true,"origin":"b"}`, record.ErrMalformed},
		{head + `,"reason":"scanner","reason":"manual","closes":"all","proven":true}`, record.ErrMalformed},
		{head + `,"Reason":"scanner","closes":"all","proven":true}`, record.ErrMalformed},
		{head + `,"reason":"because","closes":"all","proven":true}`, record.ErrMalformed},
		{head + `,"reason":"test","closes":"all","proven":true}`, record.ErrMalformed},
		{head + `,"reason":"scanner","closes":"manager","proven":true}`, record.ErrMalformed},
		{head + `,"reason":"scanner","closes":"everything","proven":true}`, record.ErrMalformed},
		{head + `,"reason":"scanner","closes":"all"}`, record.ErrMalformed}, // what could be forged closes UDP alone
		{head + `,"reason":"scanner","closes":"all","proven":true,"evidence":"\u001b[2J"}`, record.ErrMalformed},
		{head + `,"reason":"scanner","closes":"all","proven":true,"evidence":"` + "\xff" + `"}`, record.ErrMalformed},
		{`{"format":1,` + made + `,"until":0,"reason":"scanner","closes":"all","proven":true}`, record.ErrMalformed},
		{`{"format":1,"made":-1,` + until + `,"reason":"scanner","closes":"all","proven":true}`, record.ErrMalformed},
		{`{"format":1,"made":1,` + until + `,"reason":"scanner","closes":"all","proven":true}`, record.ErrMalformed},
	} {
		if r, err := record.Decode(key, []byte(tt.data)); !errors.Is(err, tt.want) {
			t.Errorf("%.100s is read as %+v, %v; want %v", tt.data, r, err, tt.want)
		}
	}
}

// An address of a private network is somebody else at each site: who is banned at one is a customer at another.
func TestAddressesThatAreNotShared(t *testing.T) {
	for _, tt := range []struct {
		prefix string
		shared bool
	}{
		{"198.51.100.7/32", true}, {"2001:db8::/48", true}, {"172.32.0.0/24", true},
		{"0.0.0.0/0", false}, {"::/0", false}, {"10.1.2.3/32", false}, {"192.168.0.0/24", false},
		{"172.16.5.0/24", false}, {"100.64.0.1/32", false}, {"127.0.0.1/32", false}, {"169.254.1.1/32", false},
		{"224.0.0.1/32", false}, {"255.255.255.255/32", false}, {"::1/128", false}, {"fe80::/64", false},
		{"fd00:1::/64", false}, {"ff02::1/128", false}, {"::ffff:198.51.100.7/128", false}, {"128.0.0.0/1", false},
	} {
		p := netip.MustParsePrefix(tt.prefix)
		if record.IsShared(p) != tt.shared {
			t.Errorf("%v is shared: %v", p, !tt.shared)
		}
		if _, err := record.Encode(banOf("a", p, minutes(1))); (err == nil) != tt.shared {
			t.Errorf("a ban of %v: %v", p, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, r := range []record.Record{banOf("a", attacker, minutes(1)), forgeable("b", attacker, minutes(2)),
		saidBy("c", record.Allow, netip.MustParsePrefix("2001:db8::/48"), start, time.Time{})} {
		data, err := record.Encode(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(r.Subject("acme"), data)
	}
	f.Fuzz(func(t *testing.T, subject string, data []byte) {
		key, err := record.ParseSubject("acme", subject)
		if err != nil {
			return
		}
		r, err := record.Decode(key, data)
		if err != nil {
			return
		}
		again, err := record.Encode(r)
		if err != nil || string(again) != string(data) || r.Subject("acme") != subject {
			t.Fatalf("%s %q is written as %s %q, %v", subject, data, r.Subject("acme"), again, err)
		}
		b := record.New("here", limits)
		if changed, err := b.Put(start, r); err == nil && changed {
			if v, ok := b.Ban(start, r.Prefix); ok && !v.Proven && r.Node != "here" {
				t.Fatalf("one node's word that could be forged bans: %+v", v)
			}
		}
	})
}
