package config

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

	"github.com/ringwall/ringwall/pkg/humanize"
)

// Print writes every effective value as YAML, with comments that give each key's meaning and the reason for its
// default. Secrets are written as "(hidden)". [Parse] reads the output back to the same configuration, secrets aside.
func (c *Config) Print(w io.Writer) error {
	p := printer{settings: settingsByPath()}
	p.writeSection(reflect.ValueOf(c).Elem(), "", 0, true)
	_, err := w.Write(p.out.Bytes())
	return err
}

type printer struct {
	out      bytes.Buffer
	settings map[string]setting
}

const printWidth = 110 // columns of a comment

// writeSection writes the keys of v, with comments or without.
func (p *printer) writeSection(v reflect.Value, path string, depth int, comments bool) {
	for i := range v.NumField() {
		name := keyName(v.Type().Field(i))
		at, field := path+name, v.Field(i)
		if name == notInFile {
			continue
		}
		if depth == 0 && i > 0 {
			p.out.WriteByte('\n')
		}
		if field.Type() == reflect.TypeFor[Secret]() && !v.FieldByName(v.Type().Field(i).Name+"File").IsZero() {
			field = reflect.ValueOf(Secret{})
		}
		if comments {
			p.writeComment(at, depth)
		}
		ports, isPorts := field.Interface().(Ports)
		switch {
		case isPorts && ports.Auto:
			p.writeLine(depth, name+": auto")
		case isSection(field.Type()):
			p.writeLine(depth, name+":")
			p.writeSection(field, at+".", depth+1, comments)
		case field.Kind() == reflect.Slice && isSection(field.Type().Elem()):
			p.writeSections(field, name, at, depth, comments)
		case field.Type() == reflect.TypeFor[map[string]Secret]():
			p.writeHeaders(field.Interface().(map[string]Secret), name, depth)
		case isMultiplier(field.Type()):
			p.writeMultipliers(field, name, depth)
		case field.Kind() == reflect.Map:
			p.writeServices(field.Interface().(map[string]Mode), name, at, depth, comments)
		case field.Kind() == reflect.Slice && field.Type().Elem().Kind() != reflect.Uint16 && field.Len() > 0:
			p.writeLine(depth, name+":")
			for k := range field.Len() {
				p.writeLine(depth+1, "- "+formatValue(field.Index(k)))
			}
		default:
			p.writeLine(depth, name+": "+formatValue(field))
		}
	}
}

// writeSections writes a list of sections; the first has the comments.
func (p *printer) writeSections(list reflect.Value, name, path string, depth int, comments bool) {
	if list.Len() == 0 {
		p.writeLine(depth, name+": []")
		if comments {
			p.writePattern(list.Type(), name, path, depth)
		}
		return
	}
	p.writeLine(depth, name+":")
	for k := range list.Len() {
		start := p.out.Len()
		p.writeSection(list.Index(k), path+"[].", depth+2, comments && k == 0)
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

// writePattern shows, as a comment, the keys that an entry of an empty list may have.
func (p *printer) writePattern(list reflect.Type, name, path string, depth int) {
	one := reflect.MakeSlice(list, 1, 1)
	setDefaults(allSettings(), one.Index(0), path+"[].")
	entry := printer{settings: p.settings}
	entry.writeSections(one, name, path, depth, true)
	p.writeLine(depth, "# The keys of an entry, with their defaults:")
	for line := range strings.Lines(entry.out.String()) {
		p.out.WriteString("# " + line)
	}
}

func (p *printer) writeHeaders(headers map[string]Secret, name string, depth int) {
	if len(headers) == 0 {
		p.writeLine(depth, name+": {}")
		return
	}
	p.writeLine(depth, name+":")
	for _, key := range slices.Sorted(maps.Keys(headers)) {
		p.writeLine(depth+1, quoteYAML(key)+": "+formatValue(reflect.ValueOf(headers[key])))
	}
}

func (p *printer) writeServices(services map[string]Mode, name, path string, depth int, comments bool) {
	p.writeLine(depth, name+":")
	for _, service := range serviceNames(services) {
		if comments {
			p.writeComment(path+"."+service, depth+1)
		}
		p.writeLine(depth+1, service+": "+formatValue(reflect.ValueOf(services[service])))
	}
}

// writeComment says what a key means, and why its default is what it is.
func (p *printer) writeComment(path string, depth int) {
	s := p.settings[path]
	p.writeWrapped(depth, strings.NewReplacer("{least}", s.allowed.least, "{most}", s.allowed.most).Replace(s.meaning))
	switch {
	case s.reason == "":
	case s.byDefault == nil:
		p.writeWrapped(depth, "Default: "+s.reason+".") // the reason says what stands in for one
	default:
		p.writeWrapped(depth, "Default "+formatValue(reflect.ValueOf(s.byDefault))+": "+s.reason+".")
	}
}

func (p *printer) writeWrapped(depth int, sentence string) {
	if sentence == "" {
		return
	}
	line := "#"
	for word := range strings.FieldsSeq(sentence) {
		if len(line)+1+len(word) > printWidth-2*depth {
			p.writeLine(depth, line)
			line = "#"
		}
		line += " " + word
	}
	p.writeLine(depth, line)
}

func (p *printer) writeLine(depth int, text string) {
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
		return humanize.ExactDuration(value)
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
	if _, ok := parseBool(text); ok || strings.EqualFold(text, "null") || strings.EqualFold(text, "y") ||
		strings.EqualFold(text, "n") {
		return false
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	return text != "" && strings.ContainsRune(letters+"/", rune(text[0])) &&
		strings.Trim(text, letters+"0123456789/_.-") == ""
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
