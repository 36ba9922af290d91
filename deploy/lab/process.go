package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// bootTime bounds the wait for Asterisk, which needs a fraction of a second on an idle machine.
const bootTime = 60 * time.Second

// Process is a program that runs on a node.
type Process struct {
	// Cmd is the program; Cmd.Process is set.
	Cmd *exec.Cmd

	output buffer
	exited chan struct{}
	err    error
}

// spawn starts cmd on a node. Its parent is a thread that lives as long as the program: the kernel kills the program
// when that thread ends, that is also when the test's process is killed (prctl(2), PR_SET_PDEATHSIG).
func (l *Lab) spawn(node Node, cmd *exec.Cmd) (*Process, error) {
	p := &Process{Cmd: cmd, exited: make(chan struct{})}
	p.output.more = make(chan struct{})
	if cmd.Stdout == nil {
		cmd.Stdout = &p.output
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &p.output
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = time.Second
	}
	started := make(chan error, 1)
	go func() {
		defer close(p.exited)
		p.err = l.Do(node, func() error {
			err := cmd.Start()
			started <- err
			if err != nil {
				return err
			}
			return cmd.Wait()
		})
		select {
		case started <- p.err: // the namespace could not be entered
		default:
		}
	}()
	if err := <-started; err != nil {
		<-p.exited
		return nil, fmt.Errorf("lab: start %s on %s: %w", cmd.Path, node, err)
	}
	return p, nil
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
	p, err := l.spawn(node, cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(5 * time.Second) })
	return p
}

// Exec runs a program on a node to its end and returns all that it printed.
func (l *Lab) Exec(ctx context.Context, node Node, name string, args ...string) ([]byte, error) {
	p, err := l.spawn(node, exec.CommandContext(ctx, name, args...))
	if err != nil {
		return nil, err
	}
	err = p.Wait()
	if err != nil {
		err = fmt.Errorf("lab: %s on %s: %w", name, node, err)
	}
	return []byte(p.Output()), err
}

// Wait waits for the program's end; see exec.Cmd.Wait for the error.
func (p *Process) Wait() error {
	<-p.exited
	return p.err
}

// Exited is closed when the program has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Output returns what the program printed so far.
func (p *Process) Output() string { return p.output.String() }

// Signal sends the program a signal.
func (p *Process) Signal(s os.Signal) error { return p.Cmd.Process.Signal(s) }

// Stop sends SIGTERM, after grace SIGKILL, and waits for the end.
func (p *Process) Stop(grace time.Duration) {
	_ = p.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		_ = p.Cmd.Process.Kill()
		<-p.exited
	}
}

// Expect waits, bounded, until the program has printed a text, and fails the test if it ends or is silent instead.
func (p *Process) Expect(t testing.TB, text string) {
	t.Helper()
	timer := time.NewTimer(waitTime)
	defer timer.Stop()
	for {
		more := p.output.changed()
		if strings.Contains(p.Output(), text) {
			return
		}
		select {
		case <-more:
		case <-p.exited:
			if strings.Contains(p.Output(), text) {
				return
			}
			t.Fatalf("lab: %s ended (%v) without printing %q:\n%s", p.Cmd.Path, p.err, text, p.Output())
		case <-timer.C:
			t.Fatalf("lab: %s did not print %q in %s:\n%s", p.Cmd.Path, text, waitTime, p.Output())
		}
	}
}

// buffer keeps the last half to full megabyte.
type buffer struct {
	mu   sync.Mutex
	b    bytes.Buffer
	more chan struct{} // closed and replaced when something is written
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.b.Len() > 1<<20 {
		b.b.Next(1 << 19)
	}
	close(b.more)
	b.more = make(chan struct{})
	return b.b.Write(p)
}

func (b *buffer) changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.more
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// asteriskCmd runs a program of the tree with this lab's folder in its place.
func (l *Lab) asteriskCmd(ctx context.Context, args ...string) *exec.Cmd {
	args = append([]string{l.script, "exec", strconv.Itoa(l.Version), l.Dir, "asterisk", "-C", "/lab/etc/asterisk.conf"}, args...)
	return exec.CommandContext(ctx, "bash", args...)
}

// StartAsterisk starts Asterisk again after [Lab.StopAsterisk] or [Lab.KillAsterisk], and waits until it is fully booted.
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
	p, err := l.spawn(Server, cmd)
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
	case <-p.exited:
		err = errors.Join(errors.New("ended"), p.err)
		_ = file.SetReadDeadline(time.Now())
		<-ready
	}
	if err != nil {
		p.Stop(0)
		b, _ := os.ReadFile(l.MessagesLog())
		return fmt.Errorf("lab: Asterisk %d did not start: %w\n%s\n%s", l.Version, err, p.Output(), tail(b, 4096))
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
