package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/ringwall/ringwall/pkg/fleet"
	"github.com/ringwall/ringwall/pkg/fleet/record"
)

const (
	startTime   = 30 * time.Second
	answerTime  = 10 * time.Second // for the server within this process
	lookEvery   = time.Second      // for who is invited and who is out, and who says too much
	diskEvery   = 2 * time.Second  // for what cannot be written, and then for room
	maxPayload  = 8 << 10          // bytes; a record has a few hundred
	maxPending  = 8 << 20          // bytes that wait for one node
	maxStore    = 2 << 30          // bytes on the disk
	maxMemory   = 64 << 20         // bytes of JetStream's, which keeps its stream on the disk
	maxNodes    = 20_000
	hubUserName = "hub"
)

// Hub is a server at work.
type Hub struct {
	MaxRecords int // of one node that are kept; for Run

	folder  Folder
	log     *slog.Logger
	server  *server.Server
	options server.Options // without users
	own     nkeys.KeyPair  // by which the hub itself is let in
	members members

	forgetting sync.Mutex // of who is at it
	tasks      sync.WaitGroup

	diskError string // why nothing can be kept, as it was logged
}

// Open prepares a server that listens at HOST:PORT.
func Open(folder Folder, listen string, log *slog.Logger) (*Hub, error) {
	h := &Hub{folder: folder, log: log, MaxRecords: DefaultMaxRecords}
	var err error
	if h.members, err = folder.readMembers(); err != nil {
		return nil, err
	}
	certificate, err := folder.certificate()
	if err != nil {
		return nil, err
	}
	host, portText, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port %q: not a number up to 65535", portText)
	}
	if h.own, err = nkeys.CreateUser(); err != nil {
		return nil, err
	}
	h.options = server.Options{
		ServerName: ServerName, Host: host, Port: int(port), NoSigs: true, MaxConn: maxNodes, MaxPayload: maxPayload,
		MaxPending: maxPending, PingInterval: 30 * time.Second, MaxPingsOut: 2,
		JetStream: true, StoreDir: filepath.Join(folder.Path, "jetstream"), JetStreamMaxStore: maxStore,
		JetStreamMaxMemory: maxMemory,
		TLSConfig:          &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		TLSTimeout:         10, AuthTimeout: 20, // seconds, of a machine that is busy
	}
	if h.options.Port == 0 {
		h.options.Port = server.RANDOM_PORT
	}
	o, err := h.withUsers()
	if err != nil {
		return nil, err
	}
	if h.server, err = server.NewServer(o); err != nil {
		return nil, err
	}
	h.server.SetLoggerV2(logger{log}, false, false, false)
	return h, nil
}

// withUsers are the options with who may come in: each node in its own name, and the hub itself.
func (h *Hub) withUsers() (*server.Options, error) {
	o := h.options
	public, err := h.own.PublicKey()
	if err != nil {
		return nil, err
	}
	o.Nkeys = []*server.NkeyUser{{Nkey: public}}
	for _, node := range slices.Sorted(maps.Keys(h.members.Nodes)) {
		o.Nkeys = append(o.Nkeys, &server.NkeyUser{Nkey: h.members.Nodes[node],
			Permissions: permissionsOf(h.members.Fleet, node)})
	}
	return &o, nil
}

// permissionsOf are what a node needs, and no more.
func permissionsOf(fleetName, node string) *server.Permissions {
	stream := fleet.StreamName(fleetName)
	return &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{record.NodeSubjects(fleetName, node),
			record.HeartbeatSubject(fleetName, node), "$JS.API.STREAM.INFO." + stream, "$JS.API.DIRECT.GET." + stream}},
		Subscribe: &server.SubjectPermission{Allow: []string{fleet.LiveSubjects(fleetName),
			record.HeartbeatSubject(fleetName, "*"), "_INBOX.>"}},
	}
}

// Address is where it listens, once it runs.
func (h *Hub) Address() string { return h.server.Addr().String() }

