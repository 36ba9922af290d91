package engine

import (
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// contactTTL is how long a registered contact keeps its source trusted without being named again: Asterisk is asked
// every few minutes, and a restart of it must not cost a customer anything.
const contactTTL = 60 * minute

// TrustContacts trusts the sources from which phones are registered, as Asterisk tells by their contacts. Whoever has
// one account's password can register, so a contact is worth what a login is worth: probation, and nothing where trust
// was lost or the login followed guessing. Whoever is on the list no more loses nothing: that trust ends by itself.
// contacts says of each source how many accounts are registered through one port of it: many are a proxy, which a scan
// must not have banned before the first of its customers logs in under our eyes.
func (e *Engine) TrustContacts(now time.Time, pbx string, contacts map[netip.Prefix]int) []ban.Decision {
	e.advanceTime(now)
	guessed := make(map[sourceKey]bool)
	for b := range e.guessedLogins.Values(e.now) {
		if b.until > e.now {
			guessed[b.from] = true
		}
	}
	var out []ban.Decision
	for _, p := range sortedKeys(contacts) {
		n, p := contacts[p], canonicalPrefix(p)
		if !p.IsSingleIP() || p.Addr().IsUnspecified() {
			continue
		}
		k := e.keyOf(p.Addr())
		t := e.trusts[k]
		if t != nil && t.revoked || guessed[k] {
			continue
		}
		if b := e.activeBanOf(k); b != nil && (b.proven || b.manual) {
			continue
		}
		out = e.trustContact(k, p.Addr(), pbx, out)
		out = e.detectProxyByContacts(k, p.Addr(), pbx, n, out)
	}
	return out
}

// trustContact starts or prolongs the trust of one source, and ends its ban.
func (e *Engine) trustContact(k sourceKey, a netip.Addr, pbx string, out []ban.Decision) []ban.Decision {
	s := e.sources.get(k)
	t := e.trusts[k]
	if t == nil {
		if t = e.newTrust(k, s); t == nil {
			return out
		}
	}
	until := e.now + min(contactTTL, int64(e.policy.Trust.TTL))
	fresh := t.until <= e.now
	if fresh {
		t.since, t.endReported, t.failures = e.now, false, nil
		e.setTrustTimer(t, until)
	}
	t.until, t.lastLogin, t.origin = max(t.until, until), e.now, ""
	if fresh {
		out = append(out, ban.Decision{Time: utcTime(e.now), Action: ban.ActionTrust, Source: a, Prefix: e.prefixOf(k),
			Reason: ban.ReasonRegistered, Proven: true, Duration: time.Duration(t.until - e.now), PBX: pbx})
	}
	lifted := []*activeBan{e.activeBanOf(k)}
	for _, net := range e.networksOf(e.prefixOf(k)) { // a ban for its neighbours' sake
		if b := e.bans[net]; b != nil && b.reason == ban.ReasonNetwork && b.until > e.now {
			lifted = append(lifted, b)
		}
	}
	for _, b := range lifted {
		if b == nil {
			continue
		}
		e.removeBan(b)
		if !b.observed {
			out = append(out, e.unbanDecision(b, ban.ReasonRegistered))
		}
	}
	if s != nil {
		e.classifySource(s)
	}
	return out
}
