package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// asProgram makes this test's own binary behave as ringwall.
const asProgram = "RINGWALL_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// ringwall runs the program, and returns its exit code and what it wrote.
func ringwall(t *testing.T, args ...string) (int, string, string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestExitCodes(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for name, row := range map[string]struct {
		args     []string
		code     int
		out, err string
	}{
		"no arguments": {nil, 0, "ringwall demo", ""},
		"help":         {[]string{"why", "--help"}, 0, "ringwall why ADDR", ""},
		"no daemon":    {[]string{"status", "--socket", none}, 1, "", "Try: is it running? systemctl status ringwall"},
		"no file":      {[]string{"check", "--config", none}, 1, "", none},
		"a typo":       {[]string{"staus"}, 2, "", "Try: ringwall status\n"},
		"a bad flag":   {[]string{"list", "--jsno"}, 2, "", "Try: ringwall list --json\n"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := ringwall(t, row.args...)
			if code != row.code || !strings.Contains(out, row.out) || !strings.Contains(errs, row.err) ||
				(row.err == "") != (errs == "") {
				t.Errorf("exit %d\n%s%s", code, out, errs)
			}
		})
	}
}

func TestVersionNamesTheBuild(t *testing.T) {
	code, out, _ := ringwall(t, "version", "--json")
	var b struct{ Version, Go, Platform string }
	if err := json.Unmarshal([]byte(out), &b); err != nil || code != 0 {
		t.Fatalf("exit %d, %s: %v", code, out, err)
	}
	if b.Version == "" || b.Go != runtime.Version() || b.Platform != runtime.GOOS+"/"+runtime.GOARCH {
		t.Errorf("%+v", b)
	}
}
