package signature

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/hint"
)

func writeList(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "list.txt")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestFilesOfOnesOwn(t *testing.T) {
	name := writeList(t, "\ufeff# mine\r\n\r\nagent\tBad Dialler\r\nidentity 100@192.0.2.1\nagent sipcli\n"+
		"agent  Bad Dialler\nfrom Mallory@\nto @Evil.example\ninjection {{7*7}}\n")
	l, err := Load(true, []string{name}, morning)
	if err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]string{
		"User-Agent: A bad dialler/1":                    "agent Bad Dialler",
		"User-Agent: bad  dialler":                       "",
		"User-Agent: sipcli":                             "agent sipcli",
		"Contact: <sip:100@192.0.2.1>":                   "identity 100@192.0.2.1",
		"Contact: <sip:100@192.0.2.2>":                   "",
		"From: <sip:mallory@x>":                          "from Mallory@",
		"To: <sip:1@evil.example>":                       "to @Evil.example",
		"From: <sip:1@evil.example>":                     "",
		"INVITE sip:%7b%7B7*7}}@192.0.2.1 SIP/2.0":       "injection {{7*7}}",
		"User-Agent: {{7*7}}":                            "",
		"From: <sip:" + strings.Repeat("a", 200) + "@b>": "",
	} {
		headers := []string{"To: <sip:7@192.0.2.1>", header}
		if got, _ := l.Match(request(t, headers...)); got != want {
			t.Errorf("%q: %q instead of %q", header, got, want)
		}
	}
	counts := l.Counts()
	byLine := make(map[string]Count)
	for _, c := range counts {
		byLine[c.Line] = c
	}
	if c := byLine["agent Bad Dialler"]; c.File != name || c.Number != 3 {
		t.Errorf("%+v", c)
	}
	if c := byLine["agent sipcli"]; c.File != BuiltinName || len(byLine) != len(counts) {
		t.Errorf("a line that is there twice: %+v", c)
	}
	if l, err := Load(false, nil, morning); err != nil || len(l.Counts()) != 0 {
		t.Errorf("no list at all: %v, %v", l, err)
	}
}

func TestFaultsOfAFile(t *testing.T) {
	for text, want := range map[string]string{
		"agent friendly\nagents x": `list:2: "agents": unknown; allowed: agent, from, to, contact, identity, ` +
			`injection`,
		"agent": "list:1: agent: nothing to look for",
		"\n\nagent PBX": `list:3: agent: "PBX" would fit too much; allowed: words with 4 letters or ` +
			`digits and more`,
		"agent x":                           "would fit too much",
		"agent Z 3":                         "would fit too much",
		"agent (scanner":                    "would fit too much",
		"agent ----":                        "would fit too much",
		"agent a\x01bcd":                    `list:1: agent: "a\x01bcd" has an invisible character`,
		"agent ab\xffcd":                    "has an invisible character",
		"agent " + strings.Repeat("x", 129): "list:1: agent: 129 bytes; allowed: up to 128",
		"identity sipvicious":               `list:1: identity: "sipvicious" is no USER@HOST, USER@ or @HOST`,
		"from @":                            "is no USER@HOST",
		"from a@b@c":                        "is no USER@HOST",
		"to <sip:a@b>":                      "is no USER@HOST",
		"injection '":                       `would fit users`,
		"injection select":                  `would fit users`,
	} {
		err := newList(morning).read("list", strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v instead of %q", text, err, want)
		}
	}
	// All faults are told, up to a number of them.
	err := newList(morning).read("list", strings.NewReader("agent a\nfoo\n"+strings.Repeat("x\n", 100)))
	if n := strings.Count(err.Error(), "list:"); n != maxErrors || !strings.Contains(err.Error(), "list:2: ") {
		t.Errorf("%d faults: %v", n, err)
	}
	if err := newList(morning).read("list", strings.NewReader("identity a")); hint.Of(err) == "" {
		t.Errorf("%v says nothing of what to try", err)
	}
}

func TestFilesAreBounded(t *testing.T) {
	text := &strings.Builder{}
	for i := range maxLines + 1 {
		text.WriteString("agent scan")
		for ; i > 0; i /= 26 {
			text.WriteByte(byte('a' + i%26))
		}
		text.WriteByte('\n')
	}
	if _, err := Load(false, []string{writeList(t, text.String())}, morning); err == nil ||
		!strings.Contains(err.Error(), ":10001: more than 10000 lines") {
		t.Errorf("too many lines: %.300v", err)
	}
	if _, err := Load(false, []string{writeList(t, strings.Repeat("#", maxFileBytes+1))}, morning); err == nil ||
		!strings.Contains(err.Error(), "1048577 bytes; allowed: up to 1048576") {
		t.Errorf("too long a file: %v", err)
	}
	if _, err := Load(false, []string{writeList(t, strings.Repeat("#", maxFileBytes))}, morning); err != nil {
		t.Error(err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{fifo, t.TempDir(), "/dev/zero", "/nowhere/list"} {
		if _, err := Load(true, []string{name}, morning); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCountsOfLines(t *testing.T) {
	l := listOf(t, "agent aaaa\nagent bbbb\nagent cccc\n")
	day := 24 * time.Hour
	l.Hit("agent aaaa", false, morning.Add(10*day))
	l.Hit("agent aaaa", true, morning.Add(9*day)) // told late
	l.Hit("agent bbbb", true, morning.Add(day))
	l.Hit("agent bbbb", true, morning.Add(day))
	l.Hit("agent gone", true, morning)
	want := []Count{
		{"agent aaaa", "list", 1, 2, 1, morning, morning.Add(10 * day)},
		{"agent bbbb", "list", 2, 2, 2, morning, morning.Add(day)},
		{"agent cccc", "list", 3, 0, 0, morning, time.Time{}},
	}
	if got := l.Counts(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v instead of %+v", got, want)
	}
	names := func(counts []Count) string {
		text := ""
		for _, c := range counts {
			text += strings.TrimPrefix(c.Line, "agent ") + " "
		}
		return text
	}
	for after, want := range map[time.Duration]string{
		30*day - 1: "", 30 * day: "cccc ", 31 * day: "bbbb cccc ", 40*day - 1: "bbbb cccc ", 40 * day: "aaaa bbbb cccc ",
	} {
		if got := names(l.Unused(morning.Add(after))); got != want {
			t.Errorf("after %v: %q instead of %q", after, got, want)
		}
	}
	if got := names(l.CustomerLines()); got != "bbbb aaaa " {
		t.Errorf("met customers: %q", got)
	}
	// After a reload with other lines the counts go on.
	later := newList(morning.Add(20 * day))
	if err := later.read("list", strings.NewReader("agent dddd\nagent bbbb\n")); err != nil {
		t.Fatal(err)
	}
	later.Restore(l.Counts())
	later.Hit("agent bbbb", false, morning.Add(21*day))
	want = []Count{
		{"agent dddd", "list", 1, 0, 0, morning.Add(20 * day), time.Time{}},
		{"agent bbbb", "list", 2, 3, 2, morning, morning.Add(21 * day)},
	}
	if got := later.Counts(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v instead of %+v", got, want)
	}
}
