package service

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestTheUnitNamesTheUser(t *testing.T) {
	root := t.TempDir()
	if name, _, _, unitFile := readUnit(root); name != "" || unitFile != "" {
		t.Errorf("%q from %q where there is no unit", name, unitFile)
	}
	write(t, root+"/usr/lib/systemd/system/ringwall.service",
		"[Unit]\nUser=not-me\n[Service]\n# User=nor-me\nUser = ringwall\nGroup=ringwall\n[Install]\n")
	if name, group, _, unitFile := readUnit(root); name != "ringwall" || group != "ringwall" ||
		!strings.HasPrefix(unitFile, root+"/usr") {
		t.Errorf("%q, %q from %q", name, group, unitFile)
	}
	write(t, root+"/usr/lib/systemd/system/ringwall.service.d/10-first.conf",
		"[Service]\nUser=first\nSupplementaryGroups=asterisk ssl-cert\n")
	write(t, root+"/etc/systemd/system/ringwall.service.d/20-ours.conf", "[Service]\nUser=pbx\n")
	if name, _, supplementary, _ := readUnit(root); name != "pbx" ||
		!slices.Equal(supplementary, []string{"asterisk", "ssl-cert"}) {
		t.Errorf("%q, %q with drop-ins", name, supplementary)
	}
	write(t, root+"/etc/systemd/system/ringwall.service", "[Service]\nUser=etc\n")
	if name, _, _, unitFile := readUnit(root); name != "pbx" || !strings.HasPrefix(unitFile, root+"/etc") {
		t.Errorf("%q from %q: what /etc says counts", name, unitFile)
	}
}

func TestWhoTheServiceIs(t *testing.T) {
	root := t.TempDir()
	unit := root + "/etc/systemd/system/ringwall.service"
	write(t, unit, "[Service]\nUser=nobody\nSupplementaryGroups=daemon\n")
	u, err := FindUser(root)
	if err != nil || u == nil || u.Name != "nobody" || u.uid == 0 || len(u.groups) == 0 {
		t.Fatalf("%+v, %v", u, err)
	}
	for _, text := range []string{"[Service]\nUser=root\n", "[Service]\nUser=0\n", "[Service]\nExecStart=/bin/true\n"} {
		write(t, unit, text)
		if u, err := FindUser(root); u != nil || err != nil {
			t.Errorf("%q: %+v, %v; root can read what root can", text, u, err)
		}
	}
	write(t, unit, "[Service]\nUser=no-such-user-here\n")
	if u, err := FindUser(root); err == nil || !strings.Contains(err.Error(), unit) {
		t.Errorf("%+v, %v; want the unit named", u, err)
	}
}

// What root can read, the service's user may not: the kernel is asked, and the way out is named.
func TestWhatTheServicesUserCanRead(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	for p := dir; p != "/tmp" && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root := t.TempDir()
	write(t, root+"/etc/systemd/system/ringwall.service", "[Service]\nUser=nobody\n")
	u, err := FindUser(root)
	if err != nil || u == nil {
		t.Fatal(u, err)
	}
	for name, mode := range map[string]fs.FileMode{"open": 0o644, "group": 0o640, "ours": 0o640} {
		path := filepath.Join(dir, name)
		write(t, path, name)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(dir, "ours"), 0, u.gid); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "closed", "file"), "x")
	if err := os.Chmod(filepath.Join(dir, "closed"), 0o750); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"open", "ours"} {
		f, err := u.Open(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		text, err := io.ReadAll(f)
		if err != nil || string(text) != name {
			t.Errorf("%s: %q, %v", name, text, err)
		}
		_ = f.Close()
	}
	for name, want := range map[string]string{
		"group":       "chgrp " + u.Group + " " + filepath.Join(dir, "group") + " && chmod 0640 ",
		"closed/file": "chgrp " + u.Group + " " + filepath.Join(dir, "closed") + " && chmod g+rx ",
	} {
		_, err := u.Open(filepath.Join(dir, name))
		access, ok := errors.AsType[*AccessError](err)
		if !ok || !errors.Is(err, fs.ErrPermission) || !strings.HasPrefix(access.Hint(), want) ||
			!strings.Contains(access.Error(), "nobody") {
			t.Errorf("%s: %v; want a hint that begins with %q", name, err, want)
		}
	}
	if _, err := u.Open(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	// The other threads are root as before.
	for range 50 {
		if _, err := os.ReadFile(filepath.Join(dir, "group")); err != nil {
			t.Fatal(err)
		}
	}
}
