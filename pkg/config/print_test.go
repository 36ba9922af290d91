package config_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/pkg/config"
)

// everything changes each kind of value, with texts that YAML would read as something else.
const everything = `asterisk:
  - name: "yes"
    address: 192.0.2.1
    username: "123"
    secret: hunter2
    learn: off
    ping_interval: 1m30s
  - name: "a: b #c \\ \" '"
    address: "[fd99::1]:6000"
    username: müller
    secret_file: /closed
    tls: {enabled: yes, server_name: pbx.example.net}
policy:
  mode: observe
  threshold: 12.5
  half_life: 1w
  honeypots: ["null", "0101", "~", "on", "[x]", "- y", "{z}", "&a", "*b", "!c", "%d", "@e", "caf\u00e9", "a'b"]
  trust: {match: '^[a-z0-9]{8}$|"\\|\d'}
  services: {SIP: observe, AMI: observe}
  allow: [192.0.2.1, 192.0.2.0/24, "2001:db8::/32", sip.example.net]
firewall:
  scope: all
  owner: off
  ports: {udp: [], tcp: [5060]}
metrics: {listen: ""}
control: {group: "1000"}
log: {level: debug, format: json}
notify:
  - url: "https://hunter2.example/hunter2/{id}?a=${SET}"
    token_file: /closed
    method: PUT
    headers: {X-Priority: "5", "X-Key": "a ${SET}"}
    body: "{\"a\": {{json .Account}}}\n"
    reasons: [honeypot]
    pbx: ["yes"]
    rate: {per_minute: 0.5, burst: 1}
  - template: telegram
    url: "https://api.telegram.org/bot${SET}/sendMessage"
    to: "-100"
    actions: [ban, observe]
  - exec: [/program, "a b", "${SET}", "no"]
    timeout: 1m
`

func printed(t *testing.T, c *config.Config) string {
	t.Helper()
	var out bytes.Buffer
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestPrintShowsEveryEffectiveValue(t *testing.T) {
	c, _, err := parse(everything)
	if err != nil {
		t.Fatal(err)
	}
	got := printed(t, c)
	golden := filepath.Join("testdata", "print.golden.yaml")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s: %s", golden, diff(string(want), got))
	}
	if strings.Contains(got, "hunter2") || strings.Count(got, `"(hidden)"`) != 5 {
		t.Error("the secret, or no word in its place")
	}
}

// TestPrintIsReadBack also holds for what Print wrote before: texts stay texts, and no value moves.
func TestPrintIsReadBack(t *testing.T) {
	for _, text := range []string{base, everything} {
		c, _, err := parse(text)
		if err != nil {
			t.Fatal(err)
		}
		first := printed(t, c)
		again, _, err := parse(first)
		if err != nil {
			t.Fatalf("%v\n%s", err, first)
		}
		if second := printed(t, again); second != first {
			t.Errorf("differs: %s", diff(first, second))
		}
		if again.Asterisk[0].Username != c.Asterisk[0].Username ||
			len(again.Policy.Honeypots) != len(c.Policy.Honeypots) {
			t.Errorf("%+v", again)
		}
		for i, name := range c.Policy.Honeypots {
			if again.Policy.Honeypots[i] != name {
				t.Errorf("%q became %q", name, again.Policy.Honeypots[i])
			}
		}
	}
}

func TestPrintReportsAFailedWrite(t *testing.T) {
	c := config.Default()
	if err := c.Print(full{}); !errors.Is(err, errFull) {
		t.Errorf("%v", err)
	}
}

var errFull = errors.New("no space left")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }
