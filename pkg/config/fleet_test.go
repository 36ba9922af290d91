package config_test

import (
	"strings"
	"testing"

	"github.com/ringwall/ringwall/pkg/config"
)

func TestAFleet(t *testing.T) {
	c, _, err := parse(base + `fleet:
  servers: ["tls://hub.example.net:4222", "nats://127.0.0.1:4222"]
  credentials_file: /etc/ringwall/fleet.creds
  name: acme
  node: pbx-1
  share: [bans, trust]
  accept: []
  quorum: 3
  max_prefix: {ipv4: 32, ipv6: 64}
`)
	if err != nil {
		t.Fatal(err)
	}
	f := c.Fleet
	if name, err := f.NodeName(); !f.Enabled() || f.Name != "acme" || name != "pbx-1" || err != nil ||
		len(f.Share) != 2 || len(f.Accept) != 0 || f.Quorum != 3 || f.MaxPrefix.IPv4 != 32 || f.MaxPrefix.IPv6 != 64 {
		t.Errorf("read as %+v, %v", f, err)
	}
	if d := config.Default().Fleet; d.Enabled() || d.Quorum != 2 || d.MaxPrefix.IPv4 != 24 || d.MaxPrefix.IPv6 != 48 ||
		len(d.Share) != 3 || len(d.Accept) != 3 {
		t.Errorf("the default is %+v", d)
	}
}

// An edge before a Kamailio has no Asterisk, and says so.
func TestANodeWithoutAsterisk(t *testing.T) {
	const fleet = "fleet: {servers: [\"tls://hub.example.net:4222\"], node: edge}\n"
	if c, warnings, err := parse("asterisk: []\n" + fleet); err != nil || len(c.Asterisk) != 0 || len(warnings) > 0 {
		t.Errorf("%v, %v", warnings, err)
	}
	for _, text := range []string{fleet, "asterisk: []\n", "asterisk:\n" + fleet} {
		if _, _, err := parse(text); err == nil || !strings.Contains(err.Error(), "asterisk: missing") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestMistakesInAFleet(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"a server that is none", `servers: ["https://hub.example.net"]`,
			`fleet.servers[0]: not an address of a NATS server: "https://hub.example.net"; allowed: tls://HOST:PORT or ` +
				`nats://HOST:PORT; try: tls://hub.example.net:4222`},
		{"two servers in one", `servers: ["tls://a:4222,tls://b:4222"]`, `fleet.servers[0]: not an address of a NATS server`},
		{"a name with a dot", `name: acme.example`,
			`fleet.name: not a name for a fleet: "acme.example"; allowed: 1 to 32 letters, digits, - or _`},
		{"a node that is a wildcard", `node: "*"`, `fleet.node: not a name for a node: "*"`},
		{"a word that is none", `share: [ban]`,
			`fleet.share[0]: not one of the values: "ban"; allowed: bans, trust, allow; try: bans`},
		{"no quorum", `quorum: 0`, `fleet.quorum: out of range: "0"; allowed: 1 to 1000`},
		{"half of the internet", `max_prefix: {ipv4: 1}`, `fleet.max_prefix.ipv4: out of range: "1"; allowed: 8 to 32`},
		{"no whole path", `credentials_file: fleet.creds`, `fleet.credentials_file: not a file's whole path`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := parse(base + "fleet: {" + tt.text + "}\n")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
	_, warnings, err := parse(base + "fleet: {servers: [\"nats://hub.example.net:4222\"], node: a}\n")
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0].String(), "tls://hub.example.net:4222") {
		t.Errorf("without encryption: %v, %v", warnings, err)
	}
}
