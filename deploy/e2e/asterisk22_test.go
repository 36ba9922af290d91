package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
)

// ways are how phones and attackers reach Asterisk; each has attackers of its own.
var ways = []struct {
	name string
	o    lab.AgentOptions
	net  int
}{
	{"udp", lab.AgentOptions{Transport: "udp"}, 1},
	{"tcp", lab.AgentOptions{Transport: "tcp"}, 2},
	{"udp6", lab.AgentOptions{Transport: "udp", IPv6: true}, 3},
	{"tcp6", lab.AgentOptions{Transport: "tcp", IPv6: true}, 4},
}

// attackerAddress is an attacker's address: in a /24, or /64, of its own.
func attackerAddress(o lab.AgentOptions, net, host int) netip.Addr {
	if o.IPv6 {
		return netip.MustParseAddr(fmt.Sprintf("fd99:0:0:%x::1", net*16+host))
	}
	return netip.MustParseAddr(fmt.Sprintf("10.99.%d.%d", 100+net, host))
}

// newAttacker makes an agent with an address that nobody else has.
func (r *rig) newAttacker(o lab.AgentOptions, net, host int) *lab.Agent {
	r.t.Helper()
	a := attackerAddress(o, net, host)
	r.AddAddr(r.t, lab.Attacker, a)
	o.Local, o.Timeout = a, 2*time.Second
	return r.Agent(r.t, lab.Attacker, o)
}

func TestAgainstAsterisk22(t *testing.T) {
	r := newRig(t, lab.Options{Version: 22}, "")
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			r := r.forSubtest(t)
			r.phoneRegisters(way.o)
			r.scannerIsBanned(way.o, way.net)
			r.guesserIsBanned(way.o, way.net)
			r.allowedIsNeverBanned(way.o, way.net)
		})
	}
	t.Run("a hostile packet names 8.8.8.8", func(t *testing.T) { r.forSubtest(t).hostilePacket() })
	t.Run("a forged source", func(t *testing.T) { r.forSubtest(t).forgedSource() })
	t.Run("the banned keep other ports", func(t *testing.T) { r.forSubtest(t).otherPortsStayOpen() })
	t.Run("what Asterisk denies is named", func(t *testing.T) { r.forSubtest(t).deniedIsNamed() })
	t.Run("metrics", func(t *testing.T) { r.forSubtest(t).checkMetrics() })
	t.Run("nft flush ruleset", func(t *testing.T) { r.forSubtest(t).rulesetIsFlushed() })
	t.Run("asterisk restarts", func(t *testing.T) { r.forSubtest(t).asteriskRestarts() })
	t.Run("the daemon restarts", func(t *testing.T) { r.forSubtest(t).daemonRestarts() })
}

// forSubtest is the rig for a subtest.
func (r *rig) forSubtest(t *testing.T) *rig {
	c := *r
	c.t = t
	return &c
}

// A phone that registers 100 times is trusted and never banned.
func (r *rig) phoneRegisters(o lab.AgentOptions) {
	r.t.Helper()
	o.Timeout = trial.Patience
	phone := r.Agent(r.t, lab.Phone, o)
	for i := range 100 {
		code, err := phone.Register("6001", lab.Password("6001"))
		if err != nil || code != 200 {
			r.t.Fatalf("registration %d: %d, %v", i+1, code, err)
		}
	}
	local := phone.Local().Addr()
	r.waitUntil("the phone is trusted", func() bool { return r.explanationOf(local).Trust != nil })
	x := r.explanationOf(local)
	if x.Ban != nil || x.Verdict != "trusted" || x.Score != 0 {
		r.t.Errorf("the phone: %+v", x)
	}
}

