package fail2ban

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/hosts"
)

// Jail is one section of the jail files, as far as it says something to Ringwall. The zero value of a setting is that
// nobody has set it.
type Jail struct {
	Name      string
	Enabled   bool
	VoIP      bool
	Why       string // why it is taken to be about telephony, or not
	Filter    string
	Ports     []uint16 // numbers and names that are known; ranges are left out
	AllPorts  bool
	MaxRetry  int
	FindTime  time.Duration
	BanTime   time.Duration // Forever too
	Increment Increment
	Actions   []string // names
	Ignore    []string // words of ignoreip
	IgnoreCmd string
	Own       []string // keys that its own section sets
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

// setting reads options of one jail, and notes what cannot be read.
type setting struct {
	c    *config
	name string
	say  func(string)
}

func (s setting) text(key string) string {
	v, _, err := s.c.get(s.name, key)
	if err != nil {
		s.say(fmt.Sprintf("%s: %v", key, err))
		return ""
	}
	return strings.TrimSpace(v)
}

func (s setting) duration(key string) time.Duration {
	text := s.text(key)
	if text == "" {
		return 0
	}
	d, err := ParseDuration(text)
	if err != nil {
		s.say(fmt.Sprintf("%s: %v", key, err))
	}
	return d
}

// isTrue follows client/configreader.py.
func isTrue(text string) bool {
	return slices.Contains([]string{"1", "on", "true", "yes"}, strings.ToLower(text))
}

func (c *config) jail(name string, say func(string)) Jail {
	s := setting{c, name, say}
	j := Jail{Name: name, Enabled: isTrue(s.text("enabled"))}
	j.Filter, _, _ = strings.Cut(s.text("filter"), "[")
	j.Filter = strings.TrimSpace(j.Filter)
	for key := range c.sections[name] {
		j.Own = append(j.Own, key)
	}
	slices.Sort(j.Own)
	ports, odd := ports(s.text("port"))
	j.Ports = ports
	j.VoIP, j.Why = telephony(name, j.Filter, ports)
	if !j.VoIP && !strings.Contains(j.Filter, "recidive") || !j.Enabled {
		return j
	}
	if len(odd) > 0 && j.VoIP && !slices.Equal(odd, []string{"0:65535"}) {
		say("port: " + quotes(odd) + " is no number or known name")
	}
	if text := s.text("maxretry"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1_000_000 {
			say("maxretry: " + quote(text) + " is not a number from 1 to 1000000")
		} else {
			j.MaxRetry = n
		}
	}
	j.FindTime, j.BanTime = s.duration("findtime"), s.duration("bantime")
	if !j.VoIP {
		return j
	}
	j.Increment = s.increment()
	j.Ignore = splitWords(s.text("ignoreip"))
	j.IgnoreCmd = s.text("ignorecommand")
	for _, word := range actionNames(s.text("action")) {
		if !slices.Contains(j.Actions, word) {
			j.Actions = append(j.Actions, word)
		}
	}
	j.AllPorts = slices.ContainsFunc(j.Actions, func(a string) bool { return strings.Contains(a, "allports") })
	return j
}

func (s setting) increment() Increment {
	in := Increment{On: isTrue(s.text("bantime.increment")), Factor: 1}
	if !in.On {
		return in
	}
	in.MaxTime, in.Random = s.duration("bantime.maxtime"), s.duration("bantime.rndtime")
	in.Formula = strings.Join(strings.Fields(s.text("bantime.formula")), "")
	if text := s.text("bantime.factor"); text != "" {
		if f, err := parseNumber(text); err != nil || f <= 0 {
			s.say("bantime.factor: " + quote(text) + " is not a number above zero")
		} else {
			in.Factor = f
		}
	}
	for _, word := range strings.Fields(s.text("bantime.multipliers")) {
		f, err := parseNumber(word)
		if err != nil || f <= 0 || len(in.Multipliers) == 1000 {
			s.say("bantime.multipliers: " + quote(word) + " is not a number above zero")
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

// actionNames takes the names out of "name[key="a b", …] name2".
func actionNames(s string) []string {
	var names []string
	var name strings.Builder
	depth, quoted := 0, rune(0)
	flush := func() {
		if name.Len() > 0 && len(names) < 100 {
			names = append(names, name.String())
		}
		name.Reset()
	}
	for _, r := range s {
		switch {
		case quoted != 0:
			if r == quoted {
				quoted = 0
			}
		case depth > 0 && (r == '"' || r == '\''):
			quoted = r
		case r == '[':
			flush()
			depth++
		case r == ']':
			depth = max(depth-1, 0)
		case depth > 0:
		case strings.ContainsRune(" \t\n,", r):
			flush()
		default:
			name.WriteRune(r)
		}
	}
	flush()
	return names
}

var portNames = map[string]uint16{
	"sip": 5060, "sips": 5061, "sip-tls": 5061, "iax": 4569, "iax2": 4569, "ssh": 22, "http": 80, "https": 443, "smtp": 25,
}

// ports reads "sip,5061,8000:8100"; odd is what stands for no single port.
func ports(s string) (list []uint16, odd []string) {
	for _, word := range splitWords(s) {
		n, ok := portNames[strings.ToLower(word)]
		if !ok {
			v, err := strconv.ParseUint(word, 10, 16)
			if err != nil || v == 0 {
				odd = append(odd, word)
				continue
			}
			n = uint16(v)
		}
		if !slices.Contains(list, n) && len(list) < 64 {
			list = append(list, n)
		}
	}
	return list, odd
}

// telephony says whether a jail is about Asterisk or its like. Its own name counts only where the filter is unknown.
func telephony(name, filter string, ports []uint16) (bool, string) {
	word := strings.ToLower(filter)
	what := "filter " + quote(filter)
	if word == "" {
		word, what = strings.ToLower(name), "its name"
	}
	switch word {
	case "freepbx", "pbx-gui", "freepbx-gui":
		return false, what + " is about the web page"
	}
	for _, part := range []string{"asterisk", "pjsip", "freeswitch", "kamailio", "opensips", "voip", "iax", "issabel"} {
		if strings.Contains(word, part) {
			return true, what
		}
	}
	if slices.Contains(strings.FieldsFunc(word, func(r rune) bool { return r < 'a' || r > 'z' }), "sip") {
		return true, what
	}
	for _, p := range ports {
		switch p {
		case 5060, 5061, 4569, 5038:
			return true, fmt.Sprintf("port %d", p)
		}
	}
	return false, "neither its filter nor its ports are about telephony"
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

// allowEntry reads a word of ignoreip. An empty trouble is success.
func allowEntry(word string) (a Allow, trouble string) {
	p, ok := parsePrefix(word)
	switch {
	case ok && p.Addr().IsLoopback() && p.Bits() >= 8:
		return a, loopbackNote
	case ok && (p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 16):
		return a, "allows so many addresses that attackers are among them; name the networks of your own phones and trunks"
	case ok && (p.Addr().IsMulticast() || p.Addr().IsUnspecified()):
		return a, "is never the source of a packet"
	case ok:
		return Allow{Prefix: p}, ""
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

func quotes(list []string) string {
	const most = 5
	var out []string
	for i, s := range list {
		if i == most {
			out = append(out, fmt.Sprintf("and %d more", len(list)-most))
			break
		}
		out = append(out, quote(s))
	}
	return strings.Join(out, ", ")
}
