package event

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func tamperReason(err error) string {
	var te *TamperError
	if errors.As(err, &te) {
		return te.Reason
	}
	return ""
}

func TestEachEventDecodesWithAndWithoutItsOptionalHeaders(t *testing.T) {
	if len(specs) != int(InvalidTransport) {
		t.Fatalf("%d events are specified", len(specs))
	}
	for name := range specs {
		t.Run(name, func(t *testing.T) {
			full := sample(name)
			var ev Event
			if err := Decode(full.frame(), &ev); err != nil || ev != want(name) {
				t.Errorf("full: %+v, %v\n%s", ev, err, full.frame())
			}
			if ev.Type.String() != name {
				t.Errorf("the type prints as %s", ev.Type)
			}
			if err := DecodeLine(full.line(), &ev); err != nil || ev != want(name) {
				t.Errorf("full line: %+v, %v\n%s", ev, err, full.line())
			}
			for _, key := range strings.Fields(specs[name]) {
				header := strings.Trim(key, "[]")
				w := sample(name)
				w.leave[header] = true
				err := Decode(w.frame(), &ev)
				if key != header && err != nil {
					t.Errorf("without the optional %s: %v", header, err)
				}
				if err := DecodeLine(w.line(), &ev); key != header && err != nil {
					t.Errorf("line without the optional %s: %v", header, err)
				}
				cut := strings.Replace(full.frame(), "\r\n"+header+": "+full.values[header], "", 1)
				if key == header && tamperReason(Decode(cut, &ev)) == "" {
					t.Errorf("decodes without the required %s", header)
				}
			}
		})
	}
}

func TestEachFieldIsFoundByItsName(t *testing.T) {
	for f := range numFields {
		if name := strings.TrimSuffix(fieldHeaders[f], ": "); name == "" || fieldOf(name) != f {
			t.Errorf("field %d, %q, is found as %d", f, name, fieldOf(name))
		}
	}
	for _, name := range []string{"", "eventtv", "EventTV ", "Event", "Privilege"} {
		if fieldOf(name) != numFields {
			t.Errorf("%q is a field", name)
		}
	}
}

func TestHeadersOutOfAsterisksOrderAreTampering(t *testing.T) {
	for name := range specs {
		frame := sample(name).frame()
		lines := strings.Split(frame, "\r\n")
		for i := 1; i < len(lines); i++ {
			var ev Event
			swapped := append([]string(nil), lines...)
			swapped[i-1], swapped[i] = swapped[i], swapped[i-1]
			if reason := tamperReason(Decode(strings.Join(swapped, "\r\n"), &ev)); reason == "" || ev != (Event{}) {
				t.Errorf("%s decodes with lines %d and %d swapped: %+v", name, i, i+1, ev)
			}
			for j := range lines {
				repeated := append([]string(nil), lines[:i]...)
				repeated = append(append(repeated, lines[j]), lines[i:]...)
				if tamperReason(Decode(strings.Join(repeated, "\r\n"), &ev)) == "" {
					t.Errorf("%s decodes with line %d repeated before line %d", name, j+1, i+1)
				}
			}
		}
		for _, end := range []string{"\r\n", "\n", "\r\n\r\n", "\r\nX: y", "\r\nRemoteAddress: IPV4/UDP/8.8.8.8/5"} {
			var ev Event
			if tamperReason(Decode(frame+end, &ev)) == "" {
				t.Errorf("%s decodes with %q after it", name, end)
			}
		}
	}
}

