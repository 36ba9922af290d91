package boot

import (
	"strings"
	"testing"
)

const enforce = "policy: {mode: enforce}\n"

// Addresses of attackers.
const (
	first  = "10.88.0.30"
	second = "10.88.0.31"
	third  = "10.88.0.32"
	fourth = "10.88.0.33"
)

// restartWithWatchdog restarts the service, which systemd ends from then on after three seconds without a sign of life.
func (m *machine) restartWithWatchdog() {
	m.t.Helper()
	m.run(`mkdir -p /etc/systemd/system/ringwall.service.d
		printf '[Service]\nWatchdogSec=3\n' >/etc/systemd/system/ringwall.service.d/watchdog.conf
		systemctl daemon-reload && systemctl restart ringwall`)
}

// property is what systemd says of the service.
func (m *machine) property(name string) string {
	m.t.Helper()
	return m.run("systemctl show -p " + name + " --value ringwall")
}

// another waits until the service runs as another process.
func (m *machine) another(pid string) {
	m.t.Helper()
	m.until("the service is back", func() bool {
		now := m.property("MainPID")
		return now != pid && now != "0" && m.property("SubState") == "running"
	})
	m.heard()
}

// TestAServiceIsReadyWatchedAndBackAfterAReboot crashes it, hangs it and takes its machine away.
func TestAServiceIsReadyWatchedAndBackAfterAReboot(t *testing.T) {
	m := newMachine(t, enforce)
	// systemd calls a unit of type notify active when it has said READY=1, and shows its STATUS=.
	m.says("systemctl show -p ActiveState -p Type -p WatchdogUSec -p StatusText ringwall", 0,
		"Type=notify", "ActiveState=active", "WatchdogUSec=30s", "StatusText=")
	m.ban(first)
	m.letIn(neutral)
	m.says("ringwall status", 0, "attackers are banned", "1 ban in force")
	m.says("ringwall doctor", 0, "It works")

	pid := m.property("MainPID")
	m.run("kill -9 " + pid)
	m.keptOut(first)
	m.another(pid)
	m.keptOut(first)

	m.restartWithWatchdog()
	m.heard()
	pid = m.property("MainPID")
	m.run("kill -STOP " + pid)
	m.keptOut(first)
	m.says("timeout 2 ringwall status", 124)
	m.another(pid)
	if out := m.run("journalctl -u ringwall -o cat"); !strings.Contains(out, "Watchdog timeout") {
		t.Errorf("systemd's watchdog did not end it:\n%s", out)
	}
	m.keptOut(first)
	m.run("rm /etc/systemd/system/ringwall.service.d/watchdog.conf; systemctl daemon-reload")

	// After a reboot bans are in the kernel although Asterisk is not there yet.
	m.reboot(m.stopAMI)
	m.until("the ban is back", func() bool { return m.inSet(first) })
	m.keptOut(first)
	m.letIn(neutral)
	m.says("ringwall status", 0, "NOT WELL", "127.0.0.1:5038")
	m.says("ringwall doctor", 1, "127.0.0.1:5038")
	m.startAMI()
	m.heard()
	m.ban(second)
}

// TestBansCloseThePortThatAsteriskHas has SIP at 5080, with the ports of the default and with others.
func TestBansCloseThePortThatAsteriskHas(t *testing.T) {
	m := newMachine(t, enforce)
	m.attackAt(first, 5080)
	m.until("5080 is closed to the banned", func() bool { return !m.arrives(first, 5080) })
	m.keptOut(first)
	m.says("ringwall status", 0, "attackers are banned", "5080")

	// What was found is known after a reboot, before Asterisk tells anything.
	m.reboot(m.stopAMI)
	m.until("the ban is back", func() bool { return m.inSet(first) })
	if m.arrives(first, 5080) {
		t.Error("after a reboot 5080 is open to the banned")
	}
	m.startAMI()

	m.configure(enforce + "firewall: {ports: {udp: [5060], tcp: [5060]}}\n")
	m.run("systemctl reload ringwall")
	m.heard()
	m.until("only 5060 is closed", func() bool { return m.arrives(first, 5080) })
	m.keptOut(first)
	m.until("status says that Asterisk still hears it", func() bool {
		m.attackAt(first, 5080)
		out, _ := m.try("ringwall status")
		return strings.Contains(out, "got through to Asterisk") && strings.Contains(out, "NOT WELL")
	})
	m.says("ringwall status", 0, "UDP 5080", "ports: {udp: [5060, 5080]")
	m.says("ringwall doctor", 1, "5080")
	if leaks := m.metric("ringwall_leaking_sources"); leaks != "1" {
		t.Errorf("ringwall_leaking_sources %q; want 1:\n%s", leaks, m.get("/metrics"))
	}
}

