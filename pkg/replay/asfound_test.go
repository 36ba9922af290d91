package replay_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/replay"
)

func asFound(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/asfound/" + pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %q, %v", pattern, files, err)
	}
	return files
}

// TestColoursAsFound has FreePBX's console in syslog, in the forms in which rsyslog and others write ESC.
func TestColoursAsFound(t *testing.T) {
	want := briefs(run(t, nil, "testdata/asfound/colours/plain.log").decisions)
	if len(want) != 1 || !strings.Contains(want[0], `14:53:32.101 ban 203.0.113.78/32 unknown_account "9224"`) {
		t.Fatalf("%q", want)
	}
	for _, name := range asFound(t, "colours/*.log") {
		r := run(t, nil, name)
		if got := briefs(r.decisions); !slices.Equal(got, want) || r.Decoded != 5 || r.Tampered+r.NotUnderstood > 0 {
			t.Errorf("%s: %q, %+v", name, got, r.Files)
		}
	}
}

// TestShapesAsFound has one log in the forms in which people sent it.
func TestShapesAsFound(t *testing.T) {
	want := briefs(run(t, nil, "testdata/asfound/shapes/crlf.log").decisions)
	if len(want) != 1 || !strings.Contains(want[0], `14:53:32.101 ban 203.0.113.78/32 unknown_account "102"`) {
		t.Fatalf("%q", want)
	}
	for _, name := range asFound(t, "shapes/*") {
		r := run(t, nil, name)
		if r.Tampered+r.Truncated+r.Skipped > 0 {
			t.Errorf("%s: %+v", name, r.Files)
		}
		repeated := int64(0)
		switch filepath.Base(name) {
		case "journal-blob.log":
			if f := r.Files[0]; r.Decoded != 0 || r.NotUnderstood != 5 || f.First.Line != 1 ||
				!strings.Contains(f.First.Try, "-o json") {
				t.Errorf("%s: %+v", name, f)
			}
			continue
		case "rsyslog-repeated.log":
			repeated = 10
		}
		if got := briefs(r.decisions); !slices.Equal(got, want) || r.Decoded != 5 || r.Repeated != repeated ||
			r.NotUnderstood > 0 {
			t.Errorf("%s: %q, %+v", name, got, r.Files)
		}
	}
}

// TestAMIAsFound has one recording as it came, and as editors, terminals and trackers left it.
func TestAMIAsFound(t *testing.T) {
	want := briefs(run(t, nil, "testdata/asfound/ami/wire.ami").decisions)
	if len(want) != 1 || !strings.Contains(want[0], `ban 203.0.113.62/32 wrong_password "5500"`) {
		t.Fatalf("%q", want)
	}
	for _, name := range asFound(t, "ami/*.ami") {
		r := run(t, nil, name)
		if r.Tampered+r.Truncated+r.NotUnderstood > 0 {
			t.Errorf("%s: %+v", name, r.Files)
		}
		if filepath.Base(name) == "one.ami" {
			if r.Decoded != 1 {
				t.Errorf("%s: %+v", name, r.Files)
			}
			continue
		}
		if got := briefs(r.decisions); !slices.Equal(got, want) || r.Decoded != 8 {
			t.Errorf("%s: %q, %+v", name, got, r.Files)
		}
	}
}

