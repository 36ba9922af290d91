package daemon

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/conntrack"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/mailbox"
	"github.com/ringwall/ringwall/pkg/store"
)

const (
	maxLocalAddresses = 256 // of one Asterisk, that are told apart
	maxPorts          = 64  // that are found, of all Asterisks
	maxArrivals       = 64  // that wait to be looked at
	portsDutyFactor   = 10  // a look at the table of flows takes at most one part in this many of the time
	sshPort           = 22
	banLookInterval   = time.Second // between two looks for bans
	portsRetryAfter   = 5 * time.Second
	// portsKeptFor is for how long a port is closed at the start although nothing was heard there since: 90 days.
	portsKeptFor = 90 * 24 * time.Hour
)

// localAddress is where an Asterisk received something.
type localAddress struct {
	local netip.AddrPort
	udp   bool
}

// arrival is one event's way, to be looked at.
type arrival struct {
	localAddress
	pbx    string
	remote netip.AddrPort
}

// port is a port of a protocol.
type port struct {
	number uint16
	udp    bool
}

func (p port) String() string {
	return strings.ToUpper(p.protocolName()) + " " + strconv.Itoa(int(p.number))
}

func (p port) protocolName() string {
	if p.udp {
		return "udp"
	}
	return "tcp"
}

// foundPort is where an Asterisk was found to receive.
type foundPort struct {
	pbx    string
	behind uint16 // what Asterisk itself calls the port, 0 for the same
	since  time.Time
}

// asteriskPorts finds out where Asterisk receives: from LocalAddress of its events, and where a NAT is before it, from
// the kernel's table of flows. With firewall.ports: auto these ports are closed to the banned, too.
type asteriskPorts struct {
	log            *slog.Logger
	netns          int
	path           string                        // of the file that keeps them; empty for none
	setKernelPorts func(udp, tcp []uint16) error // in the kernel; set before Run
	now            func() time.Time

	lastLook time.Time // at the last ban; the engine's lock is held
	arrivals chan arrival
	wake     chan struct{}

	mu        sync.Mutex
	cfg       config.Ports
	all       bool // scope
	found     map[port]foundPort
	kernelErr error // why the kernel has not got them
}

// newPorts begins with what was found before the last end.
func newPorts(cfg *config.Config, netns int, log *slog.Logger) *asteriskPorts {
	p := &asteriskPorts{
		log: log, netns: netns, now: time.Now,
		arrivals: make(chan arrival, maxArrivals), wake: make(chan struct{}, 1), found: make(map[port]foundPort),
	}
	p.setConfig(cfg.Firewall)
	if cfg.State.Path == "" {
		return p
	}
	p.path = filepath.Join(filepath.Dir(cfg.State.Path), "ports")
	if err := p.loadFile(cfg.Asterisk); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("the ports that Asterisk was found at are not known any more", "file", p.path, "err", err)
	}
	return p
}

// String names the task.
func (p *asteriskPorts) String() string { return "ports" }

// setConfig takes over the configuration; the kernel has it when Run has.
func (p *asteriskPorts) setConfig(f config.Firewall) {
	p.mu.Lock()
	p.cfg, p.all = f.Ports, f.Scope == config.ScopeAll
	p.mu.Unlock()
	mailbox.Signal(p.wake)
}

// noteLocal has a local address that is new examined: where an event came in. For one that is known it only compares.
func (p *asteriskPorts) noteLocal(b *pbx, ev *event.Event) {
	w, ok := localAddressOf(ev)
	if p == nil || !ok || w == b.lastLocal {
		return
	}
	b.lastLocal = w
	if b.examined[w] || len(b.examined) >= maxLocalAddresses {
		return
	}
	if p.enqueueArrival(b.name, ev) {
		if b.examined == nil {
			b.examined = make(map[localAddress]bool)
		}
		b.examined[w] = true
	}
}

// eventDecided looks at the way of an event that led to decisions: a NAT may publish a second port for one that is
// known, and that is seen when it matters, at a ban (once a second at most), and when a ban did not help. The engine's
// lock is held.
func (p *asteriskPorts) eventDecided(now time.Time, pbx string, ev *event.Event, decisions []ban.Decision) {
	for i := range decisions {
		switch decisions[i].Action {
		case ban.ActionLeak:
		case ban.ActionBan:
			if now.Sub(p.lastLook) < banLookInterval {
				continue
			}
			p.lastLook = now
		default:
			continue
		}
		p.enqueueArrival(pbx, ev)
		return
	}
}

