package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/ringwall/ringwall/pkg/hint"
)

// Errors that callers tell apart. Each also wraps the kernel's own errno.
var (
	// ErrChange is a change that makes no sense, ErrTimeout one with a timeout that the kernel would read as "for
	// ever".
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

// FullError names the set that has no room and the prefixes that found none. Everything else of the same Apply was
// done.
type FullError struct {
	Set     string
	Size    uint32
	Refused []netip.Prefix // of a flow its address

	targets []target // the same, whole
}

func (e *FullError) Error() string {
	return fmt.Sprintf("firewall: set %s is full (%d elements): %d found no room, first %s", e.Set, e.Size,
		len(e.Refused),
		e.Refused[0])
}

// Hint says what to try.
func (*FullError) Hint() string { return fewerElements }

// Is makes errors.Is(err, ErrFull) true.
func (e *FullError) Is(target error) bool { return target == ErrFull }

const fewerElements = "a smaller policy.limits.bans or shorter bans (an element takes about 120 bytes of kernel memory)"

// The oldest kernel that Ringwall is made for, and the sentence that asks for it.
const (
	KernelMajor, KernelMinor = 5, 10

	NeedsKernel = "a kernel from 5.10 on"
)

// explainErrno turns an errno of nf_tables into an error that says what to try.
func explainErrno(what string, err error) error {
	if err == nil {
		return nil
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("firewall: %s: %w", what, err)
	}
	kind, try := error(nil), ""
	switch errno {
	case syscall.EPERM, syscall.EACCES:
		kind, try = ErrPermission,
			"run as root or with CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN), and see that no other "+
				"process owns the table (nft list tables)"
	case syscall.ENOENT:
		kind, try = ErrGone,
			"somebody removed the table or a part of it (nft flush ruleset, a firewall reload); it has to be built "+
				"again"
	case syscall.ENFILE:
		kind, try = ErrFull, fewerElements
	case syscall.EOPNOTSUPP, syscall.EPROTONOSUPPORT, syscall.EAFNOSUPPORT, syscall.EINVAL:
		kind, try = ErrUnsupported,
			NeedsKernel+" with nf_tables and inet tables (modprobe nf_tables); for owner: on, one from 6.9 on"
	case syscall.ENOBUFS, syscall.ENOMEM, syscall.EMSGSIZE:
		return hint.Errorf("raise the unit's MemoryMax, kernel elements count towards it",
			"firewall: %s: no memory for it (%w)", what, err)
	default:
		return fmt.Errorf("firewall: %s: %w", what, err)
	}
	return hint.Errorf(try, "%w: %s (%w)", kind, what, err)
}
