package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ringwall/ringwall/pkg/asterisk/ami/amiserver"
)

// pbx answers REGISTER over UDP, and tells its AMI what Asterisk 22 would: it knows of an attack only from packets that
// reached it.
type pbx struct {
	network  *testNetwork
	manager  *amiserver.Server
	accounts map[string]string // passwords
	arrived  func(src netip.Addr, seq uint32)
}

const managerUser = "ringwall"

// newPBX makes a PBX whose AMI the daemon enters with secret. arrived is called for each packet, from several
// goroutines.
func newPBX(s *testNetwork, secret string, accounts map[string]string, arrived func(netip.Addr, uint32)) *pbx {
	return &pbx{
		network: s, accounts: accounts, arrived: arrived,
		manager: amiserver.New(amiserver.Config{
			Users:     []amiserver.User{{Name: managerUser, Secret: secret, Read: amiserver.ClassSecurity}},
			AuthDelay: 50 * time.Millisecond, // a second in Asterisk, so that guessing is slow
		}),
	}
}

// serve answers until ctx ends. local is where the daemon finds the AMI.
func (p *pbx) serve(ctx context.Context, local net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.manager.Serve(ctx, local) })
	group.Go(func() error { return p.manager.Serve(ctx, p.network.ami) })
	for _, conn := range []*net.UDPConn{p.network.sip4, p.network.sip6} {
		if conn == nil {
			continue
		}
		group.Go(func() error { return p.answerRequests(ctx, conn) })
	}
	return group.Wait()
}

func (p *pbx) answerRequests(ctx context.Context, conn *net.UDPConn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, maxPacket)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("demo: the PBX's SIP port: %w", err)
		case err != nil: // an ICMP error of an earlier reply
			continue
		}
		src, known := p.network.sourceOf(from.Addr())
		r, ok := parseRequest(buf[:n])
		if !known || !ok {
			continue
		}
		p.arrived(src, r.seq)
		reply := p.answerRegister(r, netip.AddrPortFrom(src, from.Port()))
		_, _ = conn.WriteToUDPAddrPort(reply, from) // UDP: who misses it asks again
	}
}

// answerRegister judges a request and emits the events that res_pjsip and res_pjsip_authenticator_digest emit for it.
func (p *pbx) answerRegister(r request, from netip.AddrPort) (reply []byte) {
	const unknown = "<unknown>"
	account := r.reportedAccount()
	password, known := p.accounts[account]
	endpoint := account
	if !known {
		endpoint = unknown
		p.emitEvent("InvalidAccountID", "Error", account, r, from)
	}
	switch {
	case r.auth == nil:
		p.emitEvent("ChallengeSent", "Informational", endpoint, r, from, "Challenge", "")
	case known && r.auth.response == digestResponse(account, password, r.auth.nonce):
		p.emitEvent("SuccessfulAuth", "Informational", endpoint, r, from, "UsingPassword", "1")
		return r.replyPacket("")
	default:
		p.emitEvent("ChallengeResponseFailed", "Error", endpoint, r, from,
			"Challenge", r.auth.nonce, "Response", r.auth.response, "ExpectedResponse", "")
	}
	return r.replyPacket(newNonce())
}

func newNonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%d/%s", time.Now().Unix(), hex.EncodeToString(b[:]))
}

func (p *pbx) emitEvent(event, severity, account string, r request, from netip.AddrPort, own ...string) {
	p.manager.Broadcast(eventFrame(time.Now(), event, severity, account, r.callID, from, own...))
}

// eventFrame is an event as main/security_events.c and main/manager.c write it: nothing in the values is escaped.
func eventFrame(now time.Time, event, severity, account, session string, from netip.AddrPort, own ...string) []byte {
	var b bytes.Buffer
	line := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	line("Event", event)
	line("Privilege", "security,all")
	line("EventTV", now.UTC().Format("2006-01-02T15:04:05.000-0700"))
	line("Severity", severity)
	line("Service", "PJSIP")
	line("EventVersion", "1")
	line("AccountID", account)
	line("SessionID", session)
	line("LocalAddress", eventAddress(netip.AddrPortFrom(pbxAddr(from.Addr().Is6()), sipPort)))
	line("RemoteAddress", eventAddress(from))
	for i := 0; i+1 < len(own); i += 2 {
		line(own[i], own[i+1])
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// eventAddress is an address as security events have it.
func eventAddress(a netip.AddrPort) string {
	family := "IPV4"
	if a.Addr().Is6() {
		family = "IPV6"
	}
	return fmt.Sprintf("%s/UDP/%s/%d", family, a.Addr(), a.Port())
}
