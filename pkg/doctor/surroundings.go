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

// surroundings looks at what else Asterisk's manager listens on.
func (e *exam) surroundings(ctx context.Context, s subject, a config.Asterisk) {
	host, port, err := net.SplitHostPort(a.Address)
	if err != nil {
		return
	}
	addr, local := e.whereIs(ctx, host)
	if !addr.IsValid() {
		s.skipAll("the address is not known", bound, web)
		e.writeTimeout(s, a, false)
		return
	}
	outside := e.outside()
	if local {
		e.boundTo(ctx, s, a, outside, port)
	} else {
		s.skip(bound, "in manager.conf: deny = 0.0.0.0/0.0.0.0 and permit = this machine's address",
			"Asterisk is on another machine: whether strangers reach its AMI cannot be seen from here")
		outside = nil
	}
	e.overHTTP(ctx, s, addr, outside)
	e.writeTimeout(s, a, local)
}

// whereIs resolves the host of an AMI, and says whether it is this machine.
func (e *exam) whereIs(ctx context.Context, host string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		list, err := e.addresses(ctx, host)
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
	return addr, e.own[netip.PrefixFrom(bare, bare.BitLen())] == "own address"
}

// outside lists this machine's addresses that others can reach.
func (e *exam) outside() []netip.Addr {
	var list []netip.Addr
	for p, what := range e.own {
		if a := p.Addr(); p.IsSingleIP() && what == "own address" && !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list[:min(len(list), maxProbed)]
}

// boundTo tries AMI at the addresses that others can reach. A connection that ends before a login is no security event.
func (e *exam) boundTo(ctx context.Context, s subject, a config.Asterisk, outside []netip.Addr, port string) {
	var open, full []string
	for _, addr := range outside {
		switch manager(ctx, net.JoinHostPort(addr.String(), port), a.TLS.Enabled) {
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
		"If another machine needs it, in each user's section: deny = 0.0.0.0/0.0.0.0 and permit = that machine's address, and let a firewall shut out the others"
	switch {
	case len(open) > 0:
		s.warn(bound, fix, "AMI listens on %s too: unless another firewall is before it, strangers can try passwords, and 50 idle connections "+
			"(authlimit) keep everybody out, after a restart Ringwall too", strings.Join(open, ", "))
	case len(full) > 0:
		s.warn(bound, fix, "AMI listens on %s too, and hangs up before it greets, as it does while 50 idle connections (authlimit) wait for a login: "+
			"whoever holds them keeps everybody out", strings.Join(full, ", "))
	default:
		s.ok(bound, "AMI is not reachable from other machines")
	}
}

// reply is what comes of a connection to where an AMI may be.
type reply int

const (
	silence reply = iota // nobody listens, or something else
	answers
	hangsUp // it ends the connection before a word (accept_thread in main/manager.c, where authlimit is reached)
)

// manager finds out whether an AMI answers there. With TLS nothing is said before the handshake, so the port has to do.
func manager(ctx context.Context, address string, secure bool) reply {
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

// overHTTP looks for AMI over HTTP, where a stranger who cannot log in can still put a whole event of his own making
// into the stream. The question is Logoff: Asterisk answers it to strangers, and no other action without a security
// event.
func (e *exam) overHTTP(ctx context.Context, s subject, addr netip.Addr, outside []netip.Addr) {
	client := prober()
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
	const fix = "put in manager.conf:\n[general]\nwebenabled = no\nand then run: asterisk -rx \"manager reload\"\nIf something needs it, in http.conf: bindaddr = 127.0.0.1"
	switch {
	case len(open) == 0:
		s.ok(web, "HTTP AMI does not answer on ports 8088 and 8089")
	case exposed:
		s.warn(web, fix, "HTTP AMI answers at %s: a stranger can inject complete events, have others banned and earn trust", strings.Join(open, ", "))
	default:
		s.warn(web, fix, "HTTP AMI answers at %s, on this machine only: whoever runs programs here can inject complete events", strings.Join(open, ", "))
	}
}

func prober() *http.Client {
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

// writeTimeout cannot be asked: it is for users with read = config, and Ringwall's should not have that.
func (e *exam) writeTimeout(s subject, a config.Asterisk, local bool) {
	fix := fmt.Sprintf("put in manager.conf:\n[%s]\nwritetimeout = 5000\nand then run: asterisk -rx \"manager reload\"",
		printable.String(a.Username))
	const why = "with the default of 100 ms Asterisk cuts Ringwall off when the machine is busy, and what happens then is lost"
	if !local {
		s.skip(writing, fix, "cannot be seen from here; %s", why)
		return
	}
	value, file, err := managerSetting(e.manager, a.Username, "writetimeout")
	switch ms := milliseconds(value); {
	case err != nil:
		s.skip(writing, fix, "cannot be seen (%s); %s", text(err), why)
	case value == "":
		s.warn(writing, fix, "not set in %s; %s", printable.Line(file), why)
	case ms < 1000:
		s.warn(writing, fix, "%s in %s; %s", printable.String(value), printable.Line(file), why)
	default:
		s.ok(writing, "%d ms", ms)
	}
}
