package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/user"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/engine"
)

// DefaultSocket is where the daemon listens unless control.socket says otherwise.
const DefaultSocket = "/run/ringwall/ringwall.sock"

const (
	defaultTimeout   = 15 * time.Second // longer than the server gives its backend
	unbanManyTimeout = 2 * time.Minute  // for letting hundreds of thousands in, to the kernel and to the disk
	maxErrorBody     = 64 << 10         // bytes
)

// Client asks the daemon. Its errors are [*Error]s with a hint for the person who typed the command. It keeps no
// connection, and may be used from many goroutines.
type Client struct {
	Socket  string        // DefaultSocket if empty
	Timeout time.Duration // of one request, in a list of one line, 15 s if 0; Follow has none
}

// Status asks how the daemon is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return requestOne[Status](ctx, c, http.MethodGet, "/v1/status", nil, nil)
}

// Bans asks for the active bans, the newest first.
func (c *Client) Bans(ctx context.Context, filter BanFilter) ([]ban.Ban, error) {
	return collectAll(func(each func(ban.Ban) error) error { return c.EachBan(ctx, filter, each) })
}

// EachBan is Bans for lists of any length: it calls each with one after the other as they come, until it returns an
// error.
func (c *Client) EachBan(ctx context.Context, filter BanFilter, each func(ban.Ban) error) error {
	q := url.Values{}
	if filter.Within.IsValid() {
		q.Set("within", filter.Within.String())
	}
	if filter.Evidence {
		q.Set("evidence", "true")
	}
	return streamLines(ctx, c, "/v1/bans", q, each)
}

// Trusted asks for the trusted sources, in no order.
func (c *Client) Trusted(ctx context.Context) ([]ban.Trust, error) {
	return collectAll(func(each func(ban.Trust) error) error { return c.EachTrusted(ctx, each) })
}

// EachTrusted is Trusted for lists of any length; see EachBan.
func (c *Client) EachTrusted(ctx context.Context, each func(ban.Trust) error) error {
	return streamLines(ctx, c, "/v1/trusted", nil, each)
}

// EachRestricted asks for what is cut or slow within a prefix, or for all where it is not valid, in no order; see
// EachBan.
func (c *Client) EachRestricted(ctx context.Context, within netip.Prefix, each func(ban.Restriction) error) error {
	q := url.Values{}
	if within.IsValid() {
		q.Set("within", within.String())
	}
	return streamLines(ctx, c, "/v1/restricted", q, each)
}

// Allowed asks for the allow list.
func (c *Client) Allowed(ctx context.Context) ([]ban.Exemption, error) {
	return requestList[ban.Exemption](ctx, c, "/v1/allowed")
}

// Protected asks for what Asterisk knows and Ringwall therefore never bans.
func (c *Client) Protected(ctx context.Context) ([]ban.Exemption, error) {
	return requestList[ban.Exemption](ctx, c, "/v1/protected")
}

// Ban bans a prefix; By is left to the kernel. It returns once packets are dropped.
func (c *Client) Ban(ctx context.Context, req BanRequest) (BanResult, error) {
	body := banBody{Prefix: req.Prefix.String(), For: secondsOrNil(req.For), Reason: req.Reason, Force: req.Force}
	if req.Session.IsValid() {
		body.Session = req.Session.String()
	}
	return requestOne[BanResult](ctx, c, http.MethodPost, "/v1/ban", nil, body)
}

// Unban lifts bans; By is left to the kernel. It returns once packets pass.
func (c *Client) Unban(ctx context.Context, req UnbanRequest) (UnbanResult, error) {
	body := unbanBody{All: req.All, Grace: secondsOrNil(req.Grace), Fleet: req.Fleet, Here: req.Here}
	switch {
	case req.Flow.IsValid():
		body.Flow = req.Flow.String()
	case !req.All:
		body.Prefix = req.Prefix.String()
	}
	if req.mayLiftMany() {
		patientClient := *c
		patientClient.Timeout = max(c.timeoutOrDefault(), unbanManyTimeout+defaultTimeout)
		c = &patientClient
	}
	return requestOne[UnbanResult](ctx, c, http.MethodPost, "/v1/unban", nil, body)
}

