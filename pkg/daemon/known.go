package daemon

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/hosts"
	"github.com/ringwall/ringwall/pkg/pipeline"
	"github.com/ringwall/ringwall/pkg/policy"
	"github.com/ringwall/ringwall/pkg/printable"
)

// known keeps the engine's lists of who must not be banned up to date: host names of the allow list, this machine's own
// addresses.
type known struct {
	pipeline *pipeline.Pipeline
	resolver *hosts.Resolver
	watcher  *hosts.Watcher
	names    *names

	mu     sync.Mutex
	config []string // host names of policy.allow
	manual []string // host names added at run time
	own    map[netip.Prefix]string
}

func (d *Daemon) newKnown(cfg *policy.Config) *known {
	k := &known{pipeline: d.pipeline, names: newNames(cfg.State.Path, d.log)}
	k.resolver = hosts.NewResolver(hosts.Config{Log: d.log, Lookup: d.opts.Lookup, OnChange: k.resolved, OnError: func(name string, err error) {
		if err != nil {
			d.log.Warn("a host name of the allow list cannot be resolved; the addresses known before stay",
				"host", name, "err", printable.String(err.Error()))
			return
		}
		d.log.Info("a host name of the allow list is resolved again", "host", name)
	}})
	k.configure(cfg.Policy)
	k.watcher = hosts.NewWatcher(hosts.WatchConfig{Log: d.log, OnChange: k.machine})
	d.tasks = append(d.tasks, k.resolver, k.watcher)
	return k
}

// configure takes the host names of the configuration.
func (k *known) configure(p policy.Policy) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.config = k.config[:0]
	for _, a := range p.Allow {
		if a.Host != "" {
			k.config = append(k.config, a.Host)
			k.names.recall(a.Host, k)
		}
	}
	k.set()
}

// add takes one more name, until remove or the end of the daemon.
func (k *known) add(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.Contains(k.manual, name) {
		k.manual = append(k.manual, name)
		k.names.recall(name, k)
		k.set()
	}
}

// added returns the names that were added at run time.
func (k *known) added() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.manual)
}

// remove drops a name that was added, and reports whether there was one.
func (k *known) remove(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.Index(k.manual, name)
	if i < 0 {
		return false
	}
	k.manual = slices.Delete(k.manual, i, i+1)
	k.set()
	return true
}

func (k *known) set() {
	// The names were checked where they came in; a bad one is only not looked up.
	_ = k.resolver.Set(append(slices.Clone(k.config), k.manual...))
}

// resolved takes the addresses of a name to the allow list.
func (k *known) resolved(name string, added, removed []netip.Prefix) {
	k.pipeline.Update(func(e *engine.Engine, now time.Time) (out []ban.Decision) {
		for _, p := range removed {
			e.Disallow(p, name)
		}
		for _, p := range added {
			out = append(out, e.Allow(now, p, name, "")...)
		}
		return out
	})
	k.settled()
}

// machine takes the machine's own addresses to the allow list.
func (k *known) machine(own map[netip.Prefix]string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.own
	k.own = own
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
