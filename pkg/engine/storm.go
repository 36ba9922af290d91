package engine

import (
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

const stormText = "many known good sources fail at once: the fault is at the PBX; they are not banned while it lasts"

// While a PBX has lost its passwords, phones retry in many ways, but none goes on at more than this for one account.
const (
	stormPerMinute = 60
	stormBurst     = 30 // failures at once
)

// failingCustomers remembers for storm.within which customers fail with accounts that logged in from there before.
type failingCustomers struct {
	sources  *table.Window[sourceKey]
	owners   *table.Window[struct{}] // by the ownerNetwork of a source
	accounts *table.Window[struct{}] // by hashAccount
}

// newFailingCustomers remembers customers for a time in ns.
func newFailingCustomers(ttl int64) failingCustomers {
	return failingCustomers{
		sources:  table.NewWindow[sourceKey](ttl, maxReports),
		owners:   table.NewWindow[struct{}](ttl, maxReports),
		accounts: table.NewWindow[struct{}](ttl, maxReports),
	}
}

// setTTL changes that time.
func (f *failingCustomers) setTTL(ttl int64) {
	f.sources.SetTTL(ttl)
	f.owners.SetTTL(ttl)
	f.accounts.SetTTL(ttl)
}

// recordStormPace counts a failure of an account at a customer's source, and notes where there are more than lost
// passwords of a PBX explain: of one account that logged in from there, or of all others together.
func (j *judgement) recordStormPace(t *trust, loggedInHere bool, one *failures) {
	b := &t.stormPace
	if loggedInHere {
		b = &one.stormPace
	}
	if b.Add(j.now, 1, stormPerMinute) > stormBurst {
		t.beyondStormAt = j.now
	}
}

// explainedByStorm says whether lost passwords of a PBX explain all that a source has done within idleResetSeconds.
func (t *trust) explainedByStorm(now int64) bool {
	return t.beyondStormAt == 0 || now-t.beyondStormAt >= idleResetSeconds*second
}

// detectStorm notes that an account fails where it logged in before, and begins a storm when many do: different
// accounts, at different customers, none of it forged, and none faster than phones retry. Less would let an attacker
// make a storm, by packets in customers' names or with one stolen account.
func (j *judgement) detectStorm(t *trust, account uint64) {
	if j.policy.Storm.Sources <= 0 || !j.proven || !j.engine.isOfCustomer(t) || !t.explainedByStorm(j.now) ||
		t.cutAt != 0 && j.now-t.cutAt < cutRemembered {
		return
	}
	reported := j.hash(forMisconfigured+purpose(reasonIndex(ban.ReasonPace)), j.accountNameHash())
	if j.engine.reports.Get(j.now, reported) != nil {
		return // its phone had an old password before
	}
	f := &j.engine.failingCustomers
	if id := j.hash(forFailingCustomer, 0); f.sources.Get(j.now, id) == nil {
		failed, _ := f.sources.Put(j.now, id)
		*failed = j.key
	}
	f.owners.PutOnce(j.now, j.engine.hash(forOwner, ownerNetwork(j.key), 0))
	f.accounts.PutOnce(j.now, account)
	limit := max(j.policy.Storm.Sources, len(j.engine.trusts)/10)
	if f.owners.Live(j.now) < limit || f.accounts.Live(j.now) < limit {
		return
	}
	fresh := !j.engine.inStorm()
	j.engine.stormUntil = j.now + int64(j.policy.Storm.Within)
	if j.engine.firstReport(forStorm, sourceKey{}, 0) {
		j.appendDecision(ban.ActionObserve, ban.ReasonStorm, j.engine.prefixOf(j.key), 0, j.proven, stormText)
	}
	if !fresh {
		return
	}
	// Who was banned just before it was clear what happens gets in again.
	for k := range f.sources.Values(j.now) {
		if j.engine.sparedByStorm(k) {
			j.engine.endLane(k)
		}
		b := j.engine.activeBanOf(k)
		if b == nil || b.observed || b.manual || j.now-b.since >= int64(j.policy.Storm.Within) ||
			!j.engine.sparedByStorm(k) {
			continue
		}
		j.engine.suspendedBans++
		j.out = append(j.out, j.engine.endBans([]*activeBan{b}, ban.ReasonStorm, stormText)...)
	}
}

// cutRemembered is how long a source of which a flow was cut makes no storm: with a stolen account, anybody is a
// customer.
const cutRemembered = 24 * 60 * minute

// inStorm says whether many customers fail at the moment.
func (e *Engine) inStorm() bool { return e.stormUntil > e.now }

// sparedByStorm says whether a storm explains what a source does, which may have lost its trust just before the storm
// was noticed.
func (e *Engine) sparedByStorm(k sourceKey) bool {
	t := e.trusts[k]
	return t != nil && t.explainedByStorm(e.now) && e.now-t.lastLogin < int64(e.policy.Storm.Memory) &&
		(!t.revoked || e.now-t.until < int64(e.policy.Storm.Within))
}
