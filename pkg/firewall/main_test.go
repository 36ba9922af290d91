package firewall

import (
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/pkg/netns"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// space is a network namespace of a test's own.
type space struct{ *netns.Space }

func newSpace(t testing.TB) space { return space{netnstest.New(t)} }

// command runs a command inside the namespace and returns what it printed.
func (s space) command(t testing.TB, line string) string {
	t.Helper()
	out, err := s.try(line)
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return out
}

func (s space) try(line string) (string, error) {
	out, err := s.Run(exec.Command("sh", "-c", "PATH=$PATH:/usr/sbin:/sbin; "+line))
	return strings.TrimSpace(out), err
}

func testConfig(s space) Config {
	return Config{
		Table: "ringwall", UDPPorts: []uint16{5060, 5061}, TCPPorts: []uint16{5060, 5038}, Priority: -300,
		Owner: Off, NetNS: s.FD(), MaxElements: 4096,
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
	got, err := fw.EnsureTable()
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Fatalf("Ensure: %q, want %q", got, want)
	}
	if err := fw.VerifyTable(); err != nil {
		t.Fatalf("Verify after Ensure: %v", err)
	}
}
