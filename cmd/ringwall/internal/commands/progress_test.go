package commands

import (
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/replay"
)

func TestProgressLineFits(t *testing.T) {
	half := replay.Progress{Read: 500e6, Size: 1e9, Events: 3e6}
	for _, row := range []struct {
		p       replay.Progress
		columns int
		want    string
	}{
		{half, 90, "[##########..........]  50%  500.0 MB of 1.0 GB  3000000 events  300000/s  10s left"},
		{half, 70, " 50%  500.0 MB of 1.0 GB  3000000 events  300000/s  10s left"},
		{half, 20, " 50%  500.0 MB of 1."},
		{replay.Progress{Read: 999, Events: 3}, 80, "999 B  3 events  0/s"},
		{replay.Progress{Read: 1500, Size: 1000, Unknown: true, Events: 20}, 80, "1.5 kB  20 events  2/s"},
		{half, -1, ""},
	} {
		if got := progressLine(row.p, 10*time.Second, row.columns); got != row.want {
			t.Errorf("%q, want %q", got, row.want)
		}
	}
}
