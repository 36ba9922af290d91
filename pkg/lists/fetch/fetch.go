package fetch

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/lists"
	"github.com/ringwall/ringwall/pkg/printable"
	"github.com/ringwall/ringwall/pkg/retryafter"
)

// Bounds of a fetch.
const (
	fetchTime     = 2 * time.Minute // all of it, however slowly a server drips
	maxRedirects  = 3
	maxRetryAfter = 24 * time.Hour
	maxShown      = 80 // bytes of an answer that is no list
	// APIBAN allows 11 requests in 2 minutes.
	apibanPause   = 12 * time.Second
	apibanBatches = 200 // of 250 addresses in one go; what is left comes the next time
	apibanStart   = "100"
)

// fetcher gets lists.
type fetcher struct {
	client *http.Client
	pause  time.Duration // between APIBAN's batches
	time   time.Duration // for one request
	now    func() time.Time
}

func newFetcher() *fetcher {
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 20 * time.Second}).DialContext,
		TLSHandshakeTimeout: 20 * time.Second, ResponseHeaderTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		first := via[0].URL
		if r.URL.Scheme != first.Scheme || r.URL.Host != first.Host {
			return fmt.Errorf("it sends to another host, %s", printable.String(r.URL.Host))
		}
		if len(via) > maxRedirects {
			return errors.New("it sends around in circles")
		}
		return nil
	}}
	return &fetcher{client: client, pause: apibanPause, time: fetchTime, now: time.Now}
}

// retryError is a server that says when to come again.
type retryError struct {
	err   error
	after time.Duration
}

func (e *retryError) Error() string { return e.err.Error() }
func (e *retryError) Unwrap() error { return e.err }

// get fetches a list. last is the last good copy, nil for none. A copy that is returned is good, also beside an error;
// it is last where nothing is new. accept takes a list that changed by more than a list does. save is called with what
// is to outlast this process while there is more to come.
func (f *fetcher) get(ctx context.Context, s *Source, last *Copy, accept bool, save func(*Copy)) (*Copy, error) {
	switch {
	case s.File != "":
		return f.readFile(s, last, accept)
	case s.Format == lists.APIBAN:
		return f.apiban(ctx, s, last, save)
	}
	u, err := s.address()
	if err != nil {
		return nil, err
	}
	if accept {
		last = forAnother(last)
	}
	r, err := f.ask(ctx, s, u, last)
	if err != nil {
		return nil, err
	}
	defer r.close()
	switch {
	case r.StatusCode == http.StatusNotModified && last != nil:
		return last.again(f.now()), nil
	case r.StatusCode != http.StatusOK:
		return nil, r.failure(f.now())
	}
	c, err := f.read(s, r.body(s), last, accept)
	if err != nil {
		return nil, err
	}
	c.ETag, c.LastModified = oneLine(r.Header.Get("ETag")), oneLine(r.Header.Get("Last-Modified"))
	return c, nil
}

// forAnother is a copy that a server is not told of.
func forAnother(c *Copy) *Copy {
	if c == nil {
		return nil
	}
	n := *c
	n.ETag, n.LastModified = "", ""
	return &n
}

// again is a copy of which the server has nothing newer.
func (c *Copy) again(now time.Time) *Copy {
	n := *c
	n.Fetched = now
	return &n
}

// oneLine is a header that may be sent back and kept.
func oneLine(s string) string {
	if len(s) > 256 {
		return ""
	}
	return s
}

