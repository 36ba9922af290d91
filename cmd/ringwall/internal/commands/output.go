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

	"github.com/ringwall/ringwall/pkg/printable"
)

// writeJSON writes a value as one JSON object in a line.
func (c *commands) writeJSON(v any) error {
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

// shortTime writes a time in the reader's zone, without the date where it is today's.
func (c *commands) shortTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	t, now := t.In(c.Zone), c.Now().In(c.Zone)
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}

// zoneName is the short name of the zone in which the commands write times.
func (c *commands) zoneName() string { return c.Now().In(c.Zone).Format("MST") }

// narrowTime is shortTime without the year, for narrow tables.
func (c *commands) narrowTime(t time.Time) string {
	if text := c.shortTime(t); len(text) <= len("15:04:05") {
		return text
	}
	return t.In(c.Zone).Format("Jan 02 15:04:05")
}

// sayWrappedf is sayf for long lines: broken between words where the terminal ends, and indented from the second on.
func (c *commands) sayWrappedf(indent, format string, args ...any) {
	room, first := 0, ""
	if c.Columns > 0 {
		room = max(1, c.Columns-printable.Width(indent))
	}
	for _, line := range printable.Wrap(printable.Line(fmt.Sprintf(format, args...)), room, room-c.Columns) {
		fmt.Fprintln(c.out, first+line)
		first = indent
	}
}

// toSentence gives a note of the daemon a capital letter and a full stop. A first word with a full stop inside, such as
// policy.mode, stays as it is.
func toSentence(note string) string {
	first, size := utf8.DecodeRuneInString(note)
	if size == 0 {
		return ""
	}
	if word, _, _ := strings.Cut(note, " "); !strings.Contains(word, ".") {
		note = string(unicode.ToUpper(first)) + note[size:]
	}
	if strings.HasSuffix(note, ".") {
		return note
	}
	return note + "."
}

func yesOrNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// A list may have hundreds of thousands of rows. The first maxHeldRows are held back, to be sorted and to find out how
// wide the columns must be; later ones are written as they come, rowsPerWrite at once.
const (
	maxHeldRows  = 1000
	rowsPerWrite = 50
)

// writeRows writes a list of any length as a table or as JSON, and returns how many items it had. addRow puts one
// into the table. order sorts the first maxHeldRows; nil where the list comes in order. Of an empty list nothing is
// written.
func writeRows[T any](c *commands, t *table, list func(each func(T) error) error, order func(a, b T) int,
	addRow func(T)) (n int, err error) {
	var held []T
	write := func() error {
		if order != nil && n <= maxHeldRows {
			slices.SortStableFunc(held, order)
		}
		for _, v := range held {
			if !c.json {
				addRow(v)
			} else if err := c.writeJSON(v); err != nil {
				return err
			}
		}
		held = held[:0]
		if len(t.rows) == 0 {
			return nil
		}
		return t.flushTo(c.out, c.Columns)
	}
	err = list(func(v T) error {
		n++
		if held = append(held, v); n < maxHeldRows || n > maxHeldRows && len(held) < rowsPerWrite {
			return nil
		}
		return write()
	})
	if err != nil && n < maxHeldRows { // what came is not the list
		return n, err
	}
	return n, errors.Join(err, write())
}

// table is rows under a header. Whoever adds a row has escaped what came by wire.
type table struct {
	header       []string
	rightAligned map[int]bool // columns of numbers
	cutOrder     []int        // columns that are cut, in this order, where the terminal is too narrow
	// lastOptional leaves the last column out unless one of the first rows has something in it; it is then cut first.
	lastOptional bool

	rows   [][]string   // added, and not written yet
	widths []int        // of the columns; nil until the first rows are written
	isCut  map[int]bool // columns whose cells are cut to their width
}

func (t *table) addRow(cells ...string) { t.rows = append(t.rows, cells) }

const (
	columnGap    = "  "
	leastColumn  = 12
	narrowColumn = 8 // where the terminal has no more than 80
)

// flushTo writes the rows that were added and forgets them; the first time the header comes before them, and these
// rows decide how wide the columns are for all later ones. columns is the width of the terminal, or 0 for a file,
// where nothing is cut.
func (t *table) flushTo(w io.Writer, columns int) error {
	all := t.rows
	if t.widths == nil {
		t.fitColumns(columns)
		all = append([][]string{t.header}, t.rows...)
	}
	t.rows = nil
	var b strings.Builder
	for _, row := range all {
		line := ""
		for i := range t.widths {
			cell := printable.Line(row[i])
			if i > 0 {
				line += columnGap
			}
			if t.isCut[i] {
				cell = cutToWidth(cell, t.widths[i])
			}
			space := strings.Repeat(" ", max(0, t.widths[i]-printable.Width(cell)))
			if t.rightAligned[i] {
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

// fitColumns decides which columns the table has, and how wide each is.
func (t *table) fitColumns(columns int) {
	last := len(t.header) - 1
	if t.lastOptional {
		if slices.ContainsFunc(t.rows, func(row []string) bool { return row[last] != "" }) {
			t.cutOrder = append([]int{last}, t.cutOrder...)
		} else {
			t.header = t.header[:last]
		}
	}
	t.widths, t.isCut = make([]int, len(t.header)), make(map[int]bool)
	for i := range t.widths {
		t.widths[i] = printable.Width(t.header[i])
		for _, row := range t.rows {
			t.widths[i] = max(t.widths[i], printable.Width(printable.Line(row[i])))
		}
	}
	total := len(columnGap) * (len(t.widths) - 1)
	for _, n := range t.widths {
		total += n
	}
	for _, i := range t.cutOrder {
		t.isCut[i] = columns > 0
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

// cutToWidth shortens text, which is escaped already, to a number of columns, the last of which is then an ellipsis.
func cutToWidth(s string, columns int) string {
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
