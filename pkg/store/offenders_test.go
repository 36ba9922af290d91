package store

import (
	"errors"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// onlyBan is a ban of an hour.
func onlyBan(number int) ban.Ban {
	p := host(1)
	return ban.Ban{Prefix: p, Source: p.Addr(), Since: start, Until: start.Add(time.Hour), Reason: "unknown_account",
		Number: number}
}

func byHand(b ban.Ban) ban.Ban {
	b.Manual = true
	return b
}

func TestABanThatCountsTellsOfItsSource(t *testing.T) {
	end := start.Add(time.Hour)
	offender := func(bans int, last time.Time) Change {
		return PutOffender(ban.Offender{Prefix: host(1), Bans: bans, Last: last})
	}
	type loads []time.Duration // after start
	for _, row := range []struct {
		name    string
		changes []Change
		at      loads
		want    ban.Offender
	}{
		{"while it lasts", []Change{PutBan(onlyBan(2))}, loads{0}, ban.Offender{Bans: 2, Last: end}},
		{"when it is over", []Change{PutBan(onlyBan(2))}, loads{30 * time.Hour}, ban.Offender{Bans: 2, Last: end}},
		{"after it is removed", []Change{PutBan(onlyBan(2))}, loads{50 * time.Hour, 51 * time.Hour},
			ban.Offender{Bans: 2, Last: end}},
		{"after it is removed, and for as long as is remembered", []Change{PutBan(onlyBan(2))},
			loads{50 * time.Hour, 721*time.Hour - 1},
			ban.Offender{Bans: 2, Last: end}},
		{"and no longer", []Change{PutBan(onlyBan(2))}, loads{50 * time.Hour, 721 * time.Hour}, ban.Offender{}},
		{"unless it is over for too long", []Change{PutBan(onlyBan(2))}, loads{721 * time.Hour}, ban.Offender{}},
		{"and is not forgotten by a load after the memory", []Change{PutBan(onlyBan(2))},
			loads{721 * time.Hour, 700 * time.Hour}, ban.Offender{}},
		{"unless a person made it", []Change{PutBan(byHand(onlyBan(2)))}, loads{0}, ban.Offender{}},
		{"removed, unless a person made it", []Change{PutBan(byHand(onlyBan(2)))},
			loads{50 * time.Hour, 51 * time.Hour}, ban.Offender{}},
		{"beside a record that says the same", []Change{PutBan(onlyBan(2)), offender(2, end)}, loads{0},
			ban.Offender{Bans: 2, Last: end}},
		{"beside a record of before", []Change{PutBan(onlyBan(2)), offender(1, start.Add(-time.Hour))}, loads{0},
			ban.Offender{Bans: 2, Last: end}},
		{"removed, beside a record of before", []Change{PutBan(onlyBan(2)), offender(1, start.Add(-time.Hour))},
			loads{50 * time.Hour, 51 * time.Hour}, ban.Offender{Bans: 2, Last: end}},
		{"beside a worse record", []Change{PutBan(onlyBan(2)), offender(5, end.Add(time.Hour))}, loads{0},
			ban.Offender{Bans: 5, Last: end.Add(time.Hour)}},
		{"removed, beside a worse record", []Change{PutBan(onlyBan(2)), offender(5, end.Add(time.Hour))},
			loads{50 * time.Hour, 51 * time.Hour}, ban.Offender{Bans: 5, Last: end.Add(time.Hour)}},
		{"removed, beside a record of more bans and an earlier end", []Change{PutBan(onlyBan(2)), offender(5, start)},
			loads{50 * time.Hour, 51 * time.Hour}, ban.Offender{Bans: 5, Last: end}},
		{"beside a record that is over", []Change{PutBan(onlyBan(1)), offender(5, start.Add(-720*time.Hour))}, loads{0},
			ban.Offender{Bans: 1, Last: end}},
		{"removed, beside a record that is over", []Change{PutBan(onlyBan(1)), offender(5, start.Add(-720*time.Hour))},
			loads{50 * time.Hour, 51 * time.Hour}, ban.Offender{Bans: 1, Last: end}},
		{"removed, beside a record that is over for days",
			[]Change{PutBan(onlyBan(1)), offender(5, start.Add(-800*time.Hour))},
			loads{50 * time.Hour, 51 * time.Hour}, ban.Offender{Bans: 1, Last: end}},
		{"made in the future", []Change{PutBan(onlyBan(2))}, loads{-24 * time.Hour},
			ban.Offender{Bans: 2, Last: end.Add(-24 * time.Hour)}},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := statePath(t)
			save(t, path, row.changes...)
			var state State
			for _, after := range row.at {
				s, _ := mustOpen(t, path, Options{Counts: countsInTests})
				stop := runs(t, s)
				state = mustLoad(t, s, start.Add(after))
				if err := stop(); err != nil {
					t.Fatal(err)
				}
			}
			want := make(map[netip.Prefix]ban.Offender)
			if row.want.Bans > 0 {
				row.want.Prefix = host(1)
				want[host(1)] = row.want
			}
			if got := worst(state.Offenders); !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if state, _ := load(t, path, start); len(row.at) > 1 && len(state.Bans) != 0 {
				t.Errorf("the ban is still in the file: %+v", state)
			}
		})
	}
}

