package fleet_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/fleet"
	"github.com/ringwall/ringwall/pkg/fleet/record"
)

// What a stolen node said dies everywhere, also where nobody listened when the operator said so; what others saw, stays.
func TestWhatTheOperatorForgetsAllForget(t *testing.T) {
	t.Parallel()
	dir, port := t.TempDir(), freePort(t)
	s := startServer(t, dir, port, nil)
	stolen, stopStolen := run(t, configOf(s.ClientURL(), "stolen"))
	a, _ := run(t, configOf(s.ClientURL(), "a"))
	away, _ := run(t, configOf(s.ClientURL(), "away"))
	a.Say(banOf(address(1)), banOf(address(2)))
	stolen.Say(banOf(address(1)), banOf(address(3)))
	stolen.Unban(address(2), time.Time{})
	before := []netip.Prefix{address(1), address(3)}
	for _, f := range []*fleet.Fleet{a, away, stolen} {
		await(t, f, "all know", func() bool { return slices.Equal(banned(f), before) && f.Status().Waiting == 0 })
	}
	stopStolen()

	// Nobody but the hub is there when the operator speaks.
	stopServer(s)
	for _, f := range []*fleet.Fleet{a, away} {
		await(t, f, "it is away", func() bool { return !f.Status().Connected })
	}
	s = startServer(t, dir, -1, nil) // another port: nobody else comes back yet
	if err := fleet.ForgetEverywhere(t.Context(), configOf(s.ClientURL(), ""), "stolen"); err != nil {
		t.Fatal(err)
	}
	nc, js := client(t, s.ClientURL())
	defer nc.Close()
	info, err := js.Stream(t.Context(), fleet.StreamName("acme"))
	if err != nil || info.CachedInfo().State.Msgs != 3 { // two of a, and the operator's word
		t.Errorf("in the stream are %+v, %v", info.CachedInfo().State, err)
	}
	stopServer(s)
	s = startServer(t, dir, port, nil)
	after := []netip.Prefix{address(1), address(2)}
	for name, f := range map[string]*fleet.Fleet{"a": a, "away": away} {
		await(t, f, name+" forgets", func() bool { return slices.Equal(banned(f), after) })
		await(t, f, name+" says so", func() bool { return slices.Equal(f.TakeForgotten(), []string{"stolen"}) })
	}
	late, _ := run(t, configOf(s.ClientURL(), "late"))
	await(t, late, "who comes later", func() bool { return late.Status().CaughtUp && slices.Equal(banned(late), after) })
	if got := late.TakeForgotten(); !slices.Equal(got, []string{"stolen"}) {
		t.Errorf("who comes later is told to forget %v: what it kept from before may be void", got)
	}

	// What it says from now on is heard, by whoever comes even later as well.
	again, _ := run(t, configOf(s.ClientURL(), "stolen"))
	again.Say(banOf(address(4)))
	await(t, a, "it is heard again", func() bool { return bans(a, address(4)) })
	later, _ := run(t, configOf(s.ClientURL(), "later"))
	await(t, later, "it is heard again", func() bool { return bans(later, address(4)) && !bans(later, address(3)) })
}

// What one node forgets it has forgotten after a restart, too, and nobody else has.
func TestWhatOneNodeForgets(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	url := fmt.Sprintf("nats://127.0.0.1:%d", port)
	cfg := configOf(url, "a")
	cfg.KeptFile = filepath.Join(t.TempDir(), "fleet.json")
	dir := t.TempDir()
	s := startServer(t, dir, port, nil)
	a, stop := run(t, cfg)
	b, _ := run(t, configOf(url, "b"))
	b.Say(banOf(address(1)), banOf(address(2)))
	await(t, a, "a knows", func() bool { return len(banned(a)) == 2 })
	if n, err := a.Forget("b"); n != 2 || err != nil {
		t.Errorf("forgotten are %d, %v; want 2", n, err)
	}
	b.Say(banOf(address(3)))
	await(t, a, "a hears what b says from then on", func() bool { return slices.Equal(banned(a), []netip.Prefix{address(3)}) })
	stop()
	a, stop = run(t, cfg)
	await(t, a, "a has not forgotten that it forgot", func() bool {
		return a.Status().CaughtUp && slices.Equal(banned(a), []netip.Prefix{address(3)})
	})

	// With the hub away, too: all is meant that the hub has by the time that it is back.
	stopServer(s)
	await(t, a, "a is alone", func() bool { return !a.Status().Connected })
	if n, err := a.Forget("b"); n != 1 || err != nil {
		t.Errorf("forgotten are %d, %v; want 1", n, err)
	}
	stop()
	a, _ = run(t, cfg)
	startServer(t, dir, port, nil)
	await(t, a, "a is back", func() bool { return a.Status().CaughtUp })
	if got := banned(a); len(got) > 0 {
		t.Errorf("a has not forgotten %v", got)
	}
	b.Say(banOf(address(5)))
	await(t, a, "a hears b", func() bool { return bans(a, address(5)) })
	c, _ := run(t, configOf(url, "c"))
	await(t, c, "others know all", func() bool { return len(banned(c)) == 4 })
	if got := c.TakeForgotten(); len(got) > 0 {
		t.Errorf("others forget %v", got)
	}
}

func TestWhoSpeaksAsTheOperator(t *testing.T) {
	for subject, want := range map[string]string{
		record.ForgetSubject("acme", "pbx-1"):          "pbx-1",
		record.ForgetSubject("other", "pbx-1"):         "",
		record.ForgetSubject("acme", ""):               "",
		record.ForgetSubject("acme", "a.b"):            "",
		record.ForgetSubject("acme", "*"):              "",
		"ringwall.acme.operator.forget.pbx-1":          "",
		"ringwall.acme.@operator.ban.198-51-100-7/32":  "",
		"ringwall.acme.pbx-1.forget.pbx-2":             "",
		"ringwall.acme.@operator.forget.pbx-1.and.two": "",
	} {
		if node, ok := record.ParseForget("acme", subject); node != want && ok || ok != (want != "") {
			t.Errorf("%s is of %q, %v; want %q", subject, node, ok, want)
		}
	}
	if record.IsName("@operator") {
		t.Error("a node can be called as the operator is")
	}
}
