package commands_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/pkg/config"
)

// newPBX is the tree of a machine with FreePBX.
func newPBX(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for files of Asterisk's user")
	}
	root := t.TempDir()
	for name, text := range map[string]string{
		"freepbx.conf":                 "<?php\n",
		"asterisk/manager.conf":        "[general]\nenabled = yes\nbindaddr = 127.0.0.1\n#include manager_custom.conf\n",
		"asterisk/manager_custom.conf": "; mine\n",
	} {
		path := filepath.Join(root, "etc", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestSetupShowsAsksAndWrites(t *testing.T) {
	yes := func(context.Context, string) bool { return true }
	no := func(context.Context, string) bool { return false }
	for _, row := range []struct {
		name    string
		args    []string
		ask     func(context.Context, string) bool
		code    int
		written bool
		says    string
	}{
		{"at a terminal, yes", nil, yes, 0, true, "Written."},
		{"at a terminal, no", nil, no, 1, false, "nothing was changed"},
		{"without a terminal", nil, nil, 2, false, "Try: ringwall setup --yes"},
		{"without a terminal, told so", []string{"--yes"}, nil, 0, true, "Written."},
		{"to look at", []string{"--dry-run"}, yes, 0, false, "ringwall_manager.conf"},
		{"two wishes", []string{"--dry-run", "--yes"}, nil, 2, false, "one of them"},
	} {
		t.Run(row.name, func(t *testing.T) {
			root := newPBX(t)
			w := newWorld(t)
			w.app.Env, w.app.Ask = config.OS(), row.ask
			w.app.ReloadManager = func(context.Context) error {
				t.Error("an Asterisk that is not of this tree was told")
				return nil
			}
			code := w.app.Execute(t.Context(), append([]string{"setup", "--root", root}, row.args...))
			if all := w.out.String() + w.err.String(); code != row.code || !strings.Contains(all, row.says) {
				t.Errorf("exit %d, want %d with %q:\n%s", code, row.code, row.says, all)
			}
			_, err := os.Stat(filepath.Join(root, "etc/asterisk/ringwall_manager.conf"))
			if (err == nil) != row.written {
				t.Errorf("written: %v, want %v", err == nil, row.written)
			}
		})
	}
}

func TestSetupSaysWhatItWritesAndWhatItRemoves(t *testing.T) {
	root := newPBX(t)
	w := newWorld(t)
	w.app.Env = config.OS()
	say := func(name string, args ...string) {
		t.Helper()
		w.out, w.err = &lockedBuffer{}, &lockedBuffer{}
		w.app.Out, w.app.Err = w.out, w.err
		if code := w.app.Execute(t.Context(), append([]string{"setup", "--root", root}, args...)); code != 0 {
			t.Fatalf("exit %d: %s", code, w.err)
		}
		golden(t, name, w.out.String())
	}
	say("setup", "--yes")
	secret, err := os.ReadFile(filepath.Join(root, "etc/ringwall/ami-secret"))
	if err != nil || strings.Contains(w.out.String(), strings.TrimSpace(string(secret))) {
		t.Errorf("%v; the secret is in what it says: %s", err, w.out)
	}
	say("setup-again", "--yes")
	custom := filepath.Join(root, "etc/ringwall/ringwall.yaml")
	if err := os.WriteFile(custom, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	say("setup-undo", "--undo", "--yes")
	say("setup-undone", "--undo", "--yes")
}

func TestSetupForPrograms(t *testing.T) {
	root := newPBX(t)
	w := newWorld(t)
	w.app.Env = config.OS()
	var plan struct {
		Flavour string
		Changes []struct{ Action, Path, Lines string }
		Written bool
	}
	run := func(args ...string) {
		t.Helper()
		w.out = &lockedBuffer{}
		w.app.Out = w.out
		if code := w.app.Execute(t.Context(), append([]string{"setup", "--json", "--root", root}, args...)); code != 0 {
			t.Fatalf("exit %d: %s", code, w.err)
		}
	}
	run("--yes")
	if err := json.Unmarshal([]byte(w.out.String()), &plan); err != nil {
		t.Fatal(err)
	}
	if plan.Flavour != "FreePBX" || !plan.Written || len(plan.Changes) != 5 {
		t.Errorf("%+v", plan)
	}
	if hex := regexp.MustCompile(`[0-9a-f]{48}`); hex.MatchString(w.out.String()) {
		t.Error("the secret is in it")
	}
	var undo struct {
		Things []struct {
			Path    string
			Removed bool
		}
		Done bool
	}
	run("--undo", "--yes")
	if err := json.Unmarshal([]byte(w.out.String()), &undo); err != nil || !undo.Done || len(undo.Things) != 5 {
		t.Errorf("%+v, %v", undo, err)
	}
}
