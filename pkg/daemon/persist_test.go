package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
	"github.com/ringwall/ringwall/pkg/pipeline"
)

// After a reboot the kernel is empty: the state file alone restores everything.
func TestAfterAReboot(t *testing.T) {
	r := newRig(t)
	r.login("IPV4/UDP/198.51.100.10/5060", "201")
	r.await(ban.ActionTrust, "198.51.100.10/32")
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32")
	if _, err := r.client.Ban(t.Context(), api.BanRequest{Prefix: netip.MustParsePrefix("198.51.100.128/25"),
		For: time.Hour, Reason: "rude"}); err != nil {
		t.Fatal(err)
	}
	res, err := r.client.Allow(t.Context(), api.AllowRequest{Prefix: netip.MustParsePrefix("203.0.113.9/32")})
	if err != nil || !res.Lasting {
		t.Fatal(res, err)
	}
	r.stop()
	r.space = netnstest.New(t)
	r.start()
	r.until("the bans are in the kernel", func() bool {
		_, one := r.inKernel(firewall.Ban, "203.0.113.66/32")
		_, two := r.inKernel(firewall.Ban, "198.51.100.128/25")
		return one && two
	})
	if _, ok := r.inKernel(firewall.Allow, "203.0.113.9/32"); !ok {
		t.Error("what a person allowed is forgotten")
	}
	x, err := r.client.Why(t.Context(), netip.MustParseAddr("203.0.113.66"))
	if err != nil || x.Ban == nil || len(x.Ban.Evidence) != 3 {
		t.Errorf("%+v, %v; want the ban with its evidence", x.Ban, err)
	}
	if x, err = r.client.Why(t.Context(), netip.MustParseAddr("198.51.100.10")); err != nil || x.Trust == nil {
		t.Errorf("%+v, %v; want the customer trusted", x, err)
	}
	history, err := r.client.History(t.Context(), time.Time{}, netip.MustParseAddr("203.0.113.66"))
	if err != nil || len(history) != 1 || history[0].Action != ban.ActionBan {
		t.Errorf("history: %+v, %v", history, err)
	}
}

// The second ban of a source is its second, also when the first was before a reboot.
func TestAnOffenderIsKnownAfterAReboot(t *testing.T) {
	r := newRig(t)
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32")
	r.stop()
	r.space = netnstest.New(t)
	r.start()
	if _, err := r.client.Unban(t.Context(),
		api.UnbanRequest{Prefix: netip.MustParsePrefix("203.0.113.66/32")}); err != nil {
		t.Fatal(err)
	}
	r.attack(attacker)
	if d := r.await(ban.ActionBan, "203.0.113.66/32"); d.Detail != "ban number 2" {
		t.Errorf("%+v; want ban number 2", d)
	}
}

// Who was unbanned stays unbanned, also when the daemon is killed right after the command.
func TestAnUnbanIsOnTheDiskWhenItReturns(t *testing.T) {
	r := newRig(t)
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32")
	if _, err := r.client.Unban(t.Context(), api.UnbanRequest{Prefix: netip.MustParsePrefix("203.0.113.66/32"),
		Grace: time.Hour}); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(r.cfg.State.Path) // as a crash would leave it
	if err != nil {
		t.Fatal(err)
	}
	r.stop()
	r.cfg.State.Path = filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(r.cfg.State.Path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	if bans, err := r.client.Bans(t.Context(), api.BanFilter{}); err != nil || len(bans) != 0 {
		t.Errorf("%+v, %v; want no ban", bans, err)
	}
	x, err := r.client.Why(t.Context(), netip.MustParseAddr("203.0.113.66"))
	if err != nil || x.Grace == nil {
		t.Errorf("%+v, %v; want the grace", x, err)
	}
}

func TestACorruptStateFileIsSetAsideAndTheKernelAdopted(t *testing.T) {
	r := newRig(t)
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32")
	r.stop()
	if err := os.WriteFile(r.cfg.State.Path, []byte("this is no database, and long enough to look at"),
		0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	bans, err := r.client.Bans(t.Context(), api.BanFilter{})
	if err != nil || len(bans) != 1 || bans[0].Reason != ban.ReasonAdopted {
		t.Errorf("%+v, %v; want the kernel's ban adopted", bans, err)
	}
	aside, err := filepath.Glob(r.cfg.State.Path + ".corrupt-*")
	if err != nil || len(aside) != 1 {
		t.Errorf("set aside: %v, %v", aside, err)
	}
}

// Where the state cannot be saved, attackers are banned all the same, and status says what is wrong.
func TestWithoutAStateFolder(t *testing.T) {
	r := newRig(t)
	r.stop()
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.cfg.State.Path = filepath.Join(blocked, "state.db")
	r.start()
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32")
	s, err := r.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range s.Warnings {
		if w.Try != "" && w.Text != "" {
			return
		}
	}
	t.Errorf("no warning: %+v", s.Warnings)
}

// Somebody sets the clock back while the daemon runs: bans are made and last as ever, and status says that times are
// shown as of before.
func TestTheClockIsSetBack(t *testing.T) {
	r := newRig(t)
	r.stop()
	r.clock = pipeline.NewClock(time.Now()).Behind(-time.Hour) // the wall clock is an hour behind it
	r.start()
	r.attack(attacker)
	if d := r.await(ban.ActionBan, "203.0.113.66/32"); d.Duration != time.Hour {
		t.Errorf("%+v", d)
	}
	if el, ok := r.inKernel(firewall.Ban, "203.0.113.66/32"); !ok || el.Remaining > time.Hour ||
		el.Remaining < 50*time.Minute {
		t.Errorf("kernel: %+v, %v", el, ok)
	}
	s, err := r.client.Status(t.Context())
	if err != nil || !slices.ContainsFunc(s.Warnings, func(w api.Warning) bool {
		return strings.Contains(w.Text,
			"the clock was set by -1h")
	}) {
		t.Errorf("%+v, %v; want a warning", s.Warnings, err)
	}
}
