package commands_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/fail2ban/fail2bantest"
)

const importedJails = `[asterisk]
enabled = true
filter = asterisk
port = 5060,5061
maxretry = 5
findtime = 10m
bantime = 1h
ignoreip = 127.0.0.1/8 192.0.2.0/24 sip.example.net
ignorecommand = /bin/ours
[sshd]
enabled = true
port = ssh
`

// fail2banHere makes jail files and a database, and returns the folder of both.
func fail2banHere(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "jail.local"), []byte(importedJails), 0o644); err != nil {
		t.Fatal(err)
	}
	db := fail2bantest.Open(t, filepath.Join(dir, "db"), fail2bantest.Schema...)
	for _, row := range []struct {
		ip, jail string
		ago      time.Duration
		length   int64
	}{
		{"203.0.113.5", "asterisk", 20 * time.Minute, 3600}, {"203.0.113.6", "asterisk", time.Hour, -1},
		{hostile, "asterisk", 0, 3600},
		{"203.0.113.7", "sshd", 0, 3600}, {"2001:db8:bad::/64", "asterisk", 0, 1 << 40},
		{"203.0.113.8", hostile, 0, 3600},
	} {
		db.Ban(row.jail, row.ip, now.Add(-row.ago).Unix(), row.length)
	}
	db.Close()
	return dir
}

func importArgs(dir string, more ...string) []string {
	return append([]string{"import", "fail2ban", "--jail", dir, "--db", filepath.Join(dir, "db")}, more...)
}

func TestImportPrintsAndChangesNothing(t *testing.T) {
	for name, flags := range map[string][]string{"import": nil, "import.json": {"--json"},
		"import-also": {"--also", "sshd", "--also", hostile}} {
		t.Run(name, func(t *testing.T) {
			w, dir := newWorld(t), fail2banHere(t)
			if code := w.do(t, importArgs(dir, flags...)...); code != 0 {
				t.Fatalf("exit %d: %s", code, w.err)
			}
			golden(t, name, strings.ReplaceAll(w.out.String(), dir, "DIR"))
			golden(t, name+".err", strings.ReplaceAll(w.err.String(), dir, "DIR"))
			if len(w.backend.bans)+len(w.backend.allows) > 0 {
				t.Error("the daemon was changed without --apply")
			}
			if name != "import" {
				return
			}
			text := "asterisk: [{address: 127.0.0.1, username: ringwall, secret: \"s\"}]\n" + w.out.String()
			if _, warnings, err := config.Parse(strings.NewReader(text), "ringwall.yaml",
				config.Environment{}); err != nil || len(warnings) > 0 {
				t.Errorf("check says: %v %v", err, warnings)
			}
		})
	}
}

// The guide's first step can be typed as it stands, on the configuration that the packages bring.
func TestTheGuidesFirstStepCanBeTyped(t *testing.T) {
	guide, err := os.ReadFile("../../../../deploy/docs/fail2ban.md")
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(guide), "\n2. ")
	var script strings.Builder
	for i, part := range strings.Split(first, "```") {
		if i%2 == 1 {
			script.WriteString(strings.TrimPrefix(part, "sh") + "\n")
		}
	}
	w, dir, home := newWorld(t), fail2banHere(t), t.TempDir()
	if code := w.do(t, importArgs(dir)...); code != 0 {
		t.Fatalf("exit %d: %s", code, w.err)
	}
	packaged, err := os.ReadFile("../../../../deploy/packages/files/ringwall.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(home, "ringwall.yaml")
	text := strings.Replace(string(packaged), "secret_file: /etc/ringwall/ami-secret", "secret: s", 1)
	for path, content := range map[string]string{file: text, filepath.Join(home, "imported"): w.out.String()} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	typed := strings.NewReplacer("ringwall import fail2ban", "cat "+home+"/imported", "ringwall check", "true",
		"/etc/ringwall/", home+"/", "/root/", home+"/").Replace(script.String())
	if !strings.Contains(typed, file) || !strings.Contains(script.String(), "ringwall check") {
		t.Fatalf("the guide has another first step:\n%s", script.String())
	}
	if out, err := exec.CommandContext(t.Context(), "sh", "-ec", typed).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cfg, warnings, err := config.Load(file, config.OS())
	if err != nil || len(warnings) > 0 || cfg.Policy.Mode != config.Observe || len(cfg.Policy.Allow) != 2 {
		t.Errorf("%+v, %v, %v", cfg, warnings, err)
	}
}

