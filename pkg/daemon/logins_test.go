package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/firewall"
)

const session = "# This is private data. Do not " +
	"parse.\nUID=0\nUSER=root\nACTIVE=1\nSTATE=active\nREMOTE=1\nTYPE=tty\nCLASS=user\nSERVICE=sshd\n"

func TestWhoIsLoggedIn(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"1": session + "REMOTE_HOST=203.0.113.9\n", "2": session + "REMOTE_HOST=::ffff:203.0.113.10\n", "3": session +
			"REMOTE_HOST=2001:db8::1\n",
		"4": session + "REMOTE_HOST=host.example.net\n", "5": session + "REMOTE_HOST=203.0.113.11\nSTATE=closing\n",
		"6": session + "REMOTE_HOST=203.0.113.12\nREMOTE=0\n",
		"7": session + "REMOTE_HOST=203.0.113.13\nCLASS=greeter\n",
		"8": session + "REMOTE_HOST=127.0.0.1\n", "9": "REMOTE_HOST", "10": session,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := remoteLogins(dir)
	for _, p := range []string{"203.0.113.9/32", "203.0.113.10/32", "2001:db8::1/128"} {
		if !got[netip.MustParsePrefix(p)] {
			t.Errorf("%s is logged in", p)
		}
	}
	if len(got) != 3 {
		t.Errorf("%v", got)
	}
	if got := remoteLogins(filepath.Join(dir, "none")); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// In scope all a ban would end the session of who is logged in; in scope voip it ends telephony alone, and is made.
func TestWhoIsLoggedInIsNotCutOff(t *testing.T) {
	for _, scope := range []config.Scope{config.ScopeAll, config.ScopeVoIP} {
		r := newRig(t, func(c *config.Config) { c.Firewall.Scope = scope })
		dir := t.TempDir()
		file := filepath.Join(dir, "1")
		if err := os.WriteFile(file, []byte(session+"REMOTE_HOST=203.0.113.66\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		l := &remoteLoginAllower{Daemon: r.d, folder: dir, interval: time.Hour}
		l.updateAllowed()
		r.attack("IPV4/TLS/203.0.113.66/5060")
		r.attack("IPV4/TLS/203.0.113.67/5060")
		r.await(ban.ActionBan, "203.0.113.67/32")
		if _, ok := r.inKernel(firewall.Ban, "203.0.113.66/32"); ok != (scope == config.ScopeVoIP) {
			t.Errorf("scope %s: banned: %v", scope, ok)
		}
		_, err := r.client.Ban(t.Context(), api.BanRequest{Prefix: netip.MustParsePrefix("203.0.113.0/24"),
			For: time.Hour})
		if (err == nil) != (scope == config.ScopeVoIP) {
			t.Errorf("scope %s: a ban by hand: %v", scope, err)
		}
		if scope != config.ScopeAll {
			continue
		}
		if err := os.Remove(file); err != nil { // logged out
			t.Fatal(err)
		}
		l.updateAllowed()
		r.until("nobody is let in any more", func() bool {
			_, ok := r.inKernel(firewall.Allow,
				"203.0.113.66/32")
			return !ok
		})
		r.attack("IPV4/TLS/203.0.113.66/5060")
		r.await(ban.ActionBan, "203.0.113.66/32")
	}
}
