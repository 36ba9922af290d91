package metrics

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// histogram is what Prometheus' own is, but for that it takes many values at once: in a flood each event is one.
type histogram struct {
	desc   *prometheus.Desc
	bounds []float64

	mu     sync.Mutex
	counts []uint64 // of the values up to each bound and beyond the one before; at last those beyond all
	sum    float64
}

func newHistogram(name, help string, bounds ...float64) *histogram {
	return &histogram{desc: prometheus.NewDesc(name, help, nil, nil), bounds: bounds, counts: make([]uint64, len(bounds)+1)}
}

// place is where a value is counted. What is no number is beyond all.
func (h *histogram) place(v float64) int {
	for i, bound := range h.bounds {
		if v <= bound {
			return i
		}
	}
	return len(h.bounds)
}

// observe takes values.
func (h *histogram) observe(values []float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, v := range values {
		h.counts[h.place(v)]++
		h.sum += v
	}
}

// Describe implements prometheus.Collector.
func (h *histogram) Describe(c chan<- *prometheus.Desc) { c <- h.desc }

// Collect implements prometheus.Collector.
func (h *histogram) Collect(c chan<- prometheus.Metric) {
	h.mu.Lock()
	upTo, n := make(map[float64]uint64, len(h.bounds)), uint64(0)
	for i, bound := range h.bounds {
		n += h.counts[i]
		upTo[bound] = n
	}
	n += h.counts[len(h.bounds)]
	sum := h.sum
	h.mu.Unlock()
	c <- prometheus.MustNewConstHistogram(h.desc, n, sum, upTo)
}
