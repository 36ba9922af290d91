package ami

import (
	"errors"
	"strings"
)

// A Header is one line of an action, a reply or an event.
type Header struct{ Name, Value string }

// A Message is a reply, or an item of a list, as the lines that it has.
type Message struct {
	Headers []Header
}

var errMalformed = errors.New("a line is not of the form Name: Value")

// ParseMessage takes a frame apart at its line ends. It fails where a line has no name, or one that is not made of
// letters, digits and -/()@; as Asterisk's are, and where a value holds a lone CR or LF.
func ParseMessage(frame string) (*Message, error) {
	m := &Message{Headers: make([]Header, 0, 16)}
	for line := range strings.SplitSeq(frame, "\r\n") {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsFunc(name, notInName) || strings.ContainsAny(value, "\r\n") {
			return nil, errMalformed
		}
		m.Headers = append(m.Headers, Header{name, strings.TrimLeft(value, " ")})
	}
	return m, nil
}

func notInName(r rune) bool {
	return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune("-/()@;", r)
}

// Get returns the value of the first header of a name, letter case aside, or "". An injected line can be that one: for
// what must be certain see that the name stands once.
func (m *Message) Get(name string) string {
	for _, h := range m.Headers {
		if strings.EqualFold(h.Name, name) {
			return h.Value
		}
	}
	return ""
}

// Values returns the values of all headers of a name, letter case aside.
func (m *Message) Values(name string) (values []string) {
	for _, h := range m.Headers {
		if strings.EqualFold(h.Name, name) {
			values = append(values, h.Value)
		}
	}
	return values
}

// String returns the message as it is sent, with its closing CRLFCRLF.
func (m *Message) String() string {
	var b strings.Builder
	for _, h := range m.Headers {
		b.WriteString(h.Name + ": " + h.Value + "\r\n")
	}
	return b.String() + "\r\n"
}
