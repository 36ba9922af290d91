package commands_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/cmd/ringwall/internal/commands"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/fleet/hub"
)

// typeIn runs a command line, and returns what it writes and its exit code.
func typeIn(args ...string) (out, errs string, code int) {
	var o, e bytes.Buffer
	app := &commands.App{Env: config.OS(), Out: &o, Err: &e, Now: time.Now, Zone: time.UTC}
	code = app.Execute(context.Background(), args)
	return o.String(), e.String(), code
}

func TestAHubAndANodeThatJoins(t *testing.T) {
	folder, etc := filepath.Join(t.TempDir(), "hub"), t.TempDir()
	if _, errs, code := typeIn("hub", "invite", "a", "--folder", folder); code != 1 || !strings.Contains(errs, "there is no hub") {
		t.Errorf("an invitation before there is a hub: %d, %s", code, errs)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	ctx, stop := context.WithCancel(context.Background())
	var out, errs lockedBuffer
	ended := make(chan int, 1)
	go func() {
		app := &commands.App{Env: config.OS(), Out: &out, Err: &errs, Now: time.Now, Zone: time.UTC}
		ended <- app.Execute(ctx, []string{"hub", "--folder", folder, "--listen", address, "--name", "acme"})
	}()
	t.Cleanup(func() {
		stop()
		if code := <-ended; code != 0 {
			t.Errorf("the hub ends with %d: %s", code, errs.String())
		}
	})
	for deadline := time.Now().Add(time.Minute); !strings.Contains(out.String(), "The hub listens at "+address); {
		if time.Now().After(deadline) {
			t.Fatalf("the hub does not start: %s%s", out.String(), errs.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
	line, problem, code := typeIn("hub", "invite", "pbx-1", "--folder", folder, "--address", address)
	words := strings.Fields(line)
	if code != 0 || len(words) != 4 || strings.Join(words[:3], " ") != "ringwall fleet join" {
		t.Fatalf("the line is %q, %d, %s", line, code, problem)
	}
	conf := filepath.Join(etc, "ringwall.yaml")
	var section string
	for deadline := time.Now().Add(time.Minute); ; { // the hub takes over who is invited within a second
		if section, problem, code = typeIn("fleet", "join", words[3], "--config", conf); code == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the node is not let in: %s", problem)
		}
	}
	_, section, _ = strings.Cut(section, "\n")
	secret := filepath.Join(etc, "fleet.creds")
	if info, err := os.Stat(secret); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the secret: %v, %v", info.Mode(), err)
	}
	minimal := "asterisk:\n  - {address: 127.0.0.1, username: ringwall, secret: s3cret}\n"
	if err := os.WriteFile(conf, []byte(minimal+section), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := typeIn("check", "--config", conf); code != 0 || !strings.Contains(out, "0 warnings") {
		t.Errorf("what belongs into the configuration is not right: %d %s%s\n%s", code, out, errs, section)
	}
	cfg, _, err := config.Load(conf, config.OS())
	if err != nil || cfg.Fleet.Name != "acme" || cfg.Fleet.Node != "pbx-1" || cfg.Fleet.CredentialsFile != secret {
		t.Errorf("read as %+v, %v", cfg.Fleet, err)
	}
	if out, errs, code := typeIn("hub", "forget", "pbx-1", "--folder", folder); code != 0 ||
		!strings.Contains(out, "What pbx-1 said is void") || !strings.Contains(out, "It is still invited") {
		t.Errorf("forgotten: %d, %s%s", code, out, errs)
	}
	if out, errs, code := typeIn("hub", "revoke", "pbx-1", "--folder", folder); code != 0 || out != "pbx-1 is out.\n" {
		t.Errorf("revoked: %d, %s%s", code, out, errs)
	}
	if _, errs, code := typeIn("hub", "revoke", "pbx-1", "--folder", folder); code != 1 {
		t.Errorf("revoked twice: %d, %s", code, errs)
	}
	before, err := os.ReadFile(secret)
	if err != nil {
		t.Fatal(err)
	}
	invitation, err := hub.ParseInvitation(words[3])
	if err != nil {
		t.Fatal(err)
	}
	invitation.Server = "tls://127.0.0.1:1"
	if _, errs, code := typeIn("fleet", "join", invitation.String(), "--config", conf); code != 1 ||
		!strings.Contains(errs, "does not let this node in") {
		t.Errorf("a hub that is not there: %d, %s", code, errs)
	}
	if after, err := os.ReadFile(secret); err != nil || !bytes.Equal(after, before) {
		t.Errorf("a line that does not work has changed what worked: %v", err)
	}
	if _, errs, code := typeIn("fleet", "join", "ringwall1:hello", "--config", conf); code != 1 ||
		!strings.Contains(errs, "ringwall hub invite NODE") {
		t.Errorf("a line that is none: %d, %s", code, errs)
	}
}
