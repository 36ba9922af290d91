package firewall

import (
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// space is a network namespace of a test's own. Its thread is never unlocked,
// so it ends with the goroutine, and the namespace with its last descriptor.
type space struct {
	ns netns.NsHandle
	do chan func()
}

func newSpace(t testing.TB) *space {
	t.Helper()
	s := &space{do: make(chan func())}
	ready := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		ns, err := netns.New()
		s.ns = ns
		ready <- err
		for f := range s.do {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("a network namespace cannot be made (these tests need root): %v", err)
	}
	t.Cleanup(func() {
		close(s.do)
		<-done
		_ = s.ns.Close()
	})
	return s
}

// run runs f on a thread inside the namespace.
func (s *space) run(f func()) {
	done := make(chan struct{})
	s.do <- func() { defer close(done); f() }
	<-done
}

// command runs a command inside the namespace and returns what it printed.
func (s *space) command(t testing.TB, line string) string {
	t.Helper()
	out, err := s.try(line)
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return out
}

func (s *space) try(line string) (string, error) {
	var out []byte
	var err error
	s.run(func() {
		out, err = exec.Command("sh", "-c", "PATH=$PATH:/usr/sbin:/sbin; "+line).CombinedOutput()
	})
	return strings.TrimSpace(string(out)), err
}

func testConfig(s *space) Config {
	return Config{
		Table: "ringwall", UDPPorts: []uint16{5060, 5061}, TCPPorts: []uint16{5060, 5038}, Priority: -300,
		Owner: Off, NetNS: int(s.ns), MaxElements: 4096,
	}
}

func openTable(t *testing.T, cfg Config) *Table {
	t.Helper()
	fw, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fw.Close() })
	return fw
}

func ensured(t *testing.T, cfg Config) *Table {
	t.Helper()
	fw := openTable(t, cfg)
	ensure(t, fw, Created)
	return fw
}

func ensure(t *testing.T, fw Firewall, want Outcome) {
	t.Helper()
	got, err := fw.Ensure()
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Fatalf("Ensure: %q, want %q", got, want)
	}
	if err := fw.Verify(); err != nil {
		t.Fatalf("Verify after Ensure: %v", err)
	}
}
