package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/ringwall/ringwall/pkg/config"
)

func TestSecretIsHiddenFromEveryPrinter(t *testing.T) {
	type holder struct {
		Secret  config.Secret
		Pointer *config.Secret
	}
	s := config.NewSecret("hunter2")
	h := holder{s, &s}
	outputs := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10.3s", "%T"} {
		outputs["fmt "+verb] = fmt.Sprintf(verb, s) + fmt.Sprintf(verb, h) + fmt.Sprintf(verb, []config.Secret{s}) +
			fmt.Sprintf(verb, map[string]config.Secret{"a": s})
	}
	outputs["Sprint"] = fmt.Sprint(s, h)
	outputs["String"] = s.String() + s.GoString()
	var logged bytes.Buffer
	slog.New(slog.NewTextHandler(&logged, nil)).Info("text", "secret", s, "holder", h, "list", []config.Secret{s})
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("json", "secret", s, "holder", h, "list", []config.Secret{s})
	outputs["slog"] = logged.String()
	j, err := json.Marshal(map[config.Secret]holder{s: h})
	if err != nil {
		t.Fatal(err)
	}
	outputs["json"] = string(j)
	y, err := yaml.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	outputs["yaml"] = string(y)
	for name, out := range outputs {
		if strings.Contains(out, "hunter") || strings.Contains(out, fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("%s shows the secret: %s", name, out)
		}
		if name != "fmt %T" && !strings.Contains(out, "(hidden)") {
			t.Errorf("%s does not say that something is hidden: %s", name, out)
		}
	}
	if s.Reveal() != "hunter2" || s.IsZero() || !(config.Secret{}).IsZero() {
		t.Error("the secret itself is lost")
	}
}

// TestNoMistakeShowsTheSecret writes a secret where it does not belong, or spoils the YAML around it.
func TestNoMistakeShowsTheSecret(t *testing.T) {
	for name, text := range map[string]string{
		"list":                 "asterisk: [{address: a, username: b, secret: [hunter2]}]",
		"section":              "asterisk: [{address: a, username: b, secret: {hunter2: hunter2}}]",
		"no space":             "asterisk: [{address: a, username: b, secret:hunter2}]",
		"equals sign":          "asterisk: [{address: a, username: b, secret=hunter2}]",
		"a line of its own":    "asterisk:\n  - address: a\n    username: b\n    secret:hunter2\n",
		"part of the username": "asterisk:\n  - address: a\n    username: b\n      secret:hunter2\n",
		"indented too far":     "asterisk:\n  - address: a\n    username: b\n      secret: hunter2\n",
		"twice":                "asterisk:\n  - address: a\n    username: b\n    secret: hunter2\n    secret: hunter2\n",
		"misspelt":             "asterisk:\n  - address: a\n    username: b\n    secert: hunter2\n",
		"password":             "asterisk:\n  - address: a\n    username: b\n    password: hunter2\n",
		"alias":                "asterisk:\n  - address: a\n    username: b\n    secret: *hunter2\n",
		"anchor":               "asterisk:\n  - address: a\n    username: b\n    secret: &hunter2\n",
		"tag":                  "asterisk:\n  - address: a\n    username: b\n    secret: !hunter2\n",
		"long tag":             "asterisk:\n  - address: a\n    username: b\n    secret: !<hunter2\n",
		"tag handle":           "asterisk:\n  - address: a\n    username: b\n    secret: !hunter2!x y\n",
		"open quote":           "asterisk:\n  - address: a\n    username: b\n    secret: \"hunter2\n",
		"bad escape":           "asterisk:\n  - address: a\n    username: b\n    secret: \"hunter2\\d\"\n",
		"text after a quote":   "asterisk:\n  - address: a\n    username: b\n    secret: \"hunter2\" hunter2\n",
		"colon":                "asterisk:\n  - address: a\n    username: b\n    secret: hunter2: hunter2\n",
		"at sign":              "asterisk:\n  - address: a\n    username: b\n    secret: @hunter2\n",
		"percent":              "asterisk:\n  - address: a\n    username: b\n    secret: %hunter2\n",
		"directive":            "%hunter2 x\n---\nasterisk: []\n",
		"two lines": "asterisk:\n  - address: a\n    username: b\n    secret: |\n      hunter2\n      " +
			"hunter2\n",
		"control character": "asterisk: [{address: a, username: b, secret: \"hunter2\\u0000\"}]",
		"variable":          "asterisk: [{address: a, username: b, secret: \"${hunter2-}\"}]",
		"both":              "asterisk: [{address: a, username: b, secret: hunter2, secret_file: /closed}]",
		"used elsewhere":    "asterisk: [{address: a, username: b, secret: &s hunter2, auth: *s}]",
		"used by a check": "asterisk: [{address: a, username: b, secret: &s hunter2}]\npolicy: {half_life: *s, " +
			"allow: *s, mode: *s}",
		"file, several lines": "asterisk: [{address: a, username: b, secret_file: /lines}]",
		"file, too long":      "asterisk: [{address: a, username: b, secret_file: /long}]",
		"file, for everybody": "asterisk: [{address: a, username: b, secret_file: /open}]",
		"broken variable":     "asterisk: [{address: a, username: b, secret: \"${BROKEN}\"}]",
		"empty variable":      "asterisk: [{address: a, username: b, secret: \"${EMPTY}\"}]",
		"tagged binary":       "asterisk: [{address: a, username: b, secret: !!binary hunter2, auth: x}]",
		"not a list":          "asterisk: {address: a, username: b, secret: hunter2}",
		"a template":          "asterisk: [{address: a, username: b, secret: {{ hunter2 }}}]",
	} {
		t.Run(name, func(t *testing.T) {
			c, warnings, err := parse(text)
			if err == nil {
				t.Fatalf("accepted: %+v", c)
			}
			if shown := fmt.Sprintf("%v %+v %v", err, err, warnings); strings.Contains(shown, "hunter") {
				t.Errorf("shown: %s", shown)
			}
		})
	}
}

