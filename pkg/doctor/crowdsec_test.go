package doctor

import (
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/crowdsec"
)

func TestWhetherCrowdSecIsTold(t *testing.T) {
	at := time.Now().Add(-time.Minute)
	const lapi = "http://127.0.0.1:8080"
	for name, r := range map[string]struct {
		status *crowdsec.Status
		result Result
		detail string
		fix    string
	}{
		"well": {&crowdsec.Status{URL: lapi, Up: true, LastSuccess: &at, Told: 7, AllowLists: true, Allowed: 1}, OK,
			lapi + " has 7 bans of ours, its allow lists name 1 address or network", ""},
		"old": {&crowdsec.Status{URL: lapi, Up: true, LastSuccess: &at}, OK, "no allow lists (CrowdSec has since 1.6.8)", ""},
		"away": {&crowdsec.Status{URL: lapi, LastSuccess: &at, Waiting: 3, Error: "refused\x1b[2J"}, Warn,
			`is not told, 3 bans wait: refused\x1b[2J`, "cscli lapi status"},
		"with a hint": {&crowdsec.Status{URL: lapi, Error: "401", Try: "cscli machines list"}, Warn, "401", "cscli machines list"},
		"full": {&crowdsec.Status{URL: lapi, Up: true, LastSuccess: &at, Told: 5000, LeftOut: 2}, Warn,
			"no room for 2 bans more", "ringwall list bans"},
		"new":        {&crowdsec.Status{URL: lapi}, Warn, "was not told yet", "in a minute"},
		"not loaded": {nil, Warn, "tells no LAPI", "systemctl reload ringwall"},
	} {
		t.Run(name, func(t *testing.T) {
			e := asking(t, told{})
			e.configLoaded = true
			e.cfg.CrowdSec.CredentialsFile = "/etc/ringwall/crowdsec.yaml"
			e.daemon = &api.Status{CrowdSec: r.status}
			e.examineCrowdSec(t.Context())
			if len(e.checks) != 1 {
				t.Fatalf("%+v", e.checks)
			}
			if c := e.checks[0]; c.Result != r.result || !strings.Contains(c.Detail, r.detail) || !strings.Contains(c.Fix, r.fix) {
				t.Errorf("%+v", c)
			}
		})
	}
}
