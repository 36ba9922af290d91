package fail2ban

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds of one file and of what is made of it.
const (
	maxFile     = 1 << 20
	maxSections = 4096
	maxOptions  = 65536 // of a file
)

// iniSection is what stands under one header; keys are in lower case.
type iniSection map[string]string

// iniFile is one parsed file. Sections keep the order of their first header.
type iniFile struct {
	order    []string
	sections map[string]iniSection
	mistakes []string
}

// parseINI reads the dialect of Python's configparser as fail2ban sets it up (client/configparserinc.py): "=" or ":"
// ends a key, "#" and ";" begin a comment at a line's start, ";" after white space begins one anywhere, and a line that
// is indented deeper than its key goes on with the value. What configparser refuses is a mistake, and is passed over.
func parseINI(text string) *iniFile {
	p := &iniParser{iniFile: &iniFile{sections: map[string]iniSection{}}}
	if len(text) > maxFile {
		p.addMistake("the file is longer than %d bytes: the rest is not read", maxFile)
		text = text[:maxFile]
	}
	if !utf8.ValidString(text) {
		p.addMistake("the file is not UTF-8")
		text = strings.ToValidUTF8(text, "\ufffd")
	}
	text = strings.TrimPrefix(text, "\ufeff")
	for line := range strings.Lines(text) {
		p.number++
		p.parseLine(strings.TrimRight(line, "\r\n"))
	}
	p.endOption()
	return p.iniFile
}

type iniParser struct {
	*iniFile
	number  int
	current iniSection
	name    string // of the section
	key     string // "" where no value can go on
	value   []string
	indent  int
	options int
}

func (p *iniParser) addMistake(format string, args ...any) {
	const most = 20
	switch n := len(p.mistakes); {
	case n < most:
		p.mistakes = append(p.mistakes, fmt.Sprintf(format, args...))
	case n == most:
		p.mistakes = append(p.mistakes, "and more of the kind")
	}
}

func (p *iniParser) parseLine(line string) {
	stripped := strings.TrimSpace(stripComment(line))
	if stripped == "" {
		if p.key != "" && strings.TrimSpace(line) == "" {
			p.value = append(p.value, "")
		}
		return
	}
	indent := len(line) - len(strings.TrimLeft(line, " \t\v\f"))
	if p.key != "" && indent > p.indent {
		p.value = append(p.value, stripped)
		return
	}
	p.endOption()
	p.indent = indent
	if strings.HasPrefix(stripped, "[") {
		if name, _, ok := strings.Cut(stripped[1:], "]"); ok && name != "" {
			p.beginSection(name)
			return
		}
	}
	i := strings.IndexAny(stripped, "=:")
	switch {
	case i <= 0:
		p.addMistake("line %d is neither a [section] nor KEY = VALUE", p.number)
	case p.current == nil:
		p.addMistake("line %d stands before the first [section]", p.number)
	case p.options >= maxOptions:
		p.addMistake("line %d: there are more than %d settings", p.number, maxOptions)
	default:
		p.options++
		p.key = strings.ToLower(strings.TrimSpace(stripped[:i]))
		if _, twice := p.current[p.key]; twice {
			p.addMistake("line %d sets the same key of its section a second time; the last one counts", p.number)
		}
		p.value = append(p.value[:0], strings.TrimSpace(stripped[i+1:]))
	}
}

func (p *iniParser) beginSection(name string) {
	p.current, p.name = p.sections[name], name
	if p.current != nil {
		p.addMistake("line %d begins a section of the file a second time; both count", p.number)
		return
	}
	if len(p.sections) >= maxSections {
		p.addMistake("line %d: there are more than %d sections", p.number, maxSections)
		return
	}
	p.current = iniSection{}
	p.sections[name] = p.current
	p.order = append(p.order, name)
}

// endOption takes the value that the last lines have made.
func (p *iniParser) endOption() {
	if p.key != "" {
		p.current[p.key] = strings.TrimRight(strings.Join(p.value, "\n"), "\n")
	}
	p.key = ""
}

func stripComment(line string) string {
	if s := strings.TrimSpace(line); strings.HasPrefix(s, "#") || strings.HasPrefix(s, ";") {
		return ""
	}
	for i := 1; i < len(line); i++ {
		if line[i] == ';' && strings.IndexByte(" \t\v\f\r", line[i-1]) >= 0 {
			return line[:i]
		}
	}
	return line
}
