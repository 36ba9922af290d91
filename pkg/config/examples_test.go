package config_test

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/lists"
)

var update = flag.Bool("update", false, "write the golden files anew")

const examples = "../../examples"

// withSecret is an environment with the variables, the secret files and the programs of the examples, and nothing else.
func withSecret() config.Environment {
	files := fstest.MapFS{}
	for _, name := range []string{"ami-secret", "branch-secret", "old-secret"} {
		files["etc/ringwall/"+name] = &fstest.MapFile{Data: []byte("hunter2\n"), Mode: 0o640}
	}
	for _, name := range []string{"bin/sh", "usr/local/bin/on-ban"} {
		files[name] = &fstest.MapFile{Mode: 0o755}
	}
	return config.Environment{Open: func(name string) (fs.File, error) {
		return files.Open(strings.TrimPrefix(name, "/"))
	}, Lookup: func(name string) (string, bool) {
		switch name {
		case "RINGWALL_SECRET", "TELEGRAM_TOKEN", "NTFY_TOKEN", "MATRIX_TOKEN", "PUSHOVER_TOKEN", "SMTP_PASSWORD":
			return "hunter2", true
		case "SLACK_URL", "DISCORD_URL":
			return "https://hooks.example.com/services/hunter2", true
		}
		return "", false
	}}
}

func TestExamplesAreValid(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(examples, "*.yaml"))
	if err != nil || len(files) < 6 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	ofFleet, err := filepath.Glob(filepath.Join(examples, "fleet", "*.yaml"))
	if err != nil || len(ofFleet) < 2 {
		t.Fatalf("examples of a fleet: %v, %v", ofFleet, err)
	}
	files = append(files, ofFleet...)
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			c, warnings, err := config.Load(name, withSecret())
			if err != nil {
				t.Fatal(err)
			}
			if len(warnings) > 0 {
				t.Errorf("warnings: %v", warnings)
			}
			for _, a := range c.Asterisk {
				if a.Secret.Reveal() != "hunter2" {
					t.Errorf("%s: secret not taken from its place", a.Name)
				}
			}
		})
	}
}

func TestMinimalExampleHasSixLines(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(examples, "minimal.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(data, []byte("\n")); n != 6 {
		t.Errorf("%d lines", n)
	}
}

