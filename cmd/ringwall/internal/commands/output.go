package commands

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
)

// object writes one JSON object and a line's end.
func (c *commands) object(v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // "<unknown>" is an account that people look for
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := c.out.Write(printable.JSON(b.Bytes()))
	return err
}

// sayf writes a line for people.
func (c *commands) sayf(format string, args ...any) {
	fmt.Fprintln(c.out, printable.Line(fmt.Sprintf(format, args...)))
}

// clock writes a time in the reader's zone: the day is left out where it is today.
func (c *commands) clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	t, now := t.In(c.Zone), c.Now().In(c.Zone)
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}

// zone names the zone of all times that the commands write.
func (c *commands) zone() string { return c.Now().In(c.Zone).Format("MST") }

// brief is clock for narrow tables.
func (c *commands) brief(t time.Time) string {
	if text := c.clock(t); len(text) <= len("15:04:05") {
		return text
	}
	return t.In(c.Zone).Format("Jan 02 15:04:05")
}

// wrapf is sayf for long lines: broken between words where the terminal ends, and indented from the second on.
func (c *commands) wrapf(indent, format string, args ...any) {
	room, first := 0, ""
	if c.Columns > 0 {
		room = max(1, c.Columns-printable.Width(indent))
	}
	for _, line := range printable.Wrap(printable.Line(fmt.Sprintf(format, args...)), room, room-c.Columns) {
		fmt.Fprintln(c.out, first+line)
		first = indent
	}
}

func names(list []string, most int) string { return humanize.Names(list, most) }

func plural(n int, one, many string) string { return humanize.Plural(n, one, many) }

func words[S ~string](s S) string { return humanize.Words(s) }

// sentence begins a note with a capital letter and ends it with a full stop.
func sentence(note string) string {
	first, size := utf8.DecodeRuneInString(note)
	if size == 0 {
		return ""
	}
	if word, _, _ := strings.Cut(note, " "); !strings.Contains(word, ".") { // policy.mode stays as it is written
		note = string(unicode.ToUpper(first)) + note[size:]
	}
	if strings.HasSuffix(note, ".") {
		return note
	}
	return note + "."
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// ahead is how many rows of a list are held back: they are sorted, and the columns are as wide as they need. There
// may be hundreds of thousands more, which are written as they come.
const (
	ahead = 1000
	few   = 50 // of those, to be written at once
)

// rows writes a list of any length. order is that of the first, nil where they come in order; row adds one to the
// table. It returns how many there were. Nothing is written of an empty list.
func rows[T any](c *commands, t *table, list func(each func(T) error) error, order func(a, b T) int,
	row func(T)) (n int, err error) {
	var held []T
	write := func() error {
		if order != nil && n <= ahead {
			slices.SortStableFunc(held, order)
		}
		for _, v := range held {
			if !c.json {
				row(v)
			} else if err := c.object(v); err != nil {
				return err
			}
		}
		held = held[:0]
		if len(t.rows) == 0 {
			return nil
		}
		return t.write(c.out, c.Columns)
	}
	err = list(func(v T) error {
		n++
		if held = append(held, v); n < ahead || n > ahead && len(held) < few {
			return nil
		}
		return write()
	})
	if err != nil && n < ahead { // what came is not the list
		return n, err
	}
	return n, errors.Join(err, write())
}

// table is rows under a header, with what came by wire escaped by who adds it.
type table struct {
	header []string
	right  map[int]bool // columns of numbers
	flex   []int        // columns that are cut, in this order, where the terminal is too narrow
	spare  bool         // the last column is left out unless one of the first rows has something in it, and is cut first
	rows   [][]string

	widths []int // once the first rows are written
	bound  map[int]bool
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

const (
	gap          = "  "
	leastColumn  = 12
	narrowColumn = 8 // where the terminal has no more than 80
)

// write writes the rows and forgets them, at first with the header. columns is the width of the terminal, 0 for a file,
// where nothing is cut. The first rows decide on the widths.
func (t *table) write(w io.Writer, columns int) error {
	all := t.rows
	if t.widths == nil {
		t.fit(columns)
		all = append([][]string{t.header}, t.rows...)
	}
	t.rows = nil
	var b strings.Builder
	for _, row := range all {
		line := ""
		for i := range t.widths {
			cell := printable.Line(row[i])
			if i > 0 {
				line += gap
			}
			if t.bound[i] {
				cell = cut(cell, t.widths[i])
			}
			space := strings.Repeat(" ", max(0, t.widths[i]-printable.Width(cell)))
			if t.right[i] {
				line += space + cell
			} else {
				line += cell + space
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// fit decides which columns there are, and how wide they are.
func (t *table) fit(columns int) {
	last := len(t.header) - 1
	if t.spare {
		if slices.ContainsFunc(t.rows, func(row []string) bool { return row[last] != "" }) {
			t.flex = append([]int{last}, t.flex...)
		} else {
			t.header = t.header[:last]
		}
	}
	t.widths, t.bound = make([]int, len(t.header)), make(map[int]bool)
	for i := range t.widths {
		t.widths[i] = printable.Width(t.header[i])
		for _, row := range t.rows {
			t.widths[i] = max(t.widths[i], printable.Width(printable.Line(row[i])))
		}
	}
	total := len(gap) * (len(t.widths) - 1)
	for _, n := range t.widths {
		total += n
	}
	for _, i := range t.flex {
		t.bound[i] = columns > 0
		if columns > 0 && total > columns {
			least := leastColumn
			if columns <= 80 {
				least = narrowColumn
			}
			narrow := max(t.widths[i]-(total-columns), min(least, t.widths[i]))
			total -= t.widths[i] - narrow
			t.widths[i] = narrow
		}
	}
}

// cut shortens text that is escaped already.
func cut(s string, columns int) string {
	if printable.Width(s) <= columns {
		return s
	}
	width := 1 // of the mark
	for i, r := range s {
		if width += printable.Width(string(r)); width > columns {
			return s[:i] + "…"
		}
	}
	return s
}