// enqueueArrival has the way of an event looked at, and says whether there was room for that.
func (p *asteriskPorts) enqueueArrival(pbx string, ev *event.Event) bool {
	w, ok := localAddressOf(ev)
	if !ok {
		return true
	}
	select {
	case p.arrivals <- arrival{localAddress: w, pbx: pbx, remote: ev.Remote.AddrPort}:
		return true
	default:
		return false
	}
}

// localAddressOf is the way of an event, if Asterisk tells it. What comes from this machine itself no ban closes.
func localAddressOf(ev *event.Event) (localAddress, bool) {
	local := ev.Local
	if local.AddrPort.Port() == 0 || local.AddrPort.Addr().IsLoopback() || ev.Remote.AddrPort.Addr().IsLoopback() {
		return localAddress{}, false
	}
	t := cmp.Or(local.Transport, ev.Remote.Transport)
	return localAddress{local: local.AddrPort, udp: t == event.UDP}, t != event.NoTransport
}

// Run looks at arrivals, and keeps the kernel's ports as they should be.
func (p *asteriskPorts) Run(ctx context.Context) error {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case a := <-p.arrivals:
			began := time.Now()
			news := p.examineArrival(a)
			rest := (portsDutyFactor - 1) * time.Since(began)
			if news {
				p.saveFile()
				again = p.setInKernel()
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(rest):
			}
		case <-p.wake:
			again = p.setInKernel()
		case <-again:
			again = p.setInKernel()
		}
	}
}

// examineArrival finds out to which ports a packet came, and says whether that is news.
func (p *asteriskPorts) examineArrival(a arrival) (news bool) {
	local := port{a.local.Port(), a.udp}
	number, known, err := conntrack.Entrance(p.netns, a.udp, local.number, a.remote)
	if err != nil && !errors.Is(err, conntrack.ErrMissing) {
		p.log.Debug("whether a NAT changes Asterisk's ports cannot be seen", "err", err)
	}
	// A connection that Asterisk itself has made, to a provider, comes from a port at which nobody listens.
	// And whatever an event says, a ban does not close SSH: docs promise it, and who mends this machine relies on it.
	if !a.udp && (!known && isEphemeral(local.number) || local.number == sshPort || number == sshPort) {
		return false
	}
	news = p.addPort(local, foundPort{pbx: a.pbx})
	if number != local.number {
		news = p.addPort(port{number, a.udp}, foundPort{pbx: a.pbx, behind: local.number}) || news
	}
	return news
}

// isEphemeral says whether a port is one of those that the kernel gives to whoever connects (ip_local_port_range in
// ip(7)).
func isEphemeral(number uint16) bool {
	low, high := uint16(32768), uint16(60999)
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(text), &low, &high)
	}
	return number >= low && number <= high
}

// addPort notes a port, says so once where a ban leaves it open, and reports whether it is new.
func (p *asteriskPorts) addPort(at port, f foundPort) bool {
	f.since = p.now()
	p.mu.Lock()
	have, old := p.found[at]
	switch {
	case old:
		have.since = f.since
		p.found[at] = have
	case len(p.found) >= maxPorts:
		p.mu.Unlock()
		return false
	default:
		p.found[at] = f
	}
	open := !p.all && !slices.Contains(p.configuredLocked(at.udp), at.number)
	auto := p.cfg.Auto
	p.mu.Unlock()
	if old || !open {
		return !old
	}
	attrs := []any{"pbx", f.pbx, "port", at.String()}
	if f.behind != 0 {
		attrs = append(attrs, "published_for", f.behind)
	}
	if auto {
		p.log.Info("Asterisk listens at another port: it is closed to the banned, too", attrs...)
	} else {
		s := p.portsStatus()
		p.log.Error("Asterisk listens at a port that firewall.ports leaves open: bans stop nothing there",
			append(attrs, "try", s.ConfigLine(s.OpenPorts())+", or ports: auto")...)
	}
	return true
}

// configuredLocked are the ports of the file.
func (p *asteriskPorts) configuredLocked(udp bool) []uint16 {
	if udp {
		return p.cfg.UDP
	}
	return p.cfg.TCP
}

// portsToClose are the ports that should be closed to the banned.
func (p *asteriskPorts) portsToClose() (udp, tcp []uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.withFoundLocked(true, p.cfg.Auto), p.withFoundLocked(false, p.cfg.Auto)
}

