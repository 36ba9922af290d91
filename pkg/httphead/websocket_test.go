package httphead

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// clientFrame is a frame as a browser sends it: with a mask.
func clientFrame(first byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i&3])
	}
	return b
}

func TestParseFrame(t *testing.T) {
	long, huge := strings.Repeat("REGISTER ", 100), strings.Repeat("x", 1<<16)
	for name, c := range map[string]struct {
		bytes   []byte
		opcode  Opcode
		final   bool
		payload string
		length  int
	}{
		// The examples of RFC 6455, section 5.7.
		"a text":            {[]byte("\x81\x05Hello"), Text, true, "Hello", 5},
		"a text, masked":    {[]byte("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), Text, true, "Hello", 5},
		"the first half":    {[]byte("\x01\x03Hel"), Text, false, "Hel", 3},
		"the second half":   {[]byte("\x80\x02lo"), Continuation, true, "lo", 2},
		"a ping":            {[]byte("\x89\x05Hello"), Ping, true, "Hello", 5},
		"nothing":           {clientFrame(0x81, ""), Text, true, "", 0},
		"two bytes of size": {clientFrame(0x81, long), Text, true, long, len(long)},
		"eight of size":     {clientFrame(0x82, huge), Binary, true, huge, len(huge)},
	} {
		var f Frame
		buffer := make([]byte, 1<<17)
		if err := ParseFrame(append(c.bytes, "behind"...), &f); err != nil || f.Opcode != c.opcode || f.Final != c.final ||
			f.Size != len(c.bytes) || f.Truncated || f.Length != uint64(c.length) || string(f.Payload(buffer)) != c.payload {
			t.Errorf("%s: %+v, %v", name, f.Opcode, err)
		}
	}
	// The head of a message, in a copy that is cut and a buffer that is small.
	whole := clientFrame(0x81, long)
	var f Frame
	err := ParseFrame(whole[:100], &f)
	if err != nil || !f.Truncated || f.Size != 100 || f.Length != uint64(len(long)) ||
		string(f.Payload(make([]byte, 1000))) != long[:92] || string(f.Payload(make([]byte, 8))) != "REGISTER" {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestParseFrameRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":                   nil,
		"one byte":                  {0x81},
		"a reserved bit":            {0xc1, 0},
		"a reserved opcode":         {0x83, 0},
		"a reserved control":        {0x8b, 0},
		"a ping in pieces":          {0x09, 0},
		"a ping of 126 bytes":       {0x89, 126, 0, 126},
		"half a size":               {0x81, 126, 1},
		"half a size of eight":      {0x81, 127, 0, 0, 0, 0, 0, 0, 1},
		"half a mask":               {0x81, 0x81, 1, 2, 3},
		"a request":                 []byte("GET /ws HTTP/1.1\r\n"),
		"SIP that is not in frames": []byte("REGISTER sip:pbx SIP/2.0\r\n"),
		"TLS":                       []byte("\x16\x03\x01\x02\x00"),
	} {
		var f Frame
		if err := ParseFrame(b, &f); err != ErrNotFrame || f.Size != 0 {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
}

func FuzzParseFrame(f *testing.F) {
	f.Add([]byte("\x81\x05Hello"))
	f.Add(clientFrame(0x81, "REGISTER sip:pbx SIP/2.0\r\n"))
	f.Add(clientFrame(0x02, strings.Repeat("x", 300)))
	f.Add([]byte("\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04x"))
	buffer := make([]byte, 64)
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		var frame Frame
		if ParseFrame(b, &frame) != nil {
			return
		}
		payload := frame.Payload(buffer)
		if !bytes.Equal(before, b) {
			t.Fatal("the bytes were changed")
		}
		if frame.Size < 2 || frame.Size > len(b) || frame.Truncated && frame.Size != len(b) ||
			uint64(len(payload)) > frame.Length || !frame.Truncated && frame.Length < 64 && len(payload) != int(frame.Length) {
			t.Fatalf("%+v of %q", frame, b)
		}
		// The same payload in a frame of our own, behind which another begins.
		var again Frame
		ours := clientFrame(0x81, string(payload))
		if err := ParseFrame(append(ours, b...), &again); err != nil || again.Size != len(ours) ||
			!bytes.Equal(again.Payload(make([]byte, 64)), payload) {
			t.Fatalf("%+v, %v", again, err)
		}
	})
}
