package commands_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// recorded writes a security log: a customer behind a scanner's address, a scanner with a hostile name, a phone that
// is set up wrongly, and one that is well; a name that brings an address, and a piece of a line.
func recorded(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	line := func(at time.Duration, event, account, addr, more string) {
		fmt.Fprintf(&b, `[2026-01-30 08:00:00] SECURITY[1] res_security_log.c: SecurityEvent="%s",EventTV="%s",Severity="Informational",Service="PJSIP",`+
			`EventVersion="1",AccountID="%s",SessionID="%s-%s-%d",LocalAddress="IPV4/UDP/192.0.2.1/5060",RemoteAddress="IPV4/UDP/%s/5060"%s`+"\n",
			event, ago(28*time.Hour-at).Format("2006-01-02T15:04:05.000-0700"), account, account, addr, at, addr, more)
	}
	login := func(at time.Duration, account, addr string) {
		line(at, "ChallengeSent", account, addr, `,Challenge=""`)
		line(at+time.Millisecond, "SuccessfulAuth", account, addr, `,UsingPassword="1"`)
	}
	login(0, "201", "198.51.100.1")
	for i := range 4 {
		line(time.Minute+time.Duration(i)*time.Second, "InvalidAccountID", fmt.Sprint("10", i), "203.0.113.5", "")
		line(2*time.Minute+time.Duration(i)*time.Second, "InvalidAccountID", fmt.Sprint("\u202eevil\\", i),
			"203.0.113.6", "")
	}
	line(3*time.Minute, "RequestNotSupported", "202", "198.51.100.1", `,RequestType="registrar"`)
	login(20*time.Minute, "301", "203.0.113.5")
	login(21*time.Minute, "302", "203.0.113.5")
	line(21*time.Minute+time.Second, "InvalidAccountID", `x",RemoteAddress="IPV4/UDP/8.8.8.8/5060`, "203.0.113.7", "")
	b.WriteString("x\x1b[31m\",RemoteAddress=\"IPV4/UDP/8.8.8.8/5060\"\n")
	login(3*time.Hour, "201", "198.51.100.1")
	name := filepath.Join(t.TempDir(), "security.log")
	if err := os.WriteFile(name, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestReplay(t *testing.T) {
	for name, row := range map[string]struct {
		args    []string
		columns int
		policy  string
	}{
		"replay":         {columns: 120},
		"replay-observe": {columns: 0, policy: "policy: {mode: observe}\n"},
		"replay-lenient": {columns: 100, policy: "policy: {threshold: 1000}\n"},
		"replay.json":    {args: []string{"--json"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.app.Columns = row.columns
			config := filepath.Join(t.TempDir(), "ringwall.yaml")
			text := "asterisk: [{name: pbx1, address: \"127.0.0.1:5038\", username: u, secret_file: /nonexistent}]\n" +
				row.policy
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			log := recorded(t)
			if code := w.do(t, append([]string{"replay", "--config", config, log}, row.args...)...); code != 0 ||
				w.err.String() != "" {
				t.Fatalf("exit %d: %s", code, w.err)
			}
			golden(t, name, strings.ReplaceAll(w.out.String(), log, "security.log"))
		})
	}
}

func TestReplayJSONIsOneObjectALineAndEndsWithTheSummary(t *testing.T) {
	w := newWorld(t)
	if code := w.do(t, "replay", "--json", recorded(t)); code != 0 {
		t.Fatalf("exit %d: %s", code, w.err)
	}
	actions := ""
	for line := range strings.Lines(w.out.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		actions += fmt.Sprint(m["action"], " ")
	}
	if !strings.HasPrefix(actions, "trust ban ban misconfigured ") || !strings.HasSuffix(actions, " summary ") ||
		strings.Count(actions, "summary") != 1 {
		t.Error(actions)
	}
}

// TestReplaySaysWhatItDidNotUnderstand names the first lines of a few files, escaped and shortened, and accuses nobody.
func TestReplaySaysWhatItDidNotUnderstand(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for i := range 7 {
		name := filepath.Join(dir, fmt.Sprint("log", i))
		text := "[1] NOTICE[1] x.c: y\nfirst=\x1b[31m\u202e SecurityEvent='" + strings.Repeat("a", 500) +
			"'\nb SecurityEvent='c'\n"
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, name)
	}
	w := newWorld(t)
	if code := w.do(t, append([]string{"replay"}, files...)...); code != 0 {
		t.Fatalf("exit %d: %s", code, w.err)
	}
	out := w.out.String()
	for _, want := range []string{
		"14 records not understood.", files[0] + ":2, the first of 2: ", "; try the file that Asterisk itself writes",
		`first=\x1b[31m\u202e SecurityEvent='aaa`, "… and in 2 files more",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %s", want, out)
		}
	}
	if strings.Contains(out, "tampered") || strings.Contains(out, strings.Repeat("a", 150)) ||
		strings.Contains(out, files[5]+":") {
		t.Errorf("%s", out)
	}
}

func TestReplayWithoutAConfigurationSaysThatItUsesDefaults(t *testing.T) {
	w := newWorld(t)
	if _, err := os.Stat("/etc/ringwall/ringwall.yaml"); err == nil {
		t.Skip("this machine has a configuration")
	}
	if code := w.do(t, "replay", recorded(t)); code != 0 || !strings.Contains(w.err.String(), "default policy") {
		t.Errorf("exit %d: %s", code, w.err)
	}
	w = newWorld(t)
	if code := w.do(t, "replay", "--config", filepath.Join(t.TempDir(), "none"), recorded(t)); code != 1 ||
		w.out.String() != "" {
		t.Errorf("a missing --config: exit %d: %s", code, w.err)
	}
}

func TestReplayOfFilesThatCannotBeRead(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	data, err := os.ReadFile(recorded(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut\x1b[31m.gz")
	if err := os.WriteFile(cut, packed.Bytes()[:packed.Len()-10], 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	if code := w.do(t, "replay", "nosuch", cut, recorded(t)); code != 1 {
		t.Errorf("exit %d", code)
	}
	for _, want := range []string{"ringwall: nosuch: there is no such file\n",
		`cut\x1b[31m.gz: the gzip data end too early`} {
		if !strings.Contains(w.err.String(), want) {
			t.Errorf("%s\nwithout %q", w.err, want)
		}
	}
	if !strings.Contains(w.out.String(), "203.0.113.5") {
		t.Errorf("the good file was not played:\n%s", w.out)
	}
}

func TestReplayUsage(t *testing.T) {
	for _, args := range [][]string{{"replay"}, {"replay", "-", "-"}, {"replay", "--jsonn", "x"}} {
		w := newWorld(t)
		if code := w.do(t, args...); code != 2 || !strings.Contains(w.err.String(), "Try: ") {
			t.Errorf("%q: exit %d: %s", args, code, w.err)
		}
	}
}
