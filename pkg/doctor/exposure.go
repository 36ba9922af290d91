package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/printable"
)

const (
	probeTime = 2 * time.Second // for one connection, to addresses that answer at once or not at all
	maxProbed = 16              // own addresses
)

// examineManagerExposure looks who can reach AMI: at which addresses it listens, whether over HTTP too, and how soon
// it hangs up on a slow reader.
func (e *exam) examineManagerExposure(ctx context.Context, s subject, a config.Asterisk) {
	host, port, err := net.SplitHostPort(a.Address)
	if err != nil {
		return
	}
	addr, local := e.resolveManager(ctx, host)
	if !addr.IsValid() {
		s.skipAll("the address is not known", checkBindAddress, checkHTTP)
		e.examineWriteTimeout(s, a, false)
		return
	}
	outside := e.reachableAddresses()
	if local {
		e.examineBindAddress(ctx, s, a, outside, port)
	} else {
		s.skip(checkBindAddress, "in manager.conf: deny = 0.0.0.0/0.0.0.0 and permit = this machine's address",
			"Asterisk is on another machine: whether strangers reach its AMI cannot be seen from here")
		outside = nil
	}
	e.examineHTTPManager(ctx, s, addr, outside)
	e.examineWriteTimeout(s, a, local)
}

// resolveManager resolves the host of an AMI, and says whether it is this machine.
func (e *exam) resolveManager(ctx context.Context, host string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		list, err := e.resolveHost(ctx, host)
		if err != nil || len(list) == 0 {
			return netip.Addr{}, false
		}
		addr = list[0]
	}
	addr = addr.Unmap()
	if addr.IsLoopback() {
		return addr, true
	}
	bare := addr.WithZone("")
	return addr, e.ownPrefixes[netip.PrefixFrom(bare, bare.BitLen())] == "own address"
}

