package boot

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/lab"
)

// phone is where a customer's is, who logs in as account.
const (
	phone   = "10.88.0.40"
	account = "201"
)

// newPBX is a Debian, booted by systemd, in which the laboratory's Asterisk runs, by the unit and with the
// configuration of Debian's package and with a phone. Ringwall is not installed.
func newPBX(t *testing.T) *machine {
	t.Helper()
	m := newLayer(t, func() (string, error) {
		dir := filepath.Join(t.TempDir(), "empty")
		if err := os.MkdirAll(filepath.Join(dir, "asterisk"), 0o755); err != nil {
			return "", err
		}
		return dir, os.WriteFile(filepath.Join(dir, "tree"), []byte(plainDebian), 0o644)
	})
	out, err := inLayer(m.layer, `
		pbx=$root/srv/asterisk
		for dir in /etc/asterisk /var/lib/asterisk /var/log/asterisk /var/spool/asterisk /run/asterisk; do
			mkdir -p "$root$dir" "$pbx$dir"
			echo "/srv/asterisk$dir $dir none bind" >>"$root/etc/fstab"
		done
		grep ^asterisk: "$pbx/etc/passwd" >>"$root/etc/passwd"
		grep ^asterisk: "$pbx/etc/group" >>"$root/etc/group"
		chroot "$pbx" chown asterisk:asterisk /run/asterisk
		printf '#!/bin/sh\nexec chroot /srv/asterisk /usr/sbin/asterisk "$@"\n' >"$root/usr/sbin/asterisk"
		chmod 755 "$root/usr/sbin/asterisk"
		cp "$pbx/usr/lib/systemd/system/asterisk.service" "$root/etc/systemd/system/"
		mkdir "$root/etc/systemd/system/asterisk.service.d"
		printf '[Service]\nRootDirectory=/srv/asterisk\nMountAPIVFS=yes\nBindPaths=/run/asterisk\nRestart=always\n' \
			>"$root/etc/systemd/system/asterisk.service.d/tree.conf"
		mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
		ln -s ../asterisk.service "$root/etc/systemd/system/multi-user.target.wants/"
		cat >>"$pbx/etc/asterisk/pjsip.conf" <<TEXT
[udp]
type=transport
protocol=udp
bind=0.0.0.0
[tcp]
type=transport
protocol=tcp
bind=0.0.0.0
[$1]
type=endpoint
auth=$1
aors=$1
[$1]
type=auth
auth_type=userpass
username=$1
password=$2
[$1]
type=aor
max_contacts=10
TEXT`, account, lab.Password(account)).CombinedOutput()
	if err != nil {
		t.Fatalf("put Asterisk into the machine: %v\n%s", err, out)
	}
	m.boot()
	m.endAfterTheTest()
	m.asteriskIsUp()
	return m
}

func (m *machine) asteriskIsUp() {
	m.t.Helper()
	m.until("Asterisk is up", func() bool {
		out, code := m.try("timeout 20 asterisk -rx 'core waitfullybooted'")
		return code == 0 && strings.Contains(out, "fully booted")
	})
}

// register sends a REGISTER of an account, with its password where there is one, and returns the code of the answer
// that came last; 0 is none.
func (m *machine) register(transport, from, user, password string, patience time.Duration) (code int) {
	m.t.Helper()
	var local net.Addr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))
	if transport == "udp" {
		local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))
	}
	d := net.Dialer{LocalAddr: local, Timeout: patience}
	server := netip.MustParseAddrPort(self + ":5060")
	conn, err := m.others.Dial(m.t.Context(), d, transport, server.String())
	if err != nil {
		return 0
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	reader := bufio.NewReader(conn)
	request := lab.Request{User: user, CallID: fmt.Sprint("call-", m.number.Add(1), "@", from)}
	here := netip.MustParseAddrPort(conn.LocalAddr().String())
	for {
		request.CSeq++
		if _, err := conn.Write(request.Bytes(transport, here, server)); err != nil {
			return code
		}
		response := readResponse(reader)
		if response == nil {
			return code
		}
		code = response.Code
		challenge := response.Challenge()
		if challenge == nil || password == "" || request.CSeq > 1 {
			return code
		}
		request.Credentials = challenge.Answer(user, password, "REGISTER", request.URI(server))
	}
}