// withFoundLocked are the ports of the file, with those that were found.
func (p *asteriskPorts) withFoundLocked(udp, more bool) []uint16 {
	list := slices.Clone(p.configuredLocked(udp))
	for _, at := range p.sortedLocked() {
		if more && at.udp == udp && !slices.Contains(list, at.number) {
			list = append(list, at.number)
		}
	}
	return list
}

// sortedLocked are the ports that were found.
func (p *asteriskPorts) sortedLocked() []port {
	return slices.SortedFunc(maps.Keys(p.found), func(a, b port) int {
		return cmp.Or(cmp.Compare(b.protocolName(), a.protocolName()), cmp.Compare(a.number, b.number))
	})
}

// setInKernel has the kernel close the wanted ports, and returns when to try again where it did not take them.
func (p *asteriskPorts) setInKernel() <-chan time.Time {
	err := p.setKernelPorts(p.portsToClose())
	p.mu.Lock()
	said := p.kernelErr != nil
	p.kernelErr = err
	p.mu.Unlock()
	if err == nil {
		return nil
	}
	if !said {
		p.log.Error("a port of Asterisk is not closed to the banned yet", hint.Attr(err), "retry_in", portsRetryAfter)
	}
	return time.After(portsRetryAfter)
}

// portsStatus is the ports at a glance.
func (p *asteriskPorts) portsStatus() api.PortsStatus {
	udp, tcp := p.portsToClose()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := api.PortsStatus{Auto: p.cfg.Auto, All: p.all, UDP: udp, TCP: tcp, Found: []api.FoundPort{}}
	if p.kernelErr != nil {
		s.Error = p.kernelErr.Error()
	}
	for _, at := range p.sortedLocked() {
		f := p.found[at]
		closed := p.all || slices.Contains(p.configuredLocked(at.udp), at.number) || p.cfg.Auto && p.kernelErr == nil
		s.Found = append(s.Found, api.FoundPort{
			Protocol: at.protocolName(), Port: at.number, PBX: f.pbx, Behind: f.behind, Open: !closed,
		})
	}
	return s
}

// portWarnings are what somebody should look at.
func portWarnings(s api.PortsStatus) []api.Warning {
	if s.Error != "" {
		return []api.Warning{{
			Text: "a port of Asterisk is not closed to the banned yet: " + s.Error,
			Try:  "ringwall status, in some seconds",
		}}
	}
	var names []string
	for _, f := range s.OpenPorts() {
		names = append(names, f.Name())
	}
	if len(names) == 0 {
		return nil
	}
	return []api.Warning{{
		Text: "bans stop nothing at " + strings.Join(names, ", ") +
			": Asterisk listens there, and firewall.ports leaves it open",
		Try: s.ConfigLine(s.OpenPorts()) + ", or ports: auto; then: systemctl reload ringwall",
	}}
}

// The file has a line for each port: protocol, number, what Asterisk calls it or 0, time, and name of the Asterisk.
const portLine = "%s %d %d %s %q\n"

// loadFile reads the file. What it does not understand, it passes over: the ports are learned again.
func (p *asteriskPorts) loadFile(pbxs []config.Asterisk) error {
	text, err := os.ReadFile(p.path)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan() && len(p.found) < maxPorts; {
		var protocol, at, name string
		var number, behind uint16
		if n, _ := fmt.Sscanf(lines.Text()+"\n", portLine, &protocol, &number, &behind, &at, &name); n < 5 {
			continue
		}
		since, err := time.Parse(time.RFC3339, at)
		if err != nil || p.now().Sub(since) > portsKeptFor || number == 0 || protocol != "udp" && protocol != "tcp" ||
			!slices.ContainsFunc(pbxs, func(a config.Asterisk) bool { return a.Name == name }) {
			continue
		}
		p.found[port{number, protocol == "udp"}] = foundPort{pbx: name, behind: behind, since: since}
	}
	return nil
}

// saveFile writes the file, whole or not at all.
func (p *asteriskPorts) saveFile() {
	if p.path == "" {
		return
	}
	var text bytes.Buffer
	p.mu.Lock()
	for _, at := range p.sortedLocked() {
		f := p.found[at]
		fmt.Fprintf(&text, portLine, at.protocolName(), at.number, f.behind, f.since.UTC().Format(time.RFC3339), f.pbx)
	}
	p.mu.Unlock()
	if err := store.WriteFile(p.path, text.Bytes(), false); err != nil {
		p.log.Warn("the ports that Asterisk was found at are not saved: after a restart they are found again", "err",
			err)
	}
}
