package prometheus

import (
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/deploy/trial"
)

// ringwall is the program, built for the tests.
var ringwall string

func TestMain(m *testing.M) { trial.Main(m, &ringwall, func() error { return goleak.Find() }) }

// findTool finds a program of Debian's package prometheus: installed, or where deploy/lab/lab install unpacks it.
func findTool(t *testing.T, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	path, err := exec.LookPath(filepath.Join(trial.Unpacked("prometheus"), "usr", "bin", name))
	if err != nil {
		t.Fatalf("no %s: deploy/lab/lab install gets it (%v)", name, err)
	}
	return path
}
