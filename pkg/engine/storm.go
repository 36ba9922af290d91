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
	if b.Add(j.now, 1, stormPerMinute) > stormBurst {
		t.rushed = j.now
	}
}

// calm says whether lost passwords explain all that a source has done within the last while.
func (t *trust) calm(now int64) bool { return t.rushed == 0 || now-t.rushed >= idleResetSeconds*second }

// mayBeStorm notes that an account fails where it worked before, and notices when many do: of different accounts, at
// different customers, none of them forged, and none faster than phones retry. Else an attacker could make a storm, by
// packets in customers' names or with one stolen account.
func (j *judgement) mayBeStorm(t *trust, account uint64) {
	if j.policy.Storm.Sources <= 0 || !j.proven || !j.engine.knownGood(j.key) || !t.calm(j.now) {
		return
	}
	if j.engine.reports.Get(j.now, j.hash(forMisconfigured+purpose(reasonIndex(ban.ReasonPace)), j.accountNameHash())) != nil {
		return // its phone has an old password: that is no news
	}
	f := &j.engine.failing
	if id := j.hash(forFailing, 0); f.sources.Get(j.now, id) == nil {
		failed, _ := f.sources.Put(j.now, id)
		*failed = j.key
	}
	f.owners.Seen(j.now, j.engine.id(forOwner, ownerOf(j.key), 0))
	f.accounts.Seen(j.now, account)
	limit := max(j.policy.Storm.Sources, len(j.engine.trusts)/10)
	if f.owners.Live(j.now) < limit || f.accounts.Live(j.now) < limit {
		return
	}
	fresh := !j.engine.stormy()
	j.engine.stormEnd = j.now + int64(j.policy.Storm.Within)
	if j.engine.firstReport(forStorm, key{}, 0) {
		j.decide(ban.ActionObserve, ban.ReasonStorm, j.engine.prefixOf(j.key), 0, j.proven, stormText)
	}
	if !fresh {
		return
	}
	// Who was banned in the minute before it was clear what happens gets in again.
	for k := range f.sources.Values(j.now) {
		b := j.engine.banOf(k)
		if b == nil || b.observed || b.manual || j.now-b.since >= int64(j.policy.Storm.Within) || !j.engine.spareInStorm(k) {
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
