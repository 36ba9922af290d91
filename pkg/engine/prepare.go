package engine

import "github.com/ringwall/ringwall/pkg/security"

// ahead is how many events are prepared together: about as many lines of memory as a processor core has on order at a time.
const ahead = 16

// Prepare looks at the memory that the judgement of the events of the Asterisk named pbx will need. It decides and changes
// nothing and may be left out. What an engine knows of a million sources does not fit into a processor's caches: Handle
// waits two or three times for main memory, longer than it computes. Looking for many events one after another, without a
// judgement between the looks, the processor waits for all of them at once. Give it the next dozen events or so.
func (e *Engine) Prepare(pbx string, events []security.Event) {
	i := e.pbxIndex(pbx)
	for len(events) > 1 {
		n := min(len(events), ahead)
		e.prepare(i, events[:n])
		events = events[n:]
	}
}

// prepare does in loops of their own what does not wait, and each look: only so many instructions can be under way.
func (e *Engine) prepare(pbx uint8, events []security.Event) {
	var from, talk, slots [ahead]uint32
	n := 0
	for i := range events {
		addr := events[i].Remote.AddrPort.Addr().Unmap()
		if !addr.IsValid() {
			continue
		}
		k := e.keyOf(addr)
		from[n], talk[n] = e.sources.hash(k), hashOf(e.dialogueOf(&events[i], k, pbx))
		n++
	}
	var seen uint64
	if e.sources.len() > 0 {
		for i := range from[:n] {
			places, place := e.sources.index.places(from[i]), home(from[i])
			slots[i] = uint32(places[place%segmentSize])
			seen += places[(place+5)%segmentSize] // a search that goes on ends there, or in the same line
		}
	}
	if e.attempts.keys > 0 {
		for i := range talk[:n] {
			places, place := e.attempts.index.places(talk[i]), home(talk[i])
			seen += places[place%segmentSize] + places[(place+5)%segmentSize]
		}
	}
	if e.sources.len() > 0 {
		for i := range slots[:n] { // mostly the right one: half of the sources are found at the first place
			seen += uint64(e.sources.slot(int32(slots[i])).seen)
		}
	}
	e.looked = seen // so that no compiler thinks that the looks are of no use
}
