package fail2ban_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/fail2ban"
	"github.com/ringwall/ringwall/pkg/fail2ban/fail2bantest"
)

// untouched fails where a folder holds something else in the end than now.
func untouched(t *testing.T, dir string) {
	t.Helper()
	state := func() string {
		var b strings.Builder
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s %q\n", e.Name(), text)
		}
		return b.String()
	}
	before := state()
	t.Cleanup(func() {
		if state() != before {
			t.Error("reading has changed the files")
		}
	})
}

func bans(t *testing.T, db string) string {
	t.Helper()
	return show(read(t, fail2ban.Options{Jail: "testdata/simple", DB: db}).Bans)
}

func TestDatabaseWithAWriteAheadLogIsReadFromACopy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := fail2bantest.Open(t, path, append([]string{"PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0"},
		fail2bantest.Schema...)...)
	entry{"asterisk", "203.0.113.5", 0, time.Hour}.insert(db)
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	untouched(t, filepath.Dir(path))
	untouched(t, temp)
	if got := bans(t, path); got != "203.0.113.5/32 asterisk 1h0m0s\n" {
		t.Errorf("what stands only in the log is lost: %q", got)
	}
}

func TestDatabaseThatWasInWALModeIsReadInPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := fail2bantest.Open(t, path, append([]string{"PRAGMA journal_mode=WAL"}, fail2bantest.Schema...)...)
	entry{"asterisk", "203.0.113.5", 0, time.Hour}.insert(db)
	db.Close()
	untouched(t, filepath.Dir(path))
	if got := bans(t, path); got != "203.0.113.5/32 asterisk 1h0m0s\n" {
		t.Error(got)
	}
}

func TestAWriterIsWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := fail2bantest.Open(t, path, fail2bantest.Schema...)
	entry{"asterisk", "203.0.113.5", 0, time.Hour}.insert(db)
	lock := writeLock(t, path)
	insertLater := make(chan struct{})
	go func() {
		defer close(insertLater)
		// Let the reader meet the lock; should it come late, the test passes all the same.
		timer := time.NewTimer(100 * time.Millisecond)
		<-timer.C
		_ = lock.Close()
	}()
	got := bans(t, path)
	<-insertLater
	if got != "203.0.113.5/32 asterisk 1h0m0s\n" {
		t.Error(got)
	}
}

func TestAWriterThatStaysIsReadAroundByACopy(t *testing.T) {
	t.Parallel()
	path := database(t, entry{"asterisk", "203.0.113.5", 0, time.Hour})
	lock := writeLock(t, path)
	im := read(t, fail2ban.Options{Jail: "testdata/simple", DB: path})
	_ = lock.Close()
	if got := show(im.Bans); got != "203.0.113.5/32 asterisk 1h0m0s\n" {
		t.Error(got)
	}
	if !strings.Contains(strings.Join(im.Found, "\n"), "a copy was read") {
		t.Errorf("nobody is told: %q", im.Found)
	}
}

// writeLock takes what SQLite's EXCLUSIVE lock is, as another process would.
func writeLock(t *testing.T, path string) io.Closer {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 0x40000000,
		Len: 512}); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestNobodyWritesWhileTheDatabaseIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := fail2bantest.Open(t, path, fail2bantest.Schema...)
	// More than fits between the reader and who takes what it reads.
	db.Exec(`INSERT INTO bips(ip, jail, timeofban, bantime) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 20000)
		SELECT '203.0.113.' || i, 'asterisk', 1769860800, -1 FROM n`)
	db.Close()
	done := make(chan error, 1)
	fail2ban.WhileDatabaseIsRead(t, path, func() {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			done <- err
			return
		}
		defer func() { _ = f.Close() }()
		done <- unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK,
			&unix.Flock_t{Type: unix.F_WRLCK, Start: 0x40000002, Len: 510})
	})
	if err := <-done; !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("a writer gets its lock: %v", err)
	}
}

