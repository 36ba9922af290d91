package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/pkg/control"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/policy"
)

func TestReload(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "ringwall.yaml")
	write := func(more string) {
		t.Helper()
		text := fmt.Sprintf("asterisk:\n  - {name: pbx1, address: %q, username: ringwall, secret: s3cret}\ncontrol: {socket: %s}\n"+
			"metrics: {listen: \"127.0.0.1:0\"}\n%s", r.address, r.cfg.Control.Socket, more)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.d.config.path = file
	r.attack(attacker)
	r.await(engine.Ban, "203.0.113.66/32")

	write("polizy: {}\n")
	r.d.Reload(t.Context())
	s, err := r.client.Status(t.Context())
	if err != nil || s.Healthy() || !strings.Contains(s.Config.Error, "polizy") || !strings.Contains(s.Config.Error, ":5:") {
		t.Errorf("a mistake in the file: %+v, %v", s.Config, err)
	}
	if _, ok := r.inKernel(firewall.Ban, "203.0.113.66/32"); !ok {
		t.Error("a mistake in the file ended a ban")
	}

	write("policy: {allow: [203.0.113.66]}\n")
	r.d.Reload(t.Context())
	if _, ok := r.inKernel(firewall.Ban, "203.0.113.66/32"); ok {
		t.Error("the new allow list did not end the ban")
	}
	if _, ok := r.inKernel(firewall.Allow, "203.0.113.66/32"); !ok {
		t.Error("the new allow list is not in the kernel")
	}
	if s, err = r.client.Status(t.Context()); err != nil || !s.Healthy() || s.Config.Error != "" {
		t.Errorf("after the mended file: %+v, %v", s.Config, err)
	}

	r.attack("IPV4/UDP/203.0.113.67/5060")
	r.await(engine.Ban, "203.0.113.67/32")
	write("policy: {mode: observe}\n")
	r.d.Reload(t.Context())
	if bans, err := r.client.Bans(t.Context(), control.BanFilter{}); err != nil || len(bans) != 1 {
		t.Errorf("observe mode ended bans: %v, %v", bans, err)
	}
	if _, ok := r.inKernel(firewall.Ban, "203.0.113.67/32"); !ok {
		t.Error("observe mode took a ban out of the kernel")
	}
	r.attack("IPV4/UDP/203.0.113.68/5060")
	r.await(engine.Observe, "203.0.113.68/32")
	write("policy: {mode: enforce}\n")
	r.d.Reload(t.Context())
	if _, ok := r.inKernel(firewall.Ban, "203.0.113.67/32"); !ok {
		t.Error("the ban is not there after enforce")
	}
	r.attack("IPV4/UDP/203.0.113.68/5060")
	r.await(engine.Ban, "203.0.113.68/32")
	if _, ok := r.inKernel(firewall.Allow, "203.0.113.66/32"); ok {
		t.Error("what is not on the allow list any more is still in the kernel")
	}
}

func TestWhatNeedsARestartIsNamed(t *testing.T) {
	old, changed := policy.Default(), policy.Default()
	changed.Firewall.Ports.UDP = []uint16{5070}
	changed.Metrics.Listen = ""
	changed.Policy.Threshold = 20
	if got := strings.Join(restartNeeded(&old, &changed), " "); got != "firewall metrics" {
		t.Errorf("%q, want firewall and metrics", got)
	}
	if got := restartNeeded(&old, &old); len(got) != 0 {
		t.Errorf("%v, want nothing", got)
	}
}
