package signature

import (
	"bufio"
	"bytes"
	_ "embed" // for the built-in list
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/hint"
)

// Bounds of a file.
const (
	maxFileBytes = 1 << 20
	maxLines     = 10_000 // of all files together
	maxText      = 128    // bytes of a line's text
	minLetters   = 4      // letters and digits in the words of an agent: three of them are in half of all names
	maxErrors    = 20     // that are told of one file
)

// BuiltinName is the file of built-in lines.
const BuiltinName = "built-in"

//go:embed builtin.txt
var builtin string

type kind uint8

const (
	agentKind kind = iota
	fromKind
	toKind
	contactKind
	identityKind
	injectionKind
)

var kindNames = [...]string{"agent", "from", "to", "contact", "identity", "injection"}

func kindNamed(name string) (kind, bool) {
	for k, known := range kindNames {
		if name == known {
			return kind(k), true
		}
	}
	return 0, false
}

// A mark is one line.
type mark struct {
	kind       kind
	name       string // the line in its one form: "agent friendly-scanner"
	text       string // of agent and injection, in lower case
	user, host string // of the others, in lower case; empty: any
	file       string
	line       int
}

// Load reads lists: the built-in one and files. The error names file and line of all that is wrong, and is fit to be
// shown. A line that is there twice counts where it is first. The time is that from which lines are said never to fit.
func Load(withBuiltin bool, files []string, now time.Time) (*List, error) {
	l := newList(now)
	var faults []error
	if withBuiltin {
		faults = append(faults, l.read(BuiltinName, strings.NewReader(builtin)))
	}
	for _, name := range files {
		faults = append(faults, l.readFile(name))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *List) readFile(name string) error {
	// Without O_NONBLOCK a named pipe would wait for somebody who writes.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s: no regular file", name)
	case info.Size() > maxFileBytes:
		return fmt.Errorf("%s: %d bytes; allowed: up to %d", name, info.Size(), maxFileBytes)
	}
	return l.read(name, io.LimitReader(f, maxFileBytes))
}

func (l *List) read(file string, r io.Reader) error {
	var faults []error
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, maxFileBytes+1)
	for n := 1; len(faults) < maxErrors && scanner.Scan(); n++ {
		line := strings.TrimSpace(strings.TrimPrefix(scanner.Text(), "\ufeff"))
		if line == "" || line[0] == '#' {
			continue
		}
		if len(l.marks) == maxLines {
			faults = append(faults, fmt.Errorf("%s:%d: more than %d lines", file, n, maxLines))
			break
		}
		m, err := parseLine(line)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s:%d: %w", file, n, err))
			continue
		}
		m.file, m.line = file, n
		l.add(m)
	}
	if err := scanner.Err(); err != nil {
		faults = append(faults, fmt.Errorf("%s: %w", file, err))
	}
	return errors.Join(faults...)
}

func parseLine(line string) (mark, error) {
	word, text, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
	text = strings.TrimSpace(text)
	k, ok := kindNamed(word)
	switch {
	case !ok:
		return mark{}, hint.Errorf("agent friendly-scanner", "%.40q: unknown; allowed: %s", word,
			strings.Join(kindNames[:], ", "))
	case text == "":
		return mark{}, fmt.Errorf("%s: nothing to look for", word)
	case len(text) > maxText:
		return mark{}, fmt.Errorf("%s: %d bytes; allowed: up to %d", word, len(text), maxText)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }):
		return mark{}, fmt.Errorf("%s: %q has an invisible character", word, text)
	}
	m := mark{kind: k, name: word + " " + text}
	switch lower := string(toLower([]byte(text))); k {
	case agentKind:
		letters := 0
		for i := range len(text) {
			if isLetter(text[i]) {
				letters++
			}
		}
		if letters < minLetters || !isWord(text[0]) || !isWord(text[len(text)-1]) {
			return mark{}, fmt.Errorf("agent: %q would fit too much; allowed: words with %d letters or digits and more",
				text, minLetters)
		}
		m.text = lower
	case injectionKind:
		if len(text) < 2 || !strings.ContainsFunc(text, func(r rune) bool { return r < 128 && !isWord(byte(r)) }) {
			return mark{}, fmt.Errorf("injection: %q would fit users; allowed: two characters and more, not only "+
				"letters, digits, - and _", text)
		}
		m.text = lower
	default:
		user, host, found := strings.Cut(lower, "@")
		if !found || user == "" && host == "" || strings.ContainsAny(lower, " <>\"") ||
			strings.Contains(host, "@") {
			return mark{}, hint.Errorf(word+" sipvicious@", "%s: %q is no USER@HOST, USER@ or @HOST", word, text)
		}
		m.user, m.host = user, host
	}
	return m, nil
}

func toLower(b []byte) []byte { return bytes.Map(asciiLower, b) }

func asciiLower(r rune) rune {
	if 'A' <= r && r <= 'Z' {
		return r + 'a' - 'A'
	}
	return r
}
