package fail2ban

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxCopy is the largest database that is copied, in bytes, journals included.
const maxCopy = 1 << 30

// The bytes by which SQLite's processes lock each other out (sqlite3's os.h, "PENDING_BYTE").
const (
	pendingByte = 0x40000000
	sharedFirst = pendingByte + 2
	sharedSize  = 510
)

// How long a program that is writing is waited for.
const (
	lockPatience = 3 * time.Second
	lockPause    = 20 * time.Millisecond
)

// snapshot is a database that stays as it is while it is read.
type snapshot struct {
	uri   string
	note  string // what is special about it, or ""
	close func()
}

// openSnapshot gives a database to read, and leaves the file as it is. Where no journal is about, that is the file
// itself, opened read-only and immutable, under the lock that SQLite's readers take; so nobody writes meanwhile. Where
// there is a journal or another program keeps its lock, it is a copy, on which SQLite may do its repairs.
func openSnapshot(ctx context.Context, path string) (*snapshot, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	s, err := snapshotOf(ctx, f, path)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return s, nil
}

func snapshotOf(ctx context.Context, f *os.File, path string) (*snapshot, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var magic [16]byte
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("it is no regular file")}
	}
	if _, err := f.ReadAt(magic[:], 0); err != nil || !bytes.Equal(magic[:], []byte("SQLite format 3\x00")) {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("it is no SQLite database")}
	}
	locked, err := lock(ctx, f)
	if err != nil {
		return nil, err
	}
	if locked && !journals(path) {
		return &snapshot{uri: uri(path, "mode=ro&immutable=1"), close: func() { _ = f.Close() }}, nil
	}
	note := "the database has a journal beside it, so a copy of both was read"
	if !locked {
		note = "another program was writing to the database all the time, so a copy was read; it may lack the last bans"
	}
	dir, err := os.MkdirTemp("", "ringwall-import-")
	if err != nil {
		return nil, err
	}
	s := &snapshot{uri: uri(filepath.Join(dir, "db"), "mode=rw"), note: note, close: func() {
		_ = f.Close()
		_ = os.RemoveAll(dir)
	}}
	left := int64(maxCopy)
	for _, end := range []string{"", "-wal", "-journal"} {
		n, err := copyFile(path+end, filepath.Join(dir, "db"+end), left)
		if left -= n; err != nil && (end == "" || !errors.Is(err, fs.ErrNotExist)) {
			_ = os.RemoveAll(dir)
			return nil, err
		}
	}
	return s, nil
}

func uri(path, query string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: query}).String()
}

func journals(path string) bool {
	for _, end := range []string{"-wal", "-journal"} {
		if info, err := os.Stat(path + end); err == nil && info.Size() > 0 {
			return true
		}
	}
	return false
}

// lock takes SQLite's shared lock until f is closed. It is a lock of the open file (F_OFD_SETLK), which SQLite's own
// opening and closing of the same file in this process does not take away (fcntl(2), "Advisory record locking").
func lock(ctx context.Context, f *os.File) (bool, error) {
	set := func(kind int16, start, length int64) error {
		return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: start, Len: length})
	}
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	pause := time.NewTicker(lockPause)
	defer pause.Stop()
	for {
		err := set(unix.F_RDLCK, pendingByte, 1)
		if err == nil {
			err = set(unix.F_RDLCK, sharedFirst, sharedSize)
			_ = set(unix.F_UNLCK, pendingByte, 1)
		}
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES):
			// Some network file systems have no such locks.
			return false, nil
		}
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				return false, nil
			}
			return false, ctx.Err()
		case <-pause.C:
		}
	}
}

func copyFile(from, to string, most int64) (int64, error) {
	src, err := os.OpenFile(from, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = src.Close() }()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(dst, io.LimitReader(src, most+1))
	if err == nil && n > most {
		err = &fs.PathError{Op: "copy", Path: from, Err: fmt.Errorf("it is larger than %d bytes", int64(maxCopy))}
	}
	return n, errors.Join(err, dst.Close())
}