// readResponse is the head of a response, nil where none comes.
func readResponse(r *bufio.Reader) *lab.Response {
	var raw strings.Builder
	for {
		line, err := r.ReadString('\n')
		raw.WriteString(line)
		if err != nil {
			return nil
		}
		if line == "\r\n" {
			break
		}
	}
	f := strings.Fields(raw.String())
	code, err := strconv.Atoi(f[1])
	if err != nil {
		return nil
	}
	return &lab.Response{Code: code, Raw: []byte(raw.String())}
}

// scan asks for accounts that do not exist, over TCP, and for one that does with a wrong password, until there is no
// answer.
func (m *machine) scan(from string) {
	m.t.Helper()
	for _, user := range []string{"100", "101", "102", account, account} {
		if m.register("tcp", from, user, "wrong", time.Second) == 0 {
			return
		}
	}
}

// scanUntilBanned has the real Asterisk tell Ringwall of an attacker, until the kernel keeps it out.
func (m *machine) scanUntilBanned(from string) {
	m.t.Helper()
	m.until(from+" is banned", func() bool {
		m.scan(from)
		return m.inSet(from)
	})
	m.unanswered(from)
}

// unanswered fails the test where Asterisk answers an address, over UDP or TCP.
func (m *machine) unanswered(from string) {
	m.t.Helper()
	for _, transport := range []string{"udp", "tcp"} {
		if code := m.register(transport, from, "100", "", 300*time.Millisecond); code != 0 {
			m.t.Errorf("%s is answered over %s: %d", from, transport, code)
		}
	}
	m.logsIn()
}

// logsIn wants the customer's phone to log in.
func (m *machine) logsIn() {
	m.t.Helper()
	m.until("the customer's phone logs in", func() bool {
		return m.register("udp", phone, account, lab.Password(account), 3*time.Second) == 200
	})
}

// hears waits until the daemon hears Asterisk.
func (m *machine) hears() {
	m.t.Helper()
	m.until("Ringwall hears Asterisk", func() bool { return m.metric(`ringwall_ami_up{pbx="127.0.0.1:5038"}`) == "1" })
}

// readmeLines are the commands of the README's block that begins so.
func readmeLines(t *testing.T, begin string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(text), "```sh\n"+begin)
	block, _, closed := strings.Cut(begin+block, "```\n")
	if !found || !closed {
		t.Fatalf("the README has no block that begins with %q", begin)
	}
	return strings.Split(strings.TrimSpace(block), "\n")
}

// TestTheFirstDayWithARealAsterisk is the README in a machine with systemd and a real Asterisk: install, check, start,
// doctor, observe, enforce; an attack by SIP, why, unban, a mistake at a reload. What befalls a machine later takes a
// minute or two and is tried on request; the other tests of this package try it with an AMI of their own:
//
//	RINGWALL_BOOT_ASTERISK=full go -C deploy test -run RealAsterisk ./boot
func TestTheFirstDayWithARealAsterisk(t *testing.T) {
	m := newPBX(t)
	deb, err := built()
	if err != nil {
		t.Fatal(err)
	}
	m.copyIn(deb, "/root/"+filepath.Base(deb))
	lines := readmeLines(t, "apt install ./ringwall_amd64.deb\n")
	lines[0] = regexp.MustCompile(`ringwall_\w+\.deb`).ReplaceAllString(lines[0], filepath.Base(deb)) + " </dev/null"
	for _, line := range lines {
		m.run("cd /root; " + line)
	}
	m.says("ringwall doctor", 0, "It watches")
	m.says("systemctl is-active asterisk ringwall", 0)

	// It observes.
	m.logsIn()
	m.scan(first)
	m.until("it is observed", func() bool {
		out, _ := m.try("ringwall history")
		return strings.Contains(out, "would be banned") && strings.Contains(out, first)
	})
	if m.register("tcp", first, "100", "", 5*time.Second) == 0 {
		t.Error("who is observed gets no answer")
	}
	for _, line := range readmeLines(t, "sed -i 's/mode: observe/mode: enforce/'") {
		m.run(line)
	}
	m.says("ringwall status", 0, "attackers are banned")

	// An attack.
	m.scanUntilBanned(first)
	m.says("ringwall list bans", 0, first)
	m.says("ringwall why "+first, 0, "is banned until", "InvalidAccountID", "unknown account", "ringwall unban "+first)
	m.says("ringwall why "+phone, 0, "trusted")
	m.run("ringwall unban " + first)
	if m.register("tcp", first, "100", "", 5*time.Second) == 0 {
		t.Error("who is unbanned gets no answer")
	}
	m.scanUntilBanned(first)

	// A mistake at a reload changes nothing.
	m.run("cp /etc/ringwall/ringwall.yaml /root/; echo 'polcy: {}' >>/etc/ringwall/ringwall.yaml")
	m.says("systemctl reload ringwall", 1)
	m.unanswered(first)
	m.scanUntilBanned(second)
	m.run("cp /root/ringwall.yaml /etc/ringwall/ringwall.yaml; systemctl reload ringwall")
	if os.Getenv("RINGWALL_BOOT_ASTERISK") == "full" {
		m.befalls()
	}
}

