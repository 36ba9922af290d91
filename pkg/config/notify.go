package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/notify/message"
	escape "github.com/ringwall/ringwall/pkg/printable"
)

// Notify is one target that is told of decisions: a web address, a program, or people by mail.
type Notify struct {
	Name        string            `yaml:"name"` // the template or the program by default; a metric's label
	URL         Secret            `yaml:"url"`
	URLFile     string            `yaml:"url_file"`
	Method      string            `yaml:"method"` // POST or PUT
	Token       Secret            `yaml:"token"`
	TokenFile   string            `yaml:"token_file"`
	Headers     map[string]Secret `yaml:"headers"`
	CAFile      string            `yaml:"ca_file"`
	Template    string            `yaml:"template"` // a ready one, where Body is empty
	To          string            `yaml:"to"`
	Body        string            `yaml:"body"`
	ContentType string            `yaml:"content_type"`
	Exec        []string          `yaml:"exec"` // the program's whole path, and its arguments
	SMTP        SMTP              `yaml:"smtp"`
	Actions     []string          `yaml:"actions"`
	Reasons     []string          `yaml:"reasons"` // all, when empty
	PBX         []string          `yaml:"pbx"`     // all, when empty
	Rate        NotifyRate        `yaml:"rate"`
	Timeout     time.Duration     `yaml:"timeout"` // of one attempt
}

// SMTP is a server that takes mail, and for whom.
type SMTP struct {
	Host         string   `yaml:"host"` // no mail where it is empty
	Port         int      `yaml:"port"`
	TLS          string   `yaml:"tls"`  // one of TLSStart, TLSAlways, TLSNever
	User         string   `yaml:"user"` // nobody logs in where it is empty
	Password     Secret   `yaml:"password"`
	PasswordFile string   `yaml:"password_file"`
	From         string   `yaml:"from"`
	To           []string `yaml:"to"`
}

// What SMTP.TLS may be.
const (
	TLSStart  = "starttls" // demanded after the greeting (RFC 3207); a server that has none gets no mail
	TLSAlways = "always"   // from the first byte on (RFC 8314 section 3.3)
	TLSNever  = "never"
)

// NotifyRate bounds how many messages a target gets of each action.
type NotifyRate struct {
	PerMinute float64 `yaml:"per_minute"` // 0 is no bound
	Burst     int     `yaml:"burst"`
}

// Tokens are a target's secrets, for whoever must keep them out of a log.
func (n *Notify) Tokens() []Secret {
	all := []Secret{n.URL, n.Token}
	if !n.SMTP.Password.IsZero() {
		all = append(all, n.SMTP.Password)
	}
	for _, s := range n.Headers {
		all = append(all, s)
	}
	return all
}

// toStrings are words as text.
func toStrings[T ~string](words []T) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = string(w)
	}
	return out
}

const (
	maxTargets = 32
	maxURL     = 2048 // bytes
	maxTo      = 256  // bytes
	// IDPlace is where a URL takes the message's ID, which is the same for each attempt to deliver it.
	IDPlace = "{id}"
)

// checkNotify checks the targets, and completes names, methods and secrets.
func (ps *parser) checkNotify(list []Notify, pbxs []Asterisk, mode fs.FileMode) {
	if len(list) > maxTargets {
		ps.fail("notify", fmt.Sprintf("%d targets", len(list)), detail{allowed: fmt.Sprintf("up to %d", maxTargets)})
		return
	}
	names := map[string]string{}
	literal := ""
	for i := range list {
		n, at := &list[i], fmt.Sprintf("notify[%d]", i)
		if ps.failed[at] {
			continue
		}
		program := len(n.Exec) > 0 || ps.failed[at+".exec"]
		web := !n.URL.IsZero() || n.URLFile != "" || ps.failed[at+".url"] || ps.failed[at+".url_file"]
		mail := ps.isMail(n, at)
		switch {
		case !web && !program && !mail:
			ps.fail(at, "neither url nor exec nor smtp",
				detail{hint: "url, url_file, exec or smtp; examples/notify.yaml has some"})
			continue
		case web && program:
			ps.fail(at+".exec", "url and exec are both given", detail{hint: "an entry of its own for each"})
			continue
		case mail && (web || program):
			ps.fail(at+".smtp", "given beside url or exec", detail{hint: "an entry of its own for each"})
			continue
		case program:
			ps.checkProgram(n, at)
		case mail:
			literal = cmp.Or(literal, ps.checkMail(n, at))
		default:
			literal = cmp.Or(literal, ps.checkWebhook(n, at))
		}
		ps.checkFilter(n, at, pbxs)
		if n.Name == "" {
			n.Name = n.defaultName()
		}
		if key := at + ".name"; !ps.failed[key] && !isPrintable(n.Name, 64) {
			ps.fail(key, "not usable as a name", detail{value: ps.shownValue(key), allowed: "1 to 64 printable bytes"})
		} else if first, taken := names[n.Name]; taken {
			ps.fail(key, "the same as the name of "+first,
				detail{value: ps.quoteUnlessSecret(n.Name), hint: "a name for each"})
		}
		names[n.Name] = at
	}
	if literal != "" && mode&0o004 != 0 {
		ps.warn(literal, fmt.Sprintf("everybody on this machine can read it (mode %04o)", mode.Perm()),
			detail{hint: "chmod 0640 on the file, or " + literal[strings.LastIndexByte(literal, '.')+1:] + "_file"})
	}
}