// Allow changes the allow list; By is left to the kernel. It returns once packets pass.
func (c *Client) Allow(ctx context.Context, req AllowRequest) (AllowResult, error) {
	body := allowBody{Target: req.Host, For: secondsOrNil(req.For), Remove: req.Remove}
	if req.Host == "" {
		body.Target = req.Prefix.String()
	}
	return requestOne[AllowResult](ctx, c, http.MethodPost, "/v1/allow", nil, body)
}

// Why asks what the daemon knows about an address.
func (c *Client) Why(ctx context.Context, addr netip.Addr) (engine.Explanation, error) {
	return requestOne[engine.Explanation](ctx, c, http.MethodGet, "/v1/why", url.Values{"address": {addr.String()}},
		nil)
}

// Account asks from where an account was tried or logged in.
func (c *Client) Account(ctx context.Context, name string) (AccountResult, error) {
	return requestOne[AccountResult](ctx, c, http.MethodGet, "/v1/account", url.Values{"name": {name}}, nil)
}

// Page asks where the status page is; By is left to the kernel.
func (c *Client) Page(ctx context.Context) (PageResult, error) {
	return requestOne[PageResult](ctx, c, http.MethodPost, "/v1/page", nil, nil)
}

// History asks for past decisions, oldest first; an addr that is not valid means all sources.
func (c *Client) History(ctx context.Context, since time.Time, addr netip.Addr) ([]ban.Decision, error) {
	return collectAll(func(each func(ban.Decision) error) error { return c.EachDecision(ctx, since, addr, each) })
}

// EachDecision is History for any number of decisions; see EachBan.
func (c *Client) EachDecision(ctx context.Context, since time.Time, addr netip.Addr,
	each func(ban.Decision) error) error {
	q := url.Values{}
	if !since.IsZero() {
		q.Set("since", since.UTC().Format(time.RFC3339Nano))
	}
	if addr.IsValid() {
		q.Set("address", addr.String())
	}
	return streamLines(ctx, c, "/v1/history", q, each)
}

// Follow calls each with decisions as they are made, after those since a time unless it is zero, until ctx ends, each
// returns an error, or the daemon stops. Where some are missing, because the reader was too slow, it calls lost, if
// that is not nil, with their number.
func (c *Client) Follow(ctx context.Context, since time.Time, each func(ban.Decision) error,
	lost func(int) error) error {
	q := url.Values{}
	if !since.IsZero() {
		q.Set("since", since.UTC().Format(time.RFC3339Nano))
	}
	return c.sendRequest(ctx, http.MethodGet, "/v1/decisions", q, nil, func(r io.Reader) error {
		return eachLine(r, func(l streamLine) error {
			switch {
			case l.lost == 0:
				return each(l.decision)
			case lost != nil:
				return lost(l.lost)
			}
			return nil
		})
	})
}

// lazyConn is a connection on which nothing is read before something was written. A daemon that is too busy answers
// without waiting for the question, and http.Transport would take that for a defect and complain on stderr.
type lazyConn struct {
	net.Conn
	asked chan struct{}
	ask   func() // closes asked
}

func (a *lazyConn) Read(p []byte) (int, error) {
	<-a.asked
	return a.Conn.Read(p)
}

func (a *lazyConn) Write(p []byte) (int, error) {
	defer a.ask()
	return a.Conn.Write(p)
}

func (a *lazyConn) Close() error {
	defer a.ask()
	return a.Conn.Close()
}

func requestOne[T any](ctx context.Context, c *Client, method, path string, q url.Values, body any) (T, error) {
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	var out T
	err := c.sendRequest(ctx, method, path, q, body, func(r io.Reader) error { return json.NewDecoder(r).Decode(&out) })
	return out, err
}

func requestList[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	return collectAll(func(each func(T) error) error { return streamLines(ctx, c, path, nil, each) })
}