func TestOptionalPreambles(t *testing.T) {
	const debug = "SequenceNumber: 7\r\nFile: stasis.c\r\nLine: 12\r\nFunc: handle\r\n"
	for _, preamble := range []string{
		"Timestamp: 1795384960.214397\r\n", debug, "SystemName: pbx\r\n", "SystemName: B\xfcro\r\n",
		"SystemName: a\tb\r\n", "SystemName: a\rb\r\n",
		"SequenceNumber: 7\r\nFile: a\x1bb\r\nLine: 12\r\nFunc: handle\r\n",
		"Timestamp: 1795384960.214397\r\n" + debug + "SystemName: pbx\r\n",
		strings.Replace(debug, "7", "-2147483648", 1),
	} {
		w := sample("ChallengeSent")
		w.preamble = preamble
		var ev Event
		if err := Decode(w.frame(), &ev); err != nil || ev != want("ChallengeSent") {
			t.Errorf("%q: %+v, %v", preamble, ev, err)
		}
	}
	for _, preamble := range []string{
		"Timestamp: x\r\n", "Timestamp: 1.2\r\n", "Timestamp: 1.00000x\r\n", "SequenceNumber: 7\r\n",
		"SequenceNumber: x\r\n", "SystemName: pbx\r\nTimestamp: 1795384960.214397\r\n",
		"SystemName: a\nb\r\n", "SystemName: a\r\nSystemName: a\r\n", "ActionID: 5\r\n", "\r\n",
		"SequenceNumber: 7\r\nFile: a\nb\r\nLine: 12\r\nFunc: handle\r\n",
	} {
		w := sample("ChallengeSent")
		w.preamble = preamble
		var ev Event
		if tamperReason(Decode(w.frame(), &ev)) == "" {
			t.Errorf("%q decodes", preamble)
		}
	}
	w := sample("ChallengeSent").frame()
	var ev Event
	if tamperReason(Decode(strings.Replace(w, "security,all", "user,all", 1), &ev)) == "" {
		t.Error("a security event of another class decodes")
	}
}

func TestValuesNotAsAsteriskWritesThemAreTampering(t *testing.T) {
	for _, tt := range []struct{ event, header, value, reason string }{
		{"ChallengeSent", "EventTV", "", ReasonTime},
		{"ChallengeSent", "EventTV", "1795384137-12", ReasonTime},
		{"ChallengeSent", "Severity", "Warning", ReasonValue},
		{"ChallengeSent", "Service", "", ReasonValue},
		{"ChallengeSent", "EventVersion", "one", ReasonValue},
		{"ChallengeSent", "AccountID", "a\nb", ReasonControl},
		{"ChallengeSent", "AccountID", "0123456\n", ReasonControl},
		{"ChallengeSent", "SessionID", "a\tb\nc", ReasonControl},
		{"ChallengeResponseFailed", "ExpectedResponse", "a\nb", ReasonControl},
		{"SuccessfulAuth", "Module", "a\nb", ReasonControl},
		{"ChallengeSent", "AccountID", "j\xfcrgen", ReasonUTF8},
		{"ChallengeSent", "SessionID", "01234567\xff", ReasonUTF8},
		{"ChallengeSent", "Challenge", "\xed\xa0\x80", ReasonUTF8},
		{"ChallengeSent", "RemoteAddress", "8.8.8.8", ReasonAddress},
		{"ChallengeSent", "LocalAddress", "IPV4/UDP/10.99.0.1/65536", ReasonAddress},
		{"UnexpectedAddress", "ExpectedAddress", "x", ReasonAddress},
		{"SuccessfulAuth", "UsingPassword", "2", ReasonValue},
		{"SuccessfulAuth", "UsingPassword", "", ReasonValue},
		{"SuccessfulAuth", "SessionTV", "now", ReasonTime},
	} {
		w := sample(tt.event)
		w.values[tt.header] = tt.value
		ev := want(tt.event)
		if reason := tamperReason(Decode(w.frame(), &ev)); reason != tt.reason || ev != (Event{}) {
			t.Errorf("%s %s %q: %q, want %q", tt.event, tt.header, tt.value, reason, tt.reason)
		}
	}
}

