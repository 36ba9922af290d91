package table

// Pool keeps items at numbers from 0 on. They lie in pages that are never copied, so that a pointer to one stays good
// until it is freed. The zero Pool is empty.
type Pool[T any] struct {
	pages []*[pageSize]T
	free  []int32
	used  int32 // numbers that were ever given out
}

// At returns the item of a number.
func (p *Pool[T]) At(number int32) *T {
	return &p.pages[uint32(number)/pageSize][uint32(number)%pageSize]
}

// Add keeps an item and returns its number.
func (p *Pool[T]) Add(item T) int32 {
	var number int32
	if last := len(p.free) - 1; last >= 0 {
		number, p.free = p.free[last], p.free[:last]
	} else {
		number = p.used
		p.used++
		if int(number)/pageSize == len(p.pages) {
			p.pages = append(p.pages, new([pageSize]T))
		}
	}
	*p.At(number) = item
	return number
}

// Free gives a number up; the next Add may return it.
func (p *Pool[T]) Free(number int32) {
	var none T
	*p.At(number) = none
	p.free = append(p.free, number)
}
