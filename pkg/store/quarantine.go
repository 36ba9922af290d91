package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxQuarantined  = 5 // files; the oldest goes when there is one more
	quarantineStamp = "20060102T150405.000000000Z"
	quarantineTries = 100
)

// setAside renames the file at a path to NAME.corrupt-TIME, or NAME.newer-TIME, over no other file.
func setAside(path string, cause error, now time.Time) (string, error) {
	what := ".corrupt-"
	if errors.Is(cause, errNewer) {
		what = ".newer-"
	}
	base := path + what + now.UTC().Format(quarantineStamp)
	for i := range quarantineTries {
		name := base
		if i > 0 {
			name = fmt.Sprintf("%s-%02d", base, i)
		}
		err := renameWithFlags(path, name, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return "", &os.LinkError{Op: "set aside", Old: path, New: name, Err: err}
		}
		removeOldest(path, name)
		syncFolder(path)
		return name, nil
	}
	return "", fmt.Errorf("set aside %s: %w", path, fs.ErrExist)
}

// removeOldest removes the oldest of the files that were set aside, never the one just made.
func removeOldest(path, keep string) {
	dir, base := filepath.Split(path)
	entries, err := os.ReadDir(filepath.Clean(dir + "."))
	if err != nil {
		return
	}
	type aside struct{ name, stamp string }
	var list []aside
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), base+".")
		if !ok || !e.Type().IsRegular() || dir+e.Name() == keep {
			continue
		}
		for _, what := range []string{"corrupt-", "newer-"} {
			if stamp, ok := strings.CutPrefix(rest, what); ok && len(stamp) >= len(quarantineStamp) {
				if _, err := time.Parse(quarantineStamp, stamp[:len(quarantineStamp)]); err == nil {
					list = append(list, aside{dir + e.Name(), stamp})
				}
			}
		}
	}
	slices.SortFunc(list, func(a, b aside) int { return strings.Compare(a.stamp, b.stamp) })
	for len(list) > maxQuarantined-1 {
		_ = os.Remove(list[0].name)
		list = list[1:]
	}
}

// removeLeftovers removes what a process that ended amid a rewrite left behind. The lock on path must be held.
func removeLeftovers(path string) {
	names, _ := filepath.Glob(globQuote(path) + ".new-*")
	for _, name := range names {
		if f, err := os.OpenFile(name, os.O_RDWR, 0); err == nil {
			// One that is locked is being made by somebody else just now.
			if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
				_ = os.Remove(name)
			}
			_ = f.Close()
		}
	}
}

func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
