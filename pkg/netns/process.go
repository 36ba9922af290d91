package netns

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Process is a program that runs in a namespace.
type Process struct {
	// Cmd is the program; Cmd.Process is set.
	Cmd *exec.Cmd

	output outputBuffer
	exited chan struct{}
	err    error
}

// Start starts a program in the namespace. What it prints is kept, where cmd does not say where else it goes. Its
// parent is a thread that lives as long as the program: the kernel kills the program when that thread ends, that is
// also when this process is killed (prctl(2), PR_SET_PDEATHSIG).
func (s *Space) Start(cmd *exec.Cmd) (*Process, error) {
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
		cmd.WaitDelay = 10 * time.Second // its children may hold its output
	}
	started := make(chan error, 1)
	go func() {
		defer close(p.exited)
		p.err = s.Do(func() error {
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
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// Run runs a program in the namespace to its end and returns what it printed; see exec.Cmd.Wait for the error.
func (s *Space) Run(cmd *exec.Cmd) (string, error) {
	p, err := s.Start(cmd)
	if err != nil {
		return "", err
	}
	err = p.Wait()
	return p.Output(), err
}

// Exited is closed when the program has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Wait waits for the program's end; see exec.Cmd.Wait for the error.
func (p *Process) Wait() error {
	<-p.exited
	return p.err
}

// Output returns the last 8 to 16 MB of what the program has printed.
func (p *Process) Output() string { return p.output.String() }

// Printed is closed when the program prints more than it has until now.
func (p *Process) Printed() <-chan struct{} { return p.output.nextWrite() }

// Signal sends the program a signal.
func (p *Process) Signal(s os.Signal) error { return p.Cmd.Process.Signal(s) }

// Kill ends the program as a power cut would, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.Cmd.Process.Kill()
	<-p.exited
}

// Stop sends SIGTERM, after grace SIGKILL, and waits for the end.
func (p *Process) Stop(grace time.Duration) {
	_ = p.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		p.Kill()
	}
}

// outputBuffer keeps the last 8 to 16 MB.
type outputBuffer struct {
	mu   sync.Mutex
	b    bytes.Buffer
	more chan struct{} // closed and replaced when something is written
}

func (b *outputBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.b.Len() > 16<<20 {
		b.b.Next(8 << 20)
	}
	close(b.more)
	b.more = make(chan struct{})
	return b.b.Write(p)
}

func (b *outputBuffer) nextWrite() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.more
}

func (b *outputBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