// collectAll collects what ask hands to each in a list.
func collectAll[T any](ask func(each func(T) error) error) (out []T, err error) {
	err = ask(func(v T) error {
		out = append(out, v)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// streamLines reads a list that may be long: the daemon has its time for each line, not for all of them, and what the
// caller does with a line does not count.
func streamLines[T any](ctx context.Context, c *Client, path string, q url.Values, each func(T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(c.timeoutOrDefault(), func() { cancel(context.DeadlineExceeded) })
	defer silent.Stop()
	return c.sendRequest(ctx, http.MethodGet, path, q, nil, func(r io.Reader) error {
		return eachLine(r, func(v T) error {
			silent.Stop()
			err := each(v)
			silent.Reset(c.timeoutOrDefault())
			return err
		})
	})
}

func eachLine[T any](r io.Reader, each func(T) error) error {
	dec := json.NewDecoder(r)
	for {
		var v T
		if err := dec.Decode(&v); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := each(v); err != nil {
			return callerError{err}
		}
	}
}

// callerError marks an error of the function that the caller gave: it is returned as it is, without an explanation for
// connections.
type callerError struct{ error }

func (c *Client) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.timeoutOrDefault())
}

func (c *Client) timeoutOrDefault() time.Duration {
	if c.Timeout == 0 {
		return defaultTimeout
	}
	return c.Timeout
}

func (c *Client) socketPath() string {
	if c.Socket == "" {
		return DefaultSocket
	}
	return c.Socket
}

func (c *Client) sendRequest(ctx context.Context, method, path string, q url.Values, body any,
	read func(io.Reader) error) error {
	text := []byte(nil)
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	// The host is not used: every connection goes to the socket.
	to := url.URL{Scheme: "http", Host: "ringwall", Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, to.String(), bytes.NewReader(text))
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "unix", c.socketPath())
			if err != nil {
				return nil, err
			}
			asked := make(chan struct{})
			return &lazyConn{Conn: conn, asked: asked, ask: sync.OnceFunc(func() { close(asked) })}, nil
		},
	}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return c.explainFailure(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		e := &Error{Code: resp.StatusCode}
		if err := json.NewDecoder(io.LimitReader(resp.Body, maxErrorBody)).Decode(e); err != nil || e.Message == "" {
			e.Message = "the daemon answered " + resp.Status
		}
		return e
	}
	if err := read(resp.Body); err != nil {
		var s callerError
		if errors.As(err, &s) {
			return s.error
		}
		return c.explainFailure(ctx, err)
	}
	return nil
}

// explainFailure turns what the operating system says into what a person can do about it.
func (c *Client) explainFailure(ctx context.Context, err error) error {
	socket := c.socketPath()
	switch {
	case errors.Is(ctx.Err(), context.Canceled) && !errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return ctx.Err()
	case errors.Is(err, fs.ErrNotExist):
		return &Error{
			Message: "the daemon does not answer: there is no socket " + socket,
			Err:     fmt.Errorf("%w: %w", ErrNotRunning, err),
			Try:     "is it running? systemctl status ringwall; with another control.socket, name it by --socket",
		}
	case errors.Is(err, unix.ECONNREFUSED):
		return &Error{
			Message: "the daemon does not answer: nobody listens on " + socket,
			Err:     fmt.Errorf("%w: %w", ErrNotRunning, err),
			Try:     "it has stopped: systemctl status ringwall, journalctl -u ringwall",
		}
	case errors.Is(err, fs.ErrPermission):
		return &Error{
			Message: "you may not use " + socket, Err: fmt.Errorf("%w: %w", ErrPermission, err),
			Try: permissionHint(socket),
		}
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil:
		return &Error{
			Message: "the daemon took too long to answer on " + socket, Err: fmt.Errorf("%w: %w", ErrTimeout, err),
			Try: "is it hanging? systemctl status ringwall, journalctl -u ringwall",
		}
	case errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EAGAIN) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return &Error{
			Message: "the daemon closed the connection before it answered in full",
			Err:     fmt.Errorf("%w: %w", ErrBusy, err),
			Try: "it is stopping, serves too many others, or has waited a minute for its reader: try again, then " +
				"systemctl status ringwall",
		}
	}
	return &Error{
		Message: fmt.Sprintf("no answer that makes sense from %s: %v", socket, err), Err: err,
		Try: "does ringwall listen there? ringwall check --print shows control.socket",
	}
}

// permissionHint names the socket's group where it can be seen.
func permissionHint(socket string) string {
	const asRoot = "run it as root (sudo)"
	info, err := os.Stat(socket)
	if err != nil {
		return asRoot
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Gid == 0 {
		return asRoot + ", or set control.group to a group that you are in and restart ringwall"
	}
	id := strconv.FormatUint(uint64(st.Gid), 10)
	name := id
	if g, err := user.LookupGroupId(id); err == nil {
		name = g.Name
	}
	return fmt.Sprintf("%s, or add yourself to the group %s (sudo usermod -aG %s NAME) and log in again", asRoot, name,
		name)
}

func secondsOrNil(d time.Duration) *float64 {
	if d == 0 {
		return nil
	}
	s := d.Seconds()
	return &s
}
