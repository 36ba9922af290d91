package config

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

// A start that must not fail does without what is in other files. A mistake in the file itself is one all the same.
func TestLenient(t *testing.T) {
	files := fstest.MapFS{"good": {Data: []byte("https://hooks.example/x\n"), Mode: 0o600}}
	env := Environment{Lenient: true, Open: func(name string) (fs.File,
		error) {
		return files.Open(strings.TrimPrefix(name, "/"))
	}}
	const text = `asterisk:
  - {name: a, address: "127.0.0.1:5038", username: ringwall, secret_file: /none}
  - {name: b, address: "127.0.0.2:5038", username: ringwall, secret: "${NOT_SET}"}
  - {name: c, address: "127.0.0.3:5038", username: ringwall}
  - {name: d, address: "127.0.0.4:5039", username: ringwall, secret: s3cret, tls: {enabled: true, ca_file: /none.pem}}
notify:
  - {name: one, url_file: /none}
  - {name: two, url_file: /good}
`
	cfg, warnings, err := Parse(strings.NewReader(text), "ringwall.yaml", env)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Asterisk) != 4 || !cfg.Asterisk[0].Secret.IsZero() || cfg.Asterisk[3].Secret.IsZero() {
		t.Errorf("%+v", cfg.Asterisk)
	}
	for i := range cfg.Asterisk {
		if !cfg.Asterisk[i].Elsewhere() {
			t.Errorf("%s is thought complete", cfg.Asterisk[i].Name)
		}
	}
	if len(cfg.Notify) != 1 || cfg.Notify[0].Name != "two" || cfg.Notify[0].URL.IsZero() {
		t.Errorf("%+v", cfg.Notify)
	}
	if len(warnings) < 5 {
		t.Errorf("%v; want one for each", warnings)
	}
	env.Lenient = false
	if _, _, err := Parse(strings.NewReader(text), "ringwall.yaml", env); err == nil {
		t.Error("it is right for a start that may fail")
	}
	env.Lenient = true
	if _, _, err := Parse(strings.NewReader(text+"policy: {treshold: 5}\n"), "ringwall.yaml", env); err == nil ||
		!strings.Contains(err.Error(), "treshold") {
		t.Errorf("%v; want the mistake in the file itself", err)
	}
	a, err := cfg.Asterisk[0].Reload(env)
	if err == nil || !a.Secret.IsZero() {
		t.Errorf("%v; want that there still is no secret", err)
	}
	files["none"] = &fstest.MapFile{Data: []byte("s3cret"), Mode: 0o600}
	if a, err = cfg.Asterisk[0].Reload(env); err != nil || a.Secret.Reveal() != "s3cret" {
		t.Errorf("%v; want the secret", err)
	}
}
