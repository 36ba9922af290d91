package policy

import (
	"bytes"
	"io"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Print writes every effective value as YAML, with comments that give each key's meaning and the reason for its
// default. Secrets are written as "(hidden)". [Parse] reads the output back to the same configuration, secrets aside.
func (c *Config) Print(w io.Writer) error {
	p := printer{docs: docs()}
	p.section(reflect.ValueOf(c).Elem(), reflect.ValueOf(defaults()), "", 0)
	_, err := w.Write(p.out.Bytes())
	return err
}

// defaults is Default with one entry in each list of sections, so that every key has a default to show.
func defaults() Config {
	c := Default()
	c.Asterisk = []Asterisk{DefaultAsterisk()}
	c.Notify = []Notify{DefaultNotify()}
	return c
}

type printer struct {
	out  bytes.Buffer
	docs map[string]about
}

const printWidth = 110 // columns of a comment

// section writes the keys of v. standard holds the defaults; an invalid one leaves the comments out.
func (p *printer) section(v, standard reflect.Value, path string, depth int) {
	for i := range v.NumField() {
		name := keyName(v.Type().Field(i))
		at, field, usual := path+name, v.Field(i), reflect.Value{}
		if standard.IsValid() {
			usual = standard.Field(i)
		}
		if name == notInFile {
			continue
		}
		if depth == 0 && i > 0 {
			p.out.WriteByte('\n')
		}
		if field.Type() == reflect.TypeFor[Secret]() && !v.FieldByName(v.Type().Field(i).Name+"File").IsZero() {
			field = reflect.ValueOf(Secret{})
		}
		switch {
		case field.Type() == reflect.TypeFor[Ports]():
			p.ports(field.Interface().(Ports), usual, name, at, depth)
		case isSection(field.Type()):
			p.comment(at, reflect.Value{}, usual.IsValid(), depth)
			p.line(depth, name+":")
			p.section(field, usual, at+".", depth+1)
		case field.Kind() == reflect.Slice && isSection(field.Type().Elem()):
			p.comment(at, reflect.Value{}, usual.IsValid(), depth)
			p.sections(field, usual, name, at, depth)
		case field.Type() == reflect.TypeFor[map[string]Secret]():
			p.comment(at, reflect.Value{}, usual.IsValid(), depth)
			p.headers(field.Interface().(map[string]Secret), name, depth)
		case isMultiplier(field.Type()):
			p.comment(at, reflect.Value{}, usual.IsValid(), depth)
			p.multipliers(field, name, depth)
		case field.Kind() == reflect.Map:
			p.comment(at, reflect.Value{}, usual.IsValid(), depth)
			p.services(field.Interface().(map[string]Mode), usual, name, at, depth)
		case field.Kind() == reflect.Slice && field.Type().Elem().Kind() != reflect.Uint16 && field.Len() > 0:
			p.comment(at, usual, usual.IsValid(), depth)
			p.line(depth, name+":")
			for k := range field.Len() {
				p.line(depth+1, "- "+formatValue(field.Index(k)))
			}
		default:
			p.comment(at, usual, usual.IsValid(), depth)
			p.line(depth, name+": "+formatValue(field))
		}
	}
}

// ports writes the word auto, or both lists.
func (p *printer) ports(ports Ports, usual reflect.Value, name, at string, depth int) {
	p.comment(at, reflect.ValueOf("auto"), usual.IsValid(), depth)
	if ports.Auto {
		p.line(depth, name+": auto")
		return
	}
	p.line(depth, name+":")
	p.section(reflect.ValueOf(ports), usual, at+".", depth+1)
}

// sections writes a list of sections; the first has the comments.
func (p *printer) sections(list, usual reflect.Value, name, path string, depth int) {
	if list.Len() == 0 {
		p.line(depth, name+": []")
		if usual.IsValid() && usual.Len() > 0 {
			p.pattern(usual, name, path, depth)
		}
		return
	}
	p.line(depth, name+":")
	for k := range list.Len() {
		standard := reflect.Value{}
		if k == 0 && usual.IsValid() {
			standard = usual.Index(0)
		}
		start := p.out.Len()
		p.section(list.Index(k), standard, path+"[].", depth+2)
		// The dash stands before the first key, below that key's comment.
		indent := strings.Repeat("  ", depth+2)
		written := p.out.Bytes()[start:]
		for at := 0; at < len(written); {
			end := at + bytes.IndexByte(written[at:], '\n') + 1
			if line := written[at:end]; !bytes.HasPrefix(line, []byte(indent+"#")) {
				written[at+len(indent)-2] = '-'
				break
			}
			at = end
		}
	}
}

// pattern shows, as a comment, the keys that an entry of an empty list may have.
func (p *printer) pattern(usual reflect.Value, name, path string, depth int) {
	entry := printer{docs: p.docs}
	entry.sections(usual, usual, name, path, depth)
	p.line(depth, "# The keys of an entry, with their defaults:")
	for line := range strings.Lines(entry.out.String()) {
		p.out.WriteString("# " + line)
	}
}

func (p *printer) headers(headers map[string]Secret, name string, depth int) {
	if len(headers) == 0 {
		p.line(depth, name+": {}")
		return
	}
	p.line(depth, name+":")
	for _, key := range slices.Sorted(maps.Keys(headers)) {
		p.line(depth+1, quoteYAML(key)+": "+formatValue(reflect.ValueOf(headers[key])))
	}
}

func (p *printer) services(services map[string]Mode, usual reflect.Value, name, path string, depth int) {
	p.line(depth, name+":")
	for _, service := range serviceNames(services) {
		standard := reflect.Value{}
		if usual.IsValid() {
			standard = usual.MapIndex(reflect.ValueOf(service))
		}
		p.comment(path+"."+service, standard, usual.IsValid(), depth+1)
		p.line(depth+1, service+": "+formatValue(reflect.ValueOf(services[service])))
	}
}

func (p *printer) comment(path string, usual reflect.Value, wanted bool, depth int) {
	if !wanted {
		return
	}
	about := p.docs[path]
	p.wrap(depth, about.meaning)
	switch {
	case about.reason == "":
	case usual.IsZero() && path != "policy.networks.sources" && usual.Kind() != reflect.Bool && usual.Kind() != reflect.Slice:
		p.wrap(depth, "Default: "+about.reason+".") // "" or none: the reason says what stands in for it
	default:
		p.wrap(depth, "Default "+formatValue(usual)+": "+about.reason+".")
	}
}

func (p *printer) wrap(depth int, sentence string) {
	if sentence == "" {
		return
	}
	line := "#"
	for word := range strings.FieldsSeq(sentence) {
		if len(line)+1+len(word) > printWidth-2*depth {
			p.line(depth, line)
			line = "#"
		}
		line += " " + word
	}
	p.line(depth, line)
}

func (p *printer) line(depth int, text string) {
	p.out.WriteString(strings.Repeat("  ", depth) + text + "\n")
}

// formatValue writes one value, or a list of values, as YAML on one line.
func formatValue(v reflect.Value) string {
	switch value := v.Interface().(type) {
	case Secret:
		if value.IsZero() {
			return `""`
		}
		return quoteYAML(hidden)
	case time.Duration:
		return formatDuration(value)
	case AllowEntry:
		return quoteYAML(value.String())
	case *regexp.Regexp:
		if value == nil {
			return `""`
		}
		return quoteYAML(value.String())
	}
	switch {
	case v.Kind() == reflect.Slice:
		entries := make([]string, v.Len())
		for i := range entries {
			entries[i] = formatValue(v.Index(i))
		}
		return "[" + strings.Join(entries, ", ") + "]"
	case v.Kind() == reflect.Bool:
		return strconv.FormatBool(v.Bool())
	case v.CanInt():
		return formatInt(v.Int())
	case v.CanUint():
		return formatInt(v.Uint())
	case v.CanFloat():
		return formatFloat(v.Float())
	case v.Type() != reflect.TypeFor[string](), plainInYAML(v.String()):
		if _, ok := parseBool(v.String()); !ok {
			return v.String() // an enumeration such as md5, or a word
		}
	}
	return quoteYAML(v.String())
}

// plainInYAML says whether YAML reads text as text without quotes.
func plainInYAML(text string) bool {
	if _, ok := parseBool(text); ok || strings.EqualFold(text, "null") || strings.EqualFold(text, "y") || strings.EqualFold(text, "n") {
		return false
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	return text != "" && strings.ContainsRune(letters+"/", rune(text[0])) && strings.Trim(text, letters+"0123456789/_.-") == ""
}

// quoteYAML quotes text in double quotes. Go's escapes in a quoted string are YAML's (YAML 1.2 section 5.7) except for
// bytes that are not UTF-8, which no value has.
func quoteYAML(text string) string {
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	return strconv.Quote(text)
}

func formatFloat(x float64) string {
	if math.IsInf(x, 0) || math.IsNaN(x) {
		return "0"
	}
	return strconv.FormatFloat(x, 'f', -1, 64)
}

// formatInt writes a whole number.
func formatInt[T int | int64 | uint64 | uint32 | uint16](n T) string {
	if n < 0 {
		return strconv.FormatInt(int64(n), 10)
	}
	return strconv.FormatUint(uint64(n), 10)
}