// A source that asks for unknown accounts is banned, an unban lets it in again.
func (r *rig) scannerIsBanned(o lab.AgentOptions, net int) {
	r.t.Helper()
	bad := r.newAttacker(o, net, 1)
	local := attackerAddress(o, net, 1)
	r.scanUntilBanned(bad, local, fmt.Sprintf("9%d", net))
	b := r.untilBanned(local)
	if b.Reason != "unknown_account" || b.Duration != 3600 {
		r.t.Errorf("%+v", b)
	}
	if proven := o.Transport == "tcp"; b.Proven != proven {
		r.t.Errorf("proven %v over %s", b.Proven, o.Transport)
	}
	if !isKeptOut(r.t, bad) {
		r.t.Error("a banned source gets through")
	}
	r.runCommand("unban", local.String())
	if r.kernelHas(b.Prefix.String()) {
		r.t.Error("unban returned, and the kernel still has the ban")
	}
	if !isAnswered(r.t, bad) {
		r.t.Error("an unbanned source got no reply")
	}
}

// scanUntilBanned asks for accounts that do not exist until the daemon bans the source. On a busy machine a packet
// gets lost.
func (r *rig) scanUntilBanned(bad *lab.Agent, local netip.Addr, first string) {
	r.t.Helper()
	for i := range 20 {
		before := r.explanationOf(local).Attempts
		_, _ = bad.Probe(fmt.Sprintf("%s%02d", first, i))
		for wait := time.Now().Add(time.Second); r.explanationOf(local).Attempts == before && time.Now().Before(wait); {
			time.Sleep(5 * time.Millisecond)
		}
		if r.explanationOf(local).Ban != nil {
			return
		}
	}
}

// A guesser is banned before its tenth guess.
func (r *rig) guesserIsBanned(o lab.AgentOptions, net int) {
	r.t.Helper()
	bad := r.newAttacker(o, net, 2)
	local := attackerAddress(o, net, 2)
	tries := 0
	for x := r.explanationOf(local); x.Ban == nil; x = r.explanationOf(local) {
		if x.Attempts >= 10 {
			r.t.Fatalf("ten guesses: %+v", x)
		}
		if tries++; tries > 40 {
			r.t.Fatalf("40 tries: %+v", x)
		}
		// On a busy machine a packet gets lost: what was not judged was no guess.
		_, _ = bad.GuessAnew("6002", fmt.Sprintf("guess-%d", tries))
		for wait := time.Now().Add(3 * time.Second); r.explanationOf(local).Attempts == x.Attempts &&
			time.Now().Before(wait); {
			time.Sleep(5 * time.Millisecond)
		}
	}
	if b := r.untilBanned(local); b.Reason != "wrong_password" || len(b.Accounts) != 1 || b.Accounts[0] != "6002" {
		r.t.Errorf("%+v", b)
	}
	if !isKeptOut(r.t, bad) {
		r.t.Error("a banned guesser gets through")
	}
	if out := r.runCommand("why", local.String()); !strings.Contains(out, "6002") ||
		!strings.Contains(out, "ringwall unban") {
		r.t.Errorf("why:\n%s", out)
	}
}

// An attacker that is allowed is never banned.
func (r *rig) allowedIsNeverBanned(o lab.AgentOptions, net int) {
	r.t.Helper()
	bad := r.newAttacker(o, net, 3)
	local := attackerAddress(o, net, 3)
	r.runCommand("allow", "add", local.String())
	for i := range 12 {
		_, _ = bad.Probe(fmt.Sprintf("8%d%02d", net, i))
	}
	r.waitUntil("its attempts are seen", func() bool {
		if r.explanationOf(local).Attempts >= 8 { // four times what would ban it, and room for what a busy machine loses
			return true
		}
		_, _ = bad.Probe("8999")
		return false
	})
	if x := r.explanationOf(local); x.Ban != nil || x.Verdict != "allowed" {
		r.t.Errorf("%+v", x)
	}
	if !isAnswered(r.t, bad) {
		r.t.Error("an allowed source got no reply")
	}
}

