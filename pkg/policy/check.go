package policy

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// check finds the values and the combinations that make no sense.
func (f *file) check(c *Config, mode fs.FileMode) {
	f.asterisks(c.Asterisk, mode)
	f.policy(&c.Policy)
	f.geo(&c.Geo, &c.Policy)
	f.firewall(&c.Firewall)
	f.daemon(c)
	f.notify(c.Notify, c.Asterisk, mode)
}

func (f *file) policy(p *Policy) {
	oneOf(f, "policy.mode", p.Mode, Enforce, Observe)
	number(f, "policy.threshold", p.Threshold, 0.1, 1e6, "policy.mode: observe to ban nobody")
	within(f, "policy.half_life", p.HalfLife, time.Second, longest, durationBound, "")
	f.points(p)
	f.honeypots(p)
	f.ban(&p.Ban)
	f.trust(&p.Trust)
	within(f, "policy.ipv6_prefix", p.IPv6Prefix, 32, 128, decimalOf,
		"64: providers give a customer no less than a /64, and share a /32 among all of theirs")
	if p.IPv6Prefix > 64 && !f.bad["policy.ipv6_prefix"] {
		f.warn("policy.ipv6_prefix", "an attacker can use a new address of his /64 for each attempt", detail{hint: "64"})
	}
	within(f, "policy.networks.ipv4_prefix", p.Networks.IPv4Prefix, 16, 30, decimalOf, "24")
	f.several("policy.networks.sources", p.Networks.Sources, 65536, "one banned source would ban its whole network", "8")
	f.several("policy.networks.ipv6_sources", p.Networks.IPv6Sources, 8, "one attacking source would ban its whole network", "8")
	for _, name := range serviceNames(p.Services) {
		oneOf(f, "policy.services."+name, p.Services[name], Enforce, Observe)
	}
	if p.Services["SIP"] == Enforce {
		f.warn("policy.services.SIP", "an attacker chooses which address chan_sip reports, and so whom Ringwall bans", detail{hint: "observe"})
	}
	duplicates(f, "policy.allow", p.Allow, f.warn)
	within(f, "policy.max_sources", p.MaxSources, 1000, 10_000_000, decimalOf, "")
	f.rules(p)
}

func (f *file) points(p *Policy) {
	all := []struct {
		key   string
		value float64
	}{
		{"unknown_account", p.Points.UnknownAccount}, {"wrong_password", p.Points.WrongPassword}, {"acl", p.Points.ACL},
		{"unanswered_challenge", p.Points.UnansweredChallenge}, {"manager", p.Points.Manager}, {"honeypot", p.Points.Honeypot},
	}
	sum := 0.0
	for _, point := range all {
		path := "policy.points." + point.key
		number(f, path, point.value, 0, 1e6, "0 to ignore it")
		sum += point.value
		if point.key != "honeypot" && point.value >= p.Threshold && f.given(path) && !f.bad["policy.threshold"] {
			f.warn(path, "a single event reaches the threshold, a customer's mistake too", detail{value: f.shown(path), hint: "less than policy.threshold"})
		}
	}
	if sum == 0 {
		f.warn("policy.points", "every kind of evidence is ignored, so nobody is ever banned", detail{hint: "remove the zeros"})
	}
}

func (f *file) honeypots(p *Policy) {
	for i, name := range p.Honeypots {
		path := fmt.Sprintf("policy.honeypots[%d]", i)
		d := detail{value: f.shown(path)}
		switch {
		case f.bad[path]:
		case name == "":
			d.hint = "remove it"
			f.fail(path, "an empty account name", d)
		case name == "<unknown>":
			d.hint = "remove it"
			f.fail(path, "Asterisk calls every account <unknown> before it has logged in, those of your phones too", d)
		case !printable(name, 36): // PJSIP cuts AccountID there
			d.allowed = "1 to 36 bytes on one line; Asterisk reports no more of a name"
			f.fail(path, "can never match an account", d)
		}
	}
	duplicates(f, "policy.honeypots", p.Honeypots, f.warn)
}

