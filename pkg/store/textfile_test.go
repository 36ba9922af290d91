package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestATextIsReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list.txt")
	if _, _, err := ReadLines(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	for _, want := range [][]string{nil, {"203.0.113.9/32"}, {"203.0.113.9/32", "sip.example.net"}} {
		if err := WriteLines(path, "What it is.\nAnd who writes it.", want); err != nil {
			t.Fatal(err)
		}
		if got, from, err := ReadLines(path); err != nil || from != path || !slices.Equal(got, want) {
			t.Errorf("%q from %s, %v; want %q", got, from, err, want)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want 0600", info.Mode(), err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v; want the file and the one before it", entries, err)
	}
}

// What is cut off, gone or unreadable is read from the one before.
func TestADamagedTextIsReadFromItsBackup(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"cut off": func(p string) error { return os.Truncate(p, 40) },
		"empty":   func(p string) error { return os.Truncate(p, 0) },
		"gone":    os.Remove,
		"garbage": func(p string) error { return os.WriteFile(p, []byte("\x00\xff\x00"), 0o600) },
		"folder":  func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "list.txt")
			for _, lines := range [][]string{{"198.51.100.1/32"}, {"198.51.100.1/32", "198.51.100.2/32"}} {
				if err := WriteLines(path, "A list.", lines); err != nil {
					t.Fatal(err)
				}
			}
			if err := harm(path); err != nil {
				t.Fatal(err)
			}
			got, from, err := ReadLines(path)
			if err != nil || from != path+Backup || !slices.Equal(got, []string{"198.51.100.1/32"}) {
				t.Errorf("%q from %s, %v", got, from, err)
			}
		})
	}
}

// A person may write one, with comments of his own.
func TestATextOfAPerson(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list.txt")
	if err := os.WriteFile(path, []byte("\n# ours\n 198.51.100.1 # the office\r\n\t2001:db8::/48\r\n# end\r\n\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	got, _, err := ReadLines(path)
	if err != nil || !slices.Equal(got, []string{"198.51.100.1", "2001:db8::/48"}) {
		t.Errorf("%q, %v", got, err)
	}
}

// What root writes into the service's folder is the service's.
func TestWhatRootWritesTheServiceCanRead(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	path, state := filepath.Join(dir, "file"), filepath.Join(dir, "state.db")
	if err := WriteFile(path, []byte("x"), false); err != nil {
		t.Fatal(err)
	}
	s, _, err := Open(state, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, state} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Uid != 12345 || st.Gid != 12345 || st.Mode&0o777 != 0o600 {
			t.Errorf("%s: %+v, %v", path, st, err)
		}
	}
}

// What another program reads is for the group, too, whatever the umask is, and never there in part.
func TestAFileForTheGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bans.txt")
	for _, text := range []string{"one\n", "two\n"} {
		if err := WriteForGroup(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		info, err2 := os.Stat(path)
		if err != nil || err2 != nil || string(got) != text || info.Mode().Perm() != 0o640 {
			t.Errorf("%q, %v, %v, %v; want %q, 0640", got, info.Mode(), err, err2, text)
		}
	}
}

// What a power cut left half written does not stay, and what somebody is writing now does.
func TestWhatWasNotWrittenToItsEndIsRemoved(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.list")
	for name, age := range map[string]time.Duration{".a.list.new-1": time.Hour, ".a.list.new-2": time.Minute,
		".b.list.new-1": time.Hour, "a.list.new-1": time.Hour} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteFile(path, []byte("x"), false); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != ".a.list.new-2 .b.list.new-1 a.list a.list.new-1" {
		t.Error(got)
	}
}
