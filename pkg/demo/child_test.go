package demo

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nobody is a user without any privilege.
const nobody = 65534

// asNobody is the demonstration, run by this test program as another user.
func asNobody(t *testing.T, d time.Duration) *exec.Cmd {
	t.Helper()
	needRoot(t)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), asProgram+"="+d.String())
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return cmd
}

// userNamespaces says whether this kernel lets nobody make one with a network in it.
func userNamespaces(t *testing.T) bool {
	t.Helper()
	cmd := asNobody(t, 0)
	cmd.Args = append(cmd.Args, "-test.run=^$")
	cmd.Env = []string{}
	cmd.SysProcAttr.Credential = nil
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET
	return cmd.Run() == nil
}

func TestUserWithoutPrivileges(t *testing.T) {
	needRoot(t)
	t.Parallel()
	cmd := asNobody(t, MinFor)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, &problems, &out)
	}
	got := read(t, out.Bytes())
	if !userNamespaces(t) {
		if !got.summary.DryRun || got.summary.UserNamespace {
			t.Errorf("%+v", got.summary)
		}
		return
	}
	if !got.summary.UserNamespace {
		t.Errorf("no user namespace: %+v", got.summary)
	}
	wantBansInKernel(t, got)
}

// TestWithoutNamespacesItRunsDry is a system that forbids both ways.
func TestWithoutNamespacesItRunsDry(t *testing.T) {
	needRoot(t)
	if !userNamespaces(t) {
		return // see TestUserWithoutPrivileges
	}
	t.Parallel()
	cmd := asNobody(t, MinFor)
	cmd.Env = append(cmd.Env, forbid+"=/proc/sys/user/max_net_namespaces")
	mapped := []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: mapped, GidMappings: mapped,
		Credential: &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true},
	}
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, &problems, &out)
	}
	got := read(t, out.Bytes())
	if s := got.summary; !s.OK || !s.DryRun || s.UserNamespace ||
		!strings.Contains(s.DryRunReason, "network namespace") {
		t.Errorf("%+v", s)
	}
}

func TestChildEndsWithItsParent(t *testing.T) {
	needRoot(t)
	if !userNamespaces(t) {
		return // there is no child, see TestUserWithoutPrivileges
	}
	t.Parallel()
	cmd := asNobody(t, time.Hour)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	for line := ""; !strings.Contains(line, `"action":"ban"`); {
		if line, err = lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	child := childOf(t, cmd.Process.Pid)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(lines) // the child's end of the pipe closes when it ends
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if !strings.Contains(string(rest), `"ok":false`) {
		t.Errorf("the child did not end in order: %q", rest)
	}
	for end := time.Now().Add(patience); running(child); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d is still there", child)
		}
	}
}

func childOf(t *testing.T, pid int) int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range tasks {
		text, _ := os.ReadFile(file) // a thread may have ended
		if child, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			return child
		}
	}
	t.Fatal("no child")
	return 0
}

// running says whether a process is there and no zombie (proc_pid_stat(5)).
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

func TestStrayVariableIsRefused(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), asProgram+"=3s", childVariable+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), childVariable) {
		t.Errorf("%v: %s", err, out)
	}
}
