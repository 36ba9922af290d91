package daemon

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// What a daemon had before it was stopped, in these tests.
const (
	byCommand = "203.0.113.66/32"
	inConfig  = "198.51.100.0/24" // of policy.allow
	tooWide   = "64.0.0.0/7"      // of policy.allow; no command allows as much
	bannedOne = "203.0.113.77/32"
)

func wipeFolder(r *rig) error { return os.RemoveAll(filepath.Dir(r.cfg.State.Path)) }

func wipeFile(r *rig) error { return os.Remove(r.cfg.State.Path) }

func reboot(r *rig) error {
	r.space = netnstest.New(r.t)
	return nil
}

// spoilFile leaves a state file and a text that are of no use.
func spoilFile(r *rig) error {
	text := besideState(r.cfg.State.Path, "allow")
	return errors.Join(os.WriteFile(r.cfg.State.Path, []byte("this is no database, and long enough to look at"), 0o600),
		os.Remove(text), os.RemoveAll(text+".bak"))
}

func withoutConfigured(r *rig) error {
	r.cfg.Policy.Allow = nil
	return nil
}

// The daemon is stopped, something happens to what it keeps, and it is started again: who is allowed then, and whether
// a person is told. The kernel is asked only where the list of who was allowed by a command is lost.
func TestWhoIsAllowedAfterTheStateWasLost(t *testing.T) {
	type then = []func(*rig) error
	for name, c := range map[string]struct {
		change  func(*config.Config)
		between then
		allowed []string // after the start; of the three above
		found   []string // of these, those that are said to be found
		told    int      // starts at which it is said that the state was lost
		free    bool     // the ban of before is lost with the kernel's table
	}{
		"nothing": {allowed: []string{byCommand, inConfig, tooWide}},
		"an entry is taken out of the configuration": {between: then{withoutConfigured}, allowed: []string{byCommand}},
		"the folder is wiped": {
			between: then{wipeFolder}, allowed: []string{byCommand, inConfig, tooWide}, found: []string{byCommand},
			told: 1,
		},
		"the state file is wiped, and its text is there": {
			between: then{wipeFile}, allowed: []string{byCommand, inConfig, tooWide}, told: 1,
		},
		"the state file is rubbish, and its text is wiped": {
			between: then{spoilFile}, allowed: []string{byCommand, inConfig, tooWide}, found: []string{byCommand},
			told: 1,
		},
		"the folder is wiped, and the configuration changed": {
			between: then{wipeFolder, withoutConfigured}, allowed: []string{byCommand, inConfig},
			found: []string{byCommand, inConfig}, told: 1,
		},
		"the folder is wiped, and the machine is booted": {
			between: then{wipeFolder, reboot}, allowed: []string{inConfig, tooWide}, free: true,
		},
		"there never was a state file": {
			change: func(c *config.Config) { c.State.Path = "" }, allowed: []string{inConfig, tooWide},
		},
		"there never was a state file, and the configuration changed": {
			change: func(c *config.Config) { c.State.Path = "" }, between: then{withoutConfigured},
		},
		"there never can be a state file": {
			change:  func(c *config.Config) { c.State.Path = "/dev/null/state.db" },
			allowed: []string{byCommand, inConfig, tooWide}, found: []string{byCommand}, told: 2,
		},
		"the first state file": {
			change: func(c *config.Config) { c.State.Path = "" },
			between: then{func(r *rig) error {
				r.cfg.State.Path = filepath.Join(r.t.TempDir(), "first", "state.db")
				return nil
			}},
			allowed: []string{byCommand, inConfig, tooWide}, found: []string{byCommand}, told: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(cfg *config.Config) {
				for _, p := range []string{inConfig, tooWide} {
					cfg.Policy.Allow = append(cfg.Policy.Allow, config.AllowEntry{Prefix: netip.MustParsePrefix(p)})
				}
				if c.change != nil {
					c.change(cfg)
				}
			})
			if r.warned("at the start") || r.warned("found in the kernel") {
				t.Error("the very first start warns")
			}
			if _, err := r.client.Allow(t.Context(),
				api.AllowRequest{Prefix: netip.MustParsePrefix(byCommand), For: 24 * time.Hour}); err != nil {
				t.Fatal(err)
			}
			if _, err := r.client.Ban(t.Context(),
				api.BanRequest{Prefix: netip.MustParsePrefix(bannedOne), For: time.Hour}); err != nil {
				t.Fatal(err)
			}
			r.until("all is in the kernel", func() bool { return r.d.writer.Pending() == 0 })
			r.stop()
			for _, f := range c.between {
				if err := f(r); err != nil {
					t.Fatal(err)
				}
			}
			for n := range 2 { // and what was found stays so after another restart
				r.start()
				r.restored()
				r.wantAllowed(c.allowed, c.found)
				if r.warned("at the start") != (n < c.told) {
					t.Errorf("at start %d it is told that the state was lost: %v", n+1, n >= c.told)
				}
				if el, ok := r.inKernel(firewall.Ban, bannedOne); ok == c.free || el.Remaining > time.Hour {
					t.Errorf("the ban: %v, %v", ok, el)
				}
				r.stop()
			}
		})
	}
}