func TestExamplesSayWhatTheyAreFor(t *testing.T) {
	load := func(name string) *config.Config {
		c, _, err := config.Load(filepath.Join(examples, name), withSecret())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	// What people copy on the first day looks first.
	for _, name := range []string{"observe-first.yaml", "freepbx.yaml", "wazo.yaml"} {
		if c := load(name); c.Policy.Mode != config.Observe {
			t.Errorf("%s: mode %s", name, c.Policy.Mode)
		}
	}
	if c := load("several-pbxes.yaml"); len(c.Asterisk) != 3 || c.Asterisk[1].Address != "pbx.branch.example.net:5039" {
		t.Errorf("several-pbxes: %+v", c.Asterisk)
	}
	if m := load("wazo.yaml").Policy.Trust.Match; m == nil || !m.MatchString("a1b2c3d4") || m.MatchString("201") {
		t.Errorf("wazo: match %v", m)
	}
}

// reference is what examples/reference.yaml must hold: everything that Print says about the defaults.
func reference(t *testing.T) []byte {
	t.Helper()
	c := config.Default()
	a := config.DefaultAsterisk()
	a.Name, a.Address, a.Username, a.Secret = "pbx1", "127.0.0.1:5038", "ringwall", config.NewSecret("x")
	c.Asterisk = []config.Asterisk{a}
	var out bytes.Buffer
	out.WriteString("# Every key of Ringwall's configuration with its default, what it means, and why it is what it " +
		"is.\n" +
		"# Only address, username and secret are needed: examples/minimal.yaml is a whole configuration.\n" +
		"# `ringwall check --print` writes this file with the values that are in force on your machine.\n\n")
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	return bytes.Replace(out.Bytes(), []byte(`secret: "(hidden)"`), []byte(`secret: "${RINGWALL_SECRET}"`), 1)
}

func TestReferenceHasEveryDefault(t *testing.T) {
	name := filepath.Join(examples, "reference.yaml")
	if *update {
		if err := os.WriteFile(name, reference(t), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if want := reference(t); !bytes.Equal(data, want) {
		t.Errorf("the reference differs from the defaults: run go test ./pkg/config -update\n%s",
			diff(string(want), string(data)))
	}
	got, _, err := config.Load(name, withSecret())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Asterisk) != 1 {
		t.Fatalf("%d entries", len(got.Asterisk))
	}
	a := config.DefaultAsterisk()
	a.Name, a.Address, a.Username, a.Secret = "pbx1", "127.0.0.1:5038", "ringwall", config.NewSecret("hunter2")
	want := config.Default()
	want.Asterisk = []config.Asterisk{a}
	if len(got.Notify) == 0 {
		got.Notify = nil
	}
	if len(got.Lists) == 0 {
		got.Lists = nil
	}
	if got.Policy.Honeypots = nil; len(got.Policy.Allow) == 0 {
		got.Policy.Allow = nil // an empty list in the file is no nil
	}
	if len(got.Policy.Proxies.Addresses) == 0 {
		got.Policy.Proxies.Addresses = nil
	}
	if len(got.Fleet.Servers) == 0 {
		got.Fleet.Servers = nil
	}
	if len(got.Policy.Signatures.Files) == 0 {
		got.Policy.Signatures.Files = nil
	}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
}

// withEntries turns the entry that the reference shows as a comment into one.
func withEntries(data []byte) []byte {
	for _, key := range []string{"lists", "notify"} {
		head, rest, _ := bytes.Cut(data, []byte(key+": []\n# The keys of an entry, with their defaults:\n"))
		entry, tail, _ := bytes.Cut(rest, []byte("\n\n"))
		data = slices.Clone(head)
		for line := range bytes.Lines(entry) {
			data = append(data, bytes.TrimPrefix(line, []byte("# "))...)
		}
		if len(tail) > 0 {
			data = append(append(data, "\n\n"...), tail...)
		}
	}
	return data
}

// TestReferenceShowsTheDefaultsOfATarget reads the entry in the comment, with the one key that it needs.
func TestReferenceShowsTheDefaultsOfATarget(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(examples, "reference.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Replace(withEntries(data), []byte(`- name: ""`), []byte(`- name: voipbl`), 1)
	head, tail, _ := bytes.Cut(data, []byte("\nnotify:"))
	tail = bytes.Replace(tail, []byte(`url: ""`), []byte(`url: "https://hooks.example.com/x"`), 1)
	data = slices.Concat(head, []byte("\nnotify:"), tail)
	got, _, err := config.Parse(bytes.NewReader(data), "reference.yaml", withSecret())
	if err != nil {
		t.Fatal(err)
	}
	want := config.DefaultNotify()
	want.Name, want.Method, want.URL = "generic", "POST", config.NewSecret("https://hooks.example.com/x")
	got.Notify[0].SMTP.To = nil
	if got.Notify[0].Reasons, got.Notify[0].PBX, got.Notify[0].Exec = nil, nil, nil; len(got.Notify[0].Headers) == 0 {
		got.Notify[0].Headers = nil
	}
	if !reflect.DeepEqual(got.Notify[0], want) {
		t.Errorf("got  %+v\nwant %+v", got.Notify[0], want)
	}
	list := config.DefaultList()
	list.Name, list.Format, list.Refresh = "voipbl", lists.Plain, 4*time.Hour
	if !reflect.DeepEqual(got.Lists[0], list) {
		t.Errorf("got  %+v\nwant %+v", got.Lists[0], list)
	}
}

// TestReferenceHasEveryKey walks the types and not Print, so that a key which Print forgot is found.
func TestReferenceHasEveryKey(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(examples, "reference.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(withEntries(data), &root); err != nil {
		t.Fatal(err)
	}
	wantKeys(t, reflect.TypeFor[config.Config](), root.Content[0], "")
}

func wantKeys(t *testing.T, typ reflect.Type, n *yaml.Node, path string) {
	t.Helper()
	for i := range typ.NumField() {
		field := typ.Field(i)
		if !field.IsExported() {
			continue
		}
		key := field.Tag.Get("yaml")
		if key == "-" {
			continue
		}
		if key == "" {
			t.Errorf("%s%s has no key", path, field.Name)
			continue
		}
		var name, value *yaml.Node
		for k := 0; k+1 < len(n.Content); k += 2 {
			if n.Content[k].Value == key {
				name, value = n.Content[k], n.Content[k+1]
			}
		}
		if value == nil {
			t.Errorf("%s%s is missing", path, key)
			continue
		}
		if i > 0 && !strings.Contains(name.HeadComment, "#") {
			t.Errorf("%s%s has no comment", path, key)
		}
		ft := field.Type
		if ft.Kind() == reflect.Slice && value.Kind == yaml.SequenceNode && len(value.Content) > 0 {
			ft, value = ft.Elem(), value.Content[0]
		}
		if ft.Kind() == reflect.Struct && value.Kind == yaml.MappingNode {
			wantKeys(t, ft, value, path+key+".")
		}
	}
}

// diff shows the first line in which two texts differ.
func diff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return "want " + w[i] + "\ngot  " + g[i]
		}
	}
	return "one is longer"
}
