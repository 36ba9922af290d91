package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxFile is the largest file that is read, in bytes: some 50,000 lines of allowed networks.
const maxFile = 1 << 20

var errSeveral = errors.New("several documents")

// parseYAML reads one YAML document. It returns nil for a file without any value. Its errors never repeat what yaml.v3
// says, which can hold a piece of the file and so of a secret.
func parseYAML(name string, data []byte) (*yaml.Node, *Error) {
	if e := checkReadable(name, data); e != nil {
		return nil, e
	}
	root, err := parseDocument(data)
	switch {
	case err == nil:
		return root, nil
	case errors.Is(err, errSeveral):
		line := secondDocument(data)
		return nil, &Error{File: name, Line: line, What: "a second YAML document begins",
			Allowed: "one document a file", Try: "remove the line ---"}
	}
	line, what, hint := explainSyntax(err, data, syntaxLine(data))
	if tab := firstTab(data); tab > 0 && tab <= line+1 {
		line, what, hint = tab, "a tab stands at the beginning of the line", "spaces, two for each level"
	}
	return nil, &Error{File: name, Line: line, What: "not YAML: " + what, Try: hint}
}

// checkReadable finds bytes that no YAML may hold, for which yaml.v3 would not tell the line.
func checkReadable(name string, data []byte) *Error {
	line := 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return &Error{File: name, Line: line, What: "not UTF-8 text",
				Try: "save the file as UTF-8; put a file that only holds a secret under secret_file"}
		case r == '\n':
			line++
		case r < ' ' && r != '\t' && r != '\r', r == 0x7f:
			return &Error{File: name, Line: line, What: fmt.Sprintf("control character %U", r),
				Try: "remove it"}
		}
		i += size
	}
	return nil
}

// parseDocument parses data. The node is nil if there is nothing but comments.
func parseDocument(data []byte) (root *yaml.Node, err error) {
	// yaml.v3 panics by itself on some comments ("internal error: … please report", parser.parse in its decode.go).
	defer func() {
		if p := recover(); p != nil {
			root, err = nil, fmt.Errorf("yaml: %v", p)
		}
	}()
	d := yaml.NewDecoder(bytes.NewReader(data))
	var first, second yaml.Node
	if err := d.Decode(&first); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	switch err := d.Decode(&second); {
	case err == nil:
		return nil, errSeveral
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	if len(first.Content) == 0 {
		return nil, nil
	}
	return first.Content[0], nil
}

// syntaxLine returns the line at which data stops being YAML: the one after the longest run of whole lines that parses.
// yaml.v3's own line is often that of the beginning of the section, or one too low.
func syntaxLine(data []byte) int {
	ends := []int{0}
	for i, c := range data {
		if c == '\n' {
			ends = append(ends, i+1)
		}
	}
	if ends[len(ends)-1] != len(data) {
		ends = append(ends, len(data))
	}
	work := 4 * maxFile // bytes that may be parsed, so that a huge file costs a bounded time
	parses := func(lines int) bool {
		if work -= ends[lines]; work < 0 {
			return false
		}
		_, err := parseDocument(data[:ends[lines]])
		return err == nil
	}
	low, high := 0, len(ends)-1 // low parses, high does not
	for {
		for high-low > 1 {
			if middle := (low + high) / 2; parses(middle) {
				low = middle
			} else {
				high = middle
			}
		}
		// A list or a text over several lines does not parse until its last line: look whether one ends soon.
		next := 0
		for k := min(low+40, len(ends)-2); k > low+1 && work > 0; k-- {
			if parses(k) {
				next = k
				break
			}
		}
		if next == 0 {
			return low + 1
		}
		low, high = next, len(ends)-1
	}
}

// explainSyntax puts yaml.v3's complaint about a line into words that a person without YAML understands, and says
// which line to correct.
func explainSyntax(err error, data []byte, line int) (at int, what, hint string) {
	const quotes = `a value with : # & * ! % @ in it belongs in double quotes`
	complaint := err.Error()
	text := lineOf(data, line)
	for _, known := range []struct{ says, what, hint string }{
		{"mapping values are not allowed", "a second colon in the line", quotes},
		{"cannot start any token", "a value begins with a character that has a meaning in YAML", quotes},
		{"unknown anchor", "a value begins with *", quotes},
		{"alphabetic or numeric character", "a value begins with & or *", quotes},
		{"undefined tag handle", "a value begins with !", quotes},
		{"while parsing a tag", "a value begins with !", quotes},
		{"end of stream", "a quote is opened and not closed", "close it on the same line"},
		{"unknown escape character", `a backslash in double quotes`, `single quotes, in which \ means itself`},
		{"did not find expected hexdecimal", `a backslash in double quotes`, `single quotes, in which \ means itself`},
		{"',' or ']'", "a list is opened with [ and not closed", "[a, b]"},
		{"',' or '}'", "a section is opened with { and not closed", "{key: value, key: value}"},
		{"could not find expected ':'", "a key without a colon", "key: value, with a space after the colon"},
		{"did not find expected key", "the line is indented unlike the ones above it",
			"the same number of spaces for keys of one section"},
		{"'-' indicator", "the line is indented unlike the list above it",
			"the same number of spaces for each - of a list"},
		{"max depth", "too many levels", "the layout of examples/reference.yaml"},
	} {
		if strings.Contains(complaint, known.says) {
			what, hint = known.what, known.hint
			break
		}
	}
	if strings.Contains(complaint, "mapping values are not allowed") && strings.Count(text+" ", ": ") < 2 {
		what, hint = "the line is indented unlike the ones above it",
			"the same number of spaces for keys of one section"
		if above := strings.TrimSpace(lineOf(data, line-1)); above != "" && !strings.ContainsAny(above, ":#") {
			line, what, hint = line-1, "a key without a colon", "key: value, with a space after the colon"
		}
	}
	if what == "" {
		what, hint = "the line cannot be read", "compare it with examples/reference.yaml"
	}
	if strings.Count(text, `"`)%2 == 1 && !strings.Contains(text, "'") {
		what, hint = "a quote is opened and not closed", "close it on the same line"
	}
	return line, what, hint
}

func lineOf(data []byte, line int) string {
	for range line - 1 {
		_, rest, found := bytes.Cut(data, []byte("\n"))
		if !found {
			return ""
		}
		data = rest
	}
	text, _, _ := bytes.Cut(data, []byte("\n"))
	return string(text)
}

// firstTab returns the first line that is indented with a tab, or 0.
func firstTab(data []byte) int {
	line := 1
	for text := range bytes.Lines(data) {
		indent := text[:len(text)-len(bytes.TrimLeft(text, " \t"))]
		if bytes.IndexByte(indent, '\t') >= 0 && len(bytes.TrimSpace(text)) > 0 {
			return line
		}
		line++
	}
	return 0
}

// secondDocument returns the line of the second document's ---.
func secondDocument(data []byte) int {
	line, content := 1, false
	for text := range bytes.Lines(data) {
		text = bytes.TrimSpace(text)
		switch {
		case bytes.HasPrefix(text, []byte("---")):
			if content {
				return line
			}
			content = true
		case len(text) > 0 && text[0] != '#' && text[0] != '%':
			content = true
		}
		line++
	}
	return line - 1
}
