package fleet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/asterisk/ami/amiserver"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/firewall"
	nodes "github.com/ringwall/ringwall/pkg/fleet"
	"github.com/ringwall/ringwall/pkg/netns"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

const (
	fleetName = "acme"
	hubPort   = 4222
	trap      = "trap" // an account that no phone has: whoever asks for it is banned at once
	secret    = "not-the-secret-of-anybody"
	trunk     = "198.51.100.77" // that each node's Asterisk knows as its provider
)

// hubHost is a machine with the hub.
type hubHost struct {
	t       testing.TB
	space   *netns.Space
	folder  string
	links   int
	wrapped []string // what runs the hub, if not this test itself
	process *netns.Process
}

// prepareHub makes the machine.
func prepareHub(t testing.TB) *hubHost {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
	return &hubHost{t: t, space: netnstest.New(t), folder: filepath.Join(t.TempDir(), "hub")}
}

// start starts the hub, and returns when it listens.
func (h *hubHost) start() {
	h.t.Helper()
	h.spawn()
	h.awaitReady()
}

func (h *hubHost) spawn() {
	h.t.Helper()
	args := append(slices.Clone(h.wrapped), program, "hub", "--folder", h.folder, "--listen",
		fmt.Sprintf("0.0.0.0:%d", hubPort), "--name", fleetName)
	h.process = netnstest.Spawn(h.t, h.space, args[0], args[1:]...)
}

func (h *hubHost) awaitReady() {
	h.t.Helper()
	trial.WaitUntil(h.t, "the hub listens", func() bool {
		select {
		case <-h.process.Exited():
			h.t.Fatalf("the hub ended: %s", h.process.Output())
		default:
		}
		return strings.Contains(h.process.Output(), "The hub listens at ")
	})
}

// stop ends the hub as systemd does.
func (h *hubHost) stop() {
	h.t.Helper()
	h.process.Stop(trial.Patience)
	if err := h.process.Wait(); err != nil {
		h.t.Fatalf("the hub after SIGTERM: %v", err)
	}
}

// run types a command at the hub, and returns what it prints.
func (h *hubHost) run(args ...string) string {
	h.t.Helper()
	return netnstest.Run(h.t, h.space, "", program, append([]string{"hub"}, append(args, "--folder", h.folder)...)...)
}

