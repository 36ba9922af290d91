package commands

import (
	"testing"

	"github.com/ringwall/ringwall/pkg/crowdsec"
)

func TestStatusSaysWhatCrowdSecWasTold(t *testing.T) {
	for want, s := range map[string]*crowdsec.Status{
		"":                     nil,
		"http://a: 1 ban told": {URL: "http://a", Told: 1},
		`http://a: 0 bans told, 2 waiting, 3 without room, 4 on its allow lists; refused\x1b[2J`: {URL: "http://a", Waiting: 2,
			LeftOut: 3, OnAllowList: 4, Error: "refused\x1b[2J"},
	} {
		got := ""
		for _, line := range crowdSecLines(s) {
			got = line[1]
		}
		if got != want {
			t.Errorf("%q instead of %q", got, want)
		}
	}
}
