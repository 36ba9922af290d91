package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// serviced is a rig whose daemon reads a file, as the service does, and keeps its state where systemd would put it.
type serviced struct {
	*rig
	file, secret string
}

func newService(t *testing.T) *serviced {
	s := &serviced{rig: newRig(t)}
	s.stop()
	state := t.TempDir()
	t.Setenv("STATE_DIRECTORY", state)
	s.cfg.State.Path = filepath.Join(state, "state.db")
	s.file, s.secret = filepath.Join(t.TempDir(), "ringwall.yaml"), filepath.Join(t.TempDir(), "ami-secret")
	s.write(s.secret, "s3cret\n")
	s.write(s.file, s.text("secret_file: "+s.secret, ""))
	return s
}

// text is a configuration with a way to the secret.
func (s *serviced) text(secret, more string) string {
	return fmt.Sprintf("asterisk:\n  - {name: pbx1, address: %q, username: ringwall, %s}\ncontrol: {socket: %s}\n"+
		"metrics: {listen: \"127.0.0.1:0\"}\nstate: {path: %s}\n%s", s.address, secret, s.cfg.Control.Socket,
		s.cfg.State.Path, more)
}

func (s *serviced) write(path, text string) {
	s.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// run starts the daemon from the file, and waits until the kernel has what it should.
func (s *serviced) run() {
	s.t.Helper()
	built := make(chan struct{})
	d, err := New(Options{
		ConfigPath: s.file, NetNS: s.space.FD(), Log: slog.New(slog.NewTextHandler(s.t.Output(), nil)), Version: "test",
		Ready: func() { close(built) }, OnDecision: func(d ban.Decision) {
			s.mu.Lock()
			s.decisions = append(s.decisions, d)
			s.mu.Unlock()
			select {
			case s.more <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.d = d
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("the daemon ended with: %v", err)
		}
	}
	s.t.Cleanup(s.stop)
	<-built
}

// heard waits for the session with Asterisk.
func (s *serviced) heard() {
	s.t.Helper()
	s.until("the session is up", func() bool {
		return s.d.pbxs[0].pbxStatus().Up &&
			s.d.pbxs[0].sessionAddr.Load() != nil
	})
}

// reboot starts the daemon in a kernel that knows nothing.
func (s *serviced) reboot() {
	s.t.Helper()
	s.stop()
	s.space = netnstest.New(s.t)
	s.run()
}

// loud fails the test where status, metric and health do not say that the configuration is not in force as it is.
func (s *serviced) loud(texts ...string) {
	s.t.Helper()
	st, err := s.client.Status(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, text := range texts {
		if fault := st.Config.Fault(); st.Healthy() || !strings.Contains(fault, text) {
			s.t.Errorf("healthy: %v, %q; want %q", st.Healthy(), fault, text)
		}
	}
	if !strings.Contains(get(s.t, s.site()+"/metrics"), "ringwall_config_reload_success 0\n") {
		s.t.Error("the metric says that all is well")
	}
}

// banned fails the test where the attacker's ban is not in the kernel.
func (s *serviced) banned() {
	s.t.Helper()
	if _, ok := s.inKernel(firewall.Ban, "203.0.113.66/32"); !ok {
		s.t.Error("the ban is not in the kernel")
	}
}

// After a reboot the file is damaged: the last accepted one is in force, and says so.
func TestAStartWithAMistakeUsesTheLastAcceptedConfiguration(t *testing.T) {
	s := newService(t)
	s.run()
	s.heard()
	s.protects()
	kept := acceptedPath(s.file)
	s.until("the configuration is kept", func() bool { _, err := os.Stat(kept); return err == nil })
	info, err := os.Stat(kept)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want it for its owner alone", info.Mode(), err)
	}
	text, err := os.ReadFile(kept)
	if err != nil || strings.Contains(string(text), "s3cret") ||
		!strings.Contains(string(text), "secret_file: "+s.secret) {
		t.Errorf("%s, %v; want the reference, not the secret", text, err)
	}
	for name, harm := range map[string]func(){
		"a mistake": func() { s.write(s.file, "polizy: {}\n") },
		"gone":      func() { _ = os.Remove(s.file) },
		"empty":     func() { s.write(s.file, "") },
		"a folder":  func() { _ = os.Remove(s.file); _ = os.Mkdir(s.file, 0o700) },
	} {
		harm()
		s.reboot()
		s.banned()
		s.loud("the last accepted one, of 20")
		s.heard() // and Asterisk is listened to
		_ = os.RemoveAll(s.file)
		t.Log(name)
	}
	s.write(s.file, s.text("secret_file: "+s.secret, "policy: {threshold: 20}\n"))
	s.d.Reload(t.Context())
	st, err := s.client.Status(t.Context())
	if err != nil || !st.Healthy() || st.Config.Fault() != "" || st.Config.InForce != "" {
		t.Errorf("after the mended file: %+v, %v", st.Config, err)
	}
	if text, err := os.ReadFile(kept); err != nil || !strings.Contains(string(text), "threshold: 20") {
		t.Errorf("%s, %v; want what the reload accepted", text, err)
	}
	s.write(s.file, s.text("secret_file: "+s.secret, "policy: {threshold: none}\n"))
	s.d.Reload(t.Context())
	if text, err := os.ReadFile(kept); err != nil || !strings.Contains(string(text), "threshold: 20") {
		t.Errorf("%s, %v; want what a reload refused not kept", text, err)
	}
}

// Only the secret cannot be read: the file is in force, bans are in the kernel, and once the secret can be read the
// login is made, without a restart.
func TestAStartWithoutTheSecretKeepsTheBans(t *testing.T) {
	s := newService(t)
	s.run()
	s.heard()
	s.protects()
	s.until("the configuration is kept", func() bool { _, err := os.Stat(acceptedPath(s.file)); return err == nil })
	s.write(s.file, s.text("secret_file: "+s.secret, "policy: {allow: [198.51.100.7]}\n"))
	if err := os.Rename(s.secret, s.secret+".away"); err != nil {
		t.Fatal(err)
	}
	s.reboot()
	s.banned()
	s.loud("what else it says", s.secret)
	if _, ok := s.inKernel(firewall.Allow, "198.51.100.7/32"); !ok {
		t.Error("the file's own allow list is not in force")
	}
	s.until("status says why there is no login", func() bool {
		v := s.d.pbxs[0].pbxStatus()
		return !v.Up && strings.Contains(v.LastError, s.secret) && v.Try != ""
	})
	if err := os.Rename(s.secret+".away", s.secret); err != nil {
		t.Fatal(err)
	}
	s.heard()
}

// A secret that somebody changed is the new one at the next login.
func TestANewSecretIsReadAtTheNextLogin(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	a := config.DefaultAsterisk()
	a.Name, a.Address, a.Username, a.SecretFile, a.Secret = "pbx1", "127.0.0.1:5038", "ringwall", file,
		config.NewSecret("at the start")
	for _, want := range []string{"of-yesterday", "of-today"} {
		if err := os.WriteFile(file, []byte(want+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, _, err := readCredentials(a); err != nil || got != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	_, _, err := readCredentials(a)
	if err == nil || !strings.Contains(err.Error(), file) || strings.Contains(err.Error(), "today") ||
		hint.Of(err) == "" {
		t.Errorf("%v, try %q", err, hint.Of(err))
	}
}

// Without a configuration that ever worked a mistake is what it was: an error at the start.
func TestTheFirstStartFailsWithAMistake(t *testing.T) {
	s := newService(t)
	s.write(s.file, "polizy: {}\n")
	if _, err := New(Options{ConfigPath: s.file, NetNS: s.space.FD(),
		Log: slog.New(slog.DiscardHandler)}); err == nil ||
		!strings.Contains(err.Error(), "polizy") {
		t.Errorf("%v", err)
	}
}

// Who starts a daemon by hand, with a file of his own, leaves nothing in the service's folder.
func TestACopyIsOnlyKeptByTheService(t *testing.T) {
	s := newService(t)
	t.Setenv("STATE_DIRECTORY", "")
	c, err := loadConfiguration(Options{ConfigPath: s.file})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.keepAccepted(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(c.accepted); err == nil {
		t.Errorf("%s was written", c.accepted)
	}
}
