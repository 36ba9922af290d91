package daemon

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

// loginsInterval is how often the logins are read.
const loginsInterval = 5 * time.Second

// loginFolder is where systemd-logind describes sessions, one file each (sd_session_get_remote_host(3) reads them too).
const loginFolder = "/run/systemd/sessions"

// originLogin is the origin of addresses that are allowed while somebody is logged in from there.
const originLogin = "ssh"

// remoteLoginAllower keeps those off the bans who are logged in on this machine from elsewhere, where a ban would end
// their sessions: in scope all. Only a session that logind knows counts, since that needs a login: a mere connection
// to port 22 would let an attacker go on for ever.
type remoteLoginAllower struct {
	*Daemon
	folder   string
	interval time.Duration
	known    map[netip.Prefix]bool
}

// String names the task.
func (*remoteLoginAllower) String() string { return "logins" }

// Run looks until ctx ends.
func (l *remoteLoginAllower) Run(ctx context.Context) error {
	tick := time.NewTicker(l.interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			l.updateAllowed()
		}
	}
}

// updateAllowed allows those who are logged in now, and no others.
func (l *remoteLoginAllower) updateAllowed() {
	now := make(map[netip.Prefix]bool)
	if l.config.currentConfig().Firewall.Scope == config.ScopeAll {
		now = remoteLogins(l.folder)
	}
	changed := len(now) != len(l.known)
	for p := range now {
		changed = changed || !l.known[p]
	}
	if !changed {
		return
	}
	before := l.known
	l.known = now
	l.pipeline.UpdateEngine(func(e *engine.Engine, at time.Time) (out []ban.Decision) {
		for p := range before {
			if !now[p] {
				e.Disallow(p, originLogin)
			}
		}
		for p := range now {
			out = append(out, e.Allow(at, p, originLogin,
				"somebody is logged in from here, and firewall.scope is all")...)
		}
		return out
	})
}

// maxLogins bounds the sessions that are looked at.
const maxLogins = 200

// remoteLogins reads where people are logged in from: REMOTE=1 and the address in REMOTE_HOST, of a session that is not
// closing. A host name in its place, as with UseDNS of sshd, says nothing that can be trusted.
func remoteLogins(folder string) map[netip.Prefix]bool {
	found := make(map[netip.Prefix]bool)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return found // no logind
	}
	for _, e := range entries[:min(len(entries), maxLogins)] {
		if !e.Type().IsRegular() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			continue
		}
		value := make(map[string]string)
		for line := range strings.Lines(string(text)) {
			if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				value[k] = v
			}
		}
		a, err := netip.ParseAddr(value["REMOTE_HOST"])
		if err != nil || value["REMOTE"] != "1" || value["STATE"] == "closing" || value["CLASS"] != "user" {
			continue
		}
		if a = a.WithZone("").Unmap(); a.IsGlobalUnicast() {
			found[netip.PrefixFrom(a, a.BitLen())] = true
		}
	}
	return found
}
