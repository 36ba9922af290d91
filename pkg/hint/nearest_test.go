package hint_test

import (
	"strings"
	"testing"

	"github.com/ringwall/ringwall/pkg/hint"
)

func TestNearest(t *testing.T) {
	names := []string{"status", "ban", "unban", "dry-run", "half_life", "PJSIP"}
	for word, want := range map[string]string{
		"staus":                      "status", // a letter is missing
		"sttaus":                     "status", // two are swapped
		"statuses":                   "status", // it begins so
		"stat":                       "status",
		"STATUS":                     "status",
		"bam":                        "ban",
		"dry_run":                    "dry-run",
		"drry-run":                   "dry-run",
		"half-life":                  "half_life",
		"pjsip":                      "PJSIP",
		"xyz":                        "",
		"":                           "",
		"everything":                 "",
		strings.Repeat("status", 20): "",
	} {
		if got := hint.Nearest(word, names); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}