func (n *Notify) defaultName() string {
	switch {
	case len(n.Exec) > 0:
		name := path.Base(n.Exec[0])
		return name[:min(len(name), 64)]
	case n.SMTP.Host != "":
		return "smtp"
	case n.Body != "":
		return "webhook"
	}
	return n.Template
}

// checkProgram checks a target that is a program.
func (ps *parser) checkProgram(n *Notify, at string) {
	ps.refuseWebhookKeys(at, "exec", "ca_file", "method", "token", "token_file", "headers", "template", "to", "body",
		"content_type")
	key := at + ".exec"
	if ps.failed[key] {
		return
	}
	if len(n.Exec) > 64 {
		ps.fail(key, "more than 64 arguments", detail{hint: "a script that holds them"})
	}
	for i, arg := range n.Exec {
		at := fmt.Sprintf("%s[%d]", key, i)
		switch {
		case ps.failed[at]:
		case strings.ContainsRune(arg, 0) || len(arg) > 16<<10:
			ps.fail(at, "not usable as an argument", detail{allowed: "up to 16384 bytes, and no NUL"})
		case i > 0:
		case strings.ContainsAny(arg, " \t") && !strings.HasSuffix(arg, "/"):
			if _, found, _ := ps.findProgram(arg); found && ps.env.Open != nil {
				continue
			}
			ps.fail(at, "no program has this name; there is no shell that splits it", detail{value: ps.shownValue(at),
				hint: "[PROGRAM, ARGUMENT, ARGUMENT], or [/bin/sh, -c, \"…\"]"})
		case ps.checkAbsolutePath(at, arg):
			ps.warnUnlessExecutable(at, arg)
		}
	}
}

// refuseWebhookKeys refuses keys of a url at a target that is something else.
func (ps *parser) refuseWebhookKeys(at, kind string, keys ...string) {
	for _, key := range keys {
		if !ps.isGiven(at + "." + key) {
			continue
		}
		if v := ps.valueNodes[at+"."+key].Value; v == "" && len(ps.valueNodes[at+"."+key].Content) == 0 {
			continue // as check --print writes it
		}
		if def := map[string]string{"template": message.Generic, "content_type": message.JSON}[key]; def != "" &&
			ps.valueNodes[at+"."+key].Value == def {
			continue
		}
		ps.fail(at+"."+key, "is for a url, and "+kind+" has none", detail{hint: "remove it"})
	}
}

// findProgram says whether a program is there, where the machine may be asked.
func (ps *parser) findProgram(name string) (mode fs.FileMode, found bool, err error) {
	if ps.env.Open == nil || ps.env.WithoutSecrets {
		return 0o755, true, nil
	}
	r, err := ps.env.openFile(name)
	if err != nil {
		return 0o755, !errors.Is(err, fs.ErrNotExist), err
	}
	defer func() { _ = r.Close() }()
	info, err := r.Stat()
	if err != nil {
		return 0o755, true, err
	}
	return info.Mode(), true, nil
}

// warnUnlessExecutable warns of a program that will not start. It may be installed later, so that this is no mistake
// yet.
func (ps *parser) warnUnlessExecutable(at, name string) {
	switch mode, found, err := ps.findProgram(name); {
	case !found:
		ps.warn(at, "cannot be found: "+reasonText(err), detail{value: ps.shownValue(at), hint: "its whole path"})
	case !mode.IsRegular():
		ps.warn(at, "is no program", detail{value: ps.shownValue(at), hint: "the whole path of a file"})
	case mode&0o111 == 0:
		ps.warn(at, fmt.Sprintf("is not executable (mode %04o)", mode.Perm()),
			detail{value: ps.shownValue(at), hint: "chmod 0755 " + plainText(name)})
	}
}

