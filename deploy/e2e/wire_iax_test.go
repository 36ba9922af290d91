package e2e

import (
	"bytes"
	"crypto/md5" // RFC 5456, section 8.6.15
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/pkg/iax"
)

// iaxCall is one end of a call, or of a registration.
type iaxCall struct {
	t      *testing.T
	conn   net.Conn
	far    uint16 // Asterisk's number of the call, once it is known
	oseq   byte
	iseq   byte
	sent   []byte          // the last frame
	last   iax.Subclass    // of the last frame that came
	record strings.Builder // "> " and "< ", and the frame in hex
}

func (c *iaxCall) send(subclass iax.Subclass, elements ...[]byte) {
	c.t.Helper()
	frame := []byte{0x80, 7, byte(c.far >> 8), byte(c.far), 0, 0, 0, 3, c.oseq, c.iseq, 6, byte(subclass)}
	for _, e := range elements {
		frame = append(frame, e...)
	}
	c.sent = frame
	fmt.Fprintf(&c.record, "> %x\n", frame)
	if _, err := c.conn.Write(frame); err != nil {
		c.t.Fatal(err)
	}
}

// receive is the next frame that is no ACK, and comes for the first time: nothing is acknowledged here. What has no answer
// is sent again, since Asterisk may drop a frame while it has much to do.
func (c *iaxCall) receive() iax.Frame {
	c.t.Helper()
	b := make([]byte, 2048)
	for end := time.Now().Add(patience); ; {
		_ = c.conn.SetReadDeadline(time.Now().Add(time.Second))
		n, err := c.conn.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(end) {
			again := bytes.Clone(c.sent)
			again[2] |= 0x80 // RFC 5456, section 8.1.1: the R bit
			if _, err := c.conn.Write(again); err != nil {
				c.t.Fatal(err)
			}
			continue
		}
		if err != nil {
			c.t.Fatalf("%v; so far\n%s", err, c.record.String())
		}
		var f iax.Frame
		if err := iax.Parse(b[:n], &f); err != nil {
			c.t.Fatalf("%v: %x", err, b[:n])
		}
		if f.Destination != 7 {
			c.t.Errorf("for call %d: %x", f.Destination, b[:n])
		}
		switch {
		case f.Subclass == iax.Ack:
			fmt.Fprintf(&c.record, "< %x\n", b[:n])
		case !f.Retransmitted && f.Subclass != c.last:
			fmt.Fprintf(&c.record, "< %x\n", b[:n])
			c.last = f.Subclass
			return f
		}
	}
}

func iaxElement(kind byte, data string) []byte { return append([]byte{kind, byte(len(data))}, data...) }

// login registers, or calls a number, and returns Asterisk's last word.
func (c *iaxCall) login(request, answer iax.Subclass, number, user, secret string) iax.Frame {
	c.t.Helper()
	var first [][]byte
	if request == iax.New {
		first = [][]byte{iaxElement(11, "\x00\x02"), iaxElement(1, number), iaxElement(9, "\x00\x00\x00\x04"),
			iaxElement(8, "\x00\x00\x00\x04")}
	}
	first = append(first, iaxElement(6, user))
	c.send(request, append(first, iaxElement(54, ""))...)
	f := c.receive()
	if f.Subclass != iax.CallToken || len(f.CallToken) == 0 {
		c.t.Fatalf("no token: %+v", f)
	}
	c.send(request, append(first, iaxElement(54, string(f.CallToken)))...)
	f = c.receive()
	if f.Subclass != iax.RegAuth && f.Subclass != iax.AuthReq {
		return f
	}
	if len(f.Challenge) == 0 || string(f.Username) != user {
		c.t.Errorf("challenge %+v", f)
	}
	sum := md5.Sum([]byte(string(f.Challenge) + secret))
	c.far, c.oseq, c.iseq = f.Source, 1, 1
	c.send(answer, iaxElement(6, user), iaxElement(16, hex.EncodeToString(sum[:])))
	return c.receive()
}

func iaxFrames(t *testing.T, l *lab.Lab) {
	const rejected, unavailable = iax.CauseFacilityRejected, iax.CauseFacilityUnavailable
	for name, c := range map[string]struct {
		request, answer      iax.Subclass
		number, user, secret string
		want                 iax.Subclass
		cause                uint8
		refuses, accepts     bool
	}{
		"register-right":   {iax.RegReq, iax.RegReq, "", "known", "right", iax.RegAck, 0, false, true},
		"register-wrong":   {iax.RegReq, iax.RegReq, "", "known", "wrong", iax.RegRej, rejected, true, false},
		"register-unknown": {iax.RegReq, iax.RegReq, "", "nobody", "x", iax.RegRej, rejected, true, false},
		"call-right":       {iax.New, iax.AuthRep, "100", "known", "right", iax.Accept, 0, false, true},
		"call-wrong":       {iax.New, iax.AuthRep, "100", "known", "wrong", iax.Reject, unavailable, true, false},
		"call-unknown":     {iax.New, iax.AuthRep, "100", "nobody", "x", iax.Reject, unavailable, true, false},
		"call-nowhere":     {iax.New, iax.AuthRep, "98765", "known", "right", iax.Reject, iax.CauseNoRoute, false, false},
		"guest-nowhere":    {iax.New, iax.AuthRep, "x", "guest", "", iax.Reject, iax.CauseNoRoute, false, false},
	} {
		conn, err := l.DialContext(t.Context(), lab.Attacker, "udp", "10.99.0.1:4569")
		if err != nil {
			t.Fatal(err)
		}
		call := &iaxCall{t: t, conn: conn}
		f := call.login(c.request, c.answer, c.number, c.user, c.secret)
		if f.Subclass != c.want || f.CauseCode != c.cause || f.RefusesLogin() != c.refuses || f.Accepts() != c.accepts {
			t.Errorf("%s: %s, %+v", name, f.Subclass, f)
		}
		writeRecording(t, "iax/testdata/"+name+".txt", []byte(call.record.String()))
		_ = conn.Close()
	}
}
