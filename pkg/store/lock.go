package store

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrLocked is a state file that another process keeps.
var ErrLocked = errors.New("in use")

// lockFile takes the lock that bbolt takes, too: flock(2) belongs to the open file, so that bbolt finds it free.
func lockFile(f *os.File, how int) error {
	err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return err
	}
	return fmt.Errorf("%s is %w by %s; stop that first, or set state.path to another file", f.Name(), ErrLocked,
		lockHolder(f))
}

// lockHolder names who has the lock, as far as /proc tells (proc_locks(5)).
func lockHolder(f *os.File) string {
	const unknown = "another process"
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return unknown
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return unknown
	}
	defer func() { _ = locks.Close() }()
	dev := fmt.Sprintf("%02x:%02x:", unix.Major(st.Dev), unix.Minor(st.Dev))
	ino := ":" + strconv.FormatUint(st.Ino, 10)
	pid := 0
	for s := bufio.NewScanner(locks); s.Scan(); {
		field := strings.Fields(s.Text())
		if len(field) < 6 || field[1] != "FLOCK" || !strings.HasSuffix(field[5], ino) {
			continue
		}
		// Some file systems show another device number here than in stat, so the inode alone will do.
		if n, err := strconv.Atoi(field[4]); err == nil && n > 0 && (pid == 0 || strings.HasPrefix(field[5], dev)) {
			pid = n
		}
	}
	switch {
	case pid == 0:
		return unknown
	case pid == os.Getpid():
		return "this process itself"
	}
	name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("process %d (%s)", pid, strconv.Quote(strings.TrimSuffix(string(name), "\n")))
}
