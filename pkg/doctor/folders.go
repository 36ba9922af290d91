package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/printable"
)

// leastSpace is the free space, in bytes, that the disk of the state file should have.
const leastSpace = 64 << 20

// unixUser is the user that the daemon runs as, or would.
type unixUser struct {
	name     string
	uid      uint32
	gids     []uint32
	isCaller bool // this process may be asked instead of the mode bits
}

// examineFolders looks where the daemon writes: state and socket.
func (e *exam) examineFolders(context.Context) {
	who := e.daemonUser()
	e.examineStateFolder(who)
	e.examineSocketFolder(who)
}

// daemonUser is the running daemon's user, else that of the packaged unit, else whoever asks.
func (e *exam) daemonUser() unixUser {
	if e.daemon != nil {
		if info, err := os.Stat(filepath.Join(e.procFolder, strconv.Itoa(e.daemon.PID))); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				return unixUserOf(strconv.FormatUint(uint64(st.Uid), 10))
			}
		}
	}
	if u, err := user.Lookup("ringwall"); err == nil {
		return unixUserOf(u.Uid)
	}
	return unixUserOf(strconv.Itoa(os.Geteuid()))
}

func unixUserOf(uid string) unixUser {
	n, _ := strconv.ParseUint(uid, 10, 32)
	a := unixUser{name: "uid " + uid, uid: uint32(n), isCaller: int(n) == os.Geteuid()}
	if u, err := user.LookupId(uid); err == nil {
		a.name = u.Username
		ids, _ := u.GroupIds() // without them fewer folders count as writable
		for _, id := range ids {
			if g, err := strconv.ParseUint(id, 10, 32); err == nil {
				a.gids = append(a.gids, uint32(g))
			}
		}
	}
	return a
}

// errNotVisible says that the caller may not look into a folder, so that its mode is not known.
var errNotVisible = errors.New("not to be seen by this user")

// mayWrite returns nil where the user may write what is at path, as far as mode bits say.
func (a unixUser) mayWrite(path string) error {
	if a.isCaller {
		return unix.Access(path, unix.W_OK)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); errors.Is(err, unix.EACCES) {
		return errNotVisible
	} else if err != nil {
		return err
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(path, &disk); err == nil && disk.Flags&unix.ST_RDONLY != 0 {
		return unix.EROFS
	}
	bit := uint32(0o002)
	switch {
	case a.uid == 0:
		return nil
	case st.Uid == a.uid:
		bit = 0o200
	case slices.Contains(a.gids, st.Gid):
		bit = 0o020
	}
	if st.Mode&bit == 0 {
		return unix.EACCES
	}
	return nil
}

func (e *exam) examineStateFolder(who unixUser) {
	s, path := e.subjectNamed(""), e.cfg.State.Path
	dir := filepath.Dir(path)
	create := fmt.Sprintf("install -d -m 0700 -o %s %s", who.name, dir)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.warn("state", create, "%s does not exist yet; the packaged service makes it (StateDirectory=)", dir)
		return
	case errors.Is(err, fs.ErrPermission):
		s.skip("state", "sudo ringwall doctor", "this user may not look into %s", dir)
		return
	case err != nil:
		s.fail("state", create, "%s: %s", dir, errorLine(err))
		return
	case !info.IsDir():
		s.fail("state", create, "%s is no folder", dir)
		return
	}
	for _, p := range []string{dir, path} {
		err := who.mayWrite(p)
		switch {
		case err == nil, errors.Is(err, fs.ErrNotExist) && p == path, errors.Is(err, errNotVisible) && p == path:
		case errors.Is(err, unix.EROFS):
			s.fail("state", "mount it writable, or another state.path",
				"%s is on a disk that is mounted read-only: a restart would forget bans and trust", p)
			return
		default:
			s.fail("state", fmt.Sprintf("chown -R %s %s", who.name, dir),
				"%s cannot be written by %s: a restart would forget bans and trust (%s)", p, who.name, errorLine(err))
			return
		}
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err == nil {
		if left := disk.Bavail * uint64(disk.Bsize); left < leastSpace {
			s.warn("state", "make room: df -h "+dir, "only %d MiB are left for %s", left>>20, dir)
			return
		}
	}
	if mode := info.Mode().Perm(); mode&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		s.warn("state", "chmod 0700 "+dir, "everybody may write into %s (mode %04o)", dir, mode)
		return
	}
	s.ok("state", "%s can write %s", who.name, dir)
}

func (e *exam) examineSocketFolder(who unixUser) {
	s, path, group := e.subjectNamed(""), e.cfg.Control.Socket, e.cfg.Control.Group
	if group != "" {
		if _, err := user.LookupGroup(group); err != nil {
			s.fail("socket", "groupadd "+printable.String(group)+", or control.group: \"\"",
				"there is no group %q (control.group)", printable.String(group))
			return
		}
	}
	if e.daemon != nil {
		s.ok("socket", "%s answers", path)
		return
	}
	dir := filepath.Dir(path)
	if len(path) > 107 { // sun_path of unix(7)
		s.fail("socket", "a shorter control.socket", "%s is longer than the 107 bytes of a socket's path", path)
		return
	}
	err := who.mayWrite(dir)
	switch {
	case err == nil:
		s.ok("socket", "%s can make %s", who.name, path)
	case errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(dir, "/run/"):
		s.ok("socket", "%s does not exist yet; the service makes it (RuntimeDirectory=)", dir)
	case errors.Is(err, fs.ErrNotExist):
		s.warn("socket", fmt.Sprintf("install -d -m 0755 -o %s %s", who.name, dir), "%s does not exist", dir)
	default:
		s.warn("socket", fmt.Sprintf("chown %s %s, or another control.socket", who.name, dir),
			"%s cannot make a socket in %s: %s", who.name, dir, errorLine(err))
	}
}
