package config

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
	"go4.org/netipx"
)

// What people write who come from fail2ban, iptables or another list of addresses is known, and each mistake names a
// correction that is right as it stands. Where there is none, the functions here return nothing.

// maxCorrection is the longest correction that is written out, in bytes.
const maxCorrection = 600

// entriesText writes words as entries of the list at path: with commas where the file has them, and as lines where it
// has those.
func (ps *parser) entriesText(path string, words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = yamlWord(word)
	}
	text := strings.Join(quoted, ", ")
	if i := strings.LastIndexByte(path, '['); len(words) > 1 && i > 0 {
		if list := ps.valueNodes[path[:i]]; list != nil && list.Style&yaml.FlowStyle == 0 {
			text = "one line each: - " + strings.Join(quoted, ", - ")
		}
	}
	if len(text) > maxCorrection || ps.quoteUnlessSecret(strings.Join(words, " ")) == hidden {
		return ""
	}
	return text
}

// yamlWord writes a word so that YAML reads it as that text, in a list with commas too.
func yamlWord(word string) string {
	plain := word != "" && word[0] != ':' && word[len(word)-1] != ':' && word[0] != '-' &&
		!slices.Contains([]string{"null", "Null", "NULL"}, word) &&
		!strings.ContainsFunc(word, func(r rune) bool {
			return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) &&
				!strings.ContainsRune("._-/:", r)
		})
	if plain {
		return word
	}
	return strconv.Quote(word)
}

// asList is the text that somebody has written where a list belongs, as a list.
func (ps *parser) asList(path, text string) string {
	var words []string
	switch {
	case path == "policy.allow":
		words = correctAddresses(text)
	case strings.HasPrefix(path, "firewall.ports."):
		for _, word := range strings.FieldsFunc(text, isSeparator) {
			words = append(words, correctPorts(word)...)
		}
	case !strings.ContainsAny(text, ",;") && (path == "policy.honeypots" || strings.HasSuffix(path, ".exec")):
		words = strings.Fields(text)
	default:
		for word := range strings.SplitSeq(strings.ReplaceAll(text, ";", ","), ",") {
			if word = strings.TrimSpace(word); word != "" {
				words = append(words, word)
			}
		}
	}
	if list := ps.entriesText("", words); list != "" {
		return "[" + list + "]"
	}
	return "[ and ] around it, and a comma between two entries"
}

func isSeparator(r rune) bool { return r == ',' || r == ';' || unicode.IsSpace(r) }

// correctAddresses returns the entries of an allow list that a text was meant to be. A word of it that cannot be
// corrected comes as it is. For a text that is far too long to be repeated it returns nothing.
func correctAddresses(text string) []string {
	if len(text) > 2*maxCorrection {
		return nil
	}
	if !strings.ContainsAny(text, " ,\t\n") {
		if list := correctAddress(text); list != nil { // the ; of an URI stands for no second entry
			return list
		}
	}
	text = strings.NewReplacer(" - ", "-", " -", "-", "- ", "-").Replace(text)
	words := strings.FieldsFunc(text, isSeparator)
	var list []string
	for i := 0; i < len(words); i++ {
		word := words[i]
		if i+1 < len(words) && maskLength(words[i+1]) > 0 && !strings.Contains(word, "/") { // 192.0.2.0 255.255.255.0
			word += "/" + words[i+1]
			i++
		}
		if isAllowEntry(word) {
			list = append(list, word)
		} else if better := correctAddress(word); better != nil {
			list = append(list, better...)
		} else {
			list = append(list, word)
		}
	}
	return list
}

// correctAddress returns the entries that one word was meant to be, or nil.
func correctAddress(word string) []string {
	word = strings.Trim(word, `"'`)
	for _, try := range []func(string) []string{withoutURL, withMask, addressesOfWildcard, networksOfRange,
		withoutZeros} {
		if list := try(word); list != nil && !slices.ContainsFunc(list,
			func(s string) bool { return !isAllowEntry(s) }) {
			return list
		}
	}
	return nil
}

