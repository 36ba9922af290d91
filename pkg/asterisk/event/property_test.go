package event

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/internal/property"
)

// genText draws what a legitimate or nasty peer can put into a value without leaving it: no control characters.
func genText(t *property.T) string {
	return property.Text(t, []rune(`aZ09 "\:,;=/<>%@-üß用😀`), 40)
}

// genAddress draws an address, and its text as Asterisk prints it.
func genAddress(t *property.T) (Address, string) {
	var a Address
	a.Transport = property.OneOf(t, NoTransport, UDP, TCP, TLS, WS, WSS)
	port := uint16(property.Int(t, 0, 1<<16-1))
	family, zone := "IPV4/", ""
	var ip netip.Addr
	if property.Bool(t) {
		b := property.Bytes(t, 16, 16)
		b[0] |= 1 // not mapped IPv4
		ip, family = netip.AddrFrom16([16]byte(b)), "IPV6/"
		zone = property.OneOf(t, "", "%eth0", "%2")
	} else {
		ip = netip.AddrFrom4([4]byte(property.Bytes(t, 4, 4)))
	}
	a.AddrPort = netip.AddrPortFrom(ip, port)
	text := family
	if a.Transport != NoTransport {
		text += a.Transport.String() + "/"
	}
	return a, fmt.Sprintf("%s%s%s/%d", text, ip, zone, port)
}

// genEvent draws a legal event, and the same as Asterisk holds it.
func genEvent(t *property.T) (Event, wire) {
	names := typeNames[1 : InvalidTransport+1]
	w := wire{name: property.OneOf(t, names...), values: map[string]string{}, leave: map[string]bool{}}
	for _, key := range strings.Fields(specs[w.name]) {
		header := strings.Trim(key, "[]")
		w.leave[header] = header != key && property.Bool(t)
		w.values[header] = genText(t)
	}
	ev := Event{Type: typeOf(w.name)}
	ev.Service = property.OneOf(t, PJSIP, SIP, AMI, IAX2)
	w.values["Service"] = ev.Service.String()
	w.values["Severity"] = property.OneOf(t, "Informational", "Error")
	w.values["EventVersion"] = "2"
	ev.Time = time.UnixMilli(property.Int[int64](t, 0, 4102444800000)).UTC()
	zone := time.FixedZone("", 60*property.Int(t, -720, 840))
	w.values["EventTV"] = ev.Time.In(zone).Format("2006-01-02T15:04:05.000-0700")
	w.values["SessionTV"] = w.values["EventTV"]
	ev.Local, w.values["LocalAddress"] = genAddress(t)
	ev.Remote, w.values["RemoteAddress"] = genAddress(t)
	_, w.values["ExpectedAddress"] = genAddress(t)
	w.values["UsingPassword"] = property.OneOf(t, "0", "1")
	value := func(key string) string {
		if !slices.Contains(w.headers(), key) {
			return ""
		}
		return w.values[key]
	}
	ev.Account, ev.Session, ev.ACLName = value("AccountID"), value("SessionID"), value("ACLName")
	ev.UsingPassword = value("UsingPassword") == "1"
	ev.Challenge, ev.Response = value("Challenge"), value("Response")
	if ev.Type == InvalidPassword {
		ev.Challenge, ev.Response = value("ReceivedChallenge"), value("ReceivedHash")
	}
	ev.Detail = value("RequestType") + value("AuthMethod") + value("AttemptedTransport") + value("ExpectedAddress")
	return ev, w
}

func TestWhatAsteriskPrintsDecodesToTheSameEvent(t *testing.T) {
	property.Check(t, func(t *property.T) {
		want, w := genEvent(t)
		w.preamble = property.OneOf(t, "", "Timestamp: 1795384960.214397\r\n", "SystemName: pbx 1\r\n",
			"SequenceNumber: 1\r\nFile: f.c\r\nLine: 2\r\nFunc: f\r\n")
		var ev Event
		if err := Decode(w.frame(), &ev); err != nil || ev != want {
			t.Fatalf("%q\n got %+v, %v\nwant %+v", w.frame(), ev, err, want)
		}
		if err := DecodeLine(w.line(), &ev); err != nil || ev != want {
			t.Fatalf("%q\n got %+v, %v\nwant %+v", w.line(), ev, err, want)
		}
	})
}

