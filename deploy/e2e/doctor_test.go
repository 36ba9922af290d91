package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/clock"
	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/doctor"
)

// examination is what ringwall doctor says.
type examination struct {
	t      *testing.T
	Checks []doctor.Check
}

// runDoctor runs ringwall doctor on the lab's server.
func runDoctor(t *testing.T, l *lab.Lab, path string, user lab.User) examination {
	t.Helper()
	p := l.Spawn(t, lab.Server, binary, "doctor", "--json", "--config", path)
	_ = p.Wait() // that a check has failed is among what it says
	x := examination{t: t}
	answer, _, _ := strings.Cut(p.Output(), "\n") // the rest is for people
	if err := json.Unmarshal([]byte(answer), &x); err != nil {
		t.Fatalf("%v: %s", err, p.Output())
	}
	if strings.Contains(p.Output(), user.Secret()) {
		t.Errorf("the secret is in %s", p.Output())
	}
	return x
}

// runDoctorAlone examines without a daemon, and expects that nothing else has failed.
func runDoctorAlone(t *testing.T, l *lab.Lab, user lab.User, passes bool) examination {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ringwall.yaml")
	text := fmt.Sprintf("asterisk: [{name: lab, address: %q, username: %s, secret: %q}]\ncontrol: {socket: "+
		"%[4]s/r.sock}\n"+
		"state: {path: %[4]s/state.db}\nmetrics: {listen: \"\"}\n", lab.AMIAddress, user, user.Secret(),
		filepath.Dir(path))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	x := runDoctor(t, l, path, user)
	others := slices.DeleteFunc(slices.Clone(x.Checks), func(c doctor.Check) bool { return c.Name == "daemon" })
	if doctor.Passed(others) != passes {
		t.Errorf("passed must be %v: %+v", passes, others)
	}
	return x
}

// wantCheck demands a result of a check, and parts of its texts.
func (x examination) wantCheck(name string, want doctor.Result, parts ...string) {
	x.t.Helper()
	found := slices.Clone(x.Checks)
	found = slices.DeleteFunc(found, func(c doctor.Check) bool { return c.Name != name })
	if len(found) != 1 {
		x.t.Fatalf("%d checks %q in %+v", len(found), name, x.Checks)
	}
	c := found[0]
	if c.Result != want {
		x.t.Errorf("%s is %s: %s (%s), want %s", name, c.Result, c.Detail, c.Fix, want)
	}
	for _, part := range parts {
		if !strings.Contains(c.Detail+"\n"+c.Fix, part) {
			x.t.Errorf("%s lacks %q: %s\n%s", name, part, c.Detail, c.Fix)
		}
	}
}

// isHarmless says whether an event is a login, or about a question of pkg/asterisk/learn that is denied or unknown
// here.
func isHarmless(f lab.Frame) bool {
	switch f.Event() {
	case "SuccessfulAuth", "RequestNotAllowed":
		return true
	case "RequestBadFormat":
		return f.Get("RequestType") == "Action: IAXpeers" || f.Get("RequestType") == "Action: SIPpeers"
	}
	return false
}

func TestDoctorExaminesARealAsterisk(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real Asterisk")
	}
	l := lab.Start(t, lab.Options{})
	watch := l.DialAMI(t, lab.Ringwall)

	t.Run("a user that may learn", func(t *testing.T) {
		x := runDoctorAlone(t, l, lab.SecFull, true)
		for _, link := range []string{"reach", "greeting", "login", "security", "events", "bindaddr", "http",
			"element"} {
			x.wantCheck(link, doctor.OK)
		}
		if clock.Ahead() < time.Hour {
			x.wantCheck("lag", doctor.OK)
		} else { // the tests run years later, and Asterisk does not
			x.wantCheck("lag", doctor.Warn, "old when it arrives", "timedatectl")
		}
		x.wantCheck("learning", doctor.OK, "2 trunks and contacts")
	})
	t.Run("the user of the README", func(t *testing.T) {
		x := runDoctorAlone(t, l, lab.Ringwall, true)
		x.wantCheck("events", doctor.OK, "it came")
		x.wantCheck("learning", doctor.Skip, "write = system,reporting")
	})
	t.Run("a user without security", func(t *testing.T) {
		x := runDoctorAlone(t, l, lab.NoSec, false)
		x.wantCheck("login", doctor.OK)
		x.wantCheck("security", doctor.Fail, "[nosec]", "read = security")
		x.wantCheck("events", doctor.Skip)
	})
	t.Run("beside a daemon", func(t *testing.T) {
		r := newRigOn(t, l, lab.SecFull, "metrics: {listen: \"\"}\n")
		r.waitUntil("it has learned", func() bool {
			s, err := r.client.Status(t.Context())
			return err == nil && s.PBXs[0].Learned > 0
		})
		x := runDoctor(t, l, r.config, lab.SecFull)
		if !doctor.Passed(x.Checks) {
			t.Errorf("%+v", x.Checks)
		}
		for _, link := range []string{"daemon", "heard", "bans", "login", "events", "learning", "element", "socket",
			"own"} {
			x.wantCheck(link, doctor.OK)
		}
		bans, err := r.client.Bans(t.Context(), api.BanFilter{})
		if err != nil || len(bans) != 0 {
			t.Errorf("%+v, %v", bans, err)
		}
	})
	// Nothing that looks like an attack was caused.
	events := map[string]int{}
	for _, f := range watch.DrainFrames() {
		events[f.Event()]++
		if f.Event() != "" && !isHarmless(f) {
			t.Errorf("the doctor caused %s", f)
		}
	}
	if events["SuccessfulAuth"] < 5 {
		t.Errorf("the watcher saw only %v", events)
	}
}

func TestDoctorFindsARealAsteriskTooOpen(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real Asterisk")
	}
	l := lab.Start(t, lab.Options{HTTPAMI: true, PublicAMI: true})
	watch := l.DialAMI(t, lab.Ringwall)
	x := runDoctorAlone(t, l, lab.SecFull, true)
	x.wantCheck("http", doctor.Warn, "http://10.99.0.1:8088", "https://10.99.0.1:8089", "a stranger", "webenabled = no")
	x.wantCheck("bindaddr", doctor.Warn, "10.99.0.1", "bindaddr = 127.0.0.1")
	for _, f := range watch.DrainFrames() {
		if f.Event() != "" && !isHarmless(f) {
			t.Errorf("looking at open ports caused %s", f)
		}
	}
}
