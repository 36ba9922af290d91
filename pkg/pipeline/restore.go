package pipeline

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/store"
)

const (
	maxReleased = 1 << 16 // bans that end while others are brought back
	maxWithin   = 1000    // prefixes that persons let in meanwhile
	endsSoon    = 2 * time.Second
)

// releasedPrefixes is what ended while the bans of before were being brought back: it must not come back from the file,
// or from a list of the kernel's that was made a moment earlier.
type releasedPrefixes struct {
	prefixes map[netip.Prefix]bool
	within   []netip.Prefix // what persons let in
	all      bool
}

func (r *releasedPrefixes) add(prefix netip.Prefix) {
	if r.prefixes == nil {
		r.prefixes = make(map[netip.Prefix]bool)
	}
	if r.prefixes[prefix] = true; len(r.prefixes) > maxReleased {
		r.all, r.prefixes = true, nil // rather let an attacker in than keep a customer out
	}
}

func (r *releasedPrefixes) has(prefix netip.Prefix) bool {
	return r.all || r.prefixes[prefix] || slices.ContainsFunc(r.within, prefix.Overlaps)
}

// BeginRestoring gives the engine what spares customers, which comes before the first event, and takes out of the
// kernel what should not be there: allowed prefixes of an earlier configuration. In observe mode bans stay, too, as
// they do after a reload: that mode makes none.
func (p *Pipeline) BeginRestoring(fw firewall.Firewall, stored store.State, pbxs []string) error {
	allowed, err := fw.Elements(firewall.Allow)
	if err != nil {
		return err
	}
	good, err := fw.Elements(firewall.Good)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock.Now()
	for _, a := range stored.Allow {
		if a.Prefix.IsValid() {
			p.engine.AllowUntil(now, a.Prefix, a.Until, a.Note)
		}
	}
	p.engine.Restore(now, engine.State{Trusts: stored.Trusts, Graces: stored.Graces}, pbxs)
	for _, el := range good {
		f := ban.Flow{UDP: el.Flow.Transport == firewall.UDP, Source: el.Flow.Source}
		p.engine.AdoptFlow(now, f, el.Remaining)
	}
	p.kernelExemptions = make(map[netip.Prefix]bool)
	for _, el := range allowed {
		p.kernelExemptions[el.Prefix] = true
	}
	p.restoring = true
	return fw.Apply(p.exemptionsLocked())
}

// restoreStored gives the engine bans and offenders that were stored. It returns what is to be written to the kernel:
// nothing while the writer has not begun, since that begins with all that is known.
func (p *Pipeline) restoreStored(bans []ban.Ban, offenders []ban.Offender) (changes []firewall.Change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock.Now()
	bans = slices.DeleteFunc(bans, func(b ban.Ban) bool { return p.released.has(b.Prefix) })
	p.engine.Restore(now, engine.State{Bans: bans, Offenders: offenders}, nil)
	if !p.running {
		return nil
	}
	for i := range bans {
		if el, ok := p.engine.BanElement(now, bans[i].Prefix); ok {
			for _, c := range p.firewallChangesLocked(el) {
				c.Known = true
				changes = append(changes, c)
			}
		}
	}
	return changes
}

// adoptFromKernel takes over bans that only the kernel knows, and returns what the kernel should not have.
func (p *Pipeline) adoptFromKernel(list []firewall.Element) (changes []firewall.Change, adopted int, running bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock.Now()
	var unsaved []store.Change
	for _, el := range list {
		before, known := p.engine.BanRemaining(now, el.Prefix)
		switch {
		case known && p.running: // it was written just now
			continue
		case el.Remaining < endsSoon && !known: // the kernel ends it by itself
			continue
		case p.released.has(el.Prefix):
			changes = append(changes, firewall.Change{Kind: firewall.Ban, Prefix: el.Prefix, Closes: el.Closes,
				Remove: true})
			continue
		}
		p.engine.AdoptBan(now, el.Prefix, closesOf(el.Closes), now.Add(el.Remaining))
		left, ok := p.engine.BanRemaining(now, el.Prefix)
		if !ok { // somebody whom nobody bans any more
			changes = append(changes, firewall.Change{Kind: firewall.Ban, Prefix: el.Prefix, Closes: el.Closes,
				Remove: true})
			continue
		}
		if !known {
			adopted++
		}
		// The kernel has a ban at once, the file within a second: after a crash in between, it has only the kernel's
		// word.
		if b, _ := p.engine.BanOf(el.Prefix); p.store != nil && left-before > time.Second {
			unsaved = p.offenderLocked(el.Prefix, append(unsaved, store.PutBan(b)))
		}
	}
	p.SaveChanges(unsaved)
	return changes, adopted, p.running
}

// startJudging says that events are judged from now on, although bans of before are still being brought back.
func (p *Pipeline) startJudging() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = true
}

// endRestoring ends what is only done while the bans of before come back.
func (p *Pipeline) endRestoring() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.released, p.restoring = releasedPrefixes{}, false
}
