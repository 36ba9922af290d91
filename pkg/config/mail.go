package config

import (
	"fmt"
	"net/mail"
	"net/netip"
	"strings"
)

const (
	maxMailTo = 20 // receivers of one target
	// A person reads a mail at a time: what is more becomes one that counts them.
	mailsPerMinute, mailBurst = 1, 5
)

// isMail says whether a target of notify is meant to be told by mail.
func (ps *parser) isMail(n *Notify, at string) bool {
	s := &n.SMTP
	return s.Host != "" || s.From != "" || len(s.To) > 0 || s.User != "" || ps.failed[at+".smtp"] ||
		ps.failed[at+".smtp.host"]
}

// checkMail checks a target that is told by mail. It returns the key of a password that stands in the file itself.
func (ps *parser) checkMail(n *Notify, at string) (literal string) {
	ps.refuseWebhookKeys(at, "smtp", "method", "token", "token_file", "headers", "template", "to", "body",
		"content_type")
	s, in := &n.SMTP, at+".smtp"
	if key := in + ".host"; !ps.failed[key] && !isMailHost(s.Host) {
		ps.fail(key, "not a name or an address", detail{value: ps.shownValue(key),
			allowed: "mail.example.org, 192.0.2.1", hint: "the port is a key of its own"})
	}
	ps.checkMailAddress(in+".from", s.From)
	if len(s.To) == 0 && !ps.failed[in+".to"] {
		ps.fail(in+".to", "missing", detail{hint: "[admin@example.org]"})
	}
	if len(s.To) > maxMailTo {
		ps.fail(in+".to", fmt.Sprintf("%d receivers", len(s.To)),
			detail{allowed: fmt.Sprintf("up to %d", maxMailTo), hint: "a list of the mail server's"})
	}
	for i, to := range s.To {
		ps.checkMailAddress(fmt.Sprintf("%s.to[%d]", in, i), to)
	}
	if n.CAFile != "" && ps.checkAbsolutePath(at+".ca_file", n.CAFile) {
		ps.caFile(at+".ca_file", n.CAFile)
	}
	key := in + ".password"
	if node := ps.valueNodes[key]; node != nil && node.Value != "" && node.Value != hidden &&
		!strings.Contains(node.Value, "${") {
		literal = key
	}
	s.Password = ps.resolveSendableSecret(key, s.Password, key+"_file", s.PasswordFile)
	withoutPassword := s.Password.IsZero() && s.PasswordFile == "" && !ps.failed[key] && !ps.env.WithoutSecrets
	switch {
	case s.User != "" && withoutPassword:
		ps.fail(key, "missing", detail{hint: "password_file: the whole path of a file that holds it"})
	case s.User == "" && !withoutPassword && !s.Password.IsZero():
		ps.fail(in+".user", "missing", detail{hint: "whose password it is; often the whole address"})
	case s.User != "" && !isPrintable(s.User, maxTo):
		ps.fail(in+".user", "not usable as a user",
			detail{value: ps.shownValue(in + ".user"), allowed: "up to 256 printable bytes"})
	}
	if s.TLS == TLSNever && !isLoopback(s.Host) {
		if s.User != "" {
			ps.fail(in+".tls", "the password would cross the network in clear",
				detail{value: ps.shownValue(in + ".tls"), allowed: TLSStart + ", " + TLSAlways})
		} else {
			ps.warn(in+".tls", "what is sent crosses the network in clear", detail{hint: TLSStart})
		}
	}
	if !ps.isGiven(at+".rate.per_minute") && !ps.isGiven(at+".rate.burst") {
		n.Rate = NotifyRate{PerMinute: mailsPerMinute, Burst: mailBurst}
	}
	return literal
}

func isMailHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return isHostName(host)
}

// checkMailAddress takes an address alone, without a name (RFC 5322 section 3.4.1), of ASCII, as every server takes it.
func (ps *parser) checkMailAddress(key, text string) {
	if ps.failed[key] {
		return
	}
	a, err := mail.ParseAddress(text)
	switch {
	case text == "":
		ps.fail(key, "missing", detail{hint: "admin@example.org"})
	case err != nil || a.Address != text || !isPrintable(text, 254) ||
		strings.ContainsFunc(text, func(r rune) bool { return r > '~' }):
		ps.fail(key, "not a mail address", detail{value: ps.shownValue(key), allowed: "NAME@DOMAIN"})
	}
}