// genHostile draws bytes that mean to steer the decoder: pieces of events, line ends, quotes, anything.
func genHostile(t *property.T, longest int) string {
	pieces := []string{
		"\r\n", "\r\n", "\r", "\n", "\r\n\r\n", `"`, `",`, `="`, ": ", "\x00", "\x1b[0m", "\x1b", "\x1b", "m", "\xff",
		"\u009b",
		"RemoteAddress: IPV4/UDP/8.8.8.8/5", "LocalAddress: IPV4/UDP/8.8.8.8/5", "IPV4/8.8.8.8/5", "SessionID: x",
		"SessionID: ", "LocalAddress: IPV4/1.1.1.1/1", "RemoteAddress: IPV4/8.8.8.8/5", "AccountID: x", "Challenge: ",
		"Module: x", "Event: InvalidAccountID", "Event: F", "Privilege: security,all",
		"EventTV: 2026-11-22T21:48:57.667+0000",
		"Severity: Error", "Service: PJSIP", "EventVersion: 1", "SessionTV: 2026-11-22T21:48:57.667+0000",
		"Response: x",
		"ExpectedResponse: ", "UsingPassword: 1", "RequestType: x", `",SessionID="x`, `",LocalAddress="IPV4/1.1.1.1/1`,
		`",RemoteAddress="IPV4/8.8.8.8/5`, `",RemoteAddress="IPV4/UDP/8.8.8.8/5"`, `",Challenge="`, `",Module="`,
		`",Response="`, `",Rem`, `",Module="` + "\x1b",
		`x",LocalAddress="IPV4/1.1.1.1/1",RemoteAddress="IPV4/8.8.8.8/5`,
		`x",LocalAddress="IPV4/1.1.1.1/1",RemoteAddress="IPV4/8.8.8.8/5",Module="` + "\x1b", `",ExpectedResponse="`,
		`",SessionTV="2026-11-22T21:48:57.667+0000`, `SecurityEvent="ChallengeSent`,
		"[x] SECURITY[1] res_security_log.c: ",
	}
	var b strings.Builder
	for range property.Count(t, 0, 16) {
		if property.Bool(t) {
			b.WriteString(property.OneOf(t, pieces...))
		} else {
			b.Write(property.Bytes(t, 0, 8))
		}
	}
	s := b.String()
	return s[:min(len(s), longest)]
}

// termStrip does to a line what Asterisk's logger does, including that an ESC with no 'm' after it leaves the rest of
// the buffer as it was.
func termStrip(line string) string {
	buf := []byte(line)
	out := 0
	for in := 0; in < len(buf); in++ {
		if buf[in] != 0x1b {
			buf[out] = buf[in]
			out++
			continue
		}
		for buf[in] != 'm' {
			if in++; in == len(buf) {
				return string(buf)
			}
		}
	}
	return string(buf[:out])
}

// checkSource fails if a decoding names another source than the true one.
func checkSource(t *property.T, input string, ev *Event, err error, truth Address) {
	var te *TamperError
	if err == nil && ev.Remote != truth {
		t.Fatalf("%q\ndecodes to %+v, but %v sent it", input, *ev, truth)
	}
	if err != nil && (*ev != Event{} || !errors.Is(err, ErrNotSecurity) && !errors.As(err, &te)) {
		t.Fatalf("%q\n%+v, %v", input, *ev, err)
	}
}

// checkOften checks more cases than one Check does: the hostile values that matter are rare among those drawn.
func checkOften(t *testing.T, holds func(*property.T)) {
	for range 20 {
		property.Check(t, holds)
	}
}

// TestNoBytesInAnAccountOfSIPNameAnotherSource: 36 bytes of any kind, CRLFCRLF among them.
func TestNoBytesInAnAccountOfSIPNameAnotherSource(t *testing.T) {
	checkOften(t, func(t *property.T) {
		truth, w := genEvent(t)
		w.values["AccountID"] = genHostile(t, 36)
		for _, frame := range strings.Split(w.frame()+"\r\n\r\n", "\r\n\r\n") {
			var ev Event
			err := Decode(frame, &ev)
			checkSource(t, frame, &ev, err, truth.Remote)
		}
		for _, line := range strings.Split(termStrip(w.line()), "\n") {
			var ev Event
			err := DecodeLine(line, &ev)
			checkSource(t, line, &ev, err, truth.Remote)
		}
	})
}

// TestNoBytesInLongerValuesNameAnotherSource leaves out what lets a peer write a frame or a line of its own, which no
// decoder of one frame can see, and which SIP does not let through: an empty line into the stream, a line break into
// the log.
func TestNoBytesInLongerValuesNameAnotherSource(t *testing.T) {
	checkOften(t, func(t *property.T) {
		truth, inStream := genEvent(t)
		inLog := inStream
		inLog.values = maps.Clone(inStream.values)
		inLog.values["AccountID"] = strings.ReplaceAll(genHostile(t, 36), "\n", "")
		for _, key := range []string{"SessionID", "RequestType", "RequestParams", "Challenge", "Response",
			"AuthMethod"} {
			if property.Bool(t) {
				s := genHostile(t, 1000)
				inLog.values[key] = strings.ReplaceAll(s, "\n", "")
				for strings.Contains(s, "\r\n\r\n") {
					s = strings.ReplaceAll(s, "\r\n\r\n", "\r\n")
				}
				inStream.values[key] = strings.TrimSuffix(s, "\r\n")
			}
		}
		var ev Event
		err := Decode(inStream.frame(), &ev)
		checkSource(t, inStream.frame(), &ev, err, truth.Remote)
		line := termStrip(inLog.line())
		err = DecodeLine(line, &ev)
		checkSource(t, line, &ev, err, truth.Remote)
	})
}
