package flows

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
)

// entry builds a message as the kernel does.
func entry() []byte {
	direction := func(src, dst [4]byte, dport uint16) []byte {
		ip := appendAttr(appendAttr(nil, ctaIPv4Source, src[:]), 2, dst[:])
		port := binary.BigEndian.AppendUint16(nil, dport)
		proto := appendAttr(appendAttr(appendAttr(nil, ctaProtoNum, []byte{17}), 2, port), ctaProtoDestPort, port)
		return nest(nest(nil, ctaTupleIP, ip), ctaTupleProto, proto)
	}
	b := []byte{2, 0, 0, 0}
	b = nest(b, ctaTupleOrig, direction([4]byte{192, 0, 2, 1}, [4]byte{192, 0, 2, 2}, 5060))
	b = nest(b, ctaTupleReply, direction([4]byte{192, 0, 2, 2}, [4]byte{192, 0, 2, 1}, 4000))
	b = appendAttr(b, 3, []byte{0, 0, 0, 1})
	b = appendAttr(b, ctaZone, []byte{0, 7})
	return appendAttr(b, ctaID, []byte{1, 2, 3, 4})
}

func TestParse(t *testing.T) {
	msg := entry()
	var f flow
	if !parse(msg, &f) {
		t.Fatal("not understood")
	}
	if want := (tuple{netip.MustParseAddr("192.0.2.1"), 17, 5060, 5060}); f.orig != want {
		t.Errorf("original %v, want %v", f.orig, want)
	}
	if want := (tuple{netip.MustParseAddr("192.0.2.2"), 17, 4000, 4000}); f.reply != want {
		t.Errorf("reply %v, want %v", f.reply, want)
	}
	// The name is an entry of its own, with the same tuple, zone and id.
	var named flow
	if !parse(f.appendName(nil), &named) || named.orig != f.orig || named.reply.src.IsValid() ||
		!bytes.Equal(named.zone, f.zone) || !bytes.Equal(named.id, f.id) {
		t.Errorf("name %v of %v", named, f)
	}
	for n := range msg[:len(msg)-8] {
		if n > genHeader && parse(msg[:n], &f) && f.id != nil {
			t.Errorf("%d of %d bytes have an id", n, len(msg))
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(entry())
	f.Add([]byte{2, 0, 0, 0, 3, 0, 1, 0})
	f.Add([]byte{10, 0, 0, 0, 255, 255, 1, 128})
	f.Fuzz(func(t *testing.T, msg []byte) {
		var fl flow
		if !parse(msg, &fl) {
			return
		}
		var again flow
		if !parse(fl.appendName(nil), &again) || again.orig != fl.orig {
			t.Errorf("%v became %v by its name", fl, again)
		}
	})
}