func (f *file) ban(b *Ban) {
	within(f, "policy.ban.first", b.First, time.Second, longest, durationBound, "")
	number(f, "policy.ban.factor", b.Factor, 1, 1000, "1 for bans that are all equally long")
	within(f, "policy.ban.max", b.Max, time.Second, longest, durationBound, "")
	within(f, "policy.ban.forgeable_max", b.ForgeableMax, time.Second, longest, durationBound, "")
	within(f, "policy.ban.memory", b.Memory, 0, longest, durationBound, "")
	if b.First > b.Max && !f.bad["policy.ban.first"] && !f.bad["policy.ban.max"] {
		key := "policy.ban.max"
		if !f.given(key) {
			key = "policy.ban.first"
		}
		f.fail(key, fmt.Sprintf("first (%s) is longer than max (%s)", durationBound(b.First), durationBound(b.Max)),
			detail{hint: "max: " + durationBound(b.First)})
	}
}

func (f *file) trust(t *Trust) {
	within(f, "policy.trust.ttl", t.TTL, 0, longest, durationBound, "")
	if t.TTL == 0 && !f.bad["policy.trust.ttl"] {
		f.warn("policy.trust.ttl", "no login is trusted: one wrong phone can ban its whole office", detail{hint: "24h"})
	}
	number(f, "policy.trust.tolerance", t.Tolerance, 1, 1e6, "")
	within(f, "policy.trust.accounts", t.Accounts, 1, 100_000, decimalOf, "")
}

func (f *file) regexp(text, path string, target **regexp.Regexp) {
	if text == "" {
		*target = nil
		return
	}
	d := detail{value: f.quote(text), allowed: "a regular expression of Go (RE2)", hint: "^[a-z0-9]{8}$"}
	if len(text) > 1000 {
		f.fail(path, "longer than 1000 bytes", d)
		return
	}
	re, err := regexp.Compile(text)
	if err != nil {
		what := "not a regular expression"
		if bad := (*syntax.Error)(nil); errors.As(err, &bad) {
			what = "not a regular expression, " + bad.Code.String()
			if i := strings.Index(text, bad.Expr); i >= 0 && bad.Expr != "" {
				what += fmt.Sprintf(" at character %d", utf8.RuneCountInString(text[:i])+1)
			}
		}
		f.fail(path, what, d)
		return
	}
	*target = re
}

func (f *file) firewall(w *Firewall) {
	table := detail{value: f.shown("firewall.table")}
	switch {
	case f.bad["firewall.table"]:
	case !identifier(w.Table):
		table.allowed = "a letter or _, then up to 63 letters, digits, _ or -"
		f.fail("firewall.table", "not a name for an nftables table", table)
	case slices.Contains([]string{"filter", "nat", "mangle", "raw", "security", "firewalld", "fw4", "f2b-table", "crowdsec", "crowdsec6"}, w.Table):
		table.hint = "ringwall"
		f.fail("firewall.table", "another program's table, which Ringwall would overwrite", table)
	}
	oneOf(f, "firewall.scope", w.Scope, ScopeVoIP, ScopeAll)
	f.ports("firewall.ports.udp", w.Ports.UDP)
	f.ports("firewall.ports.tcp", w.Ports.TCP)
	if len(w.Ports.UDP)+len(w.Ports.TCP) == 0 && w.Scope == ScopeVoIP && !f.bad["firewall.ports"] && !f.bad["firewall.ports.udp"] && !f.bad["firewall.ports.tcp"] {
		f.fail("firewall.ports", "no port at all, so a ban would stop nothing", detail{hint: "remove it for the default, or scope: all"})
	}
	if i := slices.Index(w.Ports.TCP, 22); i >= 0 && w.Scope == ScopeVoIP {
		f.warn(fmt.Sprintf("firewall.ports.tcp[%d]", i), "a ban also closes SSH, perhaps your own", detail{hint: "the ports of telephony alone"})
	}
	// include/uapi/linux/netfilter_ipv4.h: NF_IP_PRI_CONNTRACK_DEFRAG is -400, NF_IP_PRI_CONNTRACK -200.
	within(f, "firewall.priority", w.Priority, -399, -201, decimalOf,
		"-300: after fragments are joined (-400), before connection tracking (-200), or running calls go on")
	oneOf(f, "firewall.owner", w.Owner, OwnerAuto, OwnerOn, OwnerOff)
	within(f, "firewall.meter.rate", w.Meter.Rate, 1, 1_000_000, decimalOf, "")
	within(f, "firewall.meter.burst", w.Meter.Burst, 1, 10_000_000, decimalOf, "")
}