// reachableAddresses lists this machine's addresses that others can reach.
func (e *exam) reachableAddresses() []netip.Addr {
	var list []netip.Addr
	for p, what := range e.ownPrefixes {
		if a := p.Addr(); p.IsSingleIP() && what == "own address" && !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list[:min(len(list), maxProbed)]
}

// examineBindAddress tries AMI at the addresses that others can reach. A connection that ends before a login is no
// security event.
func (e *exam) examineBindAddress(ctx context.Context, s subject, a config.Asterisk, outside []netip.Addr,
	port string) {
	var open, full []string
	for _, addr := range outside {
		switch probeManager(ctx, net.JoinHostPort(addr.String(), port), a.TLS.Enabled) {
		case answers:
			open = append(open, addr.String())
		case hangsUp:
			full = append(full, addr.String())
		}
	}
	setting, own := "bindaddr", "127.0.0.1"
	if a.TLS.Enabled {
		setting, own = "tlsbindaddr", net.JoinHostPort("127.0.0.1", port)
	}
	fix := "put in manager.conf:\n[general]\n" + setting + " = " + own +
		"\nand then run: asterisk -rx \"manager reload\"\n" +
		"If another machine needs it, in each user's section: deny = 0.0.0.0/0.0.0.0 and permit = that machine's " +
		"address, and let a firewall shut out the others"
	switch {
	case len(open) > 0:
		s.warn(checkBindAddress, fix, "AMI listens on %s too: unless another firewall is before it, strangers can "+
			"try passwords, and 50 idle connections "+
			"(authlimit) keep everybody out, after a restart Ringwall too", strings.Join(open, ", "))
	case len(full) > 0:
		s.warn(checkBindAddress, fix, "AMI listens on %s too, and hangs up before it greets, as it does while 50 "+
			"idle connections (authlimit) wait for a login: "+
			"whoever holds them keeps everybody out", strings.Join(full, ", "))
	default:
		s.ok(checkBindAddress, "AMI is not reachable from other machines")
	}
}

// managerReply is what an attempt to connect to AMI led to.
type managerReply int

const (
	silence managerReply = iota // nobody listens, or something else
	answers
	hangsUp // it ends the connection before a word (accept_thread in main/manager.c, where authlimit is reached)
)

// probeManager finds out whether an AMI answers there. With TLS nothing is said before the handshake, so the port has
// to do.
func probeManager(ctx context.Context, address string, secure bool) managerReply {
	d := net.Dialer{Timeout: probeTime}
	c, err := d.DialContext(ctx, "tcp", address)
	if errors.Is(err, syscall.ECONNRESET) { // thrown out before connect(2) returned
		return hangsUp
	}
	if err != nil {
		return silence
	}
	defer func() { _ = c.Close() }()
	if secure {
		return answers
	}
	const banner = "Asterisk Call Manager"
	_ = c.SetReadDeadline(time.Now().Add(probeTime))
	got := make([]byte, len(banner))
	switch n, err := io.ReadFull(c, got); {
	case n == 0 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
		return hangsUp
	case err == nil && string(got) == banner:
		return answers
	}
	return silence
}

// examineHTTPManager looks for AMI over HTTP, where a stranger who cannot log in can still put a whole event of his
// own making into the stream. The question is Logoff: Asterisk answers it to strangers, and no other action without a
// security event.
func (e *exam) examineHTTPManager(ctx context.Context, s subject, addr netip.Addr, outside []netip.Addr) {
	client := probeClient()
	var open []string
	seen := map[netip.Addr]bool{}
	exposed := false
	for i, at := range append([]netip.Addr{addr}, outside...) {
		if seen[at] {
			continue
		}
		seen[at] = true
		for _, base := range []string{"http://" + net.JoinHostPort(at.String(), "8088"),
			"https://" + net.JoinHostPort(at.String(), "8089")} {
			if answersRawman(ctx, client, base) {
				open = append(open, base)
				exposed = exposed || i > 0 || !at.IsLoopback()
			}
		}
	}
	const fix = "put in manager.conf:\n[general]\nwebenabled = no\nand then run: asterisk -rx \"manager reload\"\nIf " +
		"something needs it, in http.conf: bindaddr = 127.0.0.1"
	switch {
	case len(open) == 0:
		s.ok(checkHTTP, "HTTP AMI does not answer on ports 8088 and 8089")
	case exposed:
		s.warn(checkHTTP, fix, "HTTP AMI answers at %s: a stranger can inject complete events, have others banned "+
			"and earn trust", strings.Join(open, ", "))
	default:
		s.warn(checkHTTP, fix, "HTTP AMI answers at %s, on this machine only: whoever runs programs here can inject "+
			"complete events", strings.Join(open, ", "))
	}
}

func probeClient() *http.Client {
	return &http.Client{
		Timeout: probeTime,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // nothing secret is said, and nothing believed
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answersRawman asks under the default prefix of http.conf (none) and under that of its sample.
func answersRawman(ctx context.Context, client *http.Client, base string) bool {
	for _, prefix := range []string{"", "/asterisk"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+prefix+"/rawman?action=Logoff", nil)
		if err != nil {
			return false
		}
		resp, err := client.Do(req)
		if err != nil {
			return false // nobody there, or nobody who speaks HTTP
		}
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // a part will do
		_ = resp.Body.Close()
		if strings.Contains(string(body), "Response: ") {
			return true
		}
	}
	return false
}

// examineWriteTimeout reads manager.conf for writetimeout. AMI cannot be asked: it is for users with read = config,
// and Ringwall's should not have that.
func (e *exam) examineWriteTimeout(s subject, a config.Asterisk, local bool) {
	fix := fmt.Sprintf("put in manager.conf:\n[%s]\nwritetimeout = 5000\nand then run: asterisk -rx \"manager reload\"",
		printable.String(a.Username))
	const why = "with the default of 100 ms Asterisk cuts Ringwall off when the machine is busy, and what happens " +
		"then is lost"
	if !local {
		s.skip(checkWriteTimeout, fix, "cannot be seen from here; %s", why)
		return
	}
	value, file, err := managerSetting(e.managerConf, a.Username, "writetimeout")
	switch ms := milliseconds(value); {
	case err != nil:
		s.skip(checkWriteTimeout, fix, "cannot be seen (%s); %s", errorLine(err), why)
	case value == "":
		s.warn(checkWriteTimeout, fix, "not set in %s; %s", printable.Line(file), why)
	case ms < 1000:
		s.warn(checkWriteTimeout, fix, "%s in %s; %s", printable.String(value), printable.Line(file), why)
	default:
		s.ok(checkWriteTimeout, "%d ms", ms)
	}
}
