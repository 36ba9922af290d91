package event

import (
	"errors"
	"strings"
	"testing"
)

// checkDecoded fails if the outcome breaks what the decoders promise of any input.
func checkDecoded(t *testing.T, input string, ev *Event, err error) {
	t.Helper()
	var te *TamperError
	switch {
	case err == nil:
	case *ev != Event{}:
		t.Fatalf("an event beside the error %v: %+v", err, *ev)
	case errors.Is(err, ErrNotSecurity):
		return
	case !errors.As(err, &te):
		t.Fatalf("unknown error %v", err)
	default:
		switch te.Reason {
		case ReasonOrder, ReasonControl, ReasonEscape, ReasonUTF8, ReasonValue, ReasonTime, ReasonAddress, ReasonStray,
			ReasonTruncated:
		default:
			t.Fatalf("unknown reason %q", te.Reason)
		}
		if lines := strings.Count(input, "\r\n") + strings.Count(input, `"`) + 1; te.Line < 1 || te.Line > lines+1 {
			t.Fatalf("line %d of %d", te.Line, lines)
		}
		return
	}
	if !ev.Type.IsSecurityEvent() && ev.Type != DialplanReport || ev.Service >= numServices ||
		ev.Time.IsZero() != (ev.Type == DialplanReport) || (ev.Report == NoReport) != ev.Type.IsSecurityEvent() {
		t.Fatalf("half an event: %+v", *ev)
	}
	for _, s := range []string{ev.Account, ev.Session, ev.Challenge, ev.Response, ev.ACLName, ev.Detail} {
		if reason, _ := inspectText(s); reason != "" {
			t.Fatalf("%q holds %s", s, reason)
		}
		if !strings.Contains(input, s) {
			t.Fatalf("%q is not from the input", s)
		}
	}
	for _, a := range []Address{ev.Local, ev.Remote} {
		if ip := a.AddrPort.Addr(); ip.Is4In6() || ip.Zone() != "" || a.Transport >= numTransports {
			t.Fatalf("address %+v", a)
		}
	}
	if !ev.Remote.AddrPort.IsValid() {
		t.Fatal("no source")
	}
}

func FuzzDecode(f *testing.F) {
	for _, name := range captureFiles(f, ".ami") {
		for _, frame := range frames(readCapture(f, name)) {
			f.Add(frame)
		}
	}
	for name := range specs {
		f.Add(sample(name).frame())
	}
	f.Add(reportFrame())
	f.Add(reportFrame("Exten", "1\r\nUserEvent: Ringwall\r\nAddress: 8.8.8.8:5\r\nReason: wrong-number"))
	f.Fuzz(func(t *testing.T, frame string) {
		var ev Event
		err := Decode(frame, &ev)
		checkDecoded(t, frame, &ev, err)
		if err != nil {
			return
		}
		if ev.Type == DialplanReport {
			// Asterisk writes the last lines alone, and one more of the dialplan is refused.
			_, tail, _ := strings.Cut(frame, "\r\nUserEvent: Ringwall\r\nAddress: ")
			value, reason, _ := strings.Cut(tail, "\r\nReason: ")
			if a, ok := parseHostPort(value); !ok || a != ev.Remote.AddrPort || reason != ev.Report.String() {
				t.Fatalf("%+v of %q", ev, frame)
			}
			if Decode(frame+"\r\nAddress: "+value, &ev) == nil {
				t.Fatal("a second Address decodes")
			}
			return
		}
		// The source is the value of the one RemoteAddress header, and a second one is never let through.
		_, tail, _ := strings.Cut(frame, "\r\nRemoteAddress: ")
		value, rest, _ := strings.Cut(tail, "\r\n")
		if a, ok := parseAddress(value); !ok || a != ev.Remote || strings.Contains("\r\n"+rest, "\r\nRemoteAddress: ") {
			t.Fatalf("source %+v of %q", ev.Remote, frame)
		}
		// What may stand before EventTV changes nothing in the event.
		if head, rest, ok := strings.Cut(frame, "\r\nEventTV: "); ok && strings.HasSuffix(head, "security,all") {
			var named Event
			if err := Decode(head+"\r\nSystemName: x\r\nEventTV: "+rest, &named); err != nil || named != ev {
				t.Fatalf("with a SystemName: %+v, %v", named, err)
			}
		}
		// The same event with one header more is none.
		if Decode(frame+"\r\nRemoteAddress: "+value, &ev) == nil {
			t.Fatal("a second RemoteAddress decodes")
		}
	})
}

func FuzzDecodeLine(f *testing.F) {
	for _, name := range captureFiles(f, ".log") {
		for _, line := range logLines(readCapture(f, name)) {
			f.Add(line)
		}
	}
	for name := range specs {
		f.Add(sample(name).line())
	}
	f.Fuzz(func(t *testing.T, line string) {
		var ev Event
		err := DecodeLine(line, &ev)
		checkDecoded(t, line, &ev, err)
		if err != nil {
			return
		}
		const key = `",RemoteAddress="`
		if strings.Count(line, key) != 1 {
			t.Fatalf("%d sources", strings.Count(line, key))
		}
		_, after, _ := strings.Cut(line, key)
		value, _, _ := strings.Cut(after, `"`)
		if a, ok := parseAddress(value); !ok || a != ev.Remote {
			t.Fatalf("source %+v, but %q", ev.Remote, value)
		}
	})
}