func (f *file) ports(path string, ports []uint16) {
	for i, port := range ports {
		if at := fmt.Sprintf("%s[%d]", path, i); port == 0 && !f.bad[at] {
			f.fail(at, "out of range", detail{value: f.shown(at), allowed: numbersAllowed(at)})
		}
	}
	duplicates(f, path, ports, f.fail)
}

// rules checks what goes beyond points.
func (f *file) rules(p *Policy) {
	number(f, "policy.misconfigured.per_minute", p.Misconfigured.PerMinute, 0, 10_000, "")
	within(f, "policy.misconfigured.burst", p.Misconfigured.Burst, 0, 10_000, decimalOf, "")
	within(f, "policy.misconfigured.accounts", p.Misconfigured.Accounts, 1, 64, decimalOf, "")
	within(f, "policy.challenges.answer_within", p.Challenges.AnswerWithin, 0, time.Minute, durationBound, "")
	within(f, "policy.challenges.accounts", p.Challenges.Accounts, 0, 100_000, decimalOf, "")
	within(f, "policy.challenges.warmup", p.Challenges.Warmup, 0, week, durationBound, "")
	within(f, "policy.breach.failures", p.Breach.Failures, 0, 10_000, decimalOf, "")
	f.several("policy.targeted.sources", p.Targeted.Sources, 100_000, "any mistyped password would be an attack", "10")
	within(f, "policy.targeted.within", p.Targeted.Within, time.Second, 30*day, durationBound, "")
	within(f, "policy.roaming.within", p.Roaming.Within, time.Second, 30*day, durationBound, "roaming.guesses: 0 to turn the rule off")
	within(f, "policy.roaming.guesses", p.Roaming.Guesses, 0, 1000, decimalOf, "")
	f.several("policy.storm.sources", p.Storm.Sources, 100_000, "a single source could suspend its own ban", "5")
	within(f, "policy.storm.within", p.Storm.Within, time.Second, day, durationBound, "storm.sources: 0 to turn the rule off")
	within(f, "policy.storm.memory", p.Storm.Memory, 0, longest, durationBound, "")

	within(f, "policy.limits.bans", p.Limits.Bans, 1, 10_000_000, decimalOf, "")
	within(f, "policy.limits.forgeable_bans", p.Limits.ForgeableBans, 0, 10_000_000, decimalOf, "")
	within(f, "policy.limits.forgeable_rate", p.Limits.ForgeableRate, 1, 1_000_000, decimalOf, "")
	within(f, "policy.limits.forgeable_burst", p.Limits.ForgeableBurst, 1, 10_000_000, decimalOf, "")
	if key := "policy.limits.forgeable_bans"; p.Limits.ForgeableBans > p.Limits.Bans && !f.bad[key] && !f.bad["policy.limits.bans"] {
		if !f.given(key) {
			p.Limits.ForgeableBans = p.Limits.Bans / 2 // the default is a half, and the file speaks of bans alone
		} else {
			f.fail(key, fmt.Sprintf("more than all bans (%d)", p.Limits.Bans), detail{value: f.shown(key), hint: decimalOf(p.Limits.Bans / 2)})
		}
	}
	if key := "policy.max_sources"; p.MaxSources <= p.Limits.ForgeableBans && !f.bad[key] && !f.bad["policy.limits.forgeable_bans"] {
		if !f.given("policy.limits.forgeable_bans") {
			p.Limits.ForgeableBans = p.MaxSources / 2 // as the defaults are, and the file speaks of sources alone
			return
		}
		f.warn(key, fmt.Sprintf("%d sources are no more than the %d bans that forged packets may make (policy.limits.forgeable_bans): while "+
			"they last, little is remembered of anybody else", p.MaxSources, p.Limits.ForgeableBans),
			detail{value: f.shown(key), hint: fmt.Sprintf("policy.limits.forgeable_bans: %d", p.MaxSources/2)})
	}
}

// several checks a number of sources, of which one is too few and 0 turns the rule off.
func (f *file) several(path string, n, most int, why, hint string) {
	if n == 1 {
		f.fail(path, "with 1, "+why, detail{value: f.shown(path), allowed: fmt.Sprintf("0 for off, or 2 to %d", most), hint: hint})
		return
	}
	within(f, path, n, 0, most, decimalOf, "")
}

