package engine

import (
	"reflect"
	"testing"

	"github.com/ringwall/ringwall/pkg/security"
	"pgregory.net/rapid"
)

// TestPreparationDecidesNothing plays a story with and without looks at what is to come.
func TestPreparationDecidesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg, steps := anyPolicy(t), story(t)
		events := rapid.SliceOfN(rapid.Custom(anyEvent), 0, 40).Draw(t, "events")
		events = append(events, security.Event{}, security.Event{}) // what could not be decoded
		plain, prepared := New(cfg), New(cfg)
		want := plain.play(steps, nil, nil)
		got := prepared.play(steps, nil, func(s step, _ []Decision) { prepared.Prepare("pbx", events) })
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%v\n%v", lines(got), lines(want))
		}
		if err := prepared.check(); err != nil {
			t.Fatal(err)
		}
	})
}
