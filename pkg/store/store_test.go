package store

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/internal/property"
	"github.com/ringwall/ringwall/pkg/mailbox"
)

func TestTheStoreHoldsWhatAMapWouldHold(t *testing.T) {
	property.Check(t, func(rt *property.T) {
		path := filepath.Join(t.TempDir(), "state.db")
		want := make(map[netip.Prefix]ban.Ban)
		for range property.Int(rt, 1, 3) {
			s, _ := mustOpen(t, path, Options{Interval: time.Microsecond})
			stop := runs(t, s)
			for range property.Count(rt, 0, 20) {
				b := sampleBan(property.Int(rt, 0, 9), property.Count(rt, 0, 3))
				switch property.Int(rt, 0, 3) {
				case 0:
					mustPut(t, s, DropBan(b.Prefix))
					delete(want, b.Prefix)
				case 1:
					mustFlush(t, s)
				default:
					mustPut(t, s, PutBan(b))
					want[b.Prefix] = b
				}
			}
			if err := stop(); err != nil {
				rt.Fatal(err)
			}
			state, _ := load(t, path, start)
			got := make(map[netip.Prefix]ban.Ban)
			for _, b := range state.Bans {
				got[b.Prefix] = b
			}
			if !reflect.DeepEqual(got, want) {
				rt.Fatalf("got %v\nwant %v", got, want)
			}
		}
	})
}

func TestEverythingSurvivesARestart(t *testing.T) {
	path := statePath(t)
	want := State{
		Bans:      []ban.Ban{sampleBan(1, 2)},
		Offenders: []ban.Offender{{Prefix: host(2), Bans: 3, Last: start}},
		Trusts: []ban.Trust{{Prefix: host(3), Since: start.Add(-time.Hour), Until: start.Add(time.Hour), Last: start,
			Origin: "pbx-berlin", Accounts: []string{"201", "\xff\x1b[31m"}}},
		Allow: []Allow{{Host: "office.example", Added: start, By: "root", Note: "the office"},
			{Prefix: netip.MustParsePrefix("2001:db8::/64"), Added: start}},
		Graces: []ban.Grace{{Prefix: host(4), Since: start, Until: start.Add(time.Hour)}},
	}
	save(t, path, PutBan(want.Bans[0]), PutOffender(want.Offenders[0]), PutTrust(want.Trusts[0]),
		PutAllow(want.Allow[0]),
		PutAllow(want.Allow[1]), PutGrace(want.Graces[0]), AddDecision(sampleDecision(1, start)))
	got, r := load(t, path, start)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if r.Adopt() {
		t.Errorf("recovery of a whole file: %+v", r)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}

	save(t, path, DropBan(host(1)), dropChange(kindOffender, prefixKey(host(2))),
		dropChange(kindTrust, prefixKey(host(3))),
		DropAllow(netip.Prefix{}, "office.example"),
		DropAllow(want.Allow[1].Prefix, ""), dropChange(kindGrace, prefixKey(host(4))))
	if got, _ := load(t, path, start); !reflect.DeepEqual(got, State{}) {
		t.Errorf("after all was dropped: %+v", got)
	}
}

func TestTheFileAndItsFolderAreMadeForTheDaemonAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ringwall", "state.db")
	_, r := mustOpen(t, path, Options{})
	if !r.Fresh || !r.Adopt() {
		t.Errorf("recovery %+v", r)
	}
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if names, _ := filepath.Glob(path + "*"); len(names) != 1 {
		t.Errorf("there is more than the file: %q", names)
	}
}

func TestAFileThatOthersCanReadIsClosedToThem(t *testing.T) {
	path := statePath(t)
	save(t, path, PutBan(sampleBan(1, 0)))
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, path, Options{})
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestASecondProcessIsToldWhoHasTheFile(t *testing.T) {
	path := statePath(t)
	mustOpen(t, path, Options{})
	for _, o := range []Options{{}, {ReadOnly: true}} {
		_, _, err := Open(path, o)
		if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "this process itself") {
			t.Errorf("error %v", err)
		}
	}
	t.Run("another process", func(t *testing.T) {
		path := statePath(t)
		pid, end := startVictim(t, path, victimKeeps)
		defer end()
		_, _, err := Open(path, Options{})
		if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("process %d (", pid)) {
			t.Errorf("error %v, the process is %d", err, pid)
		}
	})
}

