package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/store/internal/pages"
)

const (
	fileMode = 0o600
	dirMode  = 0o700

	schema        = 1
	growBytes     = 4 << 20 // what the file grows ahead by, once it is larger than that
	compactFrom   = 4 << 20 // bytes; a smaller file is never compacted
	compactTxSize = 8 << 20
)

var (
	metaBucket = []byte("meta")
	formatKey  = []byte("format")
	formatName = []byte("ringwall state")
	versionKey = []byte("version")
)

var (
	errForeign = errors.New("it is not Ringwall's")
	errNewer   = errors.New("a newer Ringwall wrote it")
)

// file is an open, locked and checked state file.
type file struct {
	bolt     *bbolt.DB
	os       *os.File
	usage    pages.Usage
	readOnly bool
	migrated int // version that it had, -1 where it is as it was

	mu       sync.Mutex // one transaction at a time: see do
	isBroken bool
}

// isUnusable says whether an error means that the file as such can never be used, whatever the disk does.
func isUnusable(err error) bool {
	return errors.Is(err, pages.ErrDamaged) || errors.Is(err, errForeign) || errors.Is(err, errNewer) || errors.Is(err,
		errBroken)
}

// openFile opens the file at a path. A file that is unusable is handed to setAside, if there is one, while it is
// locked.
func openFile(path string, readOnly bool, setAside func(cause error) error) (*file, error) {
	flag, how := os.O_RDWR, unix.LOCK_EX
	if readOnly {
		flag, how = os.O_RDONLY, unix.LOCK_SH
	}
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: it is a folder or a device", path, ErrNoFile)
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, err
	}
	keep := false
	defer func() {
		if !keep {
			_ = f.Close()
		}
	}()
	if err := lockFile(f, how); err != nil {
		return nil, err
	}
	if !sameFile(f, path) { // it was set aside or replaced before the lock was ours
		return nil, fmt.Errorf("%s: %w", path, errMoved)
	}
	st, err := openChecked(f, readOnly)
	if err != nil {
		if isUnusable(err) && setAside != nil {
			if err := setAside(err); err != nil {
				return nil, err
			}
		}
		return nil, err
	}
	keep = true
	return st, nil
}

var errMoved = errors.New("it was moved while it was opened")

// openChecked checks a locked file and gives it to bbolt.
func openChecked(f *os.File, readOnly bool) (*file, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	usage, err := pages.Check(f, info.Size())
	if err != nil {
		return nil, err
	}
	st := &file{os: f, usage: usage, readOnly: readOnly, migrated: -1}
	err = st.runExclusively(func() (err error) {
		if st.bolt, err = openBolt(f, readOnly); err != nil {
			return err
		}
		return st.bolt.View(checkSchema(&st.migrated))
	})
	if err == nil && st.migrated >= 0 && !readOnly {
		err = st.runUpdate(migrateFrom(st.migrated))
	}
	if err != nil {
		st.close()
		return nil, err
	}
	if !readOnly && info.Mode().Perm() != fileMode {
		_ = f.Chmod(fileMode) // the accounts of customers are in it
	}
	return st, nil
}

// openBolt gives bbolt a file that is open and locked already. bbolt closes it.
func openBolt(f *os.File, readOnly bool) (*bbolt.DB, error) {
	db, err := bbolt.Open(f.Name(), fileMode, &bbolt.Options{
		Timeout: time.Nanosecond, FreelistType: bbolt.FreelistMapType, ReadOnly: readOnly, NoStatistics: true,
		PreLoadFreelist: true,
		OpenFile:        func(string, int, os.FileMode) (*os.File, error) { return f, nil },
	})
	if err != nil {
		return nil, err
	}
	db.AllocSize = growBytes
	return db, nil
}

// close gives everything back. The mapping of a broken file stays: nothing can end it safely.
func (f *file) close() {
	if f.bolt != nil {
		_ = f.runExclusively(f.bolt.Close)
	}
	unlockAndClose(f.os)
}

// unlockAndClose unlocks and closes a file. A mapping that is left would hold the lock beyond the close.
func unlockAndClose(f *os.File) {
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
	_ = f.Close()
}

// runUpdate runs one writing transaction.
func (f *file) runUpdate(fn func(*bbolt.Tx) error) error {
	if f.readOnly {
		return unix.EROFS
	}
	return f.runExclusively(func() error { return f.bolt.Update(fn) })
}

// runView runs one reading transaction.
func (f *file) runView(fn func(*bbolt.Tx) error) error {
	return f.runExclusively(func() error { return f.bolt.View(fn) })
}

