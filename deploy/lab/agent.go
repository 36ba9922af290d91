package lab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/websocket"
)

// ErrNoReply says that nothing came back in time: that is how a banned source sees the server.
var ErrNoReply = errors.New("no reply")

// AgentOptions say how a phone or an attacker reaches the server.
type AgentOptions struct {
	// Transport is udp (unless set), tcp, tls, ws or wss; the last two over IPv4 only.
	Transport string
	// IPv6 rather than IPv4.
	IPv6 bool
	// Local is the address to send from: the node's own unless set. Others come from [Lab.AddAddr].
	Local netip.Addr
	// Port to send from; 0 lets the kernel choose.
	Port uint16
	// To is the server's port; 0 is the usual one of the transport.
	To uint16
	// Timeout for each reply, ErrNoReply after it; 3 s unless set. Nothing is sent twice unless Retransmit is set,
	// since Asterisk would report a retransmission as another event.
	Timeout time.Duration
	// Retransmit has a request over UDP sent again until it is answered, as phones do (RFC 3261 section 17.1.2.2).
	Retransmit bool
	// Through is where a relay listens that passes what comes on to the server; the server itself unless set.
	Through netip.AddrPort
}

// Agent sends SIP from one address and port. Its connection opens with the first request and opens again after Close.
// One goroutine at a time may use it.
type Agent struct {
	lab     *Lab
	node    Node
	options AgentOptions
	server  netip.AddrPort

	conn   net.Conn
	reader *bufio.Reader
	local  netip.AddrPort
}

// Agent makes an agent on a node. It is closed with the test.
func (l *Lab) Agent(t testing.TB, node Node, o AgentOptions) *Agent {
	t.Helper()
	if o.Transport == "" {
		o.Transport = "udp"
	}
	if o.Timeout == 0 {
		o.Timeout = 3 * time.Second
	}
	if o.Local.IsValid() {
		o.IPv6 = o.Local.Is6()
	} else if o.Local = node.IPv4(); o.IPv6 {
		o.Local = node.IPv6()
	}
	a := &Agent{lab: l, node: node, options: o, server: l.SIPAddress(o.IPv6)}
	switch o.Transport {
	case "udp", "tcp":
	case "tls":
		a.server = netip.AddrPortFrom(a.server.Addr(), 5061)
	case "ws":
		a.server = netip.AddrPortFrom(a.server.Addr(), 8088)
	case "wss":
		a.server = netip.AddrPortFrom(a.server.Addr(), 8089)
	default:
		t.Fatalf("lab: transport %q: allowed are udp, tcp, tls, ws and wss", o.Transport)
	}
	if o.To != 0 {
		a.server = netip.AddrPortFrom(a.server.Addr(), o.To)
	}
	t.Cleanup(a.Close)
	return a
}

// Local returns the agent's address; its port is known after the first request.
func (a *Agent) Local() netip.AddrPort {
	if a.conn == nil {
		return netip.AddrPortFrom(a.options.Local, a.options.Port)
	}
	return a.local
}

// Server is where Asterisk listens for it.
func (a *Agent) Server() netip.AddrPort { return a.server }

// Transport is how the agent reaches the server: udp, tcp, tls, ws or wss.
func (a *Agent) Transport() string { return a.options.Transport }

// Close ends the connection.
func (a *Agent) Close() {
	if a.conn != nil {
		_ = a.conn.Close()
		a.conn = nil
	}
}

func (a *Agent) connect() error {
	if a.conn != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), a.options.Timeout)
	defer cancel()
	network := "udp"
	var local net.Addr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.options.Local, a.options.Port))
	if a.options.Transport != "udp" {
		network = "tcp"
		local = net.TCPAddrFromAddrPort(netip.AddrPortFrom(a.options.Local, a.options.Port))
	}
	to := a.server
	if a.options.Through.IsValid() {
		to = a.options.Through
	}
	conn, err := a.lab.net.nodes[a.node].Dial(ctx, net.Dialer{LocalAddr: local}, network, to.String())
	if err != nil {
		return noReply(fmt.Errorf("lab: dial: %w", err))
	}
	if a.local, err = netip.ParseAddrPort(conn.LocalAddr().String()); err != nil {
		_ = conn.Close()
		return err
	}
	if a.options.Transport == "tls" || a.options.Transport == "wss" {
		c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // the lab's own certificate
		if err := c.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return noReply(fmt.Errorf("lab: TLS: %w", err))
		}
		conn = c
	}
	if a.options.Transport == "ws" || a.options.Transport == "wss" {
		if conn, err = upgradeToWebSocket(conn, a.options.Transport, a.server,
			time.Now().Add(a.options.Timeout)); err != nil {
			return noReply(fmt.Errorf("lab: WebSocket: %w", err))
		}
	}
	a.conn, a.reader = conn, bufio.NewReader(conn)
	return nil
}

