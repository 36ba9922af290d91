package nfnl

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Message types of nf_tables (linux/netfilter/nf_tables.h), with the subsystem as the top half.
const (
	Subsystem      = unix.NFNL_SUBSYS_NFTABLES << 8
	AddElements    = Subsystem | unix.NFT_MSG_NEWSETELEM
	deleteElements = Subsystem | unix.NFT_MSG_DELSETELEM
	flagNested     = unix.NLA_F_NESTED
	attrHeader     = unix.NLA_HDRLEN
)

// maxList is where a list of elements is split over two messages: the length of a netlink attribute has 16 bits.
const maxList = 60 << 10

// MaxTransaction is where elements are split over two transactions, in bytes. It is below the kernel's default
// net.core.wmem_max, so a transaction also passes where the send buffer cannot be raised.
const MaxTransaction = 96 << 10

// SetElement is one element to be written. The library's own encoder allocates a dozen times for each; this one
// does not, and it can demand that an element be new (NLM_F_EXCL), so that a fresh ban costs one message, not
// three.
type SetElement struct {
	Key     Key
	Timeout time.Duration // 0: none
	Limit   Limit         // the element's own
	Value   uint32        // of a map, in the machine's order; 0: none
	End     bool          // closes an interval
	Open    bool          // an interval up to the last address, without an end
	Comment string
}

// Key is the key of an element: an address, and what it is concatenated with where that is not 0.
type Key struct {
	Addr     netip.Addr
	Protocol uint8
	Port     uint16
}

// Bytes is the key as the kernel wants it: each part takes whole words (struct nft_data, four bytes a register).
func (k Key) Bytes() []byte { return k.appendTo(make([]byte, 0, k.size())) }

func (k Key) size() int {
	n := 4
	if !k.Addr.Is4() {
		n = 16
	}
	if k.Protocol != 0 {
		n += 4
	}
	if k.Port != 0 {
		n += 4
	}
	return n
}

func (k Key) appendTo(b []byte) []byte {
	if k.Addr.Is4() {
		a := k.Addr.As4()
		b = append(b, a[:]...)
	} else {
		a := k.Addr.As16()
		b = append(b, a[:]...)
	}
	if k.Protocol != 0 {
		b = append(b, k.Protocol, 0, 0, 0)
	}
	if k.Port != 0 {
		b = append(binary.BigEndian.AppendUint16(b, k.Port), 0, 0)
	}
	return b
}

// parseKey reads a key, by its length: no two kinds of keys that Ringwall uses have the same.
func parseKey(b []byte) (k Key) {
	address := 4
	if len(b) >= 16 {
		address = 16
	}
	switch len(b) - address {
	case 8:
		k.Port = binary.BigEndian.Uint16(b[address+4:])
		fallthrough
	case 4:
		k.Protocol = b[address]
		fallthrough
	case 0:
		k.Addr, _ = netip.AddrFromSlice(b[:address])
	}
	return k
}

// Limit matches what an element gets beyond Rate packets in Unit seconds, where Burst may come at once; none where
// Rate is 0.
type Limit struct {
	Rate, Unit uint64
	Burst      uint32
}

// Transaction is one transaction, its messages one after the other as they are sent.
type Transaction struct {
	table       string
	buf         []byte
	emptyLength int // length of buf without a change in it
}

// maxBuffer is the largest buffer that is kept for the next transaction.
const maxBuffer = 4 * MaxTransaction

// Begin empties the transaction, whose elements are of a table from now on.
func (t *Transaction) Begin(table string) {
	if cap(t.buf) > maxBuffer {
		t.buf = nil
	}
	t.table, t.buf = table, t.buf[:0]
	t.appendMarker(unix.NFNL_MSG_BATCH_BEGIN)
	t.emptyLength = len(t.buf)
}

// beginMessage begins a message, done gives it its length.
func (t *Transaction) beginMessage(kind netlink.HeaderType, flags netlink.HeaderFlags) int {
	at := len(t.buf)
	t.buf = append(t.buf, 0, 0, 0, 0)
	t.buf = binary.NativeEndian.AppendUint16(t.buf, uint16(kind))
	t.buf = binary.NativeEndian.AppendUint16(t.buf, uint16(flags))
	t.buf = append(t.buf, 0, 0, 0, 0, 0, 0, 0, 0) // no number, and the port is known to the kernel
	return at
}

func (t *Transaction) endMessage(at int) {
	binary.NativeEndian.PutUint32(t.buf[at:], uint32(len(t.buf)-at))
}

// appendMarker appends the first or last message of a transaction; its resource id names the subsystem
// (nfnetlink_rcv_batch in net/netfilter/nfnetlink.c).
func (t *Transaction) appendMarker(kind netlink.HeaderType) {
	at := t.beginMessage(kind, netlink.Request)
	t.buf = append(t.buf, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES)
	t.endMessage(at)
}

// Add puts elements into a set; with excl one that is there already aborts the transaction with EEXIST.
func (t *Transaction) Add(set string, elems []SetElement, excl bool) {
	flags := netlink.Request | netlink.Create
	if excl {
		flags |= netlink.Excl
	}
	t.appendElements(AddElements, flags, set, elems, true)
}

// Delete takes elements out; a missing one aborts the transaction with ENOENT.
func (t *Transaction) Delete(set string, elems []SetElement) {
	t.appendElements(deleteElements, netlink.Request, set, elems, false)
}

