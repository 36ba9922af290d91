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
	// goodFlowRenewals is how often within trust.flow_ttl logins prolong a good flow in the kernel, at most.
	goodFlowRenewals = 8
	// sweptFlows is how many good flows one Tick looks at, to forget those that are over.
	sweptFlows = 256
)

// goodFlow is a flow from which somebody logged in with a password. Times are in ns.
type goodFlow struct {
	until     int64
	writtenAt int64 // when the kernel was last told of it
}

// flow is the sender of the event; not valid where Asterisk does not tell its port.
func (j *judgement) flow() ban.Flow {
	return ban.Flow{UDP: !j.event.Remote.Transport.Proven(),
		Source: netip.AddrPortFrom(j.addr.WithZone(""), j.event.Remote.AddrPort.Port())}
}

// isGoodFlow says whether somebody logged in from a flow of late.
func (e *Engine) isGoodFlow(f ban.Flow) bool { return e.goodFlows[f].until > e.now }

// keepFlowGood has the flow of a login pass before bans: whatever happens to its address, this phone stays registered.
func (j *judgement) keepFlowGood() {
	f, e := j.flow(), j.engine
	if j.event.Service != event.PJSIP || !f.IsValid() || j.policy.Trust.FlowTTL == 0 {
		return
	}
	have, ok := e.goodFlows[f]
	if !ok && len(e.goodFlows) >= maxGoodFlows {
		e.hitLimits["good_flows"]++
		return
	}
	ttl := int64(j.policy.Trust.FlowTTL)
	have.until = j.now + ttl
	if !ok || j.now-have.writtenAt >= ttl/goodFlowRenewals {
		have.writtenAt = j.now
		e.changed = append(e.changed, Element{Kind: GoodFlow, Flow: f, Left: time.Duration(ttl)})
	}
	e.goodFlows[f] = have
}

// AdoptFlow takes over a good flow that was found in the kernel at start.
func (e *Engine) AdoptFlow(now time.Time, f ban.Flow, left time.Duration) {
	e.advance(now)
	if left = min(left, e.policy.Trust.FlowTTL); left <= 0 || !f.IsValid() || len(e.goodFlows) >= maxGoodFlows {
		return
	}
	e.goodFlows[f] = goodFlow{until: max(e.goodFlows[f].until, e.now+int64(left))}
}

// SampleFlows returns up to n good flows, others each time, with the time that they have left in the kernel: there they
// are not prolonged by every login.
func (e *Engine) SampleFlows(now time.Time, n int) []Element {
	e.advance(now)
	var out []Element
	looks := 4 * n
	for f, have := range e.goodFlows { // a map's order begins anywhere
		if looks--; looks < 0 || len(out) == n {
			break
		}
		until := have.until
		if have.writtenAt != 0 {
			until = min(until, have.writtenAt+int64(e.policy.Trust.FlowTTL))
		}
		if until > e.now {
			out = append(out, Element{Kind: GoodFlow, Flow: f, Left: time.Duration(until - e.now)})
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
			delete(e.goodFlows, f)
		}
	}
}
