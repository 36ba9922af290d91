// Package trial is what the tests of the whole program share: the program itself, and patience.
package trial

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Patience bounds every wait for something that must happen.
const Patience = 3 * time.Minute

// Main builds the program, writes its path to program, and runs a package's tests and then the checks, of which the
// first that fails counts. It is for TestMain and ends the process.
func Main(m *testing.M, program *string, checks ...func() error) {
	code, err := buildAndRun(m, program, checks)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M, program *string, checks []func() error) (int, error) {
	dir, err := os.MkdirTemp("", "ringwall-trial-")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	*program = filepath.Join(dir, "ringwall")
	if err := BuildProgram(context.Background(), *program); err != nil {
		return 1, err
	}
	code := m.Run()
	for _, check := range checks {
		if err := check(); code == 0 && err != nil {
			return 1, err
		}
	}
	return code, nil
}

// InFolder runs a package's tests, with the path of a folder written to folder that is there as long as they run. It is
// for TestMain and ends the process.
func InFolder(m *testing.M, folder *string) {
	dir, err := os.MkdirTemp("", "ringwall-trial-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	*folder = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// BuildProgram builds the program with the libraries that its own module names, as the packages have it.
func BuildProgram(ctx context.Context, program string) error {
	module, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output() // of deploy
	if err != nil {
		return fmt.Errorf("go env GOMOD: %w", err)
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd/ringwall")
	build.Dir = filepath.Dir(filepath.Dir(strings.TrimSpace(string(module))))
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// WaitUntil waits until ok, and fails the test where that takes longer than Patience.
func WaitUntil(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("after %v still not: %s", Patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Buffer is written by a program while it is read.
type Buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String is all that was written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// Unpacked is where deploy/lab/lab install unpacks a package that it does not install.
func Unpacked(name string) string {
	cache := os.Getenv("RINGWALL_LAB_CACHE")
	if cache == "" {
		cache = "/var/cache/ringwall-lab"
	}
	return filepath.Join(cache, name)
}
