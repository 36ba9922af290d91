package amiserver

import (
	"bufio"
	"context"
	"crypto/md5"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ringwall/ringwall/pkg/mailbox"
)

const (
	maxLine    = 1024 // main/manager.c, inbuf
	maxHeaders = 128  // AST_MAX_MANHEADERS
)

// A session is one connection.
type session struct {
	server        *Server
	socket        net.Conn
	stream        net.Conn // the socket, or TLS over it
	outbox        *outbox
	remote, local netip.AddrPort
	id            uint64    // of which SessionID is made
	challenge     string    // what the answer to Challenge named; "" before it
	started       time.Time // login; zero before
	read, write   Class     // of the user

	// Under Server.mu.
	username string // as the login gave it; "" before
	loggedIn bool
	events   Class // what it gets: read, and the mask
}

// serveConnection runs one connection to its end.
func (s *Server) serveConnection(ctx context.Context, nc net.Conn, local net.Addr) {
	defer nc.Close()
	ses := &session{
		server: s, socket: nc, stream: nc, outbox: newOutbox(s.cfg.QueueBytes),
		remote: addrPort(nc.RemoteAddr()), local: addrPort(local),
	}
	s.mu.Lock()
	if s.notLoggedIn >= s.cfg.AuthLimit {
		s.mu.Unlock()
		return // without a word, as main/manager.c, session_do()
	}
	s.notLoggedIn++
	s.lastSessionID++
	ses.id = s.lastSessionID
	s.sessions[ses] = struct{}{}
	s.mu.Unlock()

	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	defer stop()
	_ = nc.SetDeadline(time.Now().Add(s.cfg.AuthTimeout))
	if s.cfg.TLS != nil {
		secure := tls.Server(nc, s.cfg.TLS)
		if err := secure.HandshakeContext(ctx); err != nil {
			s.cfg.Log.Debug("TLS handshake", "remote", ses.remote, "error", err)
			s.removeSession(ses)
			return
		}
		ses.stream = secure
	}
	_ = ses.stream.SetWriteDeadline(time.Time{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := ses.outbox.writeTo(ses.stream, s.cfg.WriteTimeout); err != nil {
			s.cfg.Log.Debug("session cut off", "remote", ses.remote, "error", err)
			_ = nc.Close()
		}
	}()
	ses.sendText("Asterisk Call Manager/" + s.cfg.Version + "\r\n")
	err := ses.readActions(ctx)
	s.cfg.Log.Debug("session ended", "remote", ses.remote, "error", err)
	s.removeSession(ses)
	ses.outbox.texts.Close() // what is queued still goes out, in WriteTimeout
	<-done
	_ = ses.stream.Close() // with TLS's good-bye
}

func (s *Server) removeSession(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ses.loggedIn {
		s.notLoggedIn--
	}
	delete(s.sessions, ses)
	s.notifyLocked()
}

var errLogoff = errors.New("logged off")

// readActions reads one action after the other (do_message()).
func (ses *session) readActions(ctx context.Context) error {
	r := bufio.NewReaderSize(ses.stream, maxLine)
	var headers []string
	var tooLong, tooMany, inLongLine bool
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			tooLong, inLongLine = true, true
			continue
		}
		if err != nil {
			return err
		}
		if inLongLine { // its end
			inLongLine = false
			continue
		}
		text := strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r")
		switch {
		case text != "" && len(headers) < maxHeaders:
			headers = append(headers, text)
			continue
		case text != "":
			tooMany = true
			continue
		case tooMany:
			ses.sendError(Request{}, "Too many lines in message or allocation failure")
		case tooLong:
			ses.sendError(Request{}, "Failed to parse message: line too long")
		default:
			r := Request{Action: headerValue(headers, "Action"), User: ses.username, Headers: headers}
			if err := ses.runAction(ctx, r); err != nil {
				return err
			}
		}
		headers, tooLong, tooMany = nil, false, false
	}
}

