package firstday

import (
	"strings"
	"testing"
)

// said is what a command must say to somebody who does not know better.
type said struct {
	user, command string
	ok            bool
	says          []string
}

// beginners is before the service was started for the first time.
var beginners = []said{
	{"root", "ringwall", true, []string{"To begin:", "ringwall doctor", "systemctl start ringwall",
		"/usr/share/doc/ringwall/README.md"}},
	{"root", "ringwall staus", false, []string{"there is no command", "Try: ringwall status"}},
	{"root", "ringwall why", false, []string{"needs one address", "Try: ringwall why ADDR"}},
	{"root", "ringwall list --jsno", false, []string{"has no flag --jsno", "Try: ringwall list --json"}},
	{"root", "ringwall status", false, []string{"the daemon does not answer", "Try:", "systemctl status ringwall"}},
	{"root", "ringwall unban 203.0.113.66", false, []string{"the daemon does not answer", "Try:",
		"systemctl status ringwall"}},
	{"admin", "ringwall check", false, []string{"permission denied", "try: sudo"}},
	{"admin", "ringwall doctor", false, []string{"permission denied", "Try: sudo"}},
	{"admin", "ringwall run", false, []string{"permission denied", "sudo"}},
}

// users is while the service runs.
var users = []said{
	{"admin", "ringwall status", false, []string{"you may not use", "Try: run it as root (sudo)",
		"usermod -aG ringwall"}},
	{"admin", "ringwall why 203.0.113.66", false, []string{"you may not use", "sudo"}},
	{"admin", "ringwall version", true, []string{"ringwall "}},
	{"root", "ringwall why the-customer", true,
		[]string{"Nobody has tried the account the-customer", "ringwall history"}},
	{"root", "ringwall why 'the customer'", false, []string{"neither an address, nor a host name, nor an extension",
		"Try:"}},
	{"root", "ringwall ban the-customer", false, []string{"an address is needed", "Try:"}},
	{"root", "ringwall ban 127.0.0.1", false, []string{"127.0.0.1", "Try:"}},
	{"root", "ringwall list everything", false, []string{"there is no list", "Try: ringwall list"}},
	{"root", "ringwall run", false, []string{"runs already", "Try: ringwall status"}},
}

// checkAdvice tries commands that end with advice.
func (d *day) checkAdvice(t *testing.T, rows []said) {
	t.Helper()
	for _, row := range rows {
		out, err := d.runAs(t, row.user, "timeout 60 "+row.command)
		if (err == nil) != row.ok {
			t.Errorf("%s, as %s: %v\n%s", row.command, row.user, err, out)
		}
		for _, want := range row.says {
			if !strings.Contains(out, want) {
				t.Errorf("%s, as %s, does not say %q:\n%s", row.command, row.user, want, out)
			}
		}
	}
}