func TestWithoutCountsNoBanTellsOfItsSource(t *testing.T) {
	path := statePath(t)
	save(t, path, PutBan(onlyBan(2)))
	if state, _ := load(t, path, start); len(state.Bans) != 1 || len(state.Offenders) != 0 {
		t.Errorf("%+v", state)
	}
}

// A batch of many records takes several transactions. Whichever is the last before a crash, it is known of every source
// that it was banned: of those whose bans end, and of those whose bans a person extends.
func TestACrashBetweenTransactionsForgetsNobody(t *testing.T) {
	const n = 3 * chunkRecords / 2
	s, _ := mustOpen(t, statePath(t), Options{Counts: countsInTests})
	changes := make([]Change, 0, 2*n)
	want := make(map[netip.Prefix]ban.Offender)
	for i := range n {
		b := sampleBan(i, 0)
		changes = append(changes, PutBan(b))
		want[b.Prefix] = ban.Offender{Prefix: b.Prefix, Bans: b.Number, Last: b.Until}
	}
	batchOf := func(changes []Change) *batch {
		q := newQueue()
		for _, c := range changes {
			q.putRecord(c.record, len(changes))
		}
		b := q.allWaiting()
		return &b
	}
	write := func(q *batch) {
		t.Helper()
		if err := s.writeChunk(s.file, q); err != nil {
			t.Fatal(err)
		}
	}
	for q := batchOf(changes); q.len() > 0; {
		write(q)
	}
	changes = changes[:0]
	for i := range n {
		b := sampleBan(i, 0)
		if i%2 == 0 {
			changes = append(changes, DropBan(b.Prefix))
		} else {
			changes = append(changes, PutBan(byHand(b)))
		}
		changes = append(changes, PutOffender(want[b.Prefix]))
	}
	q := batchOf(changes)
	transactions := 0
	for ; q.len() > 0; transactions++ {
		write(q)
		got := worst(mustLoad(t, s, start).Offenders)
		if !maps.Equal(got, want) {
			t.Fatalf("after transaction %d it is known of %d sources that they were banned, of %d", transactions+1,
				len(got), n)
		}
	}
	if transactions < 3 {
		t.Errorf("%d transactions: too few to be between", transactions)
	}
	if state := mustLoad(t, s, start); len(state.Bans) != n/2 {
		t.Errorf("%d bans are left, want %d", len(state.Bans), n/2)
	}
}

// Records of all kinds in one batch find their buckets, in whatever order they came.
func TestABatchOfAllKindsIsWritten(t *testing.T) {
	path := statePath(t)
	var changes []Change
	for i := range 20 {
		changes = append(changes, PutGrace(ban.Grace{Prefix: host(i), Since: start, Until: start.Add(time.Hour)}),
			PutBan(sampleBan(i, 1)),
			PutAllow(Allow{Host: "a-rather-long-name-of-a-host.example" + string(rune('a'+i))}),
			PutAllow(Allow{Prefix: host(i)}),
			PutTrust(ban.Trust{Prefix: host(i), Since: start, Until: start.Add(time.Hour), Last: start}),
			PutOffender(ban.Offender{Prefix: host(i), Bans: 1, Last: start}),
			dropChange(kindOffender, prefixKey(host(100+i))))
	}
	save(t, path, changes...)
	state, _ := load(t, path, start)
	if len(state.Bans) != 20 || len(state.Offenders) != 20 || len(state.Trusts) != 20 || len(state.Allow) != 40 ||
		len(state.Graces) != 20 {
		t.Errorf("%d bans, %d offenders, %d trusted, %d allowed, %d graces", len(state.Bans), len(state.Offenders),
			len(state.Trusts),
			len(state.Allow), len(state.Graces))
	}
}

