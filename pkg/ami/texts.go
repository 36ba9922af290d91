package ami

import (
	"slices"
	"unsafe"
)

const (
	pageSize  = 64 << 10
	pageText  = pageSize - 16 // the rest is the page's own
	ownBuffer = pageText / 16 // a longer text gets a buffer of its own: so little of a page lies fallow
	maxSpare  = 128           // pages, and chunks, that are kept for later
)

// A page holds the texts of frames, one after the other. It is used again when none of them is in use.
type page struct {
	used  int32 // bytes
	live  int32 // texts in use
	holes int32 // bytes of texts between them that were given up
	waste int32 // bytes that nothing is put into any more
	text  [pageText]byte
}

// texts are the pages of a queue.
type texts struct {
	open   *page // the one that is written to
	spare  spares[page]
	waste  int  // of all pages
	poison bool // overwrite texts that are no longer in use, so that a test sees who still reads them
}

// gap is what lies fallow once a text of n bytes is put.
func (t *texts) gap(n int) int {
	if n > ownBuffer || t.open == nil || int(t.open.used)+n <= pageText {
		return 0
	}
	return pageText - int(t.open.used) + int(t.open.holes)
}

// put copies a text. What it returns stays as it is until drop.
func (t *texts) put(text string) (string, *page) {
	n := len(text)
	if n > ownBuffer {
		b := make([]byte, n) // []byte(text) need not be a copy, since nobody seems to write to it
		copy(b, text)
		return view(b), nil
	}
	p := t.open
	if p == nil || int(p.used)+n > pageText {
		if p != nil {
			p.waste = int32(t.gap(n))
			t.waste += int(p.waste)
		}
		if p = t.spare.get(); p == nil {
			p = new(page)
		}
		t.open = p
	}
	b := p.text[p.used : int(p.used)+n]
	copy(b, text)
	p.used += int32(n)
	p.live++
	return view(b), p
}

// over ends the use of a text.
func (t *texts) over(text string) {
	if t.poison {
		poison(text)
	}
}

// drop ends the use of n texts of a page, and reports whether the page is free now.
func (t *texts) drop(p *page, n int) bool {
	if p.live -= int32(n); p.live > 0 {
		return false
	}
	t.waste -= int(p.waste)
	p.used, p.holes, p.waste = 0, 0, 0
	return p != t.open
}

// view returns a string that shares the bytes of b. It is the only place that breaks the rule that a string's bytes never
// change, and this is why nobody sees it: a text in a queue is written before its string is made, and its bytes are
// written again only after release, or after the queue itself made another string of it; whoever was given the string has
// promised by then not to use it (see Config.OnFrames). A frame in a Splitter's buffer is looked at and copied before the
// Splitter is asked for the next one. Builds with the race detector write over what is no longer in use, so that the tests
// of all who receive frames show whoever breaks the promise.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// poison writes over the bytes of a string of view. They are never valid UTF-8.
func poison(text string) {
	b := unsafe.Slice(unsafe.StringData(text), len(text))
	for i := 0; i < len(b); {
		i += copy(b[i:], "\xfe\xfe\xfe\xfe\xfe\xfe\xfe\xfe\xfe\xfe\xfe\xfe\xfe\xfe\xfe\xfe")
	}
}

// spares is a stack of what can be used again.
type spares[T any] struct {
	list  []*T
	least int // of them since trim
}

func (s *spares[T]) len() int { return len(s.list) }

// get returns one, or nil.
func (s *spares[T]) get() *T {
	n := len(s.list) - 1
	if n < 0 {
		return nil
	}
	x := s.list[n]
	s.list[n] = nil
	s.list = s.list[:n]
	s.least = min(s.least, n)
	return x
}

// put keeps one: always the first, and up to maxSpare while there is room.
func (s *spares[T]) put(x *T, room bool) {
	if n := len(s.list); n == 0 || room && n < maxSpare {
		s.list = append(s.list, x)
	}
}

// trim lets go of those that were not needed since the last time, but for one.
func (s *spares[T]) trim() {
	n := min(len(s.list), max(1, len(s.list)-s.least))
	s.list = slices.Delete(s.list, 0, len(s.list)-n)
	s.least = n
}
