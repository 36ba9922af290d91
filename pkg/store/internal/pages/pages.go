package pages

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// ErrDamaged is a file that is no whole bbolt file.
var ErrDamaged = errors.New("damaged")

// Layout of the file: go.etcd.io/bbolt@v1.5.0/internal/common, page.go, meta.go, bucket.go and types.go.
const (
	pageHeader   = 16 // id u64, flags u16, count u16, overflow u32
	elementSize  = 16
	bucketHeader = 16 // root u64, sequence u64
	metaSize     = 64
	metaSummed   = 56 // bytes of the meta that its checksum covers

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10
	bucketEntry  = 0x01

	magic   = 0xED0CDAED
	version = 2

	minPage   = 1 << 10
	maxPage   = 1 << 16
	maxKey    = 32768
	maxDepth  = 32      // of a tree; 100 million records have 6
	maxNested = 4       // buckets in buckets
	maxRun    = 1 << 26 // bytes of one page with its overflow: a free list of eight million pages
)

// Usage says how much of a file is in use.
type Usage struct {
	PageSize int
	Pages    int // that the file has, the two meta pages included
	Free     int // of them, free
}

// Size is what the pages take, in bytes. The file may be longer: bbolt grows it ahead.
func (u Usage) Size() int64 { return int64(u.Pages) * int64(u.PageSize) }

type meta struct {
	pageSize             int
	root, freelist, high uint64
	txid                 uint64
}

type checker struct {
	r    io.ReaderAt
	meta meta
	seen []uint64 // bit set of pages that something points to
}

// Check reads the size bytes of a file and returns ErrDamaged, wrapped, if bbolt could not work with it. Damage within
// keys and values is not seen, nor are lost free pages, which harm nobody. Other errors are those of reading.
func Check(r io.ReaderAt, size int64) (Usage, error) {
	m, err := readMeta(r, size)
	if err != nil {
		return Usage{}, err
	}
	c := &checker{r: r, meta: m, seen: make([]uint64, m.high/64+1)}
	c.markPage(0, 0)
	c.markPage(1, 0)
	if err := c.checkTree(m.root, nil, nil, 0, 0); err != nil {
		return Usage{}, err
	}
	free, err := c.checkFreelist()
	if err != nil {
		return Usage{}, err
	}
	return Usage{PageSize: m.pageSize, Pages: int(m.high), Free: free}, nil
}

func damagedError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// readMeta finds the meta page that bbolt would use: of the valid ones, that of the later transaction.
func readMeta(r io.ReaderAt, size int64) (meta, error) {
	first, errFirst := metaAt(r, 0, 0, size)
	if errFirst != nil && !errors.Is(errFirst, ErrDamaged) {
		return meta{}, errFirst
	}
	if errFirst == nil {
		second, err := metaAt(r, int64(first.pageSize), 1, size)
		switch {
		case err != nil && !errors.Is(err, ErrDamaged):
			return meta{}, err
		case err == nil && second.pageSize == first.pageSize && second.txid > first.txid:
			return second, nil
		}
		return first, nil
	}
	for pageSize := int64(minPage); pageSize <= maxPage; pageSize *= 2 {
		second, err := metaAt(r, pageSize, 1, size)
		if err == nil && int64(second.pageSize) == pageSize {
			return second, nil
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			return meta{}, err
		}
	}
	return meta{}, errFirst
}

func metaAt(r io.ReaderAt, at int64, id uint64, size int64) (meta, error) {
	if size < at+pageHeader+metaSize {
		return meta{}, damagedError("%d bytes are too few for a state file", size)
	}
	b := make([]byte, pageHeader+metaSize)
	if err := readAt(r, b, at); err != nil {
		return meta{}, err
	}
	e, b := binary.NativeEndian, b[pageHeader:]
	if e.Uint32(b) != magic {
		return meta{}, damagedError("meta page %d does not begin as one", id)
	}
	if v := e.Uint32(b[4:]); v != version {
		return meta{}, damagedError("meta page %d has file format %d, known is %d", id, v, version)
	}
	h := fnv.New64a()
	_, _ = h.Write(b[:metaSummed])
	if h.Sum64() != e.Uint64(b[metaSummed:]) {
		return meta{}, damagedError("meta page %d has a wrong checksum", id)
	}
	m := meta{
		pageSize: int(e.Uint32(b[8:])), root: e.Uint64(b[16:]), freelist: e.Uint64(b[32:]), high: e.Uint64(b[40:]),
		txid: e.Uint64(b[48:]),
	}
	if m.pageSize < minPage || m.pageSize > maxPage || m.pageSize&(m.pageSize-1) != 0 {
		return meta{}, damagedError("meta page %d gives a page size of %d bytes", id, m.pageSize)
	}
	if m.high < 4 || m.high > uint64(size)/uint64(m.pageSize) {
		return meta{}, damagedError("the file has %d bytes, but should have %d pages of %d", size, m.high, m.pageSize)
	}
	return m, nil
}

