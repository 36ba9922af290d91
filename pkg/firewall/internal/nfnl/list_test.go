package nfnl

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

func FuzzListing(f *testing.F) {
	var b Transaction
	b.Begin("ringwall")
	at := len(b.buf)
	b.Add("ban4", []SetElement{{Key: Key{Addr: netip.MustParseAddr("203.0.113.66")}, Timeout: time.Hour}}, false)
	size := binary.NativeEndian.Uint32(b.buf[at:])
	f.Add(b.buf[at+16 : at+int(size)])
	b.Begin("ringwall")
	b.Add("slowflow6", []SetElement{{Key: Key{netip.MustParseAddr("2001:db8::66"), 17, 5060}, Timeout: time.Hour,
		Limit: Limit{4, 60, 4}}}, false)
	size = binary.NativeEndian.Uint32(b.buf[at:])
	f.Add(b.buf[at+16 : at+int(size)])
	f.Fuzz(func(t *testing.T, body []byte) {
		list, err := appendListed(nil, body)
		for _, e := range list {
			if !e.Key.Addr.IsValid() {
				t.Errorf("%+v, %v", e, err)
			}
		}
	})
}
