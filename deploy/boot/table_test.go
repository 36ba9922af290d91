package boot

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/ami/amiserver"
)

// fault is a way to break a machine that works.
type fault struct {
	name          string
	configuration string // what is in force before, if not just enforce
	script        string // what root types
	do            func(m *machine)
	port          int  // that Asterisk has, if not 5060
	watching      bool // nobody is to be banned, and whatever says so is right
}

const (
	restart = "\nsystemctl restart ringwall || true"
	dropIn  = `mkdir -p /run/systemd/system/ringwall.service.d
		printf '[Service]\n%s\n' >/run/systemd/system/ringwall.service.d/fault.conf
		systemctl daemon-reload`
)

// settle is how long a machine may need to notice, on a slow host.
const settle = time.Minute

// faults are what the table is made of.
func faults() []fault {
	configured := func(text string) func(*machine) {
		return func(m *machine) {
			m.configure(text)
			m.try("systemctl reload ringwall")
		}
	}
	others := func(chain string) string {
		return "nft 'table inet other { chain first { type filter hook " + chain + " }; }'"
	}
	return []fault{
		{name: "nothing is broken"},

		// The service.
		{name: "the daemon is stopped", script: "systemctl stop ringwall"},
		{name: "the daemon was killed, and is not started again (as after OOM with Restart=no)",
			script: fmt.Sprintf(dropIn, "Restart=no") + "; kill -9 $(pidof ringwall); sleep 0.5"},
		{name: "the daemon fails at each start", script: fmt.Sprintf(dropIn, "ExecStartPre=/bin/false") + restart},
		{name: "no CAP_NET_ADMIN", script: fmt.Sprintf(dropIn, `AmbientCapabilities=\nCapabilityBoundingSet=`) + restart},
		{name: "the program was replaced under the running daemon",
			script: "cp /usr/bin/ringwall /usr/bin/ringwall.new; mv /usr/bin/ringwall.new /usr/bin/ringwall"},
		{name: "the program is gone", script: "mv /usr/bin/ringwall /usr/bin/ringwall.gone" + restart},
		{name: "panic", script: "ringwall panic"},

		// Files.
		{name: "the configuration is no YAML", script: "echo '{' >>/etc/ringwall/ringwall.yaml" + restart},
		{name: "a key that does not exist, and a reload",
			script: "echo 'polcy: {}' >>/etc/ringwall/ringwall.yaml; systemctl reload ringwall || true"},
		{name: "the configuration and the last accepted one are gone",
			script: "rm /etc/ringwall/ringwall.yaml /var/lib/ringwall/accepted*" + restart},
		{name: "the state file is rubbish",
			script: "systemctl stop ringwall; head -c 9999 /dev/urandom >/var/lib/ringwall/state.db" + restart},
		{name: "the state file was wiped while stopped",
			script: "systemctl stop ringwall; rm /var/lib/ringwall/state.db" + restart},
		{name: "the state's folder was wiped while stopped",
			script: "systemctl stop ringwall; rm -r /var/lib/ringwall" + restart},
		{name: "the state's folder is gone under the running daemon", script: "rm -r /var/lib/ringwall"},
		{name: "the state's disk can only be read",
			script: `systemctl stop ringwall; mount --bind /var/lib/ringwall /var/lib/ringwall
			mount -o remount,bind,ro /var/lib/ringwall` + restart},
		{name: "the state's disk is full", script: `systemctl stop ringwall; cp -a /var/lib/ringwall /root/state
			mount -t tmpfs -o size=400k tmpfs /var/lib/ringwall; cp -a /root/state/. /var/lib/ringwall/
			chown ringwall: /var/lib/ringwall; head -c 1M /dev/zero >/var/lib/ringwall/full` + restart},

		// Asterisk.
		{name: "Asterisk is stopped", do: func(m *machine) { m.stopAMI() }},
		{name: "Asterisk hangs", do: func(m *machine) { m.hung.set(true) }},
		{name: "a wrong secret", do: func(m *machine) { m.again(amiserver.User{Name: "ringwall", Secret: "another"}) }},
		{name: "no read = security", do: func(m *machine) {
			m.again(amiserver.User{Name: "ringwall", Secret: secret, Read: amiserver.ClassCall, Write: amiserver.ClassAll})
		}},
		{name: "Asterisk's clock is an hour behind", do: func(m *machine) { m.skew = -time.Hour }},
		{name: "Asterisk's clock is an hour ahead", do: func(m *machine) { m.skew = time.Hour }},
		{name: "SIP is at 5080", port: 5080},
		{name: "SIP is at 5080, and firewall.ports has 5060", port: 5080,
			configuration: enforce + "firewall: {ports: {udp: [5060], tcp: [5060]}}\n"},

		// The kernel.
		{name: "nft flush ruleset", script: "nft flush ruleset || true"},
		{name: "the rules were flushed", script: "nft flush table inet ringwall || true"},
		{name: "somebody accepts all before", script: others("prerouting priority -400; accept;")},
		{name: "somebody drops an allowed address",
			script: others("input priority 0; ip saddr " + good + " drop;")},
		{name: "somebody drops all",
			script: others("input priority 0; policy drop; iif lo accept; ip saddr " + neutral + " accept;")},
		{name: "somebody deletes the table again and again",
			script: "setsid sh -c 'while sleep 0.05; do nft delete table inet ringwall; done' >/dev/null 2>&1 & disown"},
		{name: "no more bans are allowed (policy.limits.bans)",
			configuration: "policy: {mode: enforce, limits: {bans: 1}}\n"},

		// The configuration.
		{name: "mode: observe", do: configured("policy: {mode: observe}\n"), watching: true},
		{name: "doctor's own address is allowed", do: configured("policy: {mode: enforce, allow: [192.0.2.0/24]}\n")},
		{name: "a name of the allow list is never resolved",
			script: "echo nameserver " + neutral + " >/etc/resolv.conf",
			do:     configured("policy: {mode: enforce, allow: [sip.provider.example]}\n")},
		{name: "the socket is gone", script: "rm /run/ringwall/*.sock"},
		{name: "the socket's group does not exist", configuration: enforce + "control: {group: nobody-is-in-it}\n"},
		{name: "the webhook is dead", do: configured(enforce + "notify: [{name: chat, url: 'http://127.0.0.1:9/'}]\n")},
		{name: "grace for everybody (unban --all --grace 1h)", script: "ringwall unban --all --grace 1h", watching: true},
	}
}

