package fail2ban

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/hosts"
	"github.com/ringwall/ringwall/pkg/printable"
)

// Jail is one section of the jail files, as far as it says something to Ringwall. The zero value of a setting is that
// nobody has set it.
type Jail struct {
	Name      string
	Enabled   bool
	VoIP      bool
	Why       string // why it is taken to be about telephony, or not
	Counts    FailureKinds
	Filter    string
	Ports     Ports  // of the jail and of its actions
	AllPorts  string // what makes its bans close every port; "" where nothing does
	MaxRetry  int
	FindTime  time.Duration
	BanTime   time.Duration // Forever too
	Increment Increment
	Actions   []string // names
	Ignore    []string // words of ignoreip
	IgnoreCmd string
	Own       []string // keys that its own section sets

	mails mails // to nobody, where it sends none
}

// FailureKinds is what a jail counts, and so which of Ringwall's points its numbers are about.
type FailureKinds uint8

// What jails count. Most count all of it.
const (
	Passwords FailureKinds = 1 << iota // wrong ones
	Accounts                           // that do not exist
	Manager                            // failed logins to AMI
)

// countedFailures tells by the words of a filter, or of the jail's name where there is no filter, what a jail counts.
func countedFailures(name, filter string, ports []uint16) FailureKinds {
	word := cmp.Or(filter, name)
	begins := func(parts ...string) bool {
		return slices.ContainsFunc(lowercaseWords(word), func(w string) bool {
			return slices.ContainsFunc(parts, func(p string) bool { return strings.HasPrefix(w, p) })
		})
	}
	const amiPort, amiTLSPort = 5038, 5039
	onlyAMI := len(ports) > 0 &&
		!slices.ContainsFunc(ports, func(p uint16) bool { return p != amiPort && p != amiTLSPort })
	passwords, accounts := begins("auth", "passw", "login", "brute"), begins("scan", "enum", "unknown", "invalid")
	switch {
	case onlyAMI, slices.Contains(lowercaseWords(word), "ami"), begins("manager"):
		return Manager
	case passwords && !accounts:
		return Passwords
	case accounts && !passwords:
		return Accounts
	}
	return Passwords | Accounts | Manager
}

func lowercaseWords(s string) []string {
	return strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return r < 'a' || r > 'z' })
}

// Increment is bantime.increment and what goes with it.
type Increment struct {
	On          bool
	Factor      float64
	MaxTime     time.Duration // 0 is none
	Formula     string
	Multipliers []float64
	Random      time.Duration
}

// optionReader reads options of one jail, and notes what cannot be read.
type optionReader struct {
	c      *jailConfig
	name   string
	report func(string)
}

func (r optionReader) readText(key string) string {
	v, _, err := r.c.interpolatedOption(r.name, key)
	if err != nil {
		r.report(fmt.Sprintf("%s: %v", key, err))
		return ""
	}
	return strings.TrimSpace(v)
}

func (r optionReader) readDuration(key string) time.Duration {
	text := r.readText(key)
	if text == "" {
		return 0
	}
	d, err := ParseDuration(text)
	if err != nil {
		r.report(fmt.Sprintf("%s: %v", key, err))
	}
	return d
}

// isTrue follows client/configreader.py.
func isTrue(text string) bool {
	return slices.Contains([]string{"1", "on", "true", "yes"}, strings.ToLower(text))
}

