package printable_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/printable"
)

func TestStringShowsWhatIsThere(t *testing.T) {
	for name, row := range map[string]struct{ in, want string }{
		"a plain name":                {"201", "201"},
		"an empty name":               {"", ""},
		"a space stays":               {"front desk", "front desk"},
		"accents stay":                {"Zoë", "Zoë"},
		"Chinese stays":               {"电话", "电话"},
		"the colour red":              {"\x1b[31mroot", `\x1b[31mroot`},
		"the one-byte escape":         {"a\u009b2J", `a\u009b2J`},
		"a new line":                  {"a\r\nRemoteAddress: x", `a\x0d\x0aRemoteAddress: x`},
		"a tab":                       {"a\tb", `a\x09b`},
		"NUL and DEL":                 {"\x00\x7f", `\x00\x7f`},
		"override of the direction":   {"a\u202egnp.exe", `a\u202egnp.exe`},
		"embedding and pop":           {"\u202a\u202b\u202c\u202d", `\u202a\u202b\u202c\u202d`},
		"isolates":                    {"\u2066\u2067\u2068\u2069", `\u2066\u2067\u2068\u2069`},
		"marks of direction":          {"\u200e\u200f\u061c", `\u200e\u200f\u061c`},
		"Hebrew would move digits":    {"א1", `\u05d01`},
		"zero width":                  {"2\u200b01\ufeff", `2\u200b01\ufeff`},
		"combining marks":             {"a\u0301\u0302", `a\u0301\u0302`},
		"fillers":                     {"\u3164\u2800", `\u3164\u2800`},
		"no-break space":              {"a\u00a0b", `a\u00a0b`},
		"line separators":             {"\u2028\u2029\u0085", `\u2028\u2029\u0085`},
		"tags":                        {"\U000e0041", `\U000e0041`},
		"bytes that are not UTF-8":    {"a\xff\xfeb", `a\xff\xfeb`},
		"half a character":            {"\xe2\x82", `\xe2\x82`},
		"a surrogate":                 {"\xed\xa0\x80", `\xed\xa0\x80`},
		"a backslash is told apart":   {`\x1b`, `\\x1b`},
		"the replacement character":   {"\ufffd", `\ufffd`},
		"private use shows who knows": {"\ue000", `\ue000`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := printable.String(row.in); got != row.want {
				t.Errorf("String(%q) = %q, want %q", row.in, got, row.want)
			}
		})
	}
}

func TestLimitShortensAndCounts(t *testing.T) {
	for name, row := range map[string]struct {
		in      string
		columns int
		want    string
	}{
		"fits exactly":              {"12345678", 8, "12345678"},
		"one too many":              {"123456789", 8, "123…(+6)"},
		"a Call-ID of 1,000":        {strings.Repeat("a", 1000), 20, strings.Repeat("a", 12) + "…(+988)"},
		"an escape is never halved": {"abcd\x1b\x1b\x1b\x1b", 13, `abcd\x1b…(+3)`},
		"wide characters":           {"电话电话电话", 10, "电话…(+12)"},
		"wide characters that fit":  {"电话", 4, "电话"},
		"no room at all":            {"123456789", 1, "…(+9)"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := printable.Limit(row.in, row.columns); got != row.want {
				t.Errorf("Limit(%q, %d) = %q, want %q", row.in, row.columns, got, row.want)
			}
		})
	}
}

func TestLineIsASecondNet(t *testing.T) {
	for in, want := range map[string]string{
		`account "\x1b[31m" failed`:      `account "\x1b[31m" failed`,
		"account \x1b[31m failed\r\n":    `account \x1b[31m failed\x0d\x0a`,
		strings.Repeat("long ", 100):     strings.Repeat("long ", 100),
		`C:\` + "\u202e\xff" + ` Zoë 电话`: `C:\\u202e\xff Zoë 电话`,
	} {
		if got := printable.Line(in); got != want {
			t.Errorf("Line(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestPlainTextCostsNothing(t *testing.T) {
	name := strings.Repeat("2", 36)
	if n := testing.AllocsPerRun(100, func() { _ = printable.String(name) }); n != 0 {
		t.Errorf("%v allocations for a plain name", n)
	}
}

func TestJSONMeansTheSame(t *testing.T) {
	for _, value := range []string{"201", "a\u009b2J", "\u202egnp", "\x7f", "\U000e0041", "א", "e\u0301", "电话 Zoë 😀"} {
		text, err := json.Marshal(map[string]string{"account": value})
		if err != nil {
			t.Fatal(err)
		}
		escaped := printable.JSON(text)
		var back map[string]string
		if err := json.Unmarshal(escaped, &back); err != nil {
			t.Fatalf("%q: %v", escaped, err)
		}
		if back["account"] != value {
			t.Errorf("%q came back as %q", value, back["account"])
		}
		checkVisible(t, string(escaped))
	}
}

func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"201", "\x1b]0;x\a", "\u202e", "\xff", "电话", `\`, strings.Repeat("x\u0301", 500)} {
		f.Add(s, 64)
	}
	f.Fuzz(func(t *testing.T, s string, columns int) {
		if columns < 0 || columns > 1<<20 {
			return
		}
		got := printable.Limit(s, columns)
		checkVisible(t, got)
		if w := printable.Width(got); w > columns && !strings.HasPrefix(got, "…(+") {
			t.Errorf("Limit(%q, %d) takes %d columns: %q", s, columns, w, got)
		}
		checkVisible(t, printable.Line(s))
		if got := printable.Line(printable.String(s)); got != printable.String(s) {
			t.Errorf("Line changes what String made of %q: %q", s, got)
		}
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		escaped := printable.JSON(append([]byte(nil), text...))
		checkVisible(t, string(escaped))
		var want, back string
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(escaped, &back); err != nil || back != want {
			t.Errorf("JSON(%q) = %q: %v", text, escaped, err)
		}
	})
}

func checkVisible(t *testing.T, s string) {
	t.Helper()
	if !utf8.ValidString(s) {
		t.Errorf("%q is not UTF-8", s)
	}
	for _, r := range s {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Bidi_Control, r) ||
			unicode.In(r, unicode.Hebrew, unicode.Arabic) || r == utf8.RuneError {
			t.Errorf("%q holds %U", s, r)
		}
	}
}
