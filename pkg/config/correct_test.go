package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/pkg/config"
)

// TestHabitsAreCorrected does what each message says, until the file is right: what people write who come from
// fail2ban.
func TestHabitsAreCorrected(t *testing.T) {
	names, err := filepath.Glob("testdata/habits/*.yaml")
	if err != nil || len(names) < 20 {
		t.Fatal(len(names), err)
	}
	// What is right, or has no correction that could be known.
	right := []string{"ban-day.yaml", "honeypot-number.yaml", "geo-lower.yaml", "allow-hostbits.yaml"}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(filepath.Base(name), func(t *testing.T) {
			text := string(data)
			if filepath.Base(name) == "allow-all.yaml" {
				_, _, err := parse(text)
				if err == nil || !strings.Contains(err.Error(), "try: the networks of your own phones and trunks") {
					t.Errorf("got %v", err)
				}
				return
			}
			_, first, corrected := follow(t, text)
			if first != slices.Contains(right, filepath.Base(name)) {
				t.Errorf("right at once: %v\n%s", first, corrected)
			}
		})
	}
}

// TestCorrections has more of what people write, and what it is after they have done as they were told.
func TestCorrections(t *testing.T) {
	for name, row := range map[string]struct{ text, want string }{
		"a string with semicolons": {"policy:\n  allow: 192.0.2.1; 192.0.2.2\n",
			"allow: [192.0.2.1, 192.0.2.2]"},
		"a string with masks": {"policy:\n  allow: 192.0.2.0 255.255.255.0 198.51.100.7\n",
			"allow: [192.0.2.0/24, 198.51.100.7]"},
		"a string in quotes": {"policy:\n  allow: \"::1 2001:db8::/32 pbx.example.net\"\n",
			`allow: ["::1", 2001:db8::/32, pbx.example.net]`},
		"a string with a range": {"policy:\n  allow: 192.0.2.4 - 192.0.2.7\n", "allow: [192.0.2.4/30]"},
		"two in an entry of a block": {"policy:\n  allow:\n    - 192.0.2.1, 192.0.2.2\n    - 192.0.2.3\n",
			"allow:\n    - 192.0.2.1\n    - 192.0.2.2\n    - 192.0.2.3"},
		"a wildcard mask": {"policy: {allow: [192.0.2.0/0.0.0.255]}\n", "allow: [192.0.2.0/24]"},
		"a mask with bits of a host": {"policy: {allow: [192.0.2.17/255.255.255.240]}\n",
			"allow: [192.0.2.16/28]"},
		"a mask of all bits": {"policy: {allow: [192.0.2.17/255.255.255.255]}\n",
			"allow: [192.0.2.17]|allow: [192.0.2.17/32]"},
		"a short range": {"policy: {allow: [192.0.2.10-13]}\n",
			"allow: [192.0.2.10/31, 192.0.2.12/31]"},
		"a range of a block": {"policy:\n  allow:\n    - 192.0.2.1-192.0.2.3\n",
			"allow:\n    - 192.0.2.1\n    - 192.0.2.2/31"},
		"a range of IPv6": {"policy: {allow: ['2001:db8::1-2001:db8::2']}\n",
			"allow: [2001:db8::1, 2001:db8::2]"},
		"a range of everything": {"policy: {allow: [192.0.2.255-192.0.3.0]}\n",
			"allow: [192.0.2.255, 192.0.3.0]"},
		"wildcards for two numbers": {"policy: {allow: ['192.0.*.*']}\n", "allow: [192.0.0.0/16]"},
		"a wildcard that is an x":   {"policy: {allow: [192.0.2.x]}\n", "allow: [192.0.2.0/24]"},
		"a dot at the end":          {"policy: {allow: [192.0.2.]}\n", "allow: [192.0.2.0/24]"},
		"ten and a star":            {"policy: {allow: ['10.*']}\n", "allow: [10.0.0.0/8]"},
		"zeros in front":            {"policy: {allow: [192.000.002.010]}\n", "allow: [192.0.2.10]"},
		"an URI with a user": {"policy: {allow: ['sip:100@192.0.2.5:5060;transport=tls']}\n",
			"allow: [192.0.2.5]"},
		"an URL with a path": {"policy: {allow: ['https://pbx.example.net:8089/ws']}\n",
			"allow: [pbx.example.net]"},
		"an IPv6 address with a port": {"policy: {allow: ['[2001:db8::5]:5060']}\n", "allow: [2001:db8::5]"},
		"an IPv6 address in brackets": {"policy: {allow: ['[2001:db8::5]']}\n", "allow: [2001:db8::5]"},
		"fail2ban's list of ignoreip": {"policy:\n  ignoreip: [192.0.2.1, 10.0.0.*]\n",
			"allow: [192.0.2.1, 10.0.0.0/24]"},
		"fail2ban's long findtime":  {"policy:\n  findtime: 1d\n", "half_life: 1h"},
		"fail2ban's ban for ever":   {"policy:\n  bantime: -1\n", "ban: {first: 7d, max: 365d}"},
		"fail2ban's ban of a month": {"policy:\n  bantime: 4w\n", "ban: {first: 28d, max: 28d}"},
		"fail2ban's increment": {"policy:\n  bantime.increment: true\n  mode: observe\n",
			"policy:\n  mode: observe"},
		"fail2ban's filter": {"policy:\n  filter: asterisk\n  mode: observe\n",
			"policy:\n  mode: observe"},
		"a longest ban of -1": {"policy:\n  ban: {first: 1h, max: -1}\n", "{first: 1h, max: 365d}"},
		"both bans of -1": {"policy:\n  ban:\n    first: -1\n    max: -1\n",
			"first: 7d\n    max: 365d"},
		"a ban for ever in words":  {"policy:\n  ban: {max: forever}\n", "{max: 365d}"},
		"a first ban of two weeks": {"policy:\n  ban: {first: 2w}\n", "{first: 2w, max: 14d}"},
		"a max below first": {"policy:\n  ban:\n    first: 2w\n    max: 1w\n",
			"first: 2w\n    max: 14d"},
		"a product of seconds":    {"policy:\n  half_life: 60*10\n", "half_life: 600s"},
		"a duration with a space": {"policy:\n  ban: {first: 1d 12h}\n", "{first: 1d12h}"},
		"a month":                 {"policy:\n  ban: {memory: 2 months}\n", "{memory: 60d}"},
		"minutes in short":        {"policy:\n  half_life: 15 mins\n", "half_life: 15m"},
		"a number in quotes":      {"policy:\n  threshold: \"10\"\n", "threshold: 10"},
		"a number with thousands": {"policy:\n  max_sources: 1_000_000\n", "max_sources: 1000000"},
		"a port in quotes":        {"firewall:\n  ports:\n    udp: [\"5060\"]\n", "udp: [5060]"},
		"ports with commas": {"firewall:\n  ports:\n    udp: 5060,5160-5162\n",
			"udp: [5060, 5160, 5161, 5162]"},
		"a single port":          {"firewall:\n  ports:\n    udp: 5060\n", "udp: [5060]"},
		"ports by name":          {"firewall:\n  ports:\n    udp: [sip, iax]\n", "udp: [5060, 4569]"},
		"a port with a protocol": {"firewall:\n  ports:\n    udp: [5060/udp]\n", "udp: [5060]"},
		"a range in a block": {"firewall:\n  ports:\n    udp:\n      - 5060-5061\n",
			"udp:\n      - 5060\n      - 5061"},
		"a service by its driver": {"policy:\n  services: {chan_pjsip: observe, chan_sip: observe, manager: enforce}\n",
			"{PJSIP: observe, SIP: observe, AMI: enforce}"},
		"a service that is off": {"policy:\n  services: {PJSIP: off}\n", "{PJSIP: observe}"},
		"a mode that is on":     {"policy:\n  mode: on\n", "mode: enforce"},
		"honeypots with spaces": {"policy:\n  honeypots: admin test 100\n",
			"honeypots: [admin, test, 100]"},
		"honeypots that begin with 0": {"policy:\n  honeypots: 0100; null; ~\n",
			`honeypots: [0100, "null", "~"]`},
		"nothing among the honeypots": {"policy:\n  honeypots: [null, admin]\n", `honeypots: ["null", admin]`},
		"more addresses than a message holds": {"policy:\n  allow: " + strings.Repeat("192.0.2.1, ", 300) +
			"192.0.2.2\n", "allow: [192.0.2.1, "},
		"tabs below a list, on 2 lines": {"policy:\n\tallow:\n\t\t- 192.0.2.1\n",
			"policy:\n  allow:\n    - 192.0.2.1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, first, got := follow(t, base+row.text)
			ok := slices.ContainsFunc(strings.Split(row.want, "|"),
				func(want string) bool { return strings.Contains(got, want) })
			if first || !ok {
				t.Errorf("right at once: %v; got\n%s\nwant in it\n%s", first, got, row.want)
			}
		})
	}
}