// readAt fills b. A file that is shorter than it was a moment ago is damaged, too.
func readAt(r io.ReaderAt, b []byte, at int64) error {
	_, err := r.ReadAt(b, at)
	if errors.Is(err, io.EOF) {
		return damagedError("the file ends within a page at byte %d", at)
	}
	return err
}

// markPage notes that something points to a page and its overflow; false means that something else did already.
func (c *checker) markPage(id, overflow uint64) bool {
	for i := id; i <= id+overflow; i++ {
		if c.seen[i/64]&(1<<(i%64)) != 0 {
			return false
		}
		c.seen[i/64] |= 1 << (i % 64)
	}
	return true
}

type page struct {
	id    uint64
	flags uint16
	count int
	data  []byte // all of it, header and overflow included
}

// readPage reads one page with its overflow.
func (c *checker) readPage(id uint64) (page, error) {
	if id < 2 || id >= c.meta.high {
		return page{}, damagedError("page %d is none of the file's %d", id, c.meta.high)
	}
	at := int64(id) * int64(c.meta.pageSize)
	b := make([]byte, c.meta.pageSize)
	if err := readAt(c.r, b, at); err != nil {
		return page{}, err
	}
	e := binary.NativeEndian
	if got := e.Uint64(b); got != id {
		return page{}, damagedError("page %d calls itself page %d", id, got)
	}
	overflow := uint64(e.Uint32(b[12:]))
	if overflow >= c.meta.high-id || (overflow+1)*uint64(c.meta.pageSize) > maxRun {
		return page{}, damagedError("page %d goes on for %d pages, beyond the end", id, overflow)
	}
	if !c.markPage(id, overflow) {
		return page{}, damagedError("page %d is used twice", id)
	}
	if overflow > 0 {
		b = append(b, make([]byte, int(overflow)*c.meta.pageSize)...)
		if err := readAt(c.r, b[c.meta.pageSize:], at+int64(c.meta.pageSize)); err != nil {
			return page{}, err
		}
	}
	return page{id: id, flags: e.Uint16(b[8:]), count: int(e.Uint16(b[10:])), data: b}, nil
}

// bytesAt returns the bytes of a key or value, which must lie behind the elements and within the page.
func (p *page) bytesAt(element int, pos, size uint32) ([]byte, error) {
	from := uint64(pageHeader+element*elementSize) + uint64(pos)
	if from < uint64(pageHeader+p.count*elementSize) || from+uint64(size) > uint64(len(p.data)) {
		return nil, damagedError("element %d of page %d lies outside of it", element, p.id)
	}
	return p.data[from : from+uint64(size) : from+uint64(size)], nil
}

// checkOrder checks a key against the one before and the bounds that the parent gives: low ≤ key < high.
func (p *page) checkOrder(element int, key, before, low, high []byte) error {
	if len(key) == 0 || len(key) > maxKey {
		return damagedError("element %d of page %d has a key of %d bytes", element, p.id, len(key))
	}
	if before != nil && bytes.Compare(before, key) >= 0 || low != nil && bytes.Compare(key, low) < 0 ||
		high != nil && bytes.Compare(key, high) >= 0 {
		return damagedError("element %d of page %d is out of order", element, p.id)
	}
	return nil
}

// checkTree checks a page and all below it.
func (c *checker) checkTree(id uint64, low, high []byte, depth, nested int) error {
	if depth > maxDepth {
		return damagedError("page %d lies too deep", id)
	}
	p, err := c.readPage(id)
	if err != nil {
		return err
	}
	if pageHeader+p.count*elementSize > len(p.data) {
		return damagedError("page %d has no room for its %d elements", id, p.count)
	}
	switch p.flags {
	case flagLeaf:
		return c.checkLeaf(&p, low, high, nested)
	case flagBranch:
		return c.checkBranch(&p, low, high, depth, nested)
	}
	return damagedError("page %d should belong to a tree, but has flags %#x", id, p.flags)
}

