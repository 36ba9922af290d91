package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
)

var binary string

func TestMain(m *testing.M) { trial.Main(m, &binary) }

// rig is the program beside a running Asterisk.
type rig struct {
	*lab.Lab
	t      *testing.T
	config string
	client *api.Client
	daemon *lab.Process
}

func newRig(t *testing.T, o lab.Options, policy string) *rig {
	t.Helper()
	return newRigAs(t, o, lab.Ringwall, policy)
}

func newRigAs(t *testing.T, o lab.Options, user lab.User, policy string) *rig {
	t.Helper()
	return newRigOn(t, lab.Start(t, o), user, policy)
}

// newRigOn starts the program beside an Asterisk that runs already.
func newRigOn(t *testing.T, l *lab.Lab, user lab.User, policy string) *rig {
	t.Helper()
	r := &rig{t: t, Lab: l}
	dir := t.TempDir()
	socket := filepath.Join(dir, "ringwall.sock")
	r.config = filepath.Join(dir, "ringwall.yaml")
	r.client = &api.Client{Socket: socket}
	text := fmt.Sprintf("asterisk:\n  - {name: lab, address: %q, username: %s, secret: %q}\ncontrol: {socket: %s}\n"+
		"state: {path: %s}\n%s", lab.AMIAddress, user, user.Secret(), socket, filepath.Join(dir, "state.db"), policy)
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r.startDaemon()
	return r
}

// startDaemon starts the program and waits until it hears Asterisk's events.
func (r *rig) startDaemon() {
	r.t.Helper()
	r.daemon = r.Spawn(r.t, lab.Server, binary, "run", "--config", r.config)
	r.untilUp()
	r.t.Cleanup(func() {
		if r.t.Failed() {
			r.t.Logf("the daemon said:\n%s", r.daemon.Output())
		}
	})
}

func (r *rig) untilUp() {
	r.t.Helper()
	r.waitUntil("the daemon hears Asterisk", func() bool {
		s, err := r.client.Status(r.t.Context())
		return err == nil && s.Healthy() && s.PBXs[0].Events > 0
	})
}

// stopDaemon ends the program as systemd does.
func (r *rig) stopDaemon() {
	r.t.Helper()
	if err := r.daemon.Signal(syscall.SIGTERM); err != nil {
		r.t.Fatal(err)
	}
	if err := r.daemon.Wait(); err != nil {
		r.t.Fatalf("after SIGTERM: %v", err)
	}
}

// runCommand runs a command of the program and returns what it printed.
func (r *rig) runCommand(args ...string) string {
	r.t.Helper()
	out, err := exec.CommandContext(r.t.Context(), binary, append(args, "--config", r.config)...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("ringwall %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (r *rig) waitUntil(what string, ok func() bool) {
	r.t.Helper()
	trial.WaitUntil(r.t, what, ok)
}

func (r *rig) explanationOf(a netip.Addr) engine.Explanation {
	r.t.Helper()
	x, err := r.client.Why(r.t.Context(), a)
	if err != nil {
		r.t.Fatal(err)
	}
	return x
}

// untilBanned waits for the ban of an address and returns it.
func (r *rig) untilBanned(a netip.Addr) ban.Ban {
	r.t.Helper()
	var b ban.Ban
	r.waitUntil(a.String()+" is banned", func() bool {
		x := r.explanationOf(a)
		if x.Ban == nil || x.Ban.Observed {
			return false
		}
		b = *x.Ban
		return r.kernelHas(b.Prefix.String())
	})
	return b
}

// kernelHas asks the kernel itself, with nft, in the server's namespace.
func (r *rig) kernelHas(prefix string) bool {
	r.t.Helper()
	out, err := r.Exec(r.t.Context(), lab.Server, "nft", "list", "table", "inet", "ringwall")
	if err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
	p := netip.MustParsePrefix(prefix)
	return strings.Contains(string(out), p.Addr().String()+" timeout")
}

// dialFrom opens a TCP connection from an address of the attacker's.
func (r *rig) dialFrom(local netip.Addr, to string) (net.Conn, error) {
	var c net.Conn
	err := r.Do(lab.Attacker, func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: local.AsSlice()}, Timeout: trial.Patience}
		c, err = d.DialContext(r.t.Context(), "tcp", to)
		return err
	})
	return c, err
}

// isAnswered says whether a request gets a reply: on a busy machine one may come too late, or not at all.
func isAnswered(t *testing.T, a *lab.Agent) bool {
	t.Helper()
	for range 10 {
		if countAnswers(t, a, 1) > 0 {
			return true
		}
	}
	return false
}

// mostKnocks is how many of some requests at once a ban on UDP evidence lets in by its door: 4, and one more each 4 s.
const mostKnocks = 6

// isKeptOut says whether a source sees the server as a banned one does: over TCP nothing is answered, over UDP no more
// than may knock.
func isKeptOut(t *testing.T, a *lab.Agent) bool {
	t.Helper()
	answers := countAnswers(t, a, 20)
	return answers == 0 || a.Transport() == "udp" && answers <= mostKnocks
}

// countAnswers sends requests at once from a new port, and counts those that get a reply.
func countAnswers(t *testing.T, a *lab.Agent, requests int) (answers int) {
	t.Helper()
	a.Close()
	codes, err := a.ExchangeMany(requests, requests, func(int) lab.Request {
		return lab.Request{Method: "OPTIONS", User: "6001"}
	})
	if err != nil && !errors.Is(err, lab.ErrNoReply) {
		t.Logf("options: %v", err)
	}
	for code, n := range codes {
		if code != 0 {
			answers += n
		}
	}
	return answers
}
