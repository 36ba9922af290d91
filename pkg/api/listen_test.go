package api

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSocketIsForOwnerAndGroup(t *testing.T) {
	for name, row := range map[string]struct {
		group string
		gid   uint32
	}{
		"no group": {"", uint32(os.Getegid())},
		"a number": {"54321", 54321},
		"a name":   {"daemon", groupNumber(t, "daemon")},
	} {
		t.Run(name, func(t *testing.T) {
			if row.gid != uint32(os.Getegid()) && os.Getuid() != 0 {
				t.Skip("needs root")
			}
			path := filepath.Join(t.TempDir(), "sub", "r.sock")
			l, err := Listen(path, row.group)
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			st := info.Sys().(*syscall.Stat_t)
			if info.Mode() != fs.ModeSocket|0o660 || st.Gid != row.gid || st.Uid != uint32(os.Geteuid()) {
				t.Errorf("mode %s, uid %d, gid %d", info.Mode(), st.Uid, st.Gid)
			}
			names, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
			if hidden, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".ringwall-*")); err != nil ||
				len(names) != 2 || len(hidden) != 0 {
				t.Errorf("beside socket and lock: %v %v", names, hidden)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if err := l.Close(); err != nil {
				t.Errorf("the second Close: %v", err)
			}
			if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func groupNumber(t *testing.T, name string) uint32 {
	id, err := groupID(name)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(id)
}

func TestBadSocketsAreNamed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct{ path, group, want string }{
		"a file is there":   {filepath.Join(dir, "file"), "", "something else is there"},
		"a link is there":   {filepath.Join(dir, "link"), "", "something else is there"},
		"a relative path":   {"ringwall.sock", "", "must begin with /"},
		"an unknown group":  {filepath.Join(dir, "s"), "no-such-group", `there is no group "no-such-group"`},
		"a path too long":   {filepath.Join(dir, strings.Repeat("x", 120)), "", "too long for a unix socket"},
		"a file as folder":  {filepath.Join(dir, "file", "s"), "", "not a directory"},
		"an enormous group": {filepath.Join(dir, "s"), "4294967296", "there is no group"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := Listen(row.path, row.group)
			if err == nil {
				t.Fatal(errors.Join(errors.New("no error"), l.Close()))
			}
			if !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	if text, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(text) != "precious" {
		t.Errorf("the file is now %q, %v", text, err)
	}
	if locks, _ := filepath.Glob(filepath.Join(dir, "*.lock")); len(locks) != 0 {
		t.Errorf("left behind: %v", locks)
	}
}

func TestAStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	// What a crash leaves: an old lock file that nobody holds.
	if err := os.WriteFile(path+".lock", []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Error(err)
	} else {
		_ = c.Close()
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestASecondDaemonIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.sock")
	first, err := Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Close() }()
	if _, err := Listen(path, ""); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "(pid ") {
		t.Errorf("got %v", err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the first daemon lost its socket: %v", err)
	}
	_ = c.Close()
}

func TestAnotherProgramOnTheSocketIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.sock")
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if _, err := Listen(path, ""); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path + ".lock"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock stayed: %v", err)
	}
}

func TestCloseLeavesTheSocketOfASuccessor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.sock")
	l, err := Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	successor, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = successor.Close() }()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the successor's socket is gone: %v", err)
	}
}

// dialAs connects as another user, on a thread that ends with it: credentials belong to threads (credentials(7)).
func dialAs(uid, gid int, path string) (net.Conn, error) {
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		for _, call := range [][4]uintptr{
			{unix.SYS_SETGROUPS, 0, 0, 0},
			{unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)},
			{unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)},
		} {
			if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
				done <- result{nil, errno}
				return
			}
		}
		c, err := net.Dial("unix", path)
		done <- result{c, err}
	}()
	r := <-done
	return r.c, r.err
}

const nobody = 65534

func TestTheGroupMayAskAndOthersNot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	// The test's own folder may be closed to others: this one is open to them.
	dir, err := os.MkdirTemp("", "api")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(filepath.Join(dir, "r.sock"), "daemon")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{}
	r := start(t, f, func(s *Server) {
		_ = s.Listener.Close()
		s.Listener = l
	})

	_, err = dialAs(nobody, nobody, l.Path())
	err = (&Client{Socket: l.Path()}).explainFailure(t.Context(), err)
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, ErrPermission) ||
		!strings.Contains(e.Try, "add yourself to the group daemon") {
		t.Errorf("a stranger got %#v", err)
	}

	c, err := dialAs(nobody, int(groupNumber(t, "daemon")), l.Path())
	if err != nil {
		t.Fatalf("a member of the group got %v", err)
	}
	defer func() { _ = c.Close() }()
	send(t, c, "POST /v1/ban HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: "+
		"24\r\n\r\n{\"prefix\":\"203.0.113.5\"}")
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Fatal(err)
	}
	if len(f.bans) != 1 || f.bans[0].By.UID != nobody || f.bans[0].By.User != "nobody" ||
		f.bans[0].By.PID != int32(os.Getpid()) {
		t.Errorf("asked %+v", f.bans)
	}
	if !strings.Contains(r.log.String(), "by.uid=65534 by.user=nobody") {
		t.Errorf("log: %s", r.log)
	}
}
