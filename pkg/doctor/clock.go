package doctor

import (
	"context"

	"golang.org/x/sys/unix"
)

// examineClock asks the kernel whether something such as NTP synchronises its clock.
func (e *exam) examineClock(context.Context) {
	s := e.subjectNamed("")
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	switch {
	case err != nil:
		s.skip("clock", "", "the kernel does not say whether it is synchronised: %s", errorLine(err))
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		s.warn("clock", "timedatectl set-ntp true; in a container: on the host",
			"not synchronised: times in why and history may be wrong, bans are not")
	default:
		s.ok("clock", "synchronised")
	}
}
