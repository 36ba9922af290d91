package prometheus

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/deploy/trial"
)

// metricName finds the names of metrics in an expression of PromQL: those of Ringwall, of the process, and up.
var metricName = regexp.MustCompile(`\b(?:ringwall_\w+|process_\w+|go_\w+|up)\b`)

func TestEveryQuestionHasAnAnswer(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.startPrometheus()
	m.causeEverything()
	// Rates need some scrapes.
	trial.WaitUntil(t, "Prometheus has the end of the story", func() bool {
		return len(m.runQuery(t, "ringwall_config_reload_success == 0")) > 0 &&
			len(m.runQuery(t, `sum(count_over_time(ringwall_config_reload_success[1m])) > 8`)) > 0
	})
	text := m.scrapeMetrics()

	t.Run("promtool approves of the metrics", func(t *testing.T) { runPromtool(t, text, "check", "metrics") })
	t.Run("documentation", func(t *testing.T) { m.checkDocumentation(t, text) })
	t.Run("rules", func(t *testing.T) { m.checkRules(t) })
	t.Run("dashboard", func(t *testing.T) { m.checkDashboard(t) })
}

// checkRules asks whether Prometheus can evaluate each rule, and whether those fire whose cause was there.
func (m *machine) checkRules(t *testing.T) {
	for _, a := range readAlerts(t) {
		m.wantMetrics(t, a.Alert, a.Expr)
	}
	firing := func() map[string]string {
		states := make(map[string]string)
		res, err := m.askPrometheus("/api/v1/rules", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range res.Groups {
			for _, r := range g.Rules {
				if r.Health == "err" {
					t.Errorf("%s: %s", r.Name, r.Error)
				}
				states[r.Name] = r.State
			}
		}
		return states
	}
	want := map[string]string{
		"RingwallDown": "inactive", "RingwallAMIDown": "inactive", "RingwallRestarts": "inactive",
		"RingwallBlind": "inactive",
		"RingwallLag":   "inactive", "RingwallKernelDrift": "inactive", "RingwallSlowBans": "inactive",
		"RingwallBanStorm":      "inactive",
		"RingwallAMIReconnects": "inactive", "RingwallTableDisturbed": "inactive", "RingwallKernelBroken": "inactive",
		"RingwallStateNotSaved":     "inactive",
		"RingwallNotificationsLost": "inactive", "RingwallGuessing": "inactive", "RingwallBansLeak": "inactive",
		"RingwallAllowedDropped": "inactive", "RingwallSensorDown": "inactive", "RingwallSensorLosesPackets": "inactive",
		"RingwallNewPlace": "inactive", "RingwallProxyUnnamed": "inactive",
		"RingwallListStale": "inactive", "RingwallListHeld": "inactive", "RingwallListUseless": "inactive",
		"RingwallCrowdSecNotTold": "pending",
		"RingwallFleetAway":       "pending", "RingwallFleetNodeSilent": "inactive", "RingwallFleetNodeAtBound": "inactive",
		"RingwallFramesDropped": "firing", "RingwallConfigReloadFailed": "firing", "RingwallLimitHit": "firing",
		"RingwallBreach": "firing", "RingwallTampering": "firing", "RingwallCustomersFail": "firing",
		"RingwallAccountTargeted": "firing", "RingwallMisconfiguredPhones": "pending",
	}
	if n := len(readAlerts(t)); n != len(want) {
		t.Errorf("%d rules, this test knows %d", n, len(want))
	}
	for name, state := range want {
		trial.WaitUntil(t, name+" is "+state, func() bool { return firing()[name] == state })
	}
}

// wantMetrics checks that Prometheus knows each metric of an expression.
func (m *machine) wantMetrics(t *testing.T, where, expr string) {
	t.Helper()
	names := metricName.FindAllString(expr, -1)
	if len(names) == 0 {
		t.Errorf("%s: no metric in %s", where, expr)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if !m.hasMetric(t, name) {
			t.Errorf("%s: no metric %s", where, name)
		}
	}
}

type panel struct {
	ID            int
	Type, Title   string
	Datasource    struct{ Type, UID string }
	GridPos       struct{ X, Y, W, H int }
	Targets       []struct{ Expr, RefID string }
	Panels        []panel
	PluginVersion string
}

// checkDashboard asks every question of the dashboard.
func (m *machine) checkDashboard(t *testing.T) {
	var d struct {
		Panels     []panel
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, "../grafana/ringwall.json")), &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Templating.List) == 0 || d.Templating.List[0].Type != "datasource" {
		t.Error("the first variable is not the data source")
	}
	fill := strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h", "$__interval", "1m", "$instance", ".*",
		"$pbx",
		".*")
	for _, v := range d.Templating.List[1:] {
		m.wantMetrics(t, "variable "+v.Name, v.Definition)
	}
	ids := make(map[int]bool)
	cells := make(map[[2]int]string)
	asked := 0
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("%q: its id %d is another's too", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%q lies over %q, or beyond the edge", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		if !slices.Contains([]string{"row", "stat", "timeseries", "heatmap"}, p.Type) {
			t.Errorf("%q: type %q may need a plugin", p.Title, p.Type)
		}
		if p.Type == "row" {
			continue
		}
		if p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("%q: data source %q, %d queries", p.Title, p.Datasource.UID, len(p.Targets))
		}
		for _, q := range p.Targets {
			expr := fill.Replace(q.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("%q: %s: a variable that does not exist", p.Title, q.Expr)
				continue
			}
			m.wantMetrics(t, p.Title, expr)
			if len(m.runQuery(t, expr)) == 0 {
				t.Errorf("%q: no answer to %s", p.Title, expr)
			}
			asked++
		}
	}
	if asked < 20 {
		t.Errorf("only %d queries", asked)
	}
}
