package event

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// reportFrame is what Asterisk 22 sends for the examples' dialplan, with some values changed: header, value, ….
func reportFrame(changes ...string) string {
	frame := "Event: UserEvent\r\nPrivilege: user,all\r\nChannel: PJSIP/anonymous-00000000\r\nChannelState: 4\r\n" +
		"ChannelStateDesc: Ring\r\nCallerIDNum: guest\r\nCallerIDName: <unknown>\r\nConnectedLineNum: <unknown>\r\n" +
		"ConnectedLineName: <unknown>\r\nLanguage: en\r\nAccountCode: \r\nContext: from-outside\r\nExten: 00972599\r\n" +
		"Priority: 1\r\nUniqueid: 1795940812.0\r\nLinkedid: 1795940812.0\r\nUserEvent: Ringwall\r\n" +
		"Address: 10.99.0.66:37591\r\nReason: wrong-number"
	lines := strings.Split(frame, "\r\n")
	for i := 0; i < len(changes); i += 2 {
		at := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, changes[i]+": ") })
		lines[at] = changes[i] + ": " + changes[i+1]
	}
	return strings.Join(lines, "\r\n")
}

func TestDialplanReport(t *testing.T) {
	var ev Event
	if err := Decode(reportFrame(), &ev); err != nil {
		t.Fatal(err)
	}
	if want := (Event{Type: DialplanReport, Service: PJSIP, SeenBy: ByDialplan, Report: WrongNumber, Detail: "00972599",
		Remote: Address{AddrPort: netip.MustParseAddrPort("10.99.0.66:37591")}}); ev != want {
		t.Errorf("%+v", ev)
	}
	if ev.Remote.Transport.Proven() {
		t.Error("UserEvent says no transport, so that the address may be forged")
	}
	for channel, want := range map[string]Service{"PJSIP/anonymous-0000002a": PJSIP, "SIP/guest-00000001": SIP,
		"IAX2/guest-1": IAX2, "Local/100@x-00000001;1": OtherService} {
		if err := Decode(reportFrame("Channel", channel), &ev); err != nil || ev.Service != want {
			t.Errorf("%s: %v, %v", channel, ev.Service, err)
		}
	}
	for address, want := range map[string]string{"10.99.0.66:5060": "10.99.0.66:5060", "10.99.0.66": "10.99.0.66:0",
		"[fd99::66]:5060": "[fd99::66]:5060", "fd99::66": "[fd99::66]:0", "[::ffff:10.99.0.66]:7": "10.99.0.66:7"} {
		err := Decode(reportFrame("Address", address, "Reason", "honeypot-number"), &ev)
		if err != nil || ev.Remote.AddrPort.String() != want || ev.Report != HoneypotNumber {
			t.Errorf("%s: %v, %v, %v", address, ev.Remote.AddrPort, ev.Report, err)
		}
	}
}

// What manager.conf and asterisk.conf can add changes nothing.
func TestDialplanReportOfOtherConfigurations(t *testing.T) {
	for name, frame := range map[string]string{
		"timestampevents": strings.Replace(reportFrame(), "\r\nChannel: ",
			"\r\nTimestamp: 1795940812.123456\r\nChannel: ", 1),
		"debug": strings.Replace(reportFrame(), "\r\nChannel: ",
			"\r\nSequenceNumber: 7\r\nFile: manager.c\r\nLine: 1\r\nFunc: f\r\nChannel: ", 1),
		"systemname": strings.Replace(reportFrame(), "\r\nChannel: ", "\r\nSystemName: pbx\r\nChannel: ", 1),
		"channelvars": strings.Replace(reportFrame(), "\r\nUserEvent: ",
			"\r\nChanVariable: A=1\r\nChanVariable: B=Address: 8.8.8.8:5\r\nUserEvent: ", 1),
	} {
		var ev, want Event
		if err := errors.Join(Decode(frame, &ev), Decode(reportFrame(), &want)); err != nil || ev != want {
			t.Errorf("%s: %+v, %v", name, ev, err)
		}
	}
}

func TestOtherUserEventsAreNoReports(t *testing.T) {
	for _, frame := range []string{
		"Event: UserEvent", "Event: UserEvent\r\nPrivilege: user,all\r\nUserEvent: Ringwallet\r\nAddress: 8.8.8.8:5",
		reportFrame("UserEvent", "QueueStatus"), reportFrame("UserEvent", "ringwall"),
	} {
		var ev Event
		if err := Decode(frame, &ev); err != ErrNotSecurity || ev != (Event{}) {
			t.Errorf("%q: %+v, %v", frame, ev, err)
		}
	}
}

