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
	Key     netip.Addr
	Timeout time.Duration // 0: none
	End     bool          // closes an interval
	Open    bool          // an interval up to the last address, without an end
	Comment string
}

// Transaction is one transaction, its messages one after the other as they are sent.
type Transaction struct {
	table string
	buf   []byte
	empty int // length of buf without a change in it
}

// maxBuffer is the largest buffer that is kept for the next transaction.
const maxBuffer = 4 * MaxTransaction

// Begin empties the transaction, whose elements are of a table from now on.
func (b *Transaction) Begin(table string) {
	if cap(b.buf) > maxBuffer {
		b.buf = nil
	}
	b.table, b.buf = table, b.buf[:0]
	b.marker(unix.NFNL_MSG_BATCH_BEGIN)
	b.empty = len(b.buf)
}

// message begins a message, done gives it its length.
func (b *Transaction) message(t netlink.HeaderType, flags netlink.HeaderFlags) int {
	at := len(b.buf)
	b.buf = append(b.buf, 0, 0, 0, 0)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, uint16(t))
	b.buf = binary.NativeEndian.AppendUint16(b.buf, uint16(flags))
	b.buf = append(b.buf, 0, 0, 0, 0, 0, 0, 0, 0) // no number, and the port is known to the kernel
	return at
}

func (b *Transaction) done(at int) {
	binary.NativeEndian.PutUint32(b.buf[at:], uint32(len(b.buf)-at))
}

// marker appends the first or last message of a transaction; its resource id names the subsystem
// (nfnetlink_rcv_batch in net/netfilter/nfnetlink.c).
func (b *Transaction) marker(t netlink.HeaderType) {
	at := b.message(t, netlink.Request)
	b.buf = append(b.buf, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES)
	b.done(at)
}

// Add puts elements into a set; with excl one that is there already aborts the transaction with EEXIST.
func (b *Transaction) Add(set string, elems []SetElement, excl bool) {
	flags := netlink.Request | netlink.Create
	if excl {
		flags |= netlink.Excl
	}
	b.elements(AddElements, flags, set, elems, true)
}

// Delete takes elements out; a missing one aborts the transaction with ENOENT.
func (b *Transaction) Delete(set string, elems []SetElement) {
	b.elements(deleteElements, netlink.Request, set, elems, false)
}

func (b *Transaction) elements(t netlink.HeaderType, flags netlink.HeaderFlags, set string, elems []SetElement, values bool) {
	for len(elems) > 0 {
		at := b.message(t, flags)
		b.buf = append(b.buf, unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0)
		b.text(unix.NFTA_SET_ELEM_LIST_TABLE, b.table)
		b.text(unix.NFTA_SET_ELEM_LIST_SET, set)
		list := b.openNested(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		n := 0
		for n < len(elems) && len(b.buf)-list < maxList {
			b.element(&elems[n], values)
			n++
		}
		b.closeNested(list)
		b.done(at)
		elems = elems[n:]
	}
}

func (b *Transaction) element(e *SetElement, values bool) {
	item := b.openNested(unix.NFTA_LIST_ELEM)
	if e.End {
		b.attr(unix.NFTA_SET_ELEM_FLAGS, 4)
		b.buf = binary.BigEndian.AppendUint32(b.buf, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	key := b.openNested(unix.NFTA_SET_ELEM_KEY)
	if e.Key.Is4() {
		a := e.Key.As4()
		b.attr(unix.NFTA_DATA_VALUE, len(a))
		b.buf = append(b.buf, a[:]...)
	} else {
		a := e.Key.As16()
		b.attr(unix.NFTA_DATA_VALUE, len(a))
		b.buf = append(b.buf, a[:]...)
	}
	b.closeNested(key)
	// The kernel refuses either on the end of an interval (nft_add_set_elem in nf_tables_api.c).
	if values && !e.End {
		if e.Timeout > 0 {
			b.attr(unix.NFTA_SET_ELEM_TIMEOUT, 8)
			b.buf = binary.BigEndian.AppendUint64(b.buf, uint64(max(1, e.Timeout.Milliseconds())))
		}
		var data []byte
		if e.Comment != "" {
			data = userdata.AppendString(data, userdata.NFTNL_UDATA_SET_ELEM_COMMENT, e.Comment)
		}
		if e.Open {
			data = userdata.AppendUint32(data, userdata.NFTNL_UDATA_SET_ELEM_FLAGS, userdata.NFTNL_UDATA_SET_ELEM_F_INTERVAL_OPEN)
		}
		if data != nil {
			b.attr(unix.NFTA_SET_ELEM_USERDATA, len(data))
			b.buf = append(b.buf, data...)
			b.pad()
		}
	}
	b.closeNested(item)
}

func (b *Transaction) attr(t uint16, size int) {
	b.buf = binary.NativeEndian.AppendUint16(b.buf, uint16(attrHeader+size))
	b.buf = binary.NativeEndian.AppendUint16(b.buf, t)
}

func (b *Transaction) text(t uint16, s string) {
	b.attr(t, len(s)+1)
	b.buf = append(append(b.buf, s...), 0)
	b.pad()
}

func (b *Transaction) pad() {
	for len(b.buf)%unix.NLA_ALIGNTO != 0 {
		b.buf = append(b.buf, 0)
	}
}

// openNested begins a nested attribute, closeNested gives it its length.
func (b *Transaction) openNested(t uint16) int {
	at := len(b.buf)
	b.attr(t|flagNested, 0)
	return at
}

func (b *Transaction) closeNested(at int) {
	binary.NativeEndian.PutUint16(b.buf[at:], uint16(len(b.buf)-at))
}

// Bytes closes the transaction; nil if there is nothing in it.
func (b *Transaction) Bytes() []byte {
	if len(b.buf) == b.empty {
		return nil
	}
	b.marker(unix.NFNL_MSG_BATCH_END)
	return b.buf
}

// Size is about what an element takes in a message, for MaxTransaction.
func (e *SetElement) Size() int {
	n := 28
	if e.Key.Is6() {
		n = 40
	}
	if e.Comment != "" || e.Open {
		n += 16 + len(e.Comment)
	}
	return n
}
