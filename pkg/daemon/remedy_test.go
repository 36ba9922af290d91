package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/pkg/asterisk/ami"
)

func TestTheReadyFileIsNamed(t *testing.T) {
	plain, packaged, freepbx := t.TempDir(), t.TempDir(), t.TempDir()
	for _, name := range []string{packaged + readyFile, freepbx + readyFile, freepbx + "/etc/freepbx.conf"} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	login := ami.Error{Kind: ami.ErrLogin, Stage: ami.StageLogin, Address: "127.0.0.1:5038", User: "ringwall"}
	with := func(change func(*ami.Error)) error {
		e := login
		change(&e)
		return &e
	}
	same := func(*ami.Error) {}
	for name, row := range map[string]struct {
		root string
		err  error
		says []string
		not  string
	}{
		"refused": {packaged, with(same), []string{"install -o asterisk", readyFile, "manager.d/ringwall.conf",
			"manager reload", "systemctl reload ringwall"}, "secret ="},
		"FreePBX": {freepbx, with(same), []string{"cat " + readyFile + " >>/etc/asterisk/manager_custom.conf"},
			"manager.d"},
		"no events": {packaged, with(func(e *ami.Error) { e.Kind = ami.ErrNoPrivilege }), []string{readyFile},
			"write ="},
		"no package":   {plain, with(same), []string{"secret =", "systemctl reload ringwall"}, readyFile},
		"another user": {packaged, with(func(e *ami.Error) { e.User = "mine" }), []string{"[mine]"}, readyFile},
		"elsewhere": {packaged, with(func(e *ami.Error) { e.Address = "pbx.example.net:5038" }), []string{"secret ="},
			readyFile},
		"not there": {packaged, with(func(e *ami.Error) { e.Kind = ami.ErrRefused }), []string{"enabled = yes"},
			readyFile},
		"by name": {packaged, with(func(e *ami.Error) { e.Address = "localhost:5038" }), []string{readyFile},
			"secret ="},
	} {
		got := remedyUnder(row.err, row.root)
		for _, part := range row.says {
			if !strings.Contains(got, part) {
				t.Errorf("%s: no %q in\n%s", name, part, got)
			}
		}
		if strings.Contains(got, row.not) {
			t.Errorf("%s: %q in\n%s", name, row.not, got)
		}
		if line := oneLine(got); strings.Contains(line, "\n") {
			t.Errorf("%s: %q", name, line)
		}
	}
	if got := remedyUnder(errors.New("else"), packaged); got != "" {
		t.Errorf("%q", got)
	}
	if got := with(same).Error(); strings.Contains(got, "Try") || strings.Contains(got, "\n") {
		t.Errorf("%q", got)
	}
}
