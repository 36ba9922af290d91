package store

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const mountVariable = "RINGWALL_TEST_STORE_MOUNTS"

// withDisk runs a test in a process with mounts of its own, on a file system in memory of some size.
func withDisk(t *testing.T, size string, test func(t *testing.T, dir string)) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
	if os.Getenv(mountVariable) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=2m")
		cmd.Env = append(os.Environ(), mountVariable+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	dir := t.TempDir()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	test(t, dir)
}

const ballast = "ballast"

// fillDisk leaves no room at all.
func fillDisk(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, ballast))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	_ = f.Close()
}

func TestAFullDiskIsReportedAndRecoveredFrom(t *testing.T) {
	withDisk(t, "2m", func(t *testing.T, dir string) {
		path := filepath.Join(dir, "state.db")
		health := make(chan error, 100)
		s, _ := mustOpen(t, path, Options{Health: func(err error) { health <- err }})
		stop := runs(t, s)
		mustPut(t, s, PutBan(sampleBan(0, 1)))
		mustFlush(t, s)
		fillDisk(t, dir)
		const n = 1500
		mustPut(t, s, sampleBans(n, 4)...)
		if err := s.Flush(t.Context()); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("error %v", err)
		}
		if err := await(t, health, "a report"); !errors.Is(err, unix.ENOSPC) || !errors.Is(s.Err(), unix.ENOSPC) {
			t.Errorf("report %v", err)
		}
		for range 5 { // the same trouble is told once
			_ = s.Flush(t.Context())
		}
		if len(health) != 0 {
			t.Errorf("reported again: %v", <-health)
		}
		if got := len(mustLoad(t, s, start).Bans); got == 0 {
			t.Error("what was saved before cannot be read")
		}
		if err := os.Remove(filepath.Join(dir, ballast)); err != nil {
			t.Fatal(err)
		}
		mustFlush(t, s)
		if err := await(t, health, "a report that all is well"); err != nil || s.Err() != nil {
			t.Errorf("report %v, %v", err, s.Err())
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if state, _ := load(t, path, start); len(state.Bans) != n {
			t.Errorf("%d bans", len(state.Bans))
		}
	})
}

func TestAReadOnlyFolderStillLoadsAndIsRecoveredFrom(t *testing.T) {
	withDisk(t, "8m", func(t *testing.T, dir string) {
		path := filepath.Join(dir, "state.db")
		remount := func(flags uintptr) {
			if err := unix.Mount("", dir, "", unix.MS_REMOUNT|flags, ""); err != nil {
				t.Fatal(err)
			}
		}
		save(t, path, PutBan(sampleBan(1, 1)))
		for _, there := range []bool{true, false} {
			if !there {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			remount(unix.MS_RDONLY)
			s, r := mustOpen(t, path, Options{})
			if !errors.Is(r.Unavailable, unix.EROFS) || !r.Adopt() || r.Readable != there ||
				!errors.Is(s.Err(), unix.EROFS) {
				t.Errorf("recovery %+v, %v", r, s.Err())
			}
			if n := len(mustLoad(t, s, start).Bans); (n == 1) != there {
				t.Errorf("%d bans can be read", n)
			}
			stop := runs(t, s)
			mustPut(t, s, PutBan(sampleBan(2, 1)))
			if err := s.Flush(t.Context()); !errors.Is(err, unix.EROFS) {
				t.Errorf("error %v", err)
			}
			// While a file is open for reading only, the disk may be made writable again.
			remount(0)
			mustFlush(t, s)
			if err := stop(); err != nil || s.Err() != nil {
				t.Fatal(err, s.Err())
			}
			if state, _ := load(t, path, start); (len(state.Bans) == 2) != there {
				t.Errorf("%d bans", len(state.Bans))
			}
		}
	})
}

func TestFlushDoesNotReportAnAttemptThatFailedBeforeIt(t *testing.T) {
	withDisk(t, "2m", func(t *testing.T, dir string) {
		var s *Store
		var mended bool
		flushed := make(chan error, 1)
		s, _ = mustOpen(t, filepath.Join(dir, "state.db"), Options{Health: func(err error) {
			if err == nil || mended {
				return
			}
			// The attempt that failed calls this before it says that it ended.
			mended = true
			if err := os.Remove(filepath.Join(dir, ballast)); err != nil {
				t.Error(err)
			}
			go func() { flushed <- s.Flush(t.Context()) }()
			for waits := false; !waits && t.Context().Err() == nil; runtime.Gosched() {
				s.mu.Lock()
				waits = s.urgent
				s.mu.Unlock()
			}
		}})
		fillDisk(t, dir)
		stop := runs(t, s)
		mustPut(t, s, sampleBans(1500, 4)...)
		if err := await(t, flushed, "Flush"); err != nil {
			t.Error(err)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}
