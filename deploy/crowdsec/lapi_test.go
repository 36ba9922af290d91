package crowdsec

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/crowdsec"
	"github.com/ringwall/ringwall/pkg/lists"
	"github.com/ringwall/ringwall/pkg/lists/fetch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lapi is Debian's CrowdSec, on the loopback, without its agent and without its makers' Central API.
type lapi struct {
	t      *testing.T
	dir    string
	port   int
	daemon *exec.Cmd
	said   trial.Buffer
}

const configuration = `
common: {daemonize: false, log_media: stdout, log_level: info, working_dir: @DIR}
config_paths: {config_dir: @DIR, data_dir: @DIR, simulation_path: @DIR/simulation.yaml, hub_dir: @DIR/hub,
  index_path: @DIR/hub/.index.json, notification_dir: @DIR/hub, plugin_dir: @DIR/hub}
crowdsec_service: {enable: false}
cscli: {output: json}
db_config: {log_level: info, type: sqlite, db_path: @DIR/crowdsec.db, use_wal: true}
api:
  client: {insecure_skip_verify: false, credentials_path: @DIR/cscli.yaml}
  server: {log_level: info, listen_uri: "127.0.0.1:@PORT", profiles_path: @DIR/profiles.yaml}
prometheus: {enabled: false}
`

const profile = `
name: default
filters: [Alert.Remediation == true]
decisions: [{type: ban, duration: 4h}]
on_success: break
`