// lost reads a database that cannot be read, with and without jail files beside it: what stands in those comes all the
// same.
func lost(t *testing.T, path string) error {
	t.Helper()
	im := read(t, fail2ban.Options{Jail: files(t, map[string]string{
		"jail.local": "[asterisk]\nenabled = true\nfilter = asterisk\nmaxretry = 3\nignoreip = 192.0.2.0/24\n"}),
		DB: path})
	if c, _ := parsed(t, im); c.Policy.Points.WrongPassword <= 2 || len(c.Policy.Allow) != 1 || len(im.Bans) != 0 {
		t.Errorf("the database costs more than its bans: %+v %v", c.Policy, im.Bans)
	}
	if im.BansLost != nil && (notImported(im, "all bans: ") == "" ||
		!strings.Contains(strings.Join(im.Found, "\n"), "cannot be read")) {
		t.Errorf("nobody says that the bans are missing: %v %v", im.Found, im.NotImported)
	}
	return im.BansLost
}

func TestOtherDatabasesCostTheirBans(t *testing.T) {
	old := []string{`CREATE TABLE fail2banDb(version INTEGER)`,
		`CREATE TABLE bans(jail TEXT, ip TEXT, timeofban INTEGER, data JSON)`, `INSERT INTO fail2banDb VALUES(2)`}
	endless := append([]string{}, fail2bantest.Schema...)
	endless = append(endless, `DROP TABLE bips`, `CREATE VIEW bips AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n)
		SELECT i AS ip, i AS jail, i AS timeofban, 0 AS bantime, 0 AS bancount FROM n`)
	for name, row := range map[string]struct {
		statements []string
		want       string
	}{
		"empty":      {[]string{`CREATE TABLE a(b)`}, "no table fail2banDb"},
		"0.10":       {old, "its version is 2, without the table bips"},
		"a view":     {endless, "without the table bips"},
		"no version": {append(fail2bantest.Schema[:5:5], `DELETE FROM fail2banDb`), "does not tell its version"},
		"odd version": {append(fail2bantest.Schema[:5:5], `INSERT INTO fail2banDb VALUES(NULL)`),
			"does not tell its version"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "db")
			fail2bantest.Open(t, path, row.statements...).Close()
			err := lost(t, path)
			if !errors.Is(err, fail2ban.ErrSchema) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %s", err, row.want)
			}
		})
	}
}

func TestWhatIsNoDatabaseCostsItsBans(t *testing.T) {
	dir := files(t, map[string]string{"text": "not a database", "short": "SQLite format 3\x00", "empty": ""})
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(database(t, entry{"asterisk", "203.0.113.5", 0, time.Hour}))
	if err != nil {
		t.Fatal(err)
	}
	for i := 100; i < len(good); i += 7 {
		good[i] ^= 0x5a
	}
	if err := os.WriteFile(filepath.Join(dir, "broken"), good, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"text", "short", "empty", "pipe", "broken", ""} {
		err := lost(t, filepath.Join(dir, name))
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestColumnsMayHoldAnything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := fail2bantest.Open(t, path, fail2bantest.Schema...)
	for _, values := range []string{
		`x'ff00', 'asterisk', 'then', 'long', 'x'`,
		`'203.0.113.1', 'asterisk', 9223372036854775807, 9223372036854775807, 1`,
		`'203.0.113.2', 'asterisk', -9223372036854775808, 9223372036854775807, 1`,
		`'203.0.113.3', x'00', 1e300, 1e300, 1`,
		`'', '', 0, -9223372036854775808, 1`, `'203.0.113.4', 'asterisk', 1769860800.5, '3600', 1`,
	} {
		db.Exec(`INSERT INTO bips(ip, jail, timeofban, bantime, bancount) VALUES(` + values + `)`)
	}
	db.Close()
	for line := range strings.Lines(bans(t, path)) {
		if !strings.HasPrefix(line, "203.0.113.") {
			t.Error(line)
		}
	}
	if got := bans(t, path); !strings.Contains(got, "203.0.113.4/32 asterisk 1h0m0s") {
		t.Error(got)
	}
}

func TestReadingEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := fail2ban.Read(ctx, fail2ban.Options{Jail: "testdata/simple", DB: database(t),
		Now: now}); !errors.Is(err,
		context.Canceled) {
		t.Error(err)
	}
}