func TestImportHandsOverToTheDaemon(t *testing.T) {
	w, dir := newWorld(t), fail2banHere(t)
	w.backend.ban.Enforced = true
	if code := w.do(t, importArgs(dir, "--apply", "--also", hostile)...); code != 0 {
		t.Fatalf("exit %d: %s", code, w.err)
	}
	want := map[string]time.Duration{
		"203.0.113.5/32": 40 * time.Minute, "203.0.113.6/32": api.MaxDuration, "203.0.113.8/32": time.Hour,
		"2001:db8:bad::/64": api.MaxDuration,
	}
	for _, req := range w.backend.bans {
		if want[req.Prefix.String()] != req.For || !strings.HasPrefix(req.Reason, "fail2ban ") ||
			strings.ContainsAny(req.Reason, "\x1b\n\u202e") {
			t.Errorf("%+v", req)
		}
		delete(want, req.Prefix.String())
	}
	if len(want) > 0 {
		t.Errorf("not handed over: %v", want)
	}
	if len(w.backend.allows) != 2 || w.backend.allows[0].Prefix.String() != "192.0.2.0/24" ||
		w.backend.allows[1].Host != "sip.example.net" {
		t.Errorf("%+v", w.backend.allows)
	}
	if out := w.out.String(); !strings.Contains(out, "Allowed: 2 of 2. Banned: 4 of 4, 4 of them in the kernel.") {
		t.Error(out)
	}
}

func TestImportReportsEachRefusal(t *testing.T) {
	w, dir := newWorld(t), fail2banHere(t)
	w.backend.err = api.Refused("", "it is a trunk of pbx1")
	if code := w.do(t, importArgs(dir, "--apply")...); code != 1 {
		t.Errorf("exit %d", code)
	}
	errs := w.err.String()
	for _, what := range []string{"refused: ban 203.0.113.5: it is a trunk", "refused: ban 2001:db8:bad::/64:",
		"refused: allow 192.0.2.0/24:", "5 entries were refused"} {
		if !strings.Contains(errs, what) {
			t.Errorf("nothing says %s:\n%s", what, errs)
		}
	}
	if len(w.backend.bans) != 3 {
		t.Errorf("it ended after a refusal: %v", w.backend.bans)
	}

	w = newWorld(t)
	w.backend.err = api.Refused("", "no")
	w.do(t, importArgs(dir, "--apply", "--json")...)
	var res struct {
		Applied struct {
			Refused []struct{ What, Why string }
		}
	}
	if err := json.Unmarshal([]byte(w.out.String()), &res); err != nil || len(res.Applied.Refused) != 5 {
		t.Errorf("%v: %s", err, w.out)
	}
}

func TestImportEndsWithoutADaemon(t *testing.T) {
	w, dir := newWorld(t), fail2banHere(t)
	w.socket = filepath.Join(t.TempDir(), "nobody")
	if code := w.do(t, importArgs(dir, "--apply")...); code != 1 || !strings.Contains(w.err.String(), "Try: ") {
		t.Errorf("exit %d: %s", code, w.err)
	}
}

func TestImportSaysWhatToTry(t *testing.T) {
	w, dir := newWorld(t), fail2banHere(t)
	old := filepath.Join(dir, "0.10")
	fail2bantest.Open(t, old, `CREATE TABLE fail2banDb(version INTEGER)`, `INSERT INTO fail2banDb VALUES(2)`,
		`CREATE TABLE bans(jail TEXT, ip TEXT)`).Close()
	for _, row := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"import"}, 2, "Try: ringwall import fail2ban"},
		{[]string{"import", "crowdsec"}, 2, "there is no command"},
		{[]string{"import", "fail2ban", "--jail", filepath.Join(dir, "none")}, 1,
			"Try: ringwall import fail2ban --jail FOLDER --db FILE"},
		{[]string{"import", "fail2ban", "--jail", dir, "--db", filepath.Join(dir, "jail.local")}, 0,
			"no SQLite database"},
		{[]string{"import", "fail2ban", "--jail", dir, "--db", old}, 0,
			"Try: ringwall import fail2ban --db FILE, with the database of fail2ban 0.11"},
		{[]string{"import", "fail2ban", "--jail", dir, "--db", old, "--apply"}, 1, "its version is 2"},
	} {
		w.err = &lockedBuffer{}
		w.app.Err = w.err
		if code := w.do(t, row.args...); code != row.code || !strings.Contains(w.err.String(), row.want) {
			t.Errorf("%v: exit %d: %s", row.args, code, w.err)
		}
	}
}
