package iax

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// element is one information element.
func element(kind byte, data string) []byte { return append([]byte{kind, byte(len(data))}, data...) }

// frame is a frame of a caller's call 7 and Asterisk's call 0x1234.
func frame(subclass byte, elements ...[]byte) []byte {
	b := []byte{0x80, 7, 0x12, 0x34, 0, 0, 1, 2, 3, 4, typeIAX, subclass}
	return append(b, bytes.Join(elements, nil)...)
}

func TestParse(t *testing.T) {
	var f Frame
	err := Parse(frame(13, element(elementUsername, "100"), element(19, "\x00\x3c"), element(elementMD5Result, "abc"),
		element(elementCallToken, "\x00token"), element(elementCalledNumber, "900")), &f)
	if err != nil || f.Source != 7 || f.Destination != 0x1234 || f.Retransmitted || f.Timestamp != 0x102 ||
		f.OutSeq != 3 || f.InSeq != 4 || f.Subclass != RegReq || string(f.Username) != "100" || string(f.Response) != "abc" ||
		string(f.CallToken) != "\x00token" || !f.HasCallToken || string(f.CalledNumber) != "900" || !f.FromCaller() {
		t.Errorf("%+v, %v", f, err)
	}
	b := frame(16, element(elementCause, "Registration Refused"), element(elementCauseCode, "\x1d"))
	b[2] |= 0x80
	if err := Parse(b, &f); err != nil || !f.Retransmitted || f.Destination != 0x1234 || f.Subclass != RegRej ||
		string(f.Cause) != "Registration Refused" || f.CauseCode != CauseFacilityRejected || !f.RefusesLogin() ||
		f.FromCaller() || f.Username != nil || f.Response != nil {
		t.Errorf("%+v, %v", f, err)
	}
	if err := Parse(frame(14, element(elementChallenge, "123")), &f); err != nil || string(f.Challenge) != "123" ||
		f.Subclass != RegAuth || f.FromCaller() || f.RefusesLogin() {
		t.Errorf("%+v, %v", f, err)
	}
}

// What Asterisk understands is understood.
func TestParseAsAsteriskDoes(t *testing.T) {
	name := func(s string) []byte { return element(elementUsername, s) }
	named := func(s string) Frame { return Frame{Subclass: New, Username: []byte(s)} }
	for name, c := range map[string]struct {
		frame []byte
		want  Frame
	}{
		"the last of two names":   {frame(1, name("a"), name("b")), named("b")},
		"a name ends at a NUL":    {frame(1, name("a\x00b")), named("a")},
		"bytes that are no text":  {frame(1, name("\xff")), named("\xff")},
		"NEW as a power of two":   {frame(0x80), Frame{Subclass: New}},
		"AUTHREQ as another":      {frame(0x83), Frame{Subclass: AuthReq}},
		"-1":                      {frame(0xff), Frame{}},
		"2 to the 63rd":           {frame(0xbf), Frame{}},
		"a shift beyond the mask": {frame(0xc0), Frame{Subclass: New}},
		"the password itself":     {frame(9, element(elementPassword, "x")), Frame{Subclass: AuthRep, Response: []byte("x")}},
		"an answer of nothing":    {frame(9, element(elementMD5Result, "")), Frame{Subclass: AuthRep, Response: []byte{}}},
		"a token is asked for":    {frame(13, element(elementCallToken, "")), Frame{Subclass: RegReq, HasCallToken: true}},
		"a cause code of two":     {frame(6, element(elementCauseCode, "\x00\x1d")), Frame{Subclass: Reject}},
		"elements nobody knows":   {frame(1, element(200, "x"), name("a")), named("a")},
		"a subclass nobody knows": {frame(99), Frame{Subclass: 99}},
	} {
		c.want.Source, c.want.Destination, c.want.Timestamp, c.want.OutSeq, c.want.InSeq = 7, 0x1234, 0x102, 3, 4
		var f Frame
		if err := Parse(c.frame, &f); err != nil || !equal(&f, &c.want) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
}

func equal(a, b *Frame) bool {
	same := func(x, y []byte) bool { return bytes.Equal(x, y) && (x == nil) == (y == nil) }
	return a.Source == b.Source && a.Destination == b.Destination && a.Retransmitted == b.Retransmitted &&
		a.Timestamp == b.Timestamp && a.OutSeq == b.OutSeq && a.InSeq == b.InSeq && a.Subclass == b.Subclass &&
		same(a.Username, b.Username) && same(a.CalledNumber, b.CalledNumber) && same(a.Challenge, b.Challenge) &&
		same(a.Response, b.Response) && same(a.CallToken, b.CallToken) && a.HasCallToken == b.HasCallToken &&
		same(a.Cause, b.Cause) && a.CauseCode == b.CauseCode
}

func TestParseRefuses(t *testing.T) {
	whole := frame(13, element(elementUsername, "100"))
	mini, voice := slices.Clone(whole), slices.Clone(whole)
	mini[0], voice[10] = 0, 2
	for name, c := range map[string]struct {
		frame []byte
		want  error
	}{
		"nothing":                        {nil, ErrNotSignalling},
		"half a head":                    {whole[:11], ErrNotSignalling},
		"a mini frame":                   {mini, ErrNotSignalling},
		"a trunk's meta frame":           {append([]byte{0, 0, 1, 0}, whole...), ErrNotSignalling},
		"a frame of voice":               {voice, ErrNotSignalling},
		"a poke with a lone byte behind": {append(frame(30), 6), ErrMalformed},
		"an element beyond the end":      {whole[:len(whole)-1], ErrMalformed},
		"an element of 255 bytes":        {append(frame(13), 6, 255, 'x'), ErrMalformed},
	} {
		var f Frame
		if err := Parse(c.frame, &f); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	var f Frame
	if err := Parse(append(whole, elementMD5Result, 32, 'a'), &f); err != ErrMalformed || string(f.Username) != "100" {
		t.Errorf("what stands before an element that is cut short: %+v, %v", f, err)
	}
}

func TestReasonsOfARefusal(t *testing.T) {
	for _, c := range []struct {
		subclass Subclass
		cause    string
		login    bool
	}{{RegRej, "\x1d", true}, {RegRej, "", true}, {Reject, "\x32", true}, {Reject, "\x1d", true}, {Reject, "\x03", false},
		{Reject, "", false}, {Hangup, "\x1d", false}, {RegAck, "", false}, {Accept, "", false}} {
		var f Frame
		if err := Parse(frame(byte(c.subclass), element(elementCauseCode, c.cause)), &f); err != nil ||
			f.RefusesLogin() != c.login || f.Accepts() != (c.subclass == RegAck || c.subclass == Accept) {
			t.Errorf("%s with %q: %v, %v", c.subclass, c.cause, f.RefusesLogin(), err)
		}
	}
}

func TestSubclassNames(t *testing.T) {
	if s := New.String() + RegRej.String() + Subclass(0).String() + Subclass(2).String() + Subclass(255).String(); s !=
		"NEWREGREJotherotherother" {
		t.Error(s)
	}
}

// recording is what went to Asterisk 22 and came from it (deploy/e2e records it).
func recording(t testing.TB, name string) (frames [][]byte) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		b, err := hex.DecodeString(strings.TrimSpace(line[len("> "):]))
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, b)
	}
	return frames
}