// follow does as the messages say, like somebody who knows nothing about YAML, until the file is right.
func follow(t *testing.T, text string) (c *config.Config, first bool, corrected string) {
	t.Helper()
	const patience = 4 // times that somebody runs check
	for round := range patience {
		c, _, err := parse(text)
		if err == nil {
			return c, round == 0, text
		}
		var list config.Errors
		if !errors.As(err, &list) {
			t.Fatalf("%T", err)
		}
		t.Logf("%v", err)
		slices.Reverse(list) // so that the places of the others stay
		for _, e := range list {
			text = correct(t, text, e)
		}
	}
	t.Fatalf("still not right:\n%s", text)
	return nil, false, ""
}

var (
	entryPattern = regexp.MustCompile(`^("[^"]*"|'[^']*'|[^,\]}\n]*[^,\]}\s])`)
	meantPattern = regexp.MustCompile(`did you mean (\S+)\?`)
	ownKey       = regexp.MustCompile(`^([a-z_]+): (.*)$`)
)

// correct does what one message says at its line and column.
func correct(t *testing.T, text string, e *config.Error) string {
	t.Helper()
	lines := strings.Split(text, "\n")
	if strings.Contains(e.What, "a tab") {
		for i, line := range lines {
			rest := strings.TrimLeft(line, "\t")
			lines[i] = strings.Repeat("  ", len(line)-len(rest)) + rest
		}
		return strings.Join(lines, "\n")
	}
	line := &lines[e.Line-1]
	before, rest := (*line)[:e.Column-1], (*line)[e.Column-1:]
	is := entryPattern.FindString(rest)
	if strings.HasSuffix(e.What, "where a list belongs") {
		is = rest // the whole line was meant to be the list
	}
	hint, _, _ := strings.Cut(e.Try, " for ") // 600s for seconds, 600m for minutes
	leaf := e.Key[strings.LastIndexByte(e.Key, '.')+1:]
	own := ownKey.FindStringSubmatch(hint)
	block, isBlock := strings.CutPrefix(hint, "one line each: ")
	if hint == "[ and ] around it, and a comma between two entries" {
		hint = "[" + rest + "]"
	}
	switch meant := meantPattern.FindStringSubmatch(e.What); {
	case meant != nil:
		*line = before + strings.Replace(rest, leaf, meant[1], 1)
	case isBlock:
		indent := strings.TrimSuffix(before, "- ")
		*line = indent + strings.ReplaceAll(block, ", - ", "\n"+indent+"- ")
	case strings.Contains(e.What, "a key of fail2ban's") && hint == "remove it":
		lines = slices.Delete(lines, e.Line-1, e.Line)
	case strings.Contains(e.What, "a key of fail2ban's"):
		*line = before + hint
	case own != nil && own[1] == leaf:
		*line = before + own[2] + rest[len(is):]
	case own != nil && strings.Contains(before, "{"):
		*line = before + is + ", " + hint + rest[len(is):]
	case own != nil:
		*line += "\n" + strings.Repeat(" ", len(before)-len(strings.TrimLeft(before, " "))) + hint
	case hint == "":
		t.Fatalf("no correction: %v", e)
	default:
		*line = before + hint + rest[len(is):]
	}
	return strings.Join(lines, "\n")
}
