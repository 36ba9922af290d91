package commands

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/printable"
	"github.com/ringwall/ringwall/pkg/wording"
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

func objects[T any](c *commands, list []T) error {
	for i := range list {
		if err := c.object(list[i]); err != nil {
			return err
		}
	}
	return nil
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

func names(list []string, most int) string { return wording.Names(list, most) }

func plural(n int, one, many string) string { return wording.Plural(n, one, many) }

func words[S ~string](s S) string { return wording.Words(s) }

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

// table is rows under a header, with what came by wire escaped by who adds it.
type table struct {
	header []string
	right  map[int]bool // columns of numbers
	flex   []int        // columns that are cut, in this order, where the terminal is too narrow
	rows   [][]string
}

// column adds a column at the end, unless all of its cells are empty. It is the first to be cut.
func (t *table) column(header string, cells []string) {
	if strings.Join(cells, "") == "" {
		return
	}
	t.flex = append([]int{len(t.header)}, t.flex...)
	t.header = append(t.header, header)
	for i := range t.rows {
		t.rows[i] = append(t.rows[i], cells[i])
	}
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

const (
	gap         = "  "
	leastColumn = 12
)

// write aligns the columns. columns is the width of the terminal, 0 for a file, where nothing is cut.
func (t *table) write(w io.Writer, columns int) error {
	widths := make([]int, len(t.header))
	all := append([][]string{t.header}, t.rows...)
	for _, row := range all {
		for i := range row {
			row[i] = printable.Line(row[i])
			widths[i] = max(widths[i], printable.Width(row[i]))
		}
	}
	total := len(gap) * (len(widths) - 1)
	for _, n := range widths {
		total += n
	}
	for _, i := range t.flex {
		if columns > 0 && total > columns {
			narrow := max(widths[i]-(total-columns), min(leastColumn, widths[i]))
			total -= widths[i] - narrow
			widths[i] = narrow
		}
	}
	var b strings.Builder
	for _, row := range all {
		line := ""
		for i, cell := range row {
			if i > 0 {
				line += gap
			}
			cell = cut(cell, widths[i])
			space := strings.Repeat(" ", widths[i]-printable.Width(cell))
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
