package commands_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
)

func TestPageSaysWhereItIsAndWhatItMay(t *testing.T) {
	for name, row := range map[string]struct {
		args []string
		page api.PageResult
		want []string
	}{
		"with the right to change": {
			[]string{"page"}, api.PageResult{Address: "http://127.0.0.1:9700/enter?ticket=SECRET", Writable: true,
				Expires: at(now.Add(5 * time.Minute))},
			[]string{"http://127.0.0.1:9700/enter?ticket=SECRET\n", "ssh -L 9700:127.0.0.1:9700 PBX", "until 12:05:00"},
		},
		"to look at": {
			[]string{"page"}, api.PageResult{Address: "http://192.0.2.1:9646/", Note: "it can change nothing"},
			[]string{"http://192.0.2.1:9646/\nIt can change nothing.\n"},
		},
		"for programs": {
			[]string{"page", "--json"}, api.PageResult{Address: "http://127.0.0.1:9646/enter?ticket=S",
				Writable: true, Expires: at(now)},
			[]string{`{"address":"http://127.0.0.1:9646/enter?ticket=S","writable":true,"expires":"2026-01-31T12:00:00Z"}` + "\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.backend.page = row.page
			if code := w.do(t, row.args...); code != 0 || w.err.String() != "" {
				t.Fatalf("exit %d: %s", code, w.err)
			}
			for _, want := range row.want {
				if !strings.Contains(w.out.String(), want) {
					t.Errorf("%q is not in:\n%s", want, w.out)
				}
			}
		})
	}
}

func TestPageThatIsOffSaysHowToTurnItOn(t *testing.T) {
	w := newWorld(t)
	w.backend.err = api.Refused("metrics: {page: true}", "the configuration turns the status page off")
	if code := w.do(t, "page"); code != 1 || !strings.Contains(w.err.String(), "Try: metrics: {page: true}") {
		t.Errorf("exit %d: %s", code, w.err)
	}
}
