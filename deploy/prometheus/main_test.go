package prometheus

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience bounds every wait for something that must happen.
const patience = 2 * time.Minute

// ringwall is the program, built for the tests.
var ringwall string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "ringwall-prometheus-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		ringwall = filepath.Join(dir, "ringwall")
		build := exec.Command("go", "build", "-o", ringwall, "github.com/ringwall/ringwall/cmd/ringwall")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
			return 1
		}
		code := m.Run()
		if err := goleak.Find(); code == 0 && err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}())
}

// tool finds a program of Debian's package prometheus: installed, or where deploy/lab/lab install unpacks it.
func tool(t *testing.T, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	cache := os.Getenv("RINGWALL_LAB_CACHE")
	if cache == "" {
		cache = "/var/cache/ringwall-lab"
	}
	path, err := exec.LookPath(filepath.Join(cache, "prometheus", "usr", "bin", name))
	if err != nil {
		t.Fatalf("no %s: deploy/lab/lab install gets it (%v)", name, err)
	}
	return path
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("after %v still not: %s", patience, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
