package engine

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// AccountSource is a source from which an account was tried, or logged in.
type AccountSource struct {
	Prefix    netip.Prefix `json:"prefix"`
	Address   netip.Addr   `json:"address"` // to ask about with why
	Verdict   string       `json:"verdict"` // as in Explanation
	Tries     int          `json:"tries"`   // that are still kept as evidence, other than logins
	Logins    int          `json:"logins"`  // with a right password, that are still kept
	Trusted   bool         `json:"trusted"` // it logged in from there, and that still counts
	Last      time.Time    `json:"last,omitzero"`
	ban.Place              // of Prefix; the engine leaves it empty
}

// AccountSources returns up to n of the sources that tried an account or logged in with it, the latest first, and how
// many there are. It knows of what is kept as evidence, of bans and of trust, and goes through all sources: for people,
// not for events.
func (e *Engine) AccountSources(now time.Time, name string, n int) (list []AccountSource, all int) {
	e.advanceTime(now)
	found := make(map[netip.Prefix]*AccountSource)
	of := func(p netip.Prefix) *AccountSource {
		s := found[p]
		if s == nil {
			s = &AccountSource{Prefix: p, Address: p.Addr()}
			found[p] = s
		}
		return s
	}
	tally := func(s *AccountSource, r *record) {
		if reasonList[r.reason] == ban.ReasonLogin || r.note == noteLogin {
			s.Logins++
		} else {
			s.Tries++
		}
		if at := utcTime(r.at); at.After(s.Last) {
			s.Last = at
		}
	}
	for k, records := range e.recordsAbout(name) {
		s := of(e.prefixOf(k))
		for _, r := range records {
			tally(s, r)
		}
	}
	for p, b := range e.bans {
		if b.until <= e.now || found[p] != nil { // what a ban keeps was evidence of its source, and is kept for longer
			continue
		}
		for i := range b.evidence {
			if b.evidence[i].isAbout(name) {
				tally(of(p), &b.evidence[i])
			}
		}
	}
	for k, t := range e.trusts {
		if t.until > e.now && slices.Contains(t.accountNames(), name) {
			of(e.prefixOf(k)).Trusted = true
		}
	}
	for _, s := range found {
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b AccountSource) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Prefix.String(), b.Prefix.String()))
	})
	all = len(list)
	list = list[:min(n, all)]
	for i := range list {
		list[i].Verdict = e.Why(now, list[i].Address).Verdict
	}
	return list, all
}

// isAbout says whether a record is about an account. What is kept of a long name is its beginning.
func (r *record) isAbout(name string) bool {
	have := r.accountName()
	if cut, ok := strings.CutSuffix(have, "…"); ok && int(r.length) > nameBytes {
		return strings.HasPrefix(name, cut)
	}
	return have == name
}

// recordsAbout finds the evidence about an account that is kept, by source, the latest first.
func (e *Engine) recordsAbout(name string) map[sourceKey][]*record {
	found := make(map[sourceKey][]*record)
	for k, r := range e.evidence.All() {
		if r.isAbout(name) {
			found[k] = append(found[k], r)
		}
	}
	maps.DeleteFunc(found, func(k sourceKey, _ []*record) bool { // who was forgotten meanwhile
		s := e.sources.get(k)
		return s == nil || s.latestRecord == 0
	})
	return found
}