// mangle is what a program does to a recording of AMI.
func mangles() map[string]func(string) string {
	line := func(f func(string) string) func(string) string {
		return func(s string) string {
			var b strings.Builder
			for l := range strings.SplitAfterSeq(s, "\r\n") {
				if text, ok := strings.CutSuffix(l, "\r\n"); ok {
					b.WriteString(f(text))
				} else {
					b.WriteString(l)
				}
			}
			return b.String()
		}
	}
	return map[string]func(string) string{
		"as it came":             func(s string) string { return s },
		"LFs":                    line(func(l string) string { return l + "\n" }),
		"blanks cut, CRLF":       line(func(l string) string { return strings.TrimRight(l, " ") + "\r\n" }),
		"blanks cut, LF":         line(func(l string) string { return strings.TrimRight(l, " ") + "\n" }),
		"a mail's marks":         line(func(l string) string { return strings.TrimRight("> "+l, " ") + "\n" }),
		"a mail's marks, CRLF":   line(func(l string) string { return "> " + l + "\r\n" }),
		"a mail's marks, twice":  line(func(l string) string { return ">> " + l + "\n" }),
		"indented":               line(func(l string) string { return "    " + l + "\n" }),
		"indented with tabs":     line(func(l string) string { return "\t" + l + "\r\n" }),
		"cat -v":                 line(func(l string) string { return l + "^M\n" }),
		"CRLF made CRCRLF":       line(func(l string) string { return l + "\r\r\n" }),
		"the last line end cut":  func(s string) string { return strings.TrimSuffix(s, "\r\n") },
		"the last line ends cut": func(s string) string { return strings.TrimSuffix(s, "\r\n\r\n") },
		"all blanks cut":         func(s string) string { return strings.TrimSpace(s) },
		"the banner cut":         func(s string) string { _, s, _ = strings.Cut(s, "\r\n\r\n"); return s },
		"the banner and LFs": func(s string) string {
			_, s,
				_ = strings.Cut(s, "\r\n\r\n")
			return strings.ReplaceAll(s, "\r", "")
		},
		"telnet":            func(s string) string { return "Trying ::1...\r\nConnected to localhost.\r\n" + s },
		"a byte order mark": func(s string) string { return "\ufeff" + s },
		"a mark and LFs":    func(s string) string { return "\ufeff" + strings.ReplaceAll(s, "\r", "") },
		"a mark, LFs, no banner": func(s string) string {
			_, s, _ = strings.Cut(s, "\r\n\r\n")
			return "\ufeff" + strings.ReplaceAll(s, "\r", "")
		},
		"UTF-16":          func(s string) string { return wide(s) },
		"UTF-16 with LFs": func(s string) string { return wide(strings.ReplaceAll(s, "\r", "")) },
		"fenced, with blanks cut": func(s string) string {
			return "```\n" + strings.ReplaceAll(strings.ReplaceAll(s, "\r", ""), " \n", "\n") + "```\n"
		},
	}
}

func wide(s string) string {
	b := []byte{0xff, 0xfe}
	for _, c := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return string(b)
}

// TestMangledRecordingsOfAMI has empty values, in the middle of an event and at its end.
func TestMangledRecordingsOfAMI(t *testing.T) {
	events := append(scan(0, "192.0.2.7"), challenge(5, "201", "198.51.100.1"), login(5, "201", "198.51.100.1"),
		challenge(6, "201", "198.51.100.1"))
	failed := wireEvent{at: 7, name: "ChallengeResponseFailed", account: "x", session: "y",
		from: "IPV4/UDP/192.0.2.8/5060",
		own:  [][2]string{{"Challenge", ""}, {"Response", ""}, {"ExpectedResponse", ""}}}
	data := frames(append(events, failed)...)
	want := briefs(runBytes(t, data).decisions)
	if len(want) != 2 {
		t.Fatalf("%q", want)
	}
	for name, f := range mangles() {
		r := runBytes(t, []byte(f(string(data))))
		if got := briefs(r.decisions); !slices.Equal(got, want) || r.Decoded != 8 ||
			r.Tampered+r.NotUnderstood+r.Truncated > 0 {
			t.Errorf("%s: %q, want %q, %+v", name, got, want, r.Files)
		}
	}
}

// TestALiveStreamStaysStrict: what a recording is forgiven, a stream is not.
func TestALiveStreamStaysStrict(t *testing.T) {
	frame := strings.TrimSuffix(challenge(0, "201", "198.51.100.1").frame(), "\r\n\r\n")
	var ev event.Event
	if err := event.Decode(frame, &ev); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{strings.TrimSuffix(frame, " "), strings.ReplaceAll(frame, "\r", ""), "> " + frame,
		frame + "\r\n"} {
		var tampered *event.TamperError
		if err := event.Decode(bad, &ev); !errors.As(err, &tampered) && err != event.ErrNotSecurity {
			t.Errorf("%q: %+v, %v", bad, ev, err)
		}
	}
}

// TestHostileNamesInRecordingsOfAMI: a name that brings headers, in each state of a recording, names nobody else. CR
// and LF are those that AMI over HTTP lets through; a whole wireEvent is more than SIP can bring.
func TestHostileNamesInRecordingsOfAMI(t *testing.T) {
	const remote = "RemoteAddress: IPV4/UDP/8.8.8.8/5060"
	for _, br := range []string{"\r\n", "\n", "\r", "^M\n", "\r\r\n", "\n> ", "\n    ", "\u2028", "\u0085", "\\r\\n"} {
		for _, name := range []string{
			"x" + br + remote, "x" + br + "SessionID: 1" + br + remote, "x" + br + "Challenge:",
			"x" + br + "ExpectedResponse:" + br + remote,
			"x" + br + br + remote, "x" + br + br + "Event: InvalidAccountID" + br + remote,
			"x" + br + "Event: ChallengeSent",
			"x" + br + "SessionID: 1" + br + "LocalAddress: IPV4/UDP/10.99.0.1/5060" + br + remote,
			"Asterisk Call Manager/1" + br + remote, "x" + br + "Asterisk Call Manager/1" + br + "Response: x",
			"Challenge:", "x:" + br + "y:",
		} {
			list := append(scan(0, "192.0.2.7")[:2], unknown(3, name, "192.0.2.7"))
			list = append(list, scan(4e9, "192.0.2.7")...)
			for what, f := range mangles() {
				r := runBytes(t, []byte(f(string(frames(list...)))))
				for _, d := range r.decisions {
					if d.Prefix.IsValid() && d.Prefix.Contains(netip.MustParseAddr("8.8.8.8")) {
						t.Errorf("%s: %q: %s", what, name, brief(d))
					}
				}
				if r.Sources > 1 || r.Bans == 0 {
					t.Errorf("%s: %q: %d sources, %q", what, name, r.Sources, briefs(r.decisions))
				}
			}
		}
	}
}