// again plays another Asterisk.
func (m *machine) again(user amiserver.User) {
	m.stopAMI()
	m.startAMIWith(user)
}

// truth is what packets say.
type truth struct {
	banned, fresh, allowed bool // the banned is kept out, another attacker gets banned, the allowed address is let in
}

func (v truth) protects() bool { return v.banned && v.fresh && v.allowed }

// wronged says who is wrong.
func (v truth) wronged(c claims) []string {
	if v.protects() {
		return nil
	}
	return c.works
}

// look sees what becomes of packets. Asterisk tells of those that arrive.
func (m *machine) look(port int, attacker string) (v truth) {
	m.t.Helper()
	v.banned, v.allowed = true, false
	for range 2 { // what it did before may just be undone
		if v.allowed = m.arrives(good, port); v.allowed {
			m.attackAt(good, port)
		}
		if v.banned = !m.arrives(first, port); !v.banned {
			m.attackAt(first, port)
		}
		if m.arrives(attacker, port) {
			m.attackAt(attacker, port)
		}
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end) && !m.inSet(attacker); {
			time.Sleep(20 * time.Millisecond)
		}
		v.fresh, v.allowed = !m.arrives(attacker, port), m.arrives(good, port)
		if v.protects() {
			break
		}
	}
	return v
}

// claims are what is said about a machine.
type claims struct {
	status, doctor, page, metric, unit string // what each says
	statusCode, doctorCode             int
	works                              []string // who says that attackers are kept out
}

var (
	verdict = regexp.MustCompile(`(?s)class="verdict (\w+)">.*?<h2>([^<]*)</h2>`)
	// gauges are those that an alert of ringwall.rules.yml is about, and what they are while all is well.
	gauges = map[string]string{"ringwall_ami_up": "1", "ringwall_kernel_ok": "1", "ringwall_enforcing": "1",
		"ringwall_leaking_sources": "0", "ringwall_allowed_dropped": "0",
		"ringwall_state_saved": "1", "ringwall_config_reload_success": "1"}
)

