package record

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
)

// Heartbeat says that a node is there, and how far it has come. No server keeps it.
type Heartbeat struct {
	Sent     time.Time // by the node's clock
	Sequence uint64    // in the fleet's stream, up to which the node knows all
	Waiting  int       // records that the server has not confirmed to it
}

const maxHeartbeat = 128 // bytes

// HeartbeatSubject is where a node says that it is there: ringwall-alive.FLEET.NODE. With "*" it is all of them.
func HeartbeatSubject(fleet, node string) string { return "ringwall-alive." + fleet + "." + node }

// ParseHeartbeatSubject is the inverse of HeartbeatSubject.
func ParseHeartbeatSubject(fleet, subject string) (node string, ok bool) {
	node, ok = strings.CutPrefix(subject, HeartbeatSubject(fleet, ""))
	return strings.Clone(node), ok && IsName(node)
}

// heartbeatBody is the encoded form; the time is in ns since 1970.
type heartbeatBody struct {
	Format   int    `json:"format"`
	Sent     int64  `json:"sent"`
	Sequence uint64 `json:"sequence"`
	Waiting  int    `json:"waiting"`
}

// EncodeHeartbeat writes a heartbeat.
func EncodeHeartbeat(h Heartbeat) []byte {
	data, err := json.Marshal(heartbeatBody{Format: format, Sent: h.Sent.UnixNano(), Sequence: h.Sequence,
		Waiting: h.Waiting})
	if err != nil { // of numbers there is none
		panic(err)
	}
	return data
}

// DecodeHeartbeat reads what EncodeHeartbeat writes, and nothing else.
func DecodeHeartbeat(data []byte) (Heartbeat, error) {
	var b heartbeatBody
	if len(data) > maxHeartbeat {
		return Heartbeat{}, ErrSize
	}
	if json.Unmarshal(data, &b) != nil {
		return Heartbeat{}, ErrMalformed
	}
	if b.Format != format {
		return Heartbeat{}, ErrFormat
	}
	h := Heartbeat{Sent: time.Unix(0, b.Sent).UTC(), Sequence: b.Sequence, Waiting: b.Waiting}
	if b.Sent <= 0 || b.Waiting < 0 || !bytes.Equal(EncodeHeartbeat(h), data) {
		return Heartbeat{}, ErrMalformed
	}
	return h, nil
}
