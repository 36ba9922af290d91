package engine

import (
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

const stormText = "many known good sources fail at once: the fault is at the PBX; they are not banned while it lasts"

// While a PBX has lost its passwords, phones retry in many ways, but none goes on at more than this for one account.
const (
	stormPerMinute = 60
	stormBurst     = 30
)

// failingCustomers is who fails of those that are known to be good, at accounts that worked there before.
type failingCustomers struct {
	sources  *table.Window[sourceKey]
	owners   *table.Window[struct{}] // of addresses: in IPv6 a /48 is one
	accounts *table.Window[struct{}]
}

func newFailingCustomers(ttl int64) failingCustomers {
	return failingCustomers{
		sources:  table.NewWindow[sourceKey](ttl, maxReports),
		owners:   table.NewWindow[struct{}](ttl, maxReports),
		accounts: table.NewWindow[struct{}](ttl, maxReports),
	}
}

func (f *failingCustomers) setTTL(ttl int64) {
	f.sources.SetTTL(ttl)
	f.owners.SetTTL(ttl)
	f.accounts.SetTTL(ttl)
}

// recordStormPace notes a failure at a source that is known to be good, and whether it is one that lost passwords do not explain:
// of accounts that never worked there, or faster than phones retry.
func (j *judgement) recordStormPace(t *trust, loggedInHere bool, one *failures) {
	b := &t.stormPace
	if loggedInHere {
		b = &one.stormPace
	}
	if b.Add(j.now, 1, stormPerMinute) > stormBurst {
		t.beyondStormAt = j.now
	}
}

// explainedByStorm says whether lost passwords explain all that a source has done within the last while.
func (t *trust) explainedByStorm(now int64) bool {
	return t.beyondStormAt == 0 || now-t.beyondStormAt >= idleResetSeconds*second
}

// detectStorm notes that an account fails where it worked before, and notices when many do: of different accounts, at
// different customers, none of them forged, and none faster than phones retry. Else an attacker could make a storm, by
// packets in customers' names or with one stolen account.
func (j *judgement) detectStorm(t *trust, account uint64) {
	if j.policy.Storm.Sources <= 0 || !j.proven || !j.engine.isCustomer(j.key) || !t.explainedByStorm(j.now) {
		return
	}
	if j.engine.reports.Get(j.now, j.hash(forMisconfigured+purpose(reasonIndex(ban.ReasonPace)), j.accountNameHash())) != nil {
		return // its phone has an old password: that is no news
	}
	f := &j.engine.failingCustomers
	if id := j.hash(forFailingCustomer, 0); f.sources.Get(j.now, id) == nil {
		failed, _ := f.sources.Put(j.now, id)
		*failed = j.key
	}
	f.owners.Seen(j.now, j.engine.hash(forOwner, ownerNetwork(j.key), 0))
	f.accounts.Seen(j.now, account)
	limit := max(j.policy.Storm.Sources, len(j.engine.trusts)/10)
	if f.owners.Live(j.now) < limit || f.accounts.Live(j.now) < limit {
		return
	}
	fresh := !j.engine.inStorm()
	j.engine.stormUntil = j.now + int64(j.policy.Storm.Within)
	if j.engine.firstReport(forStorm, sourceKey{}, 0) {
		j.decide(ban.ActionObserve, ban.ReasonStorm, j.engine.prefixOf(j.key), 0, j.proven, stormText)
	}
	if !fresh {
		return
	}
	// Who was banned in the minute before it was clear what happens gets in again.
	for k := range f.sources.Values(j.now) {
		b := j.engine.activeBanOf(k)
		if b == nil || b.observed || b.manual || j.now-b.since >= int64(j.policy.Storm.Within) || !j.engine.sparedByStorm(k) {
			continue
		}
		j.engine.suspendedBans++
		j.out = append(j.out, j.engine.endBans([]*activeBan{b}, ban.ReasonStorm, stormText)...)
	}
}

// inStorm says whether many known good sources fail at the moment.
func (e *Engine) inStorm() bool { return e.stormUntil > e.now }

// sparedByStorm says whether a storm explains what a source does. It may have cost it its trust just before it was noticed.
func (e *Engine) sparedByStorm(k sourceKey) bool {
	t := e.trusts[k]
	return t != nil && t.explainedByStorm(e.now) && e.now-t.lastLogin < int64(e.policy.Storm.Memory) &&
		(!t.revoked || e.now-t.until < int64(e.policy.Storm.Within))
}