// read parses a list, and holds it against the last one.
func (f *fetcher) read(s *Source, body io.Reader, last *Copy, accept bool) (*Copy, error) {
	now := f.now()
	p, err := lists.Parse(s.Format, body, s.limits(), now)
	if err != nil {
		return nil, unwrapURL(err)
	}
	if len(p.Entries) == 0 && s.Format != lists.CrowdSec {
		return nil, fmt.Errorf("%w: nothing is in it", lists.ErrNoList)
	}
	c := &Copy{header: header{Identity: s.identity(), Fetched: now, Changed: now, Credit: p.Credit, Bad: p.Bad,
		Sample: p.Sample}}
	c.Entries, c.LeftOut = lists.Clean(p.Entries, s.MaxPrefix)
	c.Entries = slices.Clip(c.Entries)
	if last != nil && !accept {
		if err := lists.Accept(len(last.Entries), len(c.Entries)); err != nil {
			return nil, err
		}
	}
	if last != nil && slices.Equal(last.Entries, c.Entries) {
		c.Changed = last.Changed
	}
	return c, nil
}

// readFile reads a list of this machine.
func (f *fetcher) readFile(s *Source, last *Copy, accept bool) (*Copy, error) {
	file, err := os.Open(s.File)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", s.File)
	}
	stamp := fmt.Sprintf("%d %d", info.ModTime().UnixNano(), info.Size())
	if last != nil && last.LastModified == stamp {
		return last.again(f.now()), nil
	}
	c, err := f.read(s, file, last, accept)
	if err != nil {
		return nil, err
	}
	c.LastModified = stamp
	return c, nil
}

// response is an answer whose time is bounded.
type response struct {
	*http.Response
	cancel context.CancelFunc
}

func (r *response) close() {
	_ = r.Body.Close()
	r.cancel()
}

// ask sends a request.
func (f *fetcher) ask(ctx context.Context, s *Source, u *url.URL, last *Copy) (*response, error) {
	ctx, cancel := context.WithTimeout(ctx, f.time)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		cancel()
		return nil, errors.New("the url cannot be read")
	}
	r.Header.Set("User-Agent", "ringwall/1 (ringwall on github.com)") // a LAPI warns of more than one slash
	if last != nil && last.ETag != "" {
		r.Header.Set("If-None-Match", last.ETag)
	}
	if last != nil && last.LastModified != "" {
		r.Header.Set("If-Modified-Since", last.LastModified)
	}
	if s.Key != "" && !strings.Contains(s.URL, KeyPlace) {
		if user, password, ok := strings.Cut(s.Key, ":"); ok {
			r.SetBasicAuth(user, password)
		} else {
			r.Header.Set("X-Api-Key", s.Key)
		}
	}
	answer, err := f.client.Do(r)
	if err != nil {
		cancel()
		return nil, unwrapURL(err)
	}
	return &response{answer, cancel}, nil
}

// unwrapURL takes the URL out of an error: it may hold a key.
func unwrapURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("the server takes too long")
	}
	return err
}

// body is what may be read of an answer.
func (r *response) body(s *Source) io.Reader {
	if r.ContentLength > s.limits().Bytes {
		return failingReader{fmt.Errorf("%w: %d bytes", lists.ErrTooLarge, r.ContentLength)}
	}
	return r.Body
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

// failure is what an answer that is no list says.
func (r *response) failure(now time.Time) error {
	text, _ := io.ReadAll(io.LimitReader(r.Body, maxShown))
	err := fmt.Errorf("the server says %s: %s", printable.String(r.Status), printable.Quote(string(text)))
	switch r.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return hint.Errorf("key_file: the key that the list's provider gave you", "%w", err)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return &retryError{err, retryafter.Parse(r.Header.Get("Retry-After"), now, maxRetryAfter)}
	}
	return err
}

