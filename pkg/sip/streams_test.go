package sip

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

const invite = "INVITE sip:00441234@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/TCP 198.51.100.9:40000;branch=z9hG4bK-7\r\n" +
	"From: <sip:1@192.0.2.1>;tag=1\r\nTo: <sip:00441234@192.0.2.1>\r\nCall-ID: \xff@198.51.100.9\r\nCSeq: 1 INVITE\r\n" +
	"Content-Type: application/sdp\r\nContent-Length: 73\r\n\r\n" +
	"v=0\r\no=- 1 1 IN IP4 198.51.100.9\r\nOPTIONS sip:decoy SIP/2.0\r\nCall-ID: d\r\n\r\n"

var aFlow = Flow{
	Source:      netip.MustParseAddrPort("198.51.100.9:40000"),
	Destination: netip.MustParseAddrPort("192.0.2.1:5060"),
}

// A tap is Streams with what it told.
type tap struct {
	*Streams
	heads []string
}

func newTap() *tap {
	tap := &tap{}
	tap.Streams = NewStreams(func(_ Flow, head []byte) { tap.heads = append(tap.heads, string(head)) })
	return tap
}

func (tap *tap) callIDs() []string {
	var ids []string
	for _, head := range tap.heads {
		var m Message
		if Parse([]byte(head), &m) == nil {
			ids = append(ids, string(m.CallID))
		}
	}
	return ids
}

func (tap *tap) wantHeads(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(tap.heads, want) {
		t.Errorf("told %q instead of %q", tap.heads, want)
	}
}

// start begins a connection whose first byte has the sequence number 1.
func (tap *tap) start() { tap.Add(aFlow, Segment{Seq: 0, SYN: true}) }

// headOf is a message without its body.
func headOf(message string) string {
	head, _, _ := strings.Cut(message, "\r\n\r\n")
	return head + "\r\n\r\n"
}

func numbered(format string, n int) string {
	return strings.Replace(format, "Call-ID: ", fmt.Sprintf("Call-ID: %d-", n), 1)
}

// Pipelined messages with keepalives between, cut anywhere into three segments: each head is told once and whole.
func TestHeadsOfAConnectionCutAnywhere(t *testing.T) {
	all := "\r\n\r\n" + invite + "\r\n\r\n\r\n\r\n" + numbered(options, 1) + numbered(invite, 2) + register
	want := []string{headOf(invite), headOf(numbered(options, 1)), headOf(numbered(invite, 2)), headOf(register)}
	for first := 0; first <= len(all); first += 1 {
		for _, more := range []int{0, 1, 2, 700} {
			second := min(first+more, len(all))
			tap := newTap()
			tap.start()
			at := 0
			for _, end := range []int{first, second, len(all)} {
				tap.Add(aFlow, Segment{Seq: uint32(1 + at), Payload: []byte(all[at:end])})
				at = end
			}
			if !slices.Equal(tap.heads, want) {
				t.Fatalf("cut at %d and %d: %q", first, second, tap.heads)
			}
		}
	}
	tap := newTap()
	tap.start()
	for i := range all {
		tap.Add(aFlow, Segment{Seq: uint32(1 + i), Payload: []byte(all[i : i+1])})
	}
	tap.wantHeads(t, want...)
	if s := tap.Stats(); s.Buffered != 0 || s.Heads != 4 || s.Gaps != 0 {
		t.Errorf("%+v", s)
	}
}

func TestSegmentsInAnyOrder(t *testing.T) {
	all := invite + numbered(options, 1) + register
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		type piece struct{ from, to int }
		var pieces []piece
		for at := 0; at < len(all); {
			to := min(at+1+random.IntN(300), len(all))
			pieces = append(pieces, piece{at, to}, piece{max(0, at-random.IntN(50)), to})
			at = to
		}
		random.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
		tap := newTap()
		tap.Add(aFlow, Segment{Seq: 1<<32 - 100, SYN: true})
		for _, p := range pieces {
			tap.Add(aFlow, Segment{Seq: 1<<32 - 99 + uint32(p.from), Payload: []byte(all[p.from:p.to])})
		}
		for _, want := range []string{headOf(invite), headOf(numbered(options, 1)), headOf(register)} {
			if !slices.Contains(tap.heads, want) {
				t.Fatalf("of %v, told %q without %q", pieces, tap.heads, want)
			}
		}
		if s := tap.Stats(); s.Buffered != 0 || s.Gaps != 0 {
			t.Fatalf("%+v", s)
		}
	}
}