func (t *Transaction) appendElements(kind netlink.HeaderType, flags netlink.HeaderFlags, set string, elems []SetElement,
	values bool) {
	for len(elems) > 0 {
		at := t.beginMessage(kind, flags)
		t.buf = append(t.buf, unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0)
		t.appendText(unix.NFTA_SET_ELEM_LIST_TABLE, t.table)
		t.appendText(unix.NFTA_SET_ELEM_LIST_SET, set)
		list := t.openNested(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		n := 0
		for n < len(elems) && len(t.buf)-list < maxList {
			t.appendElement(&elems[n], values)
			n++
		}
		t.closeNested(list)
		t.endMessage(at)
		elems = elems[n:]
	}
}

func (t *Transaction) appendElement(e *SetElement, values bool) {
	item := t.openNested(unix.NFTA_LIST_ELEM)
	if e.End {
		t.appendAttribute(unix.NFTA_SET_ELEM_FLAGS, 4)
		t.buf = binary.BigEndian.AppendUint32(t.buf, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	key := t.openNested(unix.NFTA_SET_ELEM_KEY)
	t.appendAttribute(unix.NFTA_DATA_VALUE, e.Key.size())
	t.buf = e.Key.appendTo(t.buf)
	t.closeNested(key)
	// The kernel refuses either on the end of an interval (nft_add_set_elem in nf_tables_api.c).
	if values && !e.End {
		if e.Value != 0 {
			data := t.openNested(unix.NFTA_SET_ELEM_DATA)
			t.appendAttribute(unix.NFTA_DATA_VALUE, 4)
			t.buf = binary.NativeEndian.AppendUint32(t.buf, e.Value)
			t.closeNested(data)
		}
		if e.Timeout > 0 {
			t.appendAttribute(unix.NFTA_SET_ELEM_TIMEOUT, 8)
			t.buf = binary.BigEndian.AppendUint64(t.buf, uint64(max(1, e.Timeout.Milliseconds())))
		}
		if e.Limit.Rate > 0 {
			t.appendLimit(e.Limit)
		}
		var data []byte
		if e.Comment != "" {
			data = userdata.AppendString(data, userdata.NFTNL_UDATA_SET_ELEM_COMMENT, e.Comment)
		}
		if e.Open {
			data = userdata.AppendUint32(data, userdata.NFTNL_UDATA_SET_ELEM_FLAGS,
				userdata.NFTNL_UDATA_SET_ELEM_F_INTERVAL_OPEN)
		}
		if data != nil {
			t.appendAttribute(unix.NFTA_SET_ELEM_USERDATA, len(data))
			t.buf = append(t.buf, data...)
			t.padAttribute()
		}
	}
	t.closeNested(item)
}

// appendLimit appends `limit rate over` (nft_limit_policy in net/netfilter/nft_limit.c). The set itself need not have
// one (nft_add_set_elem in nf_tables_api.c), and a lookup runs it (nft_lookup_eval).
func (t *Transaction) appendLimit(l Limit) {
	expr := t.openNested(unix.NFTA_SET_ELEM_EXPR)
	t.appendText(unix.NFTA_EXPR_NAME, limitName)
	data := t.openNested(unix.NFTA_EXPR_DATA)
	t.appendAttribute(unix.NFTA_LIMIT_RATE, 8)
	t.buf = binary.BigEndian.AppendUint64(t.buf, l.Rate)
	t.appendAttribute(unix.NFTA_LIMIT_UNIT, 8)
	t.buf = binary.BigEndian.AppendUint64(t.buf, l.Unit)
	for _, a := range [...]struct {
		kind  uint16
		value uint32
	}{{unix.NFTA_LIMIT_BURST, l.Burst}, {unix.NFTA_LIMIT_TYPE, unix.NFT_LIMIT_PKTS},
		{unix.NFTA_LIMIT_FLAGS, unix.NFT_LIMIT_F_INV}} {
		t.appendAttribute(a.kind, 4)
		t.buf = binary.BigEndian.AppendUint32(t.buf, a.value)
	}
	t.closeNested(data)
	t.closeNested(expr)
}

const limitName = "limit"

func (t *Transaction) appendAttribute(kind uint16, size int) {
	t.buf = binary.NativeEndian.AppendUint16(t.buf, uint16(attrHeader+size))
	t.buf = binary.NativeEndian.AppendUint16(t.buf, kind)
}

func (t *Transaction) appendText(kind uint16, s string) {
	t.appendAttribute(kind, len(s)+1)
	t.buf = append(append(t.buf, s...), 0)
	t.padAttribute()
}

func (t *Transaction) padAttribute() {
	for len(t.buf)%unix.NLA_ALIGNTO != 0 {
		t.buf = append(t.buf, 0)
	}
}

// openNested begins a nested attribute, closeNested gives it its length.
func (t *Transaction) openNested(kind uint16) int {
	at := len(t.buf)
	t.appendAttribute(kind|flagNested, 0)
	return at
}

func (t *Transaction) closeNested(at int) {
	binary.NativeEndian.PutUint16(t.buf[at:], uint16(len(t.buf)-at))
}

// Bytes closes the transaction; nil if there is nothing in it.
func (t *Transaction) Bytes() []byte {
	if len(t.buf) == t.emptyLength {
		return nil
	}
	t.appendMarker(unix.NFNL_MSG_BATCH_END)
	return t.buf
}

// Size is about what an element takes in a message, for MaxTransaction.
func (e *SetElement) Size() int {
	n := 24 + e.Key.size()
	if e.Value != 0 {
		n += 12
	}
	if e.Limit.Rate > 0 {
		n += 68
	}
	if e.Comment != "" || e.Open {
		n += 16 + len(e.Comment)
	}
	return n
}
