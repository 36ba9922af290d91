package prometheus

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const metricsDoc = "../docs/metrics.md"

var (
	docBlock = regexp.MustCompile(`(?s)<!-- metrics -->\n(.*?)<!-- end -->`)
	typeLine = regexp.MustCompile(`(?m)^# TYPE (ringwall_\w+) (\w+)$`)
	aLine    = regexp.MustCompile(`(?m)^(ringwall_\w+)(?:\{(.*)\})? \S+$`)
	aLabel   = regexp.MustCompile(`(\w+)="(?:[^"\\]|\\.)*"`)
	ofAKind  = regexp.MustCompile(`_(?:bucket|sum|count)$`)
	promql   = regexp.MustCompile("(?s)```promql\n(.*?)```")
)

// family is a metric, as the daemon exposes it or as the documentation describes it.
type family struct{ kind, labels string }

// parseScrape reads a scrape.
func parseScrape(text string) map[string]family {
	all := make(map[string]family)
	for _, l := range typeLine.FindAllStringSubmatch(text, -1) {
		all[l[1]] = family{kind: l[2]}
	}
	for _, l := range aLine.FindAllStringSubmatch(text, -1) {
		name := l[1]
		if _, ok := all[name]; !ok {
			name = ofAKind.ReplaceAllString(name, "")
		}
		var labels []string
		for _, label := range aLabel.FindAllStringSubmatch(l[2], -1) {
			if label[1] != "le" {
				labels = append(labels, label[1])
			}
		}
		slices.Sort(labels)
		f := all[name]
		f.labels = strings.Join(labels, ", ")
		all[name] = f
	}
	return all
}

// checkDocumentation compares deploy/docs/metrics.md with what the daemon exposes, and asks its examples.
func (m *machine) checkDocumentation(t *testing.T, text string) {
	doc := readFile(t, metricsDoc)
	want, have := parseScrape(text), make(map[string]family)
	for _, block := range docBlock.FindAllStringSubmatch(doc, -1) {
		for row := range strings.Lines(block[1]) {
			cells := strings.Split(strings.Trim(strings.TrimSpace(row), "|"), " | ")
			if len(cells) != 5 || !strings.Contains(cells[0], "`") {
				continue
			}
			name := strings.Trim(cells[0], " `")
			labels := strings.ReplaceAll(strings.Trim(cells[2], " –"), "`", "")
			have[name] = family{strings.TrimSpace(cells[1]), labels}
			example := strings.Trim(cells[4], " `")
			if !strings.Contains(example, name) {
				t.Errorf("%s: its example asks for something else: %s", name, example)
			}
			m.wantAnswer(t, name, example)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if have[name] != want[name] {
			t.Errorf("%s: documented %+v, the daemon exposes %+v", name, have[name], want[name])
		}
	}
	for name := range have {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is documented, and the daemon does not expose it", name)
		}
	}
	for _, q := range promql.FindAllStringSubmatch(doc, -1) {
		m.wantAnswer(t, metricsDoc, q[1])
	}
}

// wantAnswer asks a question that has an answer after all that happened.
func (m *machine) wantAnswer(t *testing.T, where, expr string) {
	t.Helper()
	m.wantMetrics(t, where, expr)
	if len(m.runQuery(t, expr)) == 0 {
		t.Errorf("%s: no answer to %s", where, expr)
	}
}
