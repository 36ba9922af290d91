package prometheus

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// A ruleFile is what ringwall.rules.yml holds.
type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []alert
	}
}

type alert struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func readAlerts(t *testing.T) []alert {
	t.Helper()
	var f ruleFile
	if err := yaml.Unmarshal([]byte(readFile(t, "ringwall.rules.yml")), &f); err != nil {
		t.Fatal(err)
	}
	var all []alert
	for _, g := range f.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("no rules")
	}
	return all
}

func runPromtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), findTool(t, "promtool"), args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %q: %v\n%s", args, err, out)
	}
}

func ruleTestFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.test.yml")
	if err != nil || len(files) == 0 {
		t.Fatal("no tests of the rules", err)
	}
	return files
}

func TestRulesHoldWhatTheirTestsSay(t *testing.T) {
	t.Parallel()
	runPromtool(t, "", "check", "rules", "--lint-fatal", "ringwall.rules.yml")
	runPromtool(t, "", "check", "config", "prometheus.yml")
	runPromtool(t, "", append([]string{"test", "rules"}, ruleTestFiles(t)...)...)
}

func TestEachAlertIsTestedFiringAndSilent(t *testing.T) {
	fires, silent := make(map[string]bool), make(map[string]bool)
	for _, file := range ruleTestFiles(t) {
		var f struct {
			Tests []struct {
				Checks []struct {
					Alert string `yaml:"alertname"`
					Want  []any  `yaml:"exp_alerts"`
				} `yaml:"alert_rule_test"`
			}
		}
		if err := yaml.Unmarshal([]byte(readFile(t, file)), &f); err != nil {
			t.Fatal(err)
		}
		for _, test := range f.Tests {
			for _, c := range test.Checks {
				if len(c.Want) > 0 {
					fires[c.Alert] = true
				} else {
					silent[c.Alert] = true
				}
			}
		}
	}
	for _, a := range readAlerts(t) {
		if !fires[a.Alert] || !silent[a.Alert] {
			t.Errorf("%s: tested firing %v, silent %v", a.Alert, fires[a.Alert], silent[a.Alert])
		}
	}
}

func TestEachAlertSaysWhatToDo(t *testing.T) {
	commands := []string{"status", "check", "doctor", "history", "list", "why", "unban"}
	for _, a := range readAlerts(t) {
		if !slices.Contains([]string{"critical", "warning", "info"}, a.Labels["severity"]) {
			t.Errorf("%s: severity %q", a.Alert, a.Labels["severity"])
		}
		for _, key := range []string{"summary", "description", "action"} {
			if a.Annotations[key] == "" {
				t.Errorf("%s: no %s", a.Alert, key)
			}
		}
		action := a.Annotations["action"]
		if !slices.ContainsFunc(commands, func(c string) bool { return strings.Contains(action, "ringwall "+c) }) &&
			!strings.Contains(action, "journalctl -u ringwall") && a.Alert != "RingwallSlowBans" {
			t.Errorf("%s: the action names no command of Ringwall's: %s", a.Alert, action)
		}
	}
}
