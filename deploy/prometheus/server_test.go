package prometheus

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

const prometheusURL = "http://127.0.0.1:9090"

// startPrometheus starts one beside the daemon, with the example configuration, only that it looks more often.
func (m *machine) startPrometheus() {
	m.t.Helper()
	dir := m.t.TempDir()
	example := readFile(m.t, "prometheus.yml")
	for _, what := range []string{"scrape_interval", "evaluation_interval"} {
		was := what + ": 15s\n"
		if !strings.Contains(example, was) {
			m.t.Fatalf("prometheus.yml: no %q", was)
		}
		example = strings.Replace(example, was, what+": 250ms\n", 1)
	}
	config := filepath.Join(dir, "prometheus.yml")
	m.writeFile(config, example)
	m.writeFile(filepath.Join(dir, "ringwall.rules.yml"), readFile(m.t, "ringwall.rules.yml"))
	netnstest.Spawn(m.t, m.space, findTool(m.t, "prometheus"), "--config.file="+config,
		"--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address=127.0.0.1:9090", "--storage.tsdb.retention.size=64MB", "--query.timeout=20s",
		"--log.level=warn")
	trial.WaitUntil(m.t, "Prometheus has scraped the daemon", func() bool {
		res, err := m.askPrometheus("/api/v1/query", url.Values{"query": {`up{job="ringwall"} == 1`}})
		return err == nil && len(res.Result) == 1
	})
}

// answer is the data of a query: https://prometheus.io/docs/prometheus/latest/querying/api/.
type answer struct {
	Type   string   `json:"resultType"`
	Result []sample `json:"result"`
	Groups []group  `json:"groups"`
}

type sample struct {
	Metric map[string]string `json:"metric"`
}

type group struct {
	Rules []rule `json:"rules"`
}

type rule struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Query  string `json:"query"`
	Health string `json:"health"`
	Error  string `json:"lastError"`
}

func (m *machine) askPrometheus(path string, values url.Values) (answer, error) {
	req, err := http.NewRequestWithContext(m.t.Context(), http.MethodGet, prometheusURL+path+"?"+values.Encode(), nil)
	if err != nil {
		return answer{}, err
	}
	res, err := m.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	var body struct {
		Status, Error string
		Data          answer
	}
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
		return answer{}, err
	}
	if body.Status != "success" {
		return answer{}, fmt.Errorf("%s: %s", body.Status, body.Error)
	}
	return body.Data, nil
}

// runQuery asks and fails the test for an error.
func (m *machine) runQuery(t *testing.T, expr string) []sample {
	t.Helper()
	a, err := m.askPrometheus("/api/v1/query", url.Values{"query": {expr}})
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return a.Result
}

// hasMetric says whether Prometheus has ever seen a metric of that name.
func (m *machine) hasMetric(t *testing.T, name string) bool {
	t.Helper()
	return len(m.runQuery(t, "count(last_over_time("+name+"[1h]))")) > 0
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
