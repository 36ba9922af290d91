package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"

	"golang.org/x/sys/unix"
)

// Space is a network namespace.
type Space struct{ fd int } // -1: closed

// New makes a namespace whose loopback is up. It needs CAP_SYS_ADMIN and CAP_NET_ADMIN; the error is the kernel's.
func New() (*Space, error) {
	s := &Space{fd: -1}
	err := onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("a network namespace cannot be made (this needs root): %w", err)
		}
		var err error
		if s.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("a network namespace: %w", err)
		}
		return BringUp("lo")
	})
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// Close gives the descriptor back. What still runs in the namespace keeps it. A second Close, or one of nil, does
// nothing.
func (s *Space) Close() error {
	if s == nil || s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	return unix.Close(fd)
}

// FD is the descriptor of the namespace, as nftables.WithNetNSFd takes it. It is the space's: do not close it.
func (s *Space) FD() int { return s.fd }

// Do runs f in the namespace and waits for it. Sockets that f opens stay in the namespace wherever they are used later;
// goroutines that f starts are outside. f's thread ends with f, so that f may change whatever belongs to a thread. That
// f ends its goroutine, as t.Fatal does, is an error.
func (s *Space) Do(f func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(s.fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// onOwnThread runs f on a thread that ends with it.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		if unix.Gettid() == unix.Getpid() {
			// Except the first thread, which cannot end: it would stay in the namespace, and keep it. While this
			// goroutine holds that thread, another one cannot get it.
			defer runtime.UnlockOSThread()
			done <- onOwnThread(f)
			return
		}
		err := errors.New("the function ended its goroutine")
		defer func() { done <- err }()
		err = f()
	}()
	return <-done
}

// DialContext opens a connection from the namespace, as net.Dialer does.
func (s *Space) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return s.Dial(ctx, net.Dialer{}, network, address)
}

// Dial is DialContext with options, such as the address to come from.
func (s *Space) Dial(ctx context.Context, d net.Dialer, network, address string) (c net.Conn, err error) {
	d.FallbackDelay = -1 // Happy Eyeballs would dial on a goroutine, that is on another thread
	err = s.Do(func() (err error) {
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Listen opens a listener in the namespace, as net.Listen does.
func (s *Space) Listen(ctx context.Context, network, address string) (l net.Listener, err error) {
	err = s.Do(func() (err error) {
		var c net.ListenConfig
		l, err = c.Listen(ctx, network, address)
		return err
	})
	return l, err
}
