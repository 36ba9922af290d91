package signature

import (
	"slices"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/sip"
)

// maxSearched bounds what of a header is searched. Real ones are shorter by far.
const maxSearched = 512

// A List is what was loaded, and how often each line of it was met. Any number of goroutines may use it.
type List struct {
	marks      []mark
	byName     map[string]int
	agents     map[string][]int // by their first word
	identities map[identity][]int
	injections [256][]int // by their first byte
	injecting  [256]bool  // bytes of which each injection has one; and %, behind which one may stand

	mu     sync.Mutex
	since  time.Time
	counts []count
}

// identity is a key of List.identities: of where, and the user, or the host where any user is meant.
type identity struct {
	kind   kind
	isHost bool
	text   string
}

func newList(now time.Time) *List {
	return &List{
		byName: make(map[string]int), agents: make(map[string][]int), identities: make(map[identity][]int), since: now,
	}
}

func (l *List) add(m mark) {
	if _, ok := l.byName[m.name]; ok {
		return
	}
	i := len(l.marks)
	l.marks = append(l.marks, m)
	l.counts = append(l.counts, count{since: l.since})
	l.byName[m.name] = i
	switch m.kind {
	case agentKind:
		end := 0
		for end < len(m.text) && isWord(m.text[end]) {
			end++
		}
		l.agents[m.text[:end]] = append(l.agents[m.text[:end]], i)
	case injectionKind:
		l.injections[m.text[0]] = append(l.injections[m.text[0]], i)
		l.injecting['%'] = true
		l.injecting[rarestByte(m.text)] = true
	default:
		kinds := []kind{m.kind}
		if m.kind == identityKind {
			kinds = []kind{fromKind, toKind, contactKind}
		}
		for _, k := range kinds {
			key := identity{k, m.user == "", m.user}
			if key.isHost {
				key.text = m.host
			}
			l.identities[key] = append(l.identities[key], i)
		}
	}
}

// Match finds the first line that fits a request; answers fit none. The line is as it stands in its file, but for
// spaces. It counts nothing: whoever judges the source says that by Hit.
func (l *List) Match(m *sip.Message) (line string, ok bool) {
	if l == nil || m.Status != 0 {
		return "", false
	}
	i := l.agent(m.UserAgent)
	if i < 0 {
		i = l.identity(fromKind, &m.From.URI)
	}
	if i < 0 {
		i = l.identity(toKind, &m.To.URI)
	}
	if i < 0 {
		i = l.identity(contactKind, &m.Contact.URI)
	}
	for _, uri := range [...]*sip.URI{&m.RequestURI, &m.From.URI, &m.To.URI} {
		if i < 0 {
			i = l.injection(uri.User)
		}
		if i < 0 {
			i = l.injection(uri.Host)
		}
	}
	if i < 0 {
		return "", false
	}
	return l.marks[i].name, true
}

func (l *List) agent(text []byte) int {
	text = text[:min(len(text), maxSearched)]
	var lower [maxText]byte
	for start := 0; start < len(text); {
		if !isWord(text[start]) {
			start++
			continue
		}
		end := start
		for end < len(text) && isWord(text[end]) {
			if end-start < len(lower) {
				lower[end-start] = lowerByte(text[end])
			}
			end++
		}
		if end-start <= len(lower) {
			for _, i := range l.agents[string(lower[:end-start])] {
				if fits(text, start, l.marks[i].text) {
					return i
				}
			}
		}
		start = end
	}
	return -1
}

func (l *List) identity(k kind, uri *sip.URI) int {
	var lower [maxText]byte
	if n := len(uri.User); n > 0 && n <= len(lower) {
		for i, c := range uri.User {
			lower[i] = lowerByte(c)
		}
		for _, i := range l.identities[identity{k, false, string(lower[:n])}] {
			if host := l.marks[i].host; host == "" || equalFold(uri.Host, host) {
				return i
			}
		}
	}
	if n := len(uri.Host); n > 0 && n <= len(lower) {
		for i, c := range uri.Host {
			lower[i] = lowerByte(c)
		}
		for _, i := range l.identities[identity{k, true, string(lower[:n])}] {
			return i
		}
	}
	return -1
}

func (l *List) injection(escaped []byte) int {
	if !slices.ContainsFunc(escaped, func(c byte) bool { return l.injecting[c] }) {
		return -1
	}
	var buffer [maxSearched]byte
	text := unescape(buffer[:0], escaped)
	for start, c := range text {
		for _, i := range l.injections[lowerByte(c)] {
			if fits(text, start, l.marks[i].text) {
				return i
			}
		}
	}
	return -1
}

// rarestByte is one that users and hosts hardly have: parseLine wants one that is not of a word.
func rarestByte(text string) byte {
	rarest := text[0]
	for i := range len(text) {
		if c := text[i]; !isWord(c) && (isWord(rarest) || rarest == '.') {
			rarest = c
		}
	}
	return rarest
}

// unescape appends to the buffer what fits, with %27 as ' (RFC 3261 19.1.2, 25.1) and + as it is.
func unescape(buffer, escaped []byte) []byte {
	for i := 0; i < len(escaped) && len(buffer) < cap(buffer); i++ {
		c := escaped[i]
		if c == '%' && i+2 < len(escaped) {
			high, low := hexDigit(escaped[i+1]), hexDigit(escaped[i+2])
			if high >= 0 && low >= 0 {
				c = byte(high<<4 | low)
				i += 2
			}
		}
		buffer = append(buffer, c)
	}
	return buffer
}

func hexDigit(c byte) int {
	switch c = lowerByte(c); {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

// fits compares what stands at start with a mark in lower case. It begins and ends where words do.
func fits(text []byte, start int, mark string) bool {
	end := start + len(mark)
	if end > len(text) || !equalFold(text[start:end], mark) {
		return false
	}
	if start > 0 && isWord(mark[0]) && isWord(text[start-1]) {
		return false
	}
	return end == len(text) || !isWord(mark[len(mark)-1]) || !isWord(text[end])
}

func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if lowerByte(c) != lower[i] {
			return false
		}
	}
	return true
}

func lowerByte(c byte) byte { return byte(asciiLower(rune(c))) }

// isLetter takes bytes above ASCII for letters, which most of them are a part of.
func isLetter(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}

// isWord says what a word is made of: sip-scan is one, and not a part of sip-scanner nor of my-sip-scan.
func isWord(c byte) bool { return isLetter(c) || c == '-' || c == '_' }
