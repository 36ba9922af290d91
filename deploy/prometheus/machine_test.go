package prometheus

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/asterisk/ami/amiserver"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/netns"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// The machine's own policy makes few events enough: limits.bans lets five bans in, of which one is taken back.
const settings = `
policy:
  honeypots: [trap]
  targeted: {sources: 2}
  misconfigured: {per_minute: 0}
  storm: {sources: 2}
  limits: {bans: 5, forgeable_bans: 5}
notify: [{name: team, exec: [/bin/true]}]
firewall: {owner: "off"} # the test removes the table, as other programs do
`

const (
	server   = "192.0.2.1"
	attacker = "203.0.113.66"
)

// machine is a PBX in a namespace: an AMI server, which the test plays, the daemon and a Prometheus.
type machine struct {
	t        *testing.T
	space    *netns.Space
	internet *netns.Space
	asterisk *amiserver.Server
	http     *http.Client
	control  *api.Client
	config   string
	daemon   *netns.Process
	calls    int
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, space: netnstest.New(t), internet: netnstest.New(t)}
	netnstest.Connect(t, m.space, m.internet, []string{server + "/24"}, []string{attacker + "/24"})
	netnstest.Run(t, m.space, "", "ip", "route", "add", "203.0.113.0/24", "dev", "eth0")
	netnstest.Run(t, m.internet, "", "ip", "route", "add", "192.0.2.0/24", "dev", "eth0")
	transport := &http.Transport{DialContext: m.space.DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	m.http = &http.Client{Transport: transport, Timeout: trial.Patience}

	l, err := m.space.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.asterisk = amiserver.New(amiserver.Config{AuthDelay: -1, Users: []amiserver.User{
		{Name: "ringwall", Secret: "s3cret", Read: amiserver.ClassSecurity},
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = m.asterisk.Serve(ctx, l) }()
	t.Cleanup(func() { cancel(); <-done })

	dir := t.TempDir()
	m.config = filepath.Join(dir, "ringwall.yaml")
	m.control = &api.Client{Socket: filepath.Join(dir, "ringwall.sock")}
	blocked := filepath.Join(dir, "blocked.txt")
	m.writeFile(blocked, "203.0.113.200\n10.0.0.1\n") // the second is nobody on the internet, and left out
	lapi := filepath.Join(dir, "lapi.yaml")
	m.writeFile(lapi, "url: http://127.0.0.1:1\nlogin: a\npassword: hunter2\n") // nobody is there
	m.writeFile(m.config, fmt.Sprintf("asterisk:\n  - {name: pbx1, address: %q, username: ringwall, secret: s3cret, "+
		"learn: "+
		"\"off\"}\n"+
		"control: {socket: %q}\nstate: {path: %q}\nlists: [{name: own, file: %q}]\n"+
		"fleet: {servers: [\"nats://127.0.0.1:1\"], node: a}\ncrowdsec: {credentials_file: %q}\n%s", l.Addr(),
		m.control.Socket, filepath.Join(dir, "state.db"), blocked, lapi, settings))
	m.daemon = netnstest.Spawn(t, m.space, ringwall, "run", "--config", m.config)
	m.awaitSession()
	return m
}

func (m *machine) writeFile(path, text string) {
	m.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) awaitSession() {
	m.t.Helper()
	trial.WaitUntil(m.t, "the daemon hears Asterisk", func() bool {
		s, err := m.control.Status(m.t.Context())
		// Whether it is well besides is not asked: bans are at their bound, and ten minutes later no longer.
		return err == nil && s.Kernel.OK && s.PBXs[0].Up && m.asterisk.Subscribers() == 1
	})
}

// sendEvent sends one security event the way Asterisk writes it.
func (m *machine) sendEvent(name, account, call, remote, own string) {
	m.t.Helper()
	severity := "Error"
	if name == "ChallengeSent" || name == "SuccessfulAuth" {
		severity = "Informational"
	}
	m.sendFrame(fmt.Sprintf("Event: %s\r\nPrivilege: security,all\r\nEventTV: %s\r\nSeverity: %s\r\nService: PJSIP\r\n"+
		"EventVersion: 1\r\nAccountID: %s\r\nSessionID: %s\r\nLocalAddress: IPV4/UDP/%s/5060\r\nRemoteAddress: "+
		"%s\r\n%s\r\n",
		name, time.Now().UTC().Format("2006-01-02T15:04:05.000+0000"), severity, account, call, server, remote, own))
}

func (m *machine) sendFrame(text string) {
	m.t.Helper()
	if m.asterisk.Broadcast([]byte(text)) == 0 {
		m.t.Fatal("nobody heard the event")
	}
}

func (m *machine) nextCallID() string {
	m.calls++
	return fmt.Sprintf("call-%d", m.calls)
}

func (m *machine) logInPhone(account, remote string) {
	call := m.nextCallID()
	m.sendEvent("ChallengeSent", account, call, remote, "Challenge: \r\n")
	m.sendEvent("SuccessfulAuth", account, call, remote, "UsingPassword: 1\r\n")
}

func (m *machine) guessPassword(account, remote string) {
	m.sendEvent("ChallengeResponseFailed", account, m.nextCallID(), remote,
		fmt.Sprintf("Challenge: c%d\r\nResponse: r%d\r\nExpectedResponse: \r\n", m.calls, m.calls))
}

// scanAccounts asks for the account that no phone has.
func (m *machine) scanAccounts(remote string) {
	call := m.nextCallID()
	m.sendEvent("InvalidAccountID", "trap", call, remote, "")
	m.sendEvent("ChallengeSent", "<unknown>", call, remote, "Challenge: \r\n")
}

// awaitDecision waits for a decision.
func (m *machine) awaitDecision(a ban.Action, r ban.Reason) {
	m.t.Helper()
	trial.WaitUntil(m.t, fmt.Sprintf("%s, %s", a, r), func() bool {
		list, err := m.control.History(m.t.Context(), time.Time{}, netip.Addr{})
		if err != nil {
			m.t.Fatal(err)
		}
		for _, d := range list {
			if d.Action == a && d.Reason == r {
				return true
			}
		}
		return false
	})
}

// scrapeMetrics is what the daemon answers to a scrape.
func (m *machine) scrapeMetrics() string {
	m.t.Helper()
	return m.httpGet("http://127.0.0.1:9646/metrics")
}

func (m *machine) httpGet(url string) string {
	m.t.Helper()
	req, err := http.NewRequestWithContext(m.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	res, err := m.http.Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	if err != nil || res.StatusCode != http.StatusOK {
		m.t.Fatalf("%s: %s, %v\n%s", url, res.Status, err, body)
	}
	return string(body)
}

// awaitMetric waits for a line of the metrics.
func (m *machine) awaitMetric(line string) {
	m.t.Helper()
	trial.WaitUntil(m.t, line, func() bool { return strings.Contains(m.scrapeMetrics(), line+"\n") })
}

// causeEverything lets everything happen that Ringwall counts.
func (m *machine) causeEverything() {
	m.logInPhone("201", "IPV4/UDP/198.51.100.10/5060")
	m.logInPhone("202", "IPV4/UDP/198.51.100.20/5060")
	m.awaitDecision(ban.ActionTrust, ban.ReasonLogin)

	m.scanAccounts("IPV4/UDP/" + attacker + "/5060")
	m.scanAccounts("IPV6/TCP/2001:db8:66::1/5060")
	m.awaitDecision(ban.ActionBan, ban.ReasonHoneypot)
	m.sendBannedPackets()

	for range 6 {
		m.guessPassword("203", "IPV4/TCP/198.51.100.66/5060")
	}
	m.awaitDecision(ban.ActionBan, ban.ReasonWrongPassword)
	m.logInPhone("203", "IPV4/TCP/198.51.100.66/5060")
	m.awaitDecision(ban.ActionBreach, ban.ReasonGuessed)
	m.guessPassword("204", "IPV4/UDP/198.51.100.71/5060")
	m.guessPassword("204", "IPV4/UDP/198.51.100.72/5060")
	m.guessPassword("204", "IPV4/UDP/198.51.100.73/5060")
	m.awaitDecision(ban.ActionTargeted, ban.ReasonDistributed)
	m.logInPhone("205", "IPV4/UDP/198.51.100.80/5060")
	m.sendEvent("RequestNotSupported", "205", m.nextCallID(), "IPV4/UDP/198.51.100.80/5060",
		"RequestType: REGISTER\r\n")
	m.awaitDecision(ban.ActionMisconfigured, ban.ReasonConfiguration)
	m.sendFrame("Event: SuccessfulAuth\r\nPrivilege: security,all\r\nRemoteAddress: IPV4/UDP/192.0.2.77/5060\r\n\r\n")
	m.awaitDecision(ban.ActionTampering, ban.ReasonMalformed)
	m.sendFrame("Event: ChallengeSent\r\nAccountID: " + strings.Repeat("x", 100<<10) + "\r\n\r\n")

	// The first one, too: a ban on evidence that could be forged would give way at the bound, and this one sends packets
	// that are counted.
	for _, p := range []string{attacker + "/32", "192.0.2.200/32", "192.0.2.201/32"} {
		if _, err := m.control.Ban(m.t.Context(), api.BanRequest{Prefix: netip.MustParsePrefix(p),
			For: 48 * time.Hour}); err != nil {
			m.t.Fatal(err)
		}
	}
	if _, err := m.control.Unban(m.t.Context(),
		api.UnbanRequest{Prefix: netip.MustParsePrefix("192.0.2.200/32")}); err != nil {
		m.t.Fatal(err)
	}
	for i := range 5 {
		m.scanAccounts(fmt.Sprintf("IPV4/TCP/198.51.100.%d/5060", 100+i))
	}
	m.awaitDecision(ban.ActionObserve, ban.ReasonLimit)
	m.guessPassword("201", "IPV4/TCP/198.51.100.10/5060")
	m.guessPassword("202", "IPV4/TCP/198.51.100.20/5060")
	m.awaitDecision(ban.ActionObserve, ban.ReasonStorm)

	m.asterisk.Disconnect()
	m.awaitMetric(`ringwall_ami_reconnects_total{pbx="pbx1"} 1`)
	m.awaitSession()
	netnstest.Run(m.t, m.space, "", "nft", "delete", "table", "inet", "ringwall")
	m.awaitMetric(`ringwall_kernel_rebuilds_total{cause="gone"} 1`)
	m.sendBannedPackets() // the new table counts from 0

	m.writeFile(m.config, "asterisk: nonsense\n")
	if err := m.daemon.Signal(syscall.SIGHUP); err != nil {
		m.t.Fatal(err)
	}
	m.awaitMetric("ringwall_config_reload_success 0")
}

// sendBannedPackets sends packets of a banned source until the kernel has counted one.
func (m *machine) sendBannedPackets() {
	m.t.Helper()
	c, err := m.internet.DialContext(m.t.Context(), "udp", server+":5060")
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	trial.WaitUntil(m.t, "a packet of a banned source is dropped", func() bool {
		_, _ = c.Write([]byte("knock")) // refused, as long as the ban is not there
		return droppedPackets.MatchString(m.scrapeMetrics())
	})
}

// droppedPackets is a set that dropped something of a source that is banned: by hand, on what could be forged (where the
// first packets pass), or else.
var droppedPackets = regexp.MustCompile(`(?m)^ringwall_dropped_packets_total\{set="(?:ban4|block4|knock4|sip4)"\} [1-9]`)
