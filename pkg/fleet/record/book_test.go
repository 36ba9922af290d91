package record_test

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/fleet/record"
	"github.com/ringwall/ringwall/pkg/internal/property"
)

var start = time.Date(2031, 3, 4, 5, 6, 7, 0, time.UTC)

func minutes(n int) time.Time { return start.Add(time.Duration(n) * time.Minute) }

var limits = record.Limits{Quorum: 2, IPv4Bits: 24, IPv6Bits: 48, Rate: 60, Records: 1000, Nodes: 100}

var attacker = netip.MustParsePrefix("198.51.100.7/32")

// banOf is a ban with proof, from the start on.
func banOf(node string, p netip.Prefix, until time.Time) record.Record {
	return record.Record{Key: record.Key{Node: node, Kind: record.Ban, Prefix: p}, Made: start, Until: until,
		Reason: ban.ReasonUnknownAccount, Proven: true}
}

// forgeable is a ban on what could be forged.
func forgeable(node string, p netip.Prefix, until time.Time) record.Record {
	r := banOf(node, p, until)
	r.Proven, r.Closes = false, ban.ClosesUDP
	return r
}

func saidBy(node string, kind record.Kind, p netip.Prefix, made, until time.Time) record.Record {
	return record.Record{Key: record.Key{Node: node, Kind: kind, Prefix: p}, Made: made, Until: until}
}

// bookOf is what the node "here" makes of records at the start.
func bookOf(t testing.TB, list ...record.Record) *record.Book {
	t.Helper()
	b := record.New("here", limits)
	for _, r := range list {
		if _, err := b.Put(start, r); err != nil {
			t.Fatalf("%v: %v", &r, err)
		}
	}
	return b
}

func TestWhomAFleetBans(t *testing.T) {
	withdrawn := banOf("a", attacker, minutes(60))
	withdrawn.Made, withdrawn.Withdrawn = start.Add(1), true
	again := banOf("a", attacker, minutes(20))
	again.Made = minutes(2)
	for _, tt := range []struct {
		name  string
		said  []record.Record
		until time.Time // zero: nobody is banned
	}{
		{"nobody said anything", nil, time.Time{}},
		{"one node has proof", []record.Record{banOf("a", attacker, minutes(60))}, minutes(60)},
		{"the longest ban wins", []record.Record{banOf("a", attacker, minutes(60)), banOf("b", attacker, minutes(90))},
			minutes(90)},
		{"one forged packet at one node", []record.Record{forgeable("a", attacker, minutes(60))}, time.Time{}},
		{"one forged packet, told twice",
			[]record.Record{forgeable("a", attacker, minutes(60)), forgeable("a", attacker, minutes(61))}, time.Time{}},
		{"two nodes saw it, while both say so",
			[]record.Record{forgeable("a", attacker, minutes(60)), forgeable("b", attacker, minutes(30))}, minutes(30)},
		{"of three the longest two count", []record.Record{forgeable("a", attacker, minutes(60)),
			forgeable("b", attacker, minutes(30)), forgeable("c", attacker, minutes(50))}, minutes(50)},
		{"what the node itself saw counts",
			[]record.Record{forgeable("a", attacker, minutes(60)), forgeable("here", attacker, minutes(30))},
			minutes(30)},
		{"proof at one is enough where others have none",
			[]record.Record{forgeable("a", attacker, minutes(60)), banOf("b", attacker, minutes(30))}, minutes(30)},
		{"an unban beats what was before it, whoever said it", []record.Record{banOf("a", attacker, minutes(60)),
			saidBy("b", record.Unban, attacker, start.Add(1), minutes(60))}, time.Time{}},
		{"an unban of the same moment, too", []record.Record{banOf("a", attacker, minutes(60)),
			saidBy("b", record.Unban, attacker, start, minutes(60))}, time.Time{}},
		{"a ban after an unban, though it is shorter", []record.Record{banOf("a", attacker, minutes(60)),
			saidBy("b", record.Unban, attacker, minutes(1), minutes(60)), again}, minutes(20)},
		{"an unban of its network lifts no ban of an address", []record.Record{banOf("a", attacker, minutes(60)),
			saidBy("b", record.Unban, netip.MustParsePrefix("198.51.100.0/24"), minutes(1), minutes(60))}, minutes(60)},
		{"a grace", []record.Record{banOf("a", attacker, minutes(60)),
			saidBy("b", record.Grace, attacker, start, minutes(10))}, time.Time{}},
		{"a ban that its node took back", []record.Record{banOf("a", attacker, minutes(60)), withdrawn}, time.Time{}},
		{"what came late of a ban that its node took back",
			[]record.Record{withdrawn, banOf("a", attacker, minutes(60))}, time.Time{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := bookOf(t, tt.said...)
			v, banned := b.Ban(start, attacker)
			if banned != !tt.until.IsZero() || banned && !v.Until.Equal(tt.until) {
				t.Errorf("banned: %v, until %v; want until %v", banned, v.Until, tt.until)
			}
			if banned && (v.Proven != (v.Closes == ban.ClosesAll)) {
				t.Errorf("proven: %v, and it closes %v", v.Proven, v.Closes)
			}
		})
	}
}

