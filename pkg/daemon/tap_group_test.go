package daemon

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/pkg/nflog"
)

// copying says whether the kernel copies packets.
func (r *rig) copying() bool {
	r.t.Helper()
	out, err := r.space.Run(exec.Command("nft", "list", "table", "inet", r.cfg.Firewall.Table))
	if err != nil {
		r.t.Fatalf("%v\n%s", err, out)
	}
	return strings.Contains(out, "log prefix")
}

// Another program reads the group of the tap: not one packet is copied to it, attackers are banned, status says what is
// missing, and when the group is free there is a tap. A daemon that ends leaves no copies behind.
func TestAGroupOfAnotherProgram(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if !r.copying() || !r.status().Sensors[0].Alive {
		t.Error("there is no tap")
	}
	r.stop()
	if r.copying() {
		t.Error("nobody reads, and packets are copied")
	}
	other, err := nflog.Open(nflog.Config{Group: uint16(r.cfg.Sensors.TapGroup), NetNS: r.space.FD()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	r.start()
	r.protects()
	if r.copying() {
		t.Error("packets are copied to another program")
	}
	if !r.warned("sensors.tap does not work: nflog: another program reads this group: 506") {
		t.Errorf("%+v", r.status().Warnings)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	r.until("there is a tap", func() bool { return r.copying() && !r.warned("sensors.tap") })
}
