// Package netnstest gives a test network namespaces of its own, which go with it.
package netnstest

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/netns"
)

// stopGrace is how long a program that is told to end at the end of a test may take.
const stopGrace = 30 * time.Second

// New makes a namespace that lives as long as the test.
func New(t testing.TB) *netns.Space {
	t.Helper()
	s, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Connect joins two namespaces; see [netns.Connect].
func Connect(t testing.TB, a, b *netns.Space, addrsA, addrsB []string) {
	t.Helper()
	if err := netns.Connect(a, b, addrsA, addrsB); err != nil {
		t.Fatal(err)
	}
}

// Run runs a program to its end, with a text as its input, and returns what it printed.
func Run(t testing.TB, s *netns.Space, input, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := s.Run(cmd)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s\n%s", name, args, err, out, input)
	}
	return out
}

// NFT runs a script of nft's and returns what it printed.
func NFT(t testing.TB, s *netns.Space, script string) string {
	t.Helper()
	name, err := exec.LookPath("nft")
	if err != nil {
		name = "/usr/sbin/nft"
	}
	return Run(t, s, script, name, "-f", "-")
}

// Spawn starts a program that ends with the test: first it is asked to, then killed. If the test fails, the end of what
// it printed is logged.
func Spawn(t testing.TB, s *netns.Space, name string, args ...string) *netns.Process {
	t.Helper()
	p, err := s.Start(exec.Command(name, args...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Stop(stopGrace)
		if t.Failed() {
			text := p.Output()
			t.Logf("%s said at the end:\n%s", name, text[max(0, len(text)-3000):])
		}
	})
	return p
}
