package api

import (
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// limits bound what clients can take. A user other than root may hold half of the connections at most, so nobody can
// lock root out.
type limits struct {
	connections int
	header      time.Duration // to send the headers
	read        time.Duration // to send a whole request
	write       time.Duration // to read an answer, or in a stream one line
	idle        time.Duration // between requests
	backend     time.Duration // for the daemon to answer
	unbanMany   time.Duration // for the daemon to lift many bans
	shutdown    time.Duration // for requests that are under way at the end
	body        int64         // bytes
	headerBytes int
}

func defaultLimits() limits {
	return limits{
		connections: 64, header: 5 * time.Second, read: 10 * time.Second, write: time.Minute, idle: 30 * time.Second,
		backend: 10 * time.Second, unbanMany: unbanManyTimeout, shutdown: 5 * time.Second, body: 16 << 10,
		headerBytes: 8 << 10,
	}
}

// acceptor hands out connections with their peers, and turns away those over the limit at once, rather than letting
// them wait behind clients that hang.
type acceptor struct {
	*Listener
	max int

	mu    sync.Mutex
	total int
	users map[uint32]int
}

func newAcceptor(l *Listener, most int) *acceptor {
	return &acceptor{Listener: l, max: most, users: make(map[uint32]int)}
}

func (a *acceptor) Accept() (net.Conn, error) {
	for {
		c, err := a.unix.AcceptUnix()
		if err != nil {
			return nil, err
		}
		peer, err := peerOf(c)
		if err != nil {
			_ = c.Close()
			continue
		}
		if a.admitPeer(peer.UID) {
			return &peerConn{UnixConn: c, peer: peer, onClose: sync.OnceFunc(func() { a.releasePeer(peer.UID) })}, nil
		}
		rejectBusy(c)
	}
}

func (a *acceptor) Addr() net.Addr { return &net.UnixAddr{Name: a.path, Net: "unix"} }

func (a *acceptor) admitPeer(uid uint32) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.total >= a.max || uid != 0 && a.users[uid] >= a.max/2 {
		return false
	}
	a.total++
	a.users[uid]++
	return true
}

func (a *acceptor) releasePeer(uid uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total--
	if a.users[uid]--; a.users[uid] == 0 {
		delete(a.users, uid)
	}
}

// rejectBusy writes the whole answer without reading the request: it fits into the socket's empty buffer.
func rejectBusy(c *net.UnixConn) {
	const body = `{"error":"too many connections to ringwall","hint":"try again in a few seconds"}` + "\n"
	_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
	_, _ = fmt.Fprintf(c,
		"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		http.StatusServiceUnavailable, http.StatusText(http.StatusServiceUnavailable), len(body), body)
	_ = c.CloseWrite()
	_ = c.Close()
}

type peerConn struct {
	*net.UnixConn
	peer    Peer
	onClose func()
}

func (c *peerConn) Close() error {
	c.onClose()
	return c.UnixConn.Close()
}