func TestAPathThatIsNoFileIsRefused(t *testing.T) {
	if _, _, err := Open(t.TempDir(), Options{}); !errors.Is(err, ErrNoFile) {
		t.Errorf("error %v", err)
	}
}

func TestALinkToTheFileIsFollowed(t *testing.T) {
	path := statePath(t)
	save(t, path, PutBan(sampleBan(1, 0)))
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if state, r := load(t, link, start); len(state.Bans) != 1 || r.Fresh {
		t.Errorf("%d bans, %+v", len(state.Bans), r)
	}
}

func TestReadOnlyChangesNothing(t *testing.T) {
	path := statePath(t)
	if _, _, err := Open(path, Options{ReadOnly: true}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	save(t, path, PutBan(sampleBan(1, 0)), AddDecision(sampleDecision(1, time.Now())))
	before := readFile(t, path)
	s, _ := mustOpen(t, path, Options{ReadOnly: true})
	other, _ := mustOpen(t, path, Options{ReadOnly: true}) // readers do not mind each other
	stop := runs(t, s)
	if n := len(mustLoad(t, other, start.Add(1000*time.Hour)).Bans); n != 0 {
		t.Errorf("%d bans are never over", n)
	}
	if n := len(mustLoad(t, s, start).Bans); n != 1 {
		t.Errorf("%d bans", n)
	}
	if lines, err := s.History(t.Context(), time.Time{}, netip.Addr{}); len(lines) != 1 || err != nil {
		t.Errorf("history %v, %v", lines, err)
	}
	if err := s.Put(DropBan(host(1))); !errors.Is(err, ErrReadOnly) {
		t.Errorf("error %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if string(readFile(t, path)) != string(before) {
		t.Error("the file is different")
	}
}

func TestWhatIsOverIsLeftOutAndLaterRemoved(t *testing.T) {
	path := statePath(t)
	short := sampleBan(24, 0) // an hour
	save(t, path, PutBan(short), PutBan(ban.Ban{Prefix: host(99), Since: start}), PutAllow(Allow{Host: "h.example"}),
		PutOffender(ban.Offender{Prefix: host(1), Last: start}),
		PutGrace(ban.Grace{Prefix: host(1), Since: start, Until: start.Add(time.Hour)}),
		PutTrust(ban.Trust{Prefix: host(2), Since: start, Until: start.Add(time.Hour), Last: start}))

	inFile := func() (n int) {
		s, _ := mustOpen(t, path, Options{ReadOnly: true})
		defer func() { _ = s.Close() }()
		state := mustLoad(t, s, start)
		return len(state.Bans) + state.Expired + len(state.Offenders) + len(state.Allow) + len(state.Graces) +
			len(state.Trusts)
	}
	at := func(now time.Time) State {
		s, _ := mustOpen(t, path, Options{})
		stop := runs(t, s)
		state := mustLoad(t, s, now)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		return state
	}
	// The clock is a day ahead: nothing counts, but nothing is gone once it is right again.
	if state := at(start.Add(25 * time.Hour)); len(state.Bans)+len(state.Graces) != 0 ||
		len(state.Offenders)+len(state.Trusts) != 2 {
		t.Errorf("a day later %+v", state)
	}
	if state := at(start.Add(time.Minute)); len(state.Bans) != 1 || state.Bans[0].Until != short.Until ||
		len(state.Graces) != 1 {
		t.Errorf("when the clock was right again %+v", state)
	}
	if n := inFile(); n != 5 { // the ban without an end went at once: it was over in 1970
		t.Errorf("%d records are in the file", n)
	}
	if state := at(start.Add(1000 * time.Hour)); len(state.Bans)+len(state.Offenders)+len(state.Trusts) != 0 ||
		len(state.Allow) != 1 {
		t.Errorf("weeks later %+v", state)
	}
	if n := inFile(); n != 1 {
		t.Errorf("%d records are in the file after weeks", n)
	}
}

func TestAClockSetBackLengthensNoBan(t *testing.T) {
	path := statePath(t)
	b := sampleBan(1, 0)
	given := b.Until.Sub(b.Since)
	save(t, path, PutBan(b), PutGrace(ban.Grace{Prefix: host(1), Since: start, Until: start.Add(time.Hour)}),
		PutTrust(ban.Trust{Prefix: host(1), Since: start.Add(-time.Hour), Until: start.Add(time.Hour), Last: start}),
		PutOffender(ban.Offender{Prefix: host(1), Last: start.AddDate(50, 0, 0)}))
	for _, back := range []time.Duration{time.Hour, 24 * time.Hour, 50 * 365 * 24 * time.Hour} {
		now := start.Add(-back)
		state, _ := load(t, path, now)
		if len(state.Bans) != 1 || len(state.Graces) != 1 || len(state.Trusts) != 1 || len(state.Offenders) != 1 {
			t.Fatalf("%v back: %+v", back, state)
		}
		if left := state.Bans[0].Until.Sub(now); left != given || state.Bans[0].Since.After(now) {
			t.Errorf("%v back: %v left of %v", back, left, given)
		}
		if left := state.Graces[0].Until.Sub(now); left != time.Hour {
			t.Errorf("%v back: a grace has %v left", back, left)
		}
		if left := state.Trusts[0].Until.Sub(now); left != time.Hour || state.Trusts[0].Last.After(now) {
			t.Errorf("%v back: trust has %v left", back, left)
		}
		if state.Offenders[0].Last.After(now.Add(month)) {
			t.Errorf("%v back: an offence lasts to %v", back, state.Offenders[0].Last)
		}
	}
}

func TestHistoryIsBoundedAndFound(t *testing.T) {
	path := statePath(t)
	now := time.Now().UTC()
	s, _ := mustOpen(t, path, Options{History: 100, HistoryAge: time.Hour})
	stop := runs(t, s)
	mustPut(t, s, AddDecision(sampleDecision(0, now.Add(-2*time.Hour))))
	mustFlush(t, s)
	for i := range 250 {
		mustPut(t, s, AddDecision(sampleDecision(i, now.Add(time.Duration(i)*time.Millisecond))))
		if i%40 == 0 {
			mustFlush(t, s)
		}
	}
	mustPut(t, s, AddDecision(ban.Decision{Time: now.Add(time.Second), Prefix: netip.MustParsePrefix("10.0.0.0/24")}))
	check := func(when string, s *Store) {
		all, err := s.History(t.Context(), time.Time{}, netip.Addr{})
		if err != nil || len(all) != 100 {
			t.Fatalf("%s: %d lines, %v", when, len(all), err)
		}
		for i, d := range all[:99] {
			if want := sampleDecision(151+i, now.Add(time.Duration(151+i)*time.Millisecond)); !reflect.DeepEqual(d,
				want) {
				t.Fatalf("%s: line %d is %+v, want %+v", when, i, d, want)
			}
		}
		if some, _ := s.History(t.Context(), now.Add(200*time.Millisecond), netip.Addr{}); len(some) != 51 {
			t.Errorf("%s: %d lines since", when, len(some))
		}
		// Its own line, and that of its network.
		if some, _ := s.History(t.Context(), time.Time{}, host(200).Addr()); len(some) != 2 {
			t.Errorf("%s: %d lines about one address", when, len(some))
		}
	}
	mustFlush(t, s)
	check("running", s)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	s, _ = mustOpen(t, path, Options{ReadOnly: true})
	check("again", s)
}

// A long history is handed over in pieces of a bounded size, with what is written and pruned between them.
func TestHistoryComesInPieces(t *testing.T) {
	now := time.Now().UTC()
	s, _ := mustOpen(t, statePath(t), Options{})
	runs(t, s)
	for i := range 10_000 {
		mustPut(t, s, AddDecision(sampleDecision(i, now.Add(time.Duration(i)*time.Microsecond))))
	}
	mustFlush(t, s)
	for i := range 300 { // in the queue, or just on the way to the file
		mustPut(t, s, AddDecision(sampleDecision(i, now.Add(time.Second))))
	}
	var all []ban.Decision
	pieces := 0
	err := s.WalkHistory(t.Context(), time.Time{}, netip.Addr{}, func(some []ban.Decision) error {
		size := 0
		for _, d := range some {
			text, err := d.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			size += len(text)
		}
		if len(some) == 0 || len(some) > pieceLines || size > pieceBytes+maxDecision {
			t.Fatalf("a piece of %d lines, %d bytes", len(some), size)
		}
		all, pieces = append(all, some...), pieces+1
		if pieces%20 == 0 { // the queue is written while somebody reads
			mustFlush(t, s)
		}
		return nil
	})
	if err != nil || len(all) != 10_300 {
		t.Fatalf("%d lines, %v", len(all), err)
	}
	for i := 1; i < len(all); i++ {
		if all[i].Time.Before(all[i-1].Time) {
			t.Fatalf("line %d is older than the one before", i)
		}
	}
	stopped := errors.New("enough")
	if err := s.WalkHistory(t.Context(), time.Time{}, netip.Addr{},
		func([]ban.Decision) error { return stopped }); !errors.Is(err, stopped) {
		t.Errorf("an error of the reader: %v", err)
	}
}

func TestHistoryShowsWhatIsNotSavedYet(t *testing.T) {
	s, _ := mustOpen(t, statePath(t), Options{})
	mustPut(t, s, AddDecision(sampleDecision(1, start)))
	if lines, err := s.History(t.Context(), time.Time{}, netip.Addr{}); err != nil || len(lines) != 1 {
		t.Errorf("%v, %v", lines, err)
	}
}

func TestAnOldVersionIsBroughtUpToDate(t *testing.T) {
	path := statePath(t)
	writeFile(t, path, readFile(t, "testdata/version-0.db"))
	if _, _, err := Open(path, Options{ReadOnly: true}); err == nil || !strings.Contains(err.Error(), "version 0") {
		t.Errorf("reading only: %v", err)
	}
	for range 2 {
		state, _ := load(t, path, start)
		want := State{
			Bans: []ban.Ban{{Prefix: netip.MustParsePrefix("192.0.2.66/32"), Source: netip.MustParseAddr("192.0.2.66"),
				Since: start,
				Until: start.Add(4 * time.Hour), Reason: "manual", Score: 12, Proven: true, Manual: true, Number: 2,
				Comment: "by hand",
				PBX:     "pbx1", Attempts: 9}},
			Allow: []Allow{{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Added: start, By: "root",
				Note: "the office"}},
		}
		if !reflect.DeepEqual(state, want) {
			t.Fatalf("got  %+v\nwant %+v", state, want)
		}
	}
}

func TestChangesOfOneRecordAreOneWrite(t *testing.T) {
	s, _ := mustOpen(t, statePath(t), Options{})
	for i := range 10_000 {
		mustPut(t, s, PutBan(sampleBan(i%10, 0)), DropBan(host(i%10)), PutBan(sampleBan(i%10, 1)))
	}
	if n := s.Stats().Pending; n != 10 {
		t.Errorf("%d changes wait", n)
	}
}

func TestFlushWaitsForNoTimer(t *testing.T) {
	s, _ := mustOpen(t, statePath(t), Options{Interval: 24 * time.Hour}) // longer than the test may take
	runs(t, s)
	const n = 100
	for i := range n {
		mustPut(t, s, PutBan(sampleBan(i, 0)))
		mustFlush(t, s)
	}
	if st := s.Stats(); st.Saved != n || st.Commits != n || st.Pending != 0 || st.Bytes == 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestFlushEndsWithItsContextAndWithTheStore(t *testing.T) {
	s, _ := mustOpen(t, statePath(t), Options{})
	mustPut(t, s, PutBan(sampleBan(1, 0)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Flush(ctx); !errors.Is(err, context.Canceled) { // nobody runs
		t.Errorf("error %v", err)
	}
	stop := runs(t, s)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(t.Context()); err != nil { // all was saved at the end
		t.Errorf("error %v", err)
	}
	if err := s.Put(PutBan(sampleBan(2, 0))); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v", err)
	}
}

func TestManyMayUseTheStoreAtOnce(t *testing.T) {
	path := statePath(t)
	s, _ := mustOpen(t, path, Options{Interval: time.Microsecond})
	stop := runs(t, s)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				if err := s.Put(PutBan(sampleBan(w*50+i, 2)), AddDecision(sampleDecision(w, time.Now()))); err != nil {
					t.Error(err)
				}
				switch i % 10 {
				case 3:
					if err := s.Flush(t.Context()); err != nil {
						t.Error(err)
					}
				case 6:
					if _, err := s.History(t.Context(), time.Time{}, host(w).Addr()); err != nil {
						t.Error(err)
					}
				case 9:
					if _, err := s.Load(t.Context(), start); err != nil {
						t.Error(err)
					}
					_, _ = s.Stats(), s.Err()
				}
			}
		})
	}
	wg.Wait()
	lines, err := s.History(t.Context(), time.Time{}, netip.Addr{})
	if err != nil || len(lines) != 400 {
		t.Errorf("%d lines, %v: one is missing or doubled", len(lines), err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if state, _ := load(t, path, start); len(state.Bans) != 400 {
		t.Errorf("%d bans", len(state.Bans))
	}
}

func TestMostlyFreePagesAreGivenBack(t *testing.T) {
	path := statePath(t)
	const n = 30_000
	save(t, path, sampleBans(n, 4)...)
	full, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	drop := make([]Change, 0, n)
	for i := 1; i < n; i++ {
		drop = append(drop, DropBan(host(i)))
	}
	save(t, path, drop...)
	state, r := load(t, path, start)
	if len(state.Bans) != 1 {
		t.Errorf("%d bans", len(state.Bans))
	}
	slim, err := os.Stat(path)
	if err != nil || slim.Size() > full.Size()/10 || r.After != slim.Size() || r.Before < 4<<20 {
		t.Errorf("%d bytes of %d, %+v, %v", slim.Size(), full.Size(), r, err)
	}
	if names, _ := filepath.Glob(path + "*"); len(names) != 1 {
		t.Errorf("there is more than the file: %q", names)
	}
}

func TestLeftoversOfARewriteAreRemoved(t *testing.T) {
	path := statePath(t)
	save(t, path, PutBan(sampleBan(1, 0)))
	writeFile(t, path+".new-1", []byte("half"))
	if state, _ := load(t, path, start); len(state.Bans) != 1 {
		t.Errorf("%d bans", len(state.Bans))
	}
	if names, _ := filepath.Glob(path + "*"); len(names) != 1 {
		t.Errorf("there is more than the file: %q", names)
	}
}

func TestTooManyChangesAreMadeUpForBySnapshot(t *testing.T) {
	path := statePath(t)
	known := sampleBans(100, 0)
	asked := make(chan struct{}, 1)
	s, _ := mustOpen(t, path, Options{MaxPending: 10, Snapshot: func() []Change {
		mailbox.Signal(asked)
		return known
	}})
	mustPut(t, s, known...) // nobody runs yet: they pile up
	if n := s.Stats().Pending; n > 20 {
		t.Errorf("%d changes wait", n)
	}
	stop := runs(t, s)
	await(t, asked, "the question for a snapshot")
	mustFlush(t, s)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if state, _ := load(t, path, start); len(state.Bans) != len(known) {
		t.Errorf("%d bans", len(state.Bans))
	}

	s, _ = mustOpen(t, path, Options{MaxPending: 10})
	if err := s.Put(known...); !errors.Is(err, ErrFull) || s.Stats().Refused != 90 {
		t.Errorf("without a snapshot: %v", err)
	}
	if err := s.Put(DropBan(host(50))); err != nil {
		t.Errorf("the end of a ban found no room: %v", err)
	}
}
