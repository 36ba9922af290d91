package fail2ban

import (
	"slices"
	"strconv"
	"strings"
)

// Ports are the ports that a jail closes for whom it bans.
type Ports struct {
	List []uint16 // each once, ranges written out
	Wide []string // ranges of more ports than can be closed one by one
	All  string   // the range of every port, as the file writes it; "" where there is none
	Odd  []string // what is no port
}

// maxPorts is how many ports of one jail are taken: the ranges that people give to SIP are far smaller, that of RTP is
// larger.
const maxPorts = 128

var portNames = map[string]uint16{
	"sip": 5060, "sips": 5061, "sip-tls": 5061, "iax": 4569, "iax2": 4569, "ssh": 22, "http": 80, "https": 443,
	"smtp":     25,
	"http-alt": 8080, "www": 80, "webcache": 8080,
}

// Ports that say what a jail is about: SIP, IAX2 and AMI, and a PBX' web page.
var (
	voipPorts = []uint16{5060, 5061, 4569, 5038, 5039}
	webPorts  = []uint16{80, 443, 8080, 8443}
)

// parsePorts reads "sip,5061,5080:5090". Both iptables' and nft's ranges are known.
func parsePorts(s string) Ports {
	var p Ports
	for _, word := range splitWords(s) {
		if n, ok := portNames[strings.ToLower(word)]; ok {
			p.addRange(word, n, n)
			continue
		}
		from, to, isRange := strings.Cut(word, ":")
		if !isRange {
			from, to, isRange = strings.Cut(word, "-")
		}
		low, err := strconv.ParseUint(from, 10, 16)
		high := low
		if isRange && err == nil {
			high, err = strconv.ParseUint(to, 10, 16)
		}
		switch {
		case strings.EqualFold(word, "all") || strings.EqualFold(word, "any"):
			p.All = word
		case err != nil || high == 0 || low > high || low == 0 && !isRange:
			p.Odd = append(p.Odd, word)
		case low <= 1 && high == 65535:
			p.All = word
		default:
			p.addRange(word, uint16(low), uint16(high))
		}
	}
	return p
}

func (p *Ports) addRange(word string, low, high uint16) {
	if int(high)-int(low)+len(p.List) >= maxPorts {
		if !slices.Contains(p.Wide, word) && len(p.Wide) < maxPorts {
			p.Wide = append(p.Wide, word)
		}
		return
	}
	for n := int(max(low, 1)); n <= int(high); n++ {
		if !slices.Contains(p.List, uint16(n)) {
			p.List = append(p.List, uint16(n))
		}
	}
}

func (p *Ports) addAll(more Ports) {
	for _, n := range more.List {
		p.addRange(strconv.Itoa(int(n)), n, n)
	}
	for _, word := range more.Wide {
		if !slices.Contains(p.Wide, word) && len(p.Wide) < maxPorts {
			p.Wide = append(p.Wide, word)
		}
	}
	if p.All == "" {
		p.All = more.All
	}
	p.Odd = append(p.Odd, more.Odd...)
}

// jailAction is an action of a jail, with the options in its brackets.
type jailAction struct {
	name    string
	options map[string]string
}

// parseActions reads "name[key="a b", …] name2" as fail2ban does (client/configreader.py, splitWithOptions).
func parseActions(s string) []jailAction {
	const most = 100
	var list []jailAction
	var word strings.Builder
	depth, quoted := 0, rune(0)
	name := func() {
		if word.Len() > 0 && len(list) < most {
			list = append(list, jailAction{word.String(), map[string]string{}})
		}
		word.Reset()
	}
	option := func() {
		key, value, ok := strings.Cut(word.String(), "=")
		if key = strings.TrimSpace(key); ok && len(list) > 0 && len(list[len(list)-1].options) < most {
			list[len(list)-1].options[key] = strings.Trim(strings.TrimSpace(value), `"'`)
		}
		word.Reset()
	}
	for _, r := range s {
		switch {
		case quoted != 0:
			if r == quoted {
				quoted = 0
			}
			word.WriteRune(r)
		case depth == 0 && r == '[':
			name()
			depth++
		case depth == 0 && strings.ContainsRune(" \t\r\n,", r):
			name()
		case depth == 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quoted = r
			word.WriteRune(r)
		case r == '[':
			depth++
			word.WriteRune(r)
		case r == ']':
			if depth--; depth == 0 {
				option()
			} else {
				word.WriteRune(r)
			}
		case r == ',' && depth == 1:
			option()
		default:
			word.WriteRune(r)
		}
	}
	if depth > 0 {
		option()
	} else {
		name()
	}
	return list
}