// lay connects a machine with the hub's by a cable of its own. It returns the address of the hub there, and the name of
// its interface.
func (h *hubHost) lay(space *netns.Space) (hub netip.Addr, name string) {
	h.t.Helper()
	h.links++
	name = fmt.Sprintf("node%d", h.links)
	hub = netip.AddrFrom4([4]byte{10, 77, byte(h.links), 1})
	err := h.space.Do(func() error {
		if err := netns.AddPair(name, "eth0", space); err != nil {
			return err
		}
		return netns.BringUp(name, hub.String()+"/24")
	})
	if err == nil {
		err = space.Do(func() error { return netns.BringUp("eth0", hub.Next().String()+"/24") })
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return hub, name
}

// nodeHost is a machine with a node: its Asterisk is played by the test.
type nodeHost struct {
	t        testing.TB
	name     string
	hub      *hubHost
	space    *netns.Space
	hubAt    netip.Addr // the hub, for this node
	link     string     // the hub's interface to this node
	dir      string
	settings string // further lines of fleet in the configuration
	asterisk *amiserver.Server
	client   *api.Client
	table    *firewall.Table // to look into the kernel; nothing is changed with it
	program  string          // that it runs
	isAhead  bool            // its clock is not ours
	daemon   *netns.Process
	events   atomic.Int64
}

// newFleet makes a hub and machines with nodes, has all of them join with the line that the hub prints for each, and
// starts them.
func newFleet(t testing.TB, settings string, names ...string) (*hubHost, []*nodeHost) {
	t.Helper()
	h := prepareHub(t)
	h.start()
	return h, h.add(settings, names...)
}

// add lets further nodes in.
func (h *hubHost) add(settings string, names ...string) (list []*nodeHost) {
	h.t.Helper()
	var lines []string
	for _, name := range names {
		n := prepareNode(h, name, settings)
		list, lines = append(list, n), append(lines, n.invite())
	}
	for i, n := range list {
		n.configure(n.join(lines[i]))
		n.spawn()
	}
	for _, n := range list {
		n.awaitUp()
		n.awaitUpToDate()
	}
	return list
}

// prepareNode makes the machine and its Asterisk.
func prepareNode(h *hubHost, name, settings string) *nodeHost {
	t := h.t
	t.Helper()
	n := &nodeHost{t: t, name: name, hub: h, program: program, space: netnstest.New(t), dir: t.TempDir(),
		settings: settings}
	n.hubAt, n.link = h.lay(n.space)
	n.client = &api.Client{Socket: filepath.Join(n.dir, "ringwall.sock"), Timeout: trial.Patience}
	n.asterisk = serveAMI(t, n.space)
	var err error
	if n.table, err = firewall.Open(firewall.Config{NetNS: n.space.FD()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.table.Close() })
	return n
}

// serveAMI plays an Asterisk with one trunk until the test ends.
func serveAMI(t testing.TB, space *netns.Space) *amiserver.Server {
	t.Helper()
	l, err := space.Listen(t.Context(), "tcp", "127.0.0.1:5038")
	if err != nil {
		t.Fatal(err)
	}
	list := func(complete string, items ...string) func(amiserver.Request) string {
		return func(r amiserver.Request) string {
			id := "\r\nActionID: " + r.Get("ActionID") + "\r\n"
			text := "Response: Success" + id + "EventList: start\r\nMessage: Result will follow\r\n\r\n"
			for _, item := range items {
				first, rest, _ := strings.Cut(item, "\n")
				text += first + id + strings.ReplaceAll(rest, "\n", "\r\n") + "\r\n\r\n"
			}
			return text + fmt.Sprintf("Event: %s%sEventList: Complete\r\nListItems: %d\r\n\r\n", complete, id, len(items))
		}
	}
	server := amiserver.New(amiserver.Config{AuthDelay: -1, QueueBytes: 1 << 30, WriteTimeout: time.Hour,
		Users: []amiserver.User{{Name: "ringwall", Secret: secret, Read: amiserver.ClassSecurity,
			Write: amiserver.ClassSystem}},
		Actions: map[string]amiserver.Action{
			"PJSIPShowEndpoints": {Privilege: amiserver.ClassSystem, Reply: list("EndpointListComplete",
				"Event: EndpointList\nObjectType: endpoint\nObjectName: provider\nAuths: \nContacts: ")},
			"PJSIPShowEndpoint": {Privilege: amiserver.ClassSystem, Reply: list("EndpointDetailComplete",
				"Event: EndpointDetail\nObjectType: endpoint\nObjectName: provider\nRewriteContact: false",
				"Event: IdentifyDetail\nObjectType: identify\nObjectName: provider-identify\nMatch: "+trunk+
					"/255.255.255.255\nEndpoint: provider")},
		}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ctx, l) }()
	t.Cleanup(func() { cancel(); <-done })
	return server
}

func (n *nodeHost) configFile() string { return filepath.Join(n.dir, "ringwall.yaml") }

// invite returns the line that the hub prints for the node.
func (n *nodeHost) invite() string {
	n.t.Helper()
	return n.hub.run("invite", n.name, "--address", netip.AddrPortFrom(n.hubAt, hubPort).String())
}

// join types that line, and returns what belongs into the configuration.
func (n *nodeHost) join(line string) (section string) {
	n.t.Helper()
	words := strings.Fields(line)
	var out string
	trial.WaitUntil(n.t, "the hub lets "+n.name+" in", func() bool {
		var code int
		out, code = n.try(append(words[1:], "--config", n.configFile())...)
		return code == 0
	})
	_, section, _ = strings.Cut(out, "\n")
	return section
}

// configure writes the configuration, with the section that join returned.
func (n *nodeHost) configure(section string) {
	n.t.Helper()
	text := fmt.Sprintf("asterisk:\n  - {name: pbx, address: \"127.0.0.1:5038\", username: ringwall, secret: %s}\n"+
		"control: {socket: %q}\nstate: {path: %q}\nmetrics: {listen: \"127.0.0.1:9646\"}\n"+
		"policy:\n  honeypots: [%s]\n  allow: [203.0.113.0/28]\n", secret, n.client.Socket,
		filepath.Join(n.dir, "state.db"), trap)
	if err := os.WriteFile(n.configFile(), []byte(text+section+n.settings), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// start starts the program, and returns when it hears Asterisk and keeps the table.
func (n *nodeHost) start() {
	n.t.Helper()
	n.spawn()
	n.awaitUp()
}

func (n *nodeHost) spawn() {
	n.t.Helper()
	n.daemon = netnstest.Spawn(n.t, n.space, n.program, "run", "--config", n.configFile())
}

func (n *nodeHost) awaitUp() {
	n.t.Helper()
	trial.WaitUntil(n.t, n.name+" hears Asterisk", func() bool {
		select {
		case <-n.daemon.Exited():
			n.t.Fatalf("%s ended: %v", n.name, n.daemon.Wait())
		default:
		}
		s, err := n.client.Status(n.t.Context())
		return err == nil && s.PBXs[0].Events > 0 && n.protects(trunk)
	})
}

// protects says whether the node knows that an address is its Asterisk's.
func (n *nodeHost) protects(address string) bool {
	list, err := n.client.Protected(n.t.Context())
	is := func(e ban.Exemption) bool { return e.Prefix.String() == address+"/32" }
	return err == nil && slices.ContainsFunc(list, is)
}

func (n *nodeHost) fleetStatus() nodes.Status {
	n.t.Helper()
	s, err := n.client.Status(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	if s.Fleet == nil {
		n.t.Fatalf("%s is in no fleet", n.name)
	}
	return *s.Fleet
}

// awaitUpToDate waits until the node has heard and told all.
func (n *nodeHost) awaitUpToDate() {
	n.t.Helper()
	trial.WaitUntil(n.t, n.name+" is up to date", func() bool {
		s := n.fleetStatus()
		return s.Connected && s.CaughtUp && s.Waiting == 0
	})
}

// try types a command at the node, and returns what it prints and its exit code.
func (n *nodeHost) try(args ...string) (out string, code int) {
	n.t.Helper()
	out, err := n.space.Run(exec.Command(program, args...))
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		n.t.Fatal(err)
	}
	if exit != nil {
		code = exit.ExitCode()
	}
	return out, code
}

// run is try of what must succeed.
func (n *nodeHost) run(args ...string) string {
	n.t.Helper()
	out, code := n.try(append(args, "--config", n.configFile())...)
	if code != 0 {
		n.t.Fatalf("%s: ringwall %q: exit %d\n%s", n.name, args, code, out)
	}
	return out
}

// says waits until ringwall fleet status says each of some texts.
func (n *nodeHost) says(texts ...string) {
	n.t.Helper()
	var out string
	for deadline := time.Now().Add(trial.Patience); ; time.Sleep(50 * time.Millisecond) {
		out = n.run("fleet", "status")
		missing := slices.DeleteFunc(slices.Clone(texts), func(text string) bool { return strings.Contains(out, text) })
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("fleet status at %s does not say %q:\n%s", n.name, missing, out)
		}
	}
}

// tell has the node's Asterisk tell of an event, with further lines.
func (n *nodeHost) tell(event, account, transport string, from netip.Addr, lines ...string) {
	n.asterisk.Broadcast(n.eventText(nil, event, account, transport, from, lines...))
}

func (n *nodeHost) eventText(b []byte, event, account, transport string, from netip.Addr, lines ...string) []byte {
	severity := "Error"
	if event == "SuccessfulAuth" || event == "ChallengeSent" {
		severity = "Informational"
	}
	number := n.events.Add(1)
	b = fmt.Appendf(b, "Event: %s\r\nPrivilege: security,all\r\nEventTV: %s\r\nSeverity: %s\r\nService: PJSIP\r\n"+
		"EventVersion: 1\r\nAccountID: %s\r\nSessionID: call-%s-%d\r\nLocalAddress: IPV4/%[7]s/192.0.2.1/5060\r\n"+
		"RemoteAddress: IPV4/%[7]s/%[8]s/5060\r\n", event, time.Now().UTC().Format("2006-01-02T15:04:05.000-0700"),
		severity, account, n.name, number, transport, from)
	for _, line := range lines {
		b = append(append(b, line...), "\r\n"...)
	}
	return append(b, "\r\n"...)
}

// proven has the node's Asterisk tell of an attack that nobody could have forged. One is a ban.
func (n *nodeHost) proven(from ...netip.Addr) { n.attack("TCP", from) }

// forged has it tell of attacks over UDP. One is a ban here.
func (n *nodeHost) forged(from ...netip.Addr) { n.attack("UDP", from) }

func (n *nodeHost) attack(transport string, from []netip.Addr) {
	var b []byte
	for _, a := range from {
		b = n.eventText(b, "InvalidAccountID", trap, transport, a)
	}
	n.asterisk.Broadcast(b)
}

// login has it tell of a phone that registers.
func (n *nodeHost) login(from netip.Addr, account string) {
	n.tell("ChallengeSent", account, "TCP", from, "Challenge: ")
	n.tell("SuccessfulAuth", account, "TCP", from, "UsingPassword: 1")
}

// bans says whether the node's kernel holds a ban of an address, whatever it closes.
func (n *nodeHost) bans(a netip.Addr) bool {
	_, ok, err := n.table.LookUpPrefix(firewall.Ban, single(a))
	if err != nil {
		n.t.Error(err)
	}
	return ok
}

// kernel is all that the node's kernel keeps out.
func (n *nodeHost) kernel() map[string]firewall.Element {
	n.t.Helper()
	list, err := n.table.Elements(firewall.Ban)
	if err != nil {
		n.t.Fatal(err)
	}
	m := make(map[string]firewall.Element, len(list))
	for _, e := range list {
		m[fmt.Sprint(e.Prefix, " ", e.Closes)] = e
	}
	return m
}

// metric is the value of one sample.
func (n *nodeHost) metric(name string) float64 {
	n.t.Helper()
	transport := &http.Transport{DialContext: n.space.DialContext, DisableKeepAlives: true}
	client := http.Client{Transport: transport, Timeout: trial.Patience}
	res, err := client.Get("http://127.0.0.1:9646/metrics")
	if err != nil {
		n.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				n.t.Fatal(err)
			}
			return v
		}
	}
	n.t.Fatalf("%s has no metric %s", n.name, name)
	return 0
}

