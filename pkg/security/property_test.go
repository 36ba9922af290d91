package security

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// genText draws what a legitimate or nasty peer can put into a value without leaving it: no control characters.
func genText() *rapid.Generator[string] {
	return rapid.StringOfN(rapid.RuneFrom([]rune(`aZ09 "\:,;=/<>%@-üß用😀`)), 0, 40, -1)
}

// genAddress draws an address, and its text as Asterisk prints it.
func genAddress(t *rapid.T, label string) (Address, string) {
	var a Address
	a.Transport = rapid.SampledFrom([]Transport{NoTransport, UDP, TCP, TLS, WS, WSS}).Draw(t, label+" transport")
	port := rapid.Uint16().Draw(t, label+" port")
	family, zone := "IPV4/", ""
	var ip netip.Addr
	if rapid.Bool().Draw(t, label+" v6") {
		b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, label+" address")
		b[0] |= 1 // not mapped IPv4
		ip, family = netip.AddrFrom16([16]byte(b)), "IPV6/"
		zone = rapid.SampledFrom([]string{"", "%eth0", "%2"}).Draw(t, label+" zone")
	} else {
		ip = netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, label+" address")))
	}
	a.AddrPort = netip.AddrPortFrom(ip, port)
	text := family
	if a.Transport != NoTransport {
		text += a.Transport.String() + "/"
	}
	return a, fmt.Sprintf("%s%s%s/%d", text, ip, zone, port)
}

// genEvent draws a legal event, and the same as Asterisk holds it.
func genEvent(t *rapid.T) (Event, wire) {
	names := typeNames[1:]
	w := wire{name: rapid.SampledFrom(names).Draw(t, "event"), values: map[string]string{}, leave: map[string]bool{}}
	for _, key := range strings.Fields(specs[w.name]) {
		header := strings.Trim(key, "[]")
		w.leave[header] = header != key && rapid.Bool().Draw(t, "without "+header)
		w.values[header] = genText().Draw(t, header)
	}
	ev := Event{Type: typeOf(w.name)}
	ev.Service = rapid.SampledFrom([]Service{PJSIP, SIP, AMI, IAX2}).Draw(t, "service")
	w.values["Service"] = ev.Service.String()
	w.values["Severity"] = rapid.SampledFrom([]string{"Informational", "Error"}).Draw(t, "severity")
	w.values["EventVersion"] = "2"
	ev.Time = time.UnixMilli(rapid.Int64Range(0, 4102444800000).Draw(t, "time")).UTC()
	zone := time.FixedZone("", 60*rapid.IntRange(-720, 840).Draw(t, "zone"))
	w.values["EventTV"] = ev.Time.In(zone).Format("2006-01-02T15:04:05.000-0700")
	w.values["SessionTV"] = w.values["EventTV"]
	ev.Local, w.values["LocalAddress"] = genAddress(t, "local")
	ev.Remote, w.values["RemoteAddress"] = genAddress(t, "remote")
	_, w.values["ExpectedAddress"] = genAddress(t, "expected")
	w.values["UsingPassword"] = rapid.SampledFrom([]string{"0", "1"}).Draw(t, "password")
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
	rapid.Check(t, func(t *rapid.T) {
		want, w := genEvent(t)
		w.preamble = rapid.SampledFrom([]string{"", "Timestamp: 1795384960.214397\r\n", "SystemName: pbx 1\r\n",
			"SequenceNumber: 1\r\nFile: f.c\r\nLine: 2\r\nFunc: f\r\n"}).Draw(t, "preamble")
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
func genHostile(longest int) *rapid.Generator[string] {
	pieces := rapid.OneOf(
		rapid.SampledFrom([]string{
			"\r\n", "\r\n", "\r", "\n", "\r\n\r\n", `"`, `",`, `="`, ": ", "\x00", "\x1b[0m", "\x1b", "\x1b", "m", "\xff", "\u009b",
			"RemoteAddress: IPV4/UDP/8.8.8.8/5", "LocalAddress: IPV4/UDP/8.8.8.8/5", "IPV4/8.8.8.8/5", "SessionID: x",
			"SessionID: ", "LocalAddress: IPV4/1.1.1.1/1", "RemoteAddress: IPV4/8.8.8.8/5", "AccountID: x", "Challenge: ",
			"Module: x", "Event: InvalidAccountID", "Event: F", "Privilege: security,all", "EventTV: 2026-11-22T21:48:57.667+0000",
			"Severity: Error", "Service: PJSIP", "EventVersion: 1", "SessionTV: 2026-11-22T21:48:57.667+0000", "Response: x",
			"ExpectedResponse: ", "UsingPassword: 1", "RequestType: x", `",SessionID="x`, `",LocalAddress="IPV4/1.1.1.1/1`,
			`",RemoteAddress="IPV4/8.8.8.8/5`, `",RemoteAddress="IPV4/UDP/8.8.8.8/5"`, `",Challenge="`, `",Module="`,
			`",Response="`, `",Rem`, `",Module="` + "\x1b", `x",LocalAddress="IPV4/1.1.1.1/1",RemoteAddress="IPV4/8.8.8.8/5`,
			`x",LocalAddress="IPV4/1.1.1.1/1",RemoteAddress="IPV4/8.8.8.8/5",Module="` + "\x1b", `",ExpectedResponse="`, `",SessionTV="2026-11-22T21:48:57.667+0000`, `SecurityEvent="ChallengeSent`,
			"[x] SECURITY[1] res_security_log.c: ",
		}),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 8), func(b []byte) string { return string(b) }),
	)
	return rapid.Map(rapid.SliceOfN(pieces, 0, 16), func(parts []string) string {
		s := strings.Join(parts, "")
		return s[:min(len(s), longest)]
	})
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
func checkSource(t *rapid.T, input string, ev *Event, err error, truth Address) {
	var te *TamperError
	if err == nil && ev.Remote != truth {
		t.Fatalf("%q\ndecodes to %+v, but %v sent it", input, *ev, truth)
	}
	if err != nil && (*ev != Event{} || !errors.Is(err, ErrNotSecurity) && !errors.As(err, &te)) {
		t.Fatalf("%q\n%+v, %v", input, *ev, err)
	}
}

// checkOften checks more cases than rapid's hundred: the hostile values that matter are rare among those drawn.
func checkOften(t *testing.T, property func(*rapid.T)) {
	for range 20 {
		rapid.Check(t, property)
	}
}

// TestNoBytesInAnAccountOfSIPNameAnotherSource: 36 bytes of any kind, CRLFCRLF among them.
func TestNoBytesInAnAccountOfSIPNameAnotherSource(t *testing.T) {
	checkOften(t, func(t *rapid.T) {
		truth, w := genEvent(t)
		w.values["AccountID"] = genHostile(36).Draw(t, "account")
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
	checkOften(t, func(t *rapid.T) {
		truth, inStream := genEvent(t)
		inLog := inStream
		inLog.values = maps.Clone(inStream.values)
		inLog.values["AccountID"] = strings.ReplaceAll(genHostile(36).Draw(t, "account"), "\n", "")
		for _, key := range []string{"SessionID", "RequestType", "RequestParams", "Challenge", "Response", "AuthMethod"} {
			if rapid.Bool().Draw(t, "hostile "+key) {
				s := genHostile(1000).Draw(t, key)
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
