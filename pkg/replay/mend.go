package replay

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
)

// mender gives an AMI recording back what editors, terminals, mails, trackers and git took: the CRs of its line ends,
// the blank after the colon of an empty value; and takes away what they put before each line.
type mender struct {
	r      *bufio.Reader
	out    []byte
	inside bool // of a line that is longer than the reader's buffer
}

func (m *mender) Read(p []byte) (int, error) {
	if len(m.out) == 0 {
		line, err := m.r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull) || m.inside:
			m.out, m.inside = line, err != nil
		case len(line) > 0:
			m.out = append(mendLine(line), "\r\n"...)
		}
		if len(m.out) == 0 {
			return 0, err
		}
	}
	n := copy(p, m.out)
	m.out = m.out[n:]
	return n, nil
}

// mendLine returns a line of an AMI recording without its end, as Asterisk sent it. No line of Asterisk's begins with a
// blank or >.
func mendLine(line []byte) []byte {
	line = bytes.TrimRight(line, "\r\n")
	line = bytes.TrimSuffix(line, []byte("^M"))
	line = bytes.TrimLeft(line, "> \t")
	if len(bytes.TrimRight(line, " \t")) == 0 {
		return nil
	}
	if empty(line) {
		return append(bytes.Clone(line), ' ')
	}
	return bytes.Clone(line)
}

// empty says whether a line is a header that lost the blank before its empty value.
func empty[T string | []byte](line T) bool {
	if len(line) < 2 || line[len(line)-1] != ':' {
		return false
	}
	return only(string(line[:len(line)-1]), isLetter)
}

// mend gives a frame back the blanks that it lost before empty values.
func mend(frame string) string {
	lines := strings.Split(frame, "\r\n")
	for i, line := range lines {
		if empty(line) {
			lines[i] += " "
		}
	}
	return strings.Join(lines, "\r\n")
}

// tail ends a recording with an empty line, which is what an editor or a form cuts off first. added says that it was
// not there.
type tail struct {
	r     io.Reader
	last  [4]byte
	added bool
	rest  string
	any   bool
}

func (t *tail) Read(p []byte) (int, error) {
	if t.rest != "" {
		n := copy(p, t.rest)
		t.rest = t.rest[n:]
		return n, nil
	}
	n, err := t.r.Read(p)
	for _, c := range p[max(0, n-len(t.last)):n] {
		t.any = true
		copy(t.last[:], t.last[1:])
		t.last[len(t.last)-1] = c
	}
	if n > 0 || err != io.EOF || t.added || !t.any {
		return n, err
	}
	switch s := string(t.last[:]); {
	case s == "\r\n\r\n":
		return 0, err
	case s[2:] == "\r\n":
		t.rest = "\r\n"
	default:
		t.rest = "\r\n\r\n"
	}
	t.added = true
	return t.Read(p)
}
