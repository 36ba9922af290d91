package setup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/hint"
)

// maxFileBytes bounds what is read of one file.
const maxFileBytes = 4 << 20

// A tree is a machine's files. Asterisk's folder belongs to Asterisk's user, and root writes there: the last part of a
// path is never followed where it is a symbolic link.
type tree string

func (t tree) real(path string) string { return filepath.Join(string(t), path) }

func (t tree) open(path string, flags int, mode fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(t.real(path), flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, mode)
	if errors.Is(err, unix.ELOOP) {
		return nil, hint.Errorf("put the real file there, or do it by hand: "+
			"/usr/share/doc/ringwall/deploy/docs/install.md",
			"%s is a symbolic link, which is not followed", path)
	}
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = f.Close()
		return nil, errors.Join(err, fmt.Errorf("%s is no regular file", path))
	}
	return f, nil
}

func (t tree) read(path string) ([]byte, error) {
	f, err := t.open(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(b) > maxFileBytes {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFileBytes)
	}
	return b, err
}

func (t tree) exists(path string) bool {
	_, err := os.Lstat(t.real(path))
	return err == nil
}

// An owner is whose a file will be.
type owner struct{ uid, gid int }

func (t tree) ownerOf(path string) (owner, error) {
	var st unix.Stat_t
	if err := unix.Lstat(t.real(path), &st); err != nil {
		return owner{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return owner{int(st.Uid), int(st.Gid)}, nil
}

// groupID looks a group up in the tree's own file: what another tree calls by that name is another group.
func (t tree) groupID(name string) (int, bool) {
	b, err := t.read("/etc/group")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) >= 3 && f[0] == name {
			id, err := strconv.Atoi(f[2])
			return id, err == nil
		}
	}
	return 0, false
}

// create makes a file that was not there, whole or not at all.
func (t tree) create(path, text string, mode fs.FileMode, o owner) (err error) {
	f, err := t.open(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			_ = os.Remove(t.real(path))
		}
	}()
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	if err := f.Chown(o.uid, o.gid); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil { // after chown, and whatever the umask is
		return err
	}
	return f.Sync()
}

// replace writes a file anew in one step, with the owner and the mode that it had.
func (t tree) replace(path, text string) error {
	info, err := os.Lstat(t.real(path))
	if err != nil {
		return err
	}
	o, err := t.ownerOf(path)
	if err != nil {
		return err
	}
	fresh := path + ".ringwall-new"
	_ = os.Remove(t.real(fresh)) // of a run that was interrupted
	if err := t.create(fresh, text, info.Mode().Perm(), o); err != nil {
		return err
	}
	return os.Rename(t.real(fresh), t.real(path))
}

// appendTo writes at the end of a file that is there.
func (t tree) appendTo(path, text string) (err error) {
	f, err := t.open(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	return f.Sync()
}

// cutTail ends a file earlier: what was appended last goes without the rest being written anew.
func (t tree) cutTail(path string, size int) (err error) {
	f, err := t.open(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(int64(size)); err != nil {
		return err
	}
	return f.Sync()
}

// makeFolder makes one folder.
func (t tree) makeFolder(path string, mode fs.FileMode, o owner) error {
	if err := os.Mkdir(t.real(path), 0o700); err != nil {
		return err
	}
	return errors.Join(os.Lchown(t.real(path), o.uid, o.gid), os.Chmod(t.real(path), mode))
}