// runAction runs one action (process_message()). Events about an action come after its reply, as nothing else is
// written while Asterisk runs one.
func (ses *session) runAction(ctx context.Context, r Request) error {
	if r.Action == "" {
		ses.refuseAndReport(r, "Missing action in request", "RequestBadFormat", "Action: NONE")
		return nil
	}
	action := strings.ToLower(r.Action)
	if !ses.loggedIn {
		switch action {
		case "login", "challenge":
			name := r.Get("Username")
			if u, ok := ses.server.userNamed(name); ok && u.Single && ses.server.isLoggedIn(name) {
				ses.reportEvent("SessionLimit")
				ses.delayRefusal(ctx)
				ses.sendError(r, "Login Already In Use")
				return errLogoff
			}
		case "logoff":
		default:
			ses.refuseAndReport(r, "Permission denied", "RequestNotAllowed", "Action: "+r.Action)
			return nil
		}
	}
	switch action {
	case "login":
		return ses.runLogin(ctx, r)
	case "challenge":
		if !strings.EqualFold(r.Get("AuthType"), "MD5") {
			ses.sendError(r, "Must specify AuthType")
			return nil
		}
		if ses.challenge == "" {
			n, err := rand.Int(rand.Reader, big.NewInt(1<<31-1))
			if err != nil {
				return err
			}
			ses.challenge = n.String()
		}
		ses.sendText(r.Reply("Success") + "Challenge: " + ses.challenge + "\r\n\r\n")
	case "events":
		m, ok := parseEventMask(r.Get("EventMask"))
		if !ok {
			ses.sendError(r, "Invalid event mask")
			return nil
		}
		ses.server.mu.Lock()
		ses.events = ses.read & m
		ses.server.notifyLocked()
		ses.server.mu.Unlock()
		// "On" says nothing about privileges, here as in Asterisk.
		ses.sendText(r.Reply("Success") + "Events: " + map[bool]string{true: "On", false: "Off"}[m != 0] + "\r\n\r\n")
	case "ping":
		now := time.Now()
		pong := fmt.Sprintf("Ping: Pong\r\nTimestamp: %d.%06d\r\n\r\n", now.Unix(), now.Nanosecond()/1000)
		ses.sendText(r.Reply("Success") + pong)
	case "logoff":
		ses.sendText(r.Reply("Goodbye") + "Message: Thanks for all the fish.\r\n\r\n")
		return errLogoff
	default:
		ses.runConfiguredAction(r)
	}
	return nil
}

// runConfiguredAction runs the configured actions and refuses the rest.
func (ses *session) runConfiguredAction(r Request) {
	for name, a := range ses.server.cfg.Actions {
		if strings.EqualFold(name, r.Action) {
			if a.Privilege != ClassNone && ses.write&a.Privilege == 0 {
				ses.refuseAndReport(r, "Permission denied", "RequestNotAllowed", "Action: "+r.Action)
				return
			}
			ses.sendText(a.Reply(r))
			return
		}
	}
	if need, known := requiredClass(r.Action); known && ses.write&need == 0 {
		ses.refuseAndReport(r, "Permission denied", "RequestNotAllowed", "Action: "+r.Action)
		return
	}
	ses.refuseAndReport(r, "Invalid/unknown command: "+r.Action+". Use Action: ListCommands to show available "+
		"commands.",
		"RequestBadFormat", "Action: "+r.Action)
}