// One packet injects a line that names 8.8.8.8; it is tampering, and 8.8.8.8 is not judged by it. The tap knows who sent it.
func (r *rig) hostilePacket() {
	before := r.daemonStatus().PBXs[0].Tampered
	bad := r.newAttacker(lab.AgentOptions{}, 5, 1)
	for range 9 { // of which the first three get through
		_, _ = bad.Exchange(lab.Request{User: "%0d%0aRemoteAddress%3a%20IPV4%2fUDP%2f8.8.8.8%2f5"})
	}
	r.waitUntil("the tampering is counted", func() bool { return r.daemonStatus().PBXs[0].Tampered >= before+3 })
	r.waitUntil("its sender is banned", func() bool { return r.explanationOf(attackerAddress(lab.AgentOptions{}, 5, 1)).Ban != nil })
	if x := r.explanationOf(netip.MustParseAddr("8.8.8.8")); x.Verdict != "unknown" {
		r.t.Errorf("8.8.8.8: %+v", x)
	}
}

// Forged packets in a customer's name do not ban the customer.
func (r *rig) forgedSource() {
	victim := r.Agent(r.t, lab.Spare, lab.AgentOptions{Port: 5062, Timeout: trial.Patience / 10, Retransmit: true})
	if code, err := victim.Register("6003", lab.Password("6003")); err != nil || code != 200 {
		r.t.Fatalf("%d, %v", code, err)
	}
	server := r.SIPAddress(false)
	local := victim.Local()
	r.waitUntil("the customer is trusted", func() bool { return r.explanationOf(local.Addr()).Trust != nil })
	forge := func(n int) {
		forged := lab.Request{User: fmt.Sprintf("7%03d", n), CallID: fmt.Sprintf("forged-%d", n)}
		if err := r.Forge(lab.Attacker, local, server, forged.Bytes("udp", local, server)); err != nil {
			r.t.Fatal(err)
		}
	}
	for i := range 40 {
		forge(i)
	}
	r.waitUntil("the forged packets are reported", func() bool {
		return len(r.decisionsAbout(local.Addr(), ban.ActionGuessing)) > 0
	})
	if x := r.explanationOf(local.Addr()); x.Ban != nil || x.Trust == nil {
		r.t.Errorf("the victim of forged packets: %+v", x)
	}
	// What cannot be proven against the phone slows it to a packet a second.
	if code, err := victim.Register("6003", lab.Password("6003")); err != nil || code != 200 {
		r.t.Errorf("the victim registers: %d, %v", code, err)
	}
}

// Somebody who is logged in by SSH from a banned address stays logged in.
func (r *rig) otherPortsStayOpen() {
	bad := r.newAttacker(lab.AgentOptions{}, 6, 1)
	local := attackerAddress(lab.AgentOptions{}, 6, 1)
	l, err := r.Listen(r.t.Context(), lab.Server, "tcp", "10.99.0.1:22")
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	echo := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			echo <- err
			return
		}
		defer func() { _ = c.Close() }()
		buf := make([]byte, 16)
		for {
			n, err := c.Read(buf)
			if err != nil {
				echo <- nil
				return
			}
			if _, err := c.Write(buf[:n]); err != nil {
				echo <- err
				return
			}
		}
	}()
	ssh, err := r.dialFrom(local, "10.99.0.1:22")
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = ssh.Close() }()
	say := func() error {
		_ = ssh.SetDeadline(time.Now().Add(trial.Patience))
		if _, err := ssh.Write([]byte("still here")); err != nil {
			return err
		}
		_, err := ssh.Read(make([]byte, 16))
		return err
	}
	if err := say(); err != nil {
		r.t.Fatal(err)
	}
	r.scanUntilBanned(bad, attackerAddress(lab.AgentOptions{}, 6, 1), "65")
	r.untilBanned(local)
	if !isKeptOut(r.t, bad) {
		r.t.Error("SIP of a banned source gets through")
	}
	if err := say(); err != nil {
		r.t.Errorf("the session on port 22 of a banned source: %v", err)
	}
}

