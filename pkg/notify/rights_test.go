package notify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/config"
)

// TestProgramHasNoRights starts it as the packaged unit would: by a user other than root, with an ambient capability.
func TestProgramHasNoRights(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become a user with a capability")
	}
	const show = "grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status"
	var before, inside, after string
	failed := make(chan error, 1)
	go func() {
		failed <- func() error {
			runtime.LockOSThread() // never unlocked: the thread ends with its rights
			if err := becomeDaemon(); err != nil {
				return err
			}
			sets := func(to *string) error {
				out, err := exec.Command("/bin/sh", "-c", show).Output()
				*to = string(out)
				return err
			}
			if err := sets(&before); err != nil {
				return err
			}
			p := &programSender{cfg: config.Notify{Exec: []string{"/bin/sh", "-c", show}},
				onOutput: func(o string) { inside = o }}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := p.sendMessage(ctx, describeDecision(banDecision(1), "host")); err != nil {
				return err
			}
			status, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/status", unix.Gettid()))
			after = string(status)
			return err
		}()
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	netAdmin := fmt.Sprintf("%016x", 1<<unix.CAP_NET_ADMIN)
	for _, set := range []string{"CapEff", "CapAmb"} {
		if !strings.Contains(before, set+":\t"+netAdmin) {
			t.Fatalf("a child of this thread has no capability to lose:\n%s", before)
		}
	}
	// The inheritable set gives nothing to a program without file capabilities of its own.
	for _, set := range []string{"CapPrm", "CapEff", "CapAmb"} {
		if !strings.Contains(inside, set+`:\x090000000000000000`) { // what is shown of a program is escaped
			t.Errorf("the program has rights:\n%s", inside)
		}
	}
	if !strings.Contains(after, "CapEff:\t"+netAdmin) {
		t.Errorf("the daemon's thread has lost its own:\n%s", after)
	}
}

// becomeDaemon gives this thread, and no other, user nobody and CAP_NET_ADMIN as systemd's AmbientCapabilities= would.
func becomeDaemon() error {
	const nobody = 65534
	keep := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
	_, _, groups := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
	_, _, group := unix.RawSyscall(unix.SYS_SETRESGID, nobody, nobody, nobody)
	_, _, user := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody)
	for _, e := range []unix.Errno{groups, group, user} {
		if e != 0 {
			return fmt.Errorf("become nobody: %w", e)
		}
	}
	only := [2]unix.CapUserData{{Effective: 1 << unix.CAP_NET_ADMIN, Permitted: 1 << unix.CAP_NET_ADMIN,
		Inheritable: 1 << unix.CAP_NET_ADMIN}}
	return errors.Join(keep,
		unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &only[0]),
		unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_NET_ADMIN, 0, 0))
}
