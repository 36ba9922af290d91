package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/notify/message"
	"github.com/ringwall/ringwall/pkg/printable"
)

const (
	maxOutputKept   = 4 << 10 // bytes that are kept of a program's output
	maxOutputLogged = 1000    // columns of it in the log
	// terminateGrace is how long a program has to end by itself once it was asked to.
	terminateGrace = 2 * time.Second
)

// programSender starts a command for each message.
type programSender struct {
	cfg      config.Notify
	onOutput func(output string) // told what a program that succeeded has written
}

// sendMessage runs the program in a process group of its own, whose every member is killed when the program ends or
// ctx does.
func (p *programSender) sendMessage(ctx context.Context, m message.Message) error {
	stdin, err := json.Marshal(m)
	if err != nil {
		return &failure{cause: "no JSON can be made of it", permanent: true}
	}
	var output outputHead
	cmd := exec.Command(p.cfg.Exec[0], p.cfg.Exec[1:]...)
	cmd.Env = environmentOf(m)
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(string(stdin) + "\n")
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = terminateGrace // for output that a process outside of the group keeps open
	if err := ctx.Err(); err != nil {
		return networkFailure(err)
	}
	if err := startWithoutRights(cmd); err != nil {
		return &failure{cause: "the program cannot be started: " + causeOf(err), permanent: true}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		waitForExit(cmd.Process.Pid)
	}()
	late := false
	select {
	case <-ended:
	case <-ctx.Done():
		late = true
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGTERM)
		timer := time.NewTimer(terminateGrace)
		select {
		case <-ended:
		case <-timer.C:
		}
		timer.Stop()
	}
	// The program is not waited for yet, so the number of its group is still its own.
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	<-ended
	err = cmd.Wait()
	text := printable.Limit(strings.TrimSpace(output.String()), maxOutputLogged)
	var exit *exec.ExitError
	switch {
	case late && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &failure{cause: "the program took longer than timeout, and was ended", output: text, permanent: true}
	case late:
		return &failure{cause: "the program was ended", output: text, permanent: true}
	case errors.As(err, &exit):
		return &failure{cause: "the program ended with " + exit.String(), output: text, permanent: true}
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return &failure{cause: "the program: " + causeOf(err), output: text, permanent: true}
	}
	if text != "" && p.onOutput != nil {
		p.onOutput(text)
	}
	return nil
}

func (p *programSender) close() {}

// startWithoutRights keeps the daemon's ambient capabilities (CAP_NET_ADMIN, under the packaged unit) from the program:
// whoever can make it misbehave must not get at the firewall. The set belongs to the thread, and the program starts
// with that of the thread that starts it (capabilities(7)). The thread's own rights stay as they are.
func startWithoutRights(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// EINVAL: a kernel before Linux 4.3, which has no such set.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil &&
		!errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("capabilities: %w", err)
	}
	return cmd.Start()
}

// waitForExit waits until a child has ended and leaves it to be reaped: until then nobody else can get its number.
func waitForExit(pid int) {
	for errors.Is(unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
}

func causeOf(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	var ee *exec.Error
	if errors.As(err, &ee) {
		return ee.Err.Error()
	}
	if number := syscall.Errno(0); errors.As(err, &number) {
		return number.Error()
	}
	return fmt.Sprintf("%T", err)
}

// environmentOf is all that the program gets: the daemon's own environment may hold secrets.
func environmentOf(m message.Message) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	add := func(name, value string) {
		env = append(env, "RINGWALL_"+name+"="+strings.ReplaceAll(value, "\x00", ""))
	}
	add("ID", m.ID)
	add("TIME", m.Time)
	add("HOST", m.Host)
	add("TITLE", m.Title)
	add("TEXT", m.Text)
	add("ACTION", m.Action)
	add("SOURCE", m.Source)
	add("COUNTRY", m.Country)
	add("ASN", strings.TrimPrefix(humanize.Number(float64(m.ASN)), "0")) // "" where it is unknown
	add("AS_NAME", m.ASName)
	add("PREFIX", m.Prefix)
	add("SCOPE", m.Scope)
	add("CLOSES", m.Closes)
	add("FLOW", m.Flow)
	add("REASON", m.Reason)
	add("POINTS", humanize.Number(m.Points))
	add("SCORE", humanize.Number(m.Score))
	add("ACCOUNT", m.Account)
	add("SERVICE", m.Service)
	add("TRANSPORT", m.Transport)
	add("PROVEN", strconv.FormatBool(m.Proven))
	add("DURATION_SECONDS", humanize.Number(m.Seconds))
	add("PBX", m.PBX)
	add("DETAIL", m.Detail)
	add("COUNT", strconv.Itoa(max(1, m.Count)))
	add("PREFIXES", strings.Join(m.Prefixes, " "))
	return env
}

// outputHead keeps the first bytes that are written to it, and drops the rest.
type outputHead struct {
	mu        sync.Mutex
	kept      []byte
	truncated bool
}

func (t *outputHead) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(b), maxOutputKept-len(t.kept))
	t.kept = append(t.kept, b[:n]...)
	t.truncated = t.truncated || n < len(b)
	return len(b), nil
}

func (t *outputHead) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.truncated {
		return string(t.kept) + " …"
	}
	return string(t.kept)
}