func (c *jailConfig) readJail(name string, say func(string)) Jail {
	s := optionReader{c, name, say}
	j := Jail{Name: name, Enabled: isTrue(s.readText("enabled"))}
	j.Filter, _, _ = strings.Cut(s.readText("filter"), "[")
	j.Filter = strings.TrimSpace(j.Filter)
	for key := range c.sections[name] {
		j.Own = append(j.Own, key)
	}
	slices.Sort(j.Own)
	quiet := optionReader{c, name, func(string) {}} // whose jail it is is not known yet
	j.Ports = parsePorts(quiet.readText("port"))
	own := j.Ports
	actions := parseActions(quiet.readText("action"))
	if len(actions) == 0 { // jail.conf makes action of banaction; without that file nobody does
		actions = parseActions(quiet.readText("banaction"))
	}
	for _, a := range actions {
		j.Ports.addAll(parsePorts(a.options["port"]))
	}
	j.VoIP, j.Why = aboutTelephony(name, j.Filter, j.Ports.List, splitWords(quiet.readText("logpath")))
	if !j.VoIP && !strings.Contains(j.Filter, "recidive") || !j.Enabled {
		return j
	}
	if len(j.Ports.Odd) > 0 && j.VoIP {
		say("port: " + quoteList(j.Ports.Odd) + " is no number or known name")
	}
	if text := s.readText("maxretry"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1_000_000 {
			say("maxretry: " + printable.Quote(text) + " is not a number from 1 to 1000000")
		} else {
			j.MaxRetry = n
		}
	}
	j.FindTime, j.BanTime = s.readDuration("findtime"), s.readDuration("bantime")
	if !j.VoIP {
		return j
	}
	j.Increment = s.readIncrement()
	j.Ignore = splitWords(s.readText("ignoreip"))
	j.IgnoreCmd = s.readText("ignorecommand")
	s.readText("action") // says what is wrong with it
	for _, a := range actions {
		if !slices.Contains(j.Actions, a.name) {
			j.Actions = append(j.Actions, a.name)
		}
		if m, ok := mailOf(a); ok && len(j.mails.to) == 0 {
			j.mails = m
		}
	}
	j.Counts = countedFailures(name, j.Filter, own.List)
	switch {
	case slices.ContainsFunc(j.Actions, func(a string) bool { return strings.Contains(a, "allports") }):
		j.AllPorts = "the ban of all ports"
	case j.Ports.All != "":
		j.AllPorts = "port = " + j.Ports.All + " (a ban of all ports)"
	}
	return j
}

func (r optionReader) readIncrement() Increment {
	in := Increment{On: isTrue(r.readText("bantime.increment")), Factor: 1}
	if !in.On {
		return in
	}
	in.MaxTime, in.Random = r.readDuration("bantime.maxtime"), r.readDuration("bantime.rndtime")
	in.Formula = strings.Join(strings.Fields(r.readText("bantime.formula")), "")
	if text := r.readText("bantime.factor"); text != "" {
		if f, err := parseNumber(text); err != nil || f <= 0 {
			r.report("bantime.factor: " + printable.Quote(text) + " is not a number above zero")
		} else {
			in.Factor = f
		}
	}
	for _, word := range strings.Fields(r.readText("bantime.multipliers")) {
		f, err := parseNumber(word)
		if err != nil || f <= 0 || len(in.Multipliers) == 1000 {
			r.report("bantime.multipliers: " + printable.Quote(word) + " is not a number above zero")
			in.Multipliers = nil
			break
		}
		in.Multipliers = append(in.Multipliers, f)
	}
	return in
}

// splitWords follows helpers.splitwords: commas, spaces and line ends.
func splitWords(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" ,\n\t\r", r) })
}

// aboutTelephony reports, with the reason, whether a jail is about Asterisk or its like. Its own name counts only
// where the filter is unknown.
func aboutTelephony(name, filter string, ports []uint16, logs []string) (bool, string) {
	word := strings.ToLower(filter)
	what := "filter " + printable.Quote(filter)
	if word == "" {
		word, what = strings.ToLower(name), "its name"
	}
	known := slices.IndexFunc(ports, func(p uint16) bool { return slices.Contains(voipPorts, p) })
	if why := webPageReason(word, what, ports, logs); why != "" && known < 0 {
		return false, why
	}
	for _, part := range []string{"asterisk", "pjsip", "freeswitch", "kamailio", "opensips", "voip", "iax", "issabel"} {
		if strings.Contains(word, part) {
			return true, what
		}
	}
	if slices.Contains(lowercaseWords(word), "sip") {
		return true, what
	}
	if known >= 0 {
		return true, fmt.Sprintf("port %d", ports[known])
	}
	return false, "neither its filter nor its ports are about telephony"
}

// webPageReason says why a jail is about the web page of a PBX, which is none of Ringwall's business, or "".
func webPageReason(word, what string, ports []uint16, logs []string) string {
	all := func(n int, is func(i int) bool) bool {
		for i := range n {
			if !is(i) {
				return false
			}
		}
		return n > 0
	}
	switch {
	case all(len(ports), func(i int) bool { return slices.Contains(webPorts, ports[i]) }):
		return "its ports are those of the web page"
	case all(len(logs), func(i int) bool { return isWebLog(logs[i]) }):
		return "its log is that of the web page"
	case word == "freepbx" || word == "pbx-gui" || slices.ContainsFunc(lowercaseWords(word), func(w string) bool {
		return slices.Contains([]string{"gui", "web", "webui", "www", "http", "https", "httpd", "apache", "nginx",
			"lighttpd",
			"php"}, w)
	}):
		return what + " is about the web page"
	}
	return ""
}

