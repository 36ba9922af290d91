// Package clock is for tests that compare what they do with what others do, while deploy/test has them, and every
// program made with Go, run years later (command later).
package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// Kernel returns the time of the kernel, which is that of Asterisk, fail2ban and everything else that is not made with
// Go.
func Kernel() time.Time {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
		panic(err) // the clock and the pointer are fine
	}
	return time.Unix(now.Unix())
}

// Ahead is how much later it is for this program than for the kernel: 0 but for what a call takes, or years.
func Ahead() time.Duration { return time.Since(Kernel()) }
