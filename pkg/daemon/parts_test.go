package daemon

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/firewall"
)

// warned says whether status has a warning with a text in it.
func (r *rig) warned(text string) bool {
	r.t.Helper()
	s, err := backend{r.d}.Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.ContainsFunc(s.Warnings, func(w api.Warning) bool {
		return strings.Contains(w.Text, text) &&
			w.Try != ""
	})
}

// protects fails the test where an attacker is not banned.
func (r *rig) protects() {
	r.t.Helper()
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32")
	if _, ok := r.inKernel(firewall.Ban, "203.0.113.66/32"); !ok {
		r.t.Error("the ban is not in the kernel")
	}
}

// Another program has the port of the metrics: attackers are banned, status says what is missing, and when the port is
// free the metrics are there.
func TestATakenPortKeepsNobodyUnprotected(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	r := newRig(t, func(c *config.Config) { c.Metrics.Listen = other.Addr().String() })
	r.protects()
	if !r.warned("metrics.listen does not work: listen tcp " + other.Addr().String()) {
		t.Error("status does not say that there are no metrics")
	}
	if line := r.d.statusLine(); !strings.Contains(line, "does not work: metrics.listen") {
		t.Errorf("systemctl status says %q", line)
	}
	if _, err := r.client.Page(t.Context()); err == nil {
		t.Error("there is a page without a listener")
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	r.until("the metrics are there", func() bool { return !r.warned("metrics.listen") })
	if text := get(t, r.site()+"/metrics"); !strings.Contains(text, "ringwall_bans_active") {
		t.Error("the listener has no metrics")
	}
	if res, err := r.client.Page(t.Context()); err != nil || res.Address == "" {
		t.Errorf("no page: %+v, %v", res, err)
	}
}

// The group of the control socket does not exist: root may use it.
func TestWithoutTheGroupOfTheSocket(t *testing.T) {
	r := newRig(t, func(c *config.Config) { c.Control.Group = "there-is-no-such-group" })
	r.protects()
	if _, err := r.client.Status(t.Context()); err != nil {
		t.Error(err)
	}
	if !r.warned("there-is-no-such-group") {
		t.Error("status does not name the group")
	}
}

// The control socket cannot be made: attackers are banned, and when it can be it is.
func TestWithoutAControlSocket(t *testing.T) {
	blocked := filepath.Join(t.TempDir(), "run")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(c *config.Config) { c.Control.Socket = filepath.Join(blocked, "ringwall.sock") })
	r.protects()
	if !r.warned("control.socket does not work") {
		t.Error("status, on the page, does not say it")
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	r.until("the socket answers", func() bool { _, err := r.client.Status(t.Context()); return err == nil })
}

// The file with the certificates of one target of notify is gone: the other target is told, attackers are banned.
func TestOneTargetOfNotifyIsNoUse(t *testing.T) {
	told := filepath.Join(t.TempDir(), "told")
	program := filepath.Join(t.TempDir(), "tell")
	if err := os.WriteFile(program, []byte("#!/bin/sh\ncat >>"+told+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	good := config.DefaultNotify()
	good.Name, good.Exec, good.Actions = "good", []string{program}, []string{"ban"}
	bad := config.DefaultNotify()
	bad.Name, bad.URL, bad.CAFile, bad.Actions = "bad", config.NewSecret("https://127.0.0.1:1/"),
		filepath.Join(t.TempDir(), "none.pem"), []string{"ban"}
	r := newRig(t, func(c *config.Config) { c.Notify = []config.Notify{bad, good} })
	r.protects()
	if !r.warned("notify does not work") {
		t.Error("status does not name the target")
	}
	r.until("the good target is told", func() bool {
		text, _ := os.ReadFile(told)
		return strings.Contains(string(text),
			"203.0.113.66")
	})
}

// What fails while it runs is opened again, and the daemon goes on.
func TestAPartThatFailsIsOpenedAgain(t *testing.T) {
	r := newRig(t)
	at := r.site()
	for _, p := range r.d.parts {
		if p.name != "metrics.listen" {
			continue
		}
		p.mu.Lock()
		for _, task := range p.opened.tasks {
			if m, ok := task.(*metricsServer); ok {
				_ = m.listener.Close() // as if the system had taken it away
			}
		}
		p.mu.Unlock()
	}
	r.until("there is another listener", func() bool {
		url, up := r.openSite()
		return up && url != at
	})
	r.protects()
}

// A reload that comes between the opening of a part and its run is not forgotten: the part would keep what the old
// configuration said.
func TestAPartIsOpenedAnewWhenAskedBeforeItRuns(t *testing.T) {
	times := make(chan int, 2)
	n := 0
	p := &part{name: "metrics.listen", reopen: make(chan struct{}, 1),
		faults: &faults{log: slog.New(slog.DiscardHandler)},
		open: func() (opened, error) {
			n++
			times <- n
			return opened{}, nil
		}}
	p.ensureOpen()
	p.openAnew()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	for _, want := range []int{1, 2} {
		select {
		case got := <-times:
			if got != want {
				t.Errorf("opened for the %dth time, want the %dth", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("it was not opened for the %dth time", want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
