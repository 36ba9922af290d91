package lists

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/printable"
)

// Format is how a list is written.
type Format string

// The formats. A netset of FireHOL is a plain list.
const (
	Auto     Format = "auto"
	Plain    Format = "plain"    // an address or network a line, with comments
	Netset   Format = "netset"   // the same
	NDJSON   Format = "ndjson"   // an object a line, with cidr or ip (Spamhaus)
	APIBAN   Format = "apiban"   // {"ipaddress": [...], "ID": "..."}
	CrowdSec Format = "crowdsec" // a LAPI's decisions, or a plain list of CrowdSec's
)

// CrowdSecScenario is how the scenarios of bans begin that Ringwall has told a LAPI. Read back from there they would be
// in force for longer than they are, and after an unban.
const CrowdSecScenario = "ringwall/"

// Formats are all of them.
func Formats() []Format { return []Format{Auto, Plain, Netset, NDJSON, APIBAN, CrowdSec} }

// Limits bound what is read.
type Limits struct {
	Bytes   int64 // of the text, after decompression
	Line    int   // bytes
	Entries int
}

// DefaultLimits are for a list of up to a million entries.
func DefaultLimits() Limits { return Limits{Bytes: 64 << 20, Line: 4 << 10, Entries: 1 << 20} }

// Parsed is what a list says, as it says it: see [Clean].
type Parsed struct {
	Entries []Entry
	Bad     int    // lines that name nothing
	Sample  string // the first of them, printable
	Cursor  string // APIBAN's ID of the next batch
	Credit  string // what the list wants to be shown beside it (Spamhaus)
}

// What is wrong with a list as a whole.
var (
	ErrTooLarge = errors.New("the list is larger than what is read")
	ErrNoList   = errors.New("this is no list of addresses")
	ErrCut      = errors.New("the list is cut off")
)

// maxBad is which part of the lines may name nothing: one in so many.
const maxBad = 20

// Parse reads a list. now is what durations in it count from. What it returns is sorted, each prefix once; an error
// means that nothing of it is to be used.
func Parse(format Format, r io.Reader, limits Limits, now time.Time) (*Parsed, error) {
	bounded := &boundedReader{r: r, left: limits.Bytes}
	in := bufio.NewReaderSize(bounded, 16<<10)
	if format == Auto || format == CrowdSec {
		var err error
		if format, err = guess(in, format); err != nil {
			return nil, err
		}
	}
	p := &Parsed{}
	var err error
	switch format {
	case NDJSON:
		err = p.lines(in, limits, p.ndjsonLine(limits))
	case APIBAN:
		err = p.apiban(in, limits)
	case CrowdSec:
		err = p.decisions(in, limits, now)
	default:
		err = p.lines(in, limits, func(line []byte) (bool, error) { return p.plainLine(line, limits) })
	}
	if bounded.exceeded {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limits.Bytes)
	}
	if err != nil {
		return nil, err
	}
	if p.Bad > 0 && p.Bad*maxBad > len(p.Entries)+p.Bad {
		return nil, fmt.Errorf("%w: %d of %d lines name no address, the first of them %q", ErrNoList, p.Bad,
			len(p.Entries)+p.Bad, p.Sample)
	}
	slices.SortFunc(p.Entries, func(a, b Entry) int {
		if c := a.compare(b); c != 0 {
			return c
		}
		return int(int64(ending(b)) - int64(ending(a))) // what lasts longest is kept
	})
	p.Entries = slices.CompactFunc(p.Entries, func(a, b Entry) bool { return a.compare(b) == 0 })
	return p, nil
}

// ending is the end of an entry in an order where never is last.
func ending(e Entry) uint32 { return e.ends - 1 }

// guess tells the formats apart by how they begin.
func guess(in *bufio.Reader, asked Format) (Format, error) {
	head, err := in.Peek(1024)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	head = bytes.TrimLeft(head, "\ufeff \t\r\n")
	if len(head) == 0 || head[0] != '{' && head[0] != '[' && !bytes.HasPrefix(head, []byte("null")) {
		return Plain, nil
	}
	if asked == CrowdSec {
		return CrowdSec, nil
	}
	line, _, _ := bytes.Cut(head, []byte("\n"))
	switch {
	case bytes.Contains(line, []byte(`"ipaddress"`)):
		return APIBAN, nil
	case bytes.Contains(line, []byte(`"new"`)) || bytes.Contains(line, []byte(`"deleted"`)):
		return CrowdSec, nil
	}
	return NDJSON, nil
}