func (c *checker) checkBranch(p *page, low, high []byte, depth, nested int) error {
	if p.count == 0 {
		return damagedError("branch page %d is empty", p.id)
	}
	keys := make([][]byte, p.count)
	children := make([]uint64, p.count)
	var before []byte
	for i := range p.count {
		e, b := binary.NativeEndian, p.data[pageHeader+i*elementSize:]
		key, err := p.bytesAt(i, e.Uint32(b), e.Uint32(b[4:]))
		if err == nil {
			err = p.checkOrder(i, key, before, low, high)
		}
		if err != nil {
			return err
		}
		keys[i], children[i], before = key, e.Uint64(b[8:]), key
	}
	for i, child := range children {
		next := high
		if i+1 < len(keys) {
			next = keys[i+1]
		}
		if err := c.checkTree(child, keys[i], next, depth+1, nested); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) checkLeaf(p *page, low, high []byte, nested int) error {
	var before []byte
	for i := range p.count {
		e, b := binary.NativeEndian, p.data[pageHeader+i*elementSize:]
		flags, pos, keySize, valueSize := e.Uint32(b), e.Uint32(b[4:]), e.Uint32(b[8:]), e.Uint32(b[12:])
		both, err := p.bytesAt(i, pos, keySize)
		if err == nil && uint64(keySize)+uint64(valueSize) <= uint64(len(p.data)) {
			both, err = p.bytesAt(i, pos, keySize+valueSize)
		} else if err == nil {
			err = damagedError("element %d of page %d lies outside of it", i, p.id)
		}
		if err != nil {
			return err
		}
		key, value := both[:keySize], both[keySize:]
		if err := p.checkOrder(i, key, before, low, high); err != nil {
			return err
		}
		before = key
		switch flags {
		case 0:
		case bucketEntry:
			if err := c.checkBucket(value, nested); err != nil {
				return err
			}
		default:
			return damagedError("element %d of page %d has flags %#x", i, p.id, flags)
		}
	}
	return nil
}

// checkBucket checks the value of a bucket's entry: the page of its root, or the page itself.
func (c *checker) checkBucket(value []byte, nested int) error {
	if nested == maxNested {
		return damagedError("buckets lie too deep in one another")
	}
	if len(value) < bucketHeader {
		return damagedError("a bucket's entry has only %d bytes", len(value))
	}
	e := binary.NativeEndian
	if root := e.Uint64(value); root != 0 {
		return c.checkTree(root, nil, nil, 0, nested+1)
	}
	b := value[bucketHeader:]
	if len(b) < pageHeader {
		return damagedError("a bucket within its entry has only %d bytes", len(b))
	}
	p := page{flags: e.Uint16(b[8:]), count: int(e.Uint16(b[10:])), data: b}
	if p.flags != flagLeaf || e.Uint64(b) != 0 || e.Uint32(b[12:]) != 0 || pageHeader+p.count*elementSize > len(b) {
		return damagedError("a bucket within its entry is no leaf page")
	}
	return c.checkLeaf(&p, nil, nil, nested+1)
}

// checkFreelist checks that free pages are pages of the file, each once, and none of a tree. It returns how many
// there are.
func (c *checker) checkFreelist() (int, error) {
	p, err := c.readPage(c.meta.freelist)
	if err != nil {
		return 0, err
	}
	if p.flags != flagFreelist {
		return 0, damagedError("page %d should be the free list, but has flags %#x", p.id, p.flags)
	}
	b, count := p.data[pageHeader:], uint64(p.count)
	if count == 0xFFFF { // then the first entry is the number
		count = binary.NativeEndian.Uint64(b)
		b = b[8:]
	}
	if count > uint64(len(b)/8) {
		return 0, damagedError("the free list has no room for its %d pages", count)
	}
	for i := range count {
		id := binary.NativeEndian.Uint64(b[i*8:])
		if id < 2 || id >= c.meta.high || !c.markPage(id, 0) {
			return 0, damagedError("page %d cannot be free", id)
		}
	}
	return int(count), nil
}
