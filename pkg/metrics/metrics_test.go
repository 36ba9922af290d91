package metrics

import (
	"math"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ringwall/ringwall/pkg/security"
)

// scraped is what Prometheus reads of metrics whose names begin so.
func scraped(g prometheus.Gatherer, name string) string {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(g, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	var out strings.Builder
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, name) {
			out.WriteString(line)
		}
	}
	return out.String()
}

// The histogram says what Prometheus' own says.
func TestAHistogramIsThatOfPrometheus(t *testing.T) {
	bounds := []float64{.001, .5, 1, 10}
	want := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "x", Help: "y", Buckets: bounds})
	got := newHistogram("x", "y", bounds...)
	compare := func() {
		t.Helper()
		text := func(c prometheus.Collector) string {
			r := prometheus.NewRegistry()
			r.MustRegister(c)
			return scraped(r, "")
		}
		if g, w := text(got), text(want); g != w || !strings.Contains(w, "x_count") {
			t.Errorf("got\n%s\nwant\n%s", g, w)
		}
	}
	compare()
	values := []float64{0, .001, .0011, .5, .7, 1, 9, 10, 10.5, 1e9, -1, math.Inf(1)}
	got.observe(values)
	for _, v := range values {
		want.Observe(v)
	}
	compare()
	got.observe([]float64{math.NaN()})
	want.Observe(math.NaN())
	compare()
}

func TestEventsAreCountedAtTheNextFlush(t *testing.T) {
	m := New("test", nil)
	p := m.PBX("pbx1")
	for i := range 5 {
		p.Event(&security.Event{Type: security.InvalidAccountID, Service: security.PJSIP}, float64(i))
	}
	p.Event(&security.Event{Type: security.ChallengeSent, Service: security.PJSIP}, .1)
	for range 2 { // the second changes nothing
		p.Flush()
		want := `ringwall_ami_events_total{event="ChallengeSent",pbx="pbx1",service="PJSIP"} 1
ringwall_ami_events_total{event="InvalidAccountID",pbx="pbx1",service="PJSIP"} 5
`
		if got := scraped(m.Registry, amiEvents); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	if n := m.lag.counts; n[0] != 1 || n[6] != 1 || n[9] != 1 || n[10] != 1 || n[11] != 2 {
		t.Errorf("lags: %v", n)
	}
	for range 3 * maxBehind { // nobody flushes: they are counted all the same
		p.Event(&security.Event{Type: security.ChallengeSent, Service: security.PJSIP}, .1)
	}
	if n := m.lag.counts[6]; n != 1+3*maxBehind {
		t.Errorf("%d of %d are counted", n, 1+3*maxBehind)
	}
}