func TestABanEndsByItself(t *testing.T) {
	b := bookOf(t, banOf("a", attacker, minutes(10)), forgeable("b", attacker, minutes(60)),
		forgeable("c", attacker, minutes(30)))
	for _, tt := range []struct {
		at     int
		proven bool
		until  int
	}{{0, true, 10}, {9, true, 10}, {10, false, 30}, {29, false, 30}} {
		v, ok := b.Ban(minutes(tt.at), attacker)
		if !ok || v.Proven != tt.proven || !v.Until.Equal(minutes(tt.until)) {
			t.Errorf("after %d minutes: %v, proven %v until %v; want proven %v until %v", tt.at, ok, v.Proven, v.Until,
				tt.proven, minutes(tt.until))
		}
	}
	if v, ok := b.Ban(minutes(30), attacker); ok {
		t.Errorf("one node alone says so, and still: %+v", v)
	}
	if about, _ := b.Expire(minutes(9), 100); about != nil {
		t.Errorf("told early of %v", about)
	}
	if about, _ := b.Expire(minutes(10), 100); !reflect.DeepEqual(about, []netip.Prefix{attacker}) {
		t.Errorf("told at the end of the first of %v", about)
	}
	b.Expire(minutes(200), 100)
	if b.Len() != 0 || len(b.Prefixes()) != 0 {
		t.Errorf("%d records are kept that are long over", b.Len())
	}
}

// A clock that is wrong by minutes does no harm: who has heard a word speaks after it.
func TestClocksThatDiffer(t *testing.T) {
	ahead := banOf("ahead", attacker, minutes(70))
	ahead.Made = minutes(10) // by its clock; here it is the start
	b := bookOf(t, ahead)
	unban := saidBy("here", record.Unban, attacker, b.Stamp(start, attacker), b.LastEnd(attacker))
	if _, err := b.Put(start, unban); err != nil {
		t.Fatal(err)
	}
	if v, ok := b.Ban(start, attacker); ok {
		t.Errorf("banned after the unban: %+v", v)
	}
	again := banOf("behind", attacker, minutes(60)) // its clock is 4 minutes behind, and it has heard the unban
	there := record.New("behind", limits)
	for _, r := range []record.Record{ahead, unban} {
		if _, err := there.Put(start.Add(-4*time.Minute), r); err != nil {
			t.Fatal(err)
		}
	}
	again.Made = there.Stamp(start.Add(-4*time.Minute), attacker)
	if _, err := b.Put(start, again); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.Ban(start, attacker); !ok {
		t.Error("who attacks after the unban is not banned")
	}
}

