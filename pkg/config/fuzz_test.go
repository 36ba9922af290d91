package config_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/config"
)

// FuzzParse reads whatever comes. A file is either refused with mistakes that a terminal can show, or its configuration
// prints to one that is the same.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(examples, "*.yaml"))
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.ReplaceAll(data, []byte("${RINGWALL_SECRET}"), []byte("${SET}")))
	}
	for _, text := range []string{
		base, everything, "", "\t", "---\n---\n", "a: &a [*a]",
		"asterisk: [{secret_file: /closed, address: a, username: b}]",
		base + "policy: {threshold: 1, half_life: 1w, allow: [1.2.3.4/5, \"::ffff:1.2.3.4\"]}", "? a\n: b\n# c\n",
		"<<: {}",
		"# c\n- a\n  # b\n- {b: [c, {d: e}]}\n# f\n", "a: |\n  b\n c: >-\n", "asterisk: !!binary aGk=", "\ufeff" + base,
		base + "policy: {honeypots: [\"\\u2028\", \"\\x85\", 'a\n\n b']}", base + "policy: {points: {acl: 0.000001}}",
		base + "notify: [{url: \"http://a/{id}\", headers: {A: ${SET}}, body: '{{json .}}'}, {exec: [/program, b], " +
			"name: c}]",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, warnings, err := config.Parse(bytes.NewReader(data), "fuzz.yaml", machine(""))
		for _, w := range warnings {
			harmless(t, w.String())
		}
		if err != nil {
			var list config.Errors
			if c != nil || !errors.As(err, &list) || len(list) == 0 || len(list) > 51 {
				t.Fatalf("%T with %d mistakes", err, len(list))
			}
			for _, e := range list {
				harmless(t, e.Error())
				if e.Line > bytes.Count(data, []byte("\n"))+strings.Count(string(data),
					"\r")+strings.Count(string(data), "\u0085")+
					strings.Count(string(data), "\u2028")+strings.Count(string(data), "\u2029")+2 {
					t.Errorf("line %d of a shorter file", e.Line)
				}
			}
			return
		}
		var first, second bytes.Buffer
		if err := c.Print(&first); err != nil {
			t.Fatal(err)
		}
		again, _, err := config.Parse(bytes.NewReader(first.Bytes()), "printed.yaml", machine(""))
		if err != nil {
			t.Fatalf("%v\n%s", err, first.Bytes())
		}
		if err := again.Print(&second); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Errorf("differs: %s", diff(first.String(), second.String()))
		}
	})
}

// harmless demands one short line without control characters.
func harmless(t *testing.T, line string) {
	t.Helper()
	if !utf8.ValidString(line) || len(line) > 4096 ||
		strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\u202e' }) {
		t.Errorf("%q", line)
	}
}
