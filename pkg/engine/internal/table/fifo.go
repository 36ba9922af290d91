package table

// pageSize is how many items lie together.
const pageSize = 1024

// FIFO is a queue. Its items lie in pages that come and go and are never copied: a slice of a hundred thousand would
// be, for milliseconds, when it grows. The zero FIFO is empty.
type FIFO[T any] struct {
	pages []*[pageSize]T
	begin int // of the oldest item, in the first page
	len   int
	spare *[pageSize]T // the last page that was given up, for what comes and goes at an edge
}

// Len returns how many items there are.
func (q *FIFO[T]) Len() int { return q.len }

// At returns an item, of which 0 is the oldest, to be read or changed in place.
func (q *FIFO[T]) At(i int) *T {
	i += q.begin
	return &q.pages[i/pageSize][i%pageSize]
}

// First returns the oldest item, or nil.
func (q *FIFO[T]) First() *T {
	if q.len == 0 {
		return nil
	}
	return q.At(0)
}

// Last returns the youngest item, or nil.
func (q *FIFO[T]) Last() *T {
	if q.len == 0 {
		return nil
	}
	return q.At(q.len - 1)
}

// Push adds an item.
func (q *FIFO[T]) Push(item T) {
	if q.begin+q.len == len(q.pages)*pageSize {
		page := q.spare
		if q.spare = nil; page == nil {
			page = new([pageSize]T)
		}
		q.pages = append(q.pages, page)
	}
	q.len++
	*q.Last() = item
}

// Pop takes the oldest item. There must be one.
func (q *FIFO[T]) Pop() T {
	item := *q.First()
	var none T
	*q.First() = none
	q.begin++
	q.len--
	if q.begin == pageSize {
		q.spare, q.pages[0] = q.pages[0], nil
		q.pages, q.begin = q.pages[1:], 0
	}
	return item
}
