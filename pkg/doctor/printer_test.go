package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shown is a list with everything in it, noted as the checks note it.
func shown() []Check {
	e := &exam{}
	s := e.subjectNamed("")
	s.ok("configuration", "/etc/ringwall/ringwall.yaml: 1 Asterisk, policy enforce")
	s.warn("daemon", "systemctl enable --now ringwall", "does not run: nobody is banned")
	pbx := e.subjectNamed("pbx1\x1b[31m")
	pbx.ok(checkReach, "127.0.0.1:5038 answers")
	pbx.fail(checkSecurity, "put in manager.conf:\n[ringwall]\nread = security\nand then run: asterisk -rx \"manager "+
		"reload\"\n",
		"user \"ringwall\" is logged in, but not even the event of its own login came: it lacks read=security, or an "+
			"eventfilter or disabledevents line hides SuccessfulAuth")
	pbx.skipAll("needs read = security", checkEvents)
	e.subjectNamed("Büro").ok(checkReach, "pbx.büro.example:5038 answers… with \u202eodd\u009b letters")
	s.ok("mode", "enforce: attackers are banned")
	return e.checks
}

func TestTheTextForPeople(t *testing.T) {
	for name, p := range map[string]Printer{
		"wide": {UTF8: true}, "narrow": {UTF8: true, Columns: 72}, "ascii": {Columns: 80},
		"colour": {UTF8: true, Colour: true, Columns: 100},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			p.W = &b
			for _, c := range shown() {
				p.Print(c)
			}
			p.PrintSummary(shown())
			golden(t, name, b.String())
			for line := range strings.Lines(b.String()) {
				bare := strings.NewReplacer("\x1b[32m", "", "\x1b[33m", "", "\x1b[31m", "", "\x1b[2m", "", "\x1b[0m",
					"").Replace(line)
				for _, r := range strings.TrimSuffix(bare, "\n") {
					if r < ' ' || r == 0x7f || r == 0x9b || r == 0x202e || !p.UTF8 && r > 0x7e {
						t.Errorf("%U in %q", r, line)
					}
				}
				if n := len([]rune(bare)) - 1; p.Columns > 0 && n > p.Columns {
					t.Errorf("%d columns: %s", n, bare)
				}
			}
		})
	}
}

func TestTheLastLine(t *testing.T) {
	runs, tried := Check{Name: "daemon", Result: OK}, Check{Name: checkElement, Result: OK}
	for want, list := range map[string][]Check{
		"+ All is well: 2 ok, 0 to look at, 0 failed, 1 not tried.": {runs, tried, {Result: Skip}},
		"! It works: 2 ok, 1 to look at, 0 failed, 0 not tried.":    {runs, tried, {Result: Warn}},
		"X Not ready: 0 ok, 1 to look at, 1 failed, 0 not tried.":   {{Result: Fail}, {Result: Warn}},

		"! It watches, and bans nobody: 1 ok, 1 to look at, 0 failed, 1 not " +
			"tried.": {runs, {Name: checkElement, Result: Skip}, {Name: "mode",
			Result: Warn}},
		"! Nothing failed, but no ban was tried, so it is not known to work: 1 ok, 0 to look at, 0 failed, 1 not " +
			"tried.": {runs, {Name: checkElement, Result: Skip}},
		"! Nothing failed, but no ban was tried, so it is not known to work: 1 ok, 1 to look at, 0 failed, 0 not " +
			"tried.": {tried, {Result: Warn}},
	} {
		var b strings.Builder
		Printer{W: &b}.PrintSummary(list)
		if strings.TrimSpace(b.String()) != want {
			t.Errorf("got %s want %s", b.String(), want)
		}
		if Passed(list) == strings.HasPrefix(want, "X") {
			t.Errorf("%s passed: %t", want, Passed(list))
		}
	}
}

// golden compares with testdata/NAME, which UPDATE_GOLDEN=1 rewrites.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant, as in %s\n%s", got, path, want)
	}
}
