package firstday

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/clock"
	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/deploy/trial"
)

// The people whom the pages tell of.
var (
	curious  = netip.MustParseAddr("203.0.113.99")
	scanner  = netip.MustParseAddr("203.0.113.66")
	customer = netip.MustParseAddr("198.51.100.7")
	office   = netip.MustParseAddr("198.51.100.10")
)

// droppedOverUDP is what status says once packets of a ban that closes UDP are dropped: beyond those that may knock, or
// all of them, once the door is shut.
var droppedOverUDP = regexp.MustCompile(`packets by set: .*\b(?:knock4|sip4) [1-9]`)

// stages are what happens right before somebody types a command.
var stages = map[string]func(*testing.T, *day){
	"README.md: systemctl start ringwall": func(t *testing.T, d *day) { d.checkAdvice(t, beginners) },
	"README.md: ringwall history": func(t *testing.T, d *day) {
		d.scanUntilDecided(t, curious)
		d.playOldPassword(t, office, "201", "203")
	},
	"README.md: ringwall list bans": func(t *testing.T, d *day) {
		d.scanUntilDecided(t, scanner)
		// Now it is out: a flood of its packets ends in the kernel.
		if d.runSipp(t, scanner, 20, 50*time.Millisecond) {
			t.Fatal("a banned scanner gets its answers")
		}
		trial.WaitUntil(t, "the kernel counts what it drops", func() bool {
			out, err := d.tryScript(t, "ringwall status")
			return err == nil && droppedOverUDP.MatchString(out)
		})
		if d.isAnswered(t, scanner, 2) {
			t.Fatal("a banned source gets an answer")
		}
	},
	"customer-calls.md: ringwall why 198.51.100.7": func(t *testing.T, d *day) {
		if out, _ := d.tryScript(t, "ringwall history 198.51.100.7"); strings.Contains(out, "wrong password") {
			// He was let in again meanwhile, and has the right password now.
			d.registerUntilTrusted(t, customer, "202")
			return
		}
		d.guessUntilBanned(t, customer, "202")
	},
	"customer-calls.md: ringwall history 198.51.100.10": func(t *testing.T, d *day) {
		trial.WaitUntil(t, "the office's phone is reported", func() bool {
			out, err := d.tryScript(t, "ringwall history 198.51.100.10")
			return err == nil && strings.Contains(out, "misconfigured")
		})
	},
	"install.md: ringwall list bans": func(t *testing.T, d *day) { d.checkAdvice(t, users) },
	"install.md: apt remove ringwall": func(t *testing.T, d *day) {
		d.runScript(t, "systemctl stop ringwall") // the package's script asks systemd, which does not run
	},
}

// outcomes are what must be true right after a command.
var outcomes = map[string]func(*testing.T, *day, string){
	"README.md: ringwall doctor": func(t *testing.T, d *day, out string) {
		// The mode is what the next chapter is about; the clock is that of the machine that runs the tests.
		later := clock.Ahead() > time.Hour // Asterisk has the kernel's clock
		for line := range strings.Lines(out) {
			if later && strings.HasPrefix(line, "! ") && strings.Contains(line, " lag ") {
				continue
			}
			if strings.HasPrefix(line, "✘") || (strings.HasPrefix(line, "! ") && !strings.HasPrefix(line, "! mode") &&
				!strings.HasPrefix(line, "! clock") && !strings.HasPrefix(line, "! It watches")) {
				t.Errorf("not green: %s", line)
			}
		}
	},
	"README.md: systemctl reload ringwall": func(t *testing.T, d *day, _ string) {
		if out := d.runScript(t, "ringwall doctor"); !strings.Contains(out, "enforce: attackers are banned") {
			t.Errorf("enforced, and the doctor says\n%s", out)
		}
	},
	"README.md: ringwall unban 203.0.113.66 --grace 1h": func(t *testing.T, d *day, _ string) {
		if !d.isAnswered(t, scanner, 20) {
			t.Error("an unbanned source gets no answer")
		}
	},
	"README.md: ringwall allow add 203.0.113.66": func(t *testing.T, d *day, _ string) {
		d.runSipp(t, scanner, 20, 2*time.Second)
		if !d.isAnswered(t, scanner, 20) {
			t.Error("an allowed source gets no answer")
		}
	},
}