// withoutURL takes the host out of sip:user@host:port;transport=tls, https://host/path and host:port.
func withoutURL(word string) []string {
	host := word
	if _, rest, ok := strings.Cut(host, "://"); ok {
		host = rest
	} else if scheme, rest, ok := strings.Cut(host, ":"); ok &&
		slices.Contains([]string{"sip", "sips", "tel", "iax2"}, strings.ToLower(scheme)) {
		host = rest
	}
	host = host[strings.LastIndexByte(host, '@')+1:]
	if i := strings.IndexAny(host, ";?/"); i >= 0 && host != word {
		host = host[:i]
	}
	if h, _, ok := hostPort(host, ""); ok {
		host = h
	} else {
		host = strings.Trim(host, "[]")
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.Zone() != "" {
		host = addr.WithZone("").String()
	}
	if host == word {
		return nil
	}
	return []string{host}
}

// withMask reads 192.0.2.0/255.255.255.0, and a wildcard mask such as 192.0.2.0/0.0.0.255.
func withMask(word string) []string {
	host, text, ok := strings.Cut(word, "/")
	addr, err := netip.ParseAddr(host)
	if bits := maskLength(text); ok && err == nil && addr.Is4() && bits > 0 {
		return []string{netip.PrefixFrom(addr, bits).Masked().String()}
	}
	return nil
}

// maskLength returns how long a network mask of IPv4 is, written either way round, or 0.
func maskLength(text string) int {
	addr, err := netip.ParseAddr(text)
	if err != nil || !addr.Is4() {
		return 0
	}
	b := addr.As4()
	n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	if n>>31 == 0 {
		n = ^n
	}
	for bits := 1; bits <= 32; bits++ {
		if n == ^uint32(0)<<(32-bits) {
			return bits
		}
	}
	return 0
}

// addressesOfWildcard reads 192.0.2.*, 192.0.2.x and the 192.0.2. of hosts.allow.
func addressesOfWildcard(word string) []string {
	var whole []string
	rest := strings.Split(strings.TrimSuffix(word, "."), ".")
	for len(rest) > 0 && isDecimal(rest[0], false) {
		whole, rest = append(whole, rest[0]), rest[1:]
	}
	n := len(whole)
	if n == 0 || n > 3 || len(rest) > 4-n || slices.ContainsFunc(rest,
		func(s string) bool { return s != "*" && s != "x" && s != "X" }) {
		return nil
	}
	for len(whole) < 4 {
		whole = append(whole, "0")
	}
	return []string{strings.Join(whole, ".") + "/" + strconv.Itoa(8*n)}
}

// networksOfRange reads 192.0.2.1-192.0.2.50 and 192.0.2.1-50: the networks that hold exactly these addresses.
func networksOfRange(word string) []string {
	from, to, ok := strings.Cut(word, "-")
	low, err := netip.ParseAddr(from)
	if !ok || err != nil || low.Zone() != "" {
		return nil
	}
	if low.Is4() && isDecimal(to, false) {
		to = from[:strings.LastIndexByte(from, '.')+1] + to
	}
	high, err := netip.ParseAddr(to)
	if err != nil || high.Zone() != "" || high.BitLen() != low.BitLen() || high.Less(low) {
		return nil
	}
	const most = 64
	var list []string
	for addr := low; ; {
		bits := addr.BitLen()
		for bits > 0 {
			p := netip.PrefixFrom(addr, bits-1)
			if p.Masked().Addr() != addr || high.Less(netipx.PrefixLastIP(p)) {
				break
			}
			bits--
		}
		p := netip.PrefixFrom(addr, bits)
		list = append(list, AllowEntry{Prefix: p}.String())
		end := netipx.PrefixLastIP(p)
		if end == high {
			return list
		}
		if addr = end.Next(); !addr.IsValid() || len(list) >= most {
			return nil
		}
	}
}

// withoutZeros reads 192.000.002.001 as a person does.
func withoutZeros(word string) []string {
	host, length, network := strings.Cut(word, "/")
	parts := strings.Split(host, ".")
	for i, part := range parts {
		if part == "" || strings.Trim(part, "0123456789") != "" {
			return nil
		}
		if parts[i] = strings.TrimLeft(part, "0"); parts[i] == "" {
			parts[i] = "0"
		}
	}
	if host = strings.Join(parts, "."); network {
		host += "/" + length
	}
	return []string{host}
}

// correctPorts returns the numbers that a word was meant to be, the word itself where it is one, or nil.
func correctPorts(word string) []string {
	const most = 64
	word = strings.Trim(word, `"'`)
	if name, protocol, ok := strings.Cut(word, "/"); ok &&
		slices.Contains([]string{"udp", "tcp"}, strings.ToLower(protocol)) {
		word = name
	}
	switch strings.ToLower(word) {
	case "sip":
		return []string{"5060"}
	case "sips", "sip-tls":
		return []string{"5061"}
	case "iax", "iax2":
		return []string{"4569"}
	}
	from, to, isRange := strings.Cut(word, ":")
	if !isRange {
		from, to, isRange = strings.Cut(word, "-")
	}
	low, err := strconv.ParseUint(strings.TrimSpace(from), 10, 16)
	high := low
	if isRange && err == nil {
		high, err = strconv.ParseUint(strings.TrimSpace(to), 10, 16)
	}
	if err != nil || low == 0 || high < low || high-low >= most {
		return nil
	}
	var list []string
	for n := low; n <= high; n++ {
		list = append(list, strconv.FormatUint(n, 10))
	}
	return list
}

// correctNumber returns the number that a text was meant to be, or "".
func correctNumber(text string, fraction bool) string {
	text = strings.NewReplacer("_", "", " ", "").Replace(strings.TrimSpace(text))
	if fraction && strings.Count(text, ",") == 1 {
		text = strings.Replace(text, ",", ".", 1)
	}
	if whole := strings.TrimLeft(text, "0"); whole != text && whole != "" && whole[0] != '.' {
		text = whole
	}
	if !isDecimal(text, fraction) {
		return ""
	}
	return text
}

// withoutEnd says whether a text stands for a ban for ever, as fail2ban's -1 does.
func withoutEnd(text string) bool {
	return strings.HasPrefix(text, "-") || slices.Contains([]string{"forever", "never", "permanent", "permanently",
		"infinite", "inf", ".inf", "always"},
		strings.ToLower(text))
}

// lengthOfBan is a duration for a key of policy.ban that was to have no end.
func lengthOfBan(path string) string {
	switch path {
	case "policy.ban.first":
		return "7d"
	case "policy.ban.max":
		return "365d"
	case "policy.ban.forgeable_max":
		return "1d"
	case "policy.ban.memory":
		return "30d"
	}
	return ""
}

// fromFail2ban is what a key of fail2ban's in the section policy is here: a sentence about it, and what to write
// instead. Both are empty where the key is none of fail2ban's, or its value tells nothing.
func (ps *parser) fromFail2ban(key string, value *yaml.Node) (about, instead string) {
	text := ""
	switch value.Kind {
	case yaml.ScalarNode:
		text = value.Value
	case yaml.SequenceNode:
		for _, n := range value.Content {
			text += n.Value + ","
		}
	}
	if len(text) > maxCorrection || ps.quoteUnlessSecret(text) == hidden {
		return "", ""
	}
	switch key {
	case "maxretry":
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return "", ""
		}
		points := Default().Policy.Points.WrongPassword
		return "the threshold is in points, of which a wrong password gives " + formatFloat(points),
			"threshold: " + formatFloat(points*float64(max(n, 3)))
	case "findtime":
		if d, ok := likeFail2ban(text); ok { // a longer one would ban trusted offices
			return "half of the points are forgotten in half_life",
				"half_life: " + formatBound(min(max(d, time.Minute), time.Hour))
		}
	case "bantime":
		d, ok := likeFail2ban(text)
		switch {
		case withoutEnd(text):
			return "bans always end, since addresses change hands", "ban: {first: 7d, max: 365d}"
		case ok && d > Default().Policy.Ban.Max:
			return "", "ban: {first: " + formatBound(d) + ", max: " + formatBound(d) + "}"
		case ok:
			return "", "ban: {first: " + formatBound(max(d, time.Second)) + "}"
		}
	case "bantime.increment":
		return "bans always grow, by policy.ban.factor", "remove it"
	case "bantime.maxtime":
		if d, ok := likeFail2ban(text); ok {
			return "", "ban: {max: " + formatBound(max(d, Default().Policy.Ban.First)) + "}"
		}
	case "ignoreip":
		if list := ps.entriesText("", correctAddresses(text)); list != "" {
			return "", "allow: [" + list + "]"
		}
	case "ignoreself", "usedns", "backend", "logpath", "filter", "failregex", "banaction", "action", "ignorecommand":
		return "Ringwall has no need of it", "remove it"
	}
	return "", ""
}

// likeFail2ban reads a duration of which a bare number is seconds.
func likeFail2ban(text string) (time.Duration, bool) {
	if isDecimal(text, false) {
		text += "s"
	}
	d, err := parseDuration(text)
	if err != nil {
		d, err = parseDuration(durationFromWords(text))
	}
	return d, err == nil && d > 0
}