// boundedReader ends after a number of bytes, and says so.
type boundedReader struct {
	r        io.Reader
	left     int64
	exceeded bool
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		var one [1]byte
		n, err := b.r.Read(one[:])
		if n > 0 {
			b.exceeded = true
			return 0, ErrTooLarge
		}
		return 0, err
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// lines calls read with each line that is not empty; it says whether the line was understood.
func (p *Parsed) lines(in *bufio.Reader, limits Limits, read func([]byte) (bool, error)) error {
	s := bufio.NewScanner(in)
	s.Buffer(make([]byte, min(limits.Line, 4<<10)), limits.Line)
	first := true
	for s.Scan() {
		line := bytes.TrimSpace(bytes.TrimPrefix(s.Bytes(), []byte("\ufeff")))
		if len(line) == 0 {
			continue
		}
		if first && line[0] == '<' {
			return fmt.Errorf("%w, but a web page: %q", ErrNoList, shown(line))
		}
		first = false
		ok, err := read(line)
		if err != nil {
			return err
		}
		if !ok {
			p.bad(line)
		}
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("%w: a line of more than %d bytes", ErrNoList, limits.Line)
	}
	return s.Err()
}

func (p *Parsed) bad(line []byte) {
	if p.Bad++; p.Bad == 1 {
		p.Sample = shown(line)
	}
}

func shown(line []byte) string { return printable.String(string(line[:min(len(line), 80)])) }

func (p *Parsed) add(e Entry, limits Limits) error {
	if len(p.Entries) >= limits.Entries {
		return fmt.Errorf("%w: more than %d entries", ErrTooLarge, limits.Entries)
	}
	p.Entries = append(p.Entries, e)
	return nil
}

// plainLine reads an address or a network, and leaves what is behind it.
func (p *Parsed) plainLine(line []byte, limits Limits) (bool, error) {
	if i := bytes.IndexAny(line, "#;"); i >= 0 {
		if line = bytes.TrimSpace(line[:i]); len(line) == 0 {
			return true, nil
		}
	}
	if i := bytes.IndexAny(line, " \t,"); i >= 0 {
		line = line[:i]
	}
	prefix, err := ParsePrefix(string(line))
	if err != nil {
		return false, nil
	}
	return true, p.add(NewEntry(prefix, time.Time{}), limits)
}

// ParsePrefix reads an address or a network. IPv4 in IPv6 is IPv4, and bits behind the length are of no account.
func ParsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, err
		}
		a = a.Unmap().WithZone("")
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	if a := prefix.Addr(); a.Is4In6() {
		if prefix.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("%s: wider than all of IPv4", prefix)
		}
		prefix = netip.PrefixFrom(a.Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), nil
}

// jsonLine is a line of Spamhaus' lists, and of others like them. The last one is about the list.
type jsonLine struct {
	CIDR, IP, Address, Prefix string
	Type                      string
	Timestamp                 int64
	Records                   *int
	Copyright                 string
	Terms                     string
}

// ndjsonLine reads the lines of an NDJSON list. One that says how many lines it has is held to it.
func (p *Parsed) ndjsonLine(limits Limits) func([]byte) (bool, error) {
	return func(line []byte) (bool, error) {
		var l jsonLine
		if err := json.Unmarshal(line, &l); err != nil {
			return false, nil
		}
		if l.Type == "metadata" {
			p.Credit = credit(l)
			if l.Records != nil && *l.Records != len(p.Entries)+p.Bad {
				return false, fmt.Errorf("%w: %d entries, and it says that it has %d", ErrCut, len(p.Entries)+p.Bad,
					*l.Records)
			}
			return true, nil
		}
		for _, s := range []string{l.CIDR, l.Prefix, l.IP, l.Address} {
			if s == "" {
				continue
			}
			prefix, err := ParsePrefix(s)
			if err != nil {
				return false, nil
			}
			return true, p.add(NewEntry(prefix, time.Time{}), limits)
		}
		return false, nil
	}
}

