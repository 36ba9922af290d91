package api

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// Peer is the process at the other end of the socket, as the kernel saw it when it connected (unix(7), SO_PEERCRED).
type Peer struct {
	PID  int32
	UID  uint32
	GID  uint32
	User string // name of UID; empty until it is looked up, or where it has none
}

// String is for a person: "alice (uid 1000, pid 4711)".
func (p Peer) String() string {
	name := p.User
	if name == "" {
		name = "a user without a name"
	}
	return fmt.Sprintf("%s (uid %d, pid %d)", name, p.UID, p.PID)
}

// LogValue makes a group of attributes.
func (p Peer) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("pid", int(p.PID)), slog.Uint64("uid", uint64(p.UID)), slog.String("user", p.User))
}

// withUserName looks the user's name up, which asks whatever nsswitch.conf(5) names: not for the path of every request.
func (p Peer) withUserName() Peer {
	if u, err := user.LookupId(strconv.FormatUint(uint64(p.UID), 10)); err == nil {
		p.User = u.Username
	}
	return p
}

func peerOf(c *net.UnixConn) (Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return Peer{}, err
	}
	if failed != nil {
		return Peer{}, fmt.Errorf("SO_PEERCRED: %w", failed)
	}
	return Peer{PID: cred.Pid, UID: cred.Uid, GID: cred.Gid}, nil
}

type peerKey struct{}

func withPeer(ctx context.Context, p Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

func peerFrom(ctx context.Context) Peer {
	p, _ := ctx.Value(peerKey{}).(Peer)
	return p
}
