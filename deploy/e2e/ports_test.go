package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/pkg/api"
)

// onAnotherPort is an Asterisk whose PJSIP listens at port 5080 over IPv4.
func onAnotherPort() lab.Options {
	return lab.Options{Version: 22, Edit: func(file, content string) string {
		if file == "pjsip.conf" {
			content = strings.ReplaceAll(content, "0.0.0.0:5060", "0.0.0.0:5080")
		}
		return content
	}}
}

// bannedAt makes an attacker that is banned for what it does at a port.
func (r *rig) bannedAt(o lab.AgentOptions, port uint16, net, host int) (*lab.Agent, netip.Addr) {
	r.t.Helper()
	o.To = port
	bad, local := r.newAttacker(o, net, host), attackerAddress(o, net, host)
	r.scanUntilBanned(bad, local, fmt.Sprintf("9%d", host))
	r.untilBanned(local)
	return bad, local
}

// SIP on another port, and on one that a NAT publishes: a ban closes it, since Asterisk's own events tell where they
// came in.
func TestSIPOnAnotherPort(t *testing.T) {
	r := newRig(t, onAnotherPort(), "")
	quick := lab.AgentOptions{Timeout: 100 * time.Millisecond}
	for i, way := range []string{"udp", "tcp"} {
		t.Run(way, func(t *testing.T) {
			r := r.forSubtest(t)
			bad, local := r.bannedAt(lab.AgentOptions{Transport: way}, 5080, 21, 1+i)
			r.waitUntil("the port is closed", func() bool {
				p := r.daemonStatus().Ports
				list := p.TCP
				if way == "udp" {
					list = p.UDP
				}
				return p.Auto && slices.Contains(list, 5080)
			})
			r.waitUntil("the kernel closes it", func() bool { return r.kernelCloses("5080") })
			bad.Close()
			quick := r.Agent(t, lab.Attacker,
				lab.AgentOptions{Transport: way, Local: local, To: 5080, Timeout: quick.Timeout})
			if !isKeptOut(t, quick) {
				t.Error("a banned source gets through")
			}
			if s := r.daemonStatus(); !s.Healthy() || len(s.Ports.OpenPorts()) > 0 || s.Engine.Leaking > 0 {
				t.Errorf("%+v", s)
			}
		})
	}
	t.Run("published by a NAT", func(t *testing.T) {
		r := r.forSubtest(t)
		rules := "table ip docker { chain dstnat { type nat hook prerouting priority dstnat; udp dport 5090 redirect " +
			"to " +
			":5080; }; }"
		if out, err := r.Exec(t.Context(), lab.Server, "nft", rules); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		bad, local := r.bannedAt(lab.AgentOptions{}, 5090, 22, 1)
		want := api.FoundPort{Protocol: "udp", Port: 5090, PBX: "lab", Behind: 5080}
		r.waitUntil("the published port is found", func() bool {
			if slices.Contains(r.daemonStatus().Ports.Found, want) {
				return true
			}
			_, _ = bad.Probe("9999") // bans within the same second as another are not looked at, who gets through is
			return false
		})
		r.waitUntil("the kernel closes it", func() bool { return r.kernelCloses("5090") })
		bad.Close()
		again := r.Agent(t, lab.Attacker, lab.AgentOptions{Local: local, To: 5090, Timeout: quick.Timeout})
		if !isKeptOut(t, again) {
			t.Error("a banned source gets through")
		}
	})
}

// kernelCloses says whether a port stands in the rules: the daemon knows of it a little before.
func (r *rig) kernelCloses(port string) bool {
	rules, err := r.Exec(r.t.Context(), lab.Server, "nft", "list", "table", "inet", "ringwall")
	return err == nil && strings.Contains(string(rules), port)
}

// Who lists the ports himself, and not all of them, learns it from everything that tells how Ringwall is.
func TestABannedSourceThatGetsThroughIsTold(t *testing.T) {
	r := newRig(t, onAnotherPort(), "firewall: {ports: {udp: [5060], tcp: [5060, 5061]}}\n")
	bad, local := r.bannedAt(lab.AgentOptions{}, 5080, 23, 1)
	if !isAnswered(t, bad) {
		t.Fatal("the port is closed, so that there is nothing to tell")
	}
	r.waitUntil("the leak is noticed", func() bool {
		_, _ = bad.Probe("9998")
		return r.daemonStatus().Engine.Leaking == 1
	})
	s := r.daemonStatus()
	if s.Healthy() || !s.Leaking() {
		t.Errorf("status: %+v", s)
	}
	for args, want := range map[string][]string{
		"status": {"NOT WELL", "1 banned source got through within the last hour, and STILL DO", "OPEN      UDP 5080",
			"firewall: {ports: {udp: [5060, 5080], tcp: [5060, 5061]}}, or ports: auto"},
		"list":                  {"GETS THROUGH (UDP port 5080)"},
		"why " + local.String(): {"DOES NOT KEEP IT OUT", "UDP port 5080"},
		"history":               {"leak", "firewall.ports"},
	} {
		out := r.runCommand(strings.Fields(args)...)
		for _, text := range want {
			if !strings.Contains(out, text) {
				t.Errorf("ringwall %s does not say %q:\n%s", args, text, out)
			}
		}
	}
	out, err := r.Exec(t.Context(), lab.Server, binary, "doctor", "--config", r.config)
	if err == nil {
		t.Error("doctor passes")
	}
	for _, text := range []string{"1 banned source still got through", "bans stop nothing at UDP 5080",
		"udp: [5060, 5080]"} {
		if !strings.Contains(string(out), text) {
			t.Errorf("doctor does not say %q:\n%s", text, out)
		}
	}

	// And auto mends it at once: what was found is remembered.
	r.stopDaemon()
	text, err := os.ReadFile(r.config)
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.Replace(string(text), "{udp: [5060], tcp: [5060, 5061]}", "auto", 1))
	if err := os.WriteFile(r.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	r.startDaemon()
	bad.Close()
	again := r.Agent(t, lab.Attacker, lab.AgentOptions{Local: local, To: 5080, Timeout: 100 * time.Millisecond})
	if !isKeptOut(t, again) {
		t.Error("a banned source gets through")
	}
	out, err = r.Exec(t.Context(), lab.Server, binary, "doctor", "--config", r.config)
	if strings.Contains(string(out), "bans stop nothing") || strings.Contains(string(out), "still got through") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
}