func newLAPI(t *testing.T) *lapi {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a real CrowdSec")
	}
	l := &lapi{t: t, dir: t.TempDir(), port: freePort(t)}
	if err := os.Mkdir(filepath.Join(l.dir, "hub"), 0o700); err != nil {
		t.Fatal(err)
	}
	replace := strings.NewReplacer("@DIR", l.dir, "@PORT", fmt.Sprint(l.port))
	for name, text := range map[string]string{"config.yaml": configuration, "profiles.yaml": profile,
		"simulation.yaml": "simulation: off\n", "hub/.index.json": "{}\n"} {
		if err := os.WriteFile(filepath.Join(l.dir, name), []byte(replace.Replace(text)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l.cscli("machines", "add", "admin", "--password", "hunter1", "--url", l.url(), "--file", filepath.Join(l.dir, "cscli.yaml"))
	l.cscli("machines", "add", "pbx", "--password", "hunter2", "--url", l.url(), "--file", filepath.Join(l.dir, "pbx.yaml"))
	t.Cleanup(func() {
		l.stop()
		if t.Failed() {
			t.Logf("CrowdSec said:\n%s", l.said.String())
		}
	})
	l.start()
	return l
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func (l *lapi) url() string { return fmt.Sprint("http://127.0.0.1:", l.port) }

func program(t *testing.T, name string) (path string, env []string) {
	t.Helper()
	tree := trial.Unpacked("crowdsec")
	path = filepath.Join(tree, "usr/bin", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no CrowdSec: deploy/lab/lab install gets it (%v)", err)
	}
	libraries, _ := filepath.Glob(filepath.Join(tree, "usr/lib/*-linux-gnu*"))
	return path, append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(libraries, ":"))
}

// cscli is CrowdSec's own command.
func (l *lapi) cscli(args ...string) []byte {
	l.t.Helper()
	path, env := program(l.t, "cscli")
	cmd := exec.Command(path, append([]string{"-c", filepath.Join(l.dir, "config.yaml")}, args...)...)
	var said bytes.Buffer
	cmd.Env, cmd.Stderr = env, &said
	out, err := cmd.Output()
	if err != nil {
		l.t.Fatalf("cscli %s: %v\n%s%s", strings.Join(args, " "), err, out, said.String())
	}
	return out
}

func (l *lapi) start() {
	l.t.Helper()
	path, env := program(l.t, "crowdsec")
	l.daemon = exec.Command(path, "-c", filepath.Join(l.dir, "config.yaml"), "-no-cs", "-no-capi")
	l.daemon.Env, l.daemon.Stdout, l.daemon.Stderr = env, &l.said, &l.said
	l.daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	l.daemon.WaitDelay = time.Second
	if err := l.daemon.Start(); err != nil {
		l.t.Fatal(err)
	}
	trial.WaitUntil(l.t, "the LAPI listens", func() bool {
		c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", l.port))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

func (l *lapi) stop() {
	if l.daemon != nil {
		_ = l.daemon.Process.Kill()
		_ = l.daemon.Wait()
		l.daemon = nil
	}
}

// listed is what cscli decisions list shows, each as value and reason, sorted: of each value what came last.
func (l *lapi) listed() (all []string) {
	l.t.Helper()
	var alerts []struct {
		Decisions []struct{ Value, Scope, Scenario, Duration string }
	}
	if err := json.Unmarshal(l.cscli("decisions", "list", "-o", "json"), &alerts); err != nil {
		l.t.Fatal(err)
	}
	for _, a := range alerts {
		for _, d := range a.Decisions {
			all = append(all, d.Value+" "+d.Scenario)
		}
	}
	slices.Sort(all)
	return all
}

// reporter is one that runs, with the bans that it is to tell.
type reporter struct {
	*crowdsec.Reporter
	mu   sync.Mutex
	bans []crowdsec.Ban
	end  func()
}

func (l *lapi) reporter(password string, bans ...crowdsec.Ban) *reporter {
	l.t.Helper()
	r := &reporter{bans: bans}
	var err error
	r.Reporter, err = crowdsec.NewReporter(crowdsec.Options{
		Account: crowdsec.Account{URL: l.url(), Login: "pbx", Password: password},
		Bans: func(context.Context) ([]crowdsec.Ban, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return slices.Clone(r.bans), nil
		},
		Allow: func([]crowdsec.Allowed) {},
		Fault: func(error) {},
		Log:   slog.New(slog.NewTextHandler(&l.said, nil)),
	})
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.Run(ctx) }()
	r.end = sync.OnceFunc(func() { cancel(); <-done })
	l.t.Cleanup(r.end)
	return r
}

func (r *reporter) setBans(bans ...crowdsec.Ban) {
	r.mu.Lock()
	r.bans = bans
	r.mu.Unlock()
	r.Changed()
}

func banOf(prefix, reason string) crowdsec.Ban {
	now := time.Now()
	return crowdsec.Ban{Prefix: netip.MustParsePrefix(prefix), Reason: reason, Since: now.Add(-time.Minute),
		Until: now.Add(3 * time.Hour), Attempts: 3}
}

func TestARealLAPIIsToldOfBans(t *testing.T) {
	l := newLAPI(t)
	l.cscli("decisions", "add", "--ip", "192.0.2.7", "--duration", "1h", "--reason", "by hand")
	one, net4, net6 := banOf("192.0.2.7/32", "unknown_account"), banOf("198.51.100.0/24", "manual"),
		banOf("2001:db8::/64", "wrong_password")
	r := l.reporter("hunter2", one, net4, net6)
	want := func(what string, list ...string) {
		t.Helper()
		slices.Sort(list)
		var got []string
		defer func() {
			if t.Failed() {
				t.Logf("%q instead of %q", got, list)
			}
		}()
		trial.WaitUntil(t, what, func() bool {
			got = l.listed()
			return slices.Equal(got, list)
		})
	}
	const byHand, ofOne, ofNet4, ofNet6 = "192.0.2.7 by hand", "192.0.2.7 ringwall/unknown_account",
		"198.51.100.0/24 ringwall/manual", "2001:db8::/64 ringwall/wrong_password"
	want("cscli decisions list shows the bans", ofOne, ofNet4, ofNet6)
	if s := r.Status(); !s.Up || s.Told != 3 || s.Sent != 3 || s.Waiting != 0 || s.AllowLists {
		t.Errorf("%+v", s)
	}

	r.setBans(net4, net6)
	want("an unban takes ours back, and leaves what others said", byHand, ofNet4, ofNet6)
	r.end()

	again := l.reporter("hunter2", net4, net6)
	trial.WaitUntil(t, "after a restart it is asked what it has", func() bool { return again.Status().Up })
	if s := again.Status(); s.Sent != 0 || s.Removed != 0 || s.Told != 2 {
		t.Errorf("%+v", s)
	}

	l.stop()
	again.setBans(net6, one)
	trial.WaitUntil(t, "a LAPI that is away is told of", func() bool {
		s := again.Status()
		return !s.Up && strings.Contains(s.Error, "connection refused") && s.Waiting == 2
	})
	l.start()
	want("it is told what it missed", ofOne, ofNet6)
	if s := again.Status(); s.Failures == 0 {
		t.Errorf("%+v", s)
	}
	again.end()

	wrong := l.reporter("hunter3")
	trial.WaitUntil(t, "a wrong password is told of", func() bool {
		s := wrong.Status()
		return strings.Contains(s.Error, "incorrect Username or Password") && strings.Contains(s.Try, "cscli machines")
	})
	wrong.end()
	listOfARealLAPI(t, l)
}

// listOfARealLAPI reads its decisions as a list of attackers, in which bans of Ringwall's are not: they would outlive an
// unban.
func listOfARealLAPI(t *testing.T, l *lapi) {
	t.Helper()
	l.cscli("bouncers", "add", "ringwall", "--key", "s3cret")
	l.cscli("decisions", "add", "--ip", "192.0.2.9", "--duration", "1h")
	l.cscli("decisions", "add", "--range", "203.0.113.0/24", "--duration", "1h")
	for _, c := range []struct {
		key, says string
		want      string
	}{
		{"s3cret", "", "192.0.2.9/32 203.0.113.0/24"},
		{"guessed", "403", ""},
	} {
		k := fetch.NewKeeper([]fetch.Source{{Name: "crowdsec", URL: l.url() + "/v1/decisions/stream?startup=true",
			Format: lists.CrowdSec, Key: c.key, Refresh: time.Hour, TTL: time.Hour, MaxEntries: 100, MaxPrefix: 10}},
			t.TempDir(), slog.New(slog.NewTextHandler(&l.said, nil)), func() {})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = k.Run(ctx) }()
		err := k.Refresh(ctx, "crowdsec", false)
		cancel()
		<-done
		if (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("with the key %s: %v", c.key, err)
		}
		var got []string
		for _, e := range k.Lists()[0].Entries {
			got = append(got, e.Prefix().String())
			if left := time.Until(e.Ends()); left < 50*time.Minute || left > 70*time.Minute {
				t.Errorf("%s ends in %s", e.Prefix(), left)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("with the key %s: %q", c.key, got)
		}
	}
}
