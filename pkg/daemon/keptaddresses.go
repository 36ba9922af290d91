package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/hosts"
	"github.com/ringwall/ringwall/pkg/printable"
	"github.com/ringwall/ringwall/pkg/store"
)

const (
	// maxSparing is how long after the start nobody is banned on forgeable evidence while a name of the allow list
	// has no address. After that a name with a typo must not keep attackers in.
	maxSparing = time.Minute
	// keptFor is how old addresses may be that are used before a name is resolved.
	keptFor = 30 * 24 * time.Hour
	// rewriteEvery is how often their times are written down where they stay the same.
	rewriteEvery = 6 * time.Hour
	// maxHostWarnings is how many names status has a line for.
	maxHostWarnings = 5
)

const keptHeading = "The addresses of the host names on Ringwall's allow list, as they were found last: a name, " +
	"when, and what for.\nRingwall uses them after a start, until the names are resolved again. They may be removed."

// besideState is a file of plain text in the folder of the state file, empty without one.
func besideState(state, what string) string {
	if state == "" {
		return ""
	}
	return strings.TrimSuffix(state, filepath.Ext(state)) + "-" + what + ".txt"
}

// keptAddresses keeps the addresses of host names over a restart.
type keptAddresses struct {
	path string // empty: they are not kept
	log  *slog.Logger

	fromBefore map[string]hosts.State // what was kept, until the start is through

	mu   sync.Mutex
	text string // as it was written, without the times
	at   time.Time
	err  error // why it could not be
}

func loadKeptAddresses(state string, log *slog.Logger) *keptAddresses {
	n := &keptAddresses{path: besideState(state, "addresses"), log: log, fromBefore: make(map[string]hosts.State)}
	if n.path == "" {
		return n
	}
	lines, _, err := store.ReadLines(n.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("the addresses that host names had before are not known", "err", err)
	}
	for _, l := range lines {
		field := strings.Fields(l)
		if len(field) < 3 {
			continue
		}
		at, err := time.Parse(time.RFC3339, field[1])
		if err != nil || time.Since(at) > keptFor {
			continue
		}
		s := hosts.State{Name: field[0], Resolved: at}
		for _, f := range field[2:] {
			if a, err := netip.ParseAddr(f); err == nil {
				s.Prefixes = append(s.Prefixes, netip.PrefixFrom(a, a.BitLen()))
			}
		}
		n.fromBefore[s.Name] = s
	}
	return n
}

// recallAddresses gives the resolver and the engine the addresses that a name had before the start, during the start.
func (n *keptAddresses) recallAddresses(name string, k *allowSources) {
	if n == nil {
		return
	}
	name, _ = hosts.NormalizeName(name)
	s, ok := n.fromBefore[name]
	if !ok {
		return
	}
	delete(n.fromBefore, name)
	var addrs []netip.Addr
	for _, p := range s.Prefixes {
		addrs = append(addrs, p.Addr())
	}
	k.resolver.Remember(name, addrs, s.Resolved)
	k.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) {
		for _, p := range k.resolver.Prefixes(name) {
			e.Allow(now, p, name, "")
		}
	})
}