// TestAMIThatNobodyAttackedAccusesNobody has what people and other versions of Asterisk do to recordings.
func TestAMIThatNobodyAttackedAccusesNobody(t *testing.T) {
	data := string(frames(scan(0, "192.0.2.7")...))
	lf := strings.ReplaceAll(data, "\r", "")
	for what, data := range map[string]string{
		"addresses taken out":        strings.ReplaceAll(data, "192.0.2.7", "x.x.x.x"),
		"another time":               strings.ReplaceAll(data, "EventTV: 2026-", "EventTV: 26-"),
		"a header that is new":       strings.ReplaceAll(data, "/5060\r\n\r\n", "/5060\r\nTenant: 1\r\n\r\n"),
		"a severity that is new":     strings.ReplaceAll(data, "Severity: Error", "Severity: Warning"),
		"a clock that was never set": strings.ReplaceAll(data, "EventTV: 2026-", "EventTV: 1970-"),
		"empty lines cut":            strings.ReplaceAll(lf, "\n\n", "\n"),
		"empty lines doubled":        strings.ReplaceAll(lf, "\n", "\n\n"),
		"LFs and a line cut":         strings.ReplaceAll(lf, "Severity: Error\n", ""),
		"LFs and a line broken":      strings.ReplaceAll(lf, "AccountID: scan", "AccountID: \nscan"),
		"wrapped":                    strings.ReplaceAll(lf, "LocalAddress: ", "LocalAddress:\n"),
	} {
		r := runBytes(t, []byte(data))
		if r.Tampered > 0 || r.NotUnderstood+r.Truncated == 0 || r.Bans > 0 {
			t.Errorf("%s: %+v, %q", what, r.Files, briefs(r.decisions))
		}
		if f := r.Files[0].First; r.NotUnderstood > 0 && (f.Why == "" || f.Try == "" || f.Excerpt == "") {
			t.Errorf("%s: %+v", what, f)
		}
	}
	// The line is that where the wireEvent begins.
	r := runBytes(t, []byte(strings.Replace(data, "AccountID: scan1", "AccountId: scan1", 1)))
	lines := strings.Split(data, "\r\n")
	second := 0
	for i, line := range lines {
		if line == "AccountID: scan1" {
			second = i
		}
	}
	if f := r.Files[0].First; r.NotUnderstood != 1 || lines[f.Line-1] != "Event: InvalidAccountID" ||
		second-int(f.Line) > 8 {
		t.Errorf("%+v", r.Files[0])
	}
}

func TestRepeatedMessagesAreJudgedAsOftenAsTheySay(t *testing.T) {
	e := unknown(0, "scan", "192.0.2.7")
	line := func(n string) []byte {
		return []byte("May 21 14:53:30 pbx asterisk[8]: " + n +
			"SECURITY[1]: res_security_log.c:114 in security_event_stasis_cb: " + e.message() + "]\n")
	}
	once := bytes.Repeat(bytes.Replace(line(""), []byte("]\n"), []byte("\n"), 1), 40)
	a, b := runBytes(t, once), runBytes(t, line("message repeated 40 times: [ "))
	if got, want := fmt.Sprint(briefs(b.decisions)),
		fmt.Sprint(briefs(a.decisions)); got != want || b.Events != a.Events || b.Decoded != 1 || b.Repeated != 39 {
		t.Errorf("%s, want %s; %d events, want %d", got, want, b.Events, a.Events)
	}
	if a.Accounts[0] != b.Accounts[0] || b.Accounts[0] != (replay.AccountSummary{Account: "scan", Failures: 40}) {
		t.Errorf("%+v and %+v", a.Accounts, b.Accounts)
	}
	if r := runBytes(t, line("message repeated 999999999 times: [ ")); r.Repeated != 999999998 {
		t.Errorf("%+v", r.Files)
	}
}
