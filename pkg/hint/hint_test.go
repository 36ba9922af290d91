package hint_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/ringwall/ringwall/pkg/hint"
)

func TestTheHintStandsBesideTheText(t *testing.T) {
	err := hint.Errorf("mkdir /var/lib/ringwall", "no folder: %w", fs.ErrNotExist)
	if err.Error() != "no folder: file does not exist" || hint.Of(err) != "mkdir /var/lib/ringwall" || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, try %q", err, hint.Of(err))
	}
}

func TestTheOutermostHintCounts(t *testing.T) {
	inner := hint.Errorf("inner", "a")
	for _, row := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{fs.ErrNotExist, ""},
		{fmt.Errorf("b: %w", inner), "inner"},
		{errors.Join(fs.ErrNotExist, inner), "inner"},
		{hint.Errorf("outer", "b: %w", inner), "outer"},
	} {
		if got := hint.Of(row.err); got != row.want {
			t.Errorf("%v: %q, want %q", row.err, got, row.want)
		}
	}
}