// runLogin is action_login().
func (ses *session) runLogin(ctx context.Context, r Request) error {
	if ses.loggedIn {
		ses.sendText(r.Reply("Success") + "Message: Already authenticated\r\n\r\n")
		return nil
	}
	name := r.Get("Username")
	user, known := ses.server.userNamed(name)
	ok := false
	switch {
	case name == "":
	case !known:
		ses.reportEventOf("InvalidAccountID", name)
	case user.Allow != nil && !isAllowed(user.Allow, ses.remote.Addr()):
		ses.reportEventOf("FailedACL", name)
	case strings.EqualFold(r.Get("AuthType"), "MD5"):
		if key := r.Get("Key"); key != "" && ses.challenge != "" {
			digest := md5.Sum([]byte(ses.challenge + user.Secret))
			want := hex.EncodeToString(digest[:])
			if ok = key == want; !ok {
				ses.reportEvent("ChallengeResponseFailed", ses.challenge, key, want)
			}
		}
	default:
		if ok = r.Get("Secret") == user.Secret; !ok {
			ses.reportEventOf("InvalidPassword", name)
		}
	}
	if !ok {
		ses.delayRefusal(ctx)
		ses.sendError(r, "Authentication failed")
		return errLogoff
	}
	_ = ses.stream.SetReadDeadline(time.Time{})
	ses.started, ses.read, ses.write = time.Now(), user.Read, user.Write
	s := ses.server
	s.mu.Lock()
	ses.username, ses.loggedIn, ses.events = name, true, user.Read
	if m, ok := parseEventMask(r.Get("Events")); ok {
		ses.events = user.Read & m
	}
	s.notLoggedIn--
	system := ses.events&ClassSystem != 0
	// The reply goes out before any event.
	ses.sendText(r.Reply("Success") + "Message: Authentication accepted\r\n\r\n")
	if system {
		ses.sendText("Event: FullyBooted\r\nPrivilege: system,all\r\nUptime: 1\r\nLastReload: 1\r\n" +
			"Status: Fully Booted\r\n\r\n")
	}
	s.broadcastLocked(ClassSecurity, ses.encodeEvent("SuccessfulAuth", name, "0"))
	s.notifyLocked()
	s.mu.Unlock()
	return nil
}

func (ses *session) sendText(text string) { ses.outbox.putText([]byte(text)) }

func (ses *session) sendError(r Request, message string) {
	ses.sendText(r.Reply("Error") + "Message: " + message + "\r\n\r\n")
}

// refuseAndReport refuses and reports it. Whoever has read the reply cannot cause an event before this one.
func (ses *session) refuseAndReport(r Request, message, event, own string) {
	ses.server.mu.Lock()
	defer ses.server.mu.Unlock()
	ses.sendError(r, message)
	ses.server.broadcastLocked(ClassSecurity, ses.encodeEvent(event, ses.username, own))
}

// delayRefusal is the sleep(1) of a refused login.
func (ses *session) delayRefusal(ctx context.Context) {
	if ses.server.cfg.AuthDelay < 0 {
		return
	}
	timer := time.NewTimer(ses.server.cfg.AuthDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func isAllowed(nets []netip.Prefix, a netip.Addr) bool {
	for _, n := range nets {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
}

// An outbox holds what one reader has not taken yet. A reader that lets it fill up is cut off.
type outbox struct {
	texts *mailbox.Mailbox[[]byte]
	full  atomic.Bool
}

func newOutbox(limit int) *outbox {
	return &outbox{texts: mailbox.New(mailbox.Options[[]byte]{Limit: limit,
		Weight: func(b []byte) int { return len(b) }})}
}

// putText reports whether the bytes will be sent.
func (o *outbox) putText(b []byte) bool {
	if o.full.Load() || len(o.texts.Put(b)) == 0 {
		return !o.full.Load()
	}
	o.full.Store(true)
	o.texts.Wake()
	return false
}

var errSlow = errors.New("reader is too slow")

// writeTo writes until the outbox is closed and empty, or a write fails. Each write has the same time for a bounded
// amount.
func (o *outbox) writeTo(nc net.Conn, timeout time.Duration) error {
	for {
		texts, ended := o.texts.Take(256)
		switch buffers := net.Buffers(texts); {
		case o.full.Load():
			return errSlow
		case ended:
			return nil
		case len(texts) == 0:
			<-o.texts.Ready()
		default:
			_ = nc.SetWriteDeadline(time.Now().Add(timeout))
			if _, err := buffers.WriteTo(nc); err != nil {
				return err
			}
		}
	}
}
