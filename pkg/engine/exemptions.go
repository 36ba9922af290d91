package engine

import (
	"net/netip"
	"slices"

	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

// origin says by what a prefix is exempt. One prefix may have several.
type origin struct {
	name  string // config, manual, host, a host name, or the Asterisk that it was learned from
	note  string
	until int64 // ns; 0: until it is taken off
}

// addOrigin adds an origin to a prefix, and reports whether the prefix is new.
func addOrigin(p *table.Prefixes[[]origin], prefix netip.Prefix, o origin) bool {
	have, old := p.Get(prefix)
	if i := slices.IndexFunc(have, func(h origin) bool { return h.name == o.name }); i >= 0 {
		have[i] = o
		return false
	}
	p.Set(prefix, append(have, o))
	return !old
}

// longestOrigin is the origin that exempts a prefix the longest; there must be one.
func longestOrigin(list []origin) origin {
	best := list[0]
	for _, o := range list[1:] {
		if best.until != 0 && (o.until == 0 || o.until > best.until) {
			best = o
		}
	}
	return best
}

// removeOrigin takes an origin off a prefix, or all of them where name is empty, and reports whether the prefix is gone.
func removeOrigin(p *table.Prefixes[[]origin], prefix netip.Prefix, name string) bool {
	have, ok := p.Get(prefix)
	if !ok {
		return false
	}
	left := slices.DeleteFunc(have, func(o origin) bool { return name == "" || o.name == name })
	if len(left) > 0 {
		p.Set(prefix, left)
		return false
	}
	p.Delete(prefix)
	return true
}
