package replay

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"html"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
)

// entry is one wireEvent in the forms in which Asterisk itself writes it.
type entry struct {
	message string // what res_security_log.c composes
	file    string // a line of a log file
	tagged  string // what goes to syslog
	console string // what goes to a container's log
}

var began = time.Date(2025, 5, 21, 14, 53, 30, 101e6, time.UTC)

// source sends all entries.
const source = "203.0.113.78"

func newEntry(i int, account, session string) entry {
	m := fmt.Sprintf(`SecurityEvent="InvalidAccountID",EventTV="%s",Severity="Error",Service="PJSIP",EventVersion="1",AccountID="%s",`+
		`SessionID="%s",LocalAddress="IPV4/UDP/192.0.2.10/5060",RemoteAddress="IPV4/UDP/%s/50500"`,
		began.Add(time.Duration(i)*time.Second).Format("2006-01-02T15:04:05.000-0700"), account, session, source)
	return asterisk(m)
}

func asterisk(message string) entry {
	return entry{
		message: message,
		file:    "[2025-05-21 14:53:30] SECURITY[145] res_security_log.c: " + message,
		tagged:  "SECURITY[145]: res_security_log.c:114 in security_event_stasis_cb: " + message,
		console: "[May 21 14:53:30] SECURITY[145]: res_security_log.c:114 security_event_stasis_cb: " + message,
	}
}

