package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/printable"
)

// heartbeat is how often an empty line shows that a silent stream is alive.
const heartbeat = 30 * time.Second

// lostLine stands in the stream where decisions are missing, because the reader was too slow.
type lostLine struct {
	Action ban.Action `json:"action"` // actionLost
	Lost   int        `json:"lost"`
}

// streamLine is a line of the stream as the client reads it.
type streamLine struct {
	decision ban.Decision
	lost     int
}

// UnmarshalJSON reads either kind of line.
func (l *streamLine) UnmarshalJSON(text []byte) error {
	var gap lostLine
	if err := json.Unmarshal(text, &gap); err != nil {
		return err
	}
	if gap.Action == actionLost {
		l.lost = gap.Lost
		return nil
	}
	return json.Unmarshal(text, &l.decision)
}

// actionLost is the action of a line that is no decision: so many older ones did not fit into the reader's buffer.
const actionLost ban.Action = "lost"

// serveDecisions streams decisions as they are made, after those since a time if one is given, a JSON object a line. An
// empty line is a sign of life.
func (s *Server) serveDecisions(w http.ResponseWriter, r *http.Request, q url.Values) error {
	if s.Feed == nil {
		return NotFound("", "this daemon streams no decisions")
	}
	since, err := parseSince(q)
	if err != nil {
		return err
	}
	past, fo := s.Feed.addFollower(since)
	defer s.Feed.removeFollower(fo)

	w.Header().Set("Content-Type", "application/x-ndjson")
	rc := http.NewResponseController(w)
	// The request's own deadlines are meant for one answer.
	if err := errors.Join(rc.SetReadDeadline(time.Time{}),
		s.writeDecisions(w, rc, [][]ban.Decision{past}, 0)); err != nil {
		return abortStream(err)
	}
	alive := time.NewTicker(heartbeat)
	defer alive.Stop()
	for {
		select {
		case <-s.closing:
			return nil
		case <-r.Context().Done():
			return nil
		case <-fo.more:
			pieces, lost := s.Feed.takeNew(fo)
			err = s.writeDecisions(w, rc, pieces, lost)
		case <-alive.C:
			_, err = w.Write([]byte{'\n'})
			err = errors.Join(err, s.writeDecisions(w, rc, nil, 0))
		}
		if err != nil {
			return abortStream(err)
		}
	}
}

// withPlace adds the place of its source to a decision, or where it has no source, that of its prefix.
func (s *Server) withPlace(d ban.Decision) ban.Decision {
	switch {
	case d.Source.IsValid():
		d.Place = s.Backend.Place(d.Source)
	case d.Prefix.IsValid():
		d.Place = s.Backend.Place(d.Prefix.Addr())
	}
	return d
}

func (s *Server) writeDecisions(w http.ResponseWriter, rc *http.ResponseController, pieces [][]ban.Decision,
	lost int) error {
	if err := rc.SetWriteDeadline(time.Now().Add(s.limits.write)); err != nil {
		return err
	}
	write := func(v any) error {
		text, err := json.Marshal(v)
		if err == nil {
			_, err = w.Write(append(printable.JSON(text), '\n'))
		}
		return err
	}
	if lost > 0 {
		if err := write(lostLine{actionLost, lost}); err != nil {
			return err
		}
	}
	for _, piece := range pieces {
		for i := range piece {
			if err := write(s.withPlace(piece[i])); err != nil {
				return err
			}
		}
	}
	return rc.Flush()
}
