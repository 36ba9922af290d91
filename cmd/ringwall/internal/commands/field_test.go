package commands_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/fail2ban/fail2bantest"
)

// fromField copies a case that somebody had, with a distribution's jail.conf beside his own files, and makes it the
// folder in which the program runs.
func fromField(t *testing.T, name string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata/field", name))); err != nil {
		t.Fatal(err)
	}
	stock, err := os.ReadFile("testdata/field/stock/jail.conf")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "f2b/jail.conf"), stock, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
}

// fieldImport imports f2b, writes imported.yaml, which enforces, and returns what was said and what the policy is.
func fieldImport(t *testing.T, args ...string) (w *world, p config.Policy, ports config.Ports) {
	t.Helper()
	w = newWorld(t)
	if code := w.do(t, append([]string{"import", "fail2ban", "--jail", "f2b"}, args...)...); code != 0 {
		t.Fatalf("exit %d: %s", code, w.err)
	}
	text := "asterisk: [{address: 127.0.0.1, username: ringwall, secret: \"s\"}]\n" +
		strings.Replace(w.out.String(), "mode: observe", "mode: enforce", 1)
	c, warnings, err := config.Parse(strings.NewReader(text), "imported.yaml", config.Environment{})
	if err != nil || len(warnings) > 0 {
		t.Fatalf("check says: %v %v\n%s", err, warnings, text)
	}
	if err := os.WriteFile("imported.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return w, c.Policy, c.Firewall.Ports
}

// fieldReplay plays a log to the imported policy.
func fieldReplay(t *testing.T, log string) string {
	t.Helper()
	w := newWorld(t)
	if code := w.do(t, "replay", "--config", "imported.yaml", log); code != 0 {
		t.Fatalf("exit %d: %s", code, w.err)
	}
	return w.out.String()
}

func says(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !regexp.MustCompile(part).MatchString(text) {
			t.Errorf("nothing says %s:\n%s", part, text)
		}
	}
}

func TestPortsOfActionsAreClosed(t *testing.T) {
	fromField(t, "J05-port-in-action")
	_, _, ports := fieldImport(t)
	for _, list := range [][]uint16{ports.UDP, ports.TCP} {
		for _, want := range []uint16{5060, 5080, 5081, 5160, 45060} {
			if !slices.Contains(list, want) {
				t.Errorf("port %d stays open: %v", want, list)
			}
		}
	}
	says(t, fieldReplay(t, "scan-on-45060.log"), `(?m)^2026-09-01 08:00:02  ban +203\.0\.113\.67 `)
}

func TestTheWebPageIsNoTelephony(t *testing.T) {
	fromField(t, "J06-issabel")
	db := fail2bantest.Open(t, "db", fail2bantest.Schema...)
	for jail, ip := range map[string]string{
		"asterisk": "203.0.113.5", "asterisk-ami": "203.0.113.6", "issabel-gui": "198.51.100.77", "sshd": "203.0.113.8",
	} {
		db.Ban(jail, ip, now.Add(-time.Hour).Unix(), 43200)
	}
	db.Close()
	w, _, _ := fieldImport(t, "--db", "db")
	told := w.err.String()
	says(t, told, `jail "issabel-gui": not taken over \(its ports are those of the web page\)`,
		`Bans in force: 2\n  203\.0\.113\.5 .*\n  203\.0\.113\.6 `,
		`1 ban: jail "issabel-gui" is not about telephony`, `port = 0:65535 \(a ban of all ports\) of jail "asterisk"`)
	if strings.Contains(w.out.String(), "issabel-gui") || strings.Contains(told, "198.51.100.77") {
		t.Errorf("the web page's jail counts:\n%s\n%s", told, w.out)
	}
}

func TestPasswordsAndAccountsHaveNumbersOfTheirOwn(t *testing.T) {
	fromField(t, "J08-auth-and-scan")
	w, p, _ := fieldImport(t)
	if p.Points.WrongPassword != 2.64 || p.Points.UnknownAccount != 1.03 || p.Ban.First != 24*time.Hour {
		t.Errorf("%+v %+v", p.Points, p.Ban)
	}
	says(t, w.err.String(), `maxretry = 50 of jail "asterisk-scan" for unknown accounts: scanners ask for hundreds, so 10 it is; policy\.points\.unknown_account: 0\.21 would be as mild`)
	says(t, fieldReplay(t, "guesses.log"), `(?m)^2026-09-01 08:00:06  ban +203\.0\.113\.66 .*wrong password`) // the fourth guess
}

func TestAnOldDatabaseCostsItsBansAlone(t *testing.T) {
	fromField(t, "J13-debian10")
	w, p, ports := fieldImport(t)
	if len(p.Allow) != 1 || p.Allow[0].String() != "192.0.2.0/24" || p.Ban.Max != 14*24*time.Hour ||
		!slices.Contains(ports.UDP, 6061) {
		t.Errorf("%v %+v %v", p.Allow, p.Ban, ports)
	}
	says(t, w.err.String(), `Bans in force: unknown, for the database cannot be read; the policy and the allow list come all the same`,
		`all bans: database "\./f2b\.sqlite3": not a database of fail2ban 0\.11 to 1\.1: its version is 3`,
		`Try: ringwall import fail2ban --db FILE`)

	w = newWorld(t)
	if code := w.do(t, "import", "fail2ban", "--jail", "f2b", "--json"); code != 0 {
		t.Fatal(w.err)
	}
	says(t, w.out.String(), `"bans_lost":"database `)

	w = newWorld(t)
	if code := w.do(t, "import", "fail2ban", "--jail", "f2b", "--apply"); code != 1 || len(w.backend.allows) != 1 {
		t.Errorf("exit %d, allowed %v: %s", code, w.backend.allows, w.err)
	}
}

func TestALongFindtimeBansNoOffice(t *testing.T) {
	fromField(t, "J19-long-findtime")
	w, p, _ := fieldImport(t)
	if p.HalfLife != time.Hour || p.Trust.Tolerance != 60 || p.Ban.First != 240*time.Hour {
		t.Errorf("%+v", p)
	}
	says(t, w.err.String(), `findtime = 24h of jail "asterisk-iptables": policy\.half_life is 1h`)
	out := fieldReplay(t, "office-TLS-300s-day.log.gz")
	says(t, out, `No customer is hit`, `0 bans, 0 would be, 1 trusted`)
}
