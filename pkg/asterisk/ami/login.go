package ami

import (
	"context"
	"crypto/md5"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"
)

// maxFramesBeforeLogin bounds the frames that may come before the login is answered. Asterisk sends none.
const maxFramesBeforeLogin = 64

// connectAndLogin dials, waits for the banner and logs in. What it returns is ready for its reader; early are frames
// that came before the login was answered.
func (s *Session) connectAndLogin(ctx context.Context) (c *connection, early []Frame, err error) {
	secret, secured := s.cfg.Secret, s.cfg.TLS
	if s.cfg.Refresh != nil {
		if secret, secured, err = s.cfg.Refresh(); err != nil {
			return nil, nil, err
		}
	}
	dialCtx, cancel := context.WithTimeout(ctx, s.cfg.DialTimeout)
	defer cancel()
	nc, err := s.dial(dialCtx, "tcp", s.cfg.Address)
	if err != nil {
		return nil, nil, s.networkError(StageDial, err)
	}
	defer func() {
		if err != nil {
			_ = nc.Close()
		}
	}()
	if secured != nil {
		conf := secured.Clone()
		if conf.ServerName == "" {
			conf.ServerName, _, _ = net.SplitHostPort(s.cfg.Address)
		}
		secure := tls.Client(nc, conf)
		if err := secure.HandshakeContext(dialCtx); err != nil {
			return nil, nil, s.networkError(StageTLS, err)
		}
		nc = secure
	}
	// A context that ends, ends every read and write of the login.
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_ = nc.SetDeadline(time.Now().Add(s.cfg.LoginTimeout))
	if ctx.Err() != nil {
		return nil, nil, s.networkError(StageGreet, ctx.Err())
	}
	c = &connection{
		socket: nc, splitter: NewSplitter(nc, s.cfg.Limits), readerEnded: make(chan struct{}),
		securityEventCame: make(chan struct{}),
		writeTimeout:      s.cfg.WriteTimeout, maxReplyBytes: s.cfg.MaxReplyBytes,
	}
	banner, err := c.splitter.readBanner()
	switch {
	case errors.Is(err, errNoBanner):
		return nil, nil, s.newError(StageGreet, ErrNotAMI, nil, banner)
	case err != nil:
		return nil, nil, s.networkError(StageGreet, err)
	}
	early, err = s.runLogin(c, secret)
	if err != nil {
		return nil, nil, err
	}
	if !stop() {
		return nil, nil, s.networkError(StageLogin, ctx.Err())
	}
	_ = nc.SetDeadline(time.Time{})
	c.lastRead.Store(time.Now().UnixNano())
	return c, early, nil
}

// runLogin runs Challenge and Login. The Events header sets the mask along with it (main/manager.c, authenticate()), so
// that no event of another class comes first. The reply of the separate Events action would prove nothing: it says "On"
// for every mask, also for one that the user may not have (action_events()).
func (s *Session) runLogin(c *connection, secret string) (early []Frame, err error) {
	headers := []Header{{"Username", s.cfg.Username}}
	switch s.cfg.Auth {
	case Plain:
		headers = append(headers, Header{"Secret", secret})
	default:
		m, err := s.loginRoundTrip(c, &early, "Challenge", Header{"AuthType", "MD5"})
		if err != nil {
			return nil, err
		}
		challenge := m.Get("Challenge")
		if challenge == "" {
			return nil, s.newError(StageLogin, ErrNotAMI, nil, firstBytes([]byte(m.String())))
		}
		digest := md5.Sum([]byte(challenge + secret)) // what the protocol demands
		headers = append(headers, Header{"AuthType", "MD5"}, Header{"Key", hex.EncodeToString(digest[:])})
	}
	headers = append(headers, Header{"Events", s.cfg.EventMask})
	if _, err := s.loginRoundTrip(c, &early, "Login", headers...); err != nil {
		return nil, err
	}
	return early, nil
}

// loginRoundTrip is roundTrip before there is a reader.
func (s *Session) loginRoundTrip(c *connection, early *[]Frame, action string, headers ...Header) (*Message, error) {
	text, tag, err := encodeAction(action, headers)
	if err != nil {
		return nil, err
	}
	if _, err := c.socket.Write([]byte(text)); err != nil {
		return nil, s.networkError(StageLogin, err)
	}
	for {
		text, err := c.splitter.Next()
		switch {
		case errors.Is(err, ErrOversize):
			s.countOversize(err)
		case err != nil:
			return nil, s.networkError(StageLogin, err)
		}
		if second, _ := cutLine(skipFirstLine(text)); err == nil && strings.HasPrefix(text, responsePrefix) &&
			(second == tag || isRefusalWithoutID(text)) {
			m, err := ParseMessage(text)
			if err != nil {
				return nil, s.newError(StageLogin, ErrNotAMI, err, firstBytes([]byte(text)))
			}
			return m, s.loginError(m)
		}
		if len(*early) >= maxFramesBeforeLogin {
			return nil, s.newError(StageLogin, ErrNotAMI, nil, firstBytes([]byte(text)))
		}
		if err == nil {
			*early = append(*early, Frame{Text: text, Received: c.splitter.Received()})
		}
	}
}

// isRefusalWithoutID reports whether a response before the login is an error without any ActionID. Nobody can inject
// into a session that gets no events yet, and a refusal is the safe side.
func isRefusalWithoutID(text string) bool {
	return strings.HasPrefix(text, responsePrefix+"Error\r\n") && !strings.Contains(text, "\r\n"+actionIDPrefix)
}

// loginError turns a response to Challenge or Login into an error.
func (s *Session) loginError(m *Message) error {
	if strings.EqualFold(m.Get("Response"), "Success") {
		return nil
	}
	switch message := m.Get("Message"); message {
	case "Authentication failed", permissionDenied:
		return s.newError(StageLogin, ErrLogin, nil, message)
	case "Login Already In Use":
		return s.newError(StageLogin, ErrInUse, nil, message)
	case "Asterisk is shutting down":
		return s.newError(StageLogin, ErrShuttingDown, nil, message)
	default:
		return s.newError(StageLogin, ErrNotAMI, nil, firstBytes([]byte(m.Get("Response")+": "+message)))
	}
}

// localAddr returns this end of a socket, or the zero value where it has none.
func localAddr(nc net.Conn) netip.AddrPort {
	if a, ok := nc.LocalAddr().(*net.TCPAddr); ok {
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