// isWebLog says whether a file is one that web servers and the web pages of PBXes write, such as Issabel's audit.log
// and FreePBX' freepbx_security.log.
func isWebLog(path string) bool {
	path = strings.ToLower(path)
	return slices.ContainsFunc([]string{
		"apache", "httpd", "nginx", "lighttpd", "access.log", "access_log", "error_log", "issabel/audit",
		"elastix/audit",
		"freepbx_security",
	}, func(part string) bool { return strings.Contains(path, part) })
}

// Allow is an entry of the allow list: a network or a host name.
type Allow struct {
	Prefix netip.Prefix
	Host   string
	From   string // the jail whose ignoreip it is
}

// String is how the configuration writes it.
func (a Allow) String() string {
	switch {
	case a.Host != "":
		return a.Host
	case a.Prefix.IsSingleIP():
		return a.Prefix.Addr().String()
	}
	return a.Prefix.String()
}

// parseAllowEntry reads a word of ignoreip. An empty trouble is success.
func parseAllowEntry(word string) (a Allow, trouble string) {
	p, ok := parsePrefix(word)
	switch {
	case ok && p.Addr().IsLoopback() && p.Bits() >= 8:
		return a, loopbackNote
	case ok && (p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 16):
		return a, "allows so many addresses that attackers are among them; name the networks of your own phones and " +
			"trunks"
	case ok && (p.Addr().IsMulticast() || p.Addr().IsUnspecified()):
		return a, "is never the source of a packet"
	case ok:
		return Allow{Prefix: p}, ""
	case word[0] >= '0' && word[0] <= '9' && strings.Trim(word, "0123456789.xX-") == "":
		// 192.0.2.x could be a host name too.
		return a, "is neither an address nor a network; write it as networks, such as 192.0.2.0/24, in policy.allow"
	case hosts.ValidName(word):
		return Allow{Host: strings.ToLower(strings.TrimSuffix(word, "."))}, ""
	case strings.Contains(word, ":/"):
		return a, "is a file of addresses; add what stands in it to policy.allow"
	}
	return a, "is neither an address, a network nor a host name"
}

const loopbackNote = "is this machine itself, which Ringwall never bans"

// parsePrefix reads an address or a network, with fail2ban's form ADDRESS/NETMASK too. IPv4-mapped IPv6 is unmapped.
func parsePrefix(s string) (netip.Prefix, bool) {
	host, length, network := strings.Cut(s, "/")
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" {
		return netip.Prefix{}, false
	}
	bits := addr.BitLen()
	if network {
		n, err := strconv.ParseUint(length, 10, 8)
		if mask, maskErr := netip.ParseAddr(length); err != nil && maskErr == nil && mask.BitLen() == addr.BitLen() {
			n, err = maskBits(mask)
		}
		if err != nil || int(n) > addr.BitLen() {
			return netip.Prefix{}, false
		}
		bits = int(n)
	}
	if addr.Is4In6() {
		if bits < 96 {
			return netip.Prefix{}, false
		}
		addr, bits = addr.Unmap(), bits-96
	}
	return netip.PrefixFrom(addr, bits).Masked(), true
}

func maskBits(mask netip.Addr) (uint64, error) {
	n := 0
	for n < mask.BitLen() {
		if b := mask.AsSlice()[n/8]; b&(0x80>>(n%8)) == 0 {
			break
		}
		n++
	}
	all := mask
	if all.Is4() {
		all = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	} else {
		all = netip.AddrFrom16([16]byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255})
	}
	if netip.PrefixFrom(all, n).Masked().Addr() != mask {
		return 0, fmt.Errorf("the mask has holes")
	}
	return uint64(n), nil
}

func quoteList(list []string) string {
	const most = 5
	var out []string
	for i, s := range list {
		if i == most {
			out = append(out, fmt.Sprintf("and %d more", len(list)-most))
			break
		}
		out = append(out, printable.Quote(s))
	}
	return strings.Join(out, ", ")
}
