package engine

import (
	"slices"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

const (
	accountsPerTrust = 1024 // that are remembered to have logged in from one source
	failuresPerTrust = 64   // accounts that are remembered to fail at one source
)

// trust is what is known of a source whose users logged in with a password. It is kept for storm.memory after the last
// login, as the memory of who is a customer. Times are in ns.
type trust struct {
	key sourceKey

	// How long it lasts.
	since       int64
	until       int64
	lastLogin   int64
	timerAt     int64 // of the one timer that counts; others of this source are left over
	endReported bool
	origin      string // the node of the fleet that told of it; empty: it is of this one
	revoked     bool   // it ended early: only a login brings it back

	proxyUntil   int64 // until then it is a proxy; see detectProxy
	noProxyUntil int64 // until then it is none, whoever logs in; see isThief
	doubtedAt    int64 // when isThief last looked

	// Who logs in, and who fails.
	accounts map[uint64]string            // names of those that logged in, by hashAccount
	failures map[uint64]*customerFailures // of the accounts that failed worst within trust.ttl, by hashAccount

	// Whether a PBX that lost its passwords explains the failures.
	stormPace     table.LeakyBucket // failures of accounts that never logged in from there; see recordStormPace
	beyondStormAt int64             // when there was last more than that explains; 0 for never
	cutAt         int64             // when a flow of it was last cut; 0 for never
}

// activeTrust returns the trust of a source while it lasts.
func (e *Engine) activeTrust(k sourceKey) *trust {
	if t := e.trusts[k]; t != nil && t.until > e.now {
		return t
	}
	return nil
}

// sourceTrust returns the trust of the source of the event while it lasts.
func (j *judgement) sourceTrust() *trust {
	if t := j.rememberedTrust(); t != nil && t.until > j.now {
		return t
	}
	return nil
}

// rememberedTrust returns the trust of the source of the event, whether or not it lasts, or nil. It is looked up once.
func (j *judgement) rememberedTrust() *trust {
	if !j.trustLoaded {
		j.trustLoaded = true
		if s := j.findSource(); s == nil || s.hasTrust { // the source itself may have been forgotten meanwhile
			j.trust = j.engine.trusts[j.key]
		}
	}
	return j.trust
}

// isCustomer says whether somebody logged in from a source within storm.memory, and it did not lose its trust by
// failing.
func (e *Engine) isCustomer(k sourceKey) bool { return e.isOfCustomer(e.trusts[k]) }

// isOfCustomer is isCustomer by the trust of the source, or nil.
func (e *Engine) isOfCustomer(t *trust) bool {
	return t != nil && !t.revoked && e.now-t.lastLogin < int64(e.policy.Storm.Memory)
}

// loggedInHere says whether an account logged in from the source of the event, and the source did not lose its trust
// since.
func (j *judgement) loggedInHere(id uint64) bool {
	t := j.rememberedTrust()
	if t == nil || t.revoked {
		return false
	}
	_, ok := t.accounts[id]
	return ok
}

// newTrust makes a trust that has not begun, of a source that may not be remembered; nil where there is no room.
func (e *Engine) newTrust(k sourceKey, s *source) *trust {
	if len(e.trusts) >= e.policy.MaxSources {
		e.hitLimits["max_sources"]++
		return nil
	}
	t := &trust{key: k, accounts: make(map[uint64]string)}
	e.addTrust(t)
	if s != nil {
		s.hasTrust = true
	}
	return t
}

// grantTrust starts or prolongs the trust of the source of the event, s, after a login of an account.
func (j *judgement) grantTrust(s *source, id uint64) {
	t := j.rememberedTrust()
	if t == nil {
		if t = j.engine.newTrust(j.key, s); t == nil {
			return
		}
		j.trust = t
	}
	fresh := t.until <= j.now
	if fresh {
		t.since, t.endReported, t.revoked, t.failures = j.now, false, false, nil
		if s != nil {
			j.engine.sources.detailsOf(s).challengedAccounts = table.Distinct{}
		}
		j.engine.setTrustTimer(t, j.now+int64(j.policy.Trust.TTL))
	}
	t.until, t.lastLogin, t.origin = j.now+int64(j.policy.Trust.TTL), j.now, ""
	if _, ok := t.accounts[id]; !ok && len(t.accounts) < accountsPerTrust {
		t.accounts[id] = truncateAccount(j.event.Account)
	}
	delete(t.failures, id)
	if fresh {
		if s != nil {
			j.score = float64(s.score)
			j.recordEvidence(s, 0, ban.ReasonLogin, noteLogin)
		}
		j.appendDecision(ban.ActionTrust, ban.ReasonLogin, j.engine.prefixOf(j.key), j.policy.Trust.TTL, true, "")
	}
}

// revokeTrust ends a trust early.
func (j *judgement) revokeTrust(t *trust, reason ban.Reason, detail string) {
	t.until, t.endReported, t.revoked = j.now, true, true
	j.appendDecision(ban.ActionUntrust, reason, j.engine.prefixOf(t.key), 0, true, detail)
}

// addTrust enters a trust into all that counts trusts.
func (e *Engine) addTrust(t *trust) {
	e.trusts[t.key] = t
	e.trustsByOwner[ownerNetwork(t.key)]++
}

// removeTrust takes a trust out of all that counts trusts.
func (e *Engine) removeTrust(k sourceKey) {
	delete(e.trusts, k)
	owner := ownerNetwork(k)
	if e.trustsByOwner[owner]--; e.trustsByOwner[owner] <= 0 {
		delete(e.trustsByOwner, owner)
	}
}

// setTrustTimer sets the timer that counts for a trust.
func (e *Engine) setTrustTimer(t *trust, at int64) {
	t.timerAt = at
	e.setTimer(at, e.prefixOf(t.key), endOfTrust)
}

// endDueTrust handles the timer of a trust: first trust ends, later the memory of a customer.
func (e *Engine) endDueTrust(tm timer, out []ban.Decision) []ban.Decision {
	k, ok := e.keyOfPrefix(tm.prefix)
	t := e.trusts[k]
	if !ok || t == nil || t.timerAt != tm.at {
		return out
	}
	if t.until > e.now {
		e.setTrustTimer(t, t.until)
		return out
	}
	if !t.endReported {
		t.endReported = true
		out = append(out, ban.Decision{Time: utcTime(e.now), Action: ban.ActionUntrust, Source: tm.prefix.Addr(),
			Prefix: tm.prefix, Reason: ban.ReasonExpired, Proven: true})
	}
	s := e.sources.get(k)
	t.failures = nil
	if memory := t.lastLogin + int64(e.policy.Storm.Memory); memory > e.now {
		e.setTrustTimer(t, memory)
	} else {
		e.removeTrust(k)
		if s != nil {
			s.hasTrust = false
		}
	}
	if s != nil {
		e.classifySource(s)
	}
	return out
}

// accountNames lists the accounts that logged in, in order.
func (t *trust) accountNames() []string {
	names := make([]string, 0, len(t.accounts))
	for _, name := range t.accounts {
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names) // one may be of several Asterisks, or services
}
