package packages

import (
	"strings"
	"testing"
)

// testRPM uses Debian's rpm, which knows no packages of Debian: what ringwall depends on is there, but not in its
// books.
func testRPM(t *testing.T, d *debian) {
	const rpm = "rpm --force-debian --nodeps "
	d.wantOutput(t, "rpm -K --nosignature /mnt/new.rpm", "/mnt/new.rpm: digests OK")
	checkInstalled(t, d, d.runScript(t, rpm+"-i /mnt/old.rpm </dev/null"))
	d.wantOutput(t, "readlink -f /etc/systemd/system/multi-user.target.wants/ringwall.service",
		"/usr/lib/systemd/system/ringwall.service")
	d.runScript(t, "rpm -qd ringwall | grep -q /README.md; rpm -qL ringwall | grep -q /licences.txt")
	d.runScript(t, `sed -i 's/mode: observe/mode: enforce/' /etc/ringwall/ringwall.yaml`)
	kept := "id -u ringwall; cat /etc/ringwall/ringwall.yaml /etc/ringwall/ami-secret; stat -c '%a %U:%G' " +
		"/etc/ringwall/*[!w]"
	was := d.runScript(t, kept)
	if said := d.runScript(t, rpm+"-U /mnt/new.rpm </dev/null"); strings.Contains(said, "manager reload") {
		t.Errorf("an upgrade welcomes as if it were new:\n%s", said)
	}
	d.wantOutput(t, "rpm -q --qf '%{VERSION}' ringwall", newVersion)
	d.runScript(t, "test -s /etc/ringwall/ringwall.yaml.rpmnew; rm /etc/ringwall/ringwall.yaml.rpmnew")
	d.wantOutput(t, kept, was)
	stop := d.startDaemon(t)
	d.runScript(t, table+" >/dev/null")
	stop()
	d.runScript(t, rpm+"-e ringwall; ! "+table+" 2>/dev/null; ! test -e /usr/bin/ringwall; test -s "+
		"/etc/ringwall/ringwall.yaml.rpmsave; test -s /var/lib/ringwall/state.db")
	d.runScript(t, "! test -L /etc/systemd/system/multi-user.target.wants/ringwall.service")
}
