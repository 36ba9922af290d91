package prometheus

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// space is a network namespace that goes with the test, so that the daemon and Prometheus have their usual ports.
type space struct{ ns netns.NsHandle }

func newSpace(t *testing.T) *space {
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
		return up("lo", "")
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.ns.Close() })
	return s
}

func up(name, address string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if address != "" {
		a, err := netlink.ParseAddr(address)
		if err == nil {
			err = netlink.AddrAdd(link, a)
		}
		if err != nil {
			return fmt.Errorf("%s: %s: %w", name, address, err)
		}
	}
	return netlink.LinkSetUp(link)
}

// cable joins two namespaces.
func cable(t *testing.T, a, b *space, addrA, addrB string) {
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

// listen opens a TCP listener in the namespace.
func (s *space) listen(t *testing.T) net.Listener {
	t.Helper()
	var l net.Listener
	if err := s.do(func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return l
}

// client returns a client whose connections begin in the namespace.
func (s *space) client(t *testing.T) *http.Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
			err = s.do(func() (err error) {
				d := net.Dialer{FallbackDelay: -1}
				c, err = d.DialContext(ctx, network, address)
				return err
			})
			return c, err
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// run runs a program of the namespace to its end.
func (s *space) run(t *testing.T, name string, args ...string) {
	t.Helper()
	var out []byte
	if err := s.do(func() (err error) {
		out, err = exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		return err
	}); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// process is a program that runs in a namespace. It dies with the test's process.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}

	mu   sync.Mutex
	text bytes.Buffer
}

// spawn starts a program; it ends with the test.
func (s *space) spawn(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(name, args...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		defer close(p.exited)
		_ = s.do(func() error { // on a thread that lives as long as the program, as Pdeathsig wants
			err := p.cmd.Start()
			started <- err
			if err == nil {
				err = p.cmd.Wait()
			}
			return err
		})
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.exited:
		case <-time.After(10 * time.Second):
			_ = p.cmd.Process.Kill()
			<-p.exited
		}
		if t.Failed() {
			p.mu.Lock()
			text := p.text.String()
			p.mu.Unlock()
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