// Run serves until ctx ends. ready is called once nodes can join.
func (h *Hub) Run(ctx context.Context, ready func()) error {
	h.server.Start()
	defer func() {
		h.server.Shutdown()
		h.server.WaitForShutdown()
	}()
	defer h.tasks.Wait()
	if !h.server.ReadyForConnections(startTime) {
		return errors.New("the server does not listen: is its port taken?")
	}
	nc, err := h.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	if err := h.makeStream(ctx, nc); err != nil {
		return err
	}
	q, err := newQuota(nc, h.members.Fleet, h.MaxRecords)
	if err != nil {
		return err
	}
	h.log.Info("the hub works", "address", h.Address(), "fleet", h.members.Fleet, "nodes", len(h.members.Nodes))
	ready()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	disk := time.NewTicker(diskEvery)
	defer disk.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			h.lookForMembers()
			h.forget(ctx, nc)
			h.enforceQuota(ctx, q)
		case <-disk.C:
			h.watchDisk()
		}
	}
}

// enforceQuota says who says more than is kept.
func (h *Hub) enforceQuota(ctx context.Context, q *quota) {
	q.forget(func(node string) bool { _, ok := h.members.Nodes[node]; return ok })
	dropped, err := q.enforce(ctx)
	if err != nil && ctx.Err() == nil {
		h.log.Error("what a node says cannot be bounded yet", "err", err)
	}
	for node, n := range dropped {
		h.log.Warn("a node says more than is kept: its oldest records are dropped; if it is not yours any more: "+
			"ringwall hub revoke "+node, "node", node, "dropped", n, "kept", h.MaxRecords)
	}
}

// makeStream makes the fleet's stream, or brings it to what this version wants.
func (h *Hub) makeStream(ctx context.Context, nc *nats.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	_, err = js.CreateOrUpdateStream(ctx, fleet.StreamConfig(h.members.Fleet))
	return err
}

// connect connects as the operator of the fleet.
func (h *Hub) connect() (*nats.Conn, error) {
	public, err := h.own.PublicKey()
	if err != nil {
		return nil, err
	}
	nc, err := nats.Connect("", nats.InProcessServer(h.server), nats.Name(hubUserName), nats.Nkey(public, h.own.Sign),
		nats.Secure(&tls.Config{InsecureSkipVerify: true}), nats.Timeout(startTime)) // within this process
	if err != nil {
		return nil, fmt.Errorf("the hub does not reach itself: %w", err)
	}
	return nc, nil
}

// forget voids what nodes said, where a person asked for that, beside all else: a stream that does not answer must not
// keep anybody from being cut off. What fails is tried again.
func (h *Hub) forget(ctx context.Context, nc *nats.Conn) {
	if len(h.members.Forget) == 0 || !h.forgetting.TryLock() {
		return
	}
	h.tasks.Go(func() {
		defer h.forgetting.Unlock()
		m, err := h.folder.readMembers() // the others may be done since they were read
		for i := 0; err == nil && i < len(m.Forget); i++ {
			if err = fleet.ForgetBy(ctx, nc, m.Fleet, m.Forget[i]); err == nil {
				err = h.folder.forgotten(m.Forget[i])
			}
			if err == nil {
				h.log.Info("what a node said is forgotten", "node", m.Forget[i])
			}
		}
		if err != nil && ctx.Err() == nil {
			h.log.Error("what a node said cannot be forgotten yet", "err", err)
		}
	})
}

// lookForMembers lets in who was invited, and cuts off who was revoked.
func (h *Hub) lookForMembers() {
	m, err := h.folder.readMembers()
	if err != nil {
		h.log.Error("who is invited cannot be read; those of before stay", "err", err)
		return
	}
	h.members.Forget = m.Forget
	if maps.Equal(m.Nodes, h.members.Nodes) {
		return
	}
	before := h.members
	h.members = m
	o, err := h.withUsers()
	if err == nil {
		err = h.server.ReloadOptions(o)
	}
	if err != nil {
		h.members = before // it is tried again
		h.log.Error("who is invited cannot be taken over", "err", err)
		return
	}
	h.log.Info("who is invited has changed", "nodes", len(m.Nodes))
}

// logger is a server's log.
type logger struct{ log *slog.Logger }

func (l logger) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l logger) Debugf(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l logger) Tracef(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l logger) Warnf(format string, v ...any)   { l.log.Warn(fmt.Sprintf(format, v...)) }
func (l logger) Errorf(format string, v ...any)  { l.log.Error(fmt.Sprintf(format, v...)) }
func (l logger) Fatalf(format string, v ...any)  { l.log.Error(fmt.Sprintf(format, v...)) }
