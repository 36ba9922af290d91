package firewall

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestDryRunSpeaksNft(t *testing.T) {
	var said []string
	d := NewDryRun(func(s string) { said = append(said, s) })
	ensure(t, d, Created)
	ensure(t, d, Adopted)
	apply(t, d, ban("192.0.2.1", time.Hour), ban("192.0.2.9/24", 90*time.Minute),
		ban("2001:db8::1/64", 26*time.Hour+3*time.Second),
		ban("::ffff:10.0.0.0/104", time.Second), Change{Kind: Allow, Prefix: pfx("fd00::/8")}, unban("198.51.100.1"),
		unban("192.0.2.1"))
	if err := d.DeleteTable(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"add table inet ringwall",
		"add element inet ringwall ban4 { 192.0.2.1 timeout 1h }",
		"add element inet ringwall ban4_24 { 192.0.2.0 timeout 1h30m }",
		"add element inet ringwall ban6_64 { 2001:db8:: timeout 1d2h3s }",
		"add element inet ringwall net4 { 10.0.0.0/8 timeout 1s }",
		"add element inet ringwall allow6 { fd00::/8 }",
		"delete element inet ringwall ban4 { 192.0.2.1 }",
		"delete table inet ringwall",
	}
	if !slices.Equal(said, want) {
		t.Errorf("said\n%q\nwant\n%q", said, want)
	}
}

// TestNftTakesWhatDryRunSays feeds the words to nft itself.
func TestNftTakesWhatDryRunSays(t *testing.T) {
	s := newSpace(t)
	fw := ensured(t, testConfig(s))
	d := NewDryRun(func(line string) { s.command(t, "nft '"+line+"'") })
	apply(t, d, ban("192.0.2.1", time.Hour), ban("192.0.2.9/24", 90*time.Minute), ban("2001:db8::1/64", 26*time.Hour),
		ban("10.0.0.0/8", 30*time.Second), Change{Kind: Allow, Prefix: pfx("fd00::/8")})
	ensure(t, fw, Adopted)
	for _, k := range []Kind{Ban, Allow} {
		list, err := d.Elements(k)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			holds(t, fw, k, e.Prefix.String(), e.Timeout)
		}
	}
}

func TestDryRunForgetsWhatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDryRun(nil)
		apply(t, d, ban("192.0.2.1", time.Minute), ban("192.0.2.2", time.Hour))
		apply(t, d, ban("192.0.2.2", 2*time.Hour))
		time.Sleep(time.Minute)
		lacks(t, d, Ban, "192.0.2.1")
		got, err := d.Elements(Ban)
		if err != nil || len(got) != 1 || got[0].Remaining != 2*time.Hour-time.Minute {
			t.Errorf("%+v, %v", got, err)
		}
		for _, c := range []Change{ban("192.0.2.1", 0), {Kind: Trust, Prefix: pfx("10.0.0.0/8"), Timeout: time.Hour}} {
			if err := d.Apply([]Change{c}); err == nil {
				t.Errorf("%s was taken", c)
			}
		}
	})
}

func TestDryRunIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDryRun(nil)
		d.cfg.MaxElements = 2000
		apply(t, d, many(1500, time.Minute)...)
		time.Sleep(time.Minute)
		var more []Change
		for i := range 2010 {
			more = append(more, ban(fmt.Sprintf("172.16.%d.%d", i>>8, i&255), time.Hour))
		}
		var full *FullError
		if err := d.Apply(more); !errors.As(err, &full) || len(full.Refused) != 10 {
			t.Errorf("%v", err)
		}
		if d.countLocked() != 2000 {
			t.Errorf("%d are held", d.countLocked())
		}
	})
}
