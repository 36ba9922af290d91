package replay

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

// kernel does what the table of pkg/firewall does: it is told of elements as they change, and counts packets.
type kernel struct {
	engine   *engine.Engine
	policy   config.Policy
	elements map[elementID]heldElement
	buckets  map[bucketID]*knockBucket
	open     map[ban.Flow]bool // connections over TCP
}

// elementID is what tells one element from another.
type elementID struct {
	kind   engine.ElementKind
	prefix netip.Prefix
	flow   ban.Flow
	closes ban.Closes
}

type heldElement struct {
	until, shutUntil int64 // ns
	pace             engine.Pace
}

// bucketID is who shares a bucket.
type bucketID struct {
	element elementID
	port    uint16
}

func newKernel(e *engine.Engine, p config.Policy) *kernel {
	return &kernel{engine: e, policy: p, elements: make(map[elementID]heldElement),
		buckets: make(map[bucketID]*knockBucket), open: make(map[ban.Flow]bool)}
}

// take takes over decisions and changes, as pkg/pipeline does.
func (k *kernel) take(out []ban.Decision, now time.Time) {
	for i := range out {
		switch d := &out[i]; d.Action {
		case ban.ActionBan, ban.ActionExtend:
			if el, ok := k.engine.BanElement(now, d.Prefix); ok {
				k.put(el, now)
			}
		case ban.ActionUnban:
			for id := range k.elements {
				if id.kind == engine.BanOfPrefix && id.prefix == d.Prefix {
					delete(k.elements, id)
				}
			}
		}
	}
	for _, el := range k.engine.TakeChanged() {
		k.put(el, now)
	}
}

// inTable is what the table holds of an element: of a ban that closes SIP one for UDP, and one for TCP.
func inTable(el engine.Element) []engine.Element {
	if el.Kind != engine.BanOfPrefix || el.Closes != ban.ClosesSIP {
		return []engine.Element{el}
	}
	overUDP := el
	overUDP.Closes, overUDP.DoorShut = ban.ClosesUDP, !el.Remove
	return []engine.Element{overUDP, el}
}

func (k *kernel) put(el engine.Element, now time.Time) {
	for _, e := range inTable(el) {
		k.putOne(e, now)
	}
}

func (k *kernel) putOne(el engine.Element, now time.Time) {
	id := elementID{kind: el.Kind, prefix: el.Prefix, flow: el.Flow, closes: el.Closes}
	if el.Remove {
		delete(k.elements, id)
		return
	}
	held := heldElement{until: now.Add(el.Left).UnixNano(), pace: el.Pace}
	if el.DoorShut {
		held.shutUntil = held.until
	} else if el.ShutFor > 0 {
		held.shutUntil = now.Add(el.ShutFor).UnixNano()
	}
	if el.Kind == engine.SlowFlow || el.Kind == engine.SlowSource {
		delete(k.buckets, bucketID{element: id}) // what is written again has a full bucket
	}
	if el.Kind == engine.CutFlow {
		delete(k.open, el.Flow)
	}
	k.elements[id] = held
}

// holds returns an element that is not over.
func (k *kernel) holds(id elementID, now int64) (heldElement, bool) {
	held, ok := k.elements[id]
	return held, ok && held.until > now
}

// passes says whether a packet gets to Asterisk: in the order of deploy/docs/decisions.md.
func (k *kernel) passes(ev *event.Event, at time.Time) bool {
	now, flow := at.UnixNano(), flowOf(ev)
	source := netip.PrefixFrom(flow.Source.Addr(), flow.Source.Addr().BitLen())
	if flow.Source.Addr().Is6() {
		source, _ = flow.Source.Addr().Prefix(k.policy.IPv6Prefix)
	}
	if _, cut := k.holds(elementID{kind: engine.CutFlow, flow: flow}, now); cut {
		return false
	}
	slowFlow := elementID{kind: engine.SlowFlow, flow: flow}
	if held, slow := k.holds(slowFlow, now); slow && !k.pour(bucketID{element: slowFlow}, rateOf(held.pace), 4, now) {
		return false
	}
	if _, good := k.holds(elementID{kind: engine.GoodFlow, flow: flow}, now); good {
		return true
	}
	for _, closes := range []ban.Closes{ban.ClosesAll, ban.ClosesUDP, ban.ClosesManager, ban.ClosesSIP} {
		id := elementID{kind: engine.BanOfPrefix, prefix: source, closes: closes}
		held, banned := k.holds(id, now)
		switch {
		case !banned, closes == ban.ClosesManager && ev.Service != event.AMI, closes == ban.ClosesUDP && !flow.UDP,
			closes == ban.ClosesSIP && (ev.Service == event.AMI || flow.UDP):
		case closes != ban.ClosesUDP, held.shutUntil > now, k.policy.Ban.Knock == 0:
			return false
		default:
			return k.pour(bucketID{id, flow.Source.Port()}, float64(k.policy.Ban.Knock), 8, now) &&
				k.pour(bucketID{element: id}, float64(k.policy.Ban.KnockSource), 4, now)
		}
	}
	slow := elementID{kind: engine.SlowSource, prefix: source}
	if held, ok := k.holds(slow, now); ok && (flow.UDP || !k.open[flow]) &&
		!k.pour(bucketID{element: slow}, rateOf(held.pace), 4, now) {
		return false
	}
	if !flow.UDP {
		k.open[flow] = true
	}
	return true
}

// rateOf is how many packets a minute a pace is.
func rateOf(p engine.Pace) float64 {
	switch p {
	case engine.PaceSecond:
		return 60
	case engine.PaceTenMinutes:
		return 0.4
	}
	return 4
}

// pour says whether one more packet fits into a bucket that leaks so many a minute.
func (k *kernel) pour(id bucketID, perMinute, burst float64, now int64) bool {
	b := k.buckets[id]
	if b == nil {
		b = &knockBucket{at: now}
		k.buckets[id] = b
	}
	b.level = max(0, b.level-perMinute*float64(now-b.at)/float64(time.Minute))
	b.at = now
	if b.level+1 > burst {
		return false
	}
	b.level++
	return true
}

// differs says what the kernel holds and the engine does not say, or the other way round: a table that is built anew
// must be the one that changes led to.
func (k *kernel) differs(at time.Time) (texts []string) {
	want := make(map[elementID]bool)
	var list []engine.Element
	for _, el := range append(k.engine.FlowElements(at), k.engine.EnforcedBans(at)...) {
		list = append(list, inTable(el)...)
	}
	for _, el := range list {
		id := elementID{kind: el.Kind, prefix: el.Prefix, flow: el.Flow, closes: el.Closes}
		want[id] = true
		if held, ok := k.elements[id]; !ok {
			texts = append(texts, fmt.Sprintf("not held: %+v", el))
		} else if el.Kind != engine.SlowFlow && el.Kind != engine.SlowSource {
			continue
		} else if held.pace != el.Pace {
			texts = append(texts, fmt.Sprintf("pace %d held: %+v", held.pace, el))
		}
	}
	for id, held := range k.elements {
		if held.until > at.Add(time.Second).UnixNano() && !want[id] {
			texts = append(texts, fmt.Sprintf("held for %v: %+v", time.Duration(held.until-at.UnixNano()), id))
		}
	}
	slices.SortFunc(texts, strings.Compare)
	return texts
}
