package doctor

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/config"
)

func TestListsThatAreNotAsTheyShouldBe(t *testing.T) {
	at := time.Now().Add(-time.Hour)
	for name, r := range map[string]struct {
		list   api.ListStatus
		result Result
		detail string
		fix    string
	}{
		"good": {api.ListStatus{Name: "voipbl", Entries: 98123, Packets: 7, Fetched: &at}, OK,
			"voipbl has 98123 entries, fetched 1h ago, and met 7 packets", ""},
		"held": {api.ListStatus{Name: "voipbl", Fetched: &at, Held: true, Error: "it shrank\x1b[2J", Try: "--accept"}, Warn,
			`it shrank\x1b[2J`, "--accept"},
		"stale": {api.ListStatus{Name: "voipbl", Fetched: &at, Stale: true, Error: "404"}, Warn, "not as new as it should be: 404",
			"ringwall lists"},
		"new": {api.ListStatus{Name: "voipbl"}, Warn, "was not fetched yet", "in a minute"},
	} {
		t.Run(name, func(t *testing.T) {
			e := asking(t, told{})
			e.configLoaded = true
			e.cfg.Lists = []config.List{{Name: "voipbl"}}
			e.daemon = &api.Status{Lists: []api.ListStatus{r.list}}
			e.examineLists(t.Context())
			if len(e.checks) != 1 {
				t.Fatalf("%+v", e.checks)
			}
			if c := e.checks[0]; c.Result != r.result || !strings.Contains(c.Detail, r.detail) || !strings.Contains(c.Fix, r.fix) {
				t.Errorf("%+v", c)
			}
		})
	}
	e := asking(t, told{})
	e.configLoaded = true
	e.cfg.Lists = []config.List{{Name: "voipbl"}}
	e.daemon = &api.Status{Lists: []api.ListStatus{{Name: "voipbl", Fetched: &at, Customers: []netip.Addr{netip.MustParseAddr("192.0.2.7")}}}}
	if e.examineLists(t.Context()); len(e.checks) != 2 || e.checks[1].Fix != "ringwall allow add 192.0.2.7" {
		t.Errorf("%+v", e.checks)
	}
}
