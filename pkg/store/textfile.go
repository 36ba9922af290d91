package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Backup is what the name of a file's previous version ends with.
const Backup = ".bak"

// maxTextFile is the largest text that is read, in bytes.
const maxTextFile = 4 << 20

// giveToFolderOwner gives a new file to the owner of its folder where root has made it: what root starts by hand for a
// first look, the service goes on with.
func giveToFolderOwner(f *os.File, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}

// WriteFile puts data in a file's place at once: whoever reads it, and whoever finds it after a power cut, has the
// whole of it or of what was there before. Only its owner can read it. Its owner is that of the folder: what root
// writes by hand, the service can read and replace. With backup, what was there before is kept beside it, as NAME.bak.
func WriteFile(path string, data []byte, backup bool) error {
	return writeWithMode(path, data, 0o600, backup)
}

// WriteForGroup is WriteFile for what the group of the file may read as well.
func WriteForGroup(path string, data []byte) error { return writeWithMode(path, data, 0o640, false) }

func writeWithMode(path string, data []byte, mode fs.FileMode, backup bool) error {
	dir, unfinished := filepath.Dir(path), "."+filepath.Base(path)+".new-"
	removeUnfinished(dir, unfinished)
	f, err := os.CreateTemp(dir, unfinished+"*") // mode 0600
	if err != nil {
		return err
	}
	done := false
	defer func() {
		_ = f.Close()
		if !done {
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = giveToFolderOwner(f, dir); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err = f.Chmod(mode); err != nil { // whatever the umask is
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if backup {
		if err := keepBackup(path); err != nil {
			return err
		}
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	done = true
	syncFolder(path)
	return nil
}

// unfinishedAge is from when on nobody writes a file any more that has not got its name.
const unfinishedAge = 10 * time.Minute

// removeUnfinished removes what was being written when a process was killed or the power went: a list of a million
// addresses takes 20 MB each time.
func removeUnfinished(dir, prefix string) {
	entries, _ := os.ReadDir(dir) // what cannot be seen is not in the way
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > unfinishedAge {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// keepBackup gives what is at a path a second name, which it keeps when the path gets another file.
func keepBackup(path string) error {
	temporary := path + Backup + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := os.Link(path, temporary)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil: // a file system without hard links
		return os.Rename(path, path+Backup)
	}
	return os.Rename(temporary, path+Backup)
}

// lastLine ends each text, so that one which was cut off is noticed.
const lastLine = "# end"

// WriteLines writes a text for people and for ReadLines: a heading, of which each line becomes a comment, and lines.
func WriteLines(path, heading string, lines []string) error {
	var b strings.Builder
	for l := range strings.Lines(heading) {
		b.WriteString("# " + strings.TrimSuffix(l, "\n") + "\n")
	}
	for _, l := range lines {
		b.WriteString(l + "\n")
	}
	b.WriteString(lastLine + "\n")
	return WriteFile(path, []byte(b.String()), true)
}

// ReadLines reads what WriteLines wrote, or a person with an editor: lines without comments and spaces around them.
// Where the file is missing, cut off or cannot be read, it reads the one before it. from is the file that was read,
// empty for none: then err says why, and is fs.ErrNotExist where there never was one.
func ReadLines(path string) (lines []string, from string, err error) {
	var first error
	for _, from := range []string{path, path + Backup} {
		lines, err := readLines(from)
		if err == nil {
			return lines, from, nil
		}
		if first == nil || errors.Is(first, fs.ErrNotExist) {
			first = err
		}
	}
	return nil, "", first
}

func readLines(path string) ([]string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxTextFile+1))
	if err != nil {
		return nil, err
	}
	text := strings.TrimRight(string(data), " \t\r\n")
	if len(data) > maxTextFile || !strings.HasSuffix("\n"+text, "\n"+lastLine) {
		return nil, fmt.Errorf("%s is damaged: its last line is not %q", path, lastLine)
	}
	var lines []string
	for l := range strings.Lines(text) {
		l, _, _ = strings.Cut(l, "#")
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, l)
		}
	}
	return lines, nil
}