// What an attacker does to have one message taken for a part of another. In each the last message reaches Asterisk.
func TestMessagesThatHide(t *testing.T) {
	hidden := numbered(options, 9)
	lengthless := strings.Replace(options, "Content-Length: 0\r\n", "", 1)
	length := func(header string) string { return strings.Replace(options, "Content-Length: 0", header, 1) }
	for name, segments := range map[string][]string{
		// pjproject gives up what it has read where there is no Content-Length; the next read begins anew.
		"no length":                        {lengthless, hidden},
		"no length, body":                  {lengthless + "text", hidden},
		"no length, body, cut":             {lengthless + "text", hidden[:3], hidden[3:]},
		"no length, decoy with length":     {lengthless + invite[:len(invite)-50], hidden[:9], hidden[9:]},
		"no length, decoy answer":          {lengthless + "SIP/2.0 200 OK\r\n", hidden},
		"length that is too long":          {length("Content-Length: 70000"), strings.Repeat("x", 65000), hidden},
		"length that overflows":            {length("Content-Length: 18446744073709551616"), hidden},
		"length of no digits":              {length("Content-Length: -5"), hidden},
		"length beyond the buffer":         {length("Content-Length: 65500"), strings.Repeat("x", 65300), hidden},
		"length of many digits":            {length("Content-Length: " + strings.Repeat("0", 300) + "300"), hidden},
		"two lengths, the right one first": {length("Content-Length: 0\r\nl: 3000"), hidden},
		"two lengths":                      {length("l: 3000\r\nContent-Length: 0"), hidden},
		"length folded":                    {length("l\r\n : 3000\r\nContent-Length: 0"), hidden},
		"length in another header":         {length("s: a\r\n l: 3000\r\nContent-Length: 0"), hidden},
		"length in odd case":               {length("CONTENT-length \t:  5") + "12345", hidden},
		"nothing of SIP":                   {"\x16\x03\x01hello", hidden},
		"nothing of SIP, cut":              {"\x16\x03\x01hello", hidden[:1], hidden[1:8], hidden[8:]},
		"a head without end":               {strings.Repeat("X: xxxxx\r\n", 6553), "xxxxx", hidden},
		"a line without end":               {"\xff", strings.Repeat("x", 40000), strings.Repeat("x", 40000), "\n" + hidden},
	} {
		t.Run(name, func(t *testing.T) {
			tap := newTap()
			tap.start()
			seq := uint32(1)
			for _, segment := range segments {
				tap.Add(aFlow, Segment{Seq: seq, Payload: []byte(segment)})
				seq += uint32(len(segment))
			}
			if !slices.Contains(tap.callIDs(), "9-1@198.51.100.9") {
				t.Errorf("told only %q", tap.callIDs())
			}
		})
	}
}

