package replay

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
)

// lineMender gives an AMI recording back what editors, terminals, mails, trackers and git took: the CRs of its line
// ends, the blank after the colon of an empty value; and takes away what they put before each line.
type lineMender struct {
	r          *bufio.Reader
	out        []byte
	inLongLine bool // of a line that is longer than the reader's buffer
}

func (m *lineMender) Read(p []byte) (int, error) {
	if len(m.out) == 0 {
		line, err := m.r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull) || m.inLongLine:
			m.out, m.inLongLine = line, err != nil
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
	if lostValueBlank(line) {
		return append(bytes.Clone(line), ' ')
	}
	return bytes.Clone(line)
}

// lostValueBlank says whether a line is a header that lost the blank before its empty value.
func lostValueBlank[T string | []byte](line T) bool {
	if len(line) < 2 || line[len(line)-1] != ':' {
		return false
	}
	return consistsOf(string(line[:len(line)-1]), isLetter)
}

// mendFrame gives a frame back the blanks that it lost before empty values.
func mendFrame(frame string) string {
	lines := strings.Split(frame, "\r\n")
	for i, line := range lines {
		if lostValueBlank(line) {
			lines[i] += " "
		}
	}
	return strings.Join(lines, "\r\n")
}

// endingReader ends a recording with an empty line, which is what an editor or a form cuts off first. added says that
// it was not there.
type endingReader struct {
	r       io.Reader
	last    [4]byte // that were read
	added   bool    // the empty line was added
	ending  string  // what is still to be read of it
	anyRead bool
}

func (t *endingReader) Read(p []byte) (int, error) {
	if t.ending != "" {
		n := copy(p, t.ending)
		t.ending = t.ending[n:]
		return n, nil
	}
	n, err := t.r.Read(p)
	for _, c := range p[max(0, n-len(t.last)):n] {
		t.anyRead = true
		copy(t.last[:], t.last[1:])
		t.last[len(t.last)-1] = c
	}
	if n > 0 || err != io.EOF || t.added || !t.anyRead {
		return n, err
	}
	switch s := string(t.last[:]); {
	case s == "\r\n\r\n":
		return 0, err
	case s[2:] == "\r\n":
		t.ending = "\r\n"
	default:
		t.ending = "\r\n\r\n"
	}
	t.added = true
	return t.Read(p)
}
