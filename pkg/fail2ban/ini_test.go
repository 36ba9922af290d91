package fail2ban_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/fail2ban"
)

func TestInterpolationIsBounded(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("[a]\nx0 = " + strings.Repeat("b", 100) + "\n")
	for i := range 9 {
		ref := "%(x" + string(rune('0'+i)) + ")s"
		bomb.WriteString("x" + string(rune('1'+i)) + " = " + strings.Repeat(ref, 40) + "\n")
	}
	for name, row := range map[string]struct{ text, want string }{
		"bomb": {bomb.String() + "key = %(x9)s\n", "longer than"},
		"empty bomb": {strings.Replace(bomb.String(), strings.Repeat("b", 100), "", 1) + "key = %(x9)s\n",
			"more than 100000"},
		"itself": {"[a]\nkey = %(key)s\n", "stands in itself"},
		"two":    {"[a]\nkey = %(b)s\nb = %(key)s\n", "stands in itself"},
		"lone":   {"[a]\nkey = 5%\n", "neither %% nor"},
		"open":   {"[a]\nkey = %(b\n", "neither %% nor"},
		"nobody": {"[a]\nkey = %(b)s\n", `nothing is named "b"`},
	} {
		if v, err := fail2ban.Expand(row.text, "a", "key"); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %d bytes, %v; want %s", name, len(v), err, row.want)
		}
	}
}

func TestMistakesInAFileDoNotHideTheRest(t *testing.T) {
	text := "\ufeffbefore = 1\n[a\n[a]\nnonsense\n= 5\nkey = 1\nkey = 2\n[]\n[b]\r\nx=1\r\n" +
		strings.Repeat("junk\n", 100) + "[a]\nlast = 3\n"
	sections, mistakes, a := fail2ban.Parse(text, "a")
	if sections != 2 || mistakes != 21 || a["key"] != "2" || a["last"] != "3" {
		t.Errorf("%d sections, %d mistakes, %v", sections, mistakes, a)
	}
}

func FuzzINI(f *testing.F) {
	for _, seed := range []string{
		"", "[a]\nb = c\n", "[a]\nb: c ; d\n  e\n\n f\n[DEFAULT]\nx=%(y)s\n", "[a\n]\n= \n", "\x00[\xff]\n\ta=1",
		"[a]\nkey = %(a/b)s %%\nb=%(key)s",
		"[INCLUDES]\nbefore = x\n", " [a]\n k=v\n  w\n x\n", "[a]\nkey=%(__name__)s%(KNOWN/key)s",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		sections, _, values := fail2ban.Parse(text, "a")
		if sections > strings.Count(text, "[") {
			t.Errorf("%d sections", sections)
		}
		for key, value := range values {
			if key != strings.ToLower(key) || key == "" || strings.ContainsAny(key, "\n=") ||
				!utf8.ValidString(key+value) {
				t.Errorf("%q = %q", key, value)
			}
			v, err := fail2ban.Expand(text, "a", key)
			if len(v) > 70<<10 && !strings.Contains(value, v) {
				t.Errorf("%d bytes", len(v))
			}
			if err == nil && !strings.Contains(value, "%") && v != value && sections == 1 {
				t.Errorf("%q became %q", value, v)
			}
		}
	})
}

func FuzzDuration(f *testing.F) {
	for _, seed := range []string{"1h", "1d12h", "(1+2)*3", "-1", "1 hour 30 min", "9e9", "1/0", "1y-6mo", "((((",
		"1.2.3w"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := fail2ban.ParseDuration(text)
		if err != nil {
			if d != 0 || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("%v, %q", d, err)
			}
			return
		}
		if d < 0 && d != fail2ban.Forever {
			t.Errorf("%q is %v", text, d)
		}
	})
}
