package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// scanLines is a security log of a scanner that is banned at its third account.
func scanLines() string {
	var b strings.Builder
	for i := range 3 {
		fmt.Fprintf(&b, `[2026-01-30 08:00:00] SECURITY[1] res_security_log.c: SecurityEvent="InvalidAccountID",EventTV="2026-01-30T08:00:0%d.000+0000",`+
			`Severity="Error",Service="PJSIP",EventVersion="1",AccountID="10%d",SessionID="%d",LocalAddress="IPV4/UDP/192.0.2.1/5060",RemoteAddress="IPV4/UDP/203.0.113.5/5060"`+"\n",
			i, i, i)
	}
	return b.String()
}

// program is ringwall, not started.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // so that a hang is a failure
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

// TestReplayOfALivePipe shows a ban while the pipe is open still, and ends with Ctrl-C.
func TestReplayOfALivePipe(t *testing.T) {
	cmd := program(t, "replay", "--json", "-")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(stdin, scanLines()); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || !strings.Contains(line, `"action":"ban","source":"203.0.113.5"`) {
		t.Errorf("%q, %v", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(errs.String(), "interrupted") {
		t.Errorf("exit %d: %s", code, errs.String())
	}
}

// TestReplayDrawsItsProgressOnTerminalsOnly gives it a terminal of its own as stderr.
func TestReplayDrawsItsProgressOnTerminalsOnly(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, []byte(scanLines()), 0o600); err != nil {
		t.Fatal(err)
	}
	screen, terminal := openTerminal(t)
	cmd := program(t, "replay", log)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, terminal
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if err := terminal.Close(); err != nil {
		t.Fatal(err)
	}
	shown, _ := io.ReadAll(screen) // a terminal that is closed gives EIO
	if !strings.Contains(string(shown), "[####################] 100%") ||
		!strings.HasSuffix(string(shown), "\r\x1b[K") {
		t.Errorf("the terminal shows %q", shown)
	}
	if strings.Contains(out.String(), "\x1b") || !strings.Contains(out.String(), "203.0.113.5") {
		t.Errorf("stdout is %q", out.String())
	}
	if _, _, errs := ringwall(t, "replay", log); strings.Contains(errs, "%") || strings.Contains(errs, "\x1b") {
		t.Errorf("without a terminal: %q", errs)
	}
}

func openTerminal(t *testing.T) (screen, terminal *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	fd := int(screen.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 100}); err != nil {
		t.Fatal(err)
	}
	return screen, terminal
}
