package firewall

import (
	"slices"
	"testing"
	"time"
)

// A server beside the usual ports is reached by the banned until its port is known.
func TestPortsCanBeAddedToATableInUse(t *testing.T) {
	w := newWire(t, nil)
	for _, src := range []string{"10.99.0.66", "fd99::66"} {
		apply(t, w.fw, ban(src, time.Hour))
	}
	apply(t, w.fw, ban("10.99.7.0/24", time.Hour))
	if !w.reaches(t, "10.99.0.66", 5080) || w.reaches(t, "10.99.0.66", 5060) {
		t.Fatal("port 5080 is closed already, or 5060 is not")
	}
	dropped := w.dropped(t)
	if err := w.fw.SetPorts([]uint16{5060, 5080}, []uint16{5060, 5080}); err != nil {
		t.Fatal(err)
	}
	if err := w.fw.VerifyTable(); err != nil {
		t.Errorf("Verify: %v", err)
	}
	if got := w.dropped(t); got != dropped {
		t.Errorf("%d packets were dropped before, and %d now", dropped, got)
	}
	for _, src := range []string{"10.99.0.66", "fd99::66", "10.99.7.5"} {
		for _, port := range []uint16{5060, 5080} {
			if w.reaches(t, src, port) {
				t.Errorf("%s is banned and reaches port %d", src, port)
			}
		}
		if !w.reaches(t, src, 53) {
			t.Errorf("%s does not reach port 53", src)
		}
	}
	// What is written afterwards is written as ever.
	apply(t, w.fw, unban("10.99.0.66"))
	if !w.reaches(t, "10.99.0.66", 5080) {
		t.Error("an unbanned source does not reach port 5080")
	}
}

// While the ports change, again and again, the banned do not get through where they did not before.
func TestNoPacketGetsThroughWhileThePortsChange(t *testing.T) {
	w := newWire(t, nil)
	w.keepsOut(t, func() {
		for i := range 100 {
			if err := w.fw.SetPorts([]uint16{5060, 5080 + uint16(i)}, []uint16{5060}); err != nil {
				t.Error(err)
				break
			}
		}
	})
}

// The ports of a process that has ended are read from its table, so that the next one need not learn them again.
func TestPortsOfATableThatIsThere(t *testing.T) {
	cfg := testConfig(newSpace(t))
	fresh := openTable(t, cfg)
	if udp, tcp, err := fresh.ClosedPorts(); err != nil || udp != nil || tcp != nil {
		t.Errorf("without a table: %v, %v, %v", udp, tcp, err)
	}
	ensure(t, fresh, Created)
	if err := fresh.SetPorts([]uint16{5080, 5060}, []uint16{5061}); err != nil {
		t.Fatal(err)
	}
	if err := fresh.Close(); err != nil {
		t.Fatal(err)
	}
	udp, tcp, err := openTable(t, cfg).ClosedPorts()
	if err != nil || !slices.Equal(udp, []uint16{5060, 5080}) || !slices.Equal(tcp, []uint16{5061}) {
		t.Errorf("%v, %v, %v", udp, tcp, err)
	}
}

func TestPortsOfATableThatIsEnsuredLater(t *testing.T) {
	fw := openTable(t, testConfig(newSpace(t)))
	if err := fw.SetPorts([]uint16{5080}, []uint16{5080}); err != nil {
		t.Fatal(err)
	}
	ensure(t, fw, Created)
	if udp, tcp, err := fw.ClosedPorts(); err != nil || !slices.Equal(udp, []uint16{5080}) ||
		!slices.Equal(tcp, []uint16{5080}) {
		t.Errorf("%v, %v, %v", udp, tcp, err)
	}
}