// five are five events of one scanner.
func five() []entry {
	var list []entry
	for i := range 5 {
		list = append(list, newEntry(i, fmt.Sprint(100+i), fmt.Sprintf("%dabc", i)))
	}
	return list
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// each makes a file of one line, or several, for each entry.
func each(line func(e entry) string) func([]entry) string {
	return func(list []entry) string {
		var b strings.Builder
		for _, e := range list {
			b.WriteString(line(e) + "\n")
		}
		return b.String()
	}
}

func plainFile(list []entry) string { return each(func(e entry) string { return e.file })(list) }

func utf16File(big, mark bool) func([]entry) string {
	return func(list []entry) string {
		var order binary.AppendByteOrder = binary.LittleEndian
		if big {
			order = binary.BigEndian
		}
		var b []byte
		if mark {
			b = order.AppendUint16(b, 0xfeff)
		}
		for _, c := range utf16.Encode([]rune(plainFile(list))) {
			b = order.AppendUint16(b, c)
		}
		return string(b)
	}
}

// console is a line with the colours of Asterisk's console, whose ESC [ is written as esc.
func coloured(esc string) func(e entry) string {
	return func(e entry) string {
		s := "May 21 14:53:30 pbx asterisk[8]: [2025-05-21 14:53:30] \x1b[1;33mSECURITY\x1b[0m[145]: " +
			"\x1b[1;37mres_security_log.c\x1b[0m:" +
			"\x1b[1;37m114\x1b[0m \x1b[1;37msecurity_event_stasis_cb\x1b[0m: "
		return strings.ReplaceAll(s, "\x1b[", esc) + e.message
	}
}

func csvQuoted(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

func smart(open, closed string) func(e entry) string {
	return func(e entry) string {
		s := strings.ReplaceAll(e.file, `="`, "="+open)
		return strings.ReplaceAll(s, `"`, closed)
	}
}

type shape struct {
	name string
	file func([]entry) string
}

// shapes are what people have around Asterisk's lines, and other than what was sent to us (testdata/asfound).
var shapes = []shape{
	{"as Asterisk writes it", plainFile},
	{"kubectl logs --prefix", each(func(e entry) string { return "[pod/asterisk-0/asterisk] " + e.console })},
	{"kubectl logs --prefix --timestamps", each(func(e entry) string {
		return "[pod/asterisk-0/asterisk] 2025-05-21T14:53:30.111222333Z " + e.console
	})},
	{"stern", each(func(e entry) string { return "asterisk-0 asterisk " + e.console })},
	{"stern in colours", each(func(e entry) string {
		return "\x1b[36masterisk-0\x1b[0m \x1b[32masterisk\x1b[0m " +
			e.console
	})},
	{"docker compose with long names", each(func(e entry) string {
		return "asterisk-1                      | " +
			e.console
	})},
	{"docker compose in colours", each(func(e entry) string { return "\x1b[36masterisk-1  | \x1b[0m" + e.console })},
	{"docker service logs", each(func(e entry) string { return "pbx_asterisk.1.x3kq@node-1    | " + e.console })},
	{"CRI in grep", each(func(e entry) string {
		return "/var/log/pods/a/0.log:2025-05-21T14:53:30.1+00:00 stdout F " +
			e.console
	})},
	{"grep -Hn", each(func(e entry) string { return "/var/log/asterisk/full:812:" + e.file })},
	{"grep -n", each(func(e entry) string { return "812:" + e.file })},
	{"grep -Hnb", each(func(e entry) string { return "full.1:812:90210:" + e.file })},
	{"grep of a name alone", each(func(e entry) string { return "full:" + e.file })},
	{"grep of stdin", each(func(e entry) string { return "(standard input):" + e.file })},
	{"zgrep of syslog", each(func(e entry) string {
		return "/var/log/messages-20250521.gz:May 21 14:53:30 pbx asterisk[8]: " + e.tagged
	})},
	{"findstr", each(func(e entry) string { return `C:\logs\full:` + e.file })},
	{"grep --color", each(func(e entry) string {
		return "\x1b[35m\x1b[Kfull\x1b[m\x1b[K\x1b[36m\x1b[K:\x1b[m\x1b[K" +
			strings.Replace(e.file, "SECURITY", "\x1b[01;31m\x1b[KSECURITY\x1b[m\x1b[K", 1)
	})},
	{"grep --color of an address", each(func(e entry) string {
		return strings.Replace(e.file, source, "\x1b[01;31m\x1b[K"+source+"\x1b[m\x1b[K", 1)
	})},
	{"RFC 5424 with a byte order mark", each(func(e entry) string {
		return "<133>1 2025-05-21T14:53:30.101Z pbx " +
			"asterisk 8 - - \ufeff" + e.tagged
	})},
	{"RFC 5424 with data and a byte order mark", each(func(e entry) string {
		return `<133>1 2025-05-21T14:53:30.101Z pbx asterisk 8 - [a@1 k="]\"\\" l="x y"][b@2] ` + "\ufeff" + e.tagged
	})},
	{"RFC 5424 with counts", each(func(e entry) string {
		s := `<133>1 2025-05-21T14:53:30.101Z pbx asterisk 8 - [timeQuality tzKnown="1"] ` + e.tagged
		return fmt.Sprint(len(s)+1, " ", s)
	})},
	{"journalctl -o verbose", each(func(e entry) string {
		return "Wed 2025-05-21 14:53:30.101000 UTC [s=1;i=2;b=3;m=4;t=5;x=6]\n    _TRANSPORT=syslog\n    " +
			"PRIORITY=5\n    SYSLOG_IDENTIFIER=asterisk\n    MESSAGE=" + e.tagged
	})},
	{"journalctl -o verbose of a container", each(func(e entry) string {
		return "Wed 2025-05-21 14:53:30.101000 UTC [s=1;i=2;b=3;m=4;t=5;x=6]\n    CONTAINER_NAME=asterisk\n    " +
			"MESSAGE=" + e.console + "\n    PRIORITY=6"
	})},
	{"journalctl -o verbose, grepped", each(func(e entry) string { return "MESSAGE=" + e.tagged })},
	{"journalctl -o short-monotonic", each(func(e entry) string {
		return "[   12.345678] pbx asterisk[8]: " +
			e.tagged
	})},
	{"journalctl -o short-full", each(func(e entry) string {
		return "Wed 2025-05-21 14:53:30 UTC pbx asterisk[8]: " +
			e.tagged
	})},
	{"journalctl -o json-pretty", each(func(e entry) string {
		return "{\n\t\"PRIORITY\" : \"5\",\n\t\"MESSAGE\" : " + quoted(e.tagged) + ",\n\t\"_PID\" : \"8\"\n}"
	})},
	{"journalctl -o json-pretty in colours", each(func(e entry) string {
		var list []string
		for _, c := range []byte(coloured("\x1b[")(e)) {
			list = append(list, fmt.Sprintf("\t\t%d", c))
		}
		return "{\n\t\"MESSAGE\" : [\n" + strings.Join(list, ",\n") + "\n\t],\n\t\"_PID\" : \"8\"\n}"
	})},
	{"journalctl -o json-seq", each(func(e entry) string { return "\x1e{\"MESSAGE\":" + quoted(e.tagged) + "}" })},
	{"journalctl -o json-sse", each(func(e entry) string { return "data: {\"MESSAGE\":" + quoted(e.tagged) + "}\n" })},
	{"journalctl -o export", each(func(e entry) string {
		return "__CURSOR=s=1\n__REALTIME_TIMESTAMP=1747839210101000\nMESSAGE=" + e.tagged +
			"\nSYSLOG_IDENTIFIER=asterisk\n"
	})},
	{"journalctl -o export, binary", each(func(e entry) string {
		field := func(name, value string) string {
			return name + "\n" + string(binary.LittleEndian.AppendUint64(nil, uint64(len(value)))) + value + "\n"
		}
		return "__CURSOR=s=1\n" + field("COREDUMP", strings.Repeat("\x00\n\nMESSAGE=x\n", 500)) +
			field("MESSAGE", coloured("\x1b[")(e)) + "_PID=8\n"
	})},
	{"GELF", each(func(e entry) string {
		return `{"version":"1.1","host":"pbx","short_message":` + quoted(e.file[:min(64, len(e.file))]) +
			`,"full_message":` + quoted(e.file) + `,"level":5}`
	})},
	{"Loki, one line each", each(func(e entry) string {
		return `{"labels":{"job":"asterisk"},"line":` + quoted(e.file) + `,"timestamp":"2025-05-21T14:53:30Z"}`
	})},
	{"Loki's answer", func(list []entry) string {
		var values []string
		for _, e := range list {
			values = append(values, `["1747839210101000000",`+quoted(e.file)+`]`)
		}
		return `{"status":"success","data":{"resultType":"streams","result":[{"stream":{"job":"asterisk"},"values":[` +
			strings.Join(values, ",") + `]}],"stats":{}}}` + "\n"
	}},
	{"logcli", each(func(e entry) string {
		return `2025-05-21T14:53:30Z {filename="/var/log/asterisk/full", job="a\"}"} ` + e.file
	})},
	{"a list from Grafana", func(list []entry) string {
		var items []string
		for _, e := range list {
			items = append(items, "  {\n    \"line\": "+quoted(e.file)+",\n    \"timestamp\": "+
				"\"1747839210101000000\",\n    \"fields\": {}\n  }")
		}
		return "[\n" + strings.Join(items, ",\n") + "\n]\n"
	}},
	{"a list on one line", func(list []entry) string {
		var items []string
		for _, e := range list {
			items = append(items, `{"message":`+quoted(e.file)+`}`)
		}
		return "[" + strings.Join(items, ",") + "]\n"
	}},
	{"a list, an object a line", func(list []entry) string {
		var items []string
		for _, e := range list {
			items = append(items, `  {"msg":`+quoted(e.file)+`}`)
		}
		return "[\n" + strings.Join(items, ",\n") + "\n]\n"
	}},
	{"Elasticsearch", each(func(e entry) string {
		return `{"_index":"a","_source":{"message":` + quoted(e.file) + `},"fields":{"message":[` + quoted(e.file) +
			`]}}`
	})},
	{"Splunk", each(func(e entry) string {
		return `{"preview":false,"result":{"_raw":` + quoted(e.file) +
			`,"host":"pbx"}}`
	})},
	{"OpenTelemetry", each(func(e entry) string {
		return `{"body":{"stringValue":` + quoted(e.file) +
			`},"severityText":"x"}`
	})},
	{"Google", each(func(e entry) string { return `{"textPayload":` + quoted(e.console) + `,"resource":{}}` })},
	{"bytes in JSON", each(func(e entry) string {
		b, _ := json.Marshal(func() (list []int) {
			for _, c := range []byte(e.tagged) {
				list = append(list, int(c))
			}
			return list
		}())
		return `{"MESSAGE":` + string(b) + `}`
	})},
	{"docker's JSON in grep", each(func(e entry) string {
		return `/var/lib/docker/containers/a/a-json.log:{"log":` + quoted(e.console+"\n") + `}`
	})},
	{"a string of JSON", each(func(e entry) string { return quoted(e.file) })},
	{"a piece of JSON", each(func(e entry) string { return quoted(e.file)[1 : len(quoted(e.file))-1] })},
	{"CSV", each(func(e entry) string { return csvQuoted(e.file) })},
	{"CSV with columns", each(func(e entry) string { return "2025-05-21,pbx," + csvQuoted(e.file) + ",x" })},
	{"CSV with semicolons", each(func(e entry) string { return `"2025-05-21";` + csvQuoted(e.tagged) })},
	{"TSV", each(func(e entry) string { return "2025-05-21\t" + csvQuoted(e.file) })},
	{"CSV of Grafana", each(func(e entry) string {
		return csvQuoted(`{"filename":"/var/log/asterisk/full"}`) + ",1747839210101," + csvQuoted(e.file) +
			",1747839210101000000,{},1_2"
	})},
	{"CSV with a head", func(list []entry) string {
		return "Date,Host,Message\n" + each(func(e entry) string { return "x,y," + csvQuoted(e.file) })(list)
	}},
	{"HTML", each(func(e entry) string { return html.EscapeString(e.file) })},
	{"HTML of a forum", each(func(e entry) string {
		return strings.NewReplacer("&", "&amp;", `"`, "&quot;", "<", "&lt;", ">", "&gt;").Replace(e.file)
	})},
	{"typographic quotes", each(smart("“", "”"))},
	{"typographic quotes, all alike", each(smart("”", "”"))},
	{"German quotes", each(smart("„", "“"))},
	{"message repeated", each(func(e entry) string {
		return "May 21 14:53:30 pbx asterisk[8]: message repeated 1 times: [ " + e.tagged + "]"
	})},
	{"message repeated, raw", each(func(e entry) string {
		return "<133>May 21 14:53:30 pbx asterisk: message repeated 1 times: [ " + e.tagged + "]"
	})},
	{"message repeated in grep", each(func(e entry) string {
		return "messages:May 21 14:53:30 pbx asterisk[8]: message repeated 1 times: [ " + e.tagged + "]"
	})},
	{"blanks at the ends", each(func(e entry) string { return e.file + "  \t " })},
	{"a tab before", each(func(e entry) string { return "\t" + e.file })},
	{"cat -A", each(func(e entry) string { return strings.ReplaceAll(coloured("^[[")(e), "\t", "^I") + "^M$" })},
	{"a doubled CR", each(func(e entry) string { return e.file + "\r\r" })},
	{"a byte order mark", func(list []entry) string { return "\ufeff" + plainFile(list) }},
	{"UTF-16", utf16File(false, true)},
	{"UTF-16, big", utf16File(true, true)},
	{"UTF-16 without a mark", utf16File(false, false)},
	{"colours", each(coloured("\x1b["))},
	{"colours of rsyslog", each(coloured("#033["))},
	{"colours of cat -v", each(coloured("^[["))},
	{"colours in hexadecimal", each(coloured(`\x1b[`))},
	{"colours in large hexadecimal", each(coloured(`\x1B[`))},
	{"colours in octal", each(coloured(`\033[`))},
	{"colours of JSON", each(coloured(`\u001b[`))},
	{"colours of the shell", each(coloured(`\e[`))},
	{"colours as a picture", each(coloured("\u241b["))},
	{"colours of Windows", each(coloured("\u2190["))},
	{"colours without ESC", each(coloured("["))},
}

// found is what a file gave.
type found struct {
	events []event.Event
	counts FileSummary
	times  int64
}

func readAll(t testing.TB, data string) found {
	t.Helper()
	n := int64(0)
	s := openRecording("-", strings.NewReader(data), &progressMeter{ctx: t.Context(), events: &n, last: time.Now()})
	f := found{}
	for ; !s.done; s.readNext() {
		ev := s.ev
		ev.Account, ev.Session = strings.Clone(ev.Account), strings.Clone(ev.Session)
		f.events = append(f.events, ev)
		f.times += s.repeats
		if len(f.events) > 1000 {
			t.Fatal("there is no end")
		}
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	f.counts = s.counts
	return f
}

func TestShapesOfLogs(t *testing.T) {
	want := readAll(t, plainFile(five())).events
	if len(want) != 5 || want[4].Account != "104" || want[4].Remote.AddrPort.Addr() != netip.MustParseAddr(source) {
		t.Fatalf("%+v", want)
	}
	for _, s := range shapes {
		t.Run(s.name, func(t *testing.T) {
			got := readAll(t, s.file(five()))
			if fmt.Sprint(got.events) != fmt.Sprint(want) || got.times != 5 {
				t.Errorf("%d times, %+v", got.times, got.events)
			}
			if c := got.counts; c.Tampered+c.NotUnderstood+c.Truncated+c.Skipped > 0 {
				t.Errorf("%+v", c)
			}
		})
	}
}

// TestShapesWithNamesThatNeedCare has names that each shape must carry as they are.
func TestShapesWithNamesThatNeedCare(t *testing.T) {
	for _, name := range []string{`a b`, `<unknown>`, `Jürgen & Söhne`, `it's`, `100%`, `a,b;c`, `{x}`, `[y]`, `a\b`,
		`&quot;`, `&amp;quot;`, `#12`} {
		for _, s := range shapes {
			got := readAll(t, s.file([]entry{newEntry(0, name, "x"), newEntry(1, "y", name)}))
			if len(got.events) != 2 || got.events[0].Account != name || got.events[1].Session != name {
				t.Errorf("%s: %q: %+v, %+v", s.name, name, got.events, got.counts)
			}
		}
	}
}

const victim = "8.8.8.8"

// forgedEntry is an event that the victim never caused.
func forgedEntry() entry {
	e := newEntry(0, "1", "1")
	return asterisk(strings.Replace(e.message, source, victim, 1))
}

// hostileNames are names of accounts that pose as what logs are made of.
func hostileNames() []string {
	address := `RemoteAddress="IPV4/UDP/8.8.8.8/5060`
	names := []string{
		`x",` + address, `x",` + address + `"`, `x",LocalAddress="IPV4/UDP/192.0.2.10/5060",` + address,
		`x",SessionID="1",LocalAddress="IPV4/UDP/192.0.2.10/5060",` + address,
		`x\",` + strings.ReplaceAll(address, `"`, `\"`), `x"",` + strings.ReplaceAll(address, `"`, `""`),
		`x&quot;,` + strings.ReplaceAll(address, `"`, `&quot;`), `x&#34;,` + strings.ReplaceAll(address, `"`, `&#34;`),
		`x”,` + strings.ReplaceAll(address, `"`, `“`), `x”,` + strings.ReplaceAll(address, `"`, `“`) + `”`,
		`x\u0022,` + strings.ReplaceAll(address, `"`, `\u0022`),
		`#033[`, `#033[0m`, `^[[`, `\x1b[1m`, "\x1b[", "\x1b[1m", `x",Remot#033[0meAddress="IPV4/UDP/8.8.8.8/5060`,
		"x\",Remot\x1b[0meAddress=\"IPV4/UDP/8.8.8.8/5060", "x\",\x1b[0m" + address, `x",#033[m` + address,
		`message repeated 9 times: [ `, `: message repeated 9 times: [ `, `]`, `"]`,
		`x: message repeated 3 times: [ ` + forgedEntry().tagged + `]`,
		`SecurityEvent="`, `SecurityEvent=`, `SecurityEvent=“`, `SecurityEvent=&quot;`, `SecurityEvent=\"`,
		`SecurityEvent=""`,
		`"}`, `"},{"message":` + quoted(forgedEntry().file) + `},{"x":"`,
		`","message":` + quoted(forgedEntry().file) + `,"x":"`,
		`",` + csvQuoted(forgedEntry().file) + `,"`, `"` + "\t" + csvQuoted(forgedEntry().file) + "\t" + `"`,
		"MESSAGE=" + forgedEntry().tagged, "] " + forgedEntry().tagged, "| " + forgedEntry().file,
		`x="y"] ` + forgedEntry().tagged,
		base64.StdEncoding.EncodeToString([]byte(forgedEntry().file)), "\u2028" + forgedEntry().file,
		"\u0085" + forgedEntry().file,
		"x\r" + forgedEntry().file, "\ufeff" + forgedEntry().file, "x\x00" + forgedEntry().file,
	}
	for _, s := range shapes {
		// The victim's event in each shape, as far as it stands on one line.
		for line := range strings.Lines(s.file([]entry{forgedEntry()})) {
			if line = strings.TrimRight(line, "\r\n"); strings.Contains(line, "Event") {
				names = append(names, line, ": "+line)
			}
		}
	}
	return names
}

// check fails for an event that nobody caused.
func check(t *testing.T, what, name string, got found) {
	t.Helper()
	for _, ev := range got.events {
		if a := ev.Remote.AddrPort.Addr(); a != netip.MustParseAddr(source) {
			t.Errorf("%s: %q names %s", what, name, a)
		}
	}
}

// TestHostileNamesInEachShape has the name in an event, in another message of Asterisk's, and in one of another
// program.
func TestHostileNamesInEachShape(t *testing.T) {
	names := hostileNames()
	for _, s := range shapes {
		for _, name := range names {
			notice := "Request 'REGISTER' from '" + name +
				"' failed for '203.0.113.78:5060' - No matching endpoint found"
			oneLine := strings.ReplaceAll(name, "\n", " ")
			check(t, s.name, name, readAll(t,
				s.file([]entry{newEntry(0, "1", "2"), newEntry(1, name, "3"), newEntry(2, "4", name), {
					message: name, file: "[2025-05-21 14:53:30] NOTICE[1] res_pjsip/pjsip_distributor.c: " + notice,
					tagged: "NOTICE[1]: res_pjsip/pjsip_distributor.c:676 in log_failed_request: " + notice,
					console: "[May 21 14:53:30] NOTICE[1]: res_pjsip/pjsip_distributor.c:676 log_failed_request: " +
						notice,
				}, {
					message: name, file: "[2025-05-21 14:53:30] NOTICE[1] chan_sip.c: " + name,
					tagged:  "NOTICE[1]: chan_sip.c:12 in handle: " + name,
					console: "[May 21 14:53:30] VERBOSE[1]: pbx.c:12 handle: " + name,
				}})+"May 21 14:53:30 pbx kamailio[812]: INFO: "+oneLine+"\n"+`10.99.0.66 - - [22/Nov/2026] "GET / `+oneLine+"\"\n"))
		}
	}
}

// TestCarelessCarriersNameNobody has programs in the way that escape some of a line and not the rest.
func TestCarelessCarriersNameNobody(t *testing.T) {
	careless := map[string]func(string) string{
		"HTML without &":   strings.NewReplacer(`"`, "&quot;").Replace,
		"quotes as quotes": strings.NewReplacer(`"`, `\"`).Replace,
		"doubled quotes":   func(s string) string { return `"` + s + `"` },
		"smart":            strings.NewReplacer(`="`, "=“", `"`, "”").Replace,
		"JSON by hand":     func(s string) string { return `{"message":"` + strings.ReplaceAll(s, `"`, `\"`) + `"}` },
		"cut off":          func(s string) string { return s[:len(s)-7] },
	}
	for what, f := range careless {
		for _, name := range hostileNames() {
			data := f(newEntry(0, "1", "2").file) + "\n" + f(newEntry(1, name, "3").file) + "\n" +
				f(newEntry(1, "4", name).file) + "\n"
			check(t, what, name, readAll(t, data))
		}
	}
}

// TestMangledLogsAccuseNobody has what people, editors and log programs do to lines that nobody attacked.
func TestMangledLogsAccuseNobody(t *testing.T) {
	whole := plainFile(five())
	wrap := func(width int, by string) string {
		var b strings.Builder
		for line := range strings.Lines(whole) {
			for line = strings.TrimSuffix(line, "\n"); len(line) > width; line = line[width:] {
				b.WriteString(line[:width] + by)
			}
			b.WriteString(line + "\n")
		}
		return b.String()
	}
	for what, data := range map[string]string{
		"addresses taken out":        strings.ReplaceAll(whole, "203.0.113.78", "x.x.x.x"),
		"addresses shortened":        strings.ReplaceAll(whole, "203.0.113.78", "203.0.113.xxx"),
		"the account taken out":      strings.ReplaceAll(whole, `AccountID="10`, `AccountI="10`),
		"a field taken out":          strings.ReplaceAll(whole, `Severity="Error",`, ""),
		"a field that is new":        strings.ReplaceAll(whole, "/50500\"", `/50500",TenantID="5"`),
		"another time":               strings.ReplaceAll(whole, `EventTV="2025-05-21T`, `EventTV="21.05.2025 `),
		"a clock that was never set": strings.ReplaceAll(whole, `EventTV="2025-05-21T`, `EventTV="1970-01-01T`),
		"another file":               strings.ReplaceAll(whole, "res_security_log.c", "my_security.c"),
		"without a head": strings.ReplaceAll(whole,
			"[2025-05-21 14:53:30] SECURITY[145] res_security_log.c: ", ""),
		"an unknown wrapper":        strings.ReplaceAll(whole, "[2025", "a=b, c=[d] [2025"),
		"no quotes":                 strings.ReplaceAll(whole, `"`, ""),
		"single quotes":             strings.ReplaceAll(whole, `"`, "'"),
		"back quotes":               strings.ReplaceAll(whole, `"`, "`"),
		"one smart quote in a name": each(smart("“", "”"))([]entry{newEntry(0, "a“b", "1"), newEntry(1, "2”", "3")}),
		"URL":                       strings.ReplaceAll(whole, `"`, "%22"),
		"latin 1":                   strings.ReplaceAll(whole, `"10`, "\"J\xfcrgen"),
		"cut by syslog":             each(func(e entry) string { return e.file[:200] })(five()),
		"joined":                    strings.ReplaceAll(whole, "\n", " ") + "\n",
		"wrapped at 80":             wrap(80, "\n"),
		"wrapped at 200":            wrap(200, "\n"),
		"wrapped at 210":            wrap(210, "\n"),
		"wrapped at 76 for a mail":  wrap(75, "=\n"),
		"wrapped and indented":      wrap(200, "\n    "),
		"two events in one message": `{"message":` + quoted(whole) + "}\n",
		"JSON cut off":              `{"message":` + quoted(whole[:len(whole)/2]),
		"blobs":                     "May 21 14:53:30 pbx asterisk[8]: [1.2K blob data]\n",
		"equal messages left out":   whole + "May 21 14:53:30 pbx last message repeated 3 times\n",
		"blobs in -o verbose":       "    MESSAGE=[347B blob data]\n",
		"export with LFs cut":       "__CURSOR=x\nMESSAGE\nabc\n\n__CURSOR=x\nMESSAGE=" + five()[0].tagged + "\n\n",
	} {
		got := readAll(t, data)
		check(t, what, "", got)
		if c := got.counts; c.Tampered > 0 || c.NotUnderstood == 0 && c.Truncated == 0 {
			t.Errorf("%s: %+v", what, c)
		}
		if f := got.counts.First; got.counts.NotUnderstood > 0 &&
			(f.Line == 0 || f.Why == "" || f.Try == "" || f.Excerpt == "" || len(f.Excerpt) > excerptBytes+len("…")) {
			t.Errorf("%s: %+v", what, f)
		}
	}
}

// TestWhatOnlyAnAttackerMakesIsTampering has names that bring fields or end lines.
func TestWhatOnlyAnAttackerMakesIsTampering(t *testing.T) {
	whole := plainFile(five())
	for what, data := range map[string]string{
		"a second address":      newEntry(0, `x",RemoteAddress="IPV4/UDP/8.8.8.8/5060`, "1").file + "\n",
		"a second field":        newEntry(0, `x",SessionID="y`, "1").file + "\n",
		"the same, in JSON":     `{"log":` + quoted(newEntry(0, `x",SessionID="y`, "1").file) + "}\n",
		"the same, behind grep": "full:" + newEntry(0, `x",SessionID="y`, "1").file + "\n",
		"a line break":          whole + newEntry(0, "x\ny", "1").file + "\n",
		"several line breaks":   whole + newEntry(0, "x\r\n\r\nEvent: Foo\r\n\r\n", "1").file + "\n",
		"a line break in JSON":  `{"log":` + quoted(newEntry(0, "x\ny", "1").file) + "}\n",
		"an event in a notice":  "[2025-05-21 14:53:30] NOTICE[1] chan_sip.c: Failed for " + forgedEntry().file + "\n",
	} {
		got := readAll(t, data)
		check(t, what, "", got)
		if got.counts.Tampered != 1 || got.counts.NotUnderstood != 0 {
			t.Errorf("%s: %+v", what, got.counts)
		}
	}
}

func TestRepeatedMessagesCountAsOftenAsTheySay(t *testing.T) {
	head := "May 21 14:53:30 pbx asterisk[8]: message repeated "
	for text, want := range map[string]int64{
		"3 times: [ " + five()[0].tagged + "]":       3,
		"12 times: [ " + five()[0].tagged + "]":      12,
		"3 times: [" + five()[0].tagged + "]":        3,
		"1000000 times: [ " + five()[0].tagged + "]": 1000000,
		"0 times: [ " + five()[0].tagged + "]":       0,
		"-3 times: [ " + five()[0].tagged + "]":      0,
		"9999999999 times: [ " + five()[0].tagged:    0,
		"3 times: [ " + five()[0].tagged:             0,
		"3 times: " + five()[0].tagged:               0,
	} {
		got := readAll(t, "x\n"+head+text+"\n")
		if got.times != want || got.counts.Repeated != max(0, want-1) || want == 0 && got.counts.NotUnderstood != 1 {
			t.Errorf("%q: %d, %+v", text[:20], got.times, got.counts)
		}
	}
}

// TestMultiLineMessagesOfTheJournal has a second line that poses as a field, or as a line of the log.
func TestMultiLineMessagesOfTheJournal(t *testing.T) {
	verbose := "Wed 2025-05-21 14:53:30.101000 UTC [s=1]\n    MESSAGE=NOTICE[1]: x.c:1 in y: a\n            "
	for _, line := range []string{"MESSAGE=" + forgedEntry().tagged, forgedEntry().tagged, forgedEntry().file} {
		check(t, "verbose", line, readAll(t, verbose+line+"\n"))
	}
	value := "NOTICE[1]: x.c:1 in y: a\n\nMESSAGE=" + forgedEntry().tagged + "\n\n"
	export := "__CURSOR=x\nMESSAGE\n" + string(binary.LittleEndian.AppendUint64(nil, uint64(len(value)))) + value +
		"\n\n"
	check(t, "export", "", readAll(t, export))
}

func TestGiantFieldsOfTheJournal(t *testing.T) {
	field := func(name, value string) string {
		return name + "\n" + string(binary.LittleEndian.AppendUint64(nil, uint64(len(value)))) + value + "\n"
	}
	giant := strings.Repeat("x", maxLine+2)
	entry := "__CURSOR=1\n" + field("COREDUMP", giant) + "TEXT=" + giant + "\nMESSAGE=" + five()[0].tagged + "\n\n"
	if got := readAll(t, entry+"__CURSOR=2\n"+field("MESSAGE", giant)+"\n"+entry); len(got.events) != 2 {
		t.Errorf("%+v", got.counts)
	}
	if got := readAll(t, "__CURSOR=1\nX\n\xff\xff\xff\xff\xff\xff\xff\xff\n"); got.counts.NotUnderstood != 1 ||
		got.counts.First.Why != whyBinary {
		t.Errorf("%+v", got.counts)
	}
}

// TestABraceAloneSwallowsNothing has what begins as an object over many lines and does not go on so.
func TestABraceAloneSwallowsNothing(t *testing.T) {
	for _, data := range []string{
		"{\n" + plainFile(five()), "{\n{\n{\n" + plainFile(five()), "{\n\"a\": 1\n" + plainFile(five()) + "}\n",
		"{\n\"a\n}\n" + plainFile(five()), "{\n" + plainFile(five()) + "{",
	} {
		if got := readAll(t, data); len(got.events) != 5 {
			t.Errorf("%.20q: %+v", data, got.counts)
		}
	}
	if got := readAll(t, "{\n"+strings.Repeat("\"x\"\n", maxLine/4)+plainFile(five())); len(got.events) != 5 {
		t.Errorf("%+v", got.counts)
	}
	if got := readAll(t, "{}\n{\n"+strings.TrimSuffix(plainFile(five()), "\n")); len(got.events) != 5 {
		t.Errorf("%+v", got.counts)
	}
}

func TestDeepAndWideJSONIsBounded(t *testing.T) {
	for _, data := range []string{
		strings.Repeat(`{"data":`, 10000) + "1" + strings.Repeat("}", 10000) + "\n",
		strings.Repeat("[", 10000) + strings.Repeat("]", 10000) + "\n",
		"[" + strings.Repeat(`{"data":[1]},`, 30000) + "0]\n",
		`{"data":[` + strings.Repeat(`[["1","x"]],`, 30000) + "0]}\n",
	} {
		if got := readAll(t, data+`{"log":`+quoted(five()[0].file)+"}\n"); len(got.events) != 1 {
			t.Errorf("%.40s: %+v", data, got.counts)
		}
	}
}

// FuzzHostileNames puts any name into an event and into a notice, in each shape: no other source than the true one is
// ever named.
func FuzzHostileNames(f *testing.F) {
	for i, name := range hostileNames() {
		f.Add(name, uint8(i%len(shapes)))
	}
	f.Fuzz(func(t *testing.T, name string, which uint8) {
		if len(name) > 4096 || strings.ContainsAny(name, "\r\n") || strings.Contains(name, source) {
			return // a whole line of a log file can be forged by who can end one
		}
		s := shapes[int(which)%len(shapes)]
		check(t, s.name, name, readAll(t, s.file([]entry{newEntry(0, name, "1"), newEntry(1, "2", name),
			asterisk(name), {file: "[2025-05-21 14:53:30] NOTICE[1] chan_sip.c: " + name}})))
	})
}

// FuzzDecodeText feeds any line: nothing breaks, and what is decoded is decoded from what is left by the strict
// decoder.
func FuzzDecodeText(f *testing.F) {
	for _, s := range shapes {
		f.Add([]byte(s.file(five()[:1])))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		line, _, _ := bytes.Cut(data, []byte("\n"))
		var ev, again event.Event
		o := decodeText(string(line), &ev)
		if o.err != nil {
			if ev != (event.Event{}) {
				t.Errorf("%v and %+v", o.err, ev)
			}
			return
		}
		if err := event.DecodeLine(o.text, &again); err != nil || ev != again || o.repeats < 1 {
			t.Errorf("%q: %d times, %+v, %v", o.text, o.repeats, ev, err)
		}
	})
}
