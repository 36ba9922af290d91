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
func (ps *parser) check(c *Config, mode fs.FileMode) {
	ps.checkAsterisks(c.Asterisk, mode)
	ps.checkPolicy(&c.Policy)
	ps.checkGeo(&c.Geo, &c.Policy)
	ps.checkFirewall(&c.Firewall)
	ps.checkDaemon(c)
	ps.checkNotify(c.Notify, c.Asterisk, mode)
}

func (ps *parser) checkPolicy(p *Policy) {
	checkOneOf(ps, "policy.mode", p.Mode, Enforce, Observe)
	checkNumber(ps, "policy.threshold", p.Threshold, 0.1, 1e6, "policy.mode: observe to ban nobody")
	checkRange(ps, "policy.half_life", p.HalfLife, time.Second, longestDuration, formatBound, "")
	ps.checkPoints(p)
	ps.checkHoneypots(p)
	ps.checkBanTimes(&p.Ban)
	ps.checkTrust(&p.Trust)
	checkRange(ps, "policy.ipv6_prefix", p.IPv6Prefix, 32, 128, formatInt,
		"64: providers give a customer no less than a /64, and share a /32 among all of theirs")
	if p.IPv6Prefix > 64 && !ps.failed["policy.ipv6_prefix"] {
		ps.warn("policy.ipv6_prefix", "an attacker can use a new address of his /64 for each attempt", detail{hint: "64"})
	}
	checkRange(ps, "policy.networks.ipv4_prefix", p.Networks.IPv4Prefix, 16, 30, formatInt, "24")
	ps.several("policy.networks.sources", p.Networks.Sources, 65536, "one banned source would ban its whole network", "8")
	ps.several("policy.networks.ipv6_sources", p.Networks.IPv6Sources, 8, "one attacking source would ban its whole network", "8")
	for _, name := range serviceNames(p.Services) {
		checkOneOf(ps, "policy.services."+name, p.Services[name], Enforce, Observe)
	}
	if p.Services["SIP"] == Enforce {
		ps.warn("policy.services.SIP", "an attacker chooses which address chan_sip reports, and so whom Ringwall bans", detail{hint: "observe"})
	}
	failDuplicates(ps, "policy.allow", p.Allow, ps.warn)
	checkRange(ps, "policy.max_sources", p.MaxSources, 1000, 10_000_000, formatInt, "")
	ps.rules(p)
}

func (ps *parser) checkPoints(p *Policy) {
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
		checkNumber(ps, path, point.value, 0, 1e6, "0 to ignore it")
		sum += point.value
		if point.key != "honeypot" && point.value >= p.Threshold && ps.given(path) && !ps.failed["policy.threshold"] {
			ps.warn(path, "a single event reaches the threshold, a customer's mistake too", detail{value: ps.shown(path), hint: "less than policy.threshold"})
		}
	}
	if sum == 0 {
		ps.warn("policy.points", "every kind of evidence is ignored, so nobody is ever banned", detail{hint: "remove the zeros"})
	}
}

func (ps *parser) checkHoneypots(p *Policy) {
	for i, name := range p.Honeypots {
		path := fmt.Sprintf("policy.honeypots[%d]", i)
		d := detail{value: ps.shown(path)}
		switch {
		case ps.failed[path]:
		case name == "":
			d.hint = "remove it"
			ps.fail(path, "an empty account name", d)
		case name == "<unknown>":
			d.hint = "remove it"
			ps.fail(path, "Asterisk calls every account <unknown> before it has logged in, those of your phones too", d)
		case !isPrintable(name, 36): // PJSIP cuts AccountID there
			d.allowed = "1 to 36 bytes on one line; Asterisk reports no more of a name"
			ps.fail(path, "can never match an account", d)
		}
	}
	failDuplicates(ps, "policy.honeypots", p.Honeypots, ps.warn)
}

