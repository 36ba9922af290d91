package table

import "iter"

const (
	frequentBuckets = 64
	perBucket       = 8 // keys
)

// Frequent counts the keys that come most often, and keeps a value for each: a space-saving sketch (Metwally, Agrawal,
// El Abbadi 2005) in buckets that the keys, which are hashes, choose. So a count costs a look at one bucket, and a
// flood of keys that come once forgets keys, and no more.
type Frequent[V any] [frequentBuckets]struct {
	key   [perBucket]uint64 // 0 is free room
	count [perBucket]uint32
	over  [perBucket]uint32 // how much of count may be that of the keys that had the room before
	value [perBucket]V
}

// Counted is a key of Frequent.
type Counted[V any] struct {
	Key   uint64
	Count uint32 // at least
	Value *V
}

// Add counts a key once more and returns its value, to be read or changed, and whether the key is new: then the value
// may be that of another key, and must be set.
func (f *Frequent[V]) Add(hash uint64) (value *V, fresh bool) {
	key := hash | 1
	b := &f[key>>32%frequentBuckets]
	for i, k := range b.key {
		if k == key {
			b.count[i]++
			return &b.value[i], false
		}
	}
	least := 0
	for i, n := range b.count {
		if n < b.count[least] {
			least = i
		}
	}
	b.key[least], b.over[least] = key, b.count[least]
	b.count[least]++
	return &b.value[least], true
}

// All yields the keys, in no order. What a count may be too high by is taken off.
func (f *Frequent[V]) All() iter.Seq[Counted[V]] {
	return func(yield func(Counted[V]) bool) {
		for b := range f {
			for i, key := range f[b].key {
				if key != 0 && !yield(Counted[V]{key, f[b].count[i] - f[b].over[i], &f[b].value[i]}) {
					return
				}
			}
		}
	}
}
