package firstday

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/geo/geotest"
)

var update = flag.Bool("update", false, "write what commands print into the pages")

// A day is a machine, and what was typed there.
type day struct {
	*machine
	t     *testing.T // of the whole day, which is longer than a page
	typed []entry
	odd   bool // the stage was set otherwise than a page tells, so its output is not compared
}

// An entry is a command of a transcript.
type entry struct {
	command, output string
	took            time.Duration
}

// TestEveryCommand types every command of README.md and of deploy/docs, in their order, as root on a Debian with
// Asterisk where the events are real: README.md first, as on the first day. A page begins with a Ringwall that bans.
func TestEveryCommand(t *testing.T) {
	d := &day{machine: newMachine(t), t: t}
	d.bringPackages(t)
	d.prepareMachine(t)
	order := allPages(t)
	// The first installs it, and the last removes it again.
	slices.SortStableFunc(order, func(a, b string) int { return pageOrder(a) - pageOrder(b) })
	for _, page := range order {
		passed := t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) {
			if page != "README.md" {
				d.resetTo(t)
			}
			d.typePage(t, page)
		})
		if page == "README.md" {
			t.Logf("the first day:\n%s", d.transcript())
			if !passed {
				t.Fatal("no other page can be tried without the first day")
			}
		}
	}
}

func pageOrder(page string) int {
	switch filepath.Base(page) {
	case "README.md":
		return 0
	case "customer-calls.md": // the office's phone needs half a minute until it is known
		return 2
	case "install.md":
		return 3
	}
	return 1
}

// built is a folder with the packages of this tree, made once, as README.md says.
var built = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(scratch, "packages")
	cmd := exec.Command(filepath.Join(top, "deploy/packages/build"), "-arch", runtime.GOARCH, dir)
	cmd.Env = append(os.Environ(), "RINGWALL_VERSION=1.0.0", "SOURCE_DATE_EPOCH=1700000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return dir, nil
})

// scratch is where they are, for as long as the tests run.
var scratch string

func TestMain(m *testing.M) { trial.InFolder(m, &scratch) }

// bringPackages puts the packages into the machine.
func (d *day) bringPackages(t *testing.T) {
	t.Helper()
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(d.share, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
}

// prepareMachine puts there what an administrator has when he begins, and what pages take for granted.
func (d *day) prepareMachine(t *testing.T) {
	t.Helper()
	d.writeFile(t, "on-ban", "#!/bin/sh\n")
	d.runScript(t, `cp /mnt/ringwall_*.deb ~/ringwall_amd64.deb # whatever this machine is
		rm /etc/dpkg/dpkg.cfg.d/lab # which leaves out /usr/share/doc
		echo 'APT::Get::Assume-Yes "true";' >/etc/apt/apt.conf.d/90yes # the administrator's y and Enter
		install -m 755 /mnt/on-ban /usr/local/bin/on-ban
		printf '[general]\n[logfiles]\nmessages.log => notice,warning,error\nsecurity.log => security\n' >/etc/asterisk/logger.conf
		asterisk -rx 'logger reload'`)
	const somewhere = "203.0.113.0/24"
	for name, record := range map[string]geotest.Record{"Country": geotest.Country("SE"),
		"ASN": geotest.ASN(64496, "Example Hosting")} {
		geotest.Put(t, filepath.Join(d.share, "GeoLite2-"+name+".mmdb"),
			geotest.Make(t, geotest.Networks{somewhere: record}, geotest.Type("GeoLite2-"+name)))
	}
	d.runScript(t, "install -D -m 644 -t /var/lib/GeoIP /mnt/*.mmdb")
	fail2ban := exec.CommandContext(t.Context(), "cp", "-rL", "/etc/fail2ban", filepath.Join(d.share, "fail2ban"))
	if out, err := fail2ban.CombinedOutput(); err != nil {
		t.Fatalf("the laboratory installs fail2ban (deploy/lab/lab install): %v\n%s", err, out)
	}
	d.runScript(t, `cp -r /mnt/fail2ban /etc/fail2ban
		printf '[asterisk]\nenabled = true\n' >/etc/fail2ban/jail.local`)
}

// resetTo is the state that a page begins with.
func (d *day) resetTo(t *testing.T) {
	t.Helper()
	d.runScript(t, `cp /usr/share/doc/ringwall/examples/minimal.yaml /etc/ringwall/ringwall.yaml
		echo 'policy: {mode: enforce}' >>/etc/ringwall/ringwall.yaml
		chgrp ringwall /etc/ringwall/ringwall.yaml; chmod 640 /etc/ringwall/ringwall.yaml
		systemctl start ringwall; systemctl reload ringwall`)
	d.waitForMode(t)
	// Sensors are opened after that. Pages show what events are with what they see.
	trial.WaitUntil(t, "packets are looked at", func() bool {
		_, err := d.tryScript(t, `ringwall status --json | grep -q '"name":"tap","alive":true'`)
		return err == nil
	})
	d.odd = false
}

// waitForMode waits until the daemon has the mode of its file: systemctl reload does not wait for that.
func (d *day) waitForMode(t *testing.T) {
	t.Helper()
	trial.WaitUntil(t, "the daemon has the mode of its file", func() bool {
		_, err := d.tryScript(t, `mode=$(ringwall check --print | sed -n 's/^  mode: //p'); ringwall status --json | grep -q "\"mode\":\"$mode\""`)
		return err == nil
	})
}

// typePage types the commands of a page.
func (d *day) typePage(t *testing.T, page string) {
	var output string
	for _, b := range fencedBlocks(t, page) {
		where := fmt.Sprintf("%s:%d", page, b.line)
		switch {
		case b.lang == "sh":
			for _, command := range b.commandLines() {
				output = d.typeCommand(t, page, where, command)
			}
		case b.lang == "yaml":
			d.checkConfiguration(t, where, b.text)
		case b.follows && d.odd:
			t.Logf("%s: not compared, since the stage could not be set as the page tells it", where)
		case b.follows && *update:
			replaceOutput(t, b, output)
		case b.follows:
			if what := differenceOf(b.text, output); what != "" {
				t.Errorf("%s: the output is not what the page shows (go test ./deploy/firstday -update writes it "+
					"there): %s\n"+
					"all of it:\n%s", where, what, output)
			}
		}
	}
}

// typeCommand types one command.
func (d *day) typeCommand(t *testing.T, page, where, command string) string {
	t.Helper()
	if reason, tried := d.tryElsewhere(t, command); tried {
		t.Logf("%s: %s: %s", where, command, reason)
		return ""
	}
	if stage := stages[filepath.Base(page)+": "+command]; stage != nil {
		stage(t, d)
	}
	began := time.Now()
	script := command
	if strings.HasSuffix(command, "--follow") {
		script = "timeout --foreground --preserve-status --signal INT 2 " + command // Ctrl-C
	}
	out, err := d.tryScript(t, script)
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s", where, command, err, out)
	}
	if page == "README.md" {
		d.typed = append(d.typed, entry{command, out, time.Since(began)})
	}
	if strings.HasPrefix(command, "systemctl reload") {
		d.waitForMode(t)
	}
	if check := outcomes[filepath.Base(page)+": "+command]; check != nil {
		check(t, d, out)
	}
	return out
}

