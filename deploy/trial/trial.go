// Package trial is what the tests of the whole program share: the program itself, and patience.
package trial

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Patience bounds every wait for something that must happen.
const Patience = 3 * time.Minute

// Main builds the program, writes its path to program, and runs a package's tests and then the checks, of which the
// first that fails counts. It is for TestMain and ends the process.
func Main(m *testing.M, program *string, checks ...func() error) {
	code, err := run(m, program, checks)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(m *testing.M, program *string, checks []func() error) (int, error) {
	dir, err := os.MkdirTemp("", "ringwall-trial-")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	*program = filepath.Join(dir, "ringwall")
	// The tag has pkg/ami write over frames that are no longer in use: who still reads them is seen.
	build := exec.Command("go", "build", "-o", *program, "github.com/ringwall/ringwall/cmd/ringwall")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("go build: %w\n%s", err, out)
	}
	code := m.Run()
	for _, check := range checks {
		if err := check(); code == 0 && err != nil {
			return 1, err
		}
	}
	return code, nil
}

// Until waits until ok, and fails the test where that takes longer than Patience.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("after %v still not: %s", Patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
