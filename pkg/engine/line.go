package engine

import (
	"encoding/json"
	"math"
	"strconv"
	"time"

	"github.com/ringwall/ringwall/pkg/security"
)

// AppendJSON appends the decision line of the contract, byte for byte what encoding/json makes of it: a flood of bans
// writes one line for each, and reflection took a third of a ban's time. It fails where MarshalJSON does.
func (d *Decision) AppendJSON(b []byte) ([]byte, error) {
	var l Lines
	return l.Append(b, d)
}

// Lines writes decision lines. Those of one moment, as a flood has them, share the text of it. It is for one goroutine; the
// zero value will do.
type Lines struct {
	at   time.Time
	text [48]byte // of it
	n    int      // of text; 0 where there is none
}

// Append is AppendJSON.
func (l *Lines) Append(b []byte, d *Decision) ([]byte, error) {
	var err error
	b = append(b, `{"time":`...)
	if l.n > 0 && l.at == d.Time {
		b = append(b, l.text[:l.n]...)
	} else {
		begin := len(b)
		if b, err = appendTime(b, d.Time); err != nil {
			return b, err
		}
		if l.at, l.n = d.Time, 0; len(b)-begin <= len(l.text) {
			l.n = copy(l.text[:], b[begin:])
		}
	}
	b = appendMember(b, "action", string(d.Action))
	b = append(b, `,"source":"`...)
	if d.Source.Zone() == "" {
		if d.Source.IsValid() {
			b = d.Source.AppendTo(b)
		}
		b = append(b, '"')
	} else {
		b = appendText(b[:len(b)-1], d.Source.String())
	}
	b = append(b, `,"prefix":"`...)
	if d.Prefix.IsValid() {
		b = d.Prefix.AppendTo(b)
	}
	b = append(b, '"')
	b = appendMember(b, "reason", string(d.Reason))
	for _, n := range [...]struct {
		name  string
		value float64
	}{{`,"points":`, round(d.Points)}, {`,"score":`, round(d.Score)}} {
		b = append(b, n.name...)
		if b, err = appendNumber(b, n.value); err != nil {
			return b, err
		}
	}
	b = appendMember(b, "account", d.Account)
	service := ""
	if d.Service != security.OtherService {
		service = d.Service.String()
	}
	b = appendMember(b, "service", service)
	b = appendMember(b, "transport", d.Transport.String())
	b = append(b, `,"proven":`...)
	b = strconv.AppendBool(b, d.Proven)
	b = append(b, `,"duration_seconds":`...)
	if b, err = appendNumber(b, d.Duration.Seconds()); err != nil {
		return b, err
	}
	b = appendMember(b, "pbx", d.PBX)
	if d.Detail != "" {
		b = appendMember(b, "detail", d.Detail)
	}
	return append(b, '}'), nil
}

func appendMember(b []byte, name, value string) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return appendText(b, value)
}

// appendText appends a string in quotation marks. What encoding/json would escape is left to it.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // never fails for a string
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// appendTime writes RFC 3339 with as many decimals as there are. What is out of its bounds fails as encoding/json does.
func appendTime(b []byte, t time.Time) ([]byte, error) {
	if year := t.Year(); t.Location() != time.UTC || year < 0 || year > 9999 {
		text, err := t.MarshalJSON()
		return append(b, text...), err
	}
	b = append(b, '"')
	b = t.AppendFormat(b, time.RFC3339Nano)
	return append(b, '"'), nil
}

// appendNumber writes whole numbers quickly, and all else as encoding/json does.
func appendNumber(b []byte, f float64) ([]byte, error) {
	if math.Abs(f) < 1e15 && f == math.Trunc(f) && (f != 0 || !math.Signbit(f)) {
		return strconv.AppendInt(b, int64(f), 10), nil
	}
	text, err := json.Marshal(f)
	return append(b, text...), err
}