func (ps *parser) checkBanTimes(b *Ban) {
	checkRange(ps, "policy.ban.first", b.First, time.Second, longestDuration, formatBound, "")
	checkNumber(ps, "policy.ban.factor", b.Factor, 1, 1000, "1 for bans that are all equally long")
	checkRange(ps, "policy.ban.max", b.Max, time.Second, longestDuration, formatBound, "")
	checkRange(ps, "policy.ban.forgeable_max", b.ForgeableMax, time.Second, longestDuration, formatBound, "")
	checkRange(ps, "policy.ban.memory", b.Memory, 0, longestDuration, formatBound, "")
	if b.First > b.Max && !ps.failed["policy.ban.first"] && !ps.failed["policy.ban.max"] {
		key := "policy.ban.max"
		if !ps.given(key) {
			key = "policy.ban.first"
		}
		ps.fail(key, fmt.Sprintf("first (%s) is longer than max (%s)", formatBound(b.First), formatBound(b.Max)),
			detail{hint: "max: " + formatBound(b.First)})
	}
}

func (ps *parser) checkTrust(t *Trust) {
	checkRange(ps, "policy.trust.ttl", t.TTL, 0, longestDuration, formatBound, "")
	if t.TTL == 0 && !ps.failed["policy.trust.ttl"] {
		ps.warn("policy.trust.ttl", "no login is trusted: one wrong phone can ban its whole office", detail{hint: "24h"})
	}
	checkNumber(ps, "policy.trust.tolerance", t.Tolerance, 1, 1e6, "")
	checkRange(ps, "policy.trust.accounts", t.Accounts, 1, 100_000, formatInt, "")
}

func (ps *parser) decodeRegexp(text, path string, target **regexp.Regexp) {
	if text == "" {
		*target = nil
		return
	}
	d := detail{value: ps.quote(text), allowed: "a regular expression of Go (RE2)", hint: "^[a-z0-9]{8}$"}
	if len(text) > 1000 {
		ps.fail(path, "longer than 1000 bytes", d)
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
		ps.fail(path, what, d)
		return
	}
	*target = re
}

func (ps *parser) checkFirewall(w *Firewall) {
	table := detail{value: ps.shown("firewall.table")}
	switch {
	case ps.failed["firewall.table"]:
	case !isTableName(w.Table):
		table.allowed = "a letter or _, then up to 63 letters, digits, _ or -"
		ps.fail("firewall.table", "not a name for an nftables table", table)
	case slices.Contains([]string{"filter", "nat", "mangle", "raw", "security", "firewalld", "fw4", "f2b-table", "crowdsec", "crowdsec6"}, w.Table):
		table.hint = "ringwall"
		ps.fail("firewall.table", "another program's table, which Ringwall would overwrite", table)
	}
	checkOneOf(ps, "firewall.scope", w.Scope, ScopeVoIP, ScopeAll)
	ps.checkPorts("firewall.ports.udp", w.Ports.UDP)
	ps.checkPorts("firewall.ports.tcp", w.Ports.TCP)
	if len(w.Ports.UDP)+len(w.Ports.TCP) == 0 && w.Scope == ScopeVoIP && !ps.failed["firewall.ports"] && !ps.failed["firewall.ports.udp"] && !ps.failed["firewall.ports.tcp"] {
		ps.fail("firewall.ports", "no port at all, so a ban would stop nothing", detail{hint: "remove it for the default, or scope: all"})
	}
	if i := slices.Index(w.Ports.TCP, 22); i >= 0 && w.Scope == ScopeVoIP {
		ps.warn(fmt.Sprintf("firewall.ports.tcp[%d]", i), "a ban also closes SSH, perhaps your own", detail{hint: "the ports of telephony alone"})
	}
	// include/uapi/linux/netfilter_ipv4.h: NF_IP_PRI_CONNTRACK_DEFRAG is -400, NF_IP_PRI_CONNTRACK -200.
	checkRange(ps, "firewall.priority", w.Priority, -399, -201, formatInt,
		"-300: after fragments are joined (-400), before connection tracking (-200), or running calls go on")
	checkOneOf(ps, "firewall.owner", w.Owner, OwnerAuto, OwnerOn, OwnerOff)
	checkRange(ps, "firewall.meter.rate", w.Meter.Rate, 1, 1_000_000, formatInt, "")
	checkRange(ps, "firewall.meter.burst", w.Meter.Burst, 1, 10_000_000, formatInt, "")
}

