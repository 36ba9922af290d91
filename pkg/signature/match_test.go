package signature

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/sip"
)

var morning = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

func builtinList(t testing.TB) *List {
	t.Helper()
	l, err := Load(true, nil, morning)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func listOf(t testing.TB, text string) *List {
	t.Helper()
	l := newList(morning)
	if err := l.read("list", strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return l
}

// request parses one with these headers instead of its own.
func request(t testing.TB, headers ...string) *sip.Message {
	t.Helper()
	text := "INVITE sip:100@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.9;branch=z9hG4bK-1\r\n" +
		"Call-ID: 1\r\nCSeq: 1 INVITE\r\n"
	all := map[string]string{
		"From": "<sip:6001@192.0.2.1>;tag=1", "To": "<sip:100@192.0.2.1>", "Contact": "<sip:6001@198.51.100.9>",
		"User-Agent": "Yealink SIP-T46S 66.85.0.5",
	}
	for _, header := range headers {
		if strings.HasPrefix(header, "INVITE ") {
			_, rest, _ := strings.Cut(text, "\r\n")
			text = header + "\r\n" + rest
			continue
		}
		name, value, _ := strings.Cut(header, ": ")
		all[name] = value
	}
	for name, value := range all {
		text += name + ": " + value + "\r\n"
	}
	var m sip.Message
	if err := sip.Parse([]byte(text+"\r\n"), &m); err != nil {
		t.Fatal(err)
	}
	return &m
}

func TestBuiltinMarks(t *testing.T) {
	l := builtinList(t)
	for _, row := range []struct{ header, want string }{
		{"User-Agent: friendly-scanner", "agent friendly-scanner"},
		{"User-Agent: Friendly-Scanner", "agent friendly-scanner"},
		{"User-Agent: sipcli/v1.8", "agent sipcli"},
		{"User-Agent: VaxSIPUserAgent/3.1", ""}, // a kit that softphones are made with, too
		{"User-Agent: smap 0.6.0", "agent smap"},
		{"User-Agent: x (iWar)", "agent iWar"},
		{"User-Agent: \xff\xfe sundayddr", "agent sundayddr"},
		{`From: "sipvicious"<sip:100@1.1.1.1>;tag=6433396536`, "from @1.1.1.1"},
		{"From: sip:sipvicious@192.0.2.1", "identity sipvicious@"},
		{"To: <sip:SIPsscuser@192.0.2.1>", "identity sipsscuser@"},
		{"Contact: <sip:censysinspect@198.51.100.9:5060>", "identity censysinspect@"},
		{"Contact: <sip:alice@pc33.Atlanta.com>", "contact @pc33.atlanta.com"},
		{"INVITE sip:' or 1=1--@192.0.2.1 SIP/2.0", "injection ' or 1"},
		{"INVITE sip:a'%20OR%20'b@192.0.2.1 SIP/2.0", "injection ' or '"},
		{"To: <sip:a'%6fr'b@192.0.2.1>", "injection 'or'"},
		{"From: <sip:1%20union%20select%202@192.0.2.1>", "injection union select"},
		{"From: <sip:${SHELL(id)}@192.0.2.1>", "injection ${"},
		{"To: <sip:x';--@192.0.2.1>", "injection ';--"},
		{"To: <sip:..%2f..%2fetc%2fpasswd@192.0.2.1>", "injection ../../"},
		// What must never fit.
		{"User-Agent: 3CXPhoneSystem 18.0.5", ""},
		{"User-Agent: my-friendly-scanner", ""},
		{"User-Agent: friendly-scanner2", ""},
		{"User-Agent: sipclient 1.0", ""},
		{"User-Agent: ", ""},
		{"User-Agent: sipsak 0.9.6", ""},
		{"User-Agent: Linksys/SPA942-6.1.5(a)", ""},
		{"User-Agent: FPBX-16.0.40(18.20.0)", ""},
		{"User-Agent: Z 3.9.32144 r32121", ""},
		{`From: "O'Brien ' or '1'='1" <sip:6001@192.0.2.1>`, ""},
		{"From: <sip:o'brien@192.0.2.1>", ""},
		{"From: <sip:friendly-scanner@192.0.2.1>", ""},
		{"From: <sip:100@11.1.1.1>", ""},
		{"From: <sip:100@1.1.1.1.example.org>", ""},
		{"To: <sip:100@1.1.1.1>", ""},
		{"To: <sip:*72%23@xn--mnchen-3ya.example>", ""},
		{"Contact: <sip:' or '@198.51.100.9>", ""},
		{"INVITE sip:reunion%20selection@192.0.2.1 SIP/2.0", ""},
	} {
		got, ok := l.Match(request(t, row.header))
		if got != row.want || ok != (row.want != "") {
			t.Errorf("%q: %q, %v instead of %q", row.header, got, ok, row.want)
		}
	}
}

func TestAnswersFitNothing(t *testing.T) {
	var m sip.Message
	text := "SIP/2.0 200 OK\r\nServer: friendly-scanner\r\nFrom: <sip:1@1.1.1.1>\r\n\r\n"
	if err := sip.Parse([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	if line, ok := builtinList(t).Match(&m); ok {
		t.Error(line)
	}
	if _, ok := (*List)(nil).Match(request(t, "User-Agent: friendly-scanner")); ok {
		t.Error("no list has a line")
	}
}

// A mark inside a word is none, whatever byte stands beside it.
func TestNoMarkInsideAWord(t *testing.T) {
	l := builtinList(t)
	tried := 0
	for _, m := range l.marks {
		if m.text == "" {
			continue // of an address, all of user or host
		}
		try := func(text string, want bool) {
			t.Helper()
			tried++
			var message sip.Message
			switch m.kind {
			case agentKind:
				message.UserAgent = []byte(text)
			case injectionKind:
				message.To.User = []byte(text)
			}
			line, ok := l.Match(&message)
			if got := ok && line == m.name; got != want && !(want && ok) {
				t.Errorf("%s in %q: %v", m.name, text, got)
			}
		}
		for c := range 256 {
			for _, text := range []string{m.text, strings.ToUpper(m.text)} {
				before, after := isWord(byte(c)) && isWord(m.text[0]), isWord(byte(c)) && isWord(m.text[len(m.text)-1])
				try(string([]byte{byte(c)})+text, !before)
				try(text+string([]byte{byte(c)}), !after)
				try("x y "+text+" y x", true)
			}
		}
	}
	if tried < 256*2*30 {
		t.Errorf("only %d tried", tried)
	}
}

// Real phones, PBXes, gateways and providers: none bears a mark.
func TestNoRealUserAgentFits(t *testing.T) {
	text, err := os.ReadFile("testdata/useragents.txt")
	if err != nil {
		t.Fatal(err)
	}
	l, seen := builtinList(t), make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if seen[line] {
			t.Errorf("%q is there twice", line)
		}
		seen[line] = true
		if mark, ok := l.Match(request(t, "User-Agent: "+line)); ok {
			t.Errorf("%q bears %q", line, mark)
		}
	}
	if len(seen) < 200 {
		t.Errorf("only %d", len(seen))
	}
}

func TestNoMatchAllocatesNothing(t *testing.T) {
	l := builtinList(t)
	m := request(t, "User-Agent: "+strings.Repeat("word ", 200), "From: <sip:o'brien%27;x=1@pbx.example.org>")
	if n := testing.AllocsPerRun(100, func() {
		if _, ok := l.Match(m); ok {
			t.Error("a match")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkMatch(b *testing.B) {
	manyLines := &strings.Builder{}
	for i := range 5000 {
		fmt.Fprintf(manyLines, "agent scanner-%d\nidentity user%d@\n", i, i)
	}
	for name, l := range map[string]*List{"builtin": builtinList(b), "10000 lines": listOf(b, manyLines.String())} {
		b.Run(name, func(b *testing.B) {
			m := request(b)
			b.ReportAllocs()
			for b.Loop() {
				l.Match(m)
			}
		})
	}
}

// What Match says is what a slow and plain search says.
func FuzzMatch(f *testing.F) {
	f.Add("agent sip cli\nagent sipcli", []byte("x sip cli"), []byte("%27 or "))
	f.Add("injection ' or\ninjection a+", []byte("\xff"), []byte("a%2b%"))
	f.Fuzz(func(t *testing.T, lines string, agent, user []byte) {
		l := newList(morning)
		_ = l.read("list", strings.NewReader(lines))
		m := sip.Message{UserAgent: agent}
		m.To.User = user
		line, ok := l.Match(&m)
		lowered := func(b []byte) string { return string(toLowerBytes(b[:min(len(b), maxSearched)])) }
		want := false
		for _, mark := range l.marks {
			fit := false
			switch mark.kind {
			case agentKind:
				fit = plainly(lowered(agent), mark.text)
			case injectionKind:
				fit = plainly(lowered(unescape(make([]byte, 0, maxSearched), user)), mark.text)
			case toKind, identityKind:
				fit = mark.host == "" && string(toLowerBytes(user)) == mark.user
			}
			want = want || fit
			if ok && mark.name == line && !fit {
				t.Fatalf("%q does not fit %q, %q", line, agent, user)
			}
		}
		if want != ok {
			t.Fatalf("%v instead of %v for %q, %q and %q", ok, want, lines, agent, user)
		}
	})
}

func toLowerBytes(b []byte) []byte {
	b = bytes.Clone(b)
	for i, c := range b {
		b[i] = lowerByte(c)
	}
	return b
}

func plainly(text, mark string) bool {
	for i := range len(text) {
		if !strings.HasPrefix(text[i:], mark) {
			continue
		}
		end := i + len(mark)
		cutsBefore := i > 0 && isWord(text[i-1]) && isWord(mark[0])
		cutsAfter := end < len(text) && isWord(text[end]) && isWord(mark[len(mark)-1])
		if !cutsBefore && !cutsAfter {
			return true
		}
	}
	return false
}
