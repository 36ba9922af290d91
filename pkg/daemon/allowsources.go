package daemon

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/hosts"
	"github.com/ringwall/ringwall/pkg/pipeline"
	"github.com/ringwall/ringwall/pkg/printable"
)

// allowSources keeps the engine's lists of who must not be banned up to date: host names of the allow list, this
// machine's own addresses.
type allowSources struct {
	pipeline      *pipeline.Pipeline
	resolver      *hosts.Resolver
	watcher       *hosts.Watcher
	keptAddresses *keptAddresses

	mu           sync.Mutex
	configHosts  []string // host names of policy.allow
	addedHosts   []string // host names added at run time
	ownAddresses map[netip.Prefix]string
}

func (d *Daemon) newAllowSources(cfg *config.Config) *allowSources {
	k := &allowSources{pipeline: d.pipeline, keptAddresses: loadKeptAddresses(cfg.State.Path, d.log)}
	k.resolver = hosts.NewResolver(hosts.Config{Log: d.log, Lookup: d.opts.Lookup, OnChange: k.hostResolved,
		OnError: func(name string, err error) {
			if err != nil {
				d.log.Warn("a host name of the allow list cannot be resolved; the addresses known before stay",
					"host", name, "err", printable.String(err.Error()))
				return
			}
			d.log.Info("a host name of the allow list is resolved again", "host", name)
		}})
	k.setConfigHosts(cfg.Policy)
	k.watcher = hosts.NewWatcher(hosts.WatchConfig{Log: d.log, OnChange: k.ownAddressesChanged})
	d.tasks = append(d.tasks, k.resolver, k.watcher)
	return k
}

// setConfigHosts takes over the host names of policy.allow.
func (s *allowSources) setConfigHosts(p config.Policy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.configHosts = s.configHosts[:0]
	for _, a := range p.Allow {
		if a.Host != "" {
			s.configHosts = append(s.configHosts, a.Host)
			s.keptAddresses.recallAddresses(a.Host, s)
		}
	}
	s.lookUpHostsLocked()
}

// addHost adds a host name, until removeHost or the end of the daemon.
func (s *allowSources) addHost(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.addedHosts, name) {
		s.addedHosts = append(s.addedHosts, name)
		s.keptAddresses.recallAddresses(name, s)
		s.lookUpHostsLocked()
	}
}

// hostsAdded returns the names that were added at run time.
func (s *allowSources) hostsAdded() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.addedHosts)
}

// removeHost drops a name that was added, and reports whether there was one.
func (s *allowSources) removeHost(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.addedHosts, name)
	if i < 0 {
		return false
	}
	s.addedHosts = slices.Delete(s.addedHosts, i, i+1)
	s.lookUpHostsLocked()
	return true
}

func (s *allowSources) lookUpHostsLocked() {
	// The names were checked where they came in; a bad one is only not looked up.
	_ = s.resolver.Set(append(slices.Clone(s.configHosts), s.addedHosts...))
}

// hostResolved takes the addresses of a name to the allow list.
func (s *allowSources) hostResolved(name string, added, removed []netip.Prefix) {
	s.pipeline.UpdateEngine(func(e *engine.Engine, now time.Time) (out []ban.Decision) {
		for _, p := range removed {
			e.Disallow(p, name)
		}
		for _, p := range added {
			out = append(out, e.Allow(now, p, name, "")...)
		}
		return out
	})
	s.endSparing()
}

// isOwn says whether an address is one of this machine's own.
func (s *allowSources) isOwn(addr netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, own := s.ownAddresses[netip.PrefixFrom(addr, addr.BitLen())]
	return own || addr.IsLoopback()
}

// ownAddressesChanged takes the machine's own addresses to the allow list.
func (s *allowSources) ownAddressesChanged(own map[netip.Prefix]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.ownAddresses
	s.ownAddresses = own
	s.pipeline.UpdateEngine(func(e *engine.Engine, now time.Time) (out []ban.Decision) {
		for p := range before {
			if _, ok := own[p]; !ok {
				e.Disallow(p, engine.OriginHost)
			}
		}
		for p, note := range own {
			out = append(out, e.Allow(now, p, engine.OriginHost, note)...)
		}
		return out
	})
}