func TestSecretComesFromOneOfItsSources(t *testing.T) {
	for name, row := range map[string]struct{ text, folder string }{
		"text":              {"secret: hunter2", ""},
		"variable":          {`secret: "${SET}"`, ""},
		"file":              {"secret_file: /closed", ""},
		"file of Windows":   {"secret_file: /windows", ""},
		"credential":        {"auth: md5", "/credentials"},
		"text, not systemd": {"secret: hunter2", "/none"},
	} {
		t.Run(name, func(t *testing.T) {
			text := "asterisk:\n  - address: 127.0.0.1\n    username: ringwall\n    " + row.text + "\n"
			c, warnings, err := config.Parse(strings.NewReader(text), "ringwall.yaml", machine(row.folder))
			if err != nil || len(warnings) > 0 {
				t.Fatal(err, warnings)
			}
			if got := c.Asterisk[0].Secret.Reveal(); got != "hunter2" {
				t.Errorf("%d bytes", len(got))
			}
		})
	}
}

func TestSecretOfDigitsStaysText(t *testing.T) {
	for _, secret := range []string{"0123", "1e3", "true", "1_000", "0x10", "2024-01-01"} {
		c, _, err := parse("asterisk: [{address: a, username: b, secret: " + secret + "}]")
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Asterisk[0].Secret.Reveal(); got != secret {
			t.Errorf("%q became %q", secret, got)
		}
	}
}

func TestCommandsThatDoNotLogInNeedNoSecret(t *testing.T) {
	env := machine("")
	env.WithoutSecrets = true
	for _, source := range []string{"", `, secret: "${NOT_SET}"`, ", secret_file: /none", ", secret_file: /open"} {
		c, _, err := config.Parse(strings.NewReader("asterisk: [{address: a, username: b"+source+"}]"), "ringwall.yaml",
			env)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if !c.Asterisk[0].Secret.IsZero() {
			t.Errorf("%s: a secret was read", source)
		}
	}
}

func TestSecretFilesOfTheRealMachine(t *testing.T) {
	folder := t.TempDir()
	write := func(name string, mode os.FileMode) string {
		name = filepath.Join(folder, name)
		if err := os.WriteFile(name, []byte("hunter2\n"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil { // whatever the umask is
			t.Fatal(err)
		}
		return name
	}
	load := func(file string) error {
		_, _, err := config.Parse(strings.NewReader("asterisk: [{address: a, username: b, secret_file: "+file+"}]"),
			"c", config.OS())
		return err
	}
	if err := load(write("group", 0o640)); err != nil {
		t.Error(err)
	}
	if err := load(write("world", 0o644)); err == nil || !strings.Contains(err.Error(), "chmod 0640") {
		t.Errorf("world: %v", err)
	}
	pipe := filepath.Join(folder, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := load(pipe); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("pipe: %v", err)
	}
	if err := load("/dev/zero"); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("/dev/zero: %v", err)
	}
}