// awaitSameKernels waits until the kernels of some nodes keep out the same, and that many.
func awaitSameKernels(t testing.TB, want int, list ...*nodeHost) {
	t.Helper()
	var have []int
	for deadline := time.Now().Add(trial.Patience); ; time.Sleep(10 * time.Millisecond) {
		have = have[:0]
		for _, n := range list {
			have = append(have, len(n.kernel()))
		}
		if !slices.ContainsFunc(have, func(n int) bool { return n != want }) {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("want %d bans in each kernel, have %d", want, have)
			break
		}
	}
	sameKernels(t, list...)
}

// sameKernels fails the test where kernels differ: in whom they keep out, in what they close, or by more than some
// seconds in how long. What is judged at the end of the second is read a moment later here.
func sameKernels(t testing.TB, list ...*nodeHost) {
	t.Helper()
	first := list[0].kernel()
	var differences []string
	for _, n := range list[1:] {
		other := n.kernel()
		for key, e := range first {
			if found, ok := other[key]; !ok {
				differences = append(differences, fmt.Sprintf("%s keeps %s out, %s does not", list[0].name, key, n.name))
			} else if !n.isAhead && (found.Remaining-e.Remaining).Abs() > 30*time.Second {
				differences = append(differences, fmt.Sprintf("%s is out for %s at %s, and for %s at %s", key, e.Remaining,
					list[0].name, found.Remaining, n.name))
			}
		}
		for key := range other {
			if _, ok := first[key]; !ok {
				differences = append(differences, fmt.Sprintf("%s keeps %s out, %s does not", n.name, key, list[0].name))
			}
		}
	}
	if slices.Sort(differences); len(differences) > 0 {
		t.Errorf("%d differences, such as %q", len(differences), differences[:min(len(differences), 5)])
	}
}

// nth is the n-th address from 32.0.0.0 on: nobody's here.
func nth(n int) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 32<<24+uint32(n))))
}

// nths are count of them.
func nths(from, count int) (list []netip.Addr) {
	for i := range count {
		list = append(list, nth(from+i))
	}
	return list
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// memoryMB is the memory that a program has in use (proc(5), VmRSS), in MB.
func memoryMB(t testing.TB, p *netns.Process) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kb, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return float64(kb) / 1024
		}
	}
	t.Fatalf("no VmRSS in %q", b)
	return 0
}

// cpuTime is the processor time that a program took so far (proc(5), /proc/PID/stat, in ticks of 10 ms).
func cpuTime(t testing.TB, p *netns.Process) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err := errors.Join(err1, err2); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// reload has a node read its configuration again, as systemctl reload does.
func (n *nodeHost) reload() {
	n.t.Helper()
	if err := n.daemon.Signal(syscall.SIGHUP); err != nil {
		n.t.Fatal(err)
	}
}