// Names of IPv4 and IPv6, and of host names, are never taken for one another.
func TestChangesOfRecordsWithSimilarNamesAreApart(t *testing.T) {
	s, _ := mustOpen(t, statePath(t), Options{})
	all := []Change{
		DropBan(netip.MustParsePrefix("0.0.0.0/0")), DropBan(netip.MustParsePrefix("::/0")),
		DropBan(netip.MustParsePrefix("0.0.0.0/1")),
		dropChange(kindOffender, prefixKey(netip.MustParsePrefix("::/0"))),
		dropChange(kindGrace, prefixKey(netip.MustParsePrefix("::/0"))),
		DropAllow(netip.MustParsePrefix("::/0"), ""), DropAllow(netip.Prefix{}, "h"),
		DropAllow(netip.Prefix{}, "h\x00"),
		DropAllow(netip.Prefix{}, "a-host-name-longer-than-a-label.example"),
		DropAllow(netip.Prefix{}, "a-host-name-longer-than-a-label.example."),
	}
	mustPut(t, s, all...)
	mustPut(t, s, all...)
	if n := s.Stats().Pending; n != len(all) {
		t.Errorf("%d changes wait, want %d", n, len(all))
	}
}

// What is handed over in pieces is what Load returns at once, the oldest ban first, also where records go meanwhile.
func TestBansComeInPiecesOldestFirst(t *testing.T) {
	path := statePath(t)
	const n = 1000
	var changes []Change
	for i := range n {
		b := sampleBan(i, 2)
		b.Since = start.Add(-time.Duration(i*7919%n) * time.Second)
		changes = append(changes, PutBan(b))
	}
	for i := range 300 {
		changes = append(changes, PutOffender(ban.Offender{Prefix: host(5000 + i), Bans: 3,
			Last: start.Add(-time.Hour)}))
	}
	changes = append(changes, PutTrust(ban.Trust{Prefix: host(1), Since: start, Until: start.Add(time.Hour),
		Last: start, Accounts: []string{"201"}}))
	save(t, path, changes...)
	s, _ := mustOpen(t, path, Options{Counts: countsInTests})
	want := mustLoad(t, s, start)
	var bans []ban.Ban
	var offenders []ban.Offender
	err := s.WalkBans(t.Context(), start, func(some []ban.Ban, more []ban.Offender) error {
		if len(some) > pieceBans || len(more) > pieceBans {
			t.Fatalf("a piece of %d and %d", len(some), len(more))
		}
		bans, offenders = append(bans, some...), append(offenders, more...)
		return nil
	})
	if err != nil || len(bans) != n || len(want.Bans) != n ||
		!reflect.DeepEqual(worst(offenders), worst(want.Offenders)) {
		t.Fatalf("%d bans of %d, %d offenders of %d, %v", len(bans), n, len(offenders), len(want.Offenders), err)
	}
	for i := 1; i < len(bans); i++ {
		if bans[i].Since.Before(bans[i-1].Since) {
			t.Fatalf("ban %d is older than the one before", i)
		}
	}
	slices.SortFunc(bans, func(a, b ban.Ban) int { return a.Prefix.Addr().Compare(b.Prefix.Addr()) })
	slices.SortFunc(want.Bans, func(a, b ban.Ban) int { return a.Prefix.Addr().Compare(b.Prefix.Addr()) })
	if !reflect.DeepEqual(bans, want.Bans) {
		t.Error("the bans are not those of Load")
	}
	if state, err := s.LoadCustomers(t.Context(), start); err != nil || len(state.Trusts) != 1 ||
		len(state.Bans)+len(state.Offenders) != 0 {
		t.Errorf("%+v, %v", state, err)
	}
	enough := errors.New("enough")
	if err := s.WalkBans(t.Context(), start, func([]ban.Ban, []ban.Offender) error { return enough }); !errors.Is(err,
		enough) {
		t.Errorf("%v", err)
	}
	none, _ := mustOpen(t, statePath(t), Options{ReadOnly: false})
	if err := none.WalkBans(t.Context(), start, func([]ban.Ban, []ban.Offender) error { return enough }); err != nil {
		t.Errorf("an empty file: %v", err)
	}
}
