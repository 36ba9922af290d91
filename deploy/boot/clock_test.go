package boot

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/clock"
)

// clockJump is the file with the seconds by which the clock of a program built with jumpingClock is set.
const clockJump = "/run/clock-jump"

// jumpingClock writes an overlay of Go's standard library (go help build, -overlay) with which a program's wall clock
// is off by what a file says at the moment, as if somebody had set it; the machine's own stays as it is. The monotonic
// clock goes on.
func jumpingClock(dir string) (overlay string, err error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	root := strings.TrimSpace(string(out))
	const now = "	sec, nsec, mono := runtimeNow()\n	if mono == 0 {\n"
	original := filepath.Join(root, "src/time/time.go")
	text, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), now); n != 1 {
		return "", fmt.Errorf("%s reads the clock in %d places; want one", original, n)
	}
	files := map[string]string{
		original: strings.Replace(string(text), now,
			"	sec, nsec, mono := runtimeNow(); sec += SetBy\n	if mono == 0 {\n", 1) +
			"\n// SetBy is by how many seconds the clock was set.\nvar SetBy int64\n",
		filepath.Join(root, "src/os/clock_jump.go"): `package os

import "time"

func init() {
	readClockJump()
	go func() {
		for {
			time.Sleep(20 * time.Millisecond)
			readClockJump()
		}
	}()
}

func readClockJump() {
	b, err := ReadFile("` + clockJump + `")
	if err != nil {
		return
	}
	n, sign := int64(0), int64(1)
	for _, c := range b {
		switch {
		case c == '-':
			sign = -1
		case '0' <= c && c <= '9':
			n = 10*n + int64(c-'0')
		}
	}
	time.SetBy = sign * n
}
`,
	}
	replace := map[string]string{}
	for name, text := range files {
		to := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(to, []byte(text), 0o644); err != nil {
			return "", err
		}
		replace[name] = to
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, list, 0o644)
}

// TestClocksThatJump has somebody set the clock of a machine forth and back, while the service runs and while it does
// not: a ban neither ends by that nor becomes one for years, attackers are banned as ever, and nobody is shut out. For
// Ringwall itself that needs a program whose whole standard library is built anew, a minute of two processors, so it is
// done on request; else it is Asterisk's clock alone that jumps:
//
//	RINGWALL_BOOT_CLOCK=1 go -C deploy test -run ClocksThatJump ./boot
func TestClocksThatJump(t *testing.T) {
	m := newMachine(t, enforce)
	both := os.Getenv("RINGWALL_BOOT_CLOCK") != ""
	if both {
		m.installWithJumpingClock()
	}
	m.ban(first)
	m.run("ringwall allow add " + good)
	n := 0
	look := func(what string) {
		t.Helper()
		n++
		attacker := fmt.Sprint("10.88.0.", 40+n)
		m.ban(attacker)
		m.keptOut(first)
		m.letIn(good, neutral)
		m.attack(good)
		m.letIn(good)
		for _, banned := range []string{first, attacker} {
			if left := m.banEndsIn(banned); left > 3*time.Hour || left < 10*time.Minute {
				t.Errorf("with %s the kernel keeps %s out for %s", what, banned, left)
			}
		}
		if both {
			m.says("ringwall doctor", 0, "It works")
		}
		m.run("ringwall unban " + attacker)
		m.letIn(attacker)
		if t.Failed() {
			t.Fatalf("with %s", what)
		}
	}
	const day, years = 24 * time.Hour, 10 * 365 * 24 * time.Hour
	for _, by := range []time.Duration{time.Hour, -time.Hour, -day, years, 0} {
		m.skew = by
		if !both {
			look(fmt.Sprintf("Asterisk's clock set by %s", by))
			continue
		}
		m.skew = by - clock.Ahead()
		m.write(clockJump, fmt.Sprintln(int64(by/time.Second)))
		time.Sleep(100 * time.Millisecond) // five looks at the file
		look(fmt.Sprintf("clocks set by %s while it runs", by))
		m.run("systemctl restart ringwall")
		m.heard()
		look(fmt.Sprintf("clocks set by %s before it starts", by))
		m.attack(second)
		m.until("it is told", func() bool { return m.inSet(second) })
		if told := m.lastDecision(second); told.Sub(time.Now().Add(m.skew)).Abs() > 5*time.Minute {
			t.Fatalf("with a clock set by %s it is %s for the service", by, told)
		}
		m.run("ringwall unban " + second)
	}
}

// installWithJumpingClock has the service run the program whose clock can be set.
func (m *machine) installWithJumpingClock() {
	m.t.Helper()
	overlay, err := jumpingClock(m.t.TempDir())
	if err != nil {
		m.t.Fatal(err)
	}
	program := filepath.Join(m.t.TempDir(), "ringwall")
	build := exec.Command("go", "build", "-overlay="+overlay, "-o", program, "./cmd/ringwall")
	build.Dir = "../.."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		m.t.Fatalf("%v\n%s", err, out)
	}
	m.copyIn(program, "/root/ringwall")
	m.run("install -m 755 /root/ringwall /usr/bin/ringwall && systemctl restart ringwall")
	m.heard()
}

// lastDecision is when the latest decision about an address was made, by the clock of the service.
func (m *machine) lastDecision(address string) time.Time {
	m.t.Helper()
	var decision struct {
		Time time.Time `json:"time"`
	}
	out := m.run("ringwall history --json " + address + " | tail -n 1")
	if err := json.Unmarshal([]byte(out), &decision); err != nil {
		m.t.Fatalf("%v\n%s", err, out)
	}
	return decision.Time
}

// banEndsIn is how long the kernel keeps an address out from now on.
func (m *machine) banEndsIn(address string) time.Duration {
	m.t.Helper()
	out := m.run("nft list set inet ringwall ban4")
	_, rest, _ := strings.Cut(out, address+" ")
	_, rest, _ = strings.Cut(rest, "expires ")
	text, _, _ := strings.Cut(rest, "\n")
	text = strings.Trim(strings.Split(strings.TrimSpace(text), ",")[0], " }")
	if days, after, ok := strings.Cut(text, "d"); ok { // 3d4h5m6s7ms
		n := 0
		_, _ = fmt.Sscan(days, &n)
		d, err := time.ParseDuration(after)
		if err != nil {
			m.t.Fatalf("%q: %v\n%s", text, err, out)
		}
		return time.Duration(n)*24*time.Hour + d
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		m.t.Fatalf("%q: %v\n%s", text, err, out)
	}
	return d
}
