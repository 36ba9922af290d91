package wording

import (
	"testing"

	"github.com/ringwall/ringwall/pkg/ban"
)

func TestDecisionDetail(t *testing.T) {
	for want, d := range map[string]ban.Decision{
		"":                          {Action: ban.ActionBan},
		"ban number 2":              {Action: ban.ActionBan, Detail: "ban number 2"},
		"UDP only":                  {Action: ban.ActionBan, Closes: ban.ClosesUDP},
		"would be banned; UDP only": {Action: ban.ActionObserve, Closes: ban.ClosesUDP, Detail: "would be banned"},
		"ban number 2; AMI only":    {Action: ban.ActionExtend, Closes: ban.ClosesManager, Detail: "ban number 2"},
		"called me":                 {Action: ban.ActionUnban, Closes: ban.ClosesUDP, Detail: "called me"},
	} {
		if got := DecisionDetail(d); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
