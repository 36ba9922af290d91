package pipeline

import (
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/firewall"
)

// exemptionsLocked compares what the kernel lets pass with what the engine says it should, and returns the difference.
func (p *Pipeline) exemptionsLocked() []firewall.Change {
	var changes []firewall.Change
	want := make(map[netip.Prefix]bool)
	for _, prefix := range p.engine.ExemptPrefixes() {
		want[prefix] = true
		if !p.kernelExemptions[prefix] {
			changes = append(changes, firewall.Change{Kind: firewall.Allow, Prefix: prefix})
		}
	}
	for prefix := range p.kernelExemptions {
		if !want[prefix] {
			changes = append(changes, firewall.Change{Kind: firewall.Allow, Prefix: prefix, Remove: true})
		}
	}
	p.kernelExemptions = want
	return changes
}

// DesiredChanges is everything that the kernel should hold: what its writer builds the table from.
func (p *Pipeline) DesiredChanges() []firewall.Change {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock.Now()
	var all []firewall.Change
	for prefix := range p.kernelExemptions {
		all = append(all, firewall.Change{Kind: firewall.Allow, Prefix: prefix})
	}
	for _, el := range p.engine.FlowElements(now) { // good ones are there before a ban is
		all = append(all, p.firewallChangesLocked(el)...)
	}
	for _, el := range p.engine.EnforcedBans(now) {
		all = append(all, p.firewallChangesLocked(el)...)
	}
	if p.meter {
		all = append(all, p.trustLocked(now)...)
	}
	return all
}

// sampledFlows is how many good flows are looked for beside bans.
const sampledFlows = 4

// sampledRare is how many of each kind of what there are few of.
const sampledRare = 2

// SampleDesired returns some bans, about n, and of all else that the kernel should hold some, too, to look for there:
// different ones each time, and some from each set, since somebody may flush one alone.
func (p *Pipeline) SampleDesired(n int) []firewall.Change {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []firewall.Change
	for _, el := range p.engine.SampleBans(p.clock.Now(), n) {
		out = append(out, p.firewallChangesLocked(el)...)
	}
	for _, el := range p.engine.SampleFlows(p.clock.Now(), sampledFlows) {
		out = append(out, p.firewallChangesLocked(el)...)
	}
	for _, el := range p.engine.SampleRare(p.clock.Now(), sampledRare) {
		out = append(out, p.firewallChangesLocked(el)...)
	}
	return out
}

// trustLocked is what the meter spares.
func (p *Pipeline) trustLocked(now time.Time) []firewall.Change {
	var all []firewall.Change
	for _, t := range p.engine.TrustedSources(now) {
		all = append(all, p.firewallChangesLocked(t)...)
	}
	return all
}

// SetMeter says whether the kernel has a meter, which spares who is trusted.
func (p *Pipeline) SetMeter(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.meter = on
}

// RefreshTrust prolongs trust in the kernel, where the meter spares it: the engine prolongs it with every login.
func (p *Pipeline) RefreshTrust() {
	p.mu.Lock()
	flush := func() {}
	if p.meter {
		flush = p.writer.Submit(p.trustLocked(p.clock.Now()), nil)
	}
	p.mu.Unlock()
	flush()
}