// Control characters other than CR and LF cannot change the lines: such an event is judged, since else a peer could
// switch the judge off for its dialogue.
func TestControlCharactersAreDecoded(t *testing.T) {
	for _, c := range []string{"\r", "\t", "\x00", "\x01", "\x0b", "\x1b", "\x1b[31m", "\x1f", "\x7f", "\u0080",
		"\u0085", "\u009b", "\u009f"} {
		for _, value := range []string{c, "a" + c + "b", "01234567" + c, c + "01234567", "0123" + c + "4567"} {
			for _, header := range []string{"AccountID", "SessionID", "Challenge", "Response", "Module"} {
				w := sample("ChallengeResponseFailed")
				w.values[header] = value
				expect := want("ChallengeResponseFailed")
				switch header {
				case "AccountID": // a person may have typed it, but not all
					expect.Account, expect.Hostile = value, c == "\r"
				case "SessionID":
					expect.Session, expect.Hostile = value, true
				case "Challenge":
					expect.Challenge, expect.Hostile = value, true
				case "Response":
					expect.Response, expect.Hostile = value, true
				case "Module":
					expect.Hostile = c == "\r"
				}
				var ev Event
				if err := Decode(w.frame(), &ev); err != nil || ev != expect {
					t.Errorf("%s %q:\n got %+v, %v\nwant %+v", header, value, ev, err, expect)
				}
				err := DecodeLine(w.line(), &ev)
				reason := map[bool]string{strings.Contains(value, "\x1b"): ReasonEscape,
					strings.Contains(value, "\r"): ReasonControl}[true]
				if tamperReason(err) != reason {
					t.Errorf("%s %q in a line: %v", header, value, err)
				} else if reason == "" && (err != nil || ev != expect) {
					t.Errorf("%s %q in a line: %+v, %v", header, value, ev, err)
				}
			}
		}
	}
}

func TestATamperedFrameNamesItsSources(t *testing.T) {
	w := sample("ChallengeSent")
	w.values["AccountID"] = "\r\nRemoteAddress: IPV4/UDP/8.8.8.8/5"
	var ev Event
	var bad *TamperError
	if err := Decode(w.frame(), &ev); !errors.As(err, &bad) {
		t.Fatal(err)
	}
	if want := []netip.Addr{netip.MustParseAddr("8.8.8.8"),
		want("ChallengeSent").Remote.AddrPort.Addr()}; !slices.Equal(bad.Sources, want) {
		t.Errorf("%v, want %v", bad.Sources, want)
	}
	w.values["AccountID"] = strings.Repeat("\r\nRemoteAddress: IPV4/UDP/8.8.8.8/5\r\nRemoteAddress: "+
		"IPV4/UDP/8.8.4.4/5\r\nRemoteAddress: \x1b", 9)
	if err := Decode(w.frame(), &ev); !errors.As(err, &bad) || len(bad.Sources) != maxTamperSources {
		t.Errorf("%v: %v", err, bad.Sources)
	}
}

func TestTextOfLegitimatePeersDecodes(t *testing.T) {
	for _, account := range []string{
		"", " ", "6001", "<unknown>", "jürgen", "Ελλάδα-12", "用户", "\u00a0", "\ufffd", "😀", `a"b\"c`, "a: b", "a b ",
		"+4412",
		"sip:7001@10.99.0.1", "a,b=c;d", strings.Repeat("x", 1000),
	} {
		w := sample("InvalidAccountID")
		w.values["AccountID"], w.values["SessionID"] = account, account
		expect := want("InvalidAccountID")
		expect.Account, expect.Session = account, account
		var ev Event
		if err := Decode(w.frame(), &ev); err != nil || ev != expect {
			t.Errorf("%q: %+v, %v", account, ev, err)
		}
		if err := DecodeLine(w.line(), &ev); err != nil || ev != expect {
			t.Errorf("%q in a line: %+v, %v", account, ev, err)
		}
	}
}

func TestServices(t *testing.T) {
	for value, service := range map[string]Service{
		"PJSIP": PJSIP, "SIP": SIP, "AMI": AMI, "IAX2": IAX2, "Other thing": OtherService, "pjsip": OtherService,
	} {
		w := sample("ChallengeSent")
		w.values["Service"] = value
		var ev Event
		if err := Decode(w.frame(), &ev); err != nil || ev.Service != service {
			t.Errorf("%q: %v, %v", value, ev.Service, err)
		}
	}
}