// checkConfiguration checks a part of the configuration.
func (d *day) checkConfiguration(t *testing.T, where, text string) {
	t.Helper()
	if !strings.Contains(text, "asterisk:") {
		minimal, err := os.ReadFile(filepath.Join(top, "examples/minimal.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		text = string(minimal) + text
	}
	d.writeFile(t, "part.yaml", text)
	out, err := d.tryScript(t, "install -m 600 /mnt/part.yaml /root/part.yaml; ringwall check --config /root/part.yaml")
	if err != nil || !strings.Contains(out, "0 warnings") {
		t.Errorf("%s: %v\n%s", where, err, out)
	}
}

// transcript is what was typed on the first day, and how long each command took.
func (d *day) transcript() string {
	var b strings.Builder
	var took time.Duration
	keys := 0
	for _, e := range d.typed {
		fmt.Fprintf(&b, "# %s\n", e.command)
		if e.output != "" {
			fmt.Fprintln(&b, e.output)
		}
		fmt.Fprintf(&b, "[%.2f s]\n\n", e.took.Seconds())
		took += e.took
		keys += len(e.command) + 1
	}
	fmt.Fprintf(&b, "%d commands, %d keys to type or paste, %.1f s until all had answered\n", len(d.typed), keys,
		took.Seconds())
	return b.String()
}

// replaceOutput writes what a command printed into its page.
func replaceOutput(t *testing.T, b block, output string) {
	t.Helper()
	if differenceOf(b.text, output) == "" {
		return
	}
	path := filepath.Join(top, b.page)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := func(text string) string {
		var s strings.Builder
		for line := range strings.Lines(strings.TrimRight(text, "\n") + "\n") {
			s.WriteString(strings.TrimRight(b.indent+strings.TrimSuffix(line, "\n"), " ") + "\n")
		}
		return s.String()
	}
	old := b.indent + "```text\n" + lines(b.text) + b.indent + "```\n"
	if strings.Count(string(data), old) != 1 {
		t.Fatalf("%s:%d: the block is not there exactly once", b.page, b.line)
	}
	fresh := strings.Replace(string(data), old, b.indent+"```text\n"+lines(output)+b.indent+"```\n", 1)
	if err := os.WriteFile(path, []byte(fresh), 0o644); err != nil {
		t.Fatal(err)
	}
}
