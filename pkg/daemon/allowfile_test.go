package daemon

import (
	"log/slog"
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
	"github.com/ringwall/ringwall/pkg/store"
)

// The state file is of no use, in each way in which it can be: whom a person allowed is not banned, and status says
// where the list came from.
func TestTheAllowListOfCommandsOutlivesTheStateFile(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(path string) error{
		"garbage": func(p string) error {
			return os.WriteFile(p, []byte("this is no database, and long enough to look at"), 0o600)
		},
		"gone":    os.Remove,
		"cut off": func(p string) error { return os.Truncate(p, 5000) },
		"empty":   func(p string) error { return os.Truncate(p, 0) },
		"text gone": func(p string) error {
			return os.WriteFile(p, []byte("again no database, and long enough to look at"), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			for _, a := range []string{"203.0.113.66/32", "198.51.100.9/32", "2001:db8:7::/48"} {
				if res, err := r.client.Allow(t.Context(),
					api.AllowRequest{Prefix: netip.MustParsePrefix(a)}); err != nil ||
					!res.Lasting {
					t.Fatal(res, err)
				}
			}
			if _, err := r.client.Allow(t.Context(), api.AllowRequest{Host: "localhost"}); err != nil {
				t.Fatal(err)
			}
			if _, err := r.client.Allow(t.Context(),
				api.AllowRequest{Prefix: netip.MustParsePrefix("198.51.100.9/32"),
					Remove: true}); err != nil {
				t.Fatal(err)
			}
			r.stop()
			text := besideState(r.cfg.State.Path, "allow")
			if err := harm(r.cfg.State.Path); err != nil {
				t.Fatal(err)
			}
			if name == "text gone" {
				if err := os.Remove(text); err != nil { // the one before it lacks the last change
					t.Fatal(err)
				}
			}
			r.space = netnstest.New(t)
			r.start()
			r.attack("IPV4/TLS/203.0.113.66/5060") // what proves the source: localhost has no address that counts
			r.attack("IPV4/TLS/203.0.113.67/5060")
			r.await(ban.ActionBan, "203.0.113.67/32")
			if _, ok := r.inKernel(firewall.Ban, "203.0.113.66/32"); ok {
				t.Error("somebody whom a person allowed was banned")
			}
			if _, ok := r.inKernel(firewall.Allow, "2001:db8:7::/48"); !ok {
				t.Error("the allowed network is not in the kernel")
			}
			if !slices.Contains(r.d.allowSources.hostsAdded(), "localhost") {
				t.Error("the host name is forgotten")
			}
			if _, ok := r.inKernel(firewall.Allow, "198.51.100.9/32"); ok && name != "text gone" {
				t.Error("what was taken off the list is back")
			}
			if !r.warned("of what ringwall allow added came from " + text) {
				t.Error("status does not say where the list came from")
			}
			r.stop() // and it is in the state file again
			r.start()
			if r.warned("ringwall allow added") {
				t.Error("it was not saved")
			}
			if _, ok := r.inKernel(firewall.Allow, "203.0.113.66/32"); !ok {
				t.Error("the list is lost after another restart")
			}
		})
	}
}

// The state file counts where it is right, whatever the text says.
func TestTheTextIsReadOnlyWhereItIsNeeded(t *testing.T) {
	r := newRig(t)
	r.stop()
	if err := store.WriteLines(besideState(r.cfg.State.Path, "allow"), "x", []string{"203.0.113.66/32"}); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.protects()
}

func TestLinesOfTheAllowList(t *testing.T) {
	for line, want := range map[string]string{
		"203.0.113.9": "203.0.113.9/32", "203.0.113.9/24": "203.0.113.0/24",
		"::ffff:203.0.113.9 2026-01-02T03:04:05Z root (uid 0, pid 1)": "203.0.113.9/32",
		"2001:db8::/32 yesterday":                                     "2001:db8::/32",
		"SIP.example.net":                                             "sip.example.net",
		"0.0.0.0/0":                                                   "", "::/0": "", "10.0.0.0/7": "",
		"300.1.2.3": "", "fe80::1%eth0": "", "\x1b[31m": "", "/": "",
	} {
		e, err := parseAllowed(line)
		if got := entryName(e); err == nil && got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", line, got, err, want)
		}
	}
	e, err := parseAllowed("203.0.113.9 2026-01-02T03:04:05Z root (uid 0, pid 1)")
	if err != nil || e.Added.Year() != 2026 || !strings.HasPrefix(e.By, "root (uid") {
		t.Errorf("%+v, %v", e, err)
	}
	for _, line := range []string{"203.0.113.9 2026-01-02T03:04:05Z until=2026-01-03T03:04:05Z root",
		"203.0.113.9 until=2026-01-03T03:04:05Z"} {
		if e, err = parseAllowed(line); err != nil || e.Until.Day() != 3 {
			t.Errorf("%q: %+v, %v", line, e, err)
		}
	}
	for _, line := range []string{"203.0.113.9 until=", "203.0.113.9 2026-01-02T03:04:05Z until=tomorrow root"} {
		if e, err = parseAllowed(line); err == nil {
			t.Errorf("%q: %+v", line, e)
		}
	}
}

// What is allowed for a time comes back from the text with its end, and not after it.
func TestTheTextOfTheAllowListKnowsItsEnds(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state.db")
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	list := func() *allowFile {
		a := newAllowFile(state, slog.New(slog.DiscardHandler))
		a.now = func() time.Time { return now }
		return a
	}
	short := store.Allow{Prefix: netip.MustParsePrefix("203.0.113.9/32"), Added: now, Until: now.Add(time.Hour),
		By: "root (uid 0)"}
	ever := store.Allow{Prefix: netip.MustParsePrefix("203.0.113.10/32"), Added: now, By: "until (uid 7)"}
	a := list()
	a.changeEntry(short, false)
	a.changeEntry(ever, false)
	if got := list().mergeStored(nil, "no state file"); !slices.Equal(got, []store.Allow{ever, short}) {
		t.Errorf("%+v", got)
	}
	now = short.Until
	if got := list().mergeStored(nil, "no state file"); !slices.Equal(got, []store.Allow{ever}) {
		t.Errorf("after its end: %+v", got)
	}
}
