package table

import (
	"iter"
	"math"
)

// chainPage is how many items of Chains lie together: pages come as they are needed.
const chainPage = 1 << 8

// Chains keeps the latest items of all owners, a fixed number of them, and chains each owner's from the latest back. An
// owner keeps the number of its latest item.
type Chains[O comparable, T any] struct {
	pages  []*[chainPage]chained[O, T]
	latest uint32 // number; 0 for none. Numbers begin at 1
}

type chained[O comparable, T any] struct {
	item   T
	owner  O
	before uint32 // number of the owner's item before, 0 for none
}

// NewChains makes room for so many items, a multiple of 256.
func NewChains[O comparable, T any](size int) *Chains[O, T] {
	return &Chains[O, T]{pages: make([]*[chainPage]chained[O, T], size/chainPage)}
}

func (c *Chains[O, T]) size() uint32 { return uint32(len(c.pages) * chainPage) }

func (c *Chains[O, T]) at(number uint32) *chained[O, T] {
	i := (number - 1) % c.size()
	return &c.pages[i/chainPage][i%chainPage]
}

// Add gives an owner, whose latest item is number before or who has none, a new item in place of the oldest of all. It
// returns the item, the zero value, to be filled in, and its number.
func (c *Chains[O, T]) Add(owner O, before uint32) (item *T, number uint32) {
	if c.latest == math.MaxUint32 { // the numbers are used up: start again, and let every chain end
		c.latest = 0
	}
	c.latest++
	if page := &c.pages[(c.latest-1)%c.size()/chainPage]; *page == nil {
		*page = new([chainPage]chained[O, T])
	}
	slot := c.at(c.latest)
	*slot = chained[O, T]{owner: owner, before: before}
	return &slot.item, c.latest
}

// Chain returns up to n items of an owner, whose latest has a number, the oldest first, and whether there were older
// ones.
func (c *Chains[O, T]) Chain(owner O, latest uint32, n int) (items []T, more bool) {
	number, length := latest, 0
	for ; number != 0 && length < n && c.holds(number, owner); number = c.at(number).before {
		length++
	}
	more = number != 0
	if length == 0 {
		return nil, more
	}
	items = make([]T, length)
	for number = latest; length > 0; number = c.at(number).before {
		length--
		items[length] = c.at(number).item
	}
	return items, more
}

// Get returns an item of an owner by its number, or nil where it is not there any more.
func (c *Chains[O, T]) Get(owner O, number uint32) *T {
	if number == 0 || !c.holds(number, owner) {
		return nil
	}
	return &c.at(number).item
}

// holds says whether an owner's item is still there.
func (c *Chains[O, T]) holds(number uint32, owner O) bool {
	return number <= c.latest && c.latest-number < c.size() && c.at(number).owner == owner
}

// All yields the items and their owners, the latest first.
func (c *Chains[O, T]) All() iter.Seq2[O, *T] {
	return func(yield func(O, *T) bool) {
		for i := range min(c.latest, c.size()) {
			if slot := c.at(c.latest - i); !yield(slot.owner, &slot.item) {
				return
			}
		}
	}
}