// upgradeToWebSocket makes a connection one of SIP over WebSocket (RFC 7118).
func upgradeToWebSocket(conn net.Conn, scheme string, server netip.AddrPort, deadline time.Time) (net.Conn, error) {
	config, err := websocket.NewConfig(scheme+"://"+server.String()+"/ws", "http://lab")
	if err == nil {
		config.Protocol = []string{"sip"}
		if err = conn.SetDeadline(deadline); err == nil {
			var c *websocket.Conn
			if c, err = websocket.NewClient(config, conn); err == nil {
				return c, c.SetDeadline(time.Time{})
			}
		}
	}
	_ = conn.Close()
	return nil, err
}

func noReply(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err) {
		return errors.Join(ErrNoReply, err)
	}
	return err
}

// Send puts bytes on the wire as they are.
func (a *Agent) Send(b []byte) error {
	if err := a.connect(); err != nil {
		return err
	}
	_, err := a.conn.Write(b)
	return err
}

// SendAll puts packets on the wire as fast as the kernel takes them (sendmmsg(2)), over UDP.
func (a *Agent) SendAll(packets [][]byte) error {
	if a.options.Transport != "udp" {
		return fmt.Errorf("lab: send all: transport %s: only udp has packets", a.options.Transport)
	}
	if err := a.connect(); err != nil {
		return err
	}
	messages := make([]ipv4.Message, len(packets)) // IPv6 has the same
	for i, b := range packets {
		messages[i].Buffers = [][]byte{b}
	}
	for c := ipv4.NewPacketConn(a.conn.(net.PacketConn)); len(messages) > 0; {
		n, err := c.WriteBatch(messages, 0)
		if err != nil {
			return fmt.Errorf("lab: send all: %w", err)
		}
		messages = messages[n:]
	}
	return nil
}

// Receive returns the next message from the server, or ErrNoReply after the agent's timeout.
func (a *Agent) Receive() ([]byte, error) {
	return a.receiveUntil(time.Now().Add(a.options.Timeout))
}

func (a *Agent) receiveUntil(deadline time.Time) ([]byte, error) {
	if err := a.connect(); err != nil {
		return nil, err
	}
	if err := a.conn.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	if a.options.Transport == "udp" {
		b := make([]byte, 65536)
		n, err := a.conn.Read(b)
		return b[:n], noReply(err)
	}
	var msg bytes.Buffer
	length := 0
	for {
		line, err := a.reader.ReadString('\n')
		if err != nil {
			return nil, noReply(err)
		}
		if msg.Len() == 0 && line == "\r\n" { // keep-alive
			continue
		}
		msg.WriteString(line)
		if k, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(strings.TrimSpace(k), "Content-Length") {
			if length, err = strconv.Atoi(strings.TrimSpace(v)); err != nil {
				return nil, err
			}
		}
		if line == "\r\n" {
			break
		}
	}
	if _, err := io.CopyN(&msg, a.reader, int64(length)); err != nil {
		return nil, noReply(err)
	}
	return msg.Bytes(), nil
}

// Exchange sends a request and returns its final response (200 and above).
func (a *Agent) Exchange(r Request) (*Response, error) {
	if err := a.connect(); err != nil {
		return nil, err
	}
	r.fillDefaults()
	message := r.Bytes(a.options.Transport, a.local, a.server)
	if err := a.Send(message); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(a.options.Timeout)
	again, wait := deadline, timer1
	if a.options.Retransmit && a.options.Transport == "udp" {
		again = time.Now().Add(wait)
	}
	for {
		b, err := a.receiveUntil(earlier(again, deadline))
		if errors.Is(err, ErrNoReply) && time.Now().Before(deadline) {
			if err := a.Send(message); err != nil {
				return nil, err
			}
			wait = min(2*wait, timer2)
			again = time.Now().Add(wait)
			continue
		}
		if err != nil {
			return nil, err
		}
		// The branch tells the answer from late ones: Asterisk sends Via back untouched.
		if resp := parseResponse(b); resp != nil && resp.Code >= 200 && strings.Contains(resp.Get("Via"), r.Branch) {
			return resp, nil
		}
	}
}

// T1 and T2 of RFC 3261 section 17.1.1.1.
const timer1, timer2 = 500 * time.Millisecond, 4 * time.Second

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// exchangeWithLogin sends a request, answers its challenge and returns the last response.
func (a *Agent) exchangeWithLogin(r Request, user, password string) (*Response, Request, error) {
	r.fillDefaults()
	first, err := a.Exchange(r)
	if err != nil {
		return nil, r, err
	}
	challenge := first.Challenge()
	if first.Code != 401 || challenge == nil {
		return first, r, nil
	}
	if r.Method == "INVITE" {
		if err := a.sendACK(r, first); err != nil {
			return nil, r, err
		}
	}
	r.CSeq++
	r.Branch = "z9hG4bK" + randomToken()
	r.Credentials = challenge.Answer(user, password, r.Method, r.URI(a.server))
	last, err := a.Exchange(r)
	return last, r, err
}

// sendACK confirms the answer to an INVITE: in its own transaction for a failure, in a new one for a success.
func (a *Agent) sendACK(r Request, resp *Response) error {
	r.Method, r.ToTag, r.Credentials, r.Body = "ACK", resp.toTag(), "", ""
	if resp.Code < 300 {
		r.Branch = "z9hG4bK" + randomToken()
	}
	return a.Send(r.Bytes(a.options.Transport, a.local, a.server))
}

