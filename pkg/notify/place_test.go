package notify

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/notify/message"
)

// TestMessagesSayWhereTheSourceIsRegistered has a name that would repaint a terminal and mention a whole channel.
func TestMessagesSayWhereTheSourceIsRegistered(t *testing.T) {
	asked := []netip.Addr{}
	n := &Notifier{host: "host", placeOf: func(a netip.Addr) ban.Place {
		asked = append(asked, a)
		return ban.Place{Country: "NL", ASN: 64496, ASName: "<!channel> \x1b[2J\u202e" + strings.Repeat("x", 300)}
	}}
	m := n.describeWithPlace(banDecision(1))
	if m.Country != "NL" || m.ASN != 64496 || !strings.HasPrefix(m.ASName, `<!channel> \x1b[2J\u202exxx`) ||
		len(m.ASName) > 110 {
		t.Errorf("%+v", m)
	}
	if m.Text != "Reason: unknown account, score 12, for 1h, at pbx1, from NL, network AS64496." ||
		strings.Contains(m.Title+m.Text, "channel") {
		t.Errorf("%q", m.Text)
	}
	env := environmentOf(m)
	for _, want := range []string{"RINGWALL_COUNTRY=NL", "RINGWALL_ASN=64496", "RINGWALL_AS_NAME=" + m.ASName} {
		if !slices.Contains(env, want) {
			t.Errorf("no %s in %q", want, env)
		}
	}
	own, err := message.Parse(`{"from": {{json (printf "%s AS%d %s" .Country .ASN .ASName)}}}`, message.JSON,
		[]string{"ban"})
	if err != nil {
		t.Fatal(err)
	}
	body, err := own.Render(m, "", "")
	var read map[string]string
	if err != nil || json.Unmarshal(body, &read) != nil || read["from"] != "NL AS64496 "+m.ASName {
		t.Errorf("%s, %v", body, err)
	}

	lifted := ban.Decision{Action: ban.ActionUnban, Prefix: netip.MustParsePrefix("198.51.100.0/24")}
	if m := n.describeWithPlace(lifted); m.Country != "NL" {
		t.Errorf("%+v", m)
	}
	if m := n.describeWithPlace(ban.Decision{Action: ban.ActionTampering, Service: event.PJSIP}); m.Country != "" {
		t.Errorf("%+v", m)
	}
	if want := []netip.Addr{banDecision(1).Source, netip.MustParseAddr("198.51.100.0")}; !slices.Equal(asked, want) {
		t.Errorf("asked for %v", asked)
	}
}

// TestWithoutAPlaceNothingIsAdded compares with the messages of before.
func TestWithoutAPlaceNothingIsAdded(t *testing.T) {
	for _, place := range []func(netip.Addr) ban.Place{nil, func(netip.Addr) ban.Place { return ban.Place{} }} {
		n := &Notifier{host: "host", placeOf: place}
		got, err := json.Marshal(n.describeWithPlace(banDecision(1)))
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(describeDecision(banDecision(1), "host"))
		if err != nil || string(got) != string(want) || strings.Contains(string(got), "country") {
			t.Errorf("%s, want %s, %v", got, want, err)
		}
		if env := environmentOf(n.describeWithPlace(banDecision(1))); !slices.Contains(env, "RINGWALL_ASN=") {
			t.Errorf("%q", env)
		}
	}
}
