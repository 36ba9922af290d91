package engine

import (
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
)

const (
	// maxGoodFlows is how many flows are remembered to be good. Who makes more of them knows passwords.
	maxGoodFlows = 1 << 18
	// maxFlowsOfAccount is how many of them one account may have: more than anybody has phones.
	maxFlowsOfAccount = 64
	// goodFlowRenewals is how often within trust.flow_ttl logins prolong a good flow in the kernel, at most.
	goodFlowRenewals = 8
	// sweptFlows is how many good flows one Tick looks at, to forget those that are over.
	sweptFlows = 256
)

// goodFlow is a flow from which somebody logged in with a password.
type goodFlow struct {
	until   int64  // it passes, in the kernel, too: ns
	account uint64 // that logged in first, by hashAccount
}

// senderFlow is the sender of the event; not valid where Asterisk does not tell its port.
func (j *judgement) senderFlow() ban.Flow {
	return ban.Flow{UDP: !j.event.Remote.Transport.Proven(),
		Source: netip.AddrPortFrom(j.addr.WithZone(""), j.event.Remote.AddrPort.Port())}
}

// isGoodFlow says whether somebody logged in from a flow of late.
func (e *Engine) isGoodFlow(f ban.Flow) bool { return e.goodFlows[f].until > e.now }

// keepFlowGood has the flow of a login pass before bans: whatever happens to its address, this phone stays registered.
func (j *judgement) keepFlowGood(id uint64, a *account) {
	f, e := j.senderFlow(), j.engine
	if j.event.Service != event.PJSIP || !f.IsValid() || j.policy.Trust.FlowTTL == 0 {
		return
	}
	have, ok := e.goodFlows[f]
	if !ok && (len(e.goodFlows) >= maxGoodFlows || a == nil || a.goodFlows >= maxFlowsOfAccount) {
		e.hitLimits["good_flows"]++
		return
	}
	ttl := int64(j.policy.Trust.FlowTTL)
	if have.until-j.now > ttl-ttl/goodFlowRenewals {
		return
	}
	if !ok {
		have.account = id
		a.goodFlows++
	}
	have.until = j.now + ttl
	e.goodFlows[f] = have
	e.changed = append(e.changed, Element{Kind: GoodFlow, Flow: f, Left: time.Duration(ttl)})
}

// forgetGoodFlow forgets that a flow is good, if it is, and has the kernel do so.
func (e *Engine) forgetGoodFlow(f ban.Flow) {
	have, ok := e.goodFlows[f]
	if !ok {
		return
	}
	if a := e.accounts[have.account]; a != nil && a.goodFlows > 0 {
		a.goodFlows--
	}
	delete(e.goodFlows, f)
	if have.until > e.now {
		e.changed = append(e.changed, Element{Kind: GoodFlow, Flow: f, Remove: true})
	}
}

// AdoptFlow takes over a good flow that was found in the kernel at start.
func (e *Engine) AdoptFlow(now time.Time, f ban.Flow, left time.Duration) {
	e.advanceTime(now)
	if left = min(left, e.policy.Trust.FlowTTL); left <= 0 || !f.IsValid() || len(e.goodFlows) >= maxGoodFlows {
		return
	}
	have := e.goodFlows[f]
	have.until = max(have.until, e.now+int64(left))
	e.goodFlows[f] = have
}

// SampleFlows returns up to n good flows, others each time, with the time that they have left.
func (e *Engine) SampleFlows(now time.Time, n int) []Element {
	e.advanceTime(now)
	var out []Element
	looks := 4 * n
	for f, have := range e.goodFlows { // a map's order begins anywhere
		if looks--; looks < 0 || len(out) == n {
			break
		}
		if have.until > e.now {
			out = append(out, Element{Kind: GoodFlow, Flow: f, Left: time.Duration(have.until - e.now)})
		}
	}
	return out
}

// sweepFlows forgets good flows that are over, of some that it looks at.
func (e *Engine) sweepFlows() {
	looks := sweptFlows
	for f, have := range e.goodFlows { // a map's order begins anywhere
		if looks--; looks < 0 {
			return
		}
		if have.until <= e.now {
			e.forgetGoodFlow(f)
		}
	}
}
