package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/fleet"
	"github.com/ringwall/ringwall/pkg/fleet/hub"
	"github.com/ringwall/ringwall/pkg/fleet/record"
)

// startHub runs a hub of the fleet acme, and returns the section of a node that it invited.
func startHub(t *testing.T) (folder hub.Folder, section string) {
	t.Helper()
	folder = hub.Folder{Path: filepath.Join(t.TempDir(), "hub")}
	if _, err := folder.Prepare("acme"); err != nil {
		t.Fatal(err)
	}
	h, err := hub.Open(folder, "127.0.0.1:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- h.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the hub ends with: %v", err)
		}
	})
	<-ready
	i, err := folder.Invite("pbx-1", h.Address())
	if err != nil {
		t.Fatal(err)
	}
	return folder, sectionOf(t, i)
}

func sectionOf(t *testing.T, i hub.Invitation) string {
	t.Helper()
	dir := t.TempDir()
	secret, certificate := filepath.Join(dir, "fleet.creds"), filepath.Join(dir, "hub.pem")
	for path, data := range map[string][]byte{secret: []byte(i.Seed + "\n"), certificate: i.CertificatePEM()} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("fleet: {servers: [%q], credentials_file: %s, tls: {ca_file: %s, server_name: %s}, name: %s, node: %s}\n",
		i.Server, secret, certificate, hub.ServerName, i.Fleet, i.Node)
}

// linked examines the fleet of a section, with what a daemon says of it.
func linked(t *testing.T, section string, daemon *fleet.Status, change ...func(*exam)) []Check {
	t.Helper()
	e := &exam{Options: Options{ConfigPath: file(t, "127.0.0.1:1", section), Env: config.OS()}}
	for _, c := range change {
		c(e)
	}
	e.examineConfiguration(t.Context())
	before := len(e.checks)
	if daemon != nil {
		e.daemon = &api.Status{Fleet: daemon}
	}
	e.examineFleet(t.Context())
	return e.checks[before:]
}

func TestTheLinkToAFleetIsProven(t *testing.T) {
	folder, section := startHub(t)
	var list []Check
	for deadline := time.Now().Add(time.Minute); ; { // the hub takes over who is invited within a second
		list = linked(t, section, &fleet.Status{CaughtUp: true, Node: "pbx-1", Nodes: []record.Node{{Name: "pbx-1"},
			{Name: "pbx-2"}, {Name: "pbx-3", Silent: true}}})
		if of(list, checkFleet)[0].Result == OK || time.Now().After(deadline) {
			break
		}
	}
	is(t, one(t, list, checkFleet), OK, "lets pbx-1 in, of the fleet acme")
	for _, name := range []string{checkFleetRead, checkFleetSay, checkFleetAlive, checkFleetClock} {
		is(t, one(t, list, name), OK)
	}
	is(t, one(t, list, checkFleetQuorum), OK, "2 nodes are there, of which 2")

	list = linked(t, section, &fleet.Status{CaughtUp: true, Node: "pbx-1"})
	is(t, one(t, list, checkFleetQuorum), Warn, "fleet.quorum is 2, and 1 node is there", "lower fleet.quorum")
	list = linked(t, section, &fleet.Status{Error: "no answer\x1b[2J"})
	is(t, one(t, list, checkFleetQuorum), Warn, `no answer\x1b[2J`, "ringwall fleet status")
	list = linked(t, section, nil)
	is(t, one(t, list, checkFleetQuorum), Skip, "no daemon")

	list = linked(t, section, nil, func(e *exam) {
		e.Service, e.ServiceEnv = "ringwall", config.OS()
		e.ServiceEnv.Open = func(name string) (fs.File, error) {
			if strings.HasSuffix(name, "fleet.creds") {
				return nil, fs.ErrPermission
			}
			return os.Open(name)
		}
	})
	is(t, of(list, checkFleet)[0], Warn, "the daemon's user ringwall cannot read fleet.credentials_file", "chown ringwall ")

	// Another server at this address is not the hub.
	_, another := startHub(t)
	address := func(section string) string {
		return section[strings.Index(section, "tls://"):strings.Index(section, "\"]")]
	}
	list = linked(t, strings.Replace(section, address(section), address(another), 1), nil)
	is(t, one(t, list, checkFleet), Warn, "no server lets this node in: ", "certificate")
	is(t, one(t, list, checkFleetSay), Skip)

	if err := folder.Revoke("pbx-1"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		list = linked(t, section, nil)
		if of(list, checkFleet)[0].Result != OK || time.Now().After(deadline) {
			break
		}
	}
	// What the server says may be lost, where it closes the connection while the node still writes.
	refused := one(t, list, checkFleet)
	is(t, refused, Warn, "no server lets this node in: ", "ringwall hub invite")
	if !strings.Contains(refused.Detail, "uthoriz") && !strings.Contains(refused.Detail, "closed by remote") {
		t.Errorf("why a revoked node is not let in: %s", refused.Detail)
	}
	if list := linked(t, "", nil); len(list) != 0 {
		t.Errorf("without a fleet: %+v", list)
	}
}

func TestWhatANodeMayNotDoAtTheServers(t *testing.T) {
	for name, row := range map[string]struct {
		publish, subscribe []string
		check, says        string
	}{
		"speak":                {[]string{"ringwall.>"}, nil, checkFleetSay, "Violation for Publish"},
		"hear":                 {nil, []string{"ringwall-live.>"}, checkFleetSay, "Violation for Subscription"},
		"say that it is there": {[]string{"ringwall-alive.>"}, nil, checkFleetAlive, "Violation for Publish"},
		"read":                 {[]string{"$JS.API.STREAM.INFO.>"}, nil, checkFleetRead, "Violation for Publish"},
		"fetch":                {[]string{"$JS.API.DIRECT.GET.>"}, nil, checkFleetRead, "Violation for Publish"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(),
				NoLog: true, NoSigs: true, Users: []*server.User{{Username: "operator", Password: "x"}, {Username: "a",
					Password: "x", Permissions: &server.Permissions{
						Publish:   &server.SubjectPermission{Allow: []string{">"}, Deny: row.publish},
						Subscribe: &server.SubjectPermission{Allow: []string{">"}, Deny: row.subscribe}}}}})
			if err != nil {
				t.Fatal(err)
			}
			s.Start()
			if !s.ReadyForConnections(time.Minute) {
				t.Fatal("the server does not start")
			}
			t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
			port := s.ClientURL()[strings.LastIndex(s.ClientURL(), ":")+1:]
			url := func(user string) string { return "nats://" + user + ":x@127.0.0.1:" + port }
			f := fleet.New(fleet.Config{Servers: []string{url("operator")}, Name: "ringwall", Node: "x",
				Log: slog.New(slog.DiscardHandler)}) // which makes the stream
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- f.Run(ctx) }()
			for deadline := time.Now().Add(time.Minute); !f.Status().CaughtUp && time.Now().Before(deadline); {
				time.Sleep(5 * time.Millisecond)
			}
			cancel()
			<-ended
			list := linked(t, "fleet: {servers: [\""+url("a")+"\"], node: a}\n", nil)
			is(t, one(t, list, checkFleet), OK)
			is(t, one(t, list, row.check), Warn, row.says, "deploy/docs/fleet.md")
		})
	}
}
