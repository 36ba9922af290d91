package doctor

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/clock"
	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/pkg/control"
)

// fileOf is the configuration for an account of the lab.
func fileOf(t *testing.T, user lab.User) string {
	t.Helper()
	path := file(t, lab.AMIAddress, "metrics: {listen: \"\"}\n")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), "username: ringwall, secret: "+secret, fmt.Sprintf("username: %s, secret: %s", user, user.Secret()), 1)
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// in runs an examination on the lab's server.
func in(t *testing.T, l *lab.Lab, user lab.User) []Check {
	t.Helper()
	return with(t, l, fileOf(t, user), user)
}

func with(t *testing.T, l *lab.Lab, path string, user lab.User) []Check {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "checks")
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `exec "$0" >"$1"`, self, out)
	cmd.Env = append(os.Environ(), asDoctor+"="+path)
	p := l.SpawnCmd(t, lab.Server, cmd)
	if err := p.Wait(); err != nil {
		t.Fatalf("%v: %s", err, p.Output())
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var list []Check
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	if strings.Contains(string(b), user.Secret()) {
		t.Errorf("the secret is in %s", b)
	}
	return list
}

// without are the checks but those of one name: no daemon runs in most of these tests, which fails by itself.
func without(list []Check, name string) []Check {
	return slices.DeleteFunc(slices.Clone(list), func(c Check) bool { return c.Name == name })
}

// harmless says whether an event is a login, or about a question of pkg/learn that is denied or unknown here.
func harmless(f lab.Frame) bool {
	switch f.Event() {
	case "SuccessfulAuth", "RequestNotAllowed":
		return true
	case "RequestBadFormat":
		return f.Get("RequestType") == "Action: IAXpeers" || f.Get("RequestType") == "Action: SIPpeers"
	}
	return false
}

func TestARealAsterisk(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real Asterisk")
	}
	l := lab.Start(t, lab.Options{})
	watch := l.DialAMI(t, lab.Ringwall)

	t.Run("a user that may learn", func(t *testing.T) {
		list := in(t, l, lab.SecFull)
		if !Passed(without(list, "daemon")) {
			t.Errorf("%+v", list)
		}
		for _, link := range []string{reach, greeting, logins, privilege, arrival, bound, web, element} {
			is(t, one(t, list, link), OK)
		}
		if clock.Ahead() < time.Hour {
			is(t, one(t, list, "lag"), OK)
		} else { // the tests run years later, and Asterisk does not
			is(t, one(t, list, "lag"), Warn, "old when it arrives", "timedatectl")
		}
		is(t, one(t, list, learning), OK, "2 trunks and contacts")
	})
	t.Run("the user of the README", func(t *testing.T) {
		list := in(t, l, lab.Ringwall)
		if !Passed(without(list, "daemon")) {
			t.Errorf("%+v", list)
		}
		is(t, one(t, list, arrival), OK, "it came")
		is(t, one(t, list, learning), Skip, "write = system,reporting")
	})
	t.Run("a user without security", func(t *testing.T) {
		list := in(t, l, lab.NoSec)
		is(t, one(t, list, logins), OK)
		is(t, one(t, list, privilege), Fail, "[nosec]", "read = security")
		is(t, one(t, list, arrival), Skip)
	})
	t.Run("beside a daemon", func(t *testing.T) {
		path := fileOf(t, lab.SecFull)
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), self)
		cmd.Env = append(os.Environ(), asDaemon+"="+path)
		p := l.SpawnCmd(t, lab.Server, cmd)
		client := control.Client{Socket: filepath.Join(filepath.Dir(path), "r.sock")}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			st, err := client.Status(t.Context())
			if err == nil && st.Healthy() && st.PBXs[0].Learned > 0 && st.PBXs[0].Events > 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%+v, %v\n%s", st, err, p.Output())
			}
		}
		list := with(t, l, path, lab.SecFull)
		if !Passed(list) {
			t.Errorf("%+v", list)
		}
		for _, link := range []string{"daemon", "heard", "bans", logins, arrival, learning, element, "socket", "own"} {
			is(t, one(t, list, link), OK)
		}
		bans, err := client.Bans(t.Context(), control.BanFilter{})
		if err != nil || len(bans) != 0 {
			t.Errorf("%+v, %v", bans, err)
		}
	})
	// Nothing that looks like an attack was caused.
	events := map[string]int{}
	for _, f := range watch.Drain() {
		events[f.Event()]++
		if f.Event() != "" && !harmless(f) {
			t.Errorf("the doctor caused %s", f)
		}
	}
	if events["SuccessfulAuth"] < 5 {
		t.Errorf("the watcher saw only %v", events)
	}
}

func TestARealAsteriskThatIsTooOpen(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real Asterisk")
	}
	l := lab.Start(t, lab.Options{HTTPAMI: true, PublicAMI: true})
	watch := l.DialAMI(t, lab.Ringwall)
	list := in(t, l, lab.SecFull)
	if !Passed(without(list, "daemon")) {
		t.Errorf("%+v", list)
	}
	is(t, one(t, list, web), Warn, "http://10.99.0.1:8088", "https://10.99.0.1:8089", "a stranger", "webenabled = no")
	is(t, one(t, list, bound), Warn, "10.99.0.1", "bindaddr = 127.0.0.1")
	for _, f := range watch.Drain() {
		if f.Event() != "" && !harmless(f) {
			t.Errorf("looking at open ports caused %s", f)
		}
	}
}
