package soak

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// space is a network namespace that goes with the test. Its loopback is up.
type space struct{ ns netns.NsHandle }

func newSpace(t testing.TB) *space {
	t.Helper()
	s := &space{ns: netns.None()}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("a network namespace cannot be made (these tests need root): %w", err)
		}
		var err error
		if s.ns, err = netns.Get(); err != nil {
			return err
		}
		return up("lo")
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.ns.Close() })
	return s
}

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

// cable joins two namespaces.
func cable(t testing.TB, a, b *space, addrA, addrB string) {
	t.Helper()
	err := a.do(func() error {
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(b.ns))}
		if err := netlink.LinkAdd(v); err != nil {
			return err
		}
		return up("eth0", addrA)
	})
	if err == nil {
		err = b.do(func() error { return up("eth0", addrB) })
	}
	if err != nil {
		t.Fatal(err)
	}
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

func (s *space) listen(address string) (net.Listener, error) {
	var l net.Listener
	err := s.do(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	return l, err
}

func (s *space) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var c net.Conn
	err := s.do(func() (err error) {
		d := net.Dialer{FallbackDelay: -1}
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// run runs a program to its end and returns what it printed.
func (s *space) run(name string, args ...string) (string, error) {
	var out []byte
	err := s.do(func() (err error) {
		out, err = exec.Command(name, args...).CombinedOutput()
		return err
	})
	return string(out), err
}

// process is a program that runs in a namespace. It dies with the test's process.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
	err    error

	mu   sync.Mutex
	text strings.Builder
}

// spawn starts a program; it ends with the test.
func (s *space) spawn(t testing.TB, name string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(name, args...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		defer close(p.exited)
		p.err = s.do(func() error { // on a thread that lives as long as the program, as Pdeathsig wants
			err := p.cmd.Start()
			started <- err
			if err != nil {
				return err
			}
			return p.cmd.Wait()
		})
		select {
		case started <- p.err:
		default:
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			text := p.output()
			t.Logf("%s said at the end:\n%s", name, text[max(0, len(text)-3000):])
		}
	})
	return p
}

// Write takes what the program prints.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// kill ends the program as a power cut would, and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// stop ends it as systemd does.
func (p *process) stop(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.exited:
	case <-time.After(patience):
		t.Fatal("the program does not end after SIGTERM")
	}
	if p.err != nil {
		t.Fatal(errors.Join(errors.New("after SIGTERM"), p.err))
	}
}