func TestFramesOfAnotherKindAreNoEvidence(t *testing.T) {
	for _, frame := range []string{
		"", "\r\n", "Asterisk Call Manager/11.0.0", "Response: Success\r\nMessage: Authentication accepted",
		"Response: Success\r\nChallenge: 113543555", // the reply to an MD5 login's first action
		"Response: Success\r\nActionID: 1\r\nPing: Pong\r\nTimestamp: 1795384960.214397",
		"Event: FullyBooted\r\nPrivilege: system,all\r\nUptime: 5\r\nStatus: Fully Booted",
		"Event: PeerStatus\r\nPrivilege: system,all\r\nChannelType: SIP\r\nAddress: 10.99.0.10:45959",
		"Event: UserEvent\r\nPrivilege: user,all\r\nUserEvent: Mine\r\nRemoteAddress: IPV4/UDP/8.8.8.8/5",
		"event: ChallengeSent",
	} {
		ev := want("ChallengeSent")
		if err := Decode(frame, &ev); !errors.Is(err, ErrNotSecurity) || ev != (Event{}) {
			t.Errorf("%q: %+v, %v", frame, ev, err)
		}
	}
}

func TestPiecesOfACutEventAreTampering(t *testing.T) {
	const tail = "SessionID: x@lab\r\nLocalAddress: IPV4/UDP/10.99.0.1/5060\r\nRemoteAddress: IPV4/UDP/10.99.0.66/5"
	for _, frame := range []string{
		tail, "\r\n" + tail, "y\r\n" + tail, "Event: Foo\r\n" + tail, "Event: Foo\r\nPrivilege: system,all\r\n" + tail,
		"Response: Success\r\n" + tail, "Event: F\rx\r\n" + tail, "\nEvent: ChallengeSent\r\n" + tail,
		" Event: ChallengeSent\r\n" + tail, "Event:ChallengeSent\r\n" + tail, "event: ChallengeSent\r\n" + tail,
		"Event: ChallengeSent \r\n" + tail, "RemoteAddress: IPV4/UDP/10.99.0.66/5", "x\r\nSessionTV: y",
		"x\r\nExpectedResponse: ",
		"Event: ChallengeSent", "Event: SuccessfulAuth\r\nPrivilege: security,all",
	} {
		var ev Event
		if tamperReason(Decode(frame, &ev)) == "" {
			t.Errorf("%q is no tampering", frame)
		}
	}
}

func TestEventWithoutASourceIsNoEvidence(t *testing.T) {
	w := sample("ChallengeSent")
	w.values["LocalAddress"] = "IPV6/UDP/(null)/(null)"
	var ev Event
	if err := Decode(w.frame(), &ev); err != nil || ev.Local.AddrPort.IsValid() ||
		ev.Remote != want("ChallengeSent").Remote {
		t.Errorf("local address unknown: %+v, %v", ev, err)
	}
	w.values["RemoteAddress"] = "IPV6/UDP/(null)/(null)"
	if err := Decode(w.frame(), &ev); !errors.Is(err, ErrNotSecurity) || ev != (Event{}) {
		t.Errorf("source unknown: %+v, %v", ev, err)
	}
	if err := DecodeLine(w.line(), &ev); !errors.Is(err, ErrNotSecurity) || ev != (Event{}) {
		t.Errorf("source unknown in a line: %+v, %v", ev, err)
	}
}

func TestTamperErrorShowsNoByteFromTheWire(t *testing.T) {
	const secret = "5ec4e7c0ffee\n\x1b[2J"
	w := sample("ChallengeResponseFailed")
	w.values["AccountID"] = strings.Repeat(secret, 100)
	w.values["ExpectedResponse"] = secret
	var ev Event
	err := Decode(w.frame(), &ev)
	var te *TamperError
	if !errors.As(err, &te) || te.Line != 7 {
		t.Fatalf("%v", err)
	}
	if msg := err.Error(); strings.Contains(msg, "5ec4e7") || len(msg) > 120 || hasControl(msg) {
		t.Errorf("%q", msg)
	}
}

