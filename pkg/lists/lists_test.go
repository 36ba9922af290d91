package lists

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC)

func prefixes(entries []Entry) string {
	var s []string
	for _, e := range entries {
		s = append(s, e.Prefix().String())
	}
	return strings.Join(s, " ")
}

func TestParse(t *testing.T) {
	for name, test := range map[string]struct {
		format Format
		text   string
		want   string
	}{
		"plain": {Auto, "# VoIPBL\n198.51.100.7\n203.0.113.0/24 ; a comment\r\n\n192.0.2.1,sip,5\n",
			"192.0.2.1/32 198.51.100.7/32 203.0.113.0/24"},
		"a netset of FireHOL": {Netset, "#\n# ipv4 hash:net ipset\n#\n198.51.100.0/25\n203.0.113.9\n",
			"198.51.100.0/25 203.0.113.9/32"},
		"bits behind the length": {Plain, "198.51.100.7/24\n", "198.51.100.0/24"},
		"IPv4 in IPv6": {Plain, "::ffff:198.51.100.7\n::ffff:203.0.113.0/120\n",
			"198.51.100.7/32 203.0.113.0/24"},
		"an address twice":        {Plain, "198.51.100.7\n198.51.100.7/32\n", "198.51.100.7/32"},
		"both families":           {Plain, "2001:db8::/32\n198.51.100.7\n", "198.51.100.7/32 2001:db8::/32"},
		"a byte order mark":       {Auto, "\ufeff198.51.100.7\n", "198.51.100.7/32"},
		"Spamhaus":                {Auto, drop, "192.0.2.0/24 198.51.100.0/22"},
		"objects of another name": {NDJSON, `{"ip":"198.51.100.7"}`, "198.51.100.7/32"},
		"APIBAN":                  {Auto, `{"ipaddress":["198.51.100.7","203.0.113.9"],"ID":"1234567"}`, "198.51.100.7/32 203.0.113.9/32"},
		"APIBAN without news":     {Auto, `{"ipaddress":["no new bans"],"ID":"none"}`, ""},
		"CrowdSec":                {Auto, lapi, "198.51.100.7/32 203.0.113.0/24"},
		"CrowdSec, none":          {CrowdSec, `{"deleted":null,"new":null}`, ""},
		"CrowdSec as lines":       {CrowdSec, "198.51.100.7\n", "198.51.100.7/32"},
		"one bad line in thirty":  {Plain, strings.Repeat("198.51.100.7\n", 29) + "n/a\n", "198.51.100.7/32"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Parse(test.format, strings.NewReader(test.text), DefaultLimits(), noon)
			if err != nil {
				t.Fatal(err)
			}
			if got := prefixes(p.Entries); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

const drop = `{"cidr":"198.51.100.0/22","sblid":"SBL1","rir":"ripencc"}
{"cidr":"192.0.2.0/24","sblid":"SBL2","rir":"arin"}
{"type":"metadata","timestamp":1778068800,"size":120,"records":2,"copyright":"(c) 2026 The Spamhaus Project SLU","terms":"https://www.spamhaus.org/drop/terms/"}
`

const lapi = `{"deleted":[{"value":"192.0.2.1","scope":"Ip","type":"ban","duration":"-1h"}],"new":[
{"duration":"3h59m55.7s","id":1,"origin":"CAPI","scenario":"x","scope":"Ip","type":"ban","value":"198.51.100.7"},
{"duration":"1h","scope":"Range","type":"ban","value":"203.0.113.0/24"},
{"duration":"1h","scope":"Country","type":"ban","value":"XX"},
{"duration":"1h","scope":"Ip","type":"captcha","value":"192.0.2.5"},
{"duration":"-3s","scope":"Ip","type":"ban","value":"192.0.2.6"}]}`

func TestWhatAListSaysBesides(t *testing.T) {
	p, err := Parse(NDJSON, strings.NewReader(drop), DefaultLimits(), noon)
	if err != nil || !strings.Contains(p.Credit, "(c) 2026 The Spamhaus Project SLU, 2026-05-06") {
		t.Errorf("Spamhaus' credit: %+v, %v", p, err)
	}
	p, err = Parse(APIBAN, strings.NewReader(`{"ipaddress":[],"ID":"none"}`), DefaultLimits(), noon)
	if err != nil || p.Cursor != "" {
		t.Errorf("the end of APIBAN: %+v, %v", p, err)
	}
	p, err = Parse(CrowdSec, strings.NewReader(lapi), DefaultLimits(), noon)
	if err != nil || p.Entries[0].Ends() != noon.Add(3*time.Hour+59*time.Minute+55*time.Second).Local() {
		t.Errorf("the end of a decision: %v, %v", p.Entries[0].Ends(), err)
	}
}

func TestParseRefuses(t *testing.T) {
	small := Limits{Bytes: 1000, Line: 100, Entries: 10}
	for name, test := range map[string]struct {
		format Format
		text   string
		want   error
	}{
		"an error page":          {Auto, "<!DOCTYPE html>\n<title>503</title>\n", ErrNoList},
		"a sentence":             {Auto, "Too many requests, please slow down\n", ErrNoList},
		"JSON of another kind":   {Auto, `{"error":"unauthorized"}`, ErrNoList},
		"too many bytes":         {Plain, strings.Repeat("198.51.100.7\n", 100), ErrTooLarge},
		"too many bytes of JSON": {APIBAN, `{"ipaddress":[` + strings.Repeat(`"198.51.100.7",`, 100), ErrTooLarge},
		"an endless line":        {Plain, strings.Repeat("1", 500), ErrNoList},
		"too many entries":       {Plain, strings.Repeat("198.51.100.7\n", 11), ErrTooLarge},
		"NDJSON cut off": {NDJSON, strings.SplitAfterN(drop, "\n", 2)[0] + strings.SplitAfterN(drop, "\n",
			3)[2], ErrCut},
		"APIBAN cut off":             {APIBAN, `{"ipaddress":["198.51.100.7",`, ErrCut},
		"APIBAN's error":             {APIBAN, `{"message":"no key"}`, ErrNoList},
		"APIBAN with a strange ID":   {APIBAN, `{"ipaddress":[],"ID":"../../x"}`, ErrNoList},
		"LAPI cut off":               {CrowdSec, lapi[:200], ErrCut},
		"LAPI's error after the 200": {CrowdSec, `{"new":[], "error":"database is locked"}`, ErrNoList},
		"LAPI without decisions":     {CrowdSec, `{"deleted":[]}`, ErrNoList},
	} {
		t.Run(name, func(t *testing.T) {
			limits := small
			if test.want == ErrCut {
				limits = DefaultLimits()
			}
			_, err := Parse(test.format, strings.NewReader(test.text), limits, noon)
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func parsed(t *testing.T, text string) []Entry {
	t.Helper()
	p, err := Parse(Plain, strings.NewReader(strings.ReplaceAll(text, " ", "\n")), DefaultLimits(), noon)
	if err != nil {
		t.Fatal(err)
	}
	return p.Entries
}

func TestNoListNamesWhatIsNobodysOrTooMuch(t *testing.T) {
	list := parsed(t, "0.0.0.0/0 10.0.0.0/8 100.64.3.0/24 127.0.0.1 169.254.1.1 172.16.5.5 192.168.178.1 224.0.0.0/3 "+
		"255.255.255.255 128.0.0.0/2 198.51.0.0/16 203.0.113.9 172.15.0.1 fe80::1 fd00::/8 ff02::1 ::1 2000::/3 "+
		"2001:db8::1")
	kept, left := Clean(list, 10)
	if got := prefixes(kept); got != "172.15.0.1/32 198.51.0.0/16 203.0.113.9/32 2001:db8::1/128" {
		t.Errorf("kept %s", got)
	}
	if left.Count[Reserved] != 12 || left.Count[TooWide] != 3 || left.Total() != 15 {
		t.Errorf("left out %v", left.Count)
	}
}

func TestAListThatChangesTooMuchIsHeld(t *testing.T) {
	for _, test := range []struct {
		before, after int
		held          bool
	}{{0, 100_000, false}, {0, 0, false}, {100, 51, false}, {100, 50, true}, {100, 199, false}, {100, 200, true}, {100,
		0, true},
		{5, 0, true}, {5, 12, false}, {12, 5, false}, {10, 100, true}} {
		err := Accept(test.before, test.after)
		if (err != nil) != test.held {
			t.Errorf("from %d to %d: %v", test.before, test.after, err)
		}
	}
}

func TestMerge(t *testing.T) {
	all := []List{
		{"watched", false, parsed(t, "198.51.100.0/24 203.0.113.0/24 192.0.2.1")},
		{"first", true, parsed(t, "198.51.100.64/26 203.0.113.9 192.0.2.1 192.0.2.2")},
		{"second", true, parsed(t, "198.51.100.65 203.0.113.9 192.0.2.128/25 192.0.2.130 2001:db8::/32 "+
			"2001:db8:1::/48 2001:db9::1")},
	}
	exempt := []Exemption{{netip.MustParsePrefix("192.0.2.2/32"), "the office"},
		{netip.MustParsePrefix("2001:db9::/64"), "a trunk"}}
	m := Merge(all, exempt, noon)
	var got []string
	for e := range m.Elements() {
		s := e.From.String()
		if e.From != e.To {
			s += "-" + e.To.String()
		}
		got = append(got, s+" "+all[e.List].Name)
	}
	want := []string{
		"192.0.2.1 first", "203.0.113.9 first",
		"192.0.2.128-192.0.2.255 second",
		"198.51.100.0-198.51.100.63 watched", "198.51.100.64-198.51.100.127 first",
		"198.51.100.128-198.51.100.255 watched",
		"203.0.113.0-203.0.113.255 watched",
		"2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff second",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if l := m.LeftOut(1); l.Count[Exempt] != 1 || l.Sample[0].Of != "the office" {
		t.Errorf("left out of the first: %+v", l)
	}
	if l := m.LeftOut(2); l.Count[Exempt] != 1 || l.Sample[0].Of != "a trunk" {
		t.Errorf("left out of the second: %+v", l)
	}
	for address, name := range map[string]string{"203.0.113.9": "first", "203.0.113.8": "watched",
		"198.51.100.65": "first",
		"198.51.100.1":  "watched", "::ffff:192.0.2.129": "second", "2001:db8:1::1": "second", "192.0.2.2": "",
		"8.8.8.8": ""} {
		list, ok := m.Find(netip.MustParseAddr(address))
		if ok != (name != "") || ok && all[list].Name != name {
			t.Errorf("%s is on %d, %v; want %q", address, list, ok, name)
		}
	}
	if p, ok := Holding(all[0].Entries, netip.MustParseAddr("198.51.100.65"),
		noon); !ok || p.String() != "198.51.100.0/24" {
		t.Errorf("held by %v, %v", p, ok)
	}
}

func TestWhatIsOverIsNotMerged(t *testing.T) {
	list := []Entry{NewEntry(netip.MustParsePrefix("192.0.2.1/32"), noon),
		NewEntry(netip.MustParsePrefix("192.0.2.2/32"), noon.Add(time.Second))}
	m := Merge([]List{{"a", true, list}}, nil, noon)
	if _, ok := m.Find(netip.MustParseAddr("192.0.2.1")); ok || m.Len() != 1 {
		t.Errorf("%d elements", m.Len())
	}
	if _, ok := Holding(list, netip.MustParseAddr("192.0.2.1"), noon); ok {
		t.Error("what is over is held")
	}
}

// What a merge says of an address is what its rules say of each list, whatever nests in what.
func TestMergeAgreesWithItsLists(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 4))
	for range 300 {
		var all []List
		for i := range 3 {
			var entries []Entry
			for range r.IntN(6) {
				a := netip.AddrFrom4([4]byte{198, 51, 100, byte(r.IntN(32))})
				p, _ := a.Prefix(27 + r.IntN(6))
				entries = append(entries, NewEntry(p, time.Time{}))
			}
			slices.SortFunc(entries, Entry.compare)
			all = append(all, List{fmt.Sprint(i), r.IntN(2) == 0, entries})
		}
		exempt := []Exemption{{netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(r.IntN(32))}), 32), "x"}}
		m := Merge(all, exempt, noon)
		for i := range 32 {
			a := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
			want := -1
			for i, l := range all {
				holds := slices.ContainsFunc(l.Entries, func(e Entry) bool {
					return e.Prefix().Contains(a) && !e.Prefix().Contains(exempt[0].Prefix.Addr())
				})
				if holds && (want < 0 || l.Enforce && !all[want].Enforce) {
					want = i
				}
			}
			got, ok := m.Find(a)
			if !ok {
				got = -1
			}
			if got != want {
				t.Fatalf("%s is on %d, want %d, of %v but %v", a, got, want, all, exempt)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"198.51.100.7\n203.0.113.0/24 # x\n", drop, lapi, `{"ipaddress":["198.51.100.7"],"ID":"100"}`,
		"::ffff:1.2.3.4/100\n", "<html>", "\ufeff#\n"} {
		for i := range Formats() {
			f.Add(byte(i), s)
		}
	}
	limits := Limits{Bytes: 4000, Line: 200, Entries: 50}
	f.Fuzz(func(t *testing.T, format byte, text string) {
		p, err := Parse(Formats()[int(format)%len(Formats())], strings.NewReader(text), limits, noon)
		if err != nil {
			return
		}
		if len(text) > 4000 || len(p.Entries) > limits.Entries {
			t.Fatalf("%d bytes and %d entries were read", len(text), len(p.Entries))
		}
		if !slices.IsSortedFunc(p.Entries, Entry.compare) {
			t.Fatalf("not sorted: %s", prefixes(p.Entries))
		}
		for _, e := range p.Entries {
			if q := e.Prefix(); !q.IsValid() || q != q.Masked() || q.Addr().Is4In6() || NewEntry(q, e.Ends()) != e {
				t.Fatalf("%v", e)
			}
		}
		kept, _ := Clean(slices.Clone(p.Entries), 10)
		m := Merge([]List{{"a", true, kept}}, nil, noon)
		for _, e := range kept {
			if _, ok := m.Find(e.addr()); !ok && !e.isOver(noon) {
				t.Fatalf("%s is not in force", e.Prefix())
			}
			if p := e.Prefix(); p.Contains(netip.MustParseAddr("192.168.1.1")) || p.Contains(netip.MustParseAddr("::1")) {
				t.Fatalf("%s is in force", p)
			}
		}
	})
}
