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
	pipeline *pipeline.Pipeline
	resolver *hosts.Resolver
	watcher  *hosts.Watcher
	kept     *keptAddresses

	mu           sync.Mutex
	configHosts  []string // host names of policy.allow
	addedHosts   []string // host names added at run time
	ownAddresses map[netip.Prefix]string
}

func (d *Daemon) newAllowSources(cfg *config.Config) *allowSources {
	k := &allowSources{pipeline: d.pipeline, kept: loadKeptAddresses(cfg.State.Path, d.log)}
	k.resolver = hosts.NewResolver(hosts.Config{Log: d.log, Lookup: d.opts.Lookup, OnChange: k.hostResolved,
		OnError: func(name string, err error) {
			if err != nil {
				d.log.Warn("a host name of the allow list cannot be resolved; the addresses known before stay",
					"host", name, "err", printable.String(err.Error()))
				return
			}
			d.log.Info("a host name of the allow list is resolved again", "host", name)
		}})
	k.configure(cfg.Policy)
	k.watcher = hosts.NewWatcher(hosts.WatchConfig{Log: d.log, OnChange: k.ownAddressesChanged})
	d.tasks = append(d.tasks, k.resolver, k.watcher)
	return k
}

// configure takes the host names of the configuration.
func (k *allowSources) configure(p config.Policy) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.configHosts = k.configHosts[:0]
	for _, a := range p.Allow {
		if a.Host != "" {
			k.configHosts = append(k.configHosts, a.Host)
			k.kept.recall(a.Host, k)
		}
	}
	k.lookUpHostsLocked()
}

// add takes one more name, until remove or the end of the daemon.
func (k *allowSources) add(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.Contains(k.addedHosts, name) {
		k.addedHosts = append(k.addedHosts, name)
		k.kept.recall(name, k)
		k.lookUpHostsLocked()
	}
}

// added returns the names that were added at run time.
func (k *allowSources) added() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.addedHosts)
}

// remove drops a name that was added, and reports whether there was one.
func (k *allowSources) remove(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.Index(k.addedHosts, name)
	if i < 0 {
		return false
	}
	k.addedHosts = slices.Delete(k.addedHosts, i, i+1)
	k.lookUpHostsLocked()
	return true
}

func (k *allowSources) lookUpHostsLocked() {
	// The names were checked where they came in; a bad one is only not looked up.
	_ = k.resolver.Set(append(slices.Clone(k.configHosts), k.addedHosts...))
}

// hostResolved takes the addresses of a name to the allow list.
func (k *allowSources) hostResolved(name string, added, removed []netip.Prefix) {
	k.pipeline.Update(func(e *engine.Engine, now time.Time) (out []ban.Decision) {
		for _, p := range removed {
			e.Disallow(p, name)
		}
		for _, p := range added {
			out = append(out, e.Allow(now, p, name, "")...)
		}
		return out
	})
	k.endSparing()
}

// ownAddressesChanged takes the machine's own addresses to the allow list.
func (k *allowSources) ownAddressesChanged(own map[netip.Prefix]string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.ownAddresses
	k.ownAddresses = own
	k.pipeline.Update(func(e *engine.Engine, now time.Time) (out []ban.Decision) {
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