func TestExpectedResponseIsKeptNowhere(t *testing.T) {
	w := sample("ChallengeResponseFailed")
	w.values["ExpectedResponse"] = "c0ffee"
	var ev Event
	if err := Decode(w.frame(), &ev); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{ev.Account, ev.Session, ev.Challenge, ev.Response, ev.ACLName, ev.Detail} {
		if strings.Contains(s, "c0ffee") {
			t.Errorf("kept in %q", s)
		}
	}
}

func TestAddresses(t *testing.T) {
	ap := netip.MustParseAddrPort
	for s, want := range map[string]Address{
		"IPV4/UDP/10.99.0.10/5060":       {ap("10.99.0.10:5060"), UDP},
		"IPV4/TCP/0.0.0.0/0":             {ap("0.0.0.0:0"), TCP},
		"IPV4/TLS/255.255.255.255/65535": {ap("255.255.255.255:65535"), TLS},
		"IPV4/WS/10.0.0.1/1":             {ap("10.0.0.1:1"), WS},
		"IPV4/WSS/10.0.0.1/1":            {ap("10.0.0.1:1"), WSS},
		"IPV4/10.0.0.1/5060":             {ap("10.0.0.1:5060"), NoTransport},
		"IPV6/UDP/fd99::10/5060":         {ap("[fd99::10]:5060"), UDP},
		"IPV6/fd99::10/5060":             {ap("[fd99::10]:5060"), NoTransport},
		"IPV6/TCP/::/5038":               {ap("[::]:5038"), TCP},
		"IPV6/TCP/fe80::1%br0/5038":      {ap("[fe80::1]:5038"), TCP},
		"IPV6/TCP/fe80::1%12/5038":       {ap("[fe80::1]:5038"), TCP},
		"IPV6/UDP/::ffff:10.0.0.1/5060":  {ap("10.0.0.1:5060"), UDP},
		"IPV6/UDP/(null)/(null)":         {netip.AddrPort{}, UDP},
		"IPV6/(null)/(null)":             {},
	} {
		if got, ok := parseAddress(s); !ok || got != want {
			t.Errorf("%q: %v %v", s, got, ok)
		}
	}
	for _, s := range []string{
		"", "IPV4", "IPV4/", "IPV4//", "IPV4/UDP", "IPV4/UDP/", "IPV4/UDP/10.0.0.1", "IPV4/UDP/10.0.0.1/",
		"IPV4/UDP//5060",
		"IPV4/UDP/10.0.0.1/65536", "IPV4/UDP/10.0.0.1/-1", "IPV4/UDP/10.0.0.1/+1", "IPV4/UDP/10.0.0.1/05",
		"IPV4/UDP/10.0.0.1/5 ",
		"IPV4/UDP/10.0.0.1/123456", "IPV4/UDP/10.0.0.1/5/6", "IPV4/UDP/10.0.0.01/5", "IPV4/UDP/10.0.0/5",
		"IPV4/UDP/10.0.0.256/5",
		"IPV4/UDP/10.0.0.1%lo/5", "IPV4/UDP/fd99::1/5", "IPV6/UDP/10.0.0.1/5", "IPV6/UDP/[fd99::1]/5",
		"IPV6/UDP/fe80::1%/5",
		"IPV6/UDP/fe80::1%a b/5", "IPV6/UDP/fe80::1%abcdefghijklmnop/5", "IPV6/UDP/fe80::1%a%b/5",
		"IPV6/UDP/fe80::1%a\"b/5", "IPV5/UDP/10.0.0.1/5",
		"xIPV4/UDP/10.0.0.1/5", " IPV4/UDP/10.0.0.1/5", "IPV4 /UDP/10.0.0.1/5", "IPV4/udp/10.0.0.1/5",
		"IPV4/SCTP/10.0.0.1/5",
		"IPV4/UDP/UDP/10.0.0.1/5", "IPV4/UDP/ 10.0.0.1/5", "ipv4/UDP/10.0.0.1/5", "IPV4/UDP/(null)/5",
		"IPV4/UDP/host/5",
	} {
		if got, ok := parseAddress(s); ok {
			t.Errorf("%q is %v", s, got)
		}
	}
}

