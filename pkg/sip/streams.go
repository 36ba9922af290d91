package sip

import (
	"container/list"
	"net/netip"
)

// Bounds of all streams together, and of one of them.
const (
	maxFlows    = 16 << 10
	maxEnded    = 1 << 10
	maxBuffered = 8 << 20 // bytes of heads that are not whole, and of segments that came too early
	maxHeld     = 64 << 10
	maxHeldHere = 32 // segments
	// farAway is more than any receive window that is common, so that what is further is no segment of the same
	// connection, or one that the kernel drops.
	farAway = 4 << 20
)

// A Flow is one direction of a connection.
type Flow struct {
	Source, Destination netip.AddrPort
}

// A Segment is what one packet of a flow holds. Length is that of the payload on the wire where less was captured; 0 is
// all of it.
type Segment struct {
	Seq           uint32
	SYN, FIN, RST bool
	Payload       []byte
	Length        int
}

// StreamStats counts what streams have seen.
type StreamStats struct {
	Flows    int    // that are known now
	Buffered int    // bytes that are kept now
	Heads    uint64 // that were told
	Gaps     uint64 // bytes were missing
	Evicted  uint64 // flows that others needed the place of
}

// Streams finds the heads of messages in the segments of many connections, as a tap of packets sees them: in any order,
// more than once, or not at all. It is for one goroutine.
//
// A head may be told more than once, as a datagram may come more than once: what comes too early or late is looked at
// by itself as well, because nobody outside knows which of two copies the kernel took. No head that begins a segment is
// missed, whatever came before.
type Streams struct {
	tell     func(Flow, []byte)
	flows    map[Flow]*stream
	recent   *list.List // of *stream, the one that was heard last in front
	holding  *list.List // of *stream, those with bytes
	losses   uint64
	stats    StreamStats
	now      *stream // whose head is told
	tellHead func([]byte)

	maxFlows, maxBuffered int // for tests

	ended      map[Flow]uint32 // sequence number behind the FIN
	endedFlows [maxEnded]Flow
	nextEnded  int
}

type stream struct {
	flow            Flow
	recent, holding *list.Element
	cutter          cutter
	counted         int // bytes in Streams.stats.Buffered

	known       bool   // next is
	next        uint32 // sequence number
	other       uint32 // where another connection would begin or go on
	otherKnown  bool
	otherBegins bool // with a SYN

	held      []heldSegment
	heldBytes int
	losses    uint64 // of Streams, when nothing was missing
}

type heldSegment struct {
	seq     uint32
	payload []byte
	length  int
}

// NewStreams tells each head, with the flow that it came by. The bytes are valid until tell returns; Parse reads them.
func NewStreams(tell func(flow Flow, head []byte)) *Streams {
	s := &Streams{
		tell: tell, flows: make(map[Flow]*stream), ended: make(map[Flow]uint32), recent: list.New(),
		holding:  list.New(),
		maxFlows: maxFlows, maxBuffered: maxBuffered,
	}
	s.tellHead = func(head []byte) {
		s.stats.Heads++
		s.tell(s.now.flow, head)
	}
	return s
}

// Stats returns the counts.
func (s *Streams) Stats() StreamStats {
	stats := s.stats
	stats.Flows = len(s.flows)
	return stats
}

// Lost says that the tap has lost packets, so that what is missing now need not be waited for.
func (s *Streams) Lost() { s.losses++ }

// end remembers where a connection ended: its sender's kernel sends the last bytes again, for a quarter of an hour
// where the other end is banned and acknowledges nothing.
func (s *Streams) end(flow Flow, next uint32) {
	if _, ok := s.ended[flow]; !ok {
		delete(s.ended, s.endedFlows[s.nextEnded])
		s.endedFlows[s.nextEnded] = flow
		s.nextEnded = (s.nextEnded + 1) % maxEnded
	}
	s.ended[flow] = next
}

// Add takes a segment.
func (s *Streams) Add(flow Flow, g Segment) {
	length := uint32(max(g.Length, len(g.Payload)))
	f := s.flows[flow]
	if f == nil {
		if length == 0 && !g.SYN {
			return // an ACK; a flow of which nothing was said is not worth a place
		}
		if g.SYN {
			delete(s.ended, flow)
		} else if end, ok := s.ended[flow]; ok && int32(g.Seq+length-end) <= 0 {
			return
		}
		f = s.add(flow)
	} else {
		s.recent.MoveToFront(f.recent)
	}
	s.now = f
	if g.SYN {
		g.Seq++
		if length == 0 {
			s.begins(f, g.Seq)
			return
		}
		s.begins(f, g.Seq) // data in a SYN: TCP Fast Open
	}
	if length > 0 {
		s.data(f, g.Seq, g.Payload, int(length))
	}
	// Only what the kernel takes as well ends a connection: anybody can send an RST.
	if (g.FIN || g.RST) && f.known && g.Seq+length == f.next {
		if g.FIN {
			s.end(flow, f.next+1)
		}
		s.remove(f)
		return
	}
	s.account(f)
}

