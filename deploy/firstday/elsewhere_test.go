package firstday

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/trial"
)

// tryElsewhere tries what cannot run on the machine, as far as it can be tried, and says why.
func (d *day) tryElsewhere(t *testing.T, command string) (reason string, tried bool) {
	t.Helper()
	for _, row := range []struct {
		command, reason, try string // try: in the source tree; empty: only the syntax
	}{
		{"go run ./cmd/ringwall demo", "on the machine with Go, and shorter", "go run ./cmd/ringwall demo --for 3s"},
		{"deploy/test", "it is what runs this test", "bash -n deploy/test"},
		{"deploy/packages/build -arch amd64 -kind deb .", "done before: it made the package of this test",
			"bash -n deploy/packages/build"},
		{"deploy/packages/build -arch amd64 -kind rpm .", "deploy/packages builds it, and installs it",
			"bash -n deploy/packages/build"},
		{"deploy/packages/build packages", "done before: it made the package of this test", "bash -n deploy/packages/build"},
		{`deploy/packages/repository -key "$KEY" -url https://packages.example.net/ringwall packages repository`,
			"TestOneLine makes one, and deploy/packages tries its signatures", "bash -n deploy/packages/repository"},
		{"curl -fsSL https://packages.example.net/ringwall/install.sh | sh", "TestOneLine types it", "sh -n deploy/packages/install.sh"},
		{"curl -fsSL https://packages.example.net/ringwall/install.sh | sh -s -- --undo", "TestOneLine types it",
			"sh -n deploy/packages/install.sh"},
		{"dnf install ./ringwall-x86_64.rpm", "deploy/packages installs it with rpm, which Debian has", ""},
		{"ssh -L 9646:127.0.0.1:9646 PBX", "there is no second machine, and no SSH", ""},
		{"journalctl -u ringwall -n 50", "there is no journal without systemd as the first process", ""},
		{"journalctl -u ringwall -n 5", "there is no journal without systemd as the first process", ""},
	} {
		if row.command != command {
			continue
		}
		try := row.try
		if try == "" {
			try = "bash -n <<'TEXT'\n" + command + "\nTEXT"
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "bash", "-c", try)
		cmd.Dir = top
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", try, err, out)
		}
		return row.reason, true
	}
	return "", false
}

// TestInlineCommands looks at every command of Ringwall's that a page names in its text: there must be such a command,
// with such flags.
func TestInlineCommands(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "ringwall")
	if err := trial.BuildProgram(t.Context(), binary); err != nil {
		t.Fatal(err)
	}
	for _, page := range allPages(t) {
		for _, command := range inlineCommands(t, page) {
			args := strings.Fields(command)[1:]
			out, err := exec.CommandContext(t.Context(), binary, append(args, "--help")...).CombinedOutput()
			// The help of another command would be that of the program, or of a group.
			name := "ringwall"
			for _, arg := range args {
				if !isLowerCase(arg) || !strings.Contains(string(out), "\n  "+name+" "+arg) {
					break
				}
				name += " " + arg
			}
			if err != nil || (len(args) > 0 && name == "ringwall" && isLowerCase(args[0])) {
				t.Errorf("%s: `%s`: %v\n%s", page, command, err, out)
			}
		}
	}
}

func isLowerCase(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}
