package demo

import (
	"fmt"
	"strings"

	"github.com/ringwall/ringwall/pkg/ban"
)

// table draws the story on a terminal, over its last drawing (ECMA-48: CUU, EL, ED).
type table struct {
	lines
	width int
	drawn int // lines
}

func (t *table) tell(s scene, _ []ban.Decision) { t.draw(s) }

func (t *table) end(s scene, failures []string, err error) error {
	t.draw(s)
	t.summary(s, failures, err)
	return t.err
}

func (t *table) draw(s scene) {
	var b strings.Builder
	if t.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r", t.drawn)
	}
	// One column less than there are: a full line would wrap on some terminals.
	text := append(s.rowsOfTable(t.width-1), "")
	for _, d := range s.recent {
		text = append(text, cut(s.line(d), t.width-1))
	}
	text = append(text, fmt.Sprintf("%6.1fs", s.elapsed.Seconds()))
	for _, line := range text {
		b.WriteString(line + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	t.drawn = len(text)
	t.write(b.String())
}
