package engine

import (
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/security"
)

// Batch is how many events HandleAll looks at together: somewhat more lines of memory than a processor core has on order
// at a time. More gives nothing.
const Batch = 32

// subject is what an event is about, found out before it is judged. It depends on nothing that a judgement changes.
type subject struct {
	rule *rule // nil: the event is worth nothing
	addr netip.Addr
	key  key
	hash uint32 // of key
	talk uint64 // see dialogueOf; 0 where it is not known yet
	pbx  uint8
}

// find finds out what an event is about. The subject is empty.
func (s *subject) find(e *Engine, pbx uint8, ev *security.Event) {
	s.addr = ev.Remote.AddrPort.Addr().Unmap()
	if !s.addr.IsValid() || s.addr.IsUnspecified() {
		return
	}
	s.pbx = pbx
	if s.rule = e.rules.judge(ev); s.rule != nil {
		e.putKey(&s.key, s.addr)
		s.hash = e.sources.hash(&s.key)
	}
}

// HandleAll judges events of the Asterisk named pbx, which came at now, one after another as Handle does, and appends the
// decisions to out. ends, if not nil, is at least as long as events and gets the length of out after each of them. An event
// without a remote address, such as the zero value, is passed over.
//
// It is faster than Handle. What an engine knows of a million sources does not fit into a processor's caches: Handle waits
// two or three times for main memory, longer than it computes. HandleAll looks at the memory that the next Batch events
// need, without a judgement between the looks, so that the processor waits for all of them at once.
func (e *Engine) HandleAll(now time.Time, pbx string, events []security.Event, out []ban.Decision, ends []int) []ban.Decision {
	i := e.pbxIndex(pbx)
	var subjects [Batch]subject
	for first := 0; first < len(events); first += Batch {
		part := events[first:min(first+Batch, len(events))]
		for n := range part {
			s := &subjects[n]
			*s = subject{}
			if s.find(e, i, &part[n]); s.talks(&part[n]) {
				s.talk = e.dialogueOf(&part[n], &s.key, i)
			}
		}
		if len(part) > 1 {
			e.look(subjects[:len(part)])
		}
		for n := range part {
			out = e.handle(now, &subjects[n], &part[n], out)
			if ends != nil {
				ends[first+n] = len(out)
			}
		}
	}
	return out
}

// talks says whether the judgement asks for the dialogue of an event.
func (s *subject) talks(ev *security.Event) bool {
	return s.rule != nil && (s.rule.kind == attempt || s.rule.kind == guess || s.rule.kind == challenge && ev.Account == unknown)
}

// look looks at the memory that judgements will need. It decides and changes nothing. Each look has a loop of its own: only
// so many instructions can be under way.
func (e *Engine) look(subjects []subject) {
	var seen uint64
	for i := range subjects {
		if s := &subjects[i]; s.rule != nil {
			seen += e.sources.index.warm(s.hash)
		}
	}
	for i := range subjects {
		if talk := subjects[i].talk; talk != 0 {
			seen += e.attempts.index.warm(hashOf(talk))
		}
	}
	if e.sources.len() > 0 {
		var slots [Batch]uint32
		for i := range subjects {
			if s := &subjects[i]; s.rule != nil {
				slots[i] = e.sources.index.first(s.hash)
			}
		}
		for i := range subjects {
			seen += uint64(e.sources.slot(int32(slots[i])).seen)
		}
	}
	e.looked = seen // so that no compiler thinks that the looks are of no use
}