// apiban fetches the batches that are new. Each is good by itself, and is kept with the cursor behind it.
func (f *fetcher) apiban(ctx context.Context, s *Source, last *Copy, save func(*Copy)) (*Copy, error) {
	base, err := s.address()
	if err != nil {
		return nil, err
	}
	c := &Copy{header: header{Identity: s.identity(), Changed: f.now()}}
	if last != nil {
		*c = *last
		// Without its addresses the cursor is worth nothing, be it that the machine was off for long or that its clock
		// was wrong when they came.
		if c.Entries = living(last.Entries, f.now(), s.TTL); len(c.Entries) == 0 {
			c.Cursor = ""
		}
	}
	fetched := func() *Copy {
		n := *c
		n.Fetched = f.now()
		return &n
	}
	for n := range apibanBatches {
		if n > 0 {
			select {
			case <-ctx.Done():
				return changedCopy(c, last), ctx.Err()
			case <-time.After(f.pause):
			}
		}
		p, err := f.apibanBatch(ctx, s, base.JoinPath(cmp.Or(c.Cursor, apibanStart)))
		if err != nil {
			return changedCopy(c, last), err
		}
		if p == nil || p.Cursor == "" && len(p.Entries) == 0 {
			return fetched(), nil
		}
		next, err := f.withBatch(s, c, p)
		if err != nil {
			return changedCopy(c, last), err
		}
		stands := p.Cursor == "" || p.Cursor == c.Cursor
		c = next
		if stands {
			return fetched(), nil
		}
		save(c)
	}
	return fetched(), nil
}

// living are the entries that are not over. None lives for longer than from now on, as one would that came while the
// clock was ahead.
func living(entries []lists.Entry, now time.Time, ttl time.Duration) []lists.Entry {
	all := make([]lists.Entry, 0, len(entries))
	for _, e := range entries {
		switch ends := e.Ends(); {
		case !ends.After(now):
		case ends.After(now.Add(ttl)):
			all = append(all, lists.NewEntry(e.Prefix(), now.Add(ttl)))
		default:
			all = append(all, e)
		}
	}
	return all
}

// changedCopy is what was fetched before an error, nil where that is nothing.
func changedCopy(c, last *Copy) *Copy {
	if last != nil && c.Cursor == last.Cursor || c.Cursor == "" {
		return nil
	}
	return c
}

// apibanBatch fetches one batch, nil where there is no further one: that is told with status 400.
func (f *fetcher) apibanBatch(ctx context.Context, s *Source, u *url.URL) (*lists.Parsed, error) {
	r, err := f.ask(ctx, s, u, nil)
	if err != nil {
		return nil, err
	}
	defer r.close()
	switch r.StatusCode {
	case http.StatusOK:
		p, err := lists.Parse(lists.APIBAN, r.body(s), s.limits(), f.now())
		return p, unwrapURL(err)
	case http.StatusBadRequest:
		text, _ := io.ReadAll(io.LimitReader(r.Body, 1024))
		if s := strings.ToLower(string(text)); strings.Contains(s, "no new bans") || strings.Contains(s, "none") {
			return nil, nil
		}
		return nil, fmt.Errorf("the server says %s: %s", printable.String(r.Status),
			printable.Quote(string(text[:min(len(text), maxShown)])))
	}
	return nil, r.failure(f.now())
}

// withBatch is a copy with one batch more. Its addresses live for TTL from now on.
func (f *fetcher) withBatch(s *Source, c *Copy, p *lists.Parsed) (*Copy, error) {
	now := f.now()
	entries, left := lists.Clean(p.Entries, s.MaxPrefix)
	renewed := make(map[netip.Prefix]bool, len(entries))
	all := make([]lists.Entry, 0, len(c.Entries)+len(entries))
	for _, e := range entries {
		renewed[e.Prefix()] = true
		all = append(all, lists.NewEntry(e.Prefix(), now.Add(s.TTL)))
	}
	for _, e := range c.Entries {
		if !renewed[e.Prefix()] && e.Ends().After(now) {
			all = append(all, e)
		}
	}
	if len(all) > s.MaxEntries {
		return nil, fmt.Errorf("%w: more than %d entries", lists.ErrTooLarge, s.MaxEntries)
	}
	lists.Sort(all)
	n := *c
	n.Entries, n.LeftOut = all, c.LeftOut.With(left)
	n.Bad, n.Changed = c.Bad+p.Bad, now
	if p.Cursor != "" {
		n.Cursor = p.Cursor
	}
	return &n, nil
}
