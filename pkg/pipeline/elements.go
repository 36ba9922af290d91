package pipeline

import (
	"net/netip"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/firewall"
)

// firewallChangesLocked are what brings the kernel to an element of the engine's.
func (p *Pipeline) firewallChangesLocked(el engine.Element) []firewall.Change {
	c := firewall.Change{Prefix: el.Prefix, Timeout: max(el.Left, firewall.MinTimeout), Remove: el.Remove}
	switch el.Kind {
	case engine.BanOfPrefix:
		c.Kind, c.Manual = firewall.Ban, el.Manual
		return p.banChangesLocked(c, el)
	case engine.TrustedSource:
		c.Kind = firewall.Trust
	case engine.SlowSource:
		c.Kind, c.Pace = firewall.Slow, firewallPace(el.Pace)
	case engine.GoodFlow:
		c.Kind, c.Flow = firewall.Good, firewallFlow(el.Flow)
	case engine.CutFlow:
		c.Kind, c.Flow = firewall.Cut, firewallFlow(el.Flow)
	case engine.SlowFlow:
		c.Kind, c.Flow, c.Pace = firewall.Slow, firewallFlow(el.Flow), firewallPace(el.Pace)
	}
	return []firewall.Change{c}
}

// banChangesLocked are the changes of a ban. Once its door is shut the trickle is closed by another one, which comes
// first; networks have none.
func (p *Pipeline) banChangesLocked(c firewall.Change, el engine.Element) []firewall.Change {
	switch el.Closes {
	case ban.ClosesManager:
		c.Closes = firewall.CloseManager
	case ban.ClosesSIP:
		overUDP := c
		overUDP.Closes, c.Closes = firewall.CloseUDP, firewall.CloseSIPOverTCP
		return []firewall.Change{c, overUDP}
	case ban.ClosesUDP:
		c.Closes = firewall.CloseUDPKnock
		if (el.DoorShut || el.ShutFor > 0 || el.Remove) && p.engine.IsSource(el.Prefix) {
			shut := c
			if !el.DoorShut && !el.Remove {
				shut.Timeout = max(el.ShutFor, firewall.MinTimeout)
			}
			shut.Closes = firewall.CloseUDP
			return []firewall.Change{c, shut}
		}
	}
	return []firewall.Change{c}
}

// unbanChangesLocked take out all that a ban of a prefix may have closed.
func (p *Pipeline) unbanChangesLocked(prefix netip.Prefix) (changes []firewall.Change) {
	for _, closes := range []ban.Closes{ban.ClosesAll, ban.ClosesUDP, ban.ClosesManager, ban.ClosesSIP} {
		if !closes.IsOfService() || p.engine.IsSource(prefix) {
			changes = append(changes, p.firewallChangesLocked(
				engine.Element{Kind: engine.BanOfPrefix, Prefix: prefix, Closes: closes, Remove: true})...)
		}
	}
	return changes
}

// closesOf is what an element of the kernel's closes, as the engine calls it.
func closesOf(c firewall.Closes) ban.Closes {
	switch c {
	case firewall.CloseUDP, firewall.CloseUDPKnock:
		return ban.ClosesUDP
	case firewall.CloseManager:
		return ban.ClosesManager
	case firewall.CloseSIPOverTCP:
		return ban.ClosesSIP
	}
	return ban.ClosesAll
}

func firewallFlow(f ban.Flow) firewall.Flow {
	if f.UDP {
		return firewall.Flow{Transport: firewall.UDP, Source: f.Source}
	}
	return firewall.Flow{Transport: firewall.TCP, Source: f.Source}
}

func firewallPace(p engine.Pace) firewall.Pace {
	switch p {
	case engine.PaceSecond:
		return firewall.PaceSecond
	case engine.PaceTenMinutes:
		return firewall.PaceTenMinutes
	}
	return firewall.PaceMinute
}
