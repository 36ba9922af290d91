package main

import (
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// space is a network namespace. Its loopback is up.
type space struct{ ns netns.NsHandle }

func newSpace() (*space, error) {
	s := &space{ns: netns.None()}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("a network namespace cannot be made (this needs root): %w", err)
		}
		var err error
		if s.ns, err = netns.Get(); err != nil {
			return err
		}
		return up("lo")
	})
	return s, err
}

func (s *space) close() { _ = s.ns.Close() }

// up gives addresses to a link and sets it up.
func up(name string, addrs ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, text := range addrs {
		a, err := netlink.ParseAddr(text)
		if err == nil {
			err = netlink.AddrAdd(link, a)
		}
		if err != nil {
			return fmt.Errorf("%s: %s: %w", name, text, err)
		}
	}
	return netlink.LinkSetUp(link)
}

// cable joins two namespaces by a veth pair.
func cable(a, b *space, addrA, addrB string) error {
	err := a.do(func() error {
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(b.ns))}
		if err := netlink.LinkAdd(v); err != nil {
			return err
		}
		return up("eth0", addrA)
	})
	if err != nil {
		return err
	}
	return b.do(func() error { return up("eth0", addrB) })
}

// onThread runs f on a thread that ends with it, so that f may change the thread's namespace.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread() // except the first one, which cannot end
			done <- onThread(f)
			return
		}
		done <- f()
	}()
	return <-done
}

// do runs f in the namespace. Sockets that f opens stay there.
func (s *space) do(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(s.ns); err != nil {
			return err
		}
		return f()
	})
}

func (s *space) listen(address string) (l net.Listener, err error) {
	err = s.do(func() error {
		l, err = net.Listen("tcp", address)
		return err
	})
	return l, err
}

// spawn starts a program in the namespace. exited is closed when it has ended; it dies with this process.
func (s *space) spawn(cmd *exec.Cmd) (exited <-chan struct{}, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, done := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		err := s.do(func() error { // on a thread that lives as long as the program, as Pdeathsig wants
			err := cmd.Start()
			started <- err
			if err != nil {
				return err
			}
			return cmd.Wait()
		})
		select {
		case started <- err:
		default:
		}
	}()
	return done, <-started
}
