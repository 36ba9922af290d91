package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/clock"
)

// Every year that is allowed, where programs have gone wrong: 2038 has no more than 31 bits of seconds behind it.
func TestAProgramRunsLater(t *testing.T) {
	src := filepath.Join(t.TempDir(), "main.go")
	const text = "package main\n\nimport (\n\t\"fmt\"\n\t\"time\"\n)\n\n" +
		"func main() {\n\tbegan := time.Now()\n\ttime.Sleep(time.Millisecond)\n" +
		"\tif d := time.Since(began); d <= 0 || d > time.Hour {\n\t\tpanic(d)\n\t}\n\tfmt.Print(time.Now().Unix())\n}\n"
	if err := os.WriteFile(src, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, years := range []int{1, 12, 100} {
		dir := filepath.Join(t.TempDir(), "overlay")
		if err := makeOverlay(years, []string{dir}); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "go", "run", src)
		cmd.Env = append(os.Environ(), "GOFLAGS=-overlay="+filepath.Join(dir, "overlay.json"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		at, err := strconv.ParseInt(string(out), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		want := time.Duration(years) * (365*24 + 6) * time.Hour
		if got := time.Unix(at, 0).Sub(clock.Kernel()); (got - want).Abs() > time.Minute {
			t.Errorf("-years %d: the program runs %v later, want %v", years, got, want)
		}
	}
}

// A Go whose files read otherwise must not run the tests today and call it later.
func TestAnotherGoIsRefused(t *testing.T) {
	for _, e := range sourceEdits() {
		for name, text := range map[string]string{"without": "package x\n", "twice": e.from + e.from} {
			root := t.TempDir()
			for _, other := range sourceEdits() {
				file := filepath.Join(root, other.file)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				content := other.from
				if other.file == e.file {
					content = text
				}
				if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			dir := t.TempDir()
			err := writeOverlay(root, dir, 10)
			if err == nil || !strings.Contains(err.Error(), filepath.Join(root, e.file)) {
				t.Errorf("%s, %s: %v", e.file, name, err)
			}
			if _, err := os.Stat(filepath.Join(dir, "overlay.json")); err == nil {
				t.Errorf("%s, %s: an overlay was written all the same", e.file, name)
			}
		}
	}
}

func TestWrongArguments(t *testing.T) {
	dir := t.TempDir()
	for years, args := range map[int][]string{0: {dir}, -1: {dir}, 101: {dir}, 10: {}, 11: {dir, dir}} {
		if err := makeOverlay(years, args); err == nil {
			t.Errorf("-years %d %q was taken", years, args)
		}
	}
}