const (
	registers = "REGREQ %, CALLTOKEN, REGREQ % token, REGAUTH, REGREQ % answer, "
	calls     = "NEW %, CALLTOKEN, NEW % token, AUTHREQ, AUTHREP % answer, "
)

// recorded is what was said, with % for the account. An unknown one is treated as a known one with a wrong password.
var recorded = map[string]string{
	"register-right.txt":   registers + "REGACK",
	"register-wrong.txt":   registers + "REGREJ: Registration Refused",
	"register-unknown.txt": registers + "REGREJ: Registration Refused",
	"call-right.txt":       calls + "ACCEPT",
	"call-wrong.txt":       calls + "REJECT: No authority found",
	"call-unknown.txt":     calls + "REJECT: No authority found",
	"call-nowhere.txt":     calls + "REJECT",
	"guest-nowhere.txt":    "NEW %, CALLTOKEN, NEW % token, REJECT",
}

func TestRecordings(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(names) != len(recorded) {
		t.Fatalf("%d recordings, %v", len(names), err)
	}
	for _, name := range names {
		account := "known"
		if strings.HasSuffix(name, "unknown.txt") {
			account = "nobody"
		} else if strings.Contains(name, "guest") {
			account = "guest"
		}
		var said []string
		for _, b := range recording(t, name) {
			var f Frame
			if err := Parse(b, &f); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if f.Subclass == Ack {
				continue
			}
			s := f.Subclass.String()
			if f.FromCaller() && len(f.Username) > 0 {
				s += " " + strings.Replace(string(f.Username), account, "%", 1)
			}
			if len(f.CallToken) > 0 && f.FromCaller() {
				s += " token"
			}
			if len(f.Response) == 32 {
				s += " answer"
			}
			if f.RefusesLogin() {
				s += ": " + string(f.Cause)
			}
			said = append(said, s)
		}
		if got, want := strings.Join(said, ", "), recorded[filepath.Base(name)]; got != want {
			t.Errorf("%s:\n%s, want\n%s", name, got, want)
		}
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	frames := recording(t, "testdata/call-wrong.txt")
	var f Frame
	if n := testing.AllocsPerRun(100, func() {
		for _, b := range frames {
			if err := Parse(b, &f); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParse(b *testing.B) {
	frames := recording(b, "testdata/call-wrong.txt")
	var f Frame
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := Parse(frames[i%len(frames)], &f); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzParse(f *testing.F) {
	names, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		for _, b := range recording(f, name) {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		var frame Frame
		err := Parse(b, &frame)
		if !bytes.Equal(before, b) {
			t.Fatal("the datagram was changed")
		}
		if err == ErrNotSignalling {
			if !equal(&frame, &Frame{}) {
				t.Fatalf("half a frame: %+v", frame)
			}
			return
		}
		if frame.Source >= 1<<15 || frame.Destination >= 1<<15 {
			t.Fatalf("call numbers of %+v", frame)
		}
		for _, text := range [][]byte{frame.Username, frame.CalledNumber, frame.Challenge, frame.Response, frame.Cause} {
			if len(text) > 255 || bytes.IndexByte(text, 0) >= 0 || !bytes.Contains(b, text) {
				t.Fatalf("%q", text)
			}
		}
		if len(frame.CallToken) > 0 && !frame.HasCallToken {
			t.Fatal("a token that is none")
		}
		// What comes last counts, and a cut changes nothing of what stands before.
		if err == nil {
			var more Frame
			if Parse(append(bytes.Clone(b), element(elementUsername, "last")...), &more) != nil ||
				string(more.Username) != "last" {
				t.Fatalf("with a name behind: %+v", more)
			}
			more.Username = frame.Username
			if !equal(&more, &frame) {
				t.Fatalf("%+v became %+v", frame, more)
			}
			if Parse(append(bytes.Clone(b), elementUsername, 4, 'x'), &more) != ErrMalformed || !equal(&more, &frame) {
				t.Fatalf("%+v became %+v", frame, more)
			}
		}
	})
}
