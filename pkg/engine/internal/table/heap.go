package table

import "container/heap"

// Heap gives back items in the order of a comparison. They are held by pointers, so that little is copied when there
// are a million.
type Heap[T any] struct{ items heapItems[T] }

// NewHeap makes a heap; less says which of two items comes first.
func NewHeap[T any](less func(a, b *T) bool) *Heap[T] { return &Heap[T]{heapItems[T]{less: less}} }

// First returns the item that comes first, or nil.
func (h *Heap[T]) First() *T {
	if len(h.items.list) == 0 {
		return nil
	}
	return h.items.list[0]
}

// Push adds an item.
func (h *Heap[T]) Push(item T) { heap.Push(&h.items, &item) }

// Pop takes the first item. There must be one.
func (h *Heap[T]) Pop() T { return *heap.Pop(&h.items).(*T) }

// heapItems implements heap.Interface.
type heapItems[T any] struct {
	list []*T
	less func(a, b *T) bool
}

func (h *heapItems[T]) Len() int           { return len(h.list) }
func (h *heapItems[T]) Less(i, j int) bool { return h.less(h.list[i], h.list[j]) }
func (h *heapItems[T]) Swap(i, j int)      { h.list[i], h.list[j] = h.list[j], h.list[i] }
func (h *heapItems[T]) Push(item any)      { h.list = append(h.list, item.(*T)) }

func (h *heapItems[T]) Pop() any {
	last := len(h.list) - 1
	item := h.list[last]
	h.list[last] = nil
	h.list = h.list[:last]
	return item
}
