package fail2ban_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/pkg/fail2ban"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is when every test happens that asks no real fail2ban.
var now = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// schema is version 4 of fail2ban's database: 0.11, 1.0 and 1.1.
var schema = []string{
	`CREATE TABLE fail2banDb(version INTEGER)`,
	`CREATE TABLE jails(name TEXT NOT NULL UNIQUE, enabled INTEGER NOT NULL DEFAULT 1)`,
	`CREATE TABLE logs(jail TEXT NOT NULL, path TEXT, firstlinemd5 TEXT, lastfilepos INTEGER DEFAULT 0,
		FOREIGN KEY(jail) REFERENCES jails(name) ON DELETE CASCADE, UNIQUE(jail, path), UNIQUE(jail, path, firstlinemd5))`,
	`CREATE TABLE bans(jail TEXT NOT NULL, ip TEXT, timeofban INTEGER NOT NULL, bantime INTEGER NOT NULL,
		bancount INTEGER NOT NULL default 1, data JSON, FOREIGN KEY(jail) REFERENCES jails(name))`,
	`CREATE TABLE bips(ip TEXT NOT NULL, jail TEXT NOT NULL, timeofban INTEGER NOT NULL, bantime INTEGER NOT NULL,
		bancount INTEGER NOT NULL default 1, data JSON, PRIMARY KEY(ip, jail), FOREIGN KEY(jail) REFERENCES jails(name))`,
	`INSERT INTO fail2banDb VALUES(4)`,
}

// open makes a database with statements, and leaves it open.
func open(t *testing.T, path string, statements ...string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	for _, s := range statements {
		run(t, db, s)
	}
	return db
}

func run(t *testing.T, db *sql.DB, statement string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// entry is a ban that began some time ago.
type entry struct {
	jail, ip    string
	ago, length time.Duration
}

func (e entry) values() []any {
	length := int64(e.length / time.Second)
	if e.length < 0 {
		length = int64(e.length)
	}
	return []any{e.jail, e.ip, now.Add(-e.ago).Unix(), length}
}

// database makes the database of a fail2ban that has stopped.
func database(t *testing.T, entries ...entry) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fail2ban.sqlite3")
	db := open(t, path, schema...)
	for _, e := range entries {
		insert(t, db, e)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func insert(t *testing.T, db *sql.DB, e entry) {
	t.Helper()
	run(t, db, `INSERT INTO bans(jail, ip, timeofban, bantime, data) VALUES(?, ?, ?, ?, '{"matches": [], "failures": 5}')`, e.values()...)
	run(t, db, `INSERT OR REPLACE INTO bips(jail, ip, timeofban, bantime, data) VALUES(?, ?, ?, ?, '{}')`, e.values()...)
}

// show writes bans one a line: "203.0.113.5/32 asterisk 10m0s".
func show(bans []fail2ban.Ban) string {
	var b strings.Builder
	for _, ban := range bans {
		b.WriteString(ban.Prefix.String() + " " + ban.Jail + " ")
		if ban.Forever {
			b.WriteString("for ever\n")
		} else {
			b.WriteString(ban.Left.String() + "\n")
		}
	}
	return b.String()
}

// left finds what was not carried over.
func left(im *fail2ban.Import, part string) string {
	for _, l := range im.Left {
		if text := l.What + ": " + l.Why; strings.Contains(text, part) {
			return text
		}
	}
	return ""
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant, as in %s\n%s", got, path, want)
	}
}

// files makes a folder with files.
func files(t *testing.T, texts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
