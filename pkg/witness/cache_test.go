package witness

import (
	"math/rand/v2"
	"testing"
)

func TestCacheAClassThatIsFullForgetsItsOwnOldest(t *testing.T) {
	c := newCache[int](0, 2, 2)
	for key := range uint64(10) {
		e, old := c.put(int64(key), key, 0)
		if old {
			t.Fatalf("%d is old", key)
		}
		e.value = int(key)
		if key == 3 {
			c.move(int64(key), e, 1)
		}
	}
	for key := range uint64(10) {
		e := c.get(10, key)
		if want := key == 3 || key >= 8; (e != nil) != want {
			t.Errorf("%d is there: %v", key, e != nil)
		} else if want && e.value != int(key) {
			t.Errorf("%d has the value %d", key, e.value)
		}
	}
}

func TestCacheTimeIsOver(t *testing.T) {
	c := newCache[int](5, 10)
	e, _ := c.put(1, 1, 0)
	e.value = 7
	if c.get(5, 1) == nil || c.get(6, 1) != nil {
		t.Error("it should live for five")
	}
	if e, old := c.put(6, 1, 0); old || e.value != 0 {
		t.Error("what is over came back")
	}
}

// TestCacheAgainstAMap does anything in any order, and compares with a map that knows all.
func TestCacheAgainstAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	c := newCache[uint64](0, 8, 4)
	model := map[uint64]uint64{}
	c.forget = func(e *entry[uint64]) { delete(model, e.key) }
	for now := range int64(20_000) {
		key := random.Uint64N(30)
		switch random.IntN(4) {
		case 0, 1:
			e, _ := c.put(now, key, uint8(random.IntN(2)))
			e.value = key * 3
			model[key] = key * 3
		case 2:
			if e := c.get(now, key); e != nil {
				c.move(now, e, uint8(random.IntN(2)))
			}
		case 3:
			if e := c.get(now, key); e != nil {
				c.remove(e)
				delete(model, key)
			}
		}
		if c.len() != len(model) || c.classes[0].size+c.classes[1].size != c.len() || c.classes[0].size > 8 ||
			c.classes[1].size > 4 {
			t.Fatalf("%d entries in classes of %d and %d, want %d", c.len(), c.classes[0].size, c.classes[1].size, len(model))
		}
		for key, value := range model {
			if e := c.get(now, key); e == nil || e.value != value {
				t.Fatalf("%d is lost", key)
			}
		}
	}
}
