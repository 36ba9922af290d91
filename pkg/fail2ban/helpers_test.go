package fail2ban_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/pkg/fail2ban"
	"github.com/ringwall/ringwall/pkg/fail2ban/fail2bantest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is when every test happens that asks no real fail2ban.
var now = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// entry is a ban that began some time ago.
type entry struct {
	jail, ip    string
	ago, length time.Duration
}

// insert enters it. Its length may be -1 or -2, as fail2ban has them.
func (e entry) insert(db *fail2bantest.DB) {
	length := int64(e.length / time.Second)
	if e.length < 0 {
		length = int64(e.length)
	}
	db.Ban(e.jail, e.ip, now.Add(-e.ago).Unix(), length)
}

// database makes the database of a fail2ban that has stopped.
func database(t *testing.T, entries ...entry) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fail2ban.sqlite3")
	db := fail2bantest.Open(t, path, fail2bantest.Schema...)
	for _, e := range entries {
		e.insert(db)
	}
	db.Close()
	return path
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

// notImported finds what was not carried over.
func notImported(im *fail2ban.Import, part string) string {
	for _, l := range im.NotImported {
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
