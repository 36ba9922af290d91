package doctor

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/nftrace"
)

func TestSensorsAreLookedAt(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, r := range []struct {
		name   string
		sensor api.Sensor
		result Result
		detail string
		fix    string
	}{
		{"off", api.Sensor{Name: "tap", Off: true}, Warn, "off: what Asterisk sends no event of is not seen", "sensors.tap: auto"},
		{"another has the group", api.Sensor{Name: "tap", Error: "another program reads it\x1b[2J"}, Warn,
			`another program reads it\x1b[2J`, "sensors.tap_group"},
		{"quiet", api.Sensor{Name: "tap", Alive: true}, OK, "has seen no packet of a stranger yet", ""},
		{"at work", api.Sensor{Name: "tap", Alive: true, Heard: 12, LastHeard: &at}, OK, "12 packets of strangers", ""},
		{"too slow", api.Sensor{Name: "tap", Alive: true, Heard: 12, Lost: 3, LastHeard: &at}, Warn, "no room for 3 packets of 15",
			"more CPU"},
		{"no copies asked for", api.Sensor{Name: "hep", Off: true}, OK, "off", ""},
		{"the port is taken", api.Sensor{Name: "hep", Error: "address already in use"}, Fail, "address already in use", "ss -lunp"},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			e := asking(t, told{})
			e.daemon = &api.Status{Sensors: []api.Sensor{r.sensor}}
			e.examineSensors(t.Context())
			if len(e.checks) != 1 {
				t.Fatalf("%+v", e.checks)
			}
			c := e.checks[0]
			if c.Name != r.sensor.Name || c.Result != r.result || !strings.Contains(c.Detail, r.detail) || !strings.Contains(c.Fix, r.fix) {
				t.Errorf("%+v", c)
			}
		})
	}
}

// hearing is a daemon whose sensor of copies hears one each time that it is asked, or none.
type hearing struct {
	told
	copies *atomic.Uint64
	more   bool
}

func (h hearing) Status(context.Context) (api.Status, error) {
	if h.more {
		h.copies.Add(1)
	}
	return api.Status{Sensors: []api.Sensor{{Name: "hep", Alive: true, Heard: h.copies.Load()}}}, nil
}

func TestCopiesOfMessagesAreAskedFor(t *testing.T) {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for _, more := range []bool{true, false} {
		e := asking(t, hearing{copies: new(atomic.Uint64), more: more})
		e.cfg.Sensors.HEP.Listen = "127.0.0.1:9061"
		e.daemon = &api.Status{Sensors: []api.Sensor{{Name: "hep", Alive: true}}, Ports: api.PortsStatus{
			Found: []api.FoundPort{{Protocol: "udp", Port: uint16(socket.LocalAddr().(*net.UDPAddr).Port)}}}}
		e.client = &api.Client{Socket: e.cfg.Control.Socket}
		e.examineSensors(t.Context())
		c := e.checks[0]
		if more && (c.Result != OK || c.Detail != "Asterisk's copies of messages arrive") {
			t.Errorf("%+v", c)
		}
		if !more && (c.Result != Warn || !strings.Contains(c.Fix, "capture_address = 127.0.0.1:9061\n")) {
			t.Errorf("%+v", c)
		}
	}
	if err := socket.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	question := make([]byte, 1000)
	n, _, err := socket.ReadFrom(question)
	if err != nil || !strings.HasPrefix(string(question[:n]), "OPTIONS sip:ringwall-doctor@127.0.0.1 SIP/2.0\r\n") {
		t.Errorf("%q, %v", question[:n], err)
	}
}

func TestOnlyUDPIsAsked(t *testing.T) {
	if err := askOptions(t.Context(), []nftrace.Port{{Protocol: unix.IPPROTO_TCP, Number: 1}}); err != nil {
		t.Error(err)
	}
}