// wantAllowed wants these of the test's prefixes to be allowed, and these of them to be there because they were found.
func (r *rig) wantAllowed(allowed, found []string) {
	r.t.Helper()
	list, err := r.client.Allowed(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, text := range []string{byCommand, inConfig, tooWide} {
		p, has := netip.MustParsePrefix(text), func(list []string) bool { return slices.Contains(list, text) }
		listed, noted := false, false
		for _, x := range list {
			listed = listed || x.Prefix == p
			noted = noted || x.Prefix == p && x.Note == byKernel && x.Origin == engine.OriginManual
		}
		_, inKernel := r.inKernel(firewall.Allow, text)
		if listed != has(allowed) || inKernel != has(allowed) || noted != has(found) {
			r.t.Errorf("%s is listed: %v, noted as found: %v, in the kernel: %v", text, listed, noted, inKernel)
		}
	}
	if r.warned("allowed only because the kernel let") != (len(found) > 0) {
		r.t.Errorf("status warns of what was found: %v", len(found) == 0)
	}
}

// What was found goes on until a person says something: to allow it makes it an entry like others, to take it off ends
// it, each for good.
func TestWhatWasFoundIsConfirmedOrTakenOff(t *testing.T) {
	for _, remove := range []bool{false, true} {
		r := newRig(t)
		req := api.AllowRequest{Prefix: netip.MustParsePrefix(byCommand)}
		if _, err := r.client.Allow(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		r.stop()
		if err := wipeFolder(r); err != nil {
			t.Fatal(err)
		}
		r.start()
		r.attack(attacker)
		r.attack("IPV4/UDP/203.0.113.67/5060")
		r.await(ban.ActionBan, "203.0.113.67/32")
		r.wantAllowed([]string{byCommand}, []string{byCommand})
		req.Remove = remove
		if _, err := r.client.Allow(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		want := []string{byCommand}
		if remove {
			want = nil
		}
		r.wantAllowed(want, nil)
		r.stop()
		r.start()
		r.wantAllowed(want, nil)
		r.stop()
	}
}

// A trunk of Asterisk's was in the kernel, too. When Asterisk tells of it again, it is allowed for as long as Asterisk
// knows it and no longer.
func TestWhatWasFoundIsDroppedOnceItIsKnownFromElsewhere(t *testing.T) {
	r := newRig(t, func(cfg *config.Config) { cfg.Asterisk[0].Learn = config.LearnOff })
	trunk := netip.MustParsePrefix(byCommand)
	learn := func(known map[netip.Prefix]string) {
		r.d.pipeline.UpdateEngine(func(e *engine.Engine,
			now time.Time) []ban.Decision {
			return e.Protect(now, "pbx1", known)
		})
		r.until("the kernel has it", func() bool { return r.d.writer.Pending() == 0 })
	}
	learn(map[netip.Prefix]string{trunk: "trunk"})
	r.stop()
	if err := wipeFolder(r); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.d.dropExplained()
	r.wantAllowed([]string{byCommand}, []string{byCommand}) // Asterisk has said nothing yet
	learn(map[netip.Prefix]string{trunk: "trunk"})
	r.d.dropExplained()
	if _, ok := r.inKernel(firewall.Allow, byCommand); !ok || r.warned("allowed only because") {
		t.Error("the trunk is still said to be found, or is not allowed")
	}
	learn(nil)
	r.wantAllowed(nil, nil)
	r.stop()
	r.start()
	r.wantAllowed(nil, nil)
}