// checkWebhook checks a target with a URL. It returns the key of a secret that stands in the file itself.
func (ps *parser) checkWebhook(n *Notify, at string) (literal string) {
	for _, key := range []string{"url", "token"} {
		node := ps.valueNodes[at+"."+key]
		if node == nil || node.Value == "" || node.Value == hidden || strings.Contains(node.Value, "${") {
			continue
		}
		if key == "token" || passwordURL(node.Value) ||
			slices.Contains([]string{message.Slack, message.Discord, message.Telegram}, n.Template) {
			literal = cmp.Or(literal, at+"."+key)
		}
	}
	n.URL = ps.resolveSendableSecret(at+".url", n.URL, at+".url_file", n.URLFile)
	n.Token = ps.resolveSendableSecret(at+".token", n.Token, at+".token_file", n.TokenFile)
	for name, value := range n.Headers {
		ps.checkHeader(n, at, name, value)
	}
	if key := at + ".method"; n.Method == "" {
		n.Method = http.MethodPost
		if n.Template == message.Matrix && n.Body == "" {
			n.Method = http.MethodPut
		}
	} else {
		ps.checkOneOf(key, n.Method, []string{http.MethodPost, http.MethodPut})
	}
	if n.CAFile != "" && ps.checkAbsolutePath(at+".ca_file", n.CAFile) {
		ps.caFile(at+".ca_file", n.CAFile)
	}
	ps.checkURL(n, at)
	ps.checkBody(n, at)
	return literal
}

// passwordURL says whether a web address surely holds a password.
func passwordURL(text string) bool {
	u, err := url.Parse(text)
	return err != nil || u.User != nil || u.RawQuery != ""
}

// parseWebAddress reads http://HOST/PATH and https://; place is a text in it that something else will stand for.
func parseWebAddress(text, place string) (u *url.URL, ok bool) {
	u, err := url.Parse(strings.ReplaceAll(text, place, "0"))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || len(text) > maxURL ||
		strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, false
	}
	_, err = netip.ParseAddr(u.Hostname())
	return u, err == nil || isHostName(u.Hostname())
}

func (ps *parser) checkURL(n *Notify, at string) {
	key := at + ".url"
	text := n.URL.value
	if n.URLFile != "" {
		key = at + ".url_file"
	}
	if ps.failed[key] || text == "" || text == hidden {
		return
	}
	wrong := detail{allowed: "https://HOST/PATH, or http://", hint: "copy it whole, in double quotes"}
	u, ok := parseWebAddress(text, IDPlace)
	if !ok || u.Fragment != "" || u.Port() == "0" {
		ps.fail(key, "not a web address", wrong)
		return
	}
	if u.Scheme == "http" && !isLoopback(u.Hostname()) {
		ps.warn(key, "what is sent, tokens too, crosses the network in clear", detail{hint: "https://"})
	}
	if n.Template == message.Matrix && n.Body == "" && !strings.Contains(text, IDPlace) {
		ps.fail(key, "Matrix wants a transaction's name at the end of the path", detail{
			hint: "https://HOST/_matrix/client/v3/rooms/ROOM/send/m.room.message/{id}"})
	}
}

// checkBody checks the template.
func (ps *parser) checkBody(n *Notify, at string) {
	key := at + ".template"
	ps.checkOneOf(key, n.Template, message.ReadyNames())
	if n.Body == "" {
		if n.ContentType != message.JSON && !ps.failed[at+".content_type"] {
			ps.fail(at+".content_type", "the ready templates are all JSON",
				detail{value: ps.shownValue(at + ".content_type"),
					hint: "remove it, or write a body"})
		}
		if message.NeedsTo(n.Template) && n.To == "" && !ps.failed[at+".to"] && !ps.failed[key] {
			hints := map[string]string{
				message.Telegram: `"-1001234567890", the chat's number`,
				message.Ntfy:     "the topic; url is then the server alone, as in https://ntfy.sh",
			}
			ps.fail(at+".to", "missing", detail{hint: hints[n.Template]})
		}
	} else {
		if n.Template != message.Generic && !ps.failed[key] {
			ps.fail(at+".body", "template and body are both given", detail{hint: "remove one of them"})
		}
		if !isPrintable(n.ContentType, 100) || !strings.Contains(n.ContentType, "/") {
			ps.fail(at+".content_type", "not a content type", detail{value: ps.shownValue(at + ".content_type"),
				allowed: "application/json, text/plain; charset=utf-8, …"})
		}
		if !ps.failed[at+".body"] && !ps.failed[at+".content_type"] {
			if _, err := message.Parse(n.Body, n.ContentType, toStrings(ban.Actions())); err != nil {
				ps.fail(at+".body", "not usable as a template: "+ps.withoutSecrets(err.Error()), detail{
					hint: `{"text": {{json .Text}}, "account": {{json .Account}}}`})
			}
		}
	}
	if n.To != "" && !isPrintable(n.To, maxTo) {
		ps.fail(at+".to", "not usable as a receiver",
			detail{value: ps.shownValue(at + ".to"), allowed: "up to 256 printable bytes"})
	}
}

