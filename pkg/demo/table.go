package demo

import (
	"fmt"
	"strings"

	"github.com/ringwall/ringwall/pkg/ban"
)

// tableReporter draws a table on a terminal, over its last drawing (ECMA-48: CUU, EL, ED).
type tableReporter struct {
	textReporter
	width int
	drawn int // lines
}

func (t *tableReporter) progress(s snapshot, _ []ban.Decision) { t.drawTable(s) }

func (t *tableReporter) finish(s snapshot, failures []string, err error) error {
	t.drawTable(s)
	t.writeSummary(s, failures, err)
	return t.err
}

func (t *tableReporter) drawTable(s snapshot) {
	var b strings.Builder
	if t.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r", t.drawn)
	}
	// One column less than there are: a full line would wrap on some terminals.
	text := append(s.tableLines(t.width-1), "")
	for _, d := range s.recent {
		text = append(text, cutAtWord(s.decisionLine(d), t.width-1))
	}
	text = append(text, fmt.Sprintf("%6.1fs", s.elapsed.Seconds()))
	for _, line := range text {
		b.WriteString(line + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	t.drawn = len(text)
	t.write(b.String())
}
