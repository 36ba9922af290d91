package notify

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/notify/message"
	"github.com/ringwall/ringwall/pkg/printable"
	"github.com/ringwall/ringwall/pkg/retryafter"
)

const (
	maxAnswerRead   = 4 << 10 // bytes that are read of an answer
	maxAnswerLogged = 200     // columns of it in the log
	// maxRetryAfter bounds what a server can ask for with Retry-After.
	maxRetryAfter = 15 * time.Minute
)

// webhookSender sends messages to a web address.
type webhookSender struct {
	cfg      config.Notify
	template *message.Template
	client   *http.Client
	secrets  []string // that no log may show
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

func newWebhook(cfg config.Notify, dial dialFunc) (*webhookSender, error) {
	w := &webhookSender{cfg: cfg}
	var err error
	if cfg.Body != "" {
		w.template, err = message.Parse(cfg.Body, cfg.ContentType, cfg.Actions)
	} else {
		w.template, err = message.ReadyTemplate(cfg.Template)
	}
	if err != nil {
		return nil, fmt.Errorf("the body: %w", err)
	}
	trust, err := trustOf(cfg)
	if err != nil {
		return nil, err
	}
	w.client = &http.Client{
		// Messages are rare, so that a connection is not worth keeping.
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: dial, TLSClientConfig: trust,
			DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10},
		// A redirect would carry the token to whatever place it names.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	w.secrets = secretsOf(&cfg)
	return w, nil
}

// secretsOf lists the secrets of a target, and the parts of its address that may be some.
func secretsOf(cfg *config.Notify) []string {
	var list []string
	add := func(s string) {
		if len(s) >= 4 {
			list = append(list, s)
		}
	}
	for _, s := range cfg.Tokens() {
		add(s.Reveal())
	}
	if u, err := url.Parse(cfg.URL.Reveal()); err == nil {
		for _, p := range []string{u.Path, u.EscapedPath(), u.RawQuery} {
			for part := range strings.FieldsFuncSeq(p, func(r rune) bool { return strings.ContainsRune("/&=", r) }) {
				if len(part) >= 8 {
					add(part)
				}
			}
		}
		if u.User != nil {
			password, _ := u.User.Password()
			add(u.User.Username())
			add(password)
		}
	}
	return list
}

func (w *webhookSender) sendMessage(ctx context.Context, m message.Message) error {
	body, err := w.template.Render(m, w.cfg.To, w.cfg.Token.Reveal())
	if err != nil {
		return &failure{cause: "the template " + err.Error(), permanent: true}
	}
	address := strings.ReplaceAll(w.cfg.URL.Reveal(), config.IDPlace, url.PathEscape(m.ID))
	method := w.cfg.Method
	if method == "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return &failure{cause: "url is not a web address", permanent: true}
	}
	req.GetBody = nil // so that the transport does not send it a second time by itself
	req.Header.Set("User-Agent", "ringwall")
	req.Header.Set("Content-Type", w.cfg.ContentType)
	if token := w.cfg.Token.Reveal(); token != "" && !w.template.UsesToken() {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for name, value := range w.cfg.Headers {
		req.Header.Set(name, value.Reveal())
	}
	res, err := w.client.Do(req)
	if err != nil {
		return networkFailure(err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswerRead))
	if res.StatusCode/100 == 2 {
		return nil
	}
	f := &failure{cause: "HTTP " + strconv.Itoa(res.StatusCode), output: w.printableAnswer(answer), permanent: true}
	switch code := res.StatusCode; {
	case code/100 == 3:
		f.cause += ", a redirect, which is not followed; url has to be where it leads"
	case code == http.StatusRequestTimeout || code == http.StatusTooEarly || code == http.StatusTooManyRequests ||
		code/100 == 5:
		f.permanent, f.retryAfter = false, retryafter.Parse(res.Header.Get("Retry-After"),
			time.Now(), maxRetryAfter)
	}
	return f
}

func (w *webhookSender) close() { w.client.CloseIdleConnections() }

// printableAnswer is what a server answered, for the log; nothing if a secret is in it.
func (w *webhookSender) printableAnswer(answer []byte) string {
	text := string(answer)
	for _, s := range w.secrets {
		if strings.Contains(text, s) {
			return "(hidden)"
		}
	}
	return printable.Limit(strings.TrimSpace(text), maxAnswerLogged)
}
