package daemon

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/firewall"
)

func TestReload(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "ringwall.yaml")
	write := func(more string) {
		t.Helper()
		text := fmt.Sprintf("asterisk:\n  - {name: pbx1, address: %q, username: ringwall, secret: s3cret}\ncontrol: "+
			"{socket: %s}\n"+
			"metrics: {listen: \"127.0.0.1:0\"}\n%s", r.address, r.cfg.Control.Socket, more)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.d.config.path = file
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32")

	write("polizy: {}\n")
	r.d.Reload(t.Context())
	s, err := r.client.Status(t.Context())
	if err != nil || s.Healthy() || !strings.Contains(s.Config.Error, "polizy") ||
		!strings.Contains(s.Config.Error, ":5:") {
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
	r.await(ban.ActionBan, "203.0.113.67/32")
	write("policy: {mode: observe}\n")
	r.d.Reload(t.Context())
	if bans, err := r.client.Bans(t.Context(), api.BanFilter{}); err != nil || len(bans) != 1 {
		t.Errorf("observe mode ended bans: %v, %v", bans, err)
	}
	if _, ok := r.inKernel(firewall.Ban, "203.0.113.67/32"); !ok {
		t.Error("observe mode took a ban out of the kernel")
	}
	r.attack("IPV4/UDP/203.0.113.68/5060")
	r.await(ban.ActionObserve, "203.0.113.68/32")
	write("policy: {mode: enforce}\n")
	r.d.Reload(t.Context())
	if _, ok := r.inKernel(firewall.Ban, "203.0.113.67/32"); !ok {
		t.Error("the ban is not there after enforce")
	}
	r.attack("IPV4/UDP/203.0.113.68/5060")
	r.await(ban.ActionBan, "203.0.113.68/32")
	if _, ok := r.inKernel(firewall.Allow, "203.0.113.66/32"); ok {
		t.Error("what is not on the allow list any more is still in the kernel")
	}
}

func TestWhatNeedsARestartIsNamed(t *testing.T) {
	old, changed := config.Default(), config.Default()
	changed.Firewall.Ports.UDP, changed.Firewall.Priority, changed.Firewall.Scope = []uint16{5070}, -150,
		config.ScopeAll
	changed.Firewall.Meter.Enabled = true
	changed.Metrics.Listen = ""
	changed.Policy.Threshold = 20
	if got := restartNeeded(&old, &changed); len(got) != 0 {
		t.Errorf("%v, want nothing: all of it is taken over", got)
	}
	changed.Firewall.Table, changed.Firewall.Owner, changed.Control.Socket, changed.Control.Group = "other",
		config.OwnerOff, "/x", "y"
	changed.State.Path, changed.Log.Format, changed.Policy.IPv6Prefix, changed.Policy.Limits.Bans = "/z", "json", 56,
		2_000_000
	changed.Asterisk = append(changed.Asterisk, config.DefaultAsterisk())
	const want = "asterisk policy.ipv6_prefix policy.limits.bans firewall.table firewall.owner control.socket " +
		"control.group state.path log.format"
	if got := strings.Join(restartNeeded(&old, &changed), " "); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := restartNeeded(&old, &old); len(got) != 0 {
		t.Errorf("%v, want nothing", got)
	}
}

// What firewall says is in the kernel when the reload is through, and what was banned stays banned; what needs a
// restart is named in status until it is as it was, or the restart has been.
func TestReloadChangesTheKernelsTable(t *testing.T) {
	s := newService(t)
	write := func(more string) {
		t.Helper()
		s.write(s.file, s.text("secret_file: "+s.secret, more))
		s.d.Reload(t.Context())
		if st, err := s.client.Status(t.Context()); err != nil || !st.Healthy() {
			t.Fatalf("%+v, %v", st.Config, err)
		}
	}
	table := func() string {
		t.Helper()
		out, err := s.space.Run(exec.Command("nft", "list", "table", "inet", "ringwall"))
		if err != nil {
			t.Fatalf("%s, %v", out, err)
		}
		return out
	}
	s.run()
	s.heard()
	s.protects()
	s.login("IPV4/UDP/198.51.100.10/5062", "201")
	s.await(ban.ActionTrust, "198.51.100.10/32")
	for _, step := range []struct{ firewall, want, not string }{
		{"ports: {udp: [5070], tcp: [5070]}", "5070", "5060"},
		{"scope: all", "", "\"TCP that is not VoIP\"\n\t\tip saddr @block4"},
		{"meter: {enabled: true, rate: 700, burst: 70}", "limit rate over 700/second", ""},
		{"priority: -250, meter: {enabled: false}", "priority -250", "limit rate over"},
		{"table: ringwall", "5060", "5070"},
	} {
		write("firewall: {" + step.firewall + "}\n")
		text := table()
		if !strings.Contains(text, step.want) || step.not != "" && strings.Contains(text, step.not) {
			t.Errorf("%s: want %q, not %q, in\n%s", step.firewall, step.want, step.not, text)
		}
		s.banned()
		if strings.Contains(step.firewall, "enabled: true") {
			s.cfg.Firewall.Meter.Enabled = true // for inKernel
			s.until("the meter spares who is trusted", func() bool {
				_, ok := s.inKernel(firewall.Trust,
					"198.51.100.10/32")
				return ok
			})
		}
		if err := s.d.fw.VerifyTable(); err != nil {
			t.Errorf("%s: %v", step.firewall, err)
		}
	}
	write("firewall: {table: other}\nlog: {format: json}\n")
	st, err := s.client.Status(t.Context())
	if err != nil || strings.Join(st.Config.Restart, " ") != "firewall.table log.format" ||
		!s.warned("firewall.table, log.format") {
		t.Errorf("%+v, %v", st.Config, err)
	}
	if !strings.Contains(table(), "5060") {
		t.Error("the table is gone")
	}
	write("")
	if st, err = s.client.Status(t.Context()); err != nil || len(st.Config.Restart) != 0 {
		t.Errorf("%+v, %v", st.Config, err)
	}
}

// Lists come, change and go with a reload: one that did not change is in force all the time and counts on, and nothing
// is left of one that is gone.
func TestReloadChangesTheLists(t *testing.T) {
	s := newService(t)
	dir := t.TempDir()
	list := func(name, address, more string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(address+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("  - {name: %s, file: %q%s}\n", name, file, more)
	}
	reload := func(lists string) {
		t.Helper()
		if lists != "" {
			lists = "lists:\n" + lists
		}
		s.write(s.file, s.text("secret_file: "+s.secret, lists))
		s.d.Reload(t.Context())
		st := s.status()
		if !st.Healthy() || len(st.Config.Restart) != 0 || len(st.Lists) != strings.Count(lists, "name:") {
			t.Fatalf("%+v, %+v", st.Config, st.Lists)
		}
		if err := s.d.fw.VerifyTable(); err != nil {
			t.Errorf("with %q: %v", lists, err)
		}
	}
	s.run()
	s.heard()
	s.login("IPV4/UDP/198.51.100.10/5062", "201")
	s.await(ban.ActionTrust, "198.51.100.10/32")

	bad := list("bad", "198.18.0.1", "")
	reload(bad)
	s.untilListed("198.18.0.1", true)
	if out := s.nft("list set inet ringwall trust4"); !strings.Contains(out, "198.51.100.10") {
		t.Errorf("lists do not know who is trusted:\n%s", out)
	}
	reload(list("other", "198.18.0.2", ", mode: observe") + bad) // in another order they are the same
	if out := s.nft("list table inet ringwall"); !strings.Contains(out, "198.18.0.1 timeout") {
		t.Errorf("a list that stays is not in force:\n%s", out)
	}
	s.untilListed("198.18.0.2", true)
	for _, step := range []struct{ mode, rule string }{
		{", mode: enforce", `counter name "list_other" drop`}, {", mode: observe", `counter name "list_other" return`},
	} {
		reload(bad + list("other", "198.18.0.2", step.mode))
		if out := s.nft("list table inet ringwall"); !strings.Contains(out, step.rule) {
			t.Errorf("no %s in\n%s", step.rule, out)
		}
		s.untilListed("198.18.0.2", true)
	}
	why, err := s.client.Why(t.Context(), netip.MustParseAddr("198.18.0.1"))
	if err != nil || len(why.Listed) != 1 || why.Listed[0].List != "bad" {
		t.Errorf("%+v, %v", why, err)
	}
	reload(list("other", "198.18.0.2", ", mode: observe"))
	s.untilListed("198.18.0.1", false)
	if _, err := s.client.RefreshList(t.Context(), api.ListRefreshRequest{Name: "bad"}); err == nil {
		t.Error("a list that is gone is fetched")
	}
	reload("")
	if out := s.nft("list table inet ringwall"); strings.Contains(out, "list4") || strings.Contains(out, "listed") {
		t.Errorf("something is left of the lists:\n%s", out)
	}
	reload(bad)
	s.untilListed("198.18.0.1", true)
}

// The metrics move with a reload, and so does the page.
func TestReloadMovesTheMetrics(t *testing.T) {
	s := newService(t)
	s.run()
	at := s.site()
	text := strings.Replace(s.text("secret_file: "+s.secret, ""), "metrics: {listen: \"127.0.0.1:0\"}",
		"metrics: {listen: \"\"}", 1)
	s.write(s.file, text)
	s.d.Reload(t.Context())
	s.until("there is no page", func() bool { return s.d.page.Load() == nil })
	s.write(s.file, s.text("secret_file: "+s.secret, ""))
	s.d.Reload(t.Context())
	s.until("there is a page", func() bool { return s.d.page.Load() != nil })
	if s.site() == at {
		t.Error("the listener is the old one")
	}
}

// Whatever was taken out of the kernel is put back, also where nobody is banned.
func TestGoodFlowsComeBackWhenSomebodyFlushesThem(t *testing.T) {
	s := newService(t)
	s.write(s.file, s.text("secret_file: "+s.secret, "firewall: {owner: \"off\"}\n")) // or nobody could
	s.cfg.Firewall.Owner = config.OwnerOff
	s.run()
	s.heard()
	s.protects()
	s.login("IPV4/UDP/198.51.100.10/5060", "201")
	flow := firewall.Flow{Transport: firewall.UDP, Source: netip.MustParseAddrPort("198.51.100.10:5060")}
	inKernel := func() bool {
		_, ok, err := s.d.fw.LookUp(firewall.Change{Kind: firewall.Good, Flow: flow})
		return ok && err == nil
	}
	s.until("the flow of a login is good", inKernel)
	for _, damage := range [][]string{{"flush", "set", "inet", "ringwall", "good4"}, {"flush", "ruleset"}} {
		if out, err := s.space.Run(exec.Command("nft", damage...)); err != nil {
			t.Fatalf("%s, %v", out, err)
		}
		s.until("it is good again", inKernel)
	}
}
