package learn

import (
	"net/netip"
	"slices"
	"strings"
)

// A configured is one thing that the administrator wrote down.
type configured struct {
	origin   string // "trunk itsp"
	prefixes []netip.Prefix
	hosts    []string // names, whose addresses the resolver knows
	refused  []string // why parts of it are not learned
}

// addTarget adds a target, or says why not.
func (f *configured) addTarget(what string, t target, ok bool) {
	switch {
	case !ok:
		f.refused = append(f.refused, what+" cannot be read")
	case t.name != "":
		if !slices.Contains(f.hosts, t.name) {
			f.hosts = append(f.hosts, t.name)
		}
	case !isUsable(t.addr):
		f.refused = append(f.refused, what+" is "+t.addr.String())
	default:
		f.prefixes = append(f.prefixes, netip.PrefixFrom(t.addr, t.addr.BitLen()))
	}
}

// allConfigured returns everything that the administrator configured, in an order that does not change.
func (l *Learner) allConfigured() []configured {
	var out []configured
	for _, e := range l.endpoints {
		out = append(out, e.configured...)
	}
	out = append(append(out, l.identifies...), l.servers...)
	for _, p := range l.peers {
		out = append(out, p.configured...)
	}
	last := func(f configured) bool { return strings.HasPrefix(f.origin, "registration ") } // a trunk's name says more
	slices.SortStableFunc(out, func(a, b configured) int {
		if last(a) != last(b) {
			return map[bool]int{true: 1, false: -1}[last(a)]
		}
		return strings.Compare(a.origin, b.origin)
	})
	return out
}

// resolveHosts tells the resolver which names are to be resolved.
func (l *Learner) resolveHosts() {
	var names []string
	for _, f := range l.allConfigured() {
		names = append(names, f.hosts...)
	}
	if err := l.resolver.Set(names); err != nil {
		l.addFailure("names", err)
	}
}
