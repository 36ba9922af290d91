package api

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serveRaw answers each connection with the same bytes and closes it.
func serveRaw(t *testing.T, answer string) *Client {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "r.sock"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadAtLeast(c, make([]byte, 4096), 1)
			_, _ = io.WriteString(c, answer)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return &Client{Socket: l.Addr().String()}
}

func TestTheClientSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "stale"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	_ = stale.Close()
	hung, err := net.Listen("unix", filepath.Join(dir, "hung"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hung.Close() }()

	for name, row := range map[string]struct {
		client *Client
		is     error
		hint   string
	}{
		"no socket": {&Client{Socket: filepath.Join(dir, "none")}, ErrNotRunning,
			"is it running? systemctl status ringwall"},
		"nobody behind it": {&Client{Socket: stale.Addr().String()}, ErrNotRunning, "it has stopped"},
		"it hangs": {&Client{Socket: hung.Addr().String(), Timeout: 20 * time.Millisecond}, ErrTimeout,
			"is it hanging?"},
		"it closes": {serveRaw(t, ""), ErrBusy, "try again"},
		"half an answer": {serveRaw(t, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"version\":"), ErrBusy,
			"try again"},
		"no HTTP": {serveRaw(t, "220 mail.example.org ESMTP\r\n"), nil, "does ringwall listen there?"},
		"no JSON": {serveRaw(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"), nil,
			"does ringwall listen there?"},
		"an error as text": {serveRaw(t, "HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno"), ErrRefused, ""},
		"too many at a time": {serveRaw(t, "HTTP/1.1 503 Busy\r\nContent-Length: "+
			"27\r\n\r\n{\"error\":\"e\",\"hint\":\"soon\"}"), ErrBusy, "soon"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := row.client.Status(t.Context())
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(e.Try, row.hint) || row.is != nil && !errors.Is(err, row.is) {
				t.Errorf("got %#v", err)
			}
		})
	}
}

func TestAListThatBreaksOffIsNoList(t *testing.T) {
	c := serveRaw(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n18\r\n{\"prefix\":\"192.0.2.0/24\"}\n\r\n")
	if l, err := c.Allowed(t.Context()); err == nil || l != nil {
		t.Errorf("got %v, %v", l, err)
	}
}