// working is the headline of status while all is well.
const working = "attackers are banned"

// headline is what status says first, and its exit code.
func (m *machine) headline() (text string, code int) {
	m.t.Helper()
	out, code := m.try("timeout 20 ringwall status")
	text, _, _ = strings.Cut(out, "\n")
	if code == 0 {
		_, text, _ = strings.Cut(text, "): ")
	}
	return text, code
}

func (m *machine) ask() (c claims) {
	m.t.Helper()
	says := func(who string, works bool) {
		if works {
			c.works = append(c.works, who)
		}
	}
	c.status, c.statusCode = m.headline()
	says("status", c.status == working)

	out, code := m.try("timeout 60 ringwall doctor")
	c.doctor, c.doctorCode = out[strings.LastIndex(out, "\n")+1:], code
	says("doctor", code == 0 && !strings.Contains(c.doctor, "bans nobody"))

	found := verdict.FindStringSubmatch(m.get("/"))
	if c.page = "none"; found != nil {
		c.page = found[2]
		says("page", found[1] == "good")
	}

	text := m.get("/metrics")
	var odd []string
	for _, line := range strings.Split(text, "\n") {
		name, value, _ := strings.Cut(line, " ")
		name, _, _ = strings.Cut(name, "{")
		if want, ok := gauges[name]; ok && value != want {
			odd = append(odd, name+" "+value)
		}
		if name == "ringwall_limited_total" && value != "0" || name == "ringwall_leaks_total" && value != "0" {
			odd = append(odd, name+" "+value)
		}
	}
	switch {
	case !strings.Contains(text, "ringwall_kernel_ok"):
		c.metric = "up 0"
	case odd == nil:
		c.metric = "all well"
		says("metrics", true)
	default:
		c.metric = strings.Join(odd, ", ")
	}
	c.unit, _ = m.try("systemctl show -p ActiveState -p SubState -p Result --value ringwall | paste -sd/")
	return c
}

// TestWhateverSaysWorksIsRight breaks machines, each in one way. While a banned source gets through, an attacker is not
// banned or an allowed address is not let in, nothing says that all is well.
func TestWhateverSaysWorksIsRight(t *testing.T) {
	only := regexp.MustCompile(os.Getenv("RINGWALL_BOOT_FAULT"))
	for _, f := range faults() {
		if !only.MatchString(f.name) {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			if f.configuration == "" {
				f.configuration = enforce
			}
			if f.port == 0 {
				f.port = 5060
			}
			m := newMachine(t, f.configuration)
			m.run("ringwall allow add " + good)
			m.attackAt(first, f.port)
			m.until("the attacker is banned", func() bool { return m.inSet(first) })
			if f.script != "" {
				m.run(f.script)
			}
			if f.do != nil {
				f.do(m)
			}
			var v truth
			var c claims
			wrong := func() bool {
				return !f.watching && len(v.wronged(c)) > 0
			}
			began := time.Now()
			var after time.Duration // from the fault until it was told
			for n := 0; n == 0 || wrong() && time.Since(began) < settle; n++ {
				for n > 0 && time.Since(began) < settle && slices.Contains(c.works, "status") {
					if text, _ := m.headline(); text != working {
						break
					}
					time.Sleep(200 * time.Millisecond)
				}
				after = time.Since(began)
				c = m.ask()
				v = m.look(f.port, fmt.Sprint("10.88.0.", 31+n%30))
			}
			yes := map[bool]string{true: "yes", false: "NO"}
			t.Logf("| %s | %s | %s | %s | %s | %d, %d | %s | %s, new ones %s | %s | %s |",
				f.name, c.status, c.doctor, c.page, c.metric, c.statusCode, c.doctorCode, c.unit,
				yes[v.banned], yes[v.fresh], yes[v.allowed], after.Round(time.Second))
			if wrong() {
				t.Errorf("the banned is kept out: %v, another attacker: %v, the allowed is let in: %v; but all is well for %q",
					v.banned, v.fresh, v.allowed, v.wronged(c))
			}
		})
	}
}
