package engine

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine/internal/table"
)

const (
	// leakGrace is how long after a ban events of its source say nothing: what was in Asterisk's sockets and queues by
	// then is still worked off, and the kernel may have the ban a little later than the engine.
	leakGrace = 5 * second
	// clockTolerance is how far apart the clocks of Asterisk and of this machine may be; no event is on its way for so
	// long.
	clockTolerance = 5 * minute
	// maxLeaking bounds the sources of which is known that they were reported within the last hour.
	maxLeaking = 1 << 16
	// leakBurst and leakEvery bound the reports: where bans stop nothing at all, every banned source gets through.
	leakBurst = 30
	leakEvery = minute
)

// leaks is what is known of banned sources whose packets reach Asterisk all the same.
type leaks struct {
	watched  bool
	reported *table.Window[struct{}] // reported, or left out for the bound, within the last hour
	events   uint64
	last     int64 // event, ns; 0 for none
	budget   int   // reports that may be made at once
	budgetAt int64 // when it was last filled up, ns
	// Enforced bans of prefixes that are not one source, by length: of networks, or whatever a person typed.
	networkBans4 [33]int32
	networkBans6 [129]int32
	networkBans  int // of all lengths together
}

// leak is what a ban did not keep out.
type leak struct {
	last      int64 // ns
	events    uint32
	port      uint16 // of Asterisk, as it calls it
	transport event.Transport
}

// WatchLeaks says that a kernel holds the bans of this engine, so that an event of a banned source means that its
// packets get through. Without it, as in a replay of what happened without Ringwall, no Leak is decided.
func (e *Engine) WatchLeaks() { e.leaks.watched = true }

// reportLeak reports an event of a source that the kernel should have kept out: once an hour for each source.
func (j *judgement) reportLeak() {
	if !j.engine.leaks.watched || j.engine.enforcedBans == 0 {
		return
	}
	// chan_sip reports whatever address the attacker writes. Packets of this machine to itself are let in before any
	// ban.
	if j.event.Service == event.SIP || j.addr.IsLoopback() {
		return
	}
	b := j.enforcedBanCovering()
	if b == nil || j.engine.IsExempt(j.addr) || j.mayPass(b) {
		return
	}
	since := max(b.since, b.shut, j.engine.started) // bans of before were put into the kernel then
	if j.now-since < leakGrace || j.clocksAgree(j.event.Time) && j.event.Time.UnixNano()-since < leakGrace {
		return
	}
	j.engine.leaks.events++
	j.engine.leaks.last = j.now
	if b.leak == nil {
		b.leak = new(leak)
	}
	local := j.event.Local
	if local.Transport == event.NoTransport {
		local.Transport = j.event.Remote.Transport
	}
	b.leak.last, b.leak.port, b.leak.transport = j.now, local.AddrPort.Port(), local.Transport
	b.leak.events++
	if j.engine.leaks.reported.PutOnce(j.now, j.hash(forLeak, 0)) || !j.engine.leaks.mayReport(j.now) {
		return
	}
	j.points, j.score = 0, 0
	if s := j.findSource(); s != nil {
		j.score = float64(s.score * j.engine.decayFactor(j.now-s.lastSeen))
	}
	j.appendDecision(ban.ActionLeak, b.reason, b.prefix, 0, j.proven, leakText(local, time.Duration(j.now-b.since)))
}

// mayPass says whether a ban leaves open what the event came through.
func (j *judgement) mayPass(b *activeBan) bool {
	switch overTCP := j.event.Remote.Transport.Proven(); {
	case !b.manual && j.engine.isGoodFlow(j.senderFlow()):
		return true
	case b.closes == ban.ClosesUDP:
		return overTCP || !j.engine.isShut(b)
	case b.closes == ban.ClosesManager:
		return j.event.Service != event.AMI
	case b.closes == ban.ClosesSIP:
		return j.event.Service == event.AMI
	}
	return false
}

// clocksAgree says whether a time of Asterisk's clock can be compared with the engine's: of a PBX whose clock is wrong,
// every event would seem to be from before the ban, or none.
func (j *judgement) clocksAgree(at time.Time) bool {
	off := j.now - at.UnixNano()
	return !at.IsZero() && off < clockTolerance && off > -clockTolerance
}

// enforcedBanCovering returns an enforced ban that covers the source of the event, or nil.
func (j *judgement) enforcedBanCovering() *activeBan {
	if s := j.findSource(); s == nil || s.banned {
		if b := j.engine.activeBanOf(j.key); b != nil && !b.observed {
			return b
		}
	}
	if j.engine.leaks.networkBans == 0 {
		return nil
	}
	lengths := j.engine.leaks.networkBans4[:]
	if j.addr.Is6() {
		lengths = j.engine.leaks.networkBans6[:]
	}
	for bits, n := range lengths {
		if n == 0 {
			continue
		}
		p, _ := j.addr.Prefix(bits)
		if b := j.engine.bans[p]; b != nil && !b.observed && b.until > j.now {
			return b
		}
	}
	return nil
}

// countNetworkBan adds n to the enforced bans of a prefix, if it is not one source.
func (e *Engine) countNetworkBan(p netip.Prefix, n int) {
	if _, ok := e.keyOfPrefix(p); ok {
		return
	}
	e.leaks.networkBans += n
	if p.Addr().Is4() {
		e.leaks.networkBans4[p.Bits()] += int32(n)
	} else {
		e.leaks.networkBans6[p.Bits()] += int32(n)
	}
}

// mayReport takes one report from the budget, and says whether there was one.
func (l *leaks) mayReport(now int64) bool {
	if l.budgetAt == 0 {
		l.budget, l.budgetAt = leakBurst, now
	}
	if n := (now - l.budgetAt) / leakEvery; n > 0 {
		l.budget = int(min(leakBurst, int64(l.budget)+n))
		l.budgetAt += n * leakEvery
	}
	if l.budget == 0 {
		return false
	}
	l.budget--
	return true
}

// leakText says where a banned source came in, and what that may be.
func leakText(local event.Address, after time.Duration) string {
	where := "Asterisk"
	if local.AddrPort.Port() != 0 {
		where = fmt.Sprintf("%s %v", local.Transport, local.AddrPort)
	}
	return fmt.Sprintf("%s after its ban it still reaches %s: is that port among firewall.ports (or ports: auto), "+
		"and do its packets come through this machine?", after.Round(time.Second), where)
}

// leakStats adds what is known of leaks.
func (e *Engine) leakStats(s *Stats) {
	s.Leaks, s.Leaking = e.leaks.events, e.leaks.reported.Live(e.now)
	if e.leaks.last != 0 {
		at := utcTime(e.leaks.last)
		s.LastLeak = &at
	}
}

// describe is what is shown of a leak.
func (l *leak) describe() *ban.Leak {
	if l == nil {
		return nil
	}
	return &ban.Leak{Last: utcTime(l.last), Events: int(l.events), Port: l.port, Transport: l.transport.String()}
}
