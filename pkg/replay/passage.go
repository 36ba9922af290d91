package replay

import (
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
)

// maxPassages bounds the flows, and the senders of packets through doors, that are remembered.
const maxPassages = 1 << 17

// passage is what the kernel would let pass beside bans, or stop: good flows, flows that are cut, and the doors of bans
// that could be forged. It takes each event for a packet. What is only slowed passes: a recording cannot say which of
// the packets would have got through.
type passage struct {
	perPort, perSource uint32                // packets a minute through a door: ban.knock
	good, cut          map[ban.Flow]int64    // until when, ns
	shut               map[netip.Prefix]bool // bans whose door is shut
	knocks             map[netip.AddrPort]*knockBucket
}

// knockBucket counts the packets that passed a door, of a port or, as port 0, of a source.
type knockBucket struct {
	at    int64 // ns
	level float64
}

func newPassage(perPort, perSource uint32) passage {
	return passage{perPort: perPort, perSource: perSource, good: make(map[ban.Flow]int64),
		cut: make(map[ban.Flow]int64), shut: make(map[netip.Prefix]bool),
		knocks: make(map[netip.AddrPort]*knockBucket)}
}

// take takes over what the engine tells the kernel.
func (p *passage) take(elements []engine.Element, now int64) {
	for i := range elements {
		el := &elements[i]
		until := now + int64(el.Left)
		switch {
		case el.Kind == engine.GoodFlow:
			setFlow(p.good, el.Flow, until, el.Remove)
		case el.Kind == engine.CutFlow:
			setFlow(p.cut, el.Flow, until, el.Remove)
			delete(p.good, el.Flow)
		case el.Kind == engine.BanOfPrefix && (el.Remove || !el.DoorShut):
			delete(p.shut, el.Prefix)
		case el.Kind == engine.BanOfPrefix && len(p.shut) < maxPassages:
			p.shut[el.Prefix] = true
		}
	}
}

func setFlow(flows map[ban.Flow]int64, f ban.Flow, until int64, remove bool) {
	if remove {
		delete(flows, f)
	} else if _, old := flows[f]; old || len(flows) < maxPassages {
		flows[f] = until
	}
}

// flowOf is the sender of an event.
func flowOf(ev *event.Event) ban.Flow {
	a := ev.Remote.AddrPort
	return ban.Flow{UDP: !ev.Remote.Transport.Proven(),
		Source: netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())}
}

// isCut says whether the flow of an event is cut.
func (p *passage) isCut(ev *event.Event, now int64) bool { return p.cut[flowOf(ev)] > now }

// passesBan says whether an event would have got past a ban.
func (p *passage) passesBan(ev *event.Event, prefix netip.Prefix, closes ban.Closes, now int64) bool {
	if p.good[flowOf(ev)] > now {
		return true
	}
	switch closes {
	case ban.ClosesManager:
		return ev.Service != event.AMI
	case ban.ClosesSIP:
		return ev.Service == event.AMI
	case ban.ClosesUDP:
		return ev.Remote.Transport.Proven() || !p.shut[prefix] && p.knock(ev.Remote.AddrPort, now)
	}
	return false
}

// knock says whether a packet passes a door that is open, and counts it if so.
func (p *passage) knock(from netip.AddrPort, now int64) bool {
	if p.perPort == 0 {
		return false
	}
	if len(p.knocks) > maxPassages {
		clear(p.knocks)
	}
	port := p.bucketOf(from, p.perPort, now)
	source := p.bucketOf(netip.AddrPortFrom(from.Addr(), 0), p.perSource, now)
	if port.level+1 > float64(p.perPort) || source.level+1 > float64(p.perSource) {
		return false
	}
	port.level++
	source.level++
	return true
}

// bucketOf is the bucket of a sender, up to date.
func (p *passage) bucketOf(from netip.AddrPort, perMinute uint32, now int64) *knockBucket {
	b := p.knocks[from]
	if b == nil {
		b = &knockBucket{at: now}
		p.knocks[from] = b
	}
	b.level = max(0, b.level-float64(perMinute)*float64(now-b.at)/float64(time.Minute))
	b.at = now
	return b
}
