package engine

import (
	"encoding/binary"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

const stormText = "many known good sources fail at once: the fault is at the PBX; they are not banned while it lasts"

// While a PBX has lost its passwords, phones retry in many ways, but none goes on at more than this for one account.
const (
	stormPerMinute = 60
	stormBurst     = 30
)

// failing is who fails of those that are known to be good, at accounts that worked there before.
type failing struct {
	sources  *table.Window[key]
	owners   *table.Window[struct{}] // of addresses: in IPv6 a /48 is one
	accounts *table.Window[struct{}]
}

func newFailing(ttl int64) failing {
	return failing{
		sources:  table.NewWindow[key](ttl, maxReports),
		owners:   table.NewWindow[struct{}](ttl, maxReports),
		accounts: table.NewWindow[struct{}](ttl, maxReports),
	}
}

func (f *failing) setTTL(ttl int64) {
	f.sources.SetTTL(ttl)
	f.owners.SetTTL(ttl)
	f.accounts.SetTTL(ttl)
}

// recordRush notes a failure at a source that is known to be good, and whether it is one that lost passwords do not explain:
// of accounts that never worked there, or faster than phones retry.
func (j *judgement) recordRush(t *trust, here bool, one *failures) {
	b := &t.rush
	if here {
		b = &one.rush
	}
	if b.Add(j.engine.now, 1, stormPerMinute) > stormBurst {
		t.rushed = j.engine.now
	}
}

// calm says whether lost passwords explain all that a source has done within the last while.
func (t *trust) calm(now int64) bool { return t.rushed == 0 || now-t.rushed >= idleResetSeconds*second }

// mayBeStorm notes that an account fails where it worked before, and notices when many do: of different accounts, at
// different customers, none of them forged, and none faster than phones retry. Else an attacker could make a storm, by
// packets in customers' names or with one stolen account.
func (j *judgement) mayBeStorm(t *trust, account uint64) {
	if j.engine.cfg.Storm.Sources <= 0 || !j.proven || !j.engine.knownGood(j.key) || !t.calm(j.engine.now) {
		return
	}
	if j.engine.reports.Get(j.engine.now, j.engine.id(forMisconfigured+purpose(reasonIndex(ban.ReasonPace)), j.key, j.accountNameHash())) != nil {
		return // its phone has an old password: that is no news
	}
	f := &j.engine.failing
	if id := j.engine.id(forFailing, j.key, 0); f.sources.Get(j.engine.now, id) == nil {
		failed, _ := f.sources.Put(j.engine.now, id)
		*failed = j.key
	}
	f.owners.Seen(j.engine.now, j.engine.id(forOwner, ownerOf(j.key), 0))
	f.accounts.Seen(j.engine.now, account)
	limit := max(j.engine.cfg.Storm.Sources, len(j.engine.trusts)/10)
	if f.owners.Live(j.engine.now) < limit || f.accounts.Live(j.engine.now) < limit {
		return
	}
	fresh := !j.engine.stormy()
	j.engine.stormEnd = j.engine.now + int64(j.engine.cfg.Storm.Within)
	if !j.engine.reports.Seen(j.engine.now, j.engine.id(forStorm, key{}, 0)) {
		j.decide(ban.ActionObserve, ban.ReasonStorm, j.engine.prefixOf(j.key), 0, j.proven, stormText)
	}
	if !fresh {
		return
	}
	// Who was banned in the minute before it was clear what happens gets in again.
	for k := range f.sources.Values(j.engine.now) {
		b := j.engine.banOf(k)
		if b == nil || b.observed || b.manual || j.engine.now-b.since >= int64(j.engine.cfg.Storm.Within) || !j.engine.spareInStorm(k) {
			continue
		}
		j.engine.suspended++
		j.out = append(j.out, j.engine.endBans([]*activeBan{b}, ban.ReasonStorm, stormText)...)
	}
}

// stormy says whether many known good sources fail at the moment.
func (e *Engine) stormy() bool { return e.stormEnd > e.now }

// spareInStorm says whether a storm explains what a source does. It may have cost it its trust just before it was noticed.
func (e *Engine) spareInStorm(k key) bool {
	t := e.trusts[k]
	return t != nil && t.calm(e.now) && e.now-t.last < int64(e.cfg.Storm.Memory) &&
		(!t.revoked || e.now-t.until < int64(e.cfg.Storm.Within))
}

// ownerOf returns the network that one customer has: an address of IPv4, a /48 of IPv6.
func ownerOf(k key) key {
	if binary.BigEndian.Uint64(k[:8]) == 0 { // IPv4, mapped
		return k
	}
	clear(k[6:])
	return k
}
