package managerconf_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/pkg/asterisk/managerconf"
)

// writeTree makes files below a folder of the test's own, which stands for "/".
func writeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const main = "/etc/asterisk/manager.conf"

func TestTheLastValueCountsInAllFiles(t *testing.T) {
	for name, row := range map[string]struct {
		main, custom    string
		value, file     string
		template, there bool
	}{
		"in the file":  {"[general]\n[ringwall]\nsecret = a\nSecret => b\n", "", "b", main, false, true},
		"another case": {"[RingWall]\nsecret=a\n", "", "a", main, false, true},
		"included": {"[general]\n#include custom.conf\n", "[ringwall]\nsecret=c", "c",
			"/etc/asterisk/custom.conf", false, true},
		"by its whole path": {"#tryinclude \"/etc/asterisk/custom.conf\"\n", "[ringwall]\nsecret=c", "c",
			"/etc/asterisk/custom.conf", false, true},
		"added to": {"[ringwall]\nsecret=a\n[x]\n#include custom.conf\n", "[ringwall](+)\nsecret=b", "b",
			"/etc/asterisk/custom.conf", false, true},
		"of a template": {"[t](!)\nsecret=a\n[ringwall](t)\n", "", "", main, true, true},
		"a comment":     {"[ringwall] ; [other]\nsecret=a ; b\n;secret=c\n", "", "a", main, false, true},
		"a semicolon":   {"[ringwall]\nsecret=a\\;b\n", "", "a;b", main, false, true},
		"a comment over lines": {"[ringwall]\nsecret=a\n;-- secret=b\nsecret=c\n--;\nx=1\n", "", "a", main, false,
			true},
		"a ruler is none": {"[ringwall]\n;-----\nsecret=a\n", "", "a", main, false, true},
		"nobody":          {"[general]\nsecret=a\n;[ringwall]\n", "", "", "", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			root := writeTree(t, map[string]string{main: row.main, "/etc/asterisk/custom.conf": row.custom})
			c, err := managerconf.Read(root, main)
			if err != nil {
				t.Fatal(err)
			}
			s, ok := c.Section("ringwall")
			if ok != row.there || s.Value("secret") != row.value || s.File != row.file || s.OfTemplate != row.template {
				t.Errorf("%v, secret %q in %q, of a template: %v", ok, s.Value("SECRET"), s.File, s.OfTemplate)
			}
		})
	}
}

func TestAFileIsIncludedWhetherItIsThereOrNot(t *testing.T) {
	root := writeTree(t, map[string]string{
		main:                             "#include manager.d/*.conf\n;#include no.conf\n",
		"/etc/asterisk/manager.d/x.conf": "#include \"beside.conf\"\n",
	})
	c, err := managerconf.Read(root, main)
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]bool{
		"/etc/asterisk/manager.d/ringwall.conf": true,
		"/etc/asterisk/manager.d/x.conf":        true,
		// A name begins in Asterisk's folder, whichever file includes it.
		"/etc/asterisk/beside.conf":           true,
		"/etc/asterisk/manager.d/beside.conf": true, // by the pattern
		"/etc/asterisk/no.conf":               false,
		"/etc/asterisk/manager.d/a/b.conf":    false,
	} {
		if c.Includes(file) != want {
			t.Errorf("%s is included: %v", file, !want)
		}
	}
}

func TestWhatIsReadIsBounded(t *testing.T) {
	root := writeTree(t, map[string]string{main: "[ringwall]\nsecret=a\n#include manager.conf\n"})
	c, err := managerconf.Read(root, main)
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := c.Section("ringwall"); !ok || s.Value("secret") != "a" {
		t.Errorf("a file that includes itself: %+v, %v", s, ok)
	}
	root = writeTree(t, map[string]string{main: strings.Repeat("x", 1<<20)})
	if _, err := managerconf.Read(root, main); err == nil {
		t.Error("a line of a megabyte is not refused")
	}
	if _, err := managerconf.Read(t.TempDir(), main); !os.IsNotExist(err) {
		t.Errorf("without a file: %v", err)
	}
}