func credit(l jsonLine) string {
	text := l.Copyright
	if l.Timestamp > 0 {
		text += ", " + time.Unix(l.Timestamp, 0).UTC().Format(time.DateOnly)
	}
	if l.Terms != "" {
		text += ", " + l.Terms
	}
	text = strings.TrimPrefix(text, ", ")
	return printable.String(text[:min(len(text), 300)])
}

// apiban reads one batch of APIBAN.
func (p *Parsed) apiban(in io.Reader, limits Limits) error {
	var batch struct {
		IPAddress []string        `json:"ipaddress"`
		ID        json.RawMessage `json:"ID"`
	}
	if err := json.NewDecoder(in).Decode(&batch); err != nil {
		return notJSON(err)
	}
	if batch.IPAddress == nil {
		return fmt.Errorf("%w: no ipaddress in it", ErrNoList)
	}
	id := strings.Trim(string(batch.ID), `"`)
	if len(id) > 64 || strings.ContainsFunc(id, func(r rune) bool { return r != '-' && r != '_' && !isWord(r) }) {
		return fmt.Errorf("%w: its ID makes no sense: %q", ErrNoList, shown([]byte(id)))
	}
	if id != "none" && id != "null" {
		p.Cursor = id
	}
	for _, s := range batch.IPAddress {
		if s == "no new bans" { // in place of an address
			continue
		}
		prefix, err := ParsePrefix(s)
		if err != nil {
			p.bad([]byte(s))
			continue
		}
		if err := p.add(NewEntry(prefix, time.Time{}), limits); err != nil {
			return err
		}
	}
	return nil
}

func isWord(r rune) bool { return r >= '0' && r <= '9' || r|0x20 >= 'a' && r|0x20 <= 'z' }

func notJSON(err error) error {
	if errors.Is(err, ErrTooLarge) {
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w", ErrCut, err)
	}
	return fmt.Errorf("%w: no JSON: %s", ErrNoList, shown([]byte(err.Error())))
}

// decisions reads what a LAPI answers to GET /v1/decisions/stream?startup=true. It answers 200 before it asks its
// database, so that an error is JSON with entries missing: whether too many are is for [Accept].
func (p *Parsed) decisions(in io.Reader, limits Limits, now time.Time) error {
	d := json.NewDecoder(in)
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		if err == nil {
			err = errors.New("no object")
		}
		return notJSON(err)
	}
	named := false
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return notJSON(err)
		}
		if key != "new" {
			if key == "error" || key == "message" {
				return fmt.Errorf("%w: the server says that it failed", ErrNoList)
			}
			var skip json.RawMessage
			if err := d.Decode(&skip); err != nil {
				return notJSON(err)
			}
			continue
		}
		named = true
		t, err := d.Token()
		switch {
		case err != nil:
			return notJSON(err)
		case t == nil: // null: none
			continue
		case t != json.Delim('['):
			return fmt.Errorf("%w: new is no array", ErrNoList)
		}
		for d.More() {
			if err := p.decision(d, limits, now); err != nil {
				return err
			}
		}
		if _, err := d.Token(); err != nil {
			return notJSON(err)
		}
	}
	if _, err := d.Token(); err != nil {
		return notJSON(err)
	}
	if !named {
		return fmt.Errorf("%w: nothing new in it", ErrNoList)
	}
	return nil
}

func (p *Parsed) decision(d *json.Decoder, limits Limits, now time.Time) error {
	var one struct{ Value, Scope, Type, Duration, Scenario string }
	if err := d.Decode(&one); err != nil {
		return notJSON(err)
	}
	if scope := strings.ToLower(one.Scope); scope != "ip" && scope != "range" || one.Type != "ban" {
		return nil // a country, a captcha
	}
	if strings.HasPrefix(one.Scenario, CrowdSecScenario) {
		return nil
	}
	prefix, err := ParsePrefix(one.Value)
	length, err2 := time.ParseDuration(one.Duration)
	switch {
	case err != nil || err2 != nil:
		p.bad([]byte(one.Value + " " + one.Duration))
		return nil
	case length <= 0:
		return nil
	}
	return p.add(NewEntry(prefix, now.Add(length)), limits)
}
