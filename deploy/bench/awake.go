package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// asSpinner is the argument, followed by the number of a CPU, with which the program calls itself to keep that CPU awake.
const asSpinner = "spin"

// spin turns on one CPU for as long as nobody else wants it, until its parent ends.
func spin(cpu string) error {
	n, err := strconv.Atoi(cpu)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	var only unix.CPUSet
	only.Set(n)
	err = errors.Join(
		unix.SchedSetaffinity(0, &only),
		unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0),
		unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0))
	for parent := os.Getppid(); err == nil && os.Getppid() == parent; {
		for range 1 << 16 {
		}
	}
	return err
}

// awake keeps all CPUs from going to sleep until the function that it returns is called. The CPU of a virtual machine that
// has nothing to do is given away by its host, and comes back milliseconds after it is wanted where the host has other
// work: that is waited for by every program alike, and is none of its own doing. What turns meanwhile is of the class
// SCHED_IDLE (sched(7)), which makes way for everything else at once.
func awake(ctx context.Context) (func(), error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var all []*exec.Cmd
	stop := func() {
		cancel()
		for _, c := range all {
			_ = c.Wait()
		}
	}
	for n := range runtime.NumCPU() {
		c := exec.CommandContext(ctx, self, asSpinner, strconv.Itoa(n))
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			stop()
			return nil, err
		}
		all = append(all, c)
	}
	return stop, nil
}
