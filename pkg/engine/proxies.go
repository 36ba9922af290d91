package engine

import (
	"fmt"
	"net/netip"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

const (
	// proxyTTL is for how long accounts are counted that log in through one flow.
	proxyTTL = 24 * 60 * minute
	// manyFlows is how many times proxies.accounts that log in from one address, each through a flow of its own, make
	// it a proxy, too: one that opens a connection for each client, or a house of which a ban is no smaller an outage.
	manyFlows = 5
)

// SuspectedProxies returns the sources that look like proxies, and that nobody has allowed or named so.
func (e *Engine) SuspectedProxies() []netip.Prefix {
	found := make(map[netip.Prefix]bool)
	for k, t := range e.trusts {
		if e.isUnnamedProxy(k, t) {
			found[e.prefixOf(k)] = true
		}
	}
	return sortedKeys(found)
}

// isUnnamedProxy says whether a source looks like a proxy, and nobody has allowed or named it so.
func (e *Engine) isUnnamedProxy(k sourceKey, t *trust) bool {
	if t.proxyUntil <= e.now {
		return false
	}
	p := e.prefixOf(k)
	_, named := e.proxies.Containing(p)
	return !named && !e.isFullyExempt(p)
}

// isProxy says whether many customers log in through the source of the event: it is never banned as a whole. It is
// asked when somebody attacks from there.
func (j *judgement) isProxy() bool {
	t := j.rememberedTrust()
	if t != nil && t.proxyUntil > j.now {
		j.doubtProxy(t)
	}
	return j.engine.isProxy(t, j.addr)
}

// doubtProxy looks, once a minute, whether what looks like a proxy has stolen its accounts: most of them logged in
// elsewhere after somebody was first here, in many networks. Who moved to a new proxy does not log in where he was
// before; those whose passwords were stolen go on to do so.
func (j *judgement) doubtProxy(t *trust) {
	if t.doubtedAt != 0 && j.now-t.doubtedAt < minute {
		return
	}
	t.doubtedAt = j.now
	elsewhere, homes := 0, make(map[sourceKey]bool)
	here := j.engine.placeFor(j.addr)
	for id := range t.accounts {
		if at := j.engine.accounts[id].otherPlace(&here); at != nil && at.last > seconds(t.since) &&
			int64(seconds(j.now)-at.last)*second < int64(j.policy.Roaming.Within) {
			elsewhere++
			homes[at.network] = true
		}
	}
	_, named := j.engine.proxies.Covering(j.addr)
	if named || 2*elsewhere <= len(t.accounts) || len(homes) < max(2, j.policy.Proxies.Accounts/4) {
		return
	}
	t.proxyUntil, t.noProxyUntil = 0, j.now+proxyTTL
	j.appendDecision(ban.ActionGuessing, ban.ReasonProxy, j.engine.prefixOf(j.key), 0, true, fmt.Sprintf(
		"it looked like a proxy, but somebody attacks from there, and %d of its accounts log in elsewhere, too: "+
			"perhaps their passwords were stolen; it is taken for no proxy any more, unless policy.proxies names it",
		elsewhere))
}

// otherPlace is where an account, which may be nil, was last, other than here, or nil.
func (a *account) otherPlace(here *accountPlace) (latest *accountPlace) {
	if a == nil {
		return nil
	}
	for i := range a.places {
		if p := &a.places[i]; !p.isSame(here) && (latest == nil || p.last > latest.last) {
			latest = p
		}
	}
	return latest
}

// isProxy says the same of an address whose source has this trust, nil if none.
func (e *Engine) isProxy(t *trust, a netip.Addr) bool {
	if _, named := e.proxies.Covering(a); named {
		return true
	}
	return t != nil && t.proxyUntil > e.now
}

// detectProxy counts the account that logged in through a flow which is new for it, and tells once a day of a source
// that is a proxy by that.
func (j *judgement) detectProxy() {
	limit, t := j.policy.Proxies.Accounts, j.rememberedTrust()
	if limit <= 0 || t == nil || t.noProxyUntil > j.now || j.engine.IsExempt(j.addr) {
		return
	}
	flow := j.engine.hash(forProxyFlow, j.addressKey(),
		uint64(j.event.Remote.AddrPort.Port())<<8|uint64(j.event.Remote.Transport))
	through, _ := j.engine.flowAccounts.Renew(j.now, flow)
	through.Add(seconds(j.now), uint32(proxyTTL/second), j.accountNameHash(), j.engine.sketchBit(j.account))
	how := "one connection"
	n := through.AtLeast()
	if n < limit {
		if n = len(t.accounts); n < manyFlows*limit {
			return
		}
		how = "one address"
	}
	if j.engine.markProxy(j.key, t, j.addr) {
		j.appendDecision(ban.ActionProxy, ban.ReasonProxy, j.engine.prefixOf(j.key), 0, true,
			proxyAdvice(fmt.Sprintf("at least %d accounts log in through %s", n, how)))
	}
}

// detectProxyByContacts does the same for accounts that are registered through one port of a source.
func (e *Engine) detectProxyByContacts(k sourceKey, a netip.Addr, pbx string, accounts int, out []ban.Decision,
) []ban.Decision {
	limit, t := e.policy.Proxies.Accounts, e.activeTrust(k)
	if limit <= 0 || accounts < limit || t == nil || t.noProxyUntil > e.now || e.IsExempt(a) || !e.markProxy(k, t, a) {
		return out
	}
	return append(out, ban.Decision{Time: utcTime(e.now), Action: ban.ActionProxy, Source: a, Prefix: e.prefixOf(k),
		Reason: ban.ReasonProxy, Proven: true, PBX: pbx,
		Detail: proxyAdvice(fmt.Sprintf("%d accounts are registered through one port", accounts))})
}

// markProxy takes a source for a proxy, and says whether that is to be told: once a day.
func (e *Engine) markProxy(k sourceKey, t *trust, a netip.Addr) (told bool) {
	t.proxyUntil = e.now + int64(e.policy.Storm.Memory)
	_, named := e.proxies.Covering(a)
	return !named && !e.slowGuessers.PutOnce(e.now, e.hash(forProxyFlow, k, 0))
}

// proxyAdvice says why a source looks like a proxy, and what to do.
func proxyAdvice(why string) string {
	return why + ": it looks like a proxy, and is never banned as a whole; allow it, or name it in policy.proxies, " +
		"and let a Ringwall at the proxy ban those behind it"
}

// reportThroughProxy reports what would cost a proxy points: each account whose password is guessed once an hour, and
// of the rest each reason.
func (j *judgement) reportThroughProxy(reason ban.Reason) {
	detail := uint64(0)
	if reason == ban.ReasonWrongPassword || reason == ban.ReasonDistributed {
		detail = j.accountNameHash()
	}
	if j.engine.firstReport(forProxyReport, j.key, j.engine.combine(detail, j.engine.hashText(string(reason)))) {
		j.appendDecision(ban.ActionGuessing, reason, j.engine.prefixOf(j.key), 0, j.proven,
			"somebody attacks through a proxy: it is not banned, since customers log in through it; only the proxy "+
				"knows who it is")
	}
}

// configureProxies takes over policy.proxies.
func (e *Engine) configureProxies() {
	e.proxies = table.Prefixes[struct{}]{}
	for _, p := range e.policy.Proxies.Addresses {
		if p.Prefix.IsValid() {
			e.proxies.Set(canonicalPrefix(p.Prefix), struct{}{})
		}
	}
}