// With read=security alone Asterisk denies every question: status names the lines of manager.conf that would allow it,
// and the refusals are not held against ourselves.
func (r *rig) deniedIsNamed() {
	r.waitUntil("the denied actions are named", func() bool { return len(r.daemonStatus().PBXs[0].Denied) > 0 })
	for _, d := range r.daemonStatus().PBXs[0].Denied {
		if d.Action == "" || !strings.HasPrefix(d.ManagerConf, "write = ") || d.For == "" {
			r.t.Errorf("%+v", d)
		}
	}
	if x := r.explanationOf(netip.MustParseAddr("127.0.0.1")); x.Score != 0 || x.Ban != nil {
		r.t.Errorf("our own denied actions are held against us: %+v", x)
	}
}

// Where Asterisk tells its trunks, they cannot be banned: not by what is forged in their name, not by a slip of the
// hand.
func TestTrunksAreProtected(t *testing.T) {
	r := newRigAs(t, lab.Options{Version: 22}, lab.SecFull, "")
	trunk := lab.Trunk.IPv4()
	r.waitUntil("the trunk is known", func() bool { return r.explanationOf(trunk).Verdict == "protected" })
	if _, err := r.client.Ban(t.Context(), api.BanRequest{Prefix: netip.PrefixFrom(trunk, 32),
		For: time.Hour}); err == nil {
		t.Error("a trunk was banned by hand")
	}
	server, local := r.SIPAddress(false), netip.AddrPortFrom(trunk, 5060)
	for i := range 20 { // a wrong password is an event also for a source that identify matches
		forged := lab.Request{User: "6001", CallID: fmt.Sprintf("forged-%d", i), Method: "REGISTER", To: "6001"}
		if err := r.Forge(lab.Attacker, local, server, forged.Bytes("udp", local, server)); err != nil {
			t.Fatal(err)
		}
	}
	bad := r.newAttacker(lab.AgentOptions{}, 10, 1)
	r.scanUntilBanned(bad, attackerAddress(lab.AgentOptions{}, 10, 1), "64")
	r.untilBanned(attackerAddress(lab.AgentOptions{}, 10, 1))
	if x := r.explanationOf(trunk); x.Ban != nil || r.kernelHas(trunk.String()+"/32") {
		t.Errorf("the trunk: %+v", x)
	}
	phone := r.Agent(t, lab.Phone, lab.AgentOptions{Timeout: trial.Patience})
	if code, err := phone.Register("6001", lab.Password("6001")); err != nil || code != 200 {
		t.Fatalf("%d, %v", code, err)
	}
	r.stopDaemon()
	r.startDaemon() // it has heard no login, but Asterisk knows the contact
	r.waitUntil("the registered phone is trusted",
		func() bool { return r.explanationOf(lab.Phone.IPv4()).Trust != nil })
	r.stopDaemon()
}

func (r *rig) checkMetrics() {
	out, err := r.Exec(r.t.Context(), lab.Server, "curl", "-sS", "--max-time", "10", "http://127.0.0.1:9646/metrics")
	if err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{`ringwall_ami_up{pbx="lab"} 1`, `ringwall_bans_active{family="ipv6",scope="source"}`,
		"ringwall_decision_seconds_count"} {
		if !strings.Contains(string(out), want) {
			r.t.Errorf("no %s", want)
		}
	}
	if strings.Contains(string(out), "10.99.") {
		r.t.Error("a metric holds an address")
	}
}

