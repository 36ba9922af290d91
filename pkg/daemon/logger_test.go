package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/config"
)

// stream is a file that is, or is not, what systemd calls the journal's stream.
func stream(t *testing.T) (*os.File, string) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return f, fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

func TestTheJournalGetsPriorities(t *testing.T) {
	for _, format := range []string{"auto", "text", "json"} {
		t.Run(format, func(t *testing.T) {
			f, journal := stream(t)
			t.Setenv("JOURNAL_STREAM", journal)
			log := newLogger(config.Log{Level: "debug", Format: format}, f, new(slog.LevelVar))
			log.Error("two\nlines")
			log.With("pbx", "one").Warn("b")
			log.WithGroup("g").Info("c", "k", 1)
			log.Debug("d")
			text, err := os.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
			if len(lines) != 4 {
				t.Fatalf("%d lines:\n%s", len(lines), text)
			}
			for i, want := range []string{"<3>", "<4>", "<6>", "<7>"} {
				if rest, ok := strings.CutPrefix(lines[i], want); !ok || strings.Contains(rest, "<") {
					t.Errorf("%q does not begin with %s", lines[i], want)
				}
			}
			if format == "auto" && strings.Contains(string(text), "time=") {
				t.Errorf("a time that the journal adds: %s", text)
			}
		})
	}
}

// A program that a unit starts inherits the variable, whatever its stderr is.
func TestOnlyTheJournalGetsPriorities(t *testing.T) {
	f, journal := stream(t)
	for name, row := range map[string]string{"none": "", "another": "8:" + journal, "not a stream": "x"} {
		if isJournal(f, row) {
			t.Errorf("%s: taken for the journal", name)
		}
	}
	if isJournal(io.Discard, journal) || !isJournal(f, journal) {
		t.Error("what is the journal is not told from what is not")
	}
}
