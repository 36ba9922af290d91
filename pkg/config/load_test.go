package config_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/config"
)

func TestMinimalFileTakesEveryDefault(t *testing.T) {
	c, warnings, err := parse("asterisk: [{address: 192.0.2.1, username: ringwall, secret: hunter2}]")
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	a := c.Asterisk[0]
	if a.Name != "192.0.2.1:5038" || a.Address != a.Name || a.Auth != config.AuthMD5 || a.Learn != config.LearnAuto ||
		a.PingInterval != 4*time.Second {
		t.Errorf("%+v", a)
	}
	if c.Policy.Threshold != 10 || c.Firewall.Table != "ringwall" || c.Policy.Services["SIP"] != config.Observe {
		t.Errorf("%+v", c)
	}
}

func TestEmptySectionsKeepTheirDefaults(t *testing.T) {
	c, _, err := parse(base + "policy:\n  # threshold: 5\nfirewall:\n  ports:\n  #  udp: []\nmetrics: ~\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.Policy.Threshold != 10 || len(c.Firewall.Ports.UDP) != 3 || c.Metrics.Listen == "" {
		t.Errorf("%+v", c)
	}
}

func TestServicesThatAreNotGivenKeepTheirMode(t *testing.T) {
	c, _, err := parse(base + "policy: {services: {AMI: observe}}\n")
	if err != nil {
		t.Fatal(err)
	}
	if s := c.Policy.Services; s["PJSIP"] != config.Enforce || s["AMI"] != config.Observe ||
		s["SIP"] != config.Observe {
		t.Errorf("%v", s)
	}
	if config.Default().Policy.Services["AMI"] != config.Enforce {
		t.Error("the defaults have changed with it")
	}
}

func TestFewerBansAllowHalfAsManyForgeableOnes(t *testing.T) {
	c, _, err := parse(base + "policy: {limits: {bans: 1000}}\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.Policy.Limits.ForgeableBans != 500 {
		t.Errorf("%+v", c.Policy.Limits)
	}
}