// Somebody flushes the kernel's ruleset: the bans come back.
func (r *rig) rulesetIsFlushed() {
	bad := r.newAttacker(lab.AgentOptions{}, 7, 1)
	local := attackerAddress(lab.AgentOptions{}, 7, 1)
	r.scanUntilBanned(bad, attackerAddress(lab.AgentOptions{}, 7, 1), "66")
	b := r.untilBanned(local)
	for _, what := range [][]string{{"flush", "ruleset"}, {"flush", "table", "inet", "ringwall"},
		{"delete", "table", "inet", "ringwall"}} {
		// With table flags owner and persist (kernel 6.9) an administrator's nft is refused, which is as good.
		_, _ = r.Exec(r.t.Context(), lab.Server, "nft", what...)
		r.waitUntil("the ban is back after nft "+strings.Join(what, " "), func() bool {
			out, err := r.Exec(r.t.Context(), lab.Server, "nft", "list", "table", "inet", "ringwall")
			return err == nil && strings.Contains(string(out), "ban4 counter") && r.kernelHas(b.Prefix.String())
		})
	}
	if !isKeptOut(r.t, bad) {
		r.t.Error("a banned source gets through")
	}
}

// Asterisk restarts under the daemon: the bans stay in the kernel throughout, and it hears the next attack.
func (r *rig) asteriskRestarts() {
	bad := r.newAttacker(lab.AgentOptions{}, 8, 1)
	local := attackerAddress(lab.AgentOptions{}, 8, 1)
	r.scanUntilBanned(bad, attackerAddress(lab.AgentOptions{}, 8, 1), "67")
	b := r.untilBanned(local)
	r.StopAsterisk(r.t)
	r.waitUntil("the loss is noticed", func() bool { return !r.daemonStatus().PBXs[0].Up })
	if !r.kernelHas(b.Prefix.String()) {
		r.t.Error("the ban ended with Asterisk")
	}
	r.StartAsterisk(r.t)
	r.waitUntil("the session is up again", func() bool { return r.daemonStatus().PBXs[0].Up })
	if s := r.daemonStatus().PBXs[0]; s.Reconnects < 1 || s.Blind <= 0 {
		r.t.Errorf("%+v", s)
	}
	if !r.kernelHas(b.Prefix.String()) || !isKeptOut(r.t, bad) {
		r.t.Error("the ban ended with Asterisk's restart")
	}
	next := r.newAttacker(lab.AgentOptions{}, 8, 2)
	r.scanUntilBanned(next, attackerAddress(lab.AgentOptions{}, 8, 2), "68")
	r.untilBanned(attackerAddress(lab.AgentOptions{}, 8, 2))
}

// The bans outlive the daemon, with no more time left than they were given, and SIGHUP reads the policy again.
func (r *rig) daemonRestarts() {
	bad := r.newAttacker(lab.AgentOptions{}, 9, 1)
	local := attackerAddress(lab.AgentOptions{}, 9, 1)
	r.scanUntilBanned(bad, attackerAddress(lab.AgentOptions{}, 9, 1), "69")
	b := r.untilBanned(local)
	r.stopDaemon()
	if !r.kernelHas(b.Prefix.String()) || !isKeptOut(r.t, bad) {
		r.t.Error("the ban ended with the daemon")
	}
	r.startDaemon()
	x := r.explanationOf(local)
	if x.Ban == nil || x.Ban.Until.After(b.Until.Add(time.Second)) {
		r.t.Fatalf("after a restart: %+v", x.Ban)
	}
	text, err := os.ReadFile(r.config)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(r.config, append(text, fmt.Sprintf("policy: {allow: [%s]}\n", local)...),
		0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := r.daemon.Signal(syscall.SIGHUP); err != nil {
		r.t.Fatal(err)
	}
	r.waitUntil("the new allow list lets it in", func() bool {
		return r.explanationOf(local).Verdict == "allowed" &&
			!r.kernelHas(b.Prefix.String())
	})
	if !isAnswered(r.t, bad) {
		r.t.Error("an allowed source got no reply")
	}
	r.stopDaemon()
}

func (r *rig) daemonStatus() api.Status {
	r.t.Helper()
	s, err := r.client.Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}
