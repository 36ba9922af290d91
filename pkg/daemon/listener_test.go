package daemon

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// descriptors returns how many connections a test may hold: as many as it wants, or fewer where this machine allows no
// more.
func descriptors(t *testing.T, want int) int {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	return min(want, int(min(limit.Cur, 1<<20))-500)
}

func (r *rig) metricsAddress() string { return strings.TrimPrefix(r.site(), "http://") }

func open(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// A local user who opens connections to metrics.listen takes neither the descriptors that Asterisk, the kernel and the
// control socket need, nor Prometheus' place.
func TestCrowdAtTheMetricsLocksNobodyOut(t *testing.T) {
	for name, request := range map[string]string{
		"that ask once and stay": "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"that say nothing":       "",
		"that say half a word":   "GET /met",
		"that look at the page":  "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.until("the page serves", func() bool { return r.d.kernelError() == nil })
			address := r.metricsAddress()
			before, crowd := open(t), descriptors(t, 4500)
			conns := make([]net.Conn, 0, crowd)
			defer func() {
				for _, c := range conns {
					_ = c.Close()
				}
			}()
			for range crowd {
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				conns = append(conns, c)
				_, _ = io.WriteString(c, request) // those who had to go do not hear it
			}
			r.until("only some are let in", func() bool { return open(t)-before-crowd <= maxConns+8 })
			if s, err := r.client.Status(t.Context()); err != nil || !s.PBXs[0].Up {
				t.Errorf("status: %v", err)
			}
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
			r.until("a scrape succeeds", func() bool {
				resp, err := client.Get("http://" + address + "/metrics")
				if err != nil {
					return false
				}
				defer func() { _ = resp.Body.Close() }()
				text, err := io.ReadAll(resp.Body)
				return err == nil && resp.StatusCode == http.StatusOK && strings.Contains(string(text), "ringwall_")
			})
		})
	}
}

// Who is being served keeps his place, whoever comes.
func TestWhoIsServedKeepsHisPlace(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served, end := make(chan struct{}), make(chan struct{})
	m := &metricsServer{listener: newBoundedListener(l, nil),
		handler: markServing(http.HandlerFunc(func(w http.ResponseWriter,
			_ *http.Request) {
			close(served)
			<-end
			_, _ = io.WriteString(w, "here you are")
		}))}
	m.listener.(*boundedListener).lastWarned = time.Now().Add(time.Hour)
	go func() { _ = m.Run(t.Context()) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	<-served
	for range 3 * maxConns {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
	}
	close(end)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "here you are" {
		t.Errorf("%q, %v", text, err)
	}
}