// What the kernel drops reaches a tap all the same, so that it may not believe each segment.
func TestSegmentsThatTheKernelDrops(t *testing.T) {
	hidden := numbered(options, 9)
	for name, send := range map[string]func(tap *tap){
		"another SYN": func(tap *tap) { tap.Add(aFlow, Segment{Seq: 5000, SYN: true}) },
		"another SYN, of what comes next": func(tap *tap) {
			tap.Add(aFlow, Segment{Seq: uint32(len(invite) + 50), SYN: true})
		},
		"RST out of window": func(tap *tap) { tap.Add(aFlow, Segment{Seq: 5000, RST: true}) },
		"FIN out of window": func(tap *tap) { tap.Add(aFlow, Segment{Seq: 5000, FIN: true}) },
		"data far away": func(tap *tap) {
			tap.Add(aFlow, Segment{Seq: 1 << 30, Payload: []byte("junk")})
		},
		"data of before": func(tap *tap) { tap.Add(aFlow, Segment{Seq: 1 << 31, Payload: []byte("junk")}) },
		"keepalive of TCP": func(tap *tap) {
			tap.Add(aFlow, Segment{Seq: uint32(len(invite)), Payload: []byte("x")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			tap := newTap()
			tap.start()
			seq := uint32(1)
			add := func(text string) {
				tap.Add(aFlow, Segment{Seq: seq, Payload: []byte(text)})
				seq += uint32(len(text))
			}
			add(invite)
			add(hidden[:50])
			send(tap)
			add(hidden[50:])
			tap.wantHeads(t, headOf(invite), headOf(hidden))
		})
	}
	t.Run("other bytes first, with a bad checksum", func(t *testing.T) {
		tap := newTap()
		tap.start()
		tap.Add(aFlow, Segment{Seq: 1, Payload: bytes.Repeat([]byte("x"), len(hidden))})
		tap.Add(aFlow, Segment{Seq: 1, Payload: []byte(hidden)})
		tap.wantHeads(t, headOf(hidden))
	})
}

func TestConnectionFromTheSamePort(t *testing.T) {
	for name, row := range map[string]struct {
		syn  bool
		seq  uint32
		want []string
	}{
		"with its SYN": {true, 77, []string{headOf(register), headOf(invite), headOf(register)}},
		"far away":     {false, 1 << 30, []string{headOf(register), headOf(invite), headOf(register)}},
	} {
		t.Run(name, func(t *testing.T) {
			tap := newTap()
			tap.start()
			tap.Add(aFlow, Segment{Seq: 1, Payload: []byte(register)})
			if row.syn {
				tap.Add(aFlow, Segment{Seq: row.seq - 1, SYN: true})
			}
			tap.Add(aFlow, Segment{Seq: row.seq, Payload: []byte(invite)})
			seq := row.seq + uint32(len(invite))
			tap.Add(aFlow, Segment{Seq: seq, Payload: []byte(register[:100])})
			tap.Add(aFlow, Segment{Seq: seq + 100, Payload: []byte(register[100:])})
			tap.wantHeads(t, row.want...)
		})
	}
}

func TestBytesThatWereNotCaptured(t *testing.T) {
	tap := newTap()
	tap.start()
	seq := uint32(1)
	add := func(payload string, length int) {
		tap.Add(aFlow, Segment{Seq: seq, Payload: []byte(payload), Length: length})
		seq += uint32(length)
	}
	add(invite[:len(invite)-40], len(invite)) // of the body alone
	add(options, len(options))
	tap.wantHeads(t, headOf(invite), headOf(options))
	if s := tap.Stats(); s.Gaps != 1 {
		t.Errorf("%+v", s)
	}
	add(register[:205], len(register)) // of the head: whole lines are told
	add(options, len(options))
	lines := register[:strings.LastIndex(register[:205], "\n")+1]
	tap.wantHeads(t, headOf(invite), headOf(options), lines, headOf(options))
}

func TestSegmentsThatNeverCome(t *testing.T) {
	// The tap knows that it has lost some: it does not wait.
	tap := newTap()
	tap.start()
	tap.Add(aFlow, Segment{Seq: 1, Payload: []byte(invite + register[:200])})
	tap.Lost()
	tap.Add(aFlow, Segment{Seq: uint32(1 + len(invite) + 300), Payload: []byte(register[300:] + options)})
	if ids := tap.callIDs(); !slices.Contains(ids, "1@198.51.100.9") {
		t.Errorf("told only %q", ids)
	}
	// It does not: bounded is how long it waits. A head at the beginning of a segment is told at once.
	tap = newTap()
	tap.start()
	seq := uint32(10)
	add := func(text string) {
		tap.Add(aFlow, Segment{Seq: seq, Payload: []byte(text)})
		seq += uint32(len(text))
	}
	add(register)
	tap.wantHeads(t, headOf(register))
	for i := range 100 {
		add("x\r\n" + numbered(options, i))
		if s := tap.Stats(); s.Buffered > maxHeld {
			t.Fatalf("%+v", s)
		}
	}
	if ids := tap.callIDs(); !slices.Contains(ids, "0-1@198.51.100.9") || !slices.Contains(ids, "99-1@198.51.100.9") {
		t.Errorf("told only %q", ids)
	}
}

func TestConnectionThatWasThereBefore(t *testing.T) {
	tap := newTap()
	tap.Add(aFlow, Segment{Seq: 5, Payload: []byte("m=audio 1 RTP/AVP 0\r\n" + options + register)})
	tap.wantHeads(t, headOf(options), headOf(register))
}

func TestFlowsAreBounded(t *testing.T) {
	tap := newTap()
	tap.maxFlows, tap.maxBuffered = 10, 20<<10
	flow := func(i int) Flow {
		return Flow{netip.AddrPortFrom(aFlow.Source.Addr(), uint16(i)), aFlow.Destination}
	}
	for i := range 1000 {
		tap.Add(flow(i), Segment{SYN: true})
		tap.Add(flow(i), Segment{Seq: 1, Payload: []byte(numbered(options, i)[:200])})
		tap.Add(flow(i), Segment{Seq: 3000, Payload: bytes.Repeat([]byte("y"), 2000)})
		if s := tap.Stats(); s.Flows > 10 || s.Buffered > 20<<10 {
			t.Fatalf("%+v", s)
		}
	}
	// What was given up was told as far as it came.
	if len(tap.heads) < 990 || !strings.HasPrefix(tap.heads[0], "OPTIONS ") || !strings.HasSuffix(tap.heads[0], "\n") {
		t.Errorf("%d heads, the first %q", len(tap.heads), tap.heads[0])
	}
	// A connection that ends as the kernel sees it gives its place back.
	tap = newTap()
	tap.start()
	tap.Add(aFlow, Segment{Seq: 1, Payload: []byte(register[:300])})
	tap.Add(aFlow, Segment{Seq: 301, FIN: true, Payload: []byte(register[300:])})
	tap.wantHeads(t, headOf(register))
	if s := tap.Stats(); s.Flows != 0 || s.Buffered != 0 {
		t.Errorf("%+v", s)
	}
	tap.Add(aFlow, Segment{Seq: 301})
	if s := tap.Stats(); s.Flows != 0 {
		t.Errorf("an ACK has a place: %+v", s)
	}
}

// The kernel sends the last bytes of a connection again while nobody acknowledges them, as the banned do not. The next
// connection from there is heard.
func TestBytesBeforeTheEndAreToldOnce(t *testing.T) {
	tap := newTap()
	tap.start()
	tap.Add(aFlow, Segment{Seq: 1, Payload: []byte(register)})
	end := uint32(1 + len(register))
	tap.Add(aFlow, Segment{Seq: end, FIN: true})
	tap.Add(aFlow, Segment{Seq: 1, Payload: []byte(register)})
	tap.Add(aFlow, Segment{Seq: 1, Payload: []byte(register), FIN: true})
	tap.wantHeads(t, headOf(register))
	tap.Add(aFlow, Segment{Seq: 0, SYN: true})
	tap.Add(aFlow, Segment{Seq: 1, Payload: []byte(register)})
	tap.wantHeads(t, headOf(register), headOf(register))
}

func TestWholeSegmentsAllocateNothing(t *testing.T) {
	s := NewStreams(func(Flow, []byte) {})
	s.Add(aFlow, Segment{SYN: true})
	seq, text := uint32(1), []byte(invite)
	if n := testing.AllocsPerRun(100, func() {
		s.Add(aFlow, Segment{Seq: seq, Payload: text})
		seq += uint32(len(text))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkStreams(b *testing.B) {
	text := []byte(invite)
	for _, unsure := range []bool{false, true} {
		b.Run(map[bool]string{false: "sure", true: "unsure"}[unsure], func(b *testing.B) {
			s := NewStreams(func(Flow, []byte) {})
			if !unsure {
				s.Add(aFlow, Segment{SYN: true})
			}
			seq := uint32(1)
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				s.Add(aFlow, Segment{Seq: seq, Payload: text})
				seq += uint32(len(text))
			}
		})
	}
}

// The bytes of a connection, cut anywhere, tell the same heads; shuffled and repeated, all of them. The plan says how:
// two bytes for each piece.
func FuzzStreams(f *testing.F) {
	f.Add([]byte(invite+options), []byte{0, 9, 1, 0, 0, 200, 0, 1})
	f.Add([]byte("\r\n"+register+strings.Replace(options, "Content-Length: 0\r\n", "", 1)+invite), []byte{1, 9, 0, 7})
	f.Add([]byte("\x16\x03garbage\r\nREGISTER sip:x SIP/2.0\r\nl:2\r\nl:3\r\n\r\nSIP/2.0 200 OK\r\n\r\n"), []byte{0, 3})
	f.Fuzz(func(t *testing.T, b, plan []byte) {
		if len(b) > 8<<10 {
			return
		}
		whole := newTap()
		whole.start()
		whole.Add(aFlow, Segment{Seq: 1, Payload: b})
		for _, head := range whole.heads {
			if !bytes.Contains(b, []byte(head)) || head == "" {
				t.Fatalf("%q is not of %q", head, b)
			}
		}
		type piece struct{ from, to int }
		var pieces []piece
		for at := 0; at < len(b); {
			to := len(b)
			if len(plan) >= 2 && len(pieces) < maxHeldHere {
				to = min(len(b), at+1+int(binary.BigEndian.Uint16(plan))%1000)
				plan = plan[2:]
			}
			pieces = append(pieces, piece{at, to})
			at = to
		}
		cut := newTap()
		cut.start()
		for _, p := range pieces {
			cut.Add(aFlow, Segment{Seq: uint32(1 + p.from), Payload: b[p.from:p.to]})
		}
		if !slices.Equal(cut.heads, whole.heads) {
			t.Fatalf("%q cut into %v: %q instead of %q", b, pieces, cut.heads, whole.heads)
		}
		random := rand.New(rand.NewPCG(uint64(len(b)), uint64(len(pieces))))
		random.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
		shuffled := newTap()
		shuffled.start()
		for _, p := range pieces {
			shuffled.Add(aFlow, Segment{Seq: uint32(1 + p.from), Payload: b[p.from:p.to]})
			if s := shuffled.Stats(); s.Buffered < 0 || s.Buffered > 2*maxHeld {
				t.Fatalf("%+v", s)
			}
		}
		for _, head := range whole.heads {
			if !slices.Contains(shuffled.heads, head) {
				t.Fatalf("%q in pieces %v: %q without %q", b, pieces, shuffled.heads, head)
			}
		}
	})
}