// daemon checks the sections that say how the daemon itself runs.
func (f *file) daemon(c *Config) {
	if key := "metrics.listen"; c.Metrics.Listen != "" && !f.bad[key] {
		host, address, ok := hostPort(c.Metrics.Listen, "")
		switch {
		case !ok:
			f.fail(key, "not an address to listen on", detail{value: f.shown(key), allowed: `HOST:PORT, or "" for off`, hint: "127.0.0.1:9646"})
		case !loopback(host) && c.Metrics.Page:
			f.warn(key, "other machines can read the metrics, and the status page with its addresses and account names, without a password",
				detail{value: f.shown(key), hint: "127.0.0.1:9646, or metrics.page: false"})
		case !loopback(host):
			f.warn(key, "other machines can read the metrics, without a password", detail{value: f.shown(key), hint: "127.0.0.1:9646"})
		}
		if ok {
			c.Metrics.Listen = address
		}
	}
	// unix(7): sun_path has 108 bytes, the last a zero.
	if key := "control.socket"; f.absolute(key, c.Control.Socket) && len(c.Control.Socket) > 107 {
		f.fail(key, "longer than the kernel allows for a socket", detail{value: f.shown(key), allowed: "up to 107 bytes"})
	}
	if g := c.Control.Group; !printable(g, 32) && g != "" || strings.ContainsAny(g, " :/,") {
		f.fail("control.group", "not a group", detail{value: f.shown("control.group"), allowed: `the name of a group, or "" for the daemon's own`})
	}
	f.absolute("state.path", c.State.Path)
	oneOf(f, "log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf(f, "log.format", c.Log.Format, "auto", "text", "json")
}

// absolute says whether a path is one that does not depend on where the daemon was started.
func (f *file) absolute(key, path string) bool {
	if f.bad[key] {
		return false
	}
	if !filepath.IsAbs(path) || !printable(path, 4095) || strings.HasSuffix(path, "/") {
		f.fail(key, "not a file's whole path", detail{value: f.shown(key), allowed: "a path that begins with /"})
		return false
	}
	return true
}

// oneOf checks a value of which there are only a few.
func oneOf[T ~string](f *file, path string, value T, allowed ...T) {
	if f.bad[path] || slices.Contains(allowed, value) {
		return
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		names[i] = string(a)
	}
	d := detail{value: f.shown(path), allowed: strings.Join(names, ", "), hint: nearest(string(value), names)}
	if _, ok := boolean(string(value)); d.hint == "" && ok {
		on, _ := boolean(string(value))
		switch {
		case !on && slices.Contains(names, "off"):
			d.hint = "off"
		case !on && slices.Contains(names, string(Observe)):
			d.hint = string(Observe)
		case on && slices.Contains(names, string(Enforce)):
			d.hint = string(Enforce)
		}
	}
	f.fail(path, "not one of the values", d)
}

// within checks that low <= value <= high.
func within[T cmp.Ordered](f *file, path string, value, low, high T, show func(T) string, hint string) {
	if f.bad[path] || value >= low && value <= high {
		return
	}
	f.fail(path, "out of range", detail{value: f.shown(path), allowed: show(low) + " to " + show(high), hint: hint})
}

// number is [within] for a number that may have a fraction.
func number(f *file, path string, value, low, high float64, hint string) {
	within(f, path, value, low, high, formatFloat, hint)
}

func numbersAllowed(path string) string {
	switch {
	case strings.HasPrefix(path, "firewall.ports."):
		return "1 to 65535"
	case path == "firewall.meter.rate":
		return "1 to 1000000"
	case path == "firewall.meter.burst":
		return "1 to 10000000"
	}
	return "a number from 1 on"
}

// duplicates reports entries that a list holds twice.
func duplicates[T comparable](f *file, path string, list []T, report func(path, what string, d detail)) {
	seen := make(map[T]bool, len(list))
	var none T
	for i, entry := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if seen[entry] && entry != none && !f.bad[at] {
			report(at, "given twice", detail{value: f.shown(at), hint: "remove one of them"})
		}
		seen[entry] = true
	}
}

// printable says whether text is one line of 1 to limit bytes that a terminal shows as it is.
func printable(text string, limit int) bool {
	return text != "" && len(text) <= limit && utf8.ValidString(text) &&
		!strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) })
}

// identifier says whether nft can read the name (the rule "string" in nftables' src/scanner.l, more narrowly).
func identifier(name string) bool {
	if name == "" || len(name) > 64 || name[0] == '-' || name[0] >= '0' && name[0] <= '9' {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if c != '_' && c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}
