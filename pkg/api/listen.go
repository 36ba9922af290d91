package api

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxPath is the room in struct sockaddr_un for a path and its NUL (unix(7)).
const maxPath = 108 - 1

// Listener is the daemon's socket. While it is open no other daemon can take the same path.
type Listener struct {
	unix *net.UnixListener
	path string
	file os.FileInfo // of the socket, to remove no other
	lock *os.File
}

// Listen makes the socket with mode 0660 and the group, which may be a name, a number, or empty for the process's own.
// A socket that nobody listens on is replaced; another daemon is [ErrInUse]; what is no socket is left alone.
func Listen(path, group string) (*Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("control socket %q: the path must begin with /", path)
	}
	gid, err := groupID(group)
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("folder of the control socket: %w", err)
	}
	lock, err := takeLock(path + ".lock")
	if err != nil {
		return nil, err
	}
	l := &Listener{path: path, lock: lock}
	if err := checkStale(path); err != nil {
		l.releaseLock()
		return nil, err
	}
	if err := l.bindSocket(dir, gid); err != nil {
		l.releaseLock()
		return nil, err
	}
	return l, nil
}

// bindSocket makes the socket in a folder that only this user can enter, gives it its mode and group there, and moves
// it to its place: nobody can connect before both are right, and the umask of the whole process is left alone.
func (l *Listener) bindSocket(dir string, gid int) error {
	private, err := os.MkdirTemp(dir, ".ringwall-")
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	defer func() { _ = os.RemoveAll(private) }()
	temporary := filepath.Join(private, "s")
	if longest := max(len(temporary), len(l.path)); longest > maxPath {
		return fmt.Errorf("control socket %q: the path is %d bytes too long for a unix socket", l.path, longest-maxPath)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	ln.SetUnlinkOnClose(false)
	err = os.Chown(temporary, -1, gid)
	if err == nil {
		err = os.Chmod(temporary, 0o660)
	}
	if err == nil {
		l.file, err = os.Lstat(temporary)
	}
	if err == nil {
		err = os.Rename(temporary, l.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("control socket %s: %w", l.path, err), ln.Close())
	}
	l.unix = ln
	return nil
}

// SetGroup gives the socket to a group, as Listen would have.
func (l *Listener) SetGroup(group string) error {
	gid, err := groupID(group)
	if err != nil {
		return err
	}
	if err := os.Chown(l.path, -1, gid); err != nil {
		return fmt.Errorf("control socket %s: %w", l.path, err)
	}
	return nil
}

// Path returns where the socket is.
func (l *Listener) Path() string { return l.path }

// Close ends the listener and removes the socket, unless somebody has put another in its place.
func (l *Listener) Close() error {
	err := l.unix.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	if now, statErr := os.Lstat(l.path); statErr == nil && os.SameFile(now, l.file) {
		err = errors.Join(err, os.Remove(l.path))
	}
	l.releaseLock()
	return err
}

// releaseLock removes the file while it is still locked; takeLock notices when it locked a removed one.
func (l *Listener) releaseLock() {
	held, err := l.lock.Stat()
	if err == nil {
		if there, err := os.Lstat(l.lock.Name()); err == nil && os.SameFile(held, there) {
			_ = os.Remove(l.lock.Name())
		}
	}
	_ = l.lock.Close()
}

// takeLock makes and locks a file that only this user can open. A lock on the folder would do without a file, but
// anybody who may read the folder could hold it.
func takeLock(path string) (*os.File, error) {
	for range 100 {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock of the control socket: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			holder := readPID(f)
			_ = f.Close()
			if !errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("lock of the control socket %s: %w", path, err)
			}
			return nil, inUse("another ringwall%s holds %s", holder, path)
		}
		locked, err := f.Stat()
		if err == nil {
			var there os.FileInfo
			if there, err = os.Lstat(path); err == nil && os.SameFile(locked, there) {
				if err = f.Truncate(0); err == nil {
					_, err = f.WriteAt(strconv.AppendInt(nil, int64(os.Getpid()), 10), 0)
				}
				if err == nil {
					return f, nil
				}
			}
		}
		_ = f.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("lock of the control socket %s: %w", path, err)
		}
	}
	return nil, fmt.Errorf("lock of the control socket %s: it is replaced again and again", path)
}

func readPID(f io.ReaderAt) string {
	text := make([]byte, 12)
	n, _ := f.ReadAt(text, 0)
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n]))); err == nil {
		return fmt.Sprintf(" (pid %d)", pid)
	}
	return ""
}

// checkStale returns nil where path may be taken: nothing is there, or a socket that refuses connections.
func checkStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("control socket %s: something else is there (%s); move it away or set control.socket to "+
			"another path",
			path, info.Mode().Type())
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control socket %s: cannot tell whether it is in use: %w", path, err)
	}
	defer func() { _ = c.Close() }()
	holder := ""
	if uc, ok := c.(*net.UnixConn); ok {
		if p, err := peerOf(uc); err == nil {
			holder = fmt.Sprintf(" (pid %d)", p.PID)
		}
	}
	return inUse("another process%s answers on %s", holder, path)
}

func inUse(format, holder, path string) error {
	return &Error{
		Message: fmt.Sprintf(format, holder, path),
		Try:     "stop it first (systemctl stop ringwall), or give this one another control.socket",
		Err:     ErrInUse,
	}
}

func groupID(group string) (int, error) {
	if group == "" {
		return os.Getegid(), nil
	}
	if id, err := strconv.ParseUint(group, 10, 31); err == nil {
		return int(id), nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, &Error{
			Message: fmt.Sprintf("control.group: there is no group %q", group),
			Try:     "make it with groupadd, or leave control.group empty for root alone",
			Err:     err,
		}
	}
	return strconv.Atoi(g.Gid)
}