// begins knows where the bytes of a connection begin. Whether there is a new one shows the first of them: a SYN in a
// connection that goes on is answered by the kernel and changes nothing.
func (s *Streams) begins(f *stream, seq uint32) {
	if !f.known {
		f.known, f.next = true, seq
		return
	}
	f.other, f.otherKnown, f.otherBegins = seq, true, true
}

func (s *Streams) data(f *stream, seq uint32, payload []byte, length int) {
	if !f.known {
		f.known, f.next = true, seq
		f.cutter = cutter{state: searching, unsure: true}
	}
	if f.otherKnown && seq == f.other && seq != f.next {
		begins := f.otherBegins
		s.giveUp(f)
		f.next, f.otherKnown = seq, false
		f.cutter = cutter{state: searching, unsure: true}
		if begins {
			f.cutter = cutter{}
		}
	}
	switch ahead := int32(seq - f.next); {
	case ahead == 0:
		s.inOrder(f, payload, length)
	case ahead < -farAway || ahead > farAway:
		s.alone(payload)
		f.other, f.otherKnown, f.otherBegins = seq+uint32(length), true, false
		return
	case ahead < 0:
		if known := int(-ahead); known < length {
			s.alone(payload)
			s.inOrder(f, payload[min(known, len(payload)):], length-known)
			break
		}
		s.alone(payload)
		return
	default:
		s.alone(payload)
		s.hold(f, heldSegment{seq, payload, length})
		return
	}
	s.release(f)
}

func (s *Streams) inOrder(f *stream, payload []byte, length int) {
	f.next += uint32(length)
	f.losses = s.losses
	f.cutter.feed(payload, s.tellHead)
	if missing := length - len(payload); missing > 0 {
		s.stats.Gaps++
		f.cutter.lost(missing, s.tellHead)
	}
}

// hold keeps a segment before which others are missing. Where they will not come, or too much is kept, it goes on
// without them.
func (s *Streams) hold(f *stream, g heldSegment) {
	g.payload = append([]byte(nil), g.payload...)
	f.held = append(f.held, g)
	f.heldBytes += len(g.payload)
	for len(f.held) > maxHeldHere || f.heldBytes > maxHeld || len(f.held) > 0 && f.losses != s.losses {
		s.goOn(f)
	}
	f.losses = s.losses
}

// goOn goes on without what is missing before the first segment that is held.
func (s *Streams) goOn(f *stream) {
	first := f.held[0].seq
	for _, g := range f.held {
		if int32(g.seq-first) < 0 {
			first = g.seq
		}
	}
	s.stats.Gaps++
	f.cutter.lost(int(first-f.next), s.tellHead)
	f.next = first
	s.release(f)
}

// release takes the segments that are no longer too early.
func (s *Streams) release(f *stream) {
	for i := 0; i < len(f.held); i++ {
		g := f.held[i]
		known := int(int32(f.next - g.seq))
		if known < 0 {
			continue
		}
		last := len(f.held) - 1
		f.held[i] = f.held[last]
		f.held[last] = heldSegment{}
		f.held = f.held[:last]
		f.heldBytes -= len(g.payload)
		if known < g.length {
			s.inOrder(f, g.payload[min(known, len(g.payload)):], g.length-known)
		}
		i = -1 // an earlier one may follow this
	}
	if len(f.held) == 0 {
		f.held = nil
	}
}

// alone tells the heads of a segment that begins with one, without what came before.
func (s *Streams) alone(b []byte) {
	b = b[run(b, endsLine):]
	line := b[:upTo(b, endsLine)]
	if len(line) == len(b) || startInLine(line) < 0 {
		return
	}
	var c cutter
	c.feed(b, s.tellHead)
	c.giveUp(s.tellHead)
}

// giveUp tells what there is of a head, and forgets it.
func (s *Streams) giveUp(f *stream) {
	s.now = f
	for len(f.held) > 0 {
		s.goOn(f)
	}
	f.cutter.giveUp(s.tellHead)
}

func (s *Streams) add(flow Flow) *stream {
	if len(s.flows) >= s.maxFlows {
		oldest := s.recent.Back().Value.(*stream)
		s.stats.Evicted++
		s.giveUp(oldest)
		s.remove(oldest)
	}
	f := &stream{flow: flow}
	f.recent = s.recent.PushFront(f)
	s.flows[flow] = f
	return f
}

func (s *Streams) remove(f *stream) {
	delete(s.flows, f.flow)
	s.recent.Remove(f.recent)
	if f.holding != nil {
		s.holding.Remove(f.holding)
	}
	s.stats.Buffered -= f.counted
}

// account counts what a flow keeps, and has those give up that have kept something for longest where all is too much.
func (s *Streams) account(f *stream) {
	s.count(f)
	for s.stats.Buffered > s.maxBuffered {
		oldest := s.holding.Back().Value.(*stream)
		s.stats.Evicted++
		s.giveUp(oldest)
		s.count(oldest)
	}
}

func (s *Streams) count(f *stream) {
	keeps := cap(f.cutter.kept) + f.heldBytes
	s.stats.Buffered += keeps - f.counted
	f.counted = keeps
	switch {
	case keeps > 0 && f.holding == nil:
		f.holding = s.holding.PushFront(f)
	case keeps == 0 && f.holding != nil:
		s.holding.Remove(f.holding)
		f.holding = nil
	}
}
