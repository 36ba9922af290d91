package netns_test

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/pkg/netns"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// asParent makes this test's own binary start a program in a namespace, say so, and wait to be killed.
const asParent = "RINGWALL_TEST_AS_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(asParent) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	s, err := netns.New()
	if err == nil {
		cmd := exec.Command("sh", "-c", "echo started; exec sleep 3600") // its output is what the test waits for
		cmd.Stdout = os.Stdout
		var p *netns.Process
		if p, err = s.Start(cmd); err == nil {
			err = p.Wait()
		}
	}
	panic(err)
}

// here names the namespace of the calling thread.
func here(t *testing.T) string {
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Error(err)
	}
	return name
}

func TestAFunctionRunsInsideAndNobodyElseDoes(t *testing.T) {
	t.Parallel()
	outside := here(t)
	s := netnstest.New(t)
	seen := make(map[string]bool)
	for range 50 {
		if err := s.Do(func() error { seen[here(t)] = true; return nil }); err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
		if name := here(t); name != outside {
			t.Fatalf("the test is in %s, and was in %s", name, outside)
		}
	}
	if len(seen) != 1 || seen[outside] {
		t.Errorf("the function was in %v, the test is in %s", seen, outside)
	}
}

func TestDoTellsHowTheFunctionEnded(t *testing.T) {
	t.Parallel()
	s := netnstest.New(t)
	if err := s.Do(func() error { return io.ErrUnexpectedEOF }); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an error: %v", err)
	}
	if err := s.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("the end of the goroutine is no error")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
	if err := s.Do(func() error { return nil }); err == nil {
		t.Error("a closed namespace can be entered")
	}
}

func TestBothEndsOfACableReachEachOther(t *testing.T) {
	t.Parallel()
	a, b := netnstest.New(t), netnstest.New(t)
	netnstest.Connect(t, a, b, []string{"192.0.2.1/24", "2001:db8::1/64"},
		[]string{"192.0.2.2/24", "192.0.2.3/24", "2001:db8::2/64"})
	for to, from := range map[string]string{"192.0.2.1:5060": "192.0.2.3", "[2001:db8::1]:5060": "2001:db8::2",
		"127.0.0.1:5060": "127.0.0.2"} {
		l, err := a.Listen(t.Context(), "tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		client := b
		if from == "127.0.0.2" {
			client = a
		}
		c, err := client.Dial(t.Context(), net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}, "tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got, _, _ := net.SplitHostPort(server.RemoteAddr().String()); got != from {
			t.Errorf("%s heard %s, not %s", to, got, from)
		}
		_, _, _ = c.Close(), server.Close(), l.Close()
	}
	if _, err := b.DialContext(t.Context(), "tcp", "127.0.0.1:5060"); err == nil {
		t.Error("one namespace reaches the loopback of the other")
	}
}

func TestAProgramRunsInsideAndCanBeStopped(t *testing.T) {
	t.Parallel()
	s := netnstest.New(t)
	var inside string
	if err := s.Do(func() error { inside = here(t); return nil }); err != nil {
		t.Fatal(err)
	}
	if got := netnstest.Run(t, s, "", "readlink", "/proc/self/ns/net"); strings.TrimSpace(got) != inside {
		t.Errorf("the program was in %q, want %q", got, inside)
	}
	if got := netnstest.Run(t, s, "by itself", "cat"); got != "by itself" {
		t.Errorf("it read %q", got)
	}
	p := netnstest.Spawn(t, s, "sh", "-c", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done")
	for {
		more := p.Printed()
		if strings.Contains(p.Output(), "ready") {
			break
		}
		<-more
	}
	p.Stop(time.Minute)
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(p.Output(), "bye") {
		t.Errorf("%v, and said %q", err, p.Output())
	}
	if _, err := s.Start(exec.Command("/nonexistent/program")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that is not there: %v", err)
	}
}

func TestAProgramIsKilledWithItsParent(t *testing.T) {
	t.Parallel()
	parent := exec.CommandContext(t.Context(), "/proc/self/exe")
	parent.Env = append(os.Environ(), asParent+"=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("started\n"))
	if _, err := io.ReadFull(out, line); err != nil {
		t.Fatal(err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(out); err != nil || len(rest) != 0 { // ends when nobody has the pipe any more
		t.Errorf("%q, %v", rest, err)
	}
	_ = parent.Wait()
}
