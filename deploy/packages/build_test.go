package packages

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// limit bounds one command, on a machine that has much else to do.
const limit = 15 * time.Minute

// The time in the packages of these tests; any would do.
const epoch = "1700000000"

const (
	oldVersion = "1.0.0-rc1"
	newVersion = "1.0.0"
)

// needRoot skips where this process may not have namespaces and chroot.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for namespaces and chroot")
	}
}

// buildPackages makes packages of the source tree root in dir and returns their names.
func buildPackages(t *testing.T, root, version, dir string, args ...string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(root, "deploy/packages/build"), append(args, dir)...)
	cmd.Env = append(os.Environ(), "RINGWALL_VERSION="+version, "SOURCE_DATE_EPOCH="+epoch)
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	names, err := filepath.Glob(filepath.Join(dir, "ringwall*"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d packages of %s in %v", len(names), version, time.Since(began).Round(time.Second))
	return names
}

// olderCopy is a copy of this source tree at another place.
func olderCopy(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a tree at another place")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// All of it: where git misses a file, the program says that it was built from a changed tree.
	if out, err := exec.Command("cp", "-a", "--reflink=auto", "../../.", dir).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	return dir
}

func fileChecksum(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

func outputOf(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return strings.TrimSpace(string(out))
}
