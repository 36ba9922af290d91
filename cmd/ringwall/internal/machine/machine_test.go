package machine_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Who builds for a 32-bit machine reads a sentence, and who builds for another reads nothing.
func TestNarrowMachinesAreRefusedWithASentence(t *testing.T) {
	for arch, refused := range map[string]bool{"386": true, "arm": true, "mips": true, "mipsle": true, "amd64": false,
		"arm64": false, "riscv64": false} {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.GoFiles}}", ".")
		cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch)
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), "narrow.go") != refused {
			t.Errorf("%s: %v: %s", arch, err, out)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "tool", "compile", "-p", "machine", "-o",
		filepath.Join(t.TempDir(), "o"), "narrow.go")
	if out, err := cmd.CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "Ringwall needs a 64-bit system") {
		t.Errorf("%v: %s", err, out)
	}
}
