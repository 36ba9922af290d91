package doctor

import (
	"context"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/nftrace"
	"github.com/ringwall/ringwall/pkg/printable"
)

// Names of the checks of sensors.
const (
	checkTap = "tap"
	checkHEP = "hep"
)

// How long, and how often, a copy of a message is waited for.
const (
	copyTries = 8
	copyPause = 250 * time.Millisecond
)

// examineSensors looks at the senses besides Asterisk's events.
func (e *exam) examineSensors(ctx context.Context) {
	s := e.subjectNamed("")
	if e.daemon == nil {
		s.skipAll("no daemon runs here", checkTap, checkHEP)
		return
	}
	for _, sensor := range e.daemon.Sensors {
		switch sensor.Name {
		case checkTap:
			e.examineTap(s, sensor)
		case checkHEP:
			e.examineHEP(ctx, s, sensor)
		}
	}
}

func (e *exam) examineTap(s subject, tap api.Sensor) {
	switch {
	case tap.Off && e.cfg.Fleet.Enabled() && len(e.cfg.Asterisk) == 0:
		s.ok(checkTap, "off: there is no Asterisk here whose packets to look at")
	case tap.Off:
		s.warn(checkTap, "sensors.tap: auto",
			"off: what Asterisk sends no event of is not seen, such as guesses with a strange byte in the Call-ID")
	case !tap.Alive:
		s.warn(checkTap, "a group that no other program has: sensors.tap_group; on an old kernel: modprobe "+
			"nfnetlink_log",
			"does not work, so that what Asterisk sends no event of is not seen: %s", printable.Line(tap.Error))
	case tap.Lost > 0:
		s.warn(checkTap, "more CPU for ringwall", "works, and had no room for %s of %d", humanize.Plural(int(tap.Lost),
			"packet",
			"packets"), tap.Heard+tap.Lost)
	case tap.LastHeard == nil:
		s.ok(checkTap, "works, and has seen no packet of a stranger yet")
	default:
		s.ok(checkTap, "has seen %s of strangers, the last at %s", humanize.Plural(int(tap.Heard), "packet", "packets"),
			tap.LastHeard.Format("15:04:05 MST"))
	}
}

// examineHEP proves that Asterisk's copies arrive, by a question to it that is copied, too.
func (e *exam) examineHEP(ctx context.Context, s subject, hep api.Sensor) {
	switch {
	case hep.Off:
		s.ok(checkHEP, "off: over TLS and WSS only what Asterisk's events tell is seen (sensors.hep.listen turns it "+
			"on)")
		return
	case !hep.Alive:
		s.fail(checkHEP, "ss -lunp shows who has the port; another in sensors.hep.listen and in hep.conf",
			"nobody hears Asterisk's copies of messages: %s", printable.Line(hep.Error))
		return
	}
	heard, asked := hep.Heard, false
	for try := 0; heard == hep.Heard && try < copyTries; try++ {
		if try == 0 {
			asked = askOptions(ctx, e.sipPorts()) == nil
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(copyPause):
		}
		if st, err := e.client.Status(ctx); err == nil {
			for _, now := range st.Sensors {
				if now.Name == checkHEP {
					heard = now.Heard
				}
			}
		}
	}
	switch {
	case heard > hep.Heard:
		s.ok(checkHEP, "Asterisk's copies of messages arrive")
	case asked && hep.Heard == 0:
		s.warn(checkHEP, hepConf(e.cfg.Sensors.HEP.Listen, e.cfg.Sensors.HEP.PasswordFile),
			"Asterisk has sent no copy of a message, not even of a question to it just now")
	case asked:
		s.warn(checkHEP, hepConf(e.cfg.Sensors.HEP.Listen, e.cfg.Sensors.HEP.PasswordFile),
			"Asterisk sends copies of messages no more: none of a question to it just now")
	default:
		s.warn(checkHEP, "ringwall doctor again, on the machine of Asterisk", "%s heard so far; whether they still "+
			"come could not be tried", humanize.Plural(int(hep.Heard), "copy", "copies"))
	}
}

// hepConf is what Asterisk needs to send copies.
func hepConf(listen, passwordFile string) string {
	password := ""
	if passwordFile != "" {
		password = "capture_password = (what " + passwordFile + " holds)\n"
	}
	return "in /etc/asterisk/hep.conf:\n[general]\nenabled = yes\ncapture_address = " + listen + "\ncapture_id = " +
		"1\n" + password +
		"uuid_type = call-id\nthen: asterisk -rx 'module reload res_hep.so'; asterisk -rx 'module load " +
		"res_hep_pjsip.so'"
}

// askOptions sends a SIP request that every Asterisk answers to each of some UDP ports of this machine.
func askOptions(ctx context.Context, ports []nftrace.Port) error {
	var dialer net.Dialer
	for _, port := range ports {
		if port.Protocol != unix.IPPROTO_UDP {
			continue
		}
		conn, err := dialer.DialContext(ctx, "udp", fmt.Sprintf("127.0.0.1:%d", port.Number))
		if err != nil {
			return err
		}
		at := conn.LocalAddr()
		_, err = fmt.Fprintf(conn, "OPTIONS sip:ringwall-doctor@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP "+
			"%s;branch=z9hG4bK%x;rport\r\nMax-Forwards: 1\r\nFrom: <sip:ringwall-doctor@127.0.0.1>;tag=%x\r\nTo: "+
			"<sip:ringwall-doctor@127.0.0.1>\r\nCall-ID: ringwall-doctor-%x\r\nCSeq: 1 OPTIONS\r\nContent-Length: "+
			"0\r\n\r\n",
			at, time.Now().UnixNano(), port.Number, time.Now().UnixNano())
		_ = conn.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
