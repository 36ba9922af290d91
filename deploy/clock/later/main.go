// Command later makes what lets the tests, and every program that they build, run years later:
//
//	go -C deploy run ./clock/later -years 10 DIR
//	GOFLAGS=-overlay=DIR/overlay.json go test ./...
//
// DIR gets copies of a few files of Go's standard library, in which time.Now is that much later, and so are the times
// of files, as on a machine whose clock is; and overlay.json, which has go put them in the places of the originals (go
// help build, -overlay). The installation of Go stays as it is. The monotonic clock and the bubbles of testing/synctest
// are as ever. Programs that are not made with Go keep the kernel's time.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// year is Julian: the time of the day is another one too unless the years are a multiple of four.
const year = 365*24*time.Hour + 6*time.Hour

// maxYears is well within the 292 years of a time.Duration.
const maxYears = 100

// An edit replaces a text that a file of the standard library has exactly once. The line breaks stay where they are, so
// that line numbers do too.
type sourceEdit struct{ file, from, to string }

// sourceEdits are for the Go of go.mod; %d is a number of seconds. In a bubble the time is not the machine's.
func sourceEdits() []sourceEdit {
	return []sourceEdit{
		{"src/time/time.go", "	sec, nsec, mono := runtimeNow()\n	if mono == 0 {\n",
			"	sec, nsec, mono := runtimeNow(); if !runtimeIsBubbled() { sec += %d }\n	if mono == 0 {\n"},
		{"src/os/stat_linux.go", "	fs.modTime = time.Unix(fs.sys.Mtim.Unix())\n",
			"	fs.modTime = time.Unix(fs.sys.Mtim.Unix()).Add(%d * time.Second)\n"},
		{"src/os/file_posix.go", "			utimes[i] = syscall.NsecToTimespec(t.UnixNano())\n",
			"			utimes[i] = syscall.NsecToTimespec(t.Add(-%d * time.Second).UnixNano())\n"},
	}
}

func main() {
	years := flag.Int("years", 10, "how much later it is: 1 to 100")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: go -C deploy run ./clock/later [-years 10] DIR")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := makeOverlay(*years, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "later: %v\n", err)
		os.Exit(1)
	}
}

func makeOverlay(years int, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want the folder to write to, got %d arguments", len(args))
	}
	if years < 1 || years > maxYears {
		return fmt.Errorf("-years is %d: allowed are 1 to %d", years, maxYears)
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	return writeOverlay(strings.TrimSpace(string(root)), args[0], years)
}

// writeOverlay writes the overlay to dir. A text that a file does not have exactly once is an error: with another Go
// the time would silently be today's.
func writeOverlay(goroot, dir string, years int) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	replace := map[string]string{}
	for _, e := range sourceEdits() {
		from := filepath.Join(goroot, filepath.FromSlash(e.file))
		b, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if n := strings.Count(string(b), e.from); n != 1 {
			return fmt.Errorf("%s has this %d times, not once, so its copy would not be what is wanted; "+
				"adapt edits() to this Go:\n%s", from, n, e.from)
		}
		text := strings.Replace(string(b), e.from, fmt.Sprintf(e.to, int64(years)*int64(year/time.Second)), 1)
		to := filepath.Join(dir, strings.ReplaceAll(strings.TrimPrefix(e.file, "src/"), "/", "_"))
		if err := os.WriteFile(to, []byte(text), 0o644); err != nil {
			return err
		}
		replace[from] = to
	}
	b, err := json.MarshalIndent(map[string]any{"Replace": replace}, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "overlay.json"), append(b, '\n'), 0o644)
}