func TestBounds(t *testing.T) {
	early := banOf("a", attacker, minutes(100))
	early.Made = start.Add(record.MaxAhead + 1)
	for _, tt := range []struct {
		name string
		said record.Record
		want error
	}{
		{"the widest", banOf("a", netip.MustParsePrefix("198.51.100.0/24"), minutes(1)), nil},
		{"wider", banOf("a", netip.MustParsePrefix("198.51.100.0/23"), minutes(1)), record.ErrWide},
		{"half of all", banOf("a", netip.MustParsePrefix("128.0.0.0/1"), minutes(1)), record.ErrWide},
		{"an unban of half of all", saidBy("a", record.Unban, netip.MustParsePrefix("128.0.0.0/1"), start, minutes(1)),
			record.ErrWide},
		{"IPv6", banOf("a", netip.MustParsePrefix("2001:db8:7::/48"), minutes(1)), nil},
		{"wider IPv6", banOf("a", netip.MustParsePrefix("2001:db8::/47"), minutes(1)), record.ErrWide},
		{"trust of a source", saidBy("a", record.Trust, attacker, start, minutes(1)), nil},
		{"trust of a network", saidBy("a", record.Trust, netip.MustParsePrefix("198.51.100.0/24"), start, minutes(1)),
			record.ErrWide},
		{"tomorrow's", early, record.ErrClock},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := record.New("here", limits)
			changed, err := b.Put(start, tt.said)
			if !errors.Is(err, tt.want) || changed != (tt.want == nil) {
				t.Errorf("changed: %v, %v; want %v", changed, err, tt.want)
			}
			if tt.want != nil && b.Nodes(start)[0].Refused[tt.want.Error()] != 1 {
				t.Errorf("counted as %v", b.Nodes(start)[0].Refused)
			}
		})
	}
}

// Nodes that somebody invents together fill what is kept, and no more; this node's own word has room all the same.
func TestManyNodesTogetherHaveABound(t *testing.T) {
	few := limits
	few.Records, few.Nodes = 10, 1000
	b := record.New("here", few)
	full := 0
	for i := range 50 * few.Records {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{20, 0, byte(i >> 8), byte(i)}), 32)
		if _, err := b.Put(start, banOf(fmt.Sprintf("n%d", i/few.Records), p, minutes(60))); errors.Is(err, record.ErrTotal) {
			full++
		}
	}
	if want := 20 * few.Records; b.Len() != want || full != 50*few.Records-want {
		t.Errorf("%d records are kept, %d refused for that; want %d kept", b.Len(), full, want)
	}
	if changed, err := b.PutOwn(start, banOf("here", attacker, minutes(60))); !changed || err != nil {
		t.Errorf("this node's own: %v, %v", changed, err)
	}
}

func TestAHostileNodeHasItsBoundAndNoMore(t *testing.T) {
	b := record.New("here", limits)
	taken, refused := 0, 0
	for i := range 20 * limits.Records {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
		switch changed, err := b.Put(start, banOf("hostile", p, minutes(60))); {
		case changed:
			taken++
		case errors.Is(err, record.ErrRate), errors.Is(err, record.ErrRecords):
			refused++
		}
	}
	if taken != limits.Records || taken+refused != 20*limits.Records {
		t.Errorf("%d are taken, %d refused; want %d taken", taken, refused, limits.Records)
	}
	if _, err := b.Put(start, banOf("honest", attacker, minutes(60))); err != nil {
		t.Errorf("another node pays for it: %v", err)
	}
	for i := range 2 * limits.Nodes {
		_, _ = b.Put(start, banOf(fmt.Sprintf("n%d", i), attacker, minutes(1)))
	}
	if n := len(b.Nodes(start)); n != limits.Nodes {
		t.Errorf("%d nodes are kept, want %d", n, limits.Nodes)
	}
	about := b.Forget("hostile")
	if len(about) != limits.Records {
		t.Errorf("forgetting the node is about %d prefixes", len(about))
	}
	if _, ok := b.Ban(start, about[0]); ok {
		t.Error("what it said holds after it was forgotten")
	}
	if _, ok := b.Ban(start, attacker); !ok {
		t.Error("what another one said is gone with it")
	}
}

