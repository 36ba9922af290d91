package ami

import (
	"slices"
	"strings"
	"testing"
)

func TestMessagesAreTakenApart(t *testing.T) {
	const frame = "Event: PeerEntry\r\nChannel-Type:IAX2\r\nEmpty:\r\nIPaddress:  192.0.2.1\r\nOutput: a: b " +
		"\r\noutput: second\r\n00(x)/@;: y"
	m, err := ParseMessage(frame)
	if err != nil {
		t.Fatal(err)
	}
	want := []Header{{"Event", "PeerEntry"}, {"Channel-Type", "IAX2"}, {"Empty", ""}, {"IPaddress", "192.0.2.1"},
		{"Output", "a: b "},
		{"output", "second"}, {"00(x)/@;", "y"}}
	if !slices.Equal(m.Headers, want) {
		t.Errorf("%q", m.Headers)
	}
	if m.Get("ipADDRESS") != "192.0.2.1" || m.Get("Output") != "a: b " || m.Get("none") != "" {
		t.Errorf("%q, %q, %q", m.Get("ipADDRESS"), m.Get("Output"), m.Get("none"))
	}
	if got := m.Values("OUTPUT"); !slices.Equal(got, []string{"a: b ", "second"}) {
		t.Errorf("%q", got)
	}
	again, err := ParseMessage(strings.TrimSuffix(m.String(), "\r\n\r\n"))
	if err != nil || !slices.Equal(again.Headers, want) {
		t.Errorf("%q, %v", again, err)
	}
}

func TestWhatIsNoMessageIsRefused(t *testing.T) {
	for _, frame := range []string{
		"", "no colon", "A: b\r\n", "A: b\r\n\r\nC: d", ": no name", "a name: x", "Nämé: x", "A: b\rc", "A: b\nC: d",
		"A\r: b", "A: b\r\nrest of a value",
	} {
		if m, err := ParseMessage(frame); err == nil {
			t.Errorf("%q is read as %q", frame, m.Headers)
		}
	}
}