// runSipp lets Debian's SIP scanner ask for accounts that do not exist, one after the other: Asterisk has several
// threads, and would report those that come at once in any order. It says whether each was answered within the time.
func (d *day) runSipp(t *testing.T, from netip.Addr, calls int, patience time.Duration) bool {
	t.Helper()
	d.AddAddr(t, lab.Attacker, from)
	cmd := exec.Command("sipp", "-sf", "../lab/sipp/scan.xml", "-i", from.String(), "-m", fmt.Sprint(calls), "-l", "1",
		"-r", "10", "-nr",
		"-recv_timeout", fmt.Sprint(patience.Milliseconds()), "-nostdin", "-timeout", "60",
		d.SIPAddress(false).String())
	p := d.SpawnCmd(t, lab.Attacker, cmd)
	err := p.Wait()
	if strings.Contains(p.Output(), "command line") || strings.Contains(p.Output(), "Unable") {
		t.Fatalf("sipp:\n%s", p.Output())
	}
	return err == nil
}

// scanUntilDecided asks for accounts until the daemon has decided.
func (d *day) scanUntilDecided(t *testing.T, from netip.Addr) {
	t.Helper()
	if !d.runSipp(t, from, 3, 15*time.Second) {
		d.odd = true // a packet was late or lost: the machine is busy
	}
	if d.waitUntil(20*time.Second, func() bool { return d.hasDecision(t, from) }) {
		return
	}
	d.odd = true
	for range 10 {
		d.runSipp(t, from, 3, 2*time.Second)
		if d.waitUntil(5*time.Second, func() bool { return d.hasDecision(t, from) }) {
			return
		}
	}
	t.Fatalf("%v is never banned", from)
}

func (d *day) hasDecision(t *testing.T, from netip.Addr) bool {
	out, err := d.tryScript(t, "ringwall why "+from.String())
	return err == nil && (strings.Contains(out, "is banned until") || strings.Contains(out, "would be banned until"))
}

func (d *day) waitUntil(wait time.Duration, ok func() bool) bool {
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return false
}

// newAgent is a phone behind an address.
func (d *day) newAgent(t *testing.T, from netip.Addr) *lab.Agent {
	t.Helper()
	node := lab.Phone
	if from == scanner || from == curious {
		node = lab.Attacker
	}
	d.AddAddr(t, node, from)
	return d.Agent(t, node, lab.AgentOptions{Local: from})
}

// isAnswered says whether Asterisk answers an address; packets get lost on a busy machine, so it is asked more than
// once.
func (d *day) isAnswered(t *testing.T, from netip.Addr, tries int) bool {
	t.Helper()
	for range tries {
		a := d.newAgent(t, from)
		_, err := a.Options("s")
		a.Close()
		if err == nil {
			return true
		}
		if !errors.Is(err, lab.ErrNoReply) {
			t.Logf("options: %v", err)
		}
	}
	return false
}

// guessUntilBanned tries passwords as fast as they are answered, until the address is banned.
func (d *day) guessUntilBanned(t *testing.T, from netip.Addr, account string) {
	t.Helper()
	a := d.newAgent(t, from)
	for i := range 20 {
		if _, err := a.GuessAnew(account, fmt.Sprintf("old-%d", i)); err != nil {
			d.odd = true
		}
		if i >= 4 && d.waitUntil(2*time.Second, func() bool { return d.hasDecision(t, from) }) {
			d.odd = d.odd || i > 4
			return
		}
	}
	t.Fatalf("%v is never banned", from)
}

// registerUntilTrusted logs in with the right password until the source is trusted.
func (d *day) registerUntilTrusted(t *testing.T, from netip.Addr, account string) {
	t.Helper()
	var code int
	var sent error
	var out string
	defer func() {
		if t.Failed() {
			t.Logf("register: %d, %v\n%s", code, sent, out)
		}
	}()
	trial.WaitUntil(t, from.String()+" is trusted", func() bool {
		code, sent = d.newAgent(t, from).Register(account, lab.Password(account))
		var err error
		out, err = d.tryScript(t, "ringwall why "+from.String())
		return err == nil && strings.Contains(out, "trusted until")
	})
}

// playOldPassword is an office: one phone logs in, and another tries a wrong password as slowly as phones do, until
// the day ends.
func (d *day) playOldPassword(t *testing.T, from netip.Addr, good, bad string) {
	t.Helper()
	d.registerUntilTrusted(t, from, good)
	phone := d.newAgent(d.t, from)
	ctx, cancel := context.WithCancel(d.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_, _ = phone.GuessAnew(bad, "last-year")
			select {
			case <-ctx.Done():
			case <-time.After(11 * time.Second): // a phone's pace is up to six a minute
			}
		}
	}()
	d.t.Cleanup(func() {
		cancel()
		<-done
	})
}