// TestATakenPortCostsTheMetricsAlone has somebody else listen where the metrics should be.
func TestATakenPortCostsTheMetricsAlone(t *testing.T) {
	m := newMachine(t, enforce)
	m.run("systemctl stop ringwall")
	taken, err := m.server.Listen(t.Context(), "tcp", "127.0.0.1:9646")
	if err != nil {
		t.Fatal(err)
	}
	m.run("systemctl start ringwall")
	m.heard()
	m.ban(first)
	m.letIn(neutral)
	m.says("systemctl status ringwall", 0, "active (running)", "does not work: metrics.listen")
	m.says("ringwall status", 0, "attackers are banned", "metrics.listen does not work", "9646")
	m.says("ringwall doctor", 0, "metrics.listen does not work")
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	m.until("the metrics are there", func() bool { return m.metric("ringwall_trusted_sources") != "" })
	m.until("status is content", func() bool {
		out, _ := m.try("ringwall status")
		return !strings.Contains(out, "metrics.listen")
	})
}

// TestFilesThatOnlyRootReads come out of a backup.
func TestFilesThatOnlyRootReads(t *testing.T) {
	m := newMachine(t, enforce)
	m.ban(first)
	m.run("chown root:root /etc/ringwall/ringwall.yaml && chmod 0640 /etc/ringwall/ringwall.yaml")
	m.says("ringwall check", 1, "user ringwall", "chgrp ringwall /etc/ringwall/ringwall.yaml")
	m.says("ringwall doctor", 1, "user ringwall")
	m.says("systemctl reload ringwall", 1)
	m.keptOut(first)
	again := func(next string) {
		t.Helper()
		m.heard()
		m.keptOut(first)
		m.ban(next)
		m.says("ringwall status", 0, "NOT WELL", "the last accepted one", "ringwall.yaml")
		m.says("ringwall doctor", 1, "the last accepted one")
		m.says("systemctl status ringwall", 0, "active (running)")
	}
	m.run("systemctl restart ringwall")
	again(second)
	m.reboot(nil)
	again(third)
	m.run("chown root:ringwall /etc/ringwall/ringwall.yaml && systemctl reload ringwall")
	m.says("ringwall check", 0)
	m.says("ringwall status", 0, "attackers are banned")
	m.says("ringwall doctor", 0, "It works")

	// Without the secret there is no login; what was banned is.
	m.run("chown root:root /etc/ringwall/ami-secret && chmod 0640 /etc/ringwall/ami-secret")
	m.says("ringwall check", 1, "user ringwall", "ami-secret")
	m.says("systemctl reload ringwall", 1)
	m.reboot(nil)
	m.until("bans are back", func() bool { return m.inSet(first) && m.inSet(second) && m.inSet(third) })
	m.keptOut(first, second, third)
	m.says("ringwall status", 0, "NOT WELL", "ami-secret")
	m.says("ringwall doctor", 1, "ami-secret")
	m.run("chown root:ringwall /etc/ringwall/ami-secret && systemctl reload ringwall")
	m.heard()
	m.says("ringwall doctor", 0, "It works")

	// A mistake is refused at the reload, and a start takes what was accepted last.
	m.configure("polcy: {mode: enforce}\n")
	m.says("systemctl reload ringwall", 1)
	m.run("systemctl restart ringwall")
	again(fourth)

	// The state file: what happens is not saved, and nobody is left alone for that.
	m.configure(enforce)
	m.run("systemctl stop ringwall; chown root:root /var/lib/ringwall/*.db; chmod 0640 /var/lib/ringwall/*.db")
	m.says("ringwall doctor", 1, "user ringwall", "chown")
	m.run("systemctl start ringwall")
	m.heard()
	m.says("ringwall status", 0, "state")
	m.attack("10.88.0.34")
	m.until("somebody else is banned", func() bool { return m.inSet("10.88.0.34") })
	m.keptOut("10.88.0.34")
}

// TestNamesOfTheAllowListOutliveAReboot has a provider whose name nobody resolves any more after a boot.
func TestNamesOfTheAllowListOutliveAReboot(t *testing.T) {
	m := newMachine(t, enforce)
	m.run("echo '" + provider + " sip.provider.example' >>/etc/hosts")
	m.configure("policy: {mode: enforce, allow: [sip.provider.example]}\n")
	m.run("systemctl reload ringwall")
	m.until("the name is resolved", func() bool {
		out, _ := m.try("ringwall list allow")
		return strings.Contains(out, provider)
	})
	m.run("printf '127.0.0.1 localhost\\n' >/etc/hosts; echo nameserver " + neutral + " >/etc/resolv.conf")
	m.reboot(nil)
	m.heard()
	m.attack(provider)
	m.ban(first) // by then the provider's events are judged
	m.letIn(provider)
	if m.inSet(provider) {
		t.Error("the provider is banned")
	}
	m.says("ringwall list allow", 0, provider, "sip.provider.example")
	m.says("ringwall status", 0, "sip.provider.example")
}

