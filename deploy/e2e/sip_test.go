package e2e

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/pkg/sip"
)

// pkg/sip reads a message as Asterisk does: with a byte more at each place of it, what Asterisk answers is an answer to
// the Call-ID, CSeq and tag that pkg/sip has read. Whatever makes the two differ hides an attacker.
func TestSIPIsReadAsAsteriskReadsIt(t *testing.T) {
	l := lab.Start(t, lab.Options{Version: 22})
	const sockets = 100
	var all []*sipSocket
	for range sockets {
		c, err := l.DialContext(t.Context(), lab.Attacker, "udp", l.SIPAddress(false).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		all = append(all, &sipSocket{Conn: c})
	}
	var (
		tried, answered, refused int
		unseen                   []string // refused, and not told to be
	)
	mark := 0
	number := 1_000_000 // of a message; it is in each of the headers that an answer has, too
	batch := func(messages []string) {
		for i, text := range messages {
			all[i].send(t, text)
		}
		mark++
		for i, text := range messages {
			tried++
			var request, answer sip.Message
			err := sip.Parse([]byte(text), &request)
			b := all[i].answer(t, number-len(messages)+i, mark)
			if b == nil {
				refused++
				if err == nil && !request.Malformed.Any(sip.MalformedRefused|sip.LoneCR|sip.ZeroByte) {
					unseen = append(unseen, text)
				}
				continue
			}
			answered++
			if err != nil || sip.Parse(b, &answer) != nil {
				t.Errorf("%q was answered: %v", text, err)
				continue
			}
			told := func(m *sip.Message) string {
				tag := m.From.Tag
				if request.Malformed.Has(sip.RepeatedHeader) {
					tag = nil
				}
				return fmt.Sprintf("%q %d %s, from %q, branch %q", m.First.CallID, m.First.CSeq, m.First.CSeqMethod, tag,
					m.ComparableBranch())
			}
			if a, b := told(&request), told(&answer); a != b {
				t.Errorf("%q is read as %s; the answer is to %s", text, a, b)
			}
			if request.Malformed.Any(sip.MalformedRefused) {
				t.Errorf("%q has %v, and was answered", text, request.Malformed)
			}
		}
	}
	var messages []string
	add := func(text string) {
		if messages = append(messages, text); len(messages) == sockets {
			batch(messages)
			messages = messages[:0]
		}
	}
	for i := range len(full(all[0], number)) {
		for _, more := range []string{
			"\xff", "\r", "\n", "&", " ", "\t", "\x00", ":", ";", "\"", "<", ",", "\\", "\r\n ", "\r\n\r\n", "\r \n",
			// Headers within others: behind & and CR, in quotes, in comments, in brackets, in parameters.
			"&i:x\r\n", "\ri:y\r\n", "\"\ri:y\r\"", ";x=\"\ri:y\r\"", "(\ri:y\r)", "(\r\ni:y\r\n)", "[\r\ni:y\r\n]",
			"&\r\n i\r\n :x\r\n", ";x=\"&i:y\"", "\r\ni:x\r\n", "\r\nf:<sip:x@y>;tag=x\r\n", "\r\nCSeq: 7 INFO\r\n",
			"\r\nv:SIP/2.0/UDP x;branch=y\r\n", ",SIP/2.0/UDP x;branch=y", ";branch=x", ";tag=x",
			// What may stand behind a value, and what may not.
			"(", "[", "=", "%", "%\xff", ",", ",,", ";x=", "=\"\xff\"", "=\"", ";x=[::1]:5", "?x=y&z", " : 5", "\xe9 ", "x=1",
		} {
			m := full(all[len(messages)], number)
			number++
			add(m[:min(i, len(m))] + more + m[min(i, len(m)):])
		}
	}
	batch(messages)
	if answered < tried/10 || refused < tried/10 {
		t.Errorf("%d tried, %d answered, %d refused", tried, answered, refused)
	}
	t.Logf("%d tried, %d answered, %d refused, %d of them unseen", tried, answered, refused, len(unseen))
	if len(unseen) > tried/1000 {
		t.Errorf("%d were refused, and nothing says so: %q", len(unseen), unseen[:20])
	}
}

// plain is a request that Asterisk answers.
func plain(c net.Conn, number int) string {
	return fmt.Sprintf("OPTIONS sip:100@%s SIP/2.0\r\nVia: SIP/2.0/UDP %s;rport;branch=z9hG4bK-%d\r\nMax-Forwards: 70\r\n"+
		"From: \"a\" <sip:a@%[2]s>;tag=t%[3]d\r\nTo: <sip:100@%[1]s>\r\nContact: <sip:a@%[2]s>\r\nCSeq: %[3]d OPTIONS\r\n"+
		"Call-ID: c%[3]d\r\nContent-Length: 0\r\n\r\n", c.RemoteAddr(), c.LocalAddr(), number)
}

// full is one that has more kinds of headers, and of values.
func full(c net.Conn, number int) string {
	m := plain(c, number)
	for _, change := range [][2]string{
		{"Contact: <sip:a@", "Contact: \"\xe9\" <sip:a:b@"}, {">\r\nCSeq", ";x=y;z?h=v>;expires=60;q=0.5, <sip:b@c>\r\nCSeq"},
		{";rport", " ; rport;received=[::1]:5"}, {"\r\nMax-Forwards", " (x)\r\nVia: SIP/2.0/TCP [::1]:5\r\nMax-Forwards"},
		{"\r\nTo", ";x=\"\xe9\"\r\nTo"},
		{"Content-Length", "Expires: 60\r\nRecord-Route: <sip:p;lr>, <sip:q>;x=y\r\nEvent: reg;id=\"\xe9\"\r\n" +
			"Session-Expires: 90;refresher=uac\r\nContent-Type: application/sdp;x=y\r\nAuthorization: Digest username=\"\xe9\", " +
			"realm=\"r\",nonce=n , qop=auth\r\nUser-Agent: \xe9\r\nContent-Length"},
	} {
		m = strings.Replace(m, change[0], change[1], 1)
	}
	return m
}

type sipSocket struct{ net.Conn }

func (s *sipSocket) send(t *testing.T, text string) {
	t.Helper()
	if _, err := s.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// answer returns what came to a number, or nil. Behind it, one is sent that is answered for sure: what was not answered
// before that is taken for refused.
func (s *sipSocket) answer(t *testing.T, number, mark int) (first []byte) {
	t.Helper()
	b := make([]byte, 65536)
	wanted, last := []byte(strconv.Itoa(number)), fmt.Appendf(nil, "Call-ID: c%d\r\n", mark)
	for range 60 {
		s.send(t, plain(s, mark))
		if err := s.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		for {
			n, err := s.Read(b)
			if err != nil {
				break // the one that was sent, or its answer, was lost
			}
			if bytes.Contains(b[:n], last) {
				return first
			}
			if bytes.Contains(b[:n], wanted) {
				first = bytes.Clone(b[:n])
			}
		}
	}
	t.Fatal("Asterisk answers no more")
	return nil
}

// Over TCP, each message that Asterisk answers is one that Streams has told, whatever was sent before it on the same
// connection, and however it was cut.
func TestSIPStreamsMissNothingThatAsteriskAnswers(t *testing.T) {
	l := lab.Start(t, lab.Options{Version: 22})
	type connection struct {
		net.Conn
		sent     [][]byte
		answered []string // Call-IDs
	}
	var all []*connection
	dial := func() *connection {
		c, err := l.DialContext(t.Context(), lab.Attacker, "tcp", l.SIPAddress(false).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		all = append(all, &connection{Conn: c})
		return all[len(all)-1]
	}
	number := 1_000_000
	message := func(c net.Conn) string {
		number++
		return strings.Replace(plain(c, number), "/UDP", "/TCP", 1)
	}
	replaced := func(m, old, new string) string { return strings.Replace(m, old, new, 1) }
	for _, before := range []func(string) string{
		func(m string) string { return "" },
		func(m string) string { return "\r\n\r\n" },
		func(m string) string { return m },
		func(m string) string { return m + "\r\n\r\n" + m },
		func(m string) string { return replaced(m, "Length: 0", "Length: 5") + "hello" },
		func(m string) string { return replaced(m, "Content-Length: 0", "l:\r\n  5") + "hello" },
		func(m string) string {
			return replaced(m, "Content-Length: 0", "l: 0\r\nContent-Length: 500")
		},
		func(m string) string { return replaced(m, "Content-Length: 0", "l: x\r\nContent-Length: 0") },
		func(m string) string {
			return replaced(m, "Content-Length: 0", "l : 00000000000000000005") + "hello"
		},
		func(m string) string { return replaced(m, "Content-Length: 0\r\n", "") },
		func(m string) string { return replaced(m, "Content-Length: 0\r\n", "") + "text" },
		func(m string) string { return replaced(m, "Length: 0", "Length: 70000") },
		func(m string) string { return replaced(m, "Length: 0", "Length: -5") },
		func(m string) string {
			return replaced(m, "Length: 0", "Length: 60000") + strings.Repeat("x", 60000)
		},
		func(m string) string {
			return m + replaced(m, "Length: 0", "Length: 70000") + strings.Repeat("x", 65400)
		},
		func(m string) string { return "\x16\x03\x01\r\n" },
		func(m string) string { return "hello\r\n\r\n" },
		func(m string) string { return "hello" },
		func(m string) string { return "hello\r\nl: 5\r\n\r\n12345" },
		func(m string) string { return m + "SIP/2.0 200 OK\r\nl: 200\r\n\r\n" },
		func(m string) string { return strings.ReplaceAll(m, "\r\n", "\n") },
		func(m string) string { return replaced(m, "\r\nContent", "\n\nContent") },
	} {
		for _, cut := range []int{0, 1, 5, 40, 200} {
			c := dial()
			m := message(c)
			for _, part := range []string{before(message(c)), m[:cut], m[cut:], message(c)} {
				if part != "" {
					c.sent = append(c.sent, []byte(part))
				}
			}
		}
	}
	var wait sync.WaitGroup
	for _, c := range all {
		wait.Go(func() {
			for _, part := range c.sent {
				if _, err := c.Write(part); err != nil {
					return // Asterisk has closed it
				}
				time.Sleep(20 * time.Millisecond) // most parts are read alone; what must hold, holds without
			}
			_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
			b, _ := io.ReadAll(c)
			for _, line := range strings.Split(string(b), "\r\n") {
				if id, ok := strings.CutPrefix(line, "Call-ID: "); ok {
					c.answered = append(c.answered, id)
				}
			}
		})
	}
	wait.Wait()
	answers := 0
	for _, c := range all {
		told := make(map[string]bool)
		streams := sip.NewStreams(func(_ sip.Flow, head []byte) {
			var m sip.Message
			if sip.Parse(head, &m) == nil {
				told[string(m.First.CallID)] = true
			}
		})
		streams.Add(sip.Flow{}, sip.Segment{SYN: true})
		seq := uint32(1)
		for _, part := range c.sent {
			streams.Add(sip.Flow{}, sip.Segment{Seq: seq, Payload: part})
			seq += uint32(len(part))
		}
		for _, id := range c.answered {
			answers++
			if !told[id] {
				t.Errorf("of %.2000q Asterisk answered %s; told was %v", c.sent, id, slices.Collect(maps.Keys(told)))
			}
		}
	}
	if answers < len(all)/2 {
		t.Errorf("on %d connections, %d answers", len(all), answers)
	}
	t.Logf("on %d connections, %d answers", len(all), answers)
}