func codeOf(r *Response, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	return r.Code, nil
}

// Register registers as a phone does, with a challenge and an answer, for an hour. 200 is success; 401 a wrong
// password or, since Asterisk does not tell, an unknown account. In a fresh lab it makes the events ChallengeSent and
// SuccessfulAuth, or ChallengeResponseFailed.
func (a *Agent) Register(user, password string) (int, error) {
	r, _, err := a.exchangeWithLogin(Request{User: user}, user, password)
	return codeOf(r, err)
}

// Unregister takes the agent's registration back.
func (a *Agent) Unregister(user, password string) (int, error) {
	r, _, err := a.exchangeWithLogin(Request{User: user, Expires: -1}, user, password)
	return codeOf(r, err)
}

// Probe sends a REGISTER without credentials. An unknown account makes InvalidAccountID, a known one ChallengeSent.
func (a *Agent) Probe(user string) (int, error) {
	return codeOf(a.Exchange(Request{User: user}))
}

// Options sends an OPTIONS without credentials, as a keepalive and a scanner do.
func (a *Agent) Options(user string) (int, error) {
	return codeOf(a.Exchange(Request{Method: "OPTIONS", User: user}))
}

// Invite calls an extension (100 answers), and hangs up if it is answered. It returns the answer to the INVITE.
func (a *Agent) Invite(user, password, extension string) (int, error) {
	if err := a.connect(); err != nil {
		return 0, err
	}
	family := "IP4"
	if a.options.IPv6 {
		family = "IP6"
	}
	ip := a.local.Addr()
	body := fmt.Sprintf("v=0\r\no=- 1 1 IN %s %s\r\ns=-\r\nc=IN %s %s\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"+
		"a=rtpmap:0 PCMU/8000\r\n", family, ip, family, ip)
	r := Request{Method: "INVITE", User: user, To: extension, Body: body,
		Header: []string{"Content-Type: application/sdp"}}
	resp, r, err := a.exchangeWithLogin(r, user, password)
	if err != nil {
		return 0, err
	}
	if err := a.sendACK(r, resp); err != nil {
		return 0, err
	}
	if resp.Code < 300 {
		r.Method, r.ToTag, r.Credentials, r.Body, r.Header, r.Branch = "BYE", resp.toTag(), "", "", nil, ""
		r.CSeq++
		if _, err := a.Exchange(r); err != nil {
			return resp.Code, fmt.Errorf("lab: hang up: %w", err)
		}
	}
	return resp.Code, nil
}

// Guess tries passwords on one challenge and under one Call-ID, as svcrack does. It stops at the first that gets no
// reply, and returns the codes so far.
func (a *Agent) Guess(user string, passwords ...string) ([]int, error) {
	r := Request{User: user}
	r.fillDefaults()
	resp, err := a.Exchange(r)
	if err != nil {
		return nil, err
	}
	challenge := resp.Challenge()
	if challenge == nil {
		return nil, fmt.Errorf("lab: guess: %d without a challenge", resp.Code)
	}
	var codes []int
	for _, p := range passwords {
		r.CSeq++
		r.Branch = "z9hG4bK" + randomToken()
		r.Credentials = challenge.Answer(user, p, r.Method, r.URI(a.server))
		if resp, err = a.Exchange(r); err != nil {
			return codes, err
		}
		codes = append(codes, resp.Code)
	}
	return codes, nil
}

// GuessAnew tries passwords each with a challenge and a Call-ID of its own, as a misconfigured phone does.
func (a *Agent) GuessAnew(user string, passwords ...string) ([]int, error) {
	var codes []int
	for _, p := range passwords {
		c, err := a.Register(user, p)
		if err != nil {
			return codes, err
		}
		codes = append(codes, c)
	}
	return codes, nil
}

// ExchangeMany sends n requests, window of them at a time without waiting, and counts the responses by their code;
// under 0 are those that got none.
func (a *Agent) ExchangeMany(n, window int, request func(i int) Request) (map[int]int, error) {
	codes := map[int]int{}
	for sent := 0; sent < n; {
		open := map[string]bool{}
		if err := a.connect(); err != nil {
			return codes, err
		}
		for ; sent < n && len(open) < window; sent++ {
			r := request(sent)
			r.fillDefaults()
			open[r.Branch] = true
			if err := a.Send(r.Bytes(a.options.Transport, a.local, a.server)); err != nil {
				return codes, err
			}
		}
		deadline := time.Now().Add(a.options.Timeout)
		for len(open) > 0 {
			b, err := a.receiveUntil(deadline)
			if errors.Is(err, ErrNoReply) {
				codes[0] += len(open)
				break
			}
			if err != nil {
				return codes, err
			}
			resp := parseResponse(b)
			if resp == nil || resp.Code < 200 {
				continue
			}
			_, branch, _ := strings.Cut(resp.Get("Via"), ";branch=")
			branch, _, _ = strings.Cut(branch, ";")
			if open[branch] {
				delete(open, branch)
				codes[resp.Code]++
			}
		}
	}
	return codes, nil
}
