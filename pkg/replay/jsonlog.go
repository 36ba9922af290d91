package replay

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
)

// textKeys are the keys under which programs that write JSON put the line of another program's log. The first that
// has one counts. They are of the journal, Asterisk itself and many others, docker, GELF, Loki, Google's and
// Splunk's, OpenTelemetry, CloudWatch.
var textKeys = [...]string{
	"MESSAGE", "message", "log", "full_message", "short_message", "line", "msg", "textPayload", "_raw", "body", "Body",
	"stringValue", "@message",
}

// listKeys are the keys under which they put objects with such a key, or lists of these.
var listKeys = [...]string{
	"_source", "result", "results", "jsonPayload", "attributes", "body", "Body", "data", "streams", "values", "hits",
	"events", "logEvents", "logs", "entries", "fields",
}

func isTextKey(key string) bool { return slices.Contains(textKeys[:], key) }

// maxDepth is how many objects may be nested in one another.
const maxDepth = 8

// pendingJSON is a part of a line of JSON that is still to be looked at.
type pendingJSON struct {
	raw   json.RawMessage
	depth int
}

// decodeJSON decodes a line of a JSON log: the message of an object (see textKeys), which may be a string, a list of
// bytes, as journalctl writes what is not UTF-8, or again an object. Where an object holds many, they are left in
// l.pending.
func (l *logLines) decodeJSON(line []byte, ev *event.Event) lineOutcome {
	if line[0] == '[' {
		var list []json.RawMessage
		if json.Unmarshal(line, &list) == nil {
			l.pushPending(list, 0)
			return lineOutcome{err: event.ErrNotSecurity}
		}
		return decodeText(string(line), ev)
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(line, &object) != nil {
		return decodeText(string(line), ev)
	}
	return l.decodeObject(object, ev, 0)
}

// decodePrettyJSON decodes an object over many lines, as journalctl -o json-pretty writes them, from the brace that
// stands alone on a line to that which closes it. Where there is none, or what is in between is no object, they are
// lines.
func (l *logLines) decodePrettyJSON(line []byte, ev *event.Event) (lineOutcome, bool) {
	indent, ok := bytes.CutSuffix(bytes.TrimRight(line, " \t\r\n"), []byte("{"))
	if !ok || len(l.readAhead) > 0 || len(bytes.TrimLeft(indent, " \t")) > 0 {
		return lineOutcome{}, false
	}
	end := string(indent) + "}"
	text := bytes.Clone(line)
	number := l.lastLine
	var read [][]byte
	for len(text) < maxLine {
		next, whole, err := l.readLine()
		if err == errSkipped {
			l.nextErr = err
		}
		if err != nil {
			break
		}
		if !whole {
			next = append(bytes.Clone(next), '\n')
		}
		read = append(read, bytes.Clone(next))
		text = append(text, next...)
		rest := bytes.TrimRight(next, " \t\r\n,")
		if string(rest) == end {
			var object map[string]json.RawMessage
			if json.Unmarshal(bytes.TrimRight(text, " \t\r\n,"), &object) == nil {
				return l.decodeObject(object, ev, 0), true
			}
			break
		}
		first := bytes.TrimLeft(rest, " \t")
		if len(first) > 0 && strings.IndexByte(`"{}[]-0123456789tfn`, first[0]) < 0 {
			break
		}
	}
	l.readAhead, l.lastLine = read, number
	return lineOutcome{}, false
}

// pushPending puts a list before what is still pending.
func (l *logLines) pushPending(list []json.RawMessage, depth int) {
	if depth >= maxDepth {
		return
	}
	slices.Reverse(list)
	for _, raw := range list {
		l.pending = append(l.pending, pendingJSON{raw, depth + 1})
	}
}

// decodePending decodes the next pending part of a line.
func (l *logLines) decodePending(ev *event.Event) lineOutcome {
	v := l.pending[len(l.pending)-1]
	l.pending = l.pending[:len(l.pending)-1]
	if len(l.pending) == 0 {
		l.pending = nil
	}
	*ev = event.Event{}
	switch v.raw[0] {
	case '{':
		var object map[string]json.RawMessage
		if json.Unmarshal(v.raw, &object) == nil {
			return l.decodeObject(object, ev, v.depth)
		}
	case '[':
		var list []json.RawMessage
		if json.Unmarshal(v.raw, &list) != nil {
			break
		}
		if len(list) >= 2 && list[0][0] == '"' { // Loki's [TIME, LINE]
			if line, ok := jsonText(list[1]); ok {
				return l.decodeValue(line, true, ev, v.depth)
			}
		}
		l.pushPending(list, v.depth)
	}
	return lineOutcome{err: event.ErrNotSecurity}
}

func (l *logLines) decodeObject(object map[string]json.RawMessage, ev *event.Event, depth int) lineOutcome {
	*ev = event.Event{}
	found := lineOutcome{err: event.ErrNotSecurity}
	level, named := jsonText(object["level"])
	if inner := object["logmsg"]; inner != nil { // Asterisk's own (main/logger.c)
		var logmsg map[string]json.RawMessage
		if json.Unmarshal(inner, &logmsg) == nil {
			level, named = jsonText(logmsg["level"])
			if msg, ok := jsonText(logmsg["message"]); ok {
				return l.decodeValue(msg, !named || level == "SECURITY", ev, depth)
			}
		}
	}
	for _, key := range textKeys {
		msg, ok := jsonText(object[key])
		if !ok {
			continue
		}
		o := l.decodeValue(msg, !named || level == "SECURITY", ev, depth)
		if o.err == nil || o.err != event.ErrNotSecurity && found.err == event.ErrNotSecurity {
			found = o
		}
		if o.err == nil {
			break
		}
	}
	if found.err != event.ErrNotSecurity || depth >= maxDepth {
		return found
	}
	for _, key := range listKeys {
		raw := object[key]
		if len(raw) == 0 || raw[0] != '{' && raw[0] != '[' {
			continue
		}
		l.pushPending([]json.RawMessage{raw}, depth)
		break // another key may hold the same again
	}
	return found
}

// decodeValue decodes the text of an object. bare says whether an event may stand in it without a log's head: a
// message of another level may begin with anything, such as what a dialplan logs.
func (l *logLines) decodeValue(msg string, bare bool, ev *event.Event, depth int) lineOutcome {
	if depth < maxDepth && strings.HasPrefix(msg, "{") {
		var object map[string]json.RawMessage
		if json.Unmarshal([]byte(msg), &object) == nil {
			return l.decodeObject(object, ev, depth+1)
		}
	}
	msg = strings.TrimSuffix(strings.TrimSuffix(msg, "\n"), "\r")
	if !strings.HasPrefix(msg, eventKey+`="`) {
		return decodeText(msg, ev)
	}
	if bare {
		return lineOutcome{repeats: 1, line: msg, text: msg, err: event.DecodeMessage(msg, ev)}
	}
	return lineOutcome{line: msg, text: msg, posed: true, err: event.DecodeLine(msg, ev)}
}

// jsonText reads a JSON string, or the list of bytes as which journalctl writes a message that is not UTF-8, or a
// list of one string, as Elasticsearch has it.
func jsonText(raw json.RawMessage) (string, bool) {
	if len(raw) == 0 {
		return "", false
	}
	switch raw[0] {
	case '"':
		var s string
		if json.Unmarshal(raw, &s) == nil {
			return s, true
		}
	case '[':
		var b []byte
		if json.Unmarshal(raw, &b) == nil {
			return string(b), true
		}
		var list []string
		if json.Unmarshal(raw, &list) == nil && len(list) == 1 {
			return list[0], true
		}
	}
	return "", false
}
