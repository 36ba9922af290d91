package metrics

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
)

// scraped is what Prometheus reads of metrics whose names begin so.
func scraped(g prometheus.Gatherer, name string) string {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(g, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	var out strings.Builder
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, name) {
			out.WriteString(line)
		}
	}
	return out.String()
}

func TestEventsAreCountedAtTheNextFlush(t *testing.T) {
	m := New("test", nil)
	p := m.PBX("pbx1")
	for i := range 5 {
		p.CountEvent(&event.Event{Type: event.InvalidAccountID, Service: event.PJSIP}, float64(i))
	}
	p.CountEvent(&event.Event{Type: event.ChallengeSent, Service: event.PJSIP}, .1)
	for range 2 { // the second changes nothing
		p.Flush()
		want := `ringwall_ami_events_total{event="ChallengeSent",pbx="pbx1",service="PJSIP"} 1
ringwall_ami_events_total{event="InvalidAccountID",pbx="pbx1",service="PJSIP"} 5
`
		if got := scraped(m.Registry, amiEvents); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	of := func(lag string) string { return amiLag + `_bucket{le="` + lag + `"} ` }
	got := scraped(m.Registry, amiLag)
	for _, want := range []string{of("0.001") + "1\n", of("0.1") + "2\n", of("1") + "3\n", of("2") + "4\n", of("5") +
		"6\n", amiLag + "_count 6\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for range 3 * maxUncounted { // nobody flushes: they are counted all the same
		p.CountEvent(&event.Event{Type: event.ChallengeSent, Service: event.PJSIP}, .1)
	}
	if got, want := scraped(m.Registry, amiLag+"_count"), fmt.Sprintf("%s_count %d\n", amiLag,
		6+3*maxUncounted); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