func TestForgedReportsAreTampering(t *testing.T) {
	const forged = "UserEvent: Ringwall\r\nAddress: 8.8.8.8:5060\r\nReason: honeypot-number"
	const head = "Event: UserEvent\r\nPrivilege: user,all\r\n"
	insert := func(before, text string) string { return strings.Replace(reportFrame(), before, text+before, 1) }
	cut := reportFrame("Exten", "1\r\n"+forged)
	cut = cut[:strings.Index(cut, "\r\nPriority")]
	for name, c := range map[string]struct{ frame, reason string }{
		"a number that holds a whole report": {reportFrame("Exten", "1\r\n"+forged), ReasonOrder},
		"a number that ends the frame, too":  {cut, ReasonOrder},
		"the frame that such a number began": {head + forged, ReasonOrder},
		"what Asterisk says behind it":       {insert("Event: ", "x\r\n"), ReasonStray},
		"what is left of a cut report":       {"Priority: 1\r\nLinkedid: 1.0\r\n" + forged, ReasonStray},
		"a report under another event":       {"Event: Hangup\r\nPrivilege: call,all\r\n" + forged, ReasonStray},
		"a caller with a line break":         {reportFrame("CallerIDNum", "a\r\nAddress: 8.8.8.8:5060"), ReasonOrder},
		"a caller with a LF":                 {reportFrame("CallerIDNum", "a\nAddress: 8.8.8.8:5060"), ReasonControl},
		"a report in a channel variable":     {insert("UserEvent: R", "ChanVariable: x=\r\n"+forged+"\r\n"), ReasonOrder},
		"a LF in a channel variable":         {insert("UserEvent: R", "ChanVariable: x=\ny\r\n"), ReasonControl},
		"more than the example's line":       {reportFrame() + "\r\nNumber: 1", ReasonOrder},
		"a second address":                   {reportFrame() + "\r\nAddress: 8.8.8.8:5060", ReasonOrder},
		"no reason":                          {strings.TrimSuffix(reportFrame(), "\r\nReason: wrong-number"), ReasonOrder},
		"nothing but the name":               {strings.TrimSuffix(cut, cut[strings.Index(cut, "\r\nAddress"):]), ReasonOrder},
		"no address":                         {strings.Replace(reportFrame(), "\r\nAddress: ", "\r\nAddr: ", 1), ReasonOrder},
		"an empty address":                   {reportFrame("Address", ""), ReasonAddress},
		"an address with a name":             {reportFrame("Address", "example.net:5060"), ReasonAddress},
		"an address with a zone":             {reportFrame("Address", "[fe80::1%eth0]:5060"), ReasonAddress},
		"an address with a port of six":      {reportFrame("Address", "10.99.0.66:123456"), ReasonAddress},
		"an IPv6 address and a loose port":   {reportFrame("Address", "fd99:0:0:0:0:0:0:66:5060"), ReasonAddress},
		"a reason that is none":              {reportFrame("Reason", "wrong-numbers"), ReasonValue},
		"a reason that is empty":             {reportFrame("Reason", ""), ReasonValue},
		"a number longer than Asterisk's":    {reportFrame("Exten", strings.Repeat("1", 80)), ReasonValue},
		"a state that is none":               {reportFrame("ChannelState", "Ring"), ReasonValue},
		"a channel that is none":             {reportFrame("Channel", "anonymous"), ReasonValue},
		"bytes that are no text":             {reportFrame("CallerIDName", "\xff"), ReasonUTF8},
		"the manager's action UserEvent":     {head + forged + "\r\nActionID: 1", ReasonOrder},
		"another class":                      {strings.Replace(reportFrame(), "user,all", "call,all", 1), ReasonOrder},
		"a class that only begins so":        {strings.Replace(reportFrame(), "user,all", "user,all,x", 1), ReasonOrder},
		"the lines of a security event":      {strings.Replace(reportFrame(), "Channel: ", "EventTV: ", 1), ReasonOrder},
	} {
		var ev Event
		if err := Decode(c.frame, &ev); tamperReason(err) != c.reason || ev != (Event{}) {
			t.Errorf("%s: %+v, %v, want %q", name, ev, err, c.reason)
		}
	}
}

// The address that Asterisk wrote is the last, and perhaps not the only one.
func TestTamperedReportNamesItsSources(t *testing.T) {
	var ev Event
	err := Decode(reportFrame("Exten", "1\r\nAddress: 8.8.8.8:5060"), &ev)
	var tampered *TamperError
	want := []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("10.99.0.66")}
	if !errors.As(err, &tampered) || !slices.Equal(tampered.Sources, want) {
		t.Errorf("%+v", err)
	}
}

func TestDialplanReportAllocatesNothing(t *testing.T) {
	for _, address := range []string{"10.99.0.66:5060", "10.99.0.66", "[fd99::66]:5060", "fd99::66"} {
		frame := reportFrame("Address", address)
		var ev Event
		if n := testing.AllocsPerRun(100, func() {
			if err := Decode(frame, &ev); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func TestReportNames(t *testing.T) {
	for r := range numReports {
		if ReportNamed(r.String()) != r {
			t.Errorf("%d is %q", r, r)
		}
	}
	if ReportNamed("x") != NoReport || Report(200).String() != "" {
		t.Error("a report that there is not")
	}
}

// What Asterisk 22 sent for the dialplan of examples/asterisk (deploy/e2e records it).
func TestRecordedReports(t *testing.T) {
	names, err := filepath.Glob(captures + "/dialplan/*.ami")
	if err != nil || len(names) < 20 {
		t.Fatalf("%d recordings, %v", len(names), err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		base := filepath.Base(name)
		for _, frame := range frames(string(b)) {
			var ev Event
			err := Decode(frame, &ev)
			if strings.HasPrefix(base, "forged-") {
				if tamperReason(err) == "" {
					t.Errorf("%s: %+v, %v", base, ev, err)
				}
				continue
			}
			// Such as tcp-wrong-number-00972599.ami.
			parts := strings.Split(strings.TrimSuffix(base, ".ami"), "-")
			report := ReportNamed(parts[1] + "-" + parts[2])
			if err != nil || ev.Report != report || strings.TrimPrefix(ev.Detail, "+") != parts[3] ||
				ev.Service != PJSIP || ev.Remote.AddrPort.Port() == 0 {
				t.Errorf("%s: %+v, %v", base, ev, err)
			}
		}
	}
}
