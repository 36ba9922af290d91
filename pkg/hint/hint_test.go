package hint_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/pkg/hint"
)

func TestTheHintStandsBesideTheText(t *testing.T) {
	err := hint.Errorf("mkdir /var/lib/ringwall", "no folder: %w", fs.ErrNotExist)
	if err.Error() != "no folder: file does not exist" || hint.Of(err) != "mkdir /var/lib/ringwall" ||
		!errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, try %q", err, hint.Of(err))
	}
}

func TestALineAndALogHaveBoth(t *testing.T) {
	err := hint.Errorf("mkdir /x", "no folder")
	for err, want := range map[error]string{err: "no folder; try: mkdir /x", fs.ErrNotExist: "file does not exist"} {
		if got := hint.Line(err); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out,
		&slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
	log.Error("bad", "name", "x", hint.Attr(err))
	log.Error("bad", hint.Attr(fs.ErrNotExist))
	want := "level=ERROR msg=bad name=x err=\"no folder\" try=\"mkdir /x\"\nlevel=ERROR msg=bad err=\"file does not " +
		"exist\"\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
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