func TestTimes(t *testing.T) {
	for s, want := range map[string]time.Time{
		"2026-11-22T21:50:35.258+0000": time.Date(2026, 11, 22, 21, 50, 35, 258e6, time.UTC),
		"2026-11-22T23:20:35.258+0130": time.Date(2026, 11, 22, 21, 50, 35, 258e6, time.UTC),
		"2026-11-22T16:50:35.258-0500": time.Date(2026, 11, 22, 21, 50, 35, 258e6, time.UTC),
		"1970-01-01T00:00:00.000+0000": time.Unix(0, 0).UTC(),
		"1969-12-31T23:59:00.000-0001": time.Unix(0, 0).UTC(),
		"2199-12-31T23:59:59.999+0000": time.Date(2199, 12, 31, 23, 59, 59, 999e6, time.UTC),
		"2024-02-29T00:00:00.001+0000": time.Date(2024, 2, 29, 0, 0, 0, 1e6, time.UTC),
		"2016-12-31T23:59:60.000+0000": time.Date(2017, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		if got, ok := parseTime(s); !ok || got != want {
			t.Errorf("%q: %v %v", s, got, ok)
		}
	}
	for _, s := range []string{
		"", "2026-11-22T21:50:35.258", "2026-11-22T21:50:35.258+00000", "2026-11-22 21:50:35.258+0000",
		"2026-11-22T21:50:35,258+0000", "2026-11-22T21:50:35.258Z0000", "2026-13-22T21:50:35.258+0000",
		"2026-00-22T21:50:35.258+0000", "2026-11-31T21:50:35.258+0000", "2026-02-29T21:50:35.258+0000",
		"2100-02-29T21:50:35.258+0000", "2026-11-00T21:50:35.258+0000", "2026-11-22T24:50:35.258+0000",
		"2026-11-22T21:60:35.258+0000", "2026-11-22T21:50:61.258+0000", "2026-11-22T21:50:35.258+2400",
		"2026-11-22T21:50:35.258+0060", "2026-11-22T21:50:35.x58+0000", "2026-11-22T21:50:35.2x8+0000",
		// not in nanoseconds
		"1969-12-31T23:59:59.999+0000", "0001-01-01T00:00:00.000+0000", "2200-01-01T00:00:00.000+0000",
		"x026-11-22T21:50:35.258+0000", "20x6-11-22T21:50:35.258+0000", "2026-11-22T21:50:35.258+00 0",
	} {
		if got, ok := parseTime(s); ok {
			t.Errorf("%q is %v", s, got)
		}
	}
}

func TestEveryDayUntil2200IsRight(t *testing.T) {
	for d := time.Date(1970, 1, 1, 12, 0, 0, 0, time.UTC); d.Year() < 2200; d = d.AddDate(0, 0, 1) {
		s := d.Format("2006-01-02T15:04:05.000-0700")
		if got, ok := parseTime(s); !ok || got != d {
			t.Fatalf("%q: %v %v", s, got, ok)
		}
	}
}

func TestDecodingAllocatesNothing(t *testing.T) {
	for name := range specs {
		w := sample(name)
		w.values["RemoteAddress"] = "IPV6/UDP/fe80::6c5f:a3ff:fe2b:7f09%br0/46851"
		frame, line := w.frame(), w.line()
		var ev Event
		if n := testing.AllocsPerRun(100, func() {
			if err := Decode(frame, &ev); err != nil {
				t.Fatal(err)
			}
			if err := DecodeLine(line, &ev); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
