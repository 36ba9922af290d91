package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/netns"
)

// bootTime bounds the wait for Asterisk, which needs a fraction of a second on an idle machine.
const bootTime = 60 * time.Second

// Process is a program that runs on a node.
type Process struct{ *netns.Process }

func (l *Lab) startProcess(node Node, cmd *exec.Cmd) (*Process, error) {
	p, err := l.net.nodes[node].Start(cmd)
	if err != nil {
		return nil, fmt.Errorf("lab: node %s: %w", node, err)
	}
	return &Process{p}, nil
}

// Spawn starts a program on a node; it is ended with the test, if it has not ended by itself. Use it to run the daemon:
//
//	p := l.Spawn(t, lab.Server, binary, "run", "--config", file)
func (l *Lab) Spawn(t testing.TB, node Node, name string, args ...string) *Process {
	t.Helper()
	return l.SpawnCmd(t, node, exec.Command(name, args...))
}

// SpawnCmd is Spawn for a command with an environment, input or output of its own.
func (l *Lab) SpawnCmd(t testing.TB, node Node, cmd *exec.Cmd) *Process {
	t.Helper()
	p, err := l.startProcess(node, cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(5 * time.Second) })
	return p
}

// Exec runs a program on a node to its end and returns all that it printed.
func (l *Lab) Exec(ctx context.Context, node Node, name string, args ...string) ([]byte, error) {
	out, err := l.net.nodes[node].Run(exec.CommandContext(ctx, name, args...))
	if err != nil {
		err = fmt.Errorf("lab: %s on %s: %w", name, node, err)
	}
	return []byte(out), err
}

// Expect waits, bounded, until the program has printed a text, and fails the test if it ends or is silent instead.
func (p *Process) Expect(t testing.TB, text string) {
	t.Helper()
	timer := time.NewTimer(waitTime)
	defer timer.Stop()
	for {
		more := p.Printed()
		if strings.Contains(p.Output(), text) {
			return
		}
		select {
		case <-more:
		case <-p.Exited():
			if strings.Contains(p.Output(), text) {
				return
			}
			t.Fatalf("lab: %s ended (%v) without printing %q:\n%s", p.Cmd.Path, p.Wait(), text, p.Output())
		case <-timer.C:
			t.Fatalf("lab: %s did not print %q in %s:\n%s", p.Cmd.Path, text, waitTime, p.Output())
		}
	}
}

// asteriskCmd runs a program of the tree with this lab's folder in its place.
func (l *Lab) asteriskCmd(ctx context.Context, args ...string) *exec.Cmd {
	args = append([]string{l.script, "exec", strconv.Itoa(l.Version), l.Dir, "asterisk", "-C",
		"/lab/etc/asterisk.conf"}, args...)
	return exec.CommandContext(ctx, "bash", args...)
}

// StartAsterisk starts Asterisk again after [Lab.StopAsterisk] or [Lab.KillAsterisk], and waits until it is fully
// booted.
func (l *Lab) StartAsterisk(t testing.TB) {
	t.Helper()
	if l.asterisk != nil {
		t.Fatal("lab: Asterisk runs already")
	}
	if err := l.startAsterisk(); err != nil {
		t.Fatal(err)
	}
}

func (l *Lab) startAsterisk() error {
	// Asterisk sends READY=1 when fully booted (main/asterisk.c, ast_sd_notify). The socket is of the abstract kind,
	// which belongs to the network namespace: no path leads out of the chroot, and no two labs meet.
	const name = "@ringwall-lab"
	var fd int
	if err := l.Do(Server, func() (err error) { fd, err = notifySocket(name); return err }); err != nil {
		return fmt.Errorf("lab: notify socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), name) // non-blocking, so deadlines work
	defer file.Close()

	cmd := l.asteriskCmd(context.Background(), "-f")
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+name)
	p, err := l.startProcess(Server, cmd)
	if err != nil {
		return err
	}
	ready := make(chan error, 1)
	go func() {
		_ = file.SetReadDeadline(time.Now().Add(bootTime))
		b := make([]byte, 4096)
		for {
			n, err := file.Read(b)
			if err != nil || strings.Contains(string(b[:n]), "READY=1") {
				ready <- err
				return
			}
		}
	}()
	select {
	case err = <-ready:
	case <-p.Exited():
		err = errors.Join(errors.New("ended"), p.Wait())
		_ = file.SetReadDeadline(time.Now())
		<-ready
	}
	if err != nil {
		p.Stop(0)
		b, _ := os.ReadFile(l.MessagesLog())
		return fmt.Errorf("lab: Asterisk %d did not start: %w\n%s\n%s", l.Version, err, p.Output(), lastBytes(b, 4096))
	}
	l.asterisk = p
	return nil
}

func notifySocket(name string) (int, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: name}); err != nil {
		_ = syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

// StopAsterisk ends Asterisk as systemd would. Registrations are kept in its database.
func (l *Lab) StopAsterisk(t testing.TB) {
	t.Helper()
	l.stopAsterisk(t, 10*time.Second)
}

// KillAsterisk ends Asterisk as a crash would.
func (l *Lab) KillAsterisk(t testing.TB) {
	t.Helper()
	l.stopAsterisk(t, 0)
}

func (l *Lab) stopAsterisk(t testing.TB, grace time.Duration) {
	t.Helper()
	if l.asterisk == nil {
		t.Fatal("lab: Asterisk does not run")
	}
	if grace == 0 {
		_ = l.asterisk.Cmd.Process.Kill()
		_ = l.asterisk.Wait()
	} else {
		l.asterisk.Stop(grace)
	}
	l.asterisk = nil
}

// Restart stops Asterisk and starts it again with the same configuration and database.
func (l *Lab) Restart(t testing.TB) {
	t.Helper()
	l.StopAsterisk(t)
	l.StartAsterisk(t)
}

// Asterisk returns the running Asterisk, or nil.
func (l *Lab) Asterisk() *Process { return l.asterisk }

// CLI runs a command of Asterisk's console and returns what it printed.
func (l *Lab) CLI(t testing.TB, command string) string {
	t.Helper()
	out, err := l.asteriskCmd(t.Context(), "-r", "-x", command).CombinedOutput()
	if err != nil {
		t.Fatalf("lab: asterisk -rx %q: %v\n%s", command, err, out)
	}
	return string(out)
}