// A node that changes its word all the time gets no more than its rate.
func TestRate(t *testing.T) {
	b := record.New("here", limits)
	now, taken := start, 0
	for i := range 3 * limits.Records {
		r := banOf("a", attacker, minutes(60))
		r.Made = start.Add(time.Duration(i))
		if changed, _ := b.Put(now, r); changed {
			taken++
		}
	}
	if taken != limits.Records {
		t.Errorf("%d are taken at once, want %d", taken, limits.Records)
	}
	now, taken = minutes(2), 0
	for i := range limits.Records {
		r := banOf("a", attacker, minutes(60))
		r.Made = now.Add(time.Duration(i))
		if changed, _ := b.Put(now, r); changed {
			taken++
		}
	}
	if want := int(2 * limits.Rate); taken != want {
		t.Errorf("%d are taken two minutes later, want %d", taken, want)
	}
}

func TestWhatIsSentAgainAfterTheServerLostIt(t *testing.T) {
	withdrawn := saidBy("here", record.Allow, netip.MustParsePrefix("192.0.2.0/24"), start, minutes(60))
	withdrawn.Withdrawn = true
	lifted := banOf("here", netip.MustParsePrefix("192.0.2.9/32"), minutes(60))
	unban := saidBy("b", record.Unban, lifted.Prefix, minutes(1), minutes(60))
	b := bookOf(t, banOf("here", attacker, minutes(60)), banOf("b", attacker, minutes(60)), withdrawn, lifted, unban)
	var got []string
	for _, r := range b.Own(start) {
		got = append(got, r.String())
	}
	want := []string{"allow of 192.0.2.0/24 by here", "ban of 198.51.100.7/32 by here"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func anyRecord(t *property.T) record.Record {
	prefixes := []netip.Prefix{attacker, netip.MustParsePrefix("2001:db8:5:6::/64")}
	r := record.Record{
		Key: record.Key{Node: property.OneOf(t, "a", "b", "here"), Kind: property.OneOf(t, record.Kinds()...),
			Prefix: property.OneOf(t, prefixes...)},
		Made:  start.Add(time.Duration(property.Int(t, 0, 5)) * time.Second),
		Until: minutes(property.Int(t, -30, 30)),
	}
	r.Withdrawn = r.Kind != record.Unban && property.Int(t, 0, 3) == 0
	if r.Kind == record.Allow && property.Bool(t) {
		r.Until = time.Time{}
	}
	if r.Kind == record.Ban {
		r.Reason = property.OneOf(t, ban.ReasonScanner, ban.ReasonManual)
		if r.Proven = property.Bool(t); !r.Proven {
			r.Closes = ban.ClosesUDP
		}
		r.Evidence = property.OneOf(t, "", "3 attempts")
	}
	return r
}

// view is all that follows from a book.
func view(b *record.Book) (out []string) {
	for _, p := range b.Prefixes() {
		v, ok := b.Ban(start, p)
		out = append(out, fmt.Sprint(p, ok, v, b.About(p)))
	}
	return out
}

func TestTheOrderOfRecordsDoesNotMatter(t *testing.T) {
	property.Check(t, func(t *property.T) {
		list := make([]record.Record, property.Count(t, 1, 40))
		for i := range list {
			list[i] = anyRecord(t)
		}
		once := bookOf(t, list...)
		again := append([]record.Record(nil), list...)
		again = append(again, list[:property.Int(t, 0, len(list))]...) // some are told twice
		for i := range again {
			j := property.Int(t, 0, i)
			again[i], again[j] = again[j], again[i]
		}
		other := bookOf(t, again...)
		if !reflect.DeepEqual(view(once), view(other)) {
			t.Errorf("%v\n%v\nfollow from the same records in another order:\n%v", view(once), view(other), list)
		}
		for _, r := range list {
			if changed, err := other.Put(start, r); changed || err != nil {
				t.Errorf("%v was known, and still changed something: %v", &r, err)
			}
		}
		if once.Len() != other.Len() {
			t.Errorf("%d and %d records are counted", once.Len(), other.Len())
		}
	})
}

// Two that merged each other's records say the same as one that heard all of them.
func TestTwoBooksMerge(t *testing.T) {
	property.Check(t, func(t *property.T) {
		var all, left, right []record.Record
		for range property.Count(t, 1, 40) {
			r := anyRecord(t)
			all = append(all, r)
			if property.Bool(t) {
				left = append(left, r)
			} else {
				right = append(right, r)
			}
		}
		merged, from := bookOf(t, left...), bookOf(t, right...)
		for _, p := range from.Prefixes() {
			for _, r := range from.About(p) {
				if _, err := merged.Put(start, r); err != nil {
					t.Fatal(err)
				}
			}
		}
		if a, b := view(bookOf(t, all...)), view(merged); !reflect.DeepEqual(a, b) {
			t.Errorf("%v\n%v\nfollow from:\n%v", a, b, all)
		}
	})
}

func TestNothingIsCountedTwiceOrLost(t *testing.T) {
	property.Check(t, func(t *property.T) {
		b := record.New("here", limits)
		now := start
		for range property.Count(t, 1, 100) {
			switch property.Int(t, 0, 9) {
			case 0:
				now = now.Add(time.Duration(property.Int(t, 0, 20)) * time.Minute)
				b.Expire(now, property.Int(t, 1, 10))
			case 1:
				b.Forget(property.OneOf(t, "a", "b"))
			default:
				_, _ = b.Put(now, anyRecord(t))
			}
			count, ofNodes := 0, 0
			for _, p := range b.Prefixes() {
				count += len(b.About(p))
			}
			for _, n := range b.Nodes(start) {
				ofNodes += n.Records
			}
			if b.Len() != count || ofNodes != count {
				t.Fatalf("%d records, counted as %d, of nodes as %d", count, b.Len(), ofNodes)
			}
		}
		for more := true; more; {
			_, more = b.Expire(now.Add(3*time.Hour), 10)
		}
		for _, p := range b.Prefixes() {
			for _, r := range b.About(p) {
				if !r.Until.IsZero() {
					t.Fatalf("%v is kept though it is over", &r)
				}
			}
		}
	})
}

// What a node saw itself holds until somebody lifts it, and again once his word is void.
func TestOwnBansThatNobodyLifted(t *testing.T) {
	own := banOf("here", attacker, minutes(60))
	for _, tt := range []struct {
		name string
		said []record.Record
		want bool
	}{
		{"alone", nil, true},
		{"lifted before", []record.Record{saidBy("a", record.Unban, attacker, minutes(-1), minutes(60))}, true},
		{"lifted", []record.Record{saidBy("a", record.Unban, attacker, minutes(1), minutes(60))}, false},
		{"left in peace", []record.Record{saidBy("a", record.Grace, attacker, minutes(1), minutes(60))}, false},
		{"trusted elsewhere", []record.Record{saidBy("a", record.Trust, attacker, minutes(1), minutes(60))}, true},
	} {
		b := bookOf(t, append(tt.said, own)...)
		if got := len(b.OwnBans(minutes(2))) == 1; got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		b.Forget("a")
		if len(b.OwnBans(minutes(2))) != 1 {
			t.Errorf("%s: it does not hold once that word is void", tt.name)
		}
		if len(b.OwnBans(minutes(61))) != 0 {
			t.Errorf("%s: it holds beyond its end", tt.name)
		}
	}
	b := bookOf(t, own)
	b.LiftHere(attacker, record.Lift{Made: minutes(1), Until: minutes(60)})
	if len(b.OwnBans(minutes(2))) != 0 {
		t.Error("it holds though a person lifted it here")
	}
}
