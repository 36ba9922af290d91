package notify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strings"

	"github.com/wneessen/go-mail"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/notify/message"
)

// mailSender sends a mail for each message, over a connection of its own: they are rare.
type mailSender struct {
	cfg    config.Notify
	client *mail.Client
	// conn is the connection of the attempt. The library leaves it open where TLS or the login fails; nil where it
	// makes its own.
	conn net.Conn
}

func newMailSender(cfg config.Notify, dial dialFunc, host string) (*mailSender, error) {
	trust, err := trustOf(cfg)
	if err != nil {
		return nil, err
	}
	s := &cfg.SMTP
	trust.ServerName = s.Host
	sender := &mailSender{cfg: cfg}
	options := []mail.Option{mail.WithPort(s.Port), mail.WithTimeout(cfg.Timeout), mail.WithTLSConfig(trust),
		mail.WithoutNoop()}
	if helo := asciiHost(host); helo != "" {
		options = append(options, mail.WithHELO(helo))
	}
	switch s.TLS {
	case config.TLSAlways:
		options = append(options, mail.WithSSL())
	case config.TLSNever:
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	default:
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
	}
	if s.TLS != config.TLSAlways { // for which the library would take a connection of ours to be in clear
		options = append(options, mail.WithDialContextFunc(
			func(ctx context.Context, network, address string) (conn net.Conn, err error) {
				conn, err = dial(ctx, network, address)
				sender.conn = conn
				return conn, err
			}))
	}
	if s.User != "" {
		options = append(options, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(s.User),
			mail.WithPassword(s.Password.Reveal()))
	}
	sender.client, err = mail.NewClient(s.Host, options...)
	return sender, err
}

// trustOf is whose certificates a target takes.
func trustOf(cfg config.Notify) (*tls.Config, error) {
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile == "" {
		return trust, nil
	}
	var err error
	if trust.RootCAs, err = config.CertPool(cfg.CAFile); err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	return trust, nil
}

// asciiHost is the name of this machine if it can stand in HELO and in a Message-ID, else "".
func asciiHost(host string) string {
	if host == "" || strings.Trim(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") != "" {
		return ""
	}
	return host
}

func (s *mailSender) sendMessage(ctx context.Context, m message.Message) error {
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent())
	err := errors.Join(msg.From(s.cfg.SMTP.From), msg.To(s.cfg.SMTP.To...))
	if err != nil {
		return &failure{cause: "the addresses cannot be used", permanent: true}
	}
	msg.Subject(m.Title)
	msg.SetDate()
	domain := asciiHost(m.Host)
	if domain == "" {
		domain = "ringwall"
	}
	msg.SetMessageIDWithValue(m.ID + "@" + domain)       // the same for each attempt: a mailbox shows it once
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // so that nobody's holiday answers (RFC 3834 section 5)
	msg.SetBodyString(mail.TypeTextPlain, mailText(m))
	err = s.client.DialAndSendWithContext(ctx, msg)
	if s.conn != nil {
		_ = s.conn.Close()
		s.conn = nil
	}
	if err != nil {
		return mailFailure(err)
	}
	return nil
}

// mailText is what a person reads, most important first. What an attacker chose has a line of its own, in quotes.
func mailText(m message.Message) string {
	var b strings.Builder
	b.WriteString(m.Text + "\n")
	if m.Account != "" {
		fmt.Fprintf(&b, "\nAccount, as it was sent: %q\n", m.Account)
	}
	if m.Detail != "" {
		fmt.Fprintf(&b, "\nMore: %s\n", m.Detail)
	}
	if m.Source != "" {
		fmt.Fprintf(&b, "\nTo see why: ringwall why %s\n", m.Source)
	}
	fmt.Fprintf(&b, "\nRingwall on %s, %s\n", m.Host, m.Time)
	return b.String()
}

// mailFailure says what went wrong. Only an answer that no further attempt would change ends it (RFC 5321 section
// 4.2.1): a password can be mended meanwhile, and what waits is sent with the new one.
func mailFailure(err error) *failure {
	var refused *mail.SendError
	if errors.As(err, &refused) && refused.ErrorCode() != 0 {
		return &failure{cause: fmt.Sprintf("the server answers %d (%s)", refused.ErrorCode(), refused.Reason),
			permanent: !refused.IsTemp()}
	}
	var answer *textproto.Error
	switch {
	case errors.As(err, &answer) && (answer.Code == 535 || answer.Code == 534 || answer.Code == 530):
		return &failure{cause: fmt.Sprintf("the server takes neither user nor password (%d)", answer.Code)}
	case errors.As(err, &answer):
		return &failure{cause: fmt.Sprintf("the server answers %d", answer.Code)}
	}
	f := networkFailure(err)
	if text := err.Error(); strings.Contains(text, "does not support STARTTLS") {
		f.cause = "the server does not offer STARTTLS; smtp.tls can be always, with port 465"
	} else if strings.Contains(text, "does not support SMTP AUTH") {
		f.cause = "the server offers no login of a kind that is known here; without TLS most offer none"
	}
	return f
}

func (s *mailSender) close() {}
