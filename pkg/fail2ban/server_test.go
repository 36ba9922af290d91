package fail2ban_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/fail2ban"
)

// TestLocalTimesOfTheServer has the hours in which clocks are set back (Berlin: 25 October 2026, 01:00 UTC) and
// forward.
func TestLocalTimesOfTheServer(t *testing.T) {
	utc := func(text string) time.Time {
		at, err := time.Parse(time.DateTime, text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for name, row := range map[string]struct {
		zone, line string
		now, want  string // UTC
	}{
		"summer": {"Europe/Berlin", "203.0.113.5 \t2026-07-01 12:00:00 + 600 = 2026-07-01 12:10:00",
			"2026-07-01 10:05:00", "2026-07-01 10:00:00"},
		"a quarter": {"Asia/Kathmandu", "203.0.113.5 \t2026-07-01 12:00:00 + 600 = 2026-07-01 12:10:00",
			"2026-07-01 06:20:00", "2026-07-01 06:15:00"},
		"for ever": {"UTC", "203.0.113.5 \t2026-07-01 12:00:00 + -1 = 9999-12-31 23:59:59", "2026-07-01 12:05:00",
			"2026-07-01 12:00:00"},
		"a million years": {"UTC", "203.0.113.5 \t2026-07-01 12:00:00 + 999999999999999999 = 9999-12-31 23:59:59",
			"2026-07-01 12:05:00", "2026-07-01 12:00:00"},
		"over the change": {"Europe/Berlin", "203.0.113.5 \t2026-10-25 01:30:00 + 7200 = 2026-10-25 02:30:00",
			"2026-10-25 00:00:00", "2026-10-24 23:30:00"},
		"the first 2:30": {"Europe/Berlin", "203.0.113.5 \t2026-10-25 02:30:00 + 7200 = 2026-10-25 03:30:00",
			"2026-10-25 00:40:00", "2026-10-25 00:30:00"},
		"the second 2:30": {"Europe/Berlin", "203.0.113.5 \t2026-10-25 02:30:00 + 7200 = 2026-10-25 04:30:00",
			"2026-10-25 01:40:00", "2026-10-25 01:30:00"},
		"either, in force": {"Europe/Berlin", "203.0.113.5 \t2026-10-25 02:10:00 + 600 = 2026-10-25 02:20:00",
			"2026-10-25 00:15:00", "2026-10-25 00:10:00"},
		"either, one over": {"Europe/Berlin", "203.0.113.5 \t2026-10-25 02:10:00 + 600 = 2026-10-25 02:20:00",
			"2026-10-25 01:15:00", "2026-10-25 01:10:00"},
		"a second cut off": {"Europe/Berlin", "203.0.113.5 \t2026-10-25 02:30:00 + 7200 = 2026-10-25 04:30:01",
			"2026-10-25 01:40:00", "2026-10-25 01:30:00"},
		"clocks set forward": {"Europe/Berlin", "203.0.113.5 \t2026-03-29 01:30:00 + 3600 = 2026-03-29 03:30:00",
			"2026-03-29 01:00:00", "2026-03-29 00:30:00"},
	} {
		zone, err := time.LoadLocation(row.zone)
		if err != nil {
			t.Fatal(err)
		}
		ip, since, err := fail2ban.ParseBan(row.line, zone, utc(row.now))
		if err != nil || ip != "203.0.113.5" || !since.Equal(utc(row.want)) {
			t.Errorf("%s: %q since %v, %v; want %s", name, ip, since.UTC(), err, row.want)
		}
	}
}

func TestWhatIsNoLineOfABan(t *testing.T) {
	for _, line := range []string{
		"203.0.113.5", "203.0.113.5 203.0.113.6", hostile,
		"203.0.113.5 \t2026-07-01 12:00:00 + x = 2026-07-01 12:10:00",
		"203.0.113.5 \t2026-13-01 12:00:00 + 600 = 2026-07-01 12:10:00",
		" \t2026-07-01 12:00:00 + 600 = 2026-07-01 12:10:00",
		"203.0.113.5 \t2026-07-01 12:00:00 + 600 = 2026-07-01 12:10:00 ",
		"203.0.113.5 \t2026-07-01 12:00:00 + 9999999999999999999999 = 2026-07-01 12:10:00",
	} {
		if ip, since, err := fail2ban.ParseBan(line, time.UTC, now); err == nil ||
			strings.ContainsAny(err.Error(), "\x1b\r\n\u202e") {
			t.Errorf("%q is a ban of %q since %v, %v", line, ip, since, err)
		}
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	if _, since, err := fail2ban.ParseBan("203.0.113.5 \t2026-03-29 02:30:00 + 600 = 2026-03-29 03:40:00", berlin,
		now); err == nil {
		t.Errorf("an hour that was left out is %v", since)
	}
	// What a filter takes for an address may hold anything but the end of a line.
	odd := "a \t2026-07-01 11:00:00 + 1 = 2026-07-01 11:00:01 \t2026-07-01 12:00:00 + 600 = 2026-07-01 12:10:00"
	if ip, since, err := fail2ban.ParseBan(odd, time.UTC, now); err != nil || since.Hour() != 12 ||
		!strings.HasPrefix(ip, "a \t") {
		t.Errorf("%q since %v, %v", ip, since, err)
	}
}

// client puts a program in the place of fail2ban's client, and somebody who listens in that of its server. It returns
// jail files that name both.
func client(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "fail2ban-client"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("DB", database(t, entry{"asterisk", "203.0.113.99", 0, time.Hour},
		entry{"recidive", "203.0.113.98", 0, time.Hour},
		entry{"asterisk", "203.0.113.98", 48 * time.Hour, time.Hour}))
	return files(t, map[string]string{"jail.local": "[asterisk]\nenabled = true\n[recidive]\nenabled = true\n",
		"fail2ban.conf": "[Definition]\nsocket = " + l.Addr().String() + "\ndbfile = " + os.Getenv("DB") + "\n"})
}

const (
	answers = "case \"$3 $4 $5\" in\n" +
		"'get dbfile ') printf 'Current database file is:\\n`- %s\\n' \"$DB\";;\n" +
		"'status  ') printf 'Status\\n|- Number of jail:\\t2\\n`- Jail list:\\tasterisk, recidive\\n';;\n" +
		"'get asterisk banip') "
	inForce = `printf '203.0.113.5 \t2100-01-01 12:00:00 + 600 = 2100-01-01 12:10:00\n' `
)

func TestTheRunningServerIsAsked(t *testing.T) {
	jails := client(t, answers+inForce+";;\n"+`'get recidive banip') printf '203.0.113.98 \t2100-01-01 12:00:00 + 1200 = 2100-01-01 12:20:00\n203.0.113.97 \t2100-01-01 12:00:00 + 1200 = 2100-01-01 12:20:00\n';; esac`)
	im := read(t, fail2ban.Options{Jail: jails})
	// One whom a jail of telephony banned two days ago, as only the database knows.
	if got := show(im.Bans); got != "203.0.113.5/32 asterisk 10m0s\n203.0.113.98/32 recidive 20m0s\n" ||
		im.Server == "" ||
		im.Database != "" {
		t.Errorf("%s%+v", got, im)
	}
}

// TestAServerThatCannotBeAskedLeavesTheDatabase has answers that are no bans, and none at all.
func TestAServerThatCannotBeAskedLeavesTheDatabase(t *testing.T) {
	for name, script := range map[string]string{
		"fails":         "echo no >&2; exit 255",
		"fails halfway": answers + inForce + "; exit 1;; *) printf '\\033[31m' >&2; exit 1;; esac",
		"no times":      answers + "echo 203.0.113.5;; esac",
		"a long line":   answers + "head -c 100000 /dev/zero | tr '\\0' 1;; esac",
		"hostile": answers + "printf '1\\033[31m2\\342\\200\\256\\377 \\t2100-01-01 12:00:00 + 600 = 2100-01-01\\n" +
			"';; esac",
	} {
		t.Run(name, func(t *testing.T) {
			im := read(t, fail2ban.Options{Jail: client(t, script)})
			if got := show(im.Bans); !strings.Contains(got, "203.0.113.99/32 asterisk 1h0m0s") ||
				strings.Contains(got, "203.0.113.5/") {
				t.Error(got)
			}
			told := strings.Join(im.Found, "\n")
			if !strings.Contains(told, "does not tell its bans") || strings.ContainsAny(told, "\x1b\u202e") {
				t.Errorf("%q", told)
			}
		})
	}
}