func TestAddressesTakeTheirPort(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1":             "127.0.0.1:5038",
		"127.0.0.1:6000":        "127.0.0.1:6000",
		"'::1'":                 "[::1]:5038",
		"'[::1]'":               "[::1]:5038",
		"'[fd99::1]:6000'":      "[fd99::1]:6000",
		"pbx.example.net":       "pbx.example.net:5038",
		"my_pbx:6000":           "my_pbx:6000",
		"a, tls: {enabled: on}": "a:5039",
	} {
		c, _, err := parse("asterisk: [{username: b, secret: c, address: " + text + "}]")
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := c.Asterisk[0].Address; got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestAllowedEntries(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1":                 "192.0.2.1",
		"192.0.2.0/24":              "192.0.2.0/24",
		"10.0.0.0/8":                "10.0.0.0/8",
		"192.0.2.77/24":             "192.0.2.0/24",
		"2001:DB8::1":               "2001:db8::1",
		"2001:db8::/32":             "2001:db8::/32",
		"fc00::/7":                  "fc00::/7",
		"::ffff:192.0.2.1":          "192.0.2.1",
		"::ffff:192.0.2.0/120":      "192.0.2.0/24",
		"Trunk.Example.NET.":        "trunk.example.net",
		"1und1.example":             "1und1.example",
		"a-b.example":               "a-b.example",
		"-a.example":                "",
		"example..net":              "",
		"192.0.2":                   "",
		"0x7f.1":                    "",
		"1234":                      "",
		"127.0.0.01":                "",
		"*.example.net":             "",
		"müller.example":            "",
		"example.net:5060":          "",
		"192.0.2.0/33":              "",
		"0.0.0.0/0":                 "",
		"::/0":                      "",
		"2000::/3":                  "",
		"::ffff:0.0.0.0/96":         "",
		"::ffff:0.0.0.0/80":         "",
		"fe80::1%eth0":              "",
		strings.Repeat("a", 64):     "",
		strings.Repeat("a.", 128):   "",
		strings.Repeat("a.", 126):   strings.TrimSuffix(strings.Repeat("a.", 126), "."),
		"a.example; rm -rf /":       "",
		"a.example\\u202e":          "",
		"192.0.2.1 192.0.2.2":       "",
		"ringwall.example/24":       "",
		"2001:db8:0:0:0:0:0:1/128":  "2001:db8::1",
		"255.255.255.255":           "255.255.255.255",
		"224.0.0.0/3":               "",
		"64:ff9b::/96":              "64:ff9b::/96",
		"localhost":                 "localhost",
		"::ffff:192.0.2.1/128":      "192.0.2.1",
		"::ffff:255.255.255.255/95": "",
	} {
		c, _, err := parse(base + "policy: {allow: [\"" + text + "\"]}\n")
		switch {
		case want == "" && err == nil:
			t.Errorf("%s: accepted as %v", text, c.Policy.Allow[0])
		case want != "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case want != "" && c.Policy.Allow[0].String() != want:
			t.Errorf("%s: got %v, want %s", text, c.Policy.Allow[0], want)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "10m": 10 * time.Minute, "24h": 24 * time.Hour, "7d": 168 * time.Hour,
		"1w":         168 * time.Hour,
		"1w2d3h4m5s": 219*time.Hour + 4*time.Minute + 5*time.Second, "1.5d": 36 * time.Hour,
		"1500ms": 1500 * time.Millisecond,
		"1h30m":  90 * time.Minute, "3650d": 3650 * 24 * time.Hour,
		"": 0, "10": 0, "d": 0, "1x": 0, "-1h": 0, "1h-1m": 0, "1h 1m": 0, "1.2.3h": 0, "1H": 0, "3651d": 0,
		"99999999999999999999w":   0,
		"9223372036854775807ns1h": 0, "1e3s": 0, ".": 0, "1h.": 0, "+1h": 0,
	} {
		c, _, err := parse(base + "policy: {ban: {memory: \"" + text + "\"}}\n")
		switch {
		case want == 0 && err == nil:
			t.Errorf("%s: accepted as %v", text, c.Policy.Ban.Memory)
		case want != 0 && err != nil:
			t.Errorf("%s: %v", text, err)
		case want != 0 && c.Policy.Ban.Memory != want:
			t.Errorf("%s: got %v, want %v", text, c.Policy.Ban.Memory, want)
		}
	}
}

func TestWarnings(t *testing.T) {
	for _, row := range []struct{ name, text, want string }{
		{"bits beyond the prefix", base + "policy:\n  allow: [192.0.2.77/24]\n",
			`ringwall.yaml:6: policy.allow[0]: the address has bits beyond the prefix; the whole network 192.0.2.0/24 is allowed: "192.0.2.77/24"; try: 192.0.2.0/24, or 192.0.2.77 for this address alone`},
		{"an entry twice", base + "policy:\n  allow: [192.0.2.1, 192.0.2.1/32]\n",
			`ringwall.yaml:6: policy.allow[1]: given twice: "192.0.2.1/32"; try: remove one of them`},
		{"metrics for everybody", base + "metrics:\n  listen: :9646\n",
			`ringwall.yaml:6: metrics.listen: other machines can read the metrics, and the status page with its addresses and account names, without a password: ":9646"; try: 127.0.0.1:9646, or metrics.page: false`},
		{"metrics alone for everybody", base + "metrics:\n  listen: :9646\n  page: false\n",
			`ringwall.yaml:6: metrics.listen: other machines can read the metrics, without a password: ":9646"; try: 127.0.0.1:9646`},
		{"a secret in clear", strings.Replace(base, "127.0.0.1", "192.0.2.1", 1) + "    auth: plain\n",
			`ringwall.yaml:5: asterisk[0].auth: the secret crosses the network in clear; try: auth: md5, or tls: {enabled: true}`},
		{"any certificate", base + "    tls: {enabled: true, insecure: true}\n",
			`ringwall.yaml:5: asterisk[0].tls.insecure: any certificate is accepted, an attacker's too; try: ca_file: PATH`},
		{"chan_sip believed", base + "policy:\n  services: {SIP: enforce}\n",
			`ringwall.yaml:6: policy.services.SIP: an attacker chooses which address chan_sip reports, and so whom Ringwall bans; try: observe`},
		{"one event bans", base + "policy:\n  threshold: 2\n  points: {wrong_password: 2}\n",
			`ringwall.yaml:7: policy.points.wrong_password: a single event reaches the threshold, a customer's mistake too: "2"; try: less than policy.threshold`},
		{"nobody is trusted", base + "policy:\n  trust: {ttl: 0s}\n",
			`ringwall.yaml:6: policy.trust.ttl: no login is trusted: one wrong phone can ban its whole office; try: 24h`},
		{"IPv6 addresses one by one", base + "policy:\n  ipv6_prefix: 128\n",
			`ringwall.yaml:6: policy.ipv6_prefix: an attacker can use a new address of his /64 for each attempt; try: 64`},
		{"SSH", base + "firewall:\n  ports: {tcp: [22]}\n",
			`ringwall.yaml:6: firewall.ports.tcp[0]: a ban also closes SSH, perhaps your own; try: the ports of telephony alone`},
		{"a comment in the secret", "asterisk:\n  - address: 127.0.0.1\n    username: ringwall\n    secret: hunter2 " +
			"#3\n",
			`ringwall.yaml:4: asterisk[0].secret: what follows # is a comment and no part of the secret; try: the secret in double quotes`},
		{"what check --print writes", strings.Replace(base, "hunter2", "(hidden)", 1),
			`ringwall.yaml:4: asterisk[0].secret: (hidden) is what check --print shows in place of a secret; try: the secret itself`},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, warnings, err := parse(row.text)
			if err != nil {
				t.Fatal(err)
			}
			if len(warnings) != 1 || warnings[0].String() != row.want {
				t.Errorf("got  %v\nwant %s", warnings, row.want)
			}
		})
	}
}

func TestLoadReadsAFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "ringwall.yaml")
	if err := os.WriteFile(name, []byte(base), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, warned := range map[os.FileMode]int{0o600: 0, 0o640: 0, 0o644: 1} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		c, warnings, err := config.Load(name, config.Environment{})
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Asterisk) != 1 || len(warnings) != warned {
			t.Errorf("mode %o: %v", mode, warnings)
		}
	}
}

func TestLoadOfAFileThatCannotBeRead(t *testing.T) {
	_, _, err := config.Load(filepath.Join(t.TempDir(), "none.yaml"), config.Environment{})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "--config FILE") {
		t.Errorf("missing: %v", err)
	}
	var e *config.Error
	if !errors.As(err, &e) || e.Line != 0 {
		t.Errorf("missing: %#v", err)
	}
	if _, _, err = config.Load(t.TempDir(), config.Environment{}); err == nil ||
		!strings.Contains(err.Error(), "directory") {
		t.Errorf("folder: %v", err)
	}
	big := filepath.Join(t.TempDir(), "big.yaml")
	if err := os.WriteFile(big, []byte(base+strings.Repeat("# a long comment\n", 100_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err = config.Load(big, config.Environment{}); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("big: %v", err)
	}
}

func TestMistakesAreSortedAndBounded(t *testing.T) {
	var text strings.Builder
	text.WriteString(base + "policy:\n  allow:\n")
	for range 200 {
		text.WriteString("    - 192.0.2.256\n")
	}
	_, _, err := parse(text.String())
	var list config.Errors
	if !errors.As(err, &list) || len(list) != 51 {
		t.Fatalf("%d mistakes", len(list))
	}
	for i, e := range list[1:50] {
		if e.Line <= list[i].Line {
			t.Errorf("line %d after line %d", e.Line, list[i].Line)
		}
	}
	if last := list[50]; !strings.Contains(last.What, "more mistakes") {
		t.Errorf("%v", last)
	}
}

func TestAliasesAreFollowedButCannotMultiply(t *testing.T) {
	c, _, err := parse("asterisk:\n  - &first {address: a, username: b, secret: &s ccc}\n  - {address: b, username: " +
		"b, secret: *s}\n")
	if err != nil || c.Asterisk[1].Secret.Reveal() != "ccc" {
		t.Fatal(err)
	}
	if _, _, err := parse("asterisk: &a [*a]\n"); err == nil {
		t.Error("a list that holds itself is accepted")
	}
	if _, _, err := parse("policy: &a {policy: *a, ban: *a, points: *a}\n" + base); err == nil {
		t.Error("a section that holds itself is accepted")
	}
	bomb := "asterisk:\n  - &a {address: a, username: b, secret: c, honeypots: 1" + strings.Repeat(", name: x", 5000) +
		"}\n" + strings.Repeat("  - *a\n", 9000)
	if _, _, err := parse(bomb); err == nil {
		t.Error("a bomb is accepted")
	}
	deep := "policy: " + strings.Repeat("[", 20_000)
	if _, _, err := parse(deep); err == nil {
		t.Error("20,000 levels are accepted")
	}
	entries := &strings.Builder{}
	entries.WriteString(base + "policy:\n  honeypots: &h [" + strings.Repeat("a, ", 9000) + "a]\n  allow: *h\n")
	if _, _, err := parse(entries.String()); err != nil {
		t.Error(err)
	}
}

func TestAMissingAddressIsOneMistake(t *testing.T) {
	for _, text := range []string{
		"asterisk: [{username: a, secret: b}]",
		"asterisk: [{adress: 127.0.0.1, username: a, secret: b}]",
		"asterisk: [{address: \"a\\nb\", username: a, secret: b}]",
		"asterisk: [{address: " + strings.Repeat("a", 300) + ", username: a, secret: b}]",
		"asterisk: [{address: \"[fe80::1%" + strings.Repeat("a", 300) + "]:5038\", username: a, secret: b}]",
	} {
		_, _, err := parse(text)
		var list config.Errors
		if !errors.As(err, &list) || len(list) != 1 || !strings.Contains(list[0].Key, "ad") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestTheLongestHostNameNamesItsAsterisk(t *testing.T) {
	host := strings.Repeat("a.", 126) + "b"
	c, _, err := parse("asterisk: [{address: " + host + ", username: a, secret: b}]")
	if err != nil {
		t.Fatal(err)
	}
	if again, _, err := parse(printed(t, c)); err != nil || again.Asterisk[0].Name != host+":5038" {
		t.Error(err)
	}
}

func TestPortsAreAutoOrListed(t *testing.T) {
	usual := config.Default().Firewall.Ports
	if !usual.Auto || !slices.Contains(usual.UDP, 5060) {
		t.Fatalf("the default: %+v", usual)
	}
	for _, tt := range []struct {
		text string
		auto bool
		udp  []uint16
		tcp  []uint16
	}{
		{"", true, usual.UDP, usual.TCP},
		{"firewall: {ports: auto}\n", true, usual.UDP, usual.TCP},
		{"firewall: {ports: }\n", true, usual.UDP, usual.TCP},
		{"firewall: {ports: {udp: [5080]}}\n", false, []uint16{5080}, usual.TCP},
		{"firewall: {ports: {udp: [5080], tcp: []}}\n", false, []uint16{5080}, []uint16{}},
	} {
		c, _, err := parse(base + tt.text)
		if err != nil {
			t.Fatalf("%q: %v", tt.text, err)
		}
		if p := c.Firewall.Ports; p.Auto != tt.auto || !slices.Equal(p.UDP, tt.udp) || !slices.Equal(p.TCP, tt.tcp) {
			t.Errorf("%q: %+v", tt.text, p)
		}
	}
}
