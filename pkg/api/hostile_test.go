package api

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

func dial(t *testing.T, socket string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func TestClientsThatHangBlockNobody(t *testing.T) {
	f := &fake{list: make([]ban.Ban, 20000)}
	for i := range f.list {
		f.list[i] = ban.Ban{Prefix: netip.MustParsePrefix("203.0.113.5/32"), Comment: strings.Repeat("x", 100)}
	}
	r := start(t, f, nil)
	for range 6 {
		dial(t, r.client.Socket)                                                                                        // says nothing
		send(t, dial(t, r.client.Socket), "GET /v1/sta")                                                                // half a line
		send(t, dial(t, r.client.Socket), "POST /v1/ban HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"prefix\"") // half a body
		send(t, dial(t, r.client.Socket), "GET /v1/bans HTTP/1.1\r\nHost: x\r\n\r\n")                                   // reads nothing
	}
	if _, err := r.client.Status(t.Context()); err != nil {
		t.Errorf("behind 24 clients that hang: %v", err)
	}
	if len(f.bans) != 0 {
		t.Errorf("half a request had an effect: %+v", f.bans)
	}
}

func TestTooManyConnectionsAreTurnedAwayAtOnce(t *testing.T) {
	r := start(t, &fake{}, func(s *Server) { s.limits.connections = 4 })
	var held []net.Conn
	for range 4 {
		c := dial(t, r.client.Socket)
		// An answer shows that the server has counted the connection.
		send(t, c, "GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := bufio.NewReader(c).ReadString('}'); err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	if _, err := r.client.Status(t.Context()); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	_ = held[0].Close()
	for r.client.Timeout = time.Second; ; {
		// The server learns of the close by itself; there is no event for us to wait for.
		_, err := r.client.Status(t.Context())
		if err == nil {
			break
		}
		if !errors.Is(err, ErrBusy) || t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

func TestNobodyCanLockRootOut(t *testing.T) {
	a := newAcceptor(nil, 8)
	n := 0
	for a.admitPeer(1000) {
		n++
	}
	if n != 4 {
		t.Errorf("one user got %d of 8 connections", n)
	}
	if !a.admitPeer(0) {
		t.Error("root was turned away")
	}
	a.releasePeer(1000)
	if !a.admitPeer(1000) {
		t.Error("a connection that ended still counts")
	}
}

func TestClientsThatDawdleAreCutOff(t *testing.T) {
	r := start(t, &fake{}, func(s *Server) {
		s.limits.header, s.limits.read, s.limits.idle = 20*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
	})
	for name, text := range map[string]string{
		"says nothing":  "",
		"half a line":   "GET /v1/sta",
		"half a body":   "POST /v1/ban HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
		"stays for tea": "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, r.client.Socket)
			send(t, c, text)
			if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("not closed but %v", err)
			}
		})
	}
}

func TestHugeHeadersAreRefused(t *testing.T) {
	r := start(t, &fake{}, nil)
	c := dial(t, r.client.Socket)
	go func() {
		// The server may close before it has read all of this.
		_, _ = io.WriteString(c, "GET /v1/status HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 1<<20)+"\r\n\r\n")
	}()
	line, err := bufio.NewReader(c).ReadString('\n')
	if !strings.Contains(line, " 431 ") && !strings.Contains(errText(err), "reset") {
		t.Errorf("got %q, %v", line, err)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestAnswersHoldNoByteThatATerminalObeys(t *testing.T) {
	f := &fake{list: []ban.Ban{{Accounts: []string{"\x1b[2J\u009b2J\u202e\xff\x7f"}}}}
	r := start(t, f, nil)
	_, text := raw(t, r.client.Socket, "GET", "/v1/bans", "")
	for _, b := range []byte(text) {
		if b != '\n' && (b < ' ' || b > '~') {
			t.Fatalf("%q", text)
		}
	}
	bans, err := r.client.Bans(t.Context(), BanFilter{})
	if err != nil || bans[0].Accounts[0] != "\x1b[2J\u009b2J\u202e\ufffd\x7f" {
		t.Errorf("%+v, %v", bans, err)
	}
}
