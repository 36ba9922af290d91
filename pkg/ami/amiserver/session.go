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
	"sync"
	"time"
)

const (
	maxLine    = 1024 // main/manager.c, inbuf
	maxHeaders = 128  // AST_MAX_MANHEADERS
)

// A session is one connection.
type session struct {
	srv           *Server
	raw, nc       net.Conn // nc is raw, or TLS over it
	out           *outbox
	remote, local netip.AddrPort
	id            uint64
	challenge     string
	started       time.Time // login; zero before
	write         Class
	read          Class

	// Under Server.mu.
	username string
	loggedIn bool
	events   Class // read= and the mask
}

// serve runs one connection to its end.
func (s *Server) serve(ctx context.Context, nc net.Conn, local net.Addr) {
	defer nc.Close()
	ses := &session{srv: s, raw: nc, nc: nc, out: newOutbox(s.cfg.QueueBytes), remote: addrPort(nc.RemoteAddr()), local: addrPort(local)}
	s.mu.Lock()
	if s.waiting >= s.cfg.AuthLimit {
		s.mu.Unlock()
		return // without a word, as session_do()
	}
	s.waiting++
	s.serial++
	ses.id = s.serial
	s.sessions[ses] = struct{}{}
	s.mu.Unlock()

	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	defer stop()
	_ = nc.SetDeadline(time.Now().Add(s.cfg.AuthTimeout))
	if s.cfg.TLS != nil {
		secure := tls.Server(nc, s.cfg.TLS)
		if err := secure.HandshakeContext(ctx); err != nil {
			s.cfg.Log.Debug("TLS handshake", "remote", ses.remote, "error", err)
			s.end(ses)
			return
		}
		ses.nc = secure
	}
	_ = ses.nc.SetWriteDeadline(time.Time{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := ses.out.drain(ses.nc, s.cfg.WriteTimeout); err != nil {
			s.cfg.Log.Debug("session cut off", "remote", ses.remote, "error", err)
			_ = nc.Close()
		}
	}()
	ses.say("Asterisk Call Manager/" + s.cfg.Version + "\r\n")
	err := ses.run(ctx)
	s.cfg.Log.Debug("session ended", "remote", ses.remote, "error", err)
	s.end(ses)
	ses.out.close() // what is queued still goes out, in WriteTimeout
	<-done
	_ = ses.nc.Close() // with TLS's good-bye
}

func (s *Server) end(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ses.loggedIn {
		s.waiting--
	}
	delete(s.sessions, ses)
	s.notify()
}

var errLogoff = errors.New("logged off")

// run reads one action after the other (do_message()).
func (ses *session) run(ctx context.Context) error {
	r := bufio.NewReaderSize(ses.nc, maxLine)
	var headers []string
	var tooLong, tooMany, inside bool
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			tooLong, inside = true, true
			continue
		}
		if err != nil {
			return err
		}
		if inside { // the end of the long line
			inside = false
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
			ses.refuse(Request{}, "Too many lines in message or allocation failure")
		case tooLong:
			ses.refuse(Request{}, "Failed to parse message: line too long")
		default:
			if err := ses.process(ctx, Request{Action: get(headers, "Action"), User: ses.username, Headers: headers}); err != nil {
				return err
			}
		}
		headers, tooLong, tooMany = nil, false, false
	}
}

// process runs one action (process_message()). Events about an action come
// after its reply, as nothing else is written while Asterisk runs one.
func (ses *session) process(ctx context.Context, r Request) error {
	if r.Action == "" {
		ses.deny(r, "Missing action in request", "RequestBadFormat", "Action: NONE")
		return nil
	}
	action := strings.ToLower(r.Action)
	if !ses.loggedIn {
		switch action {
		case "login", "challenge":
			name := r.Get("Username")
			if u, ok := ses.srv.user(name); ok && u.Single && ses.srv.inUse(name) {
				ses.report("SessionLimit")
				ses.delay(ctx)
				ses.refuse(r, "Login Already In Use")
				return errLogoff
			}
		case "logoff":
		default:
			ses.deny(r, "Permission denied", "RequestNotAllowed", "Action: "+r.Action)
			return nil
		}
	}
	switch action {
	case "login":
		return ses.login(ctx, r)
	case "challenge":
		if !strings.EqualFold(r.Get("AuthType"), "MD5") {
			ses.refuse(r, "Must specify AuthType")
			return nil
		}
		if ses.challenge == "" {
			n, err := rand.Int(rand.Reader, big.NewInt(1<<31-1))
			if err != nil {
				return err
			}
			ses.challenge = n.String()
		}
		ses.say(r.Reply("Success") + "Challenge: " + ses.challenge + "\r\n\r\n")
	case "events":
		m, ok := mask(r.Get("EventMask"))
		if !ok {
			ses.refuse(r, "Invalid event mask")
			return nil
		}
		ses.srv.mu.Lock()
		ses.events = ses.read & m
		ses.srv.notify()
		ses.srv.mu.Unlock()
		// "On" says nothing about privileges, here as in Asterisk.
		ses.say(r.Reply("Success") + "Events: " + map[bool]string{true: "On", false: "Off"}[m != 0] + "\r\n\r\n")
	case "ping":
		now := time.Now()
		ses.say(r.Reply("Success") + fmt.Sprintf("Ping: Pong\r\nTimestamp: %d.%06d\r\n\r\n", now.Unix(), now.Nanosecond()/1000))
	case "logoff":
		ses.say(r.Reply("Goodbye") + "Message: Thanks for all the fish.\r\n\r\n")
		return errLogoff
	default:
		ses.other(r)
	}
	return nil
}

