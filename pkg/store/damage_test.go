package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/store/internal/pages"
)

// smallFile is a state file of some pages of each kind: branches, overflow, a free list.
func smallFile(t *testing.T) []byte {
	t.Helper()
	path := statePath(t)
	many := ban.Trust{Prefix: host(1), Since: start, Until: start.Add(time.Hour), Last: start}
	for i := range 300 {
		many.Accounts = append(many.Accounts, fmt.Sprintf("an account of some length %d", i))
	}
	changes := append(sampleBans(300, 3), PutTrust(many), PutAllow(Allow{Host: "h.example", Added: start}))
	for i := range 20 {
		changes = append(changes, AddDecision(sampleDecision(i, time.Now())))
	}
	save(t, path, changes...)
	for i := range 4 {
		save(t, path, DropBan(host(i)))
	}
	return readFile(t, path)
}

// survive opens a file whatever is in it, uses all of it, and opens it again.
func survive(t *testing.T, path string) (State, Recovery) {
	t.Helper()
	s, r, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if r.Unavailable != nil {
		t.Fatalf("a file of no use stops saving: %v", r.Unavailable)
	}
	state, err := s.Load(t.Context(), start)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	if _, err := s.History(t.Context(), time.Time{}, netip.Addr{}); err != nil {
		t.Fatalf("history: %v", err)
	}
	stop := runs(t, s)
	mustPut(t, s, PutBan(sampleBan(5000, 1)), AddDecision(sampleDecision(1, time.Now())))
	mustFlush(t, s)
	if err := stop(); err != nil {
		t.Fatalf("save: %v", err)
	}
	again, r2 := load(t, path, start)
	if r2.SetAside != "" || !slices.ContainsFunc(again.Bans, func(b ban.Ban) bool { return b.Prefix == host(5000) }) {
		t.Fatalf("what was saved afterwards is not there: %+v", r2)
	}
	if r.SetAside != "" {
		if !r.Fresh || r.Cause == nil || len(state.Bans) != 0 {
			t.Fatalf("recovery %+v with %d bans", r, len(state.Bans))
		}
		if err := os.Remove(r.SetAside); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range state.Bans {
		if b.Since != start || !b.Until.After(start) || b.Until.After(start.Add(25*time.Hour)) {
			t.Fatalf("a ban nobody made: %+v", b)
		}
	}
	return state, r
}

func TestAFileCutShortLoadsOrIsSetAside(t *testing.T) {
	whole := smallFile(t)
	path := statePath(t)
	aside := 0
	for n := 0; n <= len(whole); n += 4096 {
		for _, size := range []int{n, n + 100} {
			if size > len(whole) {
				continue
			}
			writeFile(t, path, whole[:size])
			if _, r := survive(t, path); r.SetAside != "" {
				aside++
			}
		}
	}
	if aside < 10 {
		t.Errorf("only %d were set aside", aside)
	}
}

func TestFlippedBytesNeverCrash(t *testing.T) {
	whole := smallFile(t)
	path := statePath(t)
	r := random(7)
	used := 4096 * 40
	aside, damaged := 0, 0
	rounds := 60
	if n, err := strconv.Atoi(os.Getenv("RINGWALL_TEST_FLIPS")); err == nil {
		rounds = n
	}
	for i := range rounds {
		b := bytes.Clone(whole)
		for range 1 + r.IntN(3) {
			at := r.IntN(min(used, len(b)))
			if i%2 == 0 { // where it hurts: headers and the elements behind them
				at = at&^4095 + r.IntN(200)
			}
			b[at] ^= byte(1 + r.IntN(255))
		}
		writeFile(t, path, b)
		state, rec := survive(t, path)
		if rec.SetAside != "" {
			aside++
		} else if state.Damaged > 0 {
			damaged++
		}
	}
	if aside == 0 || damaged == 0 {
		t.Errorf("%d set aside, %d with damaged records: the test does not test", aside, damaged)
	}
	t.Logf("%d set aside, %d loaded without their damaged records", aside, damaged)
}

func TestWhatIsNoStateFileIsSetAside(t *testing.T) {
	foreign := filepath.Join(t.TempDir(), "foreign.db")
	newer := filepath.Join(t.TempDir(), "newer.db")
	for path, fill := range map[string]func(*bbolt.Tx) error{
		foreign: func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucket([]byte("keys"))
			return err
		},
		newer: func(tx *bbolt.Tx) error { return makeBuckets(tx, schema+1) },
	} {
		db, err := bbolt.Open(path, 0o600, nil)
		if err == nil {
			err = errors.Join(db.Update(fill), db.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		content []byte
		want    error
		suffix  string
	}{
		"empty":             {nil, pages.ErrDamaged, ".corrupt-"},
		"text":              {[]byte("state: {path: x}\n"), pages.ErrDamaged, ".corrupt-"},
		"zeros":             {make([]byte, 1<<16), pages.ErrDamaged, ".corrupt-"},
		"another program's": {readFile(t, foreign), errForeign, ".corrupt-"},
		"a newer version":   {readFile(t, newer), errNewer, ".newer-"},
	} {
		t.Run(name, func(t *testing.T) {
			path := statePath(t)
			writeFile(t, path, c.content)
			var log bytes.Buffer
			_, r := mustOpen(t, path, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
			if !errors.Is(r.Cause, c.want) || !strings.HasPrefix(r.SetAside, path+c.suffix) || !r.Fresh || !r.Adopt() {
				t.Errorf("recovery %+v", r)
			}
			if !strings.Contains(log.String(), r.SetAside) {
				t.Errorf("the log does not name it: %s", log.String())
			}
			if !bytes.Equal(readFile(t, r.SetAside), c.content) {
				t.Error("what was set aside is different")
			}
		})
	}
}

func TestAFewFilesSetAsideAreKeptAndNoneOverwritten(t *testing.T) {
	path := statePath(t)
	writeFile(t, path+".corrupt-by-hand", []byte("an admin's own"))
	seen := make(map[string]bool)
	for i := range 12 {
		writeFile(t, path, fmt.Appendf(nil, "no state file, number %d", i))
		s, r := mustOpen(t, path, Options{})
		if seen[r.SetAside] {
			t.Fatalf("%s was overwritten", r.SetAside)
		}
		seen[r.SetAside] = true
		if got := string(readFile(t, r.SetAside)); got != fmt.Sprintf("no state file, number %d", i) {
			t.Errorf("number %d holds %q", i, got)
		}
		_ = s.Close()
	}
	names, _ := filepath.Glob(path + ".corrupt-2*")
	if len(names) != maxQuarantined {
		t.Errorf("%d are kept: %q", len(names), names)
	}
	if _, err := os.Stat(path + ".corrupt-by-hand"); err != nil {
		t.Error(err)
	}
}

func TestAFileCutShortWhileInUseIsBegunAnew(t *testing.T) {
	for name, ruin := range map[string]func(path string) error{
		"truncated":   func(path string) error { return os.Truncate(path, 0) },
		"overwritten": func(path string) error { return overwrite(path, bytes.Repeat([]byte{0xA5}, 1<<16)) },
	} {
		t.Run(name, func(t *testing.T) {
			path := statePath(t)
			known := sampleBans(500, 2)
			s, _ := mustOpen(t, path, Options{Snapshot: func() []Change { return known }})
			stop := runs(t, s)
			mustPut(t, s, known...)
			mustFlush(t, s)
			if err := ruin(path); err != nil {
				t.Fatal(err)
			}
			_, _ = s.Load(t.Context(), start) // may fail, must not crash
			mustPut(t, s, DropBan(host(1000)))
			// The first attempt to save may be the one that finds the damage; the next begins anew.
			var err error
			for range 10 {
				if err = s.Flush(t.Context()); err == nil {
					break
				}
			}
			if err != nil || s.Err() != nil {
				t.Errorf("it is not mended: %v, %v", err, s.Err())
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if state, _ := load(t, path, start); len(state.Bans) != len(known) {
				t.Errorf("%d bans of %d are back", len(state.Bans), len(known))
			}
			if names, _ := filepath.Glob(path + ".corrupt-*"); len(names) != 1 {
				t.Errorf("set aside: %q", names)
			}
		})
	}
}

func overwrite(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(b, 0)
		err = errors.Join(err, f.Close())
	}
	return err
}

func TestAFileRemovedWhileInUseIsWrittenAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "state.db")
	s, _ := mustOpen(t, path, Options{})
	stop := runs(t, s)
	mustPut(t, s, PutBan(sampleBan(1, 0)))
	mustFlush(t, s)
	for i, name := range []string{path, filepath.Dir(path)} {
		if err := os.RemoveAll(name); err != nil {
			t.Fatal(err)
		}
		mustPut(t, s, PutBan(sampleBan(2+i, 0)))
		mustFlush(t, s)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if state, _ := load(t, path, start); len(state.Bans) != 3 {
		t.Errorf("%d bans", len(state.Bans))
	}
}

func TestAFileReplacedWhileInUseIsNotOverwritten(t *testing.T) {
	path, other := statePath(t), statePath(t)
	save(t, other, PutBan(sampleBan(9, 0)))
	s, _ := mustOpen(t, path, Options{})
	stop := runs(t, s)
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, PutBan(sampleBan(1, 0)))
	if err := s.Flush(t.Context()); !errors.Is(err, errReplaced) {
		t.Errorf("error %v", err)
	}
	if err := stop(); !errors.Is(err, errReplaced) {
		t.Errorf("the end says %v", err)
	}
	if state, _ := load(t, path, start); len(state.Bans) != 1 || state.Bans[0].Prefix != host(9) {
		t.Errorf("%+v", state)
	}
}
