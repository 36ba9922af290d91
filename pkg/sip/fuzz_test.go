package sip

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unsafe"
)

// within says whether a view is a part of the bytes.
func within(view, b []byte) bool {
	if len(view) == 0 {
		return true
	}
	if len(b) == 0 {
		return false
	}
	from := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	at := uintptr(unsafe.Pointer(unsafe.SliceData(view)))
	return from <= at && at+uintptr(len(view)) <= from+uintptr(len(b))
}

func (m *Message) views() [][]byte {
	v := [][]byte{m.Method, m.CallID, m.First.CallID, m.CSeqMethod, m.First.CSeqMethod, m.Branch, m.ViaSentBy, m.UserAgent}
	uri := func(u *URI) { v = append(v, u.Raw, u.Scheme, u.User, u.Host) }
	uri(&m.RequestURI)
	for _, a := range []*Address{&m.From, &m.To, &m.Contact} {
		uri(&a.URI)
		v = append(v, a.Display, a.Tag)
	}
	for _, c := range m.Credentials() {
		v = append(v, c.Scheme, c.Username, c.Realm, c.Nonce, c.URI, c.Response, c.Algorithm, c.CNonce, c.Opaque, c.QOP, c.NC)
	}
	for _, c := range m.Challenges() {
		v = append(v, c.Scheme, c.Realm, c.Nonce, c.Opaque, c.Algorithm, c.QOP)
	}
	return v
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(register))
	f.Add([]byte(unauthorized))
	f.Add([]byte(strings.ReplaceAll(register, "\r\n", "\n")))
	f.Add([]byte(strings.ReplaceAll(register, "\r\nTo:", "&t :")))
	f.Add([]byte("OPTIONS sip:a@b SIP/2.0\rv:SIP/2.0/UDP x;branch=\"a,\\\"b\",SIP/2.0/TCP y(c)\ni: \xff\n\r\r\n"))
	f.Add([]byte("SIP / 2.0 200\nf:\"a\\\"<b\" <sip:a:b@[::1]:5;x>;tag=1\nm:*\nm:sip:a;b@c;d\n" +
		"Authorization:\"Digest\" a=\",\",b\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Message
		err := Parse(b, &m)
		if err != nil {
			if err != ErrEmpty && err != ErrNotSIP {
				t.Fatal(err)
			}
			return
		}
		for i, view := range m.views() {
			if !within(view, b) {
				t.Fatalf("view %d, %q, is not of the message", i, view)
			}
		}
		if m.HeadBytes > min(len(b), MaxHead) {
			t.Fatalf("%d bytes of %d", m.HeadBytes, len(b))
		}
		if m.Status != 0 && (m.Status < 100 || m.Status > 699 || m.Method != nil) {
			t.Fatalf("status %d of %q", m.Status, m.Method)
		}
		if (m.Status == 0 && m.Method == nil) != m.Malformed.Has(BadStartLine) {
			t.Fatalf("neither request nor answer: %v", m.Malformed)
		}
		said := fmt.Sprint(facts(&m))
		if m.Malformed.Any(TooManyHeaders) {
			return
		}
		// The head alone says the same, and so does one with a body; a message before leaves nothing.
		if err := Parse(b[:m.HeadBytes], &m); err != nil || fmt.Sprint(facts(&m)) != said {
			t.Fatalf("the head alone: %v, %s instead of %s", err, facts(&m), said)
		}
		if !m.Truncated && len(b) < MaxHead/2 {
			withBody := append(append([]byte("\r\n"), b[:m.HeadBytes]...), "v=0\r\nCall-ID: body\r\n"...)
			_ = Parse([]byte(register), &m)
			if err := Parse(withBody, &m); err != nil || fmt.Sprint(facts(&m)) != said {
				t.Fatalf("with a body: %v, %s instead of %s", err, facts(&m), said)
			}
		}
		// A head that is cut tells of its headers nothing that the whole does not hold.
		whole := b
		for cut := 0; cut < len(b) && cut < 300; cut++ {
			if Parse(whole[:cut], &m) == nil && !bytes.Contains(whole, m.CallID) {
				t.Fatalf("cut at %d: Call-ID %q", cut, m.CallID)
			}
		}
	})
}
