package control

import (
	"encoding/json"

	"github.com/ringwall/ringwall/pkg/ban"
)

// placed is a decision as it is written to a client, with the place of its source.
type placed struct {
	decision ban.Decision
	place    ban.Place
}

// placed adds the place of its source to a decision, or where it has no source, that of its prefix.
func (s *Server) placed(d ban.Decision) placed {
	switch {
	case d.Source.IsValid():
		return placed{d, s.Backend.Place(d.Source)}
	case d.Prefix.IsValid():
		return placed{d, s.Backend.Place(d.Prefix.Addr())}
	}
	return placed{decision: d}
}

// MarshalJSON writes the line that [Decision] reads.
func (p placed) MarshalJSON() ([]byte, error) {
	text, err := p.decision.MarshalJSON()
	if err != nil || p.place == (ban.Place{}) {
		return text, err
	}
	more, err := json.Marshal(p.place)
	if err != nil {
		return nil, err
	}
	return append(append(text[:len(text)-1], ','), more[1:]...), nil
}