// runExclusively calls a function that works with bbolt, alone. A panic may leave bbolt's locks taken for ever, so that
// after one nothing calls it any more, and nobody waits within it.
func (f *file) runExclusively(fn func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.isBroken {
		return errBroken
	}
	err := catchFaults(fn)
	f.isBroken = errors.Is(err, errBroken)
	return err
}

func (f *file) hasBroken() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.isBroken
}

func sameFile(f *os.File, path string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(mine, there)
}

// createFile makes a new state file. It gets its name when it is whole, so that a file that is not was damaged later.
func createFile(path string) (*file, error) {
	f, err := createAs(fmt.Sprintf("%s.new-%d", path, os.Getpid()))
	if err != nil {
		return nil, err
	}
	err = f.runUpdate(func(tx *bbolt.Tx) error { return makeBuckets(tx, schema) })
	if err == nil {
		err = f.giveName(path, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		_ = os.Remove(f.os.Name())
		f.close()
		return nil, err
	}
	return f, nil
}

func createAs(name string) (*file, error) {
	if err := os.Mkdir(filepath.Dir(name), dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	_ = os.Remove(name)
	o, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return nil, err
	}
	f := &file{os: o, migrated: -1}
	if err = lockFile(o, unix.LOCK_EX); err == nil {
		err = giveToFolderOwner(o, filepath.Dir(name))
	}
	if err == nil {
		err = catchFaults(func() (err error) {
			f.bolt, err = openBolt(o, false)
			return err
		})
	}
	if err != nil {
		_ = os.Remove(name)
		_ = o.Close()
		return nil, err
	}
	return f, nil
}

// giveName gives a new file its name.
func (f *file) giveName(path string, flags uint) error {
	if err := renameWithFlags(f.os.Name(), path, flags); err != nil {
		return &os.LinkError{Op: "rename", Old: f.os.Name(), New: path, Err: err}
	}
	syncFolder(path)
	return nil
}

// renameWithFlags renames; file systems that know no flags are looked at first instead.
func renameWithFlags(from, to string, flags uint) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags)
	if flags == 0 || !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	if _, err := os.Lstat(to); err == nil {
		return unix.EEXIST
	}
	return os.Rename(from, to)
}

// syncFolder makes a new name last, where the file system can do that.
func syncFolder(path string) {
	if d, err := os.Open(filepath.Dir(path)); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
}

// mostlyFree says whether most of a file is free pages.
func (f *file) mostlyFree() bool {
	return f.usage.Size() > compactFrom && f.usage.Free > f.usage.Pages/2
}

// compactTo copies all that a file holds into a new one, which takes its name. The old file is closed.
func (f *file) compactTo(path string) (*file, error) {
	fresh, err := createAs(fmt.Sprintf("%s.new-%d", path, os.Getpid()))
	if err != nil {
		return nil, err
	}
	err = f.runExclusively(func() error { return bbolt.Compact(fresh.bolt, f.bolt, compactTxSize) })
	if err == nil {
		err = fresh.giveName(path, 0)
	}
	if err != nil {
		_ = os.Remove(fresh.os.Name())
		unlockAndClose(fresh.os) // Compact may have left a transaction open, for which bbolt's Close would wait
		return nil, err
	}
	f.close()
	return fresh, nil
}

// makeBuckets makes the buckets of a file.
func makeBuckets(tx *bbolt.Tx, version uint64) error {
	b, err := tx.CreateBucketIfNotExists(metaBucket)
	if err == nil {
		err = b.Put(formatKey, formatName)
	}
	if err == nil {
		err = b.Put(versionKey, binary.BigEndian.AppendUint64(nil, version))
	}
	for _, k := range append(keyedKinds[:], kindDecision) {
		if err == nil {
			_, err = tx.CreateBucketIfNotExists(k.bucketName())
		}
	}
	return err
}

// checkSchema says whether a file is Ringwall's, and which version it has if that must be migrated.
func checkSchema(older *int) func(tx *bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		b := tx.Bucket(metaBucket)
		if b == nil || !bytes.Equal(b.Get(formatKey), formatName) {
			return errForeign
		}
		v := b.Get(versionKey)
		if len(v) != 8 {
			return errForeign
		}
		switch version := binary.BigEndian.Uint64(v); {
		case version > schema:
			return fmt.Errorf("%w: it has version %d, known is %d", errNewer, version, schema)
		case version < schema:
			*older = int(version)
			return nil
		}
		for _, k := range append(keyedKinds[:], kindDecision) {
			if tx.Bucket(k.bucketName()) == nil {
				return fmt.Errorf("%w: it has no %s", errForeign, k)
			}
		}
		return nil
	}
}