func (ps *parser) checkPorts(path string, ports []uint16) {
	for i, port := range ports {
		if at := fmt.Sprintf("%s[%d]", path, i); port == 0 && !ps.failed[at] {
			ps.fail(at, "out of range", detail{value: ps.shown(at), allowed: numbersAllowed(at)})
		}
	}
	failDuplicates(ps, path, ports, ps.fail)
}

// rules checks what goes beyond points.
func (ps *parser) rules(p *Policy) {
	checkNumber(ps, "policy.misconfigured.per_minute", p.Misconfigured.PerMinute, 0, 10_000, "")
	checkRange(ps, "policy.misconfigured.burst", p.Misconfigured.Burst, 0, 10_000, formatInt, "")
	checkRange(ps, "policy.misconfigured.accounts", p.Misconfigured.Accounts, 1, 64, formatInt, "")
	checkRange(ps, "policy.challenges.answer_within", p.Challenges.AnswerWithin, 0, time.Minute, formatBound, "")
	checkRange(ps, "policy.challenges.accounts", p.Challenges.Accounts, 0, 100_000, formatInt, "")
	checkRange(ps, "policy.challenges.warmup", p.Challenges.Warmup, 0, week, formatBound, "")
	checkRange(ps, "policy.breach.failures", p.Breach.Failures, 0, 10_000, formatInt, "")
	ps.several("policy.targeted.sources", p.Targeted.Sources, 100_000, "any mistyped password would be an attack", "10")
	checkRange(ps, "policy.targeted.within", p.Targeted.Within, time.Second, 30*day, formatBound, "")
	checkRange(ps, "policy.roaming.within", p.Roaming.Within, time.Second, 30*day, formatBound, "roaming.guesses: 0 to turn the rule off")
	checkRange(ps, "policy.roaming.guesses", p.Roaming.Guesses, 0, 1000, formatInt, "")
	ps.several("policy.storm.sources", p.Storm.Sources, 100_000, "a single source could suspend its own ban", "5")
	checkRange(ps, "policy.storm.within", p.Storm.Within, time.Second, day, formatBound, "storm.sources: 0 to turn the rule off")
	checkRange(ps, "policy.storm.memory", p.Storm.Memory, 0, longestDuration, formatBound, "")

	checkRange(ps, "policy.limits.bans", p.Limits.Bans, 1, 10_000_000, formatInt, "")
	checkRange(ps, "policy.limits.forgeable_bans", p.Limits.ForgeableBans, 0, 10_000_000, formatInt, "")
	checkRange(ps, "policy.limits.forgeable_rate", p.Limits.ForgeableRate, 1, 1_000_000, formatInt, "")
	checkRange(ps, "policy.limits.forgeable_burst", p.Limits.ForgeableBurst, 1, 10_000_000, formatInt, "")
	if key := "policy.limits.forgeable_bans"; p.Limits.ForgeableBans > p.Limits.Bans && !ps.failed[key] && !ps.failed["policy.limits.bans"] {
		if !ps.given(key) {
			p.Limits.ForgeableBans = p.Limits.Bans / 2 // the default is a half, and the file speaks of bans alone
		} else {
			ps.fail(key, fmt.Sprintf("more than all bans (%d)", p.Limits.Bans), detail{value: ps.shown(key), hint: formatInt(p.Limits.Bans / 2)})
		}
	}
	if key := "policy.max_sources"; p.MaxSources <= p.Limits.ForgeableBans && !ps.failed[key] && !ps.failed["policy.limits.forgeable_bans"] {
		if !ps.given("policy.limits.forgeable_bans") {
			p.Limits.ForgeableBans = p.MaxSources / 2 // as the defaults are, and the file speaks of sources alone
			return
		}
		ps.warn(key, fmt.Sprintf("%d sources are no more than the %d bans that forged packets may make (policy.limits.forgeable_bans): while "+
			"they last, little is remembered of anybody else", p.MaxSources, p.Limits.ForgeableBans),
			detail{value: ps.shown(key), hint: fmt.Sprintf("policy.limits.forgeable_bans: %d", p.MaxSources/2)})
	}
}

// several checks a number of sources, of which one is too few and 0 turns the rule off.
func (ps *parser) several(path string, n, most int, why, hint string) {
	if n == 1 {
		ps.fail(path, "with 1, "+why, detail{value: ps.shown(path), allowed: fmt.Sprintf("0 for off, or 2 to %d", most), hint: hint})
		return
	}
	checkRange(ps, path, n, 0, most, formatInt, "")
}

// checkDaemon checks the sections that say how the daemon itself runs.
func (ps *parser) checkDaemon(c *Config) {
	if key := "metrics.listen"; c.Metrics.Listen != "" && !ps.failed[key] {
		host, address, ok := hostPort(c.Metrics.Listen, "")
		switch {
		case !ok:
			ps.fail(key, "not an address to listen on", detail{value: ps.shown(key), allowed: `HOST:PORT, or "" for off`, hint: "127.0.0.1:9646"})
		case !isLoopback(host) && c.Metrics.Page:
			ps.warn(key, "other machines can read the metrics, and the status page with its addresses and account names, without a password",
				detail{value: ps.shown(key), hint: "127.0.0.1:9646, or metrics.page: false"})
		case !isLoopback(host):
			ps.warn(key, "other machines can read the metrics, without a password", detail{value: ps.shown(key), hint: "127.0.0.1:9646"})
		}
		if ok {
			c.Metrics.Listen = address
		}
	}
	// unix(7): sun_path has 108 bytes, the last a zero.
	if key := "control.socket"; ps.checkAbsolutePath(key, c.Control.Socket) && len(c.Control.Socket) > 107 {
		ps.fail(key, "longer than the kernel allows for a socket", detail{value: ps.shown(key), allowed: "up to 107 bytes"})
	}
	if g := c.Control.Group; !isPrintable(g, 32) && g != "" || strings.ContainsAny(g, " :/,") {
		ps.fail("control.group", "not a group", detail{value: ps.shown("control.group"), allowed: `the name of a group, or "" for the daemon's own`})
	}
	ps.checkAbsolutePath("state.path", c.State.Path)
	checkOneOf(ps, "log.level", c.Log.Level, "debug", "info", "warn", "error")
	checkOneOf(ps, "log.format", c.Log.Format, "auto", "text", "json")
}

// checkAbsolutePath says whether a path is one that does not depend on where the daemon was started.
func (ps *parser) checkAbsolutePath(key, path string) bool {
	if ps.failed[key] {
		return false
	}
	if !filepath.IsAbs(path) || !isPrintable(path, 4095) || strings.HasSuffix(path, "/") {
		ps.fail(key, "not a file's whole path", detail{value: ps.shown(key), allowed: "a path that begins with /"})
		return false
	}
	return true
}

// checkOneOf checks a value of which there are only a few.
func checkOneOf[T ~string](f *parser, path string, value T, allowed ...T) {
	if f.failed[path] || slices.Contains(allowed, value) {
		return
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		names[i] = string(a)
	}
	d := detail{value: f.shown(path), allowed: strings.Join(names, ", "), hint: nearest(string(value), names)}
	if _, ok := parseBool(string(value)); d.hint == "" && ok {
		on, _ := parseBool(string(value))
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

// checkRange checks that low <= value <= high.
func checkRange[T cmp.Ordered](f *parser, path string, value, low, high T, show func(T) string, hint string) {
	if f.failed[path] || value >= low && value <= high {
		return
	}
	f.fail(path, "out of range", detail{value: f.shown(path), allowed: show(low) + " to " + show(high), hint: hint})
}

// checkNumber is [within] for a number that may have a fraction.
func checkNumber(f *parser, path string, value, low, high float64, hint string) {
	checkRange(f, path, value, low, high, formatFloat, hint)
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

// failDuplicates reports entries that a list holds twice.
func failDuplicates[T comparable](f *parser, path string, list []T, report func(path, what string, d detail)) {
	seen := make(map[T]bool, len(list))
	var none T
	for i, entry := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if seen[entry] && entry != none && !f.failed[at] {
			report(at, "given twice", detail{value: f.shown(at), hint: "remove one of them"})
		}
		seen[entry] = true
	}
}

// isPrintable says whether text is one line of 1 to limit bytes that a terminal shows as it is.
func isPrintable(text string, limit int) bool {
	return text != "" && len(text) <= limit && utf8.ValidString(text) &&
		!strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) })
}

// isTableName says whether nft can read the name (the rule "string" in nftables' src/scanner.l, more narrowly).
func isTableName(name string) bool {
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
