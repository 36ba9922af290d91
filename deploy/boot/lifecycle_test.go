package boot

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// copyIn puts a file of this machine into the booted one.
func (m *machine) copyIn(from, to string) {
	m.t.Helper()
	f, err := os.Open(from)
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	cmd := m.command("cat >" + to)
	cmd.Stdin = f
	if out, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("copy %s: %v\n%s", from, err, out)
	}
}

// TestAPackageComesAndGoes upgrades, downgrades, removes, installs again and purges the package. While one version is
// exchanged for another, no packet of the banned gets through.
//
// The versions differ in their number alone. With RINGWALL_BOOT_OLD=FILE.deb the older one is that package, so that the
// files of a release are read by the program of today, and its own by the release:
//
//	RINGWALL_BOOT_OLD=/tmp/ringwall_1.2.3_amd64.deb go -C deploy test -run APackageComesAndGoes ./boot
func TestAPackageComesAndGoes(t *testing.T) {
	m := newMachine(t, enforce)
	older := os.Getenv("RINGWALL_BOOT_OLD")
	if older == "" {
		var err error
		if older, err = built(); err != nil {
			t.Fatal(err)
		}
	}
	host, err := exec.Command("go", "env", "GOHOSTARCH").Output()
	if err != nil {
		t.Fatal(err)
	}
	newer, err := buildPackage("1.1.0", strings.TrimSpace(string(host)))
	if err != nil {
		t.Fatal(err)
	}
	m.copyIn(older, "/root/older.deb")
	m.copyIn(newer, "/root/newer.deb")
	oldVersion := m.run("dpkg-deb -f /root/older.deb Version")
	m.run("ringwall allow add " + good)
	m.ban(first)
	m.run("echo '# by hand' >>/etc/ringwall/ringwall.yaml")

	exchange := func(deb, version string) {
		t.Helper()
		through, _ := m.probe(func() {
			m.run("dpkg --force-confold -i /root/" + deb)
			m.heard()
		})
		if through > 0 {
			t.Errorf("while %s was installed the banned came through for %s", deb, through)
		}
		m.until(version+" runs", func() bool {
			out, _ := m.try("ringwall status")
			return strings.Contains(out, version)
		})
		m.keptOut(first)
		m.letIn(good)
		m.says("ringwall list allow", 0, good)
		m.says("ringwall doctor", 0, "It works")
		m.says("tail -n 1 /etc/ringwall/ringwall.yaml", 0, "# by hand")
	}
	if oldVersion != "1.0.0" {
		exchange("older.deb", oldVersion)
	}
	exchange("newer.deb", "1.1.0")
	exchange("older.deb", oldVersion)

	// A removal lets everybody in, and leaves what somebody wrote and what was learned.
	m.run("dpkg -r ringwall")
	m.letIn(first)
	m.says("nft list table inet ringwall", 1)
	m.says("test -s /etc/ringwall/ringwall.yaml && test -s /var/lib/ringwall/state.db && ! test -e /usr/bin/ringwall", 0)
	m.says("dpkg --force-confold -i /root/newer.deb", 0, "systemctl start ringwall")
	m.run("systemctl start ringwall")
	m.heard()
	m.until("the ban is back", func() bool { return m.inSet(first) })
	m.keptOut(first)
	m.letIn(good)

	// A purge leaves nothing, whether the service runs or not.
	m.run("dpkg -P ringwall")
	m.letIn(first)
	m.says("nft list table inet ringwall", 1)
	m.says("ls -d /etc/ringwall /var/lib/ringwall /run/ringwall /usr/bin/ringwall /lib/systemd/system/ringwall.service "+
		"2>/dev/null", 2)
	m.says("getent passwd ringwall; getent group ringwall", 2)
	if left := m.run("find / -xdev -name '*ringwall*' -not -path '/proc/*' -not -path '/var/log/journal/*'"); left != "" {
		t.Errorf("a purge leaves\n%s", left)
	}

	// And it can be installed as if it had never been there.
	m.says("dpkg -i /root/newer.deb", 0, "Ringwall is installed", "systemctl start ringwall")
	m.write("/etc/ringwall/ami-secret", secret+"\n")
	m.configure(enforce)
	m.run("systemctl start ringwall")
	m.heard()
	m.letIn(first)
	m.ban(second)
	m.says("ringwall doctor", 0, "It works")
}

// TestEtcThatCanOnlyBeRead is a machine whose root is read-only but for its data, as appliances have it.
func TestEtcThatCanOnlyBeRead(t *testing.T) {
	m := newMachine(t, enforce)
	m.run("mount --bind /etc /etc && mount -o remount,bind,ro /etc && ! touch /etc/ringwall/x")
	m.run("systemctl restart ringwall")
	m.heard()
	m.ban(first)
	m.run("ringwall allow add " + good)
	m.run("systemctl reload ringwall")
	m.says("ringwall doctor", 0, "It works")
	m.says("ringwall check", 0)
	pid := m.property("MainPID")
	m.run("kill -9 " + pid)
	m.another(pid)
	m.keptOut(first)
	m.letIn(good)
	m.says("ringwall list allow", 0, good)
}

// TestTheServiceIsShutIn asks systemd how much of the machine whoever breaks into the daemon would have: 0.0 is
// nothing, 10.0 everything, and a service without settings has 9.6.
func TestTheServiceIsShutIn(t *testing.T) {
	const most = "20" // tenths
	m := newMachine(t, enforce)
	m.says("systemd-analyze security --no-pager --threshold="+most+" ringwall.service", 0)
	t.Log(m.run("systemd-analyze security --no-pager ringwall.service | tail -n 1"))

	// So is the hub of a fleet, which strangers reach; shut in it works all the same, also after a restart.
	m.says("systemd-analyze security --no-pager --threshold="+most+" ringwall-hub.service", 0)
	m.run("echo 'HUB_OPTIONS=--name acme --listen 127.0.0.1:4222' >/etc/ringwall/hub.env; systemctl enable --now ringwall-hub")
	const patient = "for i in $(seq 60); do %s && exit 0; sleep 1; done; exit 1"
	m.says(fmt.Sprintf(patient, "test -s /var/lib/ringwall-hub/nodes.json"), 0)
	join := strings.TrimSpace(m.run("ringwall hub invite pbx-1 --address 127.0.0.1:4222")) + " --config /tmp/ringwall.yaml"
	m.says(fmt.Sprintf(patient, join), 0, "The hub lets pbx-1 in")
	m.run("systemctl restart ringwall-hub")
	m.says(fmt.Sprintf(patient, join), 0, "The hub lets pbx-1 in")
	m.says("ringwall hub revoke pbx-1", 0, "pbx-1 is out")
	m.says("ringwall hub forget pbx-1", 0, "What pbx-1 said is void")
}