// writeAddresses writes the addresses of host names down, unless they are written already; at the end with their times.
func (n *keptAddresses) writeAddresses(states []hosts.State, end bool) {
	if n.path == "" {
		return
	}
	var text strings.Builder
	var lines []string
	for _, s := range states {
		if len(s.Prefixes) == 0 {
			continue
		}
		var addrs strings.Builder
		for _, p := range s.Prefixes {
			addrs.WriteString(" " + p.Addr().String())
		}
		text.WriteString(s.Name + addrs.String() + "\n")
		lines = append(lines, s.Name+" "+s.Resolved.UTC().Format(time.RFC3339)+addrs.String())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if text.String() == n.text && !end && time.Since(n.at) < rewriteEvery || len(lines) == 0 && n.text == "" {
		return
	}
	err := store.WriteLines(n.path, keptHeading, lines)
	if err != nil && n.err == nil {
		n.log.Warn("the addresses of host names are not saved", "err", err)
	}
	if n.err = err; err == nil {
		n.text, n.at = text.String(), time.Now()
	}
}

// unresolvedHosts returns the names that have no address, and those whose addresses are from before the start.
func (s *allowSources) unresolvedHosts() (without, old []hosts.State) {
	s.mu.Lock()
	wanted := make(map[string]bool)
	for _, name := range append(append([]string(nil), s.configHosts...), s.addedHosts...) {
		if name, ok := hosts.NormalizeName(name); ok {
			wanted[name] = true
		}
	}
	s.mu.Unlock()
	for _, s := range s.resolver.States() {
		switch {
		case !wanted[s.Name]:
		case len(s.Prefixes) == 0:
			without = append(without, s)
		case !s.Confirmed:
			old = append(old, s)
		}
		delete(wanted, s.Name)
	}
	for _, name := range sortedKeys(wanted) { // not looked up yet
		without = append(without, hosts.State{Name: name})
	}
	return without, old
}

// spareUntilResolved spares forgeable sources in the first minute while a name has no address.
func (s *allowSources) spareUntilResolved(started time.Time) {
	s.keptAddresses.fromBefore = nil
	if without, _ := s.unresolvedHosts(); len(without) > 0 {
		until := s.pipeline.Clock().At(started).Add(maxSparing)
		s.pipeline.ReadEngine(func(e *engine.Engine, _ time.Time) { e.HoldForgeable(until) })
	}
}

// endSparing ends the sparing as soon as each name has an address, and writes the addresses down.
func (s *allowSources) endSparing() {
	if without, _ := s.unresolvedHosts(); len(without) == 0 {
		s.pipeline.ReadEngine(func(e *engine.Engine, _ time.Time) { e.HoldForgeable(time.Time{}) })
	}
	s.keptAddresses.writeAddresses(s.resolver.States(), false)
}

// hostWarnings say which names protect nobody, or as of when.
func (s *allowSources) hostWarnings() (out []api.Warning) {
	const try = "mend the name in policy.allow, or DNS (/etc/resolv.conf)"
	without, old := s.unresolvedHosts()
	add := func(s hosts.State, text string) {
		if len(out) == maxHostWarnings {
			out = append(out, api.Warning{Text: "and so with more host names", Try: "ringwall list allow"})
		}
		if len(out) > maxHostWarnings {
			return
		}
		if s.Err != nil {
			text += ": " + printable.Limit(s.Err.Error(), 200)
		}
		out = append(out, api.Warning{Text: text, Try: try})
	}
	var left time.Duration
	s.pipeline.ReadEngine(func(e *engine.Engine, now time.Time) { left = e.ForgeableHeldUntil().Sub(now) })
	for _, s := range without {
		text := "the allow list's " + printable.String(s.Name) + " has no address, so it protects nobody"
		if left > 0 {
			text += fmt.Sprintf("; for %v more nobody is banned on evidence that can be forged",
				left.Round(time.Second))
		}
		add(s, text)
	}
	for _, s := range old {
		if s.Err != nil { // else it is being looked up
			add(s, fmt.Sprintf("the allow list's %s cannot be resolved; its addresses of %s count",
				printable.String(s.Name),
				minuteOf(s.Resolved)))
		}
	}
	return out
}

func minuteOf(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

// describeHosts adds to the entries of the allow list what is known of its host names, and those names that have no
// address.
func (s *allowSources) describeHosts(list []ban.Exemption) []ban.Exemption {
	without, old := s.unresolvedHosts()
	notes := make(map[string]string)
	for _, s := range old {
		notes[s.Name] = "as of " + minuteOf(s.Resolved) + ": not resolved since the start"
	}
	for i := range list {
		if name, ok := hosts.NormalizeName(list[i].Origin); ok && list[i].Note == "" {
			list[i].Note = notes[name]
		}
	}
	for _, s := range without {
		if slices.ContainsFunc(list, func(v ban.Exemption) bool { return v.Origin == s.Name }) {
			continue // a command has just found them
		}
		v := ban.Exemption{Origin: s.Name, Note: "protects nobody: not resolved yet"}
		if s.Err != nil {
			v.Note = "protects nobody: " + printable.Limit(s.Err.Error(), 200)
		}
		list = append(list, v)
	}
	return list
}
