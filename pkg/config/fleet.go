package config

import (
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/ringwall/ringwall/pkg/hint"
)

// Enabled says whether there is a fleet.
func (f *Fleet) Enabled() bool { return len(f.Servers) > 0 }

// NodeName is what this node is called: what the file says, or else the host.
func (f *Fleet) NodeName() (string, error) {
	if f.Node != "" {
		return f.Node, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", hint.Errorf("fleet.node: a name", "this host has no name: %w", err)
	}
	name, _, _ := strings.Cut(host, ".")
	if !isFleetName(name) {
		return "", hint.Errorf("fleet.node: a name", "the host's name %q is none for a node", name)
	}
	return name, nil
}

// isFleetName says whether a text can be the name of a fleet or a node, as in pkg/fleet/record: it is a part of a
// subject of NATS.
func isFleetName(s string) bool {
	return s != "" && len(s) <= 32 && !strings.ContainsFunc(s, func(c rune) bool {
		return c != '-' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z')
	})
}

const allowedName = "1 to 32 letters, digits, - or _"

func (ps *parser) checkFleetName(key, name string) {
	if !isFleetName(name) {
		ps.fail(key, "not a name for a fleet", detail{value: ps.shownValue(key), allowed: allowedName})
	}
}

func (ps *parser) checkFleetNode(key, name string) {
	if name != "" && !isFleetName(name) {
		ps.fail(key, "not a name for a node", detail{value: ps.shownValue(key), allowed: allowedName})
	}
}

// checkFleetServers checks addresses of servers.
func (ps *parser) checkFleetServers(list string, servers []string) {
	for i, text := range servers {
		at := fmt.Sprintf("%s[%d]", list, i)
		if ps.failed[at] {
			continue
		}
		u, err := url.Parse(text)
		switch {
		case err != nil || u.Scheme != "tls" && u.Scheme != "nats" || u.Hostname() == "" || u.Path != "" ||
			u.RawQuery != "" || strings.ContainsAny(text, ", \t"):
			ps.fail(at, "not an address of a NATS server", detail{value: ps.shownValue(at),
				allowed: "tls://HOST:PORT or nats://HOST:PORT", hint: "tls://hub.example.net:4222"})
		case u.Scheme == "nats" && !isLoopback(u.Hostname()):
			ps.warn(at, "whoever reads the network reads whom you ban and trust, and can change it",
				detail{value: ps.shownValue(at), hint: "tls://" + u.Host})
		}
	}
	failDuplicates(ps, list, servers, ps.warn)
}

func (ps *parser) checkShared(list string, words []Shared) {
	for i, word := range words {
		ps.checkOneOf(fmt.Sprintf("%s[%d]", list, i), string(word),
			toStrings([]Shared{SharedBans, SharedTrust, SharedAllow}))
	}
	failDuplicates(ps, list, words, ps.warn)
}

// checkFleet checks which values go together.
func (ps *parser) checkFleet(f *Fleet) {
	if !f.Enabled() {
		return
	}
	if f.TLS.CAFile != "" && !ps.failed["fleet.tls.ca_file"] {
		ps.caFile("fleet.tls.ca_file", f.TLS.CAFile)
	}
	if _, err := f.NodeName(); err != nil && !ps.failed["fleet.node"] {
		ps.fail("fleet.node", err.Error(), detail{allowed: allowedName})
	}
}
