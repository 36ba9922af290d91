package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

// Errors that callers tell apart. Each also wraps the kernel's own errno.
var (
	// ErrChange is a change that makes no sense, ErrTimeout one with a
	// timeout that the kernel would read as "for ever".
	ErrChange  = errors.New("firewall: impossible change")
	ErrTimeout = errors.New("firewall: timeout too short")
	// ErrPermission is no CAP_NET_ADMIN, or a table that another process owns.
	ErrPermission = errors.New("firewall: not permitted")
	// ErrGone is a table, set or chain that somebody removed.
	ErrGone = errors.New("firewall: the table is not as it should be")
	// ErrFull is a set that has no room left.
	ErrFull = errors.New("firewall: set is full")
	// ErrUnsupported is a kernel without nf_tables or without one of its parts.
	ErrUnsupported = errors.New("firewall: the kernel does not support this")
	// ErrClosed is a call after Close or after the Writer's end.
	ErrClosed = errors.New("firewall: closed")
)

// FullError names the set that has no room and the prefixes that found none.
// Everything else of the same Apply was done.
type FullError struct {
	Set     string
	Size    uint32
	Refused []netip.Prefix
}

// Error says what to try.
func (e *FullError) Error() string {
	return fmt.Sprintf("firewall: set %s is full (%d elements): %d not banned, first %s; raise the number of elements (about 120 bytes of kernel memory each) or shorten the bans",
		e.Set, e.Size, len(e.Refused), e.Refused[0])
}

// Is makes errors.Is(err, ErrFull) true.
func (e *FullError) Is(target error) bool { return target == ErrFull }

// kernelError is an answer of the kernel that a person can act on.
type kernelError struct {
	kind error
	what string
	try  string
	err  error
}

func (e *kernelError) Error() string {
	return fmt.Sprintf("%s: %s (%v); %s", e.kind, e.what, e.err, e.try)
}

func (e *kernelError) Unwrap() []error { return []error{e.kind, e.err} }

// explain turns an errno of nf_tables into an error that says what to try.
func explain(what string, err error) error {
	if err == nil {
		return nil
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("firewall: %s: %w", what, err)
	}
	switch errno {
	case syscall.EPERM, syscall.EACCES:
		return &kernelError{ErrPermission, what,
			"run as root or with CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN), and see that no other process owns the table (nft list tables)", err}
	case syscall.ENOENT:
		return &kernelError{ErrGone, what,
			"somebody removed the table or a part of it (nft flush ruleset, a firewall reload); it has to be built again", err}
	case syscall.ENFILE:
		return &kernelError{ErrFull, what, "raise the number of elements", err}
	case syscall.EOPNOTSUPP, syscall.EPROTONOSUPPORT, syscall.EAFNOSUPPORT, syscall.EINVAL:
		return &kernelError{ErrUnsupported, what,
			"a kernel from 5.10 on with nf_tables and inet tables is needed (modprobe nf_tables); for owner: on, one from 6.9 on", err}
	case syscall.ENOBUFS, syscall.ENOMEM, syscall.EMSGSIZE:
		return fmt.Errorf("firewall: %s: no memory for it (%w); raise the unit's MemoryMax, kernel elements count towards it", what, err)
	}
	return fmt.Errorf("firewall: %s: %w", what, err)
}
