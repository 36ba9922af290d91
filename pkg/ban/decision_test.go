package ban_test

import (
	"encoding/json"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
)

func TestDecisionLineOfTheContract(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 60_000_000, time.UTC)
	addr := netip.MustParseAddr("203.0.113.5")
	tests := map[string]struct {
		d    ban.Decision
		want string
	}{
		"a ban": {
			ban.Decision{
				Time: at, Action: ban.ActionBan, Source: addr, Prefix: netip.PrefixFrom(addr, 32),
				Reason: ban.ReasonWrongPassword,
				Points: 2.00049, Score: 11.9996, Account: "a\"<b>\x00\u2028ü", Service: event.PJSIP,
				Transport: event.WSS,
				Proven:    true, Duration: 90 * time.Minute, PBX: "pbx1", Detail: "ban number 2",
			},
			`{"time":"2026-01-02T03:04:05.06Z","action":"ban","source":"203.0.113.5","prefix":"203.0.113.5/32",` +
				`"reason":"wrong_password","points":2,"score":12,"account":"a\"\u003cb\u003e\u0000\u2028ü","service":"PJSIP",` +
				`"transport":"WSS","proven":true,"duration_seconds":5400,"pbx":"pbx1","detail":"ban number 2"}`,
		},
		"a network, of IPv6": {
			ban.Decision{Time: at, Action: ban.ActionUnban, Prefix: netip.MustParsePrefix("2001:db8::/64"),
				Reason:   ban.ReasonManual,
				Duration: 1500 * time.Millisecond},
			`{"time":"2026-01-02T03:04:05.06Z","action":"unban","source":"","prefix":"2001:db8::/64","reason":"manual","points":0,` +
				`"score":0,"account":"","service":"","transport":"","proven":false,"duration_seconds":1.5,"pbx":""}`,
		},
		"neither source nor prefix": {
			ban.Decision{Time: at, Action: ban.ActionTampering, Reason: ban.ReasonMalformed, PBX: "pbx1"},
			`{"time":"2026-01-02T03:04:05.06Z","action":"tampering","source":"","prefix":"","reason":"malformed","points":0,` +
				`"score":0,"account":"","service":"","transport":"","proven":false,"duration_seconds":0,"pbx":"pbx1"}`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := json.Marshal(tt.d)
			if err != nil || string(got) != tt.want {
				t.Errorf("%v\ngot  %s\nwant %s", err, got, tt.want)
			}
			var back ban.Decision
			if err := json.Unmarshal(got, &back); err != nil {
				t.Fatal(err)
			}
			want := tt.d
			want.Points, want.Score = ban.Round(want.Points), ban.Round(want.Score)
			if back != want {
				t.Errorf("it came back as %+v\nwant %+v", back, want)
			}
		})
	}
}

func TestDecisionLineThatNobodyCanReadBack(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]ban.Decision{
		"points that are no number":    {Points: math.NaN()},
		"a score without end":          {Score: math.Inf(1)},
		"a year of five digits":        {Time: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)},
		"a zone of more than 24 hours": {Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.FixedZone("", 90*3600))},
	} {
		if text, err := json.Marshal(d); err == nil {
			t.Errorf("%s: %s", name, text)
		}
	}
	for _, text := range []string{`{"source":"203.0.113"}`, `{"prefix":"203.0.113.5/33"}`, `{"time":"today"}`, `[]`} {
		if err := json.Unmarshal([]byte(text), new(ban.Decision)); err == nil {
			t.Errorf("%s is taken for a decision", text)
		}
	}
}