// other runs the configured actions and refuses the rest.
func (ses *session) other(r Request) {
	for name, a := range ses.srv.cfg.Actions {
		if strings.EqualFold(name, r.Action) {
			if a.Privilege != ClassNone && ses.write&a.Privilege == 0 {
				ses.deny(r, "Permission denied", "RequestNotAllowed", "Action: "+r.Action)
				return
			}
			ses.say(a.Reply(r))
			return
		}
	}
	if need, known := privilege(r.Action); known && ses.write&need == 0 {
		ses.deny(r, "Permission denied", "RequestNotAllowed", "Action: "+r.Action)
		return
	}
	ses.deny(r, "Invalid/unknown command: "+r.Action+". Use Action: ListCommands to show available commands.", "RequestBadFormat", "Action: "+r.Action)
}

// login is action_login().
func (ses *session) login(ctx context.Context, r Request) error {
	if ses.loggedIn {
		ses.say(r.Reply("Success") + "Message: Already authenticated\r\n\r\n")
		return nil
	}
	name := r.Get("Username")
	user, known := ses.srv.user(name)
	ok := false
	switch {
	case name == "":
	case !known:
		ses.reportUser("InvalidAccountID", name)
	case user.Allow != nil && !allowed(user.Allow, ses.remote.Addr()):
		ses.reportUser("FailedACL", name)
	case strings.EqualFold(r.Get("AuthType"), "MD5"):
		if key := r.Get("Key"); key != "" && ses.challenge != "" {
			digest := md5.Sum([]byte(ses.challenge + user.Secret))
			want := hex.EncodeToString(digest[:])
			if ok = key == want; !ok {
				ses.report("ChallengeResponseFailed", ses.challenge, key, want)
			}
		}
	default:
		if ok = r.Get("Secret") == user.Secret; !ok {
			ses.reportUser("InvalidPassword", name)
		}
	}
	if !ok {
		ses.delay(ctx)
		ses.refuse(r, "Authentication failed")
		return errLogoff
	}
	_ = ses.nc.SetReadDeadline(time.Time{})
	ses.started, ses.read, ses.write = time.Now(), user.Read, user.Write
	s := ses.srv
	s.mu.Lock()
	ses.username, ses.loggedIn, ses.events = name, true, user.Read
	if m, ok := mask(r.Get("Events")); ok {
		ses.events = user.Read & m
	}
	s.waiting--
	system := ses.events&ClassSystem != 0
	// The reply goes out before any event.
	ses.say(r.Reply("Success") + "Message: Authentication accepted\r\n\r\n")
	if system {
		ses.say("Event: FullyBooted\r\nPrivilege: system,all\r\nUptime: 1\r\nLastReload: 1\r\nStatus: Fully Booted\r\n\r\n")
	}
	s.broadcast(ClassSecurity, ses.event("SuccessfulAuth", name, "0"))
	s.notify()
	s.mu.Unlock()
	return nil
}

func (ses *session) say(text string) { ses.out.push([]byte(text)) }

func (ses *session) refuse(r Request, message string) {
	ses.say(r.Reply("Error") + "Message: " + message + "\r\n\r\n")
}

// deny refuses and reports it. Whoever has read the reply cannot cause an event before this one.
func (ses *session) deny(r Request, message, event, own string) {
	ses.srv.mu.Lock()
	defer ses.srv.mu.Unlock()
	ses.refuse(r, message)
	ses.srv.broadcast(ClassSecurity, ses.event(event, ses.username, own))
}

// delay is the sleep(1) of a refused login.
func (ses *session) delay(ctx context.Context) {
	if ses.srv.cfg.AuthDelay < 0 {
		return
	}
	timer := time.NewTimer(ses.srv.cfg.AuthDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func allowed(nets []netip.Prefix, a netip.Addr) bool {
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

// An outbox holds what one reader has not taken yet.
type outbox struct {
	limit  int
	notify chan struct{}

	mu     sync.Mutex
	bufs   net.Buffers
	bytes  int
	closed bool
	full   bool
}

func newOutbox(limit int) *outbox {
	return &outbox{limit: limit, notify: make(chan struct{}, 1)}
}

// push reports whether the bytes will be sent. A reader that lets the outbox
// fill up is cut off.
func (o *outbox) push(b []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.full {
		return false
	}
	if o.bytes+len(b) > o.limit {
		o.full = true
	} else {
		o.bufs = append(o.bufs, b)
		o.bytes += len(b)
	}
	select {
	case o.notify <- struct{}{}:
	default:
	}
	return !o.full
}

func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	select {
	case o.notify <- struct{}{}:
	default:
	}
}

var errSlow = errors.New("reader is too slow")

// drain writes until the outbox is closed and empty, or a write fails.
func (o *outbox) drain(nc net.Conn, timeout time.Duration) error {
	for {
		o.mu.Lock()
		bufs, n, closed, full := o.bufs, o.bytes, o.closed, o.full
		o.bufs = nil
		o.mu.Unlock()
		switch {
		case full:
			return errSlow
		case len(bufs) > 0:
			// In parts, so that the deadline is one for a bounded amount.
			for len(bufs) > 0 {
				part := bufs[:min(len(bufs), 256)]
				bufs = bufs[len(part):]
				_ = nc.SetWriteDeadline(time.Now().Add(timeout))
				if _, err := part.WriteTo(nc); err != nil {
					return err
				}
			}
			o.mu.Lock()
			o.bytes -= n
			o.mu.Unlock()
			continue
		case closed:
			return nil
		}
		<-o.notify
	}
}