// TestDoctorLooksForADaemon stops the service, and has it fail.
func TestDoctorLooksForADaemon(t *testing.T) {
	m := newMachine(t, enforce)
	m.ban(first)
	m.says("ringwall doctor", 0, "It works")
	for state, script := range map[string]string{
		"stopped": "systemctl stop ringwall",
		"failed": `systemctl stop ringwall
			mkdir -p /run/systemd/system/ringwall.service.d
			printf '[Service]\nExecStartPre=/bin/false\nRestart=no\n' >/run/systemd/system/ringwall.service.d/fail.conf
			systemctl daemon-reload; ! systemctl start ringwall
			rm /run/systemd/system/ringwall.service.d/fail.conf; systemctl daemon-reload; systemctl is-failed ringwall`,
	} {
		m.run(script)
		m.keptOut(first)
		out, code := m.try("ringwall doctor")
		if code == 0 || strings.Contains(out, "It works") || strings.Contains(out, "nobody is banned") {
			t.Errorf("%s: exit %d\n%s", state, code, out)
		}
		m.says("ringwall doctor", 1, "does not run", "1 ban")
		m.says("ringwall status", 1, "stay in the kernel", "nft delete table inet ringwall")
		m.run("systemctl start ringwall")
		m.heard()
	}
}

// TestObserveLeavesTheBansThatThereAre reloads into observe and back.
func TestObserveLeavesTheBansThatThereAre(t *testing.T) {
	m := newMachine(t, enforce)
	m.ban(first)
	m.configure("policy: {mode: observe}\n")
	m.run("systemctl reload ringwall")
	m.says("ringwall status", 0, "observing only: nobody more is banned", "1 ban in force")
	m.keptOut(first)
	m.attack(second)
	m.until("it is observed", func() bool {
		out, _ := m.try("ringwall history")
		return strings.Contains(out, second)
	})
	m.letIn(second)
	m.run("systemctl restart ringwall")
	m.heard()
	m.keptOut(first)
	m.configure(enforce)
	m.run("systemctl reload ringwall")
	m.keptOut(first)
	m.ban(third)
}

// TestAReloadChangesTheFirewall closes a port more, and then each.
func TestAReloadChangesTheFirewall(t *testing.T) {
	m := newMachine(t, enforce+"firewall: {ports: {udp: [5080], tcp: [5061]}}\n")
	m.attack(first)
	m.until("it is banned", func() bool { return m.inSet(first) })
	m.letIn(first)
	pid := m.property("MainPID")
	m.configure(enforce + "firewall: {ports: {udp: [5060, 5080], tcp: [5061]}}\n")
	m.run("systemctl reload ringwall")
	m.until("the port is closed to it", func() bool { return !m.arrives(first, 5060) })
	const unlisted = 5070
	m.listen(unlisted)
	if !m.arrives(first, unlisted) {
		t.Error("a port is closed that nobody named")
	}
	m.configure(enforce + "firewall: {ports: {udp: [5080], tcp: [5061]}, scope: all}\n")
	m.run("systemctl reload ringwall")
	m.until("each port is closed", func() bool { return !m.arrives(first, unlisted) })
	m.keptOut(first)
	m.letIn(neutral)

	// What needs a restart is said at the reload and in status.
	m.configure(enforce + "firewall: {table: elsewhere}\n")
	m.run("systemctl reload ringwall")
	m.until("status names the key", func() bool {
		out, _ := m.try("ringwall status")
		return strings.Contains(out, "firewall.table") && strings.Contains(out, "restart")
	})
	m.keptOut(first)
	if now := m.property("MainPID"); now != pid {
		t.Errorf("the reload restarted it: %s, before %s", now, pid)
	}
}

// TestPanicLetsEverybodyIn with a daemon, without one, and until the next boot.
func TestPanicLetsEverybodyIn(t *testing.T) {
	m := newMachine(t, enforce)
	m.ban(first)
	m.says("ringwall panic", 0, "nobody is kept out")
	m.letIn(first)
	m.run("sleep 3") // longer than RestartSec: nothing brings the table back
	m.letIn(first)
	m.says("systemctl is-active ringwall", 3, "inactive")
	m.says("ringwall status", 1, "nor is its table in the kernel: nobody is kept out")
	m.run("systemctl start ringwall")
	m.heard()
	m.until("the ban is back", func() bool { return m.inSet(first) })
	m.keptOut(first)
	m.run("systemctl stop ringwall")
	m.keptOut(first)
	m.says("ringwall panic", 0, "nobody is kept out")
	m.letIn(first)
	m.reboot(nil)
	m.until("the next boot has the ban back", func() bool { return m.inSet(first) })
	m.keptOut(first)
}

// TestACorruptStateFileKeepsTheAllowList writes rubbish over the state file.
func TestACorruptStateFileKeepsTheAllowList(t *testing.T) {
	m := newMachine(t, enforce)
	m.run("ringwall allow add " + good)
	m.run("systemctl stop ringwall; head -c 100000 /dev/urandom | tee /var/lib/ringwall/*.db >/dev/null")
	m.run("systemctl start ringwall")
	m.heard()
	m.says("ringwall list allow", 0, good)
	m.says("ringwall status", 0, "state file")
	m.attack(good)
	m.ban(first)
	m.letIn(good)
}