// befalls is what befalls a machine with bans: restarts and ends of either, a process that stands still, a full disk, a
// reboot.
func (m *machine) befalls() {
	m.t.Helper()
	m.run("systemctl restart ringwall")
	m.unanswered(first)
	m.hears()
	pid := m.property("MainPID")
	m.run("kill -9 " + pid)
	m.unanswered(first)
	m.until("the service is back", func() bool {
		return m.property("MainPID") != pid && m.property("SubState") == "running"
	})
	m.hears()
	m.run("kill -9 $(systemctl show -p MainPID --value asterisk)")
	m.until("Ringwall misses Asterisk", func() bool {
		return m.metric(`ringwall_ami_up{pbx="127.0.0.1:5038"}`) != "1" ||
			m.metric(`ringwall_ami_reconnects_total{pbx="127.0.0.1:5038"}`) != "0"
	})
	m.asteriskIsUp()
	m.hears()
	m.unanswered(first)
	m.scanUntilBanned(third)

	// systemd's watchdog ends a process that stands still. Nobody is let in for that.
	m.restartWithWatchdog()
	m.hears()
	pid = m.property("MainPID")
	m.run("kill -STOP " + pid)
	m.until("the watchdog has another one started", func() bool {
		m.unanswered(first)
		return m.property("MainPID") != pid && m.property("SubState") == "running"
	})
	m.run("journalctl -u ringwall -o cat | grep -q 'Watchdog timeout'")
	m.hears()

	// A full disk: what happens is not saved, and bans go on.
	m.run(`systemctl stop ringwall; cp -a /var/lib/ringwall /root/state
		mount -t tmpfs -o size=2m tmpfs /var/lib/ringwall; cp -a /root/state/. /var/lib/ringwall/
		chown ringwall: /var/lib/ringwall; systemctl start ringwall`)
	m.hears()
	m.run("head -c 4M /dev/zero >/var/lib/ringwall/full || true")
	m.scanUntilBanned(fourth)
	m.until("status says so", func() bool {
		out, _ := m.try("ringwall status")
		return strings.Contains(out, "no space left")
	})
	m.unanswered(first)
	m.run("rm /var/lib/ringwall/full")
	m.until("all is well", func() bool {
		out, code := m.try("ringwall status")
		return code == 0 && strings.Contains(out, "attackers are banned")
	})
	m.run("systemctl stop ringwall; cp -a /var/lib/ringwall/. /root/state/; umount /var/lib/ringwall; " +
		"cp -a /root/state/. /var/lib/ringwall/; systemctl start ringwall")

	// After a reboot the bans are in the kernel before Asterisk hears anybody.
	m.run("systemctl disable asterisk")
	m.reboot(nil)
	m.until("the bans are back", func() bool {
		return m.inSet(first) && m.inSet(second) && m.inSet(third) && m.inSet(fourth)
	})
	m.says("systemctl is-active asterisk", 3, "inactive")
	m.says("ringwall doctor", 1, "127.0.0.1:5038")
	m.run("systemctl start asterisk")
	m.asteriskIsUp()
	m.unanswered(first)
	m.unanswered(fourth)
	m.hears()
	m.says("ringwall doctor", 0, "It works")
}
