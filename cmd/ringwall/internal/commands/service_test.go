package commands_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/cmd/ringwall/internal/commands"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/service"
)

// After a restore everything belongs to root: root's check says what the service cannot read, and what mends it.
func TestCheckReadsAsTheServicesUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	root, dir := t.TempDir(), t.TempDir()
	for p := dir; p != "/tmp" && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	unit := filepath.Join(root, "etc/systemd/system/ringwall.service")
	file, secret := filepath.Join(dir, "ringwall.yaml"), filepath.Join(dir, "ami-secret")
	for path, text := range map[string]string{
		unit:   "[Service]\nUser=nobody\n",
		file:   "asterisk:\n  - {address: \"127.0.0.1:5038\", username: ringwall, secret_file: " + secret + "}\n",
		secret: "s3cret\n",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	serves := file
	check := func() (int, string) {
		var out, errs bytes.Buffer
		app := &commands.App{Env: config.OS(), Out: &out, Err: &errs, Now: time.Now, Zone: time.UTC,
			ServiceConfig: serves, Service: func() (*service.User, error) { return service.FindUser(root) }}
		code := app.Execute(t.Context(), []string{"check", "--config", file})
		return code, errs.String() + out.String()
	}
	if code, out := check(); code != 1 || !strings.Contains(out, "the service's user nobody may not read it") ||
		!strings.Contains(out, " "+file+" && chmod 0640") {
		t.Errorf("%d\n%s", code, out)
	}
	serves = filepath.Join(root, "ringwall.yaml") // and so the other is a draft, which only its writer reads
	if code, out := check(); code != 0 {
		t.Errorf("a draft: %d\n%s", code, out)
	}
	serves = file
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if code, out := check(); code != 1 || !strings.Contains(out, "secret_file") ||
		!strings.Contains(out, " "+secret+" && chmod 0640") {
		t.Errorf("%d\n%s", code, out)
	}
	if err := os.Chown(secret, 0, 65534); err != nil {
		t.Fatal(err)
	}
	if code, out := check(); code != 0 {
		t.Errorf("%d\n%s", code, out)
	}
}
