package api

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// TestDecisionsCarryThePlaceOfTheirSource asks for history and reads the stream: both name the place, escaped as
// every text of the wire.
func TestDecisionsCarryThePlaceOfTheirSource(t *testing.T) {
	c := start(t, &fake{}, func(s *Server) { s.Feed.Publish(decision(1), decision(2)) }).client
	want := ban.Place{Country: "NL", ASN: 64496, ASName: "Example \"B.V.\" \x1b[2J"}

	history, err := c.History(t.Context(), noon, netip.Addr{})
	if err != nil || len(history) != 1 || history[0].Place != want || history[0].Source.String() != "203.0.113.1" {
		t.Errorf("%+v, %v", history, err)
	}
	var followed []ban.Decision
	enough := errors.New("enough")
	err = c.Follow(t.Context(), noon.Add(-time.Hour), func(d ban.Decision) error {
		if followed = append(followed, d); len(followed) == 2 {
			return enough
		}
		return nil
	}, nil)
	if !errors.Is(err, enough) || followed[0].Place != want || followed[1].Place != (ban.Place{}) {
		t.Errorf("%+v, %v", followed, err)
	}
}

func TestAPlacedDecisionIsTheLineOfTheContract(t *testing.T) {
	s := &Server{Backend: &fake{}}
	for name, d := range map[string]ban.Decision{
		"known": decision(1), "unknown": decision(2), "no source": {Time: noon, Action: ban.ActionTampering},
		"a prefix alone": {Time: noon, Action: ban.ActionUnban, Prefix: netip.MustParsePrefix("203.0.113.1/32")},
	} {
		line, err := json.Marshal(s.withPlace(d))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		var got, want map[string]any
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%s: %v in %s", name, err, line)
		}
		if err := json.Unmarshal(plain, &want); err != nil {
			t.Fatal(err)
		}
		if name == "known" || name == "a prefix alone" {
			if got["country"] != "NL" || got["asn"] != 64496.0 {
				t.Errorf("%s: %s", name, line)
			}
			delete(got, "country")
			delete(got, "asn")
			delete(got, "as_name")
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
