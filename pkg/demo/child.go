package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"github.com/ringwall/ringwall/pkg/netns"
)

// childVariable tells the process in a user namespace what it is. It has two pipes more: it writes its report into the
// first, and ends when the second does, with its parent.
const (
	childVariable = "RINGWALL_DEMO_CHILD"
	reportFD      = 3
	lifeFD        = 4
)

// childReport is what the child writes to its parent at its end: how it ended.
type childReport struct {
	Unfit string `json:"unfit,omitempty"` // it told nothing, and another place could do
	Error string `json:"error,omitempty"`
}

// runChild runs this program again, as root of a user namespace with a network of its own (user_namespaces(7)). The
// error is a [noKernelError] where that is not possible.
func runChild(ctx context.Context, o Options) error {
	reports, reportEnd, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer func() { _ = reports.Close() }()
	lifeEnd, life, err := os.Pipe()
	if err != nil {
		return errors.Join(fmt.Errorf("demo: %w", err), reportEnd.Close())
	}
	defer func() { _ = life.Close() }()

	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), childVariable+"=1")
	cmd.Stdout, cmd.Stderr = o.Out, o.Err
	cmd.ExtraFiles = []*os.File{reportEnd, lifeEnd}
	cmd.Cancel = life.Close
	cmd.WaitDelay = 2 * patience
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	err = cmd.Start()
	_, _ = reportEnd.Close(), lifeEnd.Close()
	if err != nil {
		return &noKernelError{err}
	}
	text, _ := io.ReadAll(reports)
	err = cmd.Wait()
	if ctx.Err() != nil {
		return endedEarly(ctx)
	}
	var r childReport
	switch broken := json.Unmarshal(text, &r); {
	case broken != nil:
		return fmt.Errorf("demo: the process in the user namespace ended without a report: %w",
			errors.Join(err, broken))
	case r.Unfit != "":
		return &noKernelError{errors.New(r.Unfit)}
	case r.Error != "":
		return errors.New(r.Error)
	}
	return nil
}

// runAsChild runs the demonstration in the user namespace. How it went is for the parent to say.
func runAsChild(ctx context.Context, o Options) error {
	for _, fd := range []int{reportFD, lifeFD} {
		var st syscall.Stat_t
		if err := syscall.Fstat(fd, &st); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFIFO {
			return fmt.Errorf("demo: %s is set, but only Ringwall itself may set it: unset it", childVariable)
		}
		syscall.CloseOnExec(fd)
	}
	if err := syscall.SetNonblock(lifeFD, true); err != nil { // so that Close ends Read
		return fmt.Errorf("demo: %w", err)
	}
	life := os.NewFile(lifeFD, "life")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watcher sync.WaitGroup
	watcher.Go(func() {
		_, _ = life.Read(make([]byte, 1))
		cancel()
	})
	defer watcher.Wait()
	defer func() { _ = life.Close() }()

	var r childReport
	err := netns.BringUp("lo")
	if err != nil {
		err = &noKernelError{err}
	} else {
		err = runInEnvironment(ctx, o, environment{userNS: true})
	}
	var unfit *noKernelError
	switch {
	case errors.As(err, &unfit):
		r.Unfit = unfit.Error()
	case err != nil:
		r.Error = err.Error()
	}
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	f := os.NewFile(reportFD, "report")
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("demo: report: %w", err)
	}
	return nil
}
