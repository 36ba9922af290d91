package commands_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/cmd/ringwall/internal/commands"
	"github.com/ringwall/ringwall/pkg/asterisk/ami/amiserver"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// patient is a command line whose configuration names an Asterisk with the secret, which may be the wrong one.
func patient(t *testing.T, secret string, variables map[string]string) (*world, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := amiserver.New(amiserver.Config{AuthDelay: -1, Users: []amiserver.User{
		{Name: "ringwall", Secret: "s3cret-of-nobody", Read: amiserver.ClassSecurity, Write: amiserver.ClassAll},
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ctx, l) }()
	t.Cleanup(func() { cancel(); <-done })
	dir := t.TempDir()
	path := filepath.Join(dir, "ringwall.yaml")
	text := fmt.Sprintf("asterisk: [{name: pbx1, address: %q, username: ringwall, secret: %s}]\ncontrol: {socket: "+
		"%s}\nstate: {path: %s}\n",
		l.Addr(), secret, filepath.Join(dir, "none.sock"), filepath.Join(dir, "state.db"))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w := &world{out: &lockedBuffer{}, err: &lockedBuffer{}}
	w.app = &commands.App{Out: w.out, Err: w.err, Env: config.Environment{Lookup: func(name string) (string, bool) {
		v, ok := variables[name]
		return v, ok
	}}}
	return w, path
}

// examine runs doctor with a kernel table of its own: the thread that asks the kernel is in a namespace, those that
// talk to Asterisk are not.
func (w *world) examine(t *testing.T, args ...string) int {
	t.Helper()
	var code int
	if err := netnstest.New(t).Do(func() error {
		code = w.app.Execute(t.Context(), append([]string{"doctor"}, args...))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return code
}

func TestDoctorTellsPeopleWhatWorks(t *testing.T) {
	for name, row := range map[string]struct {
		secret  string
		locale  map[string]string
		columns int
		code    int
		says    []string
		not     []string
	}{
		"well": {"s3cret-of-nobody", map[string]string{"LANG": "de_DE.UTF-8"}, 0, 1,
			[]string{"✔ pbx1 events ", "✘ daemon ", "Not ready: "}, []string{"It works", "\x1b"}},
		"ill": {"another-secret", map[string]string{"LC_ALL": "C", "LANG": "de_DE.UTF-8"}, 0, 1,
			[]string{"+ pbx1 reach ", "X pbx1 login ", "- pbx1 events ", "Try: ", "Not ready: "},
			[]string{"✔", "\x1b"}},
		"terminal": {"s3cret-of-nobody", map[string]string{"LANG": "C.utf8"}, 100, 1,
			[]string{"\x1b[32m✔\x1b[0m pbx1 events "}, nil},
		"no color": {"s3cret-of-nobody", map[string]string{"LANG": "C.utf8", "NO_COLOR": "1"}, 100, 1,
			[]string{"✔ pbx1 events "}, []string{"\x1b"}},
	} {
		t.Run(name, func(t *testing.T) {
			w, path := patient(t, row.secret, row.locale)
			w.app.Columns = row.columns
			if code := w.examine(t, "--config", path); code != row.code {
				t.Errorf("exit %d\n%s%s", code, w.out, w.err)
			}
			for _, part := range row.says {
				if !strings.Contains(w.out.String(), part) {
					t.Errorf("no %q in\n%s", part, w.out)
				}
			}
			for _, part := range append(row.not, row.secret) {
				if strings.Contains(w.out.String()+w.err.String(), part) {
					t.Errorf("%q in\n%s%s", part, w.out, w.err)
				}
			}
			// No daemon runs in these tests: that alone is reason enough not to call it working.
			want := "ringwall: not everything works: daemon\n"
			if row.secret != "s3cret-of-nobody" {
				want = "ringwall: not everything works: daemon, pbx1 login\n"
			}
			if w.err.String() != want {
				t.Errorf("stderr %q, want %q", w.err, want)
			}
		})
	}
}

func TestDoctorTellsPrograms(t *testing.T) {
	for _, row := range []struct {
		secret string
		code   int
	}{{"s3cret-of-nobody", 1}, {"another-secret", 1}} {
		w, path := patient(t, row.secret, nil)
		if code := w.examine(t, "--json", "--config", path); code != row.code {
			t.Errorf("exit %d: %s", code, w.err)
		}
		var got struct {
			OK     *bool
			Checks []struct{ Name, About, Result, Detail, Fix string }
		}
		d := json.NewDecoder(strings.NewReader(w.out.String()))
		d.DisallowUnknownFields()
		if err := d.Decode(&got); err != nil || d.More() {
			t.Fatalf("%v: %s", err, w.out)
		}
		if got.OK == nil || *got.OK != (row.code == 0) {
			t.Errorf("ok is %v", got.OK)
		}
		seen := map[string]bool{}
		for _, c := range got.Checks {
			seen[c.About+" "+c.Name+" "+c.Result] = true
			if c.Detail == "" || !strings.Contains(" ok warn fail skip ", " "+c.Result+" ") || c.Result == "fail" &&
				c.Fix == "" {
				t.Errorf("%+v", c)
			}
		}
		for _, want := range []string{" configuration ok", "pbx1 reach ok", " element ok", " own ok", " mode ok"} {
			if !seen[want] {
				t.Errorf("no %q in %s", want, w.out)
			}
		}
	}
}

func TestDoctorWithoutAFileStillLooksAtTheMachine(t *testing.T) {
	w, path := patient(t, "x", nil)
	if code := w.examine(t, "--config", path+".none"); code != 1 {
		t.Errorf("exit %d", code)
	}
	for _, part := range []string{"X configuration ", "Try: --config FILE", "- asterisk ", "+ own "} {
		if !strings.Contains(w.out.String(), part) {
			t.Errorf("no %q in\n%s", part, w.out)
		}
	}
}