// withoutSecrets is text for an error; it is withheld if it could hold a secret.
func (ps *parser) withoutSecrets(text string) string {
	if ps.quoteUnlessSecret(text) == hidden {
		return hidden
	}
	return escape.Line(text)
}

func (ps *parser) checkHeader(n *Notify, at, name string, value Secret) {
	key := ps.pathOf(at+".headers", name)
	if ps.failed[key] {
		return
	}
	// RFC 9110 section 5.6.2.
	const token = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	canonical := http.CanonicalHeaderKey(name)
	switch {
	case name == "" || len(name) > 100 || strings.Trim(name, token) != "":
		ps.fail(key, "not the name of a header", detail{allowed: "letters, digits and -"})
	case slices.Contains([]string{"Host", "Content-Length", "Content-Type", "Transfer-Encoding", "Connection", "Te",
		"Trailer", "Upgrade"}, canonical):
		ps.fail(key, "this header is not yours to set", detail{hint: "remove it; content_type is a key of its own"})
	case canonical == "Authorization" && (!n.Token.IsZero() || n.TokenFile != ""):
		ps.fail(key, "contradicts token, which is sent as Authorization: Bearer", detail{hint: "remove one of them"})
	default:
		n.Headers[name] = ps.resolveSendableSecret(key, value, "", "")
	}
}

// checkFilter checks what a target is told of.
func (ps *parser) checkFilter(n *Notify, at string, pbxs []Asterisk) {
	if len(n.Actions) == 0 && !ps.failed[at+".actions"] {
		ps.fail(at+".actions", "an empty list, so nothing is ever told",
			detail{allowed: strings.Join(toStrings(ban.Actions()), ", ")})
	}
	for i, a := range n.Actions {
		ps.checkOneOf(fmt.Sprintf("%s.actions[%d]", at, i), a, toStrings(ban.Actions()))
	}
	for i, r := range n.Reasons {
		ps.checkOneOf(fmt.Sprintf("%s.reasons[%d]", at, i), r, toStrings(ban.Reasons()))
	}
	var names []string
	for _, a := range pbxs {
		names = append(names, a.Name)
	}
	for i, p := range n.PBX {
		key := fmt.Sprintf("%s.pbx[%d]", at, i)
		if !slices.Contains(names, p) && !ps.failed[key] && !ps.failed["asterisk"] {
			d := detail{value: ps.shownValue(key), hint: hint.Nearest(p, names)}
			ps.fail(key, "no Asterisk has this name", d)
		}
	}
}

func environmentVariables() *regexp.Regexp { return regexp.MustCompile(`\$\{([^}]*)\}`) }

// resolveSendableSecret finds a secret, in the file itself with ${VARIABLE} replaced, or in a file of its own. It may
// be none.
func (ps *parser) resolveSendableSecret(key string, s Secret, fileKey, file string) Secret {
	if ps.failed[key] || ps.failed[fileKey] {
		return Secret{}
	}
	switch {
	case file != "" && !s.IsZero():
		ps.fail(fileKey, lastKey(key)+" and "+lastKey(fileKey)+" are both given", detail{hint: "remove one of them"})
		return Secret{}
	case file != "" && (!ps.checkAbsolutePath(fileKey, file) || ps.env.WithoutSecrets):
		return Secret{}
	case file != "":
		return ps.secretFile(fileKey, file, false)
	case ps.env.WithoutSecrets && strings.Contains(s.value, "${"):
		return Secret{}
	}
	if s.value == hidden {
		ps.warn(key, hidden+" is what check --print shows in place of a secret", detail{hint: "the secret itself"})
	}
	text := environmentVariables().ReplaceAllStringFunc(s.value, func(v string) string {
		name := v[2 : len(v)-1]
		value, ok := "", false
		if variableName(name) {
			value, ok = ps.env.lookupVariable(name)
		}
		switch {
		case ps.failed[key]:
		case !variableName(name):
			ps.fail(key, "not the name of an environment variable", detail{allowed: "${NAME} of letters, digits and _"})
		case !ok:
			ps.fail(key, "the environment variable "+name+" is not set", detail{outside: true,
				hint: "Environment= or EnvironmentFile= in the systemd unit, or url_file and token_file"})
		case value == "":
			ps.fail(key, "the environment variable "+name+" is empty", detail{outside: true})
		}
		return value
	})
	if ps.failed[key] {
		return Secret{}
	}
	return ps.sendableSecret(key, text)
}

func lastKey(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }
