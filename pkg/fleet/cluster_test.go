package fleet_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/ringwall/ringwall/pkg/fleet"
	"github.com/ringwall/ringwall/pkg/fleet/record"
)

const clusterExample = "../../examples/fleet"

func readExample(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(clusterExample, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// startExample runs the three servers of the example, with ports, folders and keys of the test's own, and returns the
// addresses and the files of credentials: of each node, and of the operator.
func startExample(t *testing.T) (servers []*server.Server, urls []string, credentials map[string]string) {
	t.Helper()
	dir := t.TempDir()
	accounts := readExample(t, "accounts.conf")
	credentials = make(map[string]string)
	names := []string{"pbx-berlin", "pbx-rome", "edge-1", "operator", "system"}
	keys := regexp.MustCompile(`\bU[A-Z2-7]{55}\b`).FindAllString(accounts, -1)
	if len(keys) != len(names) {
		t.Fatalf("in the example are %d keys, want %d", len(keys), len(names))
	}
	for i, name := range names {
		if !nkeys.IsValidPublicUserKey(keys[i]) {
			t.Errorf("the key of %s is none", name)
		}
		key, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		public, err := key.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		seed, err := key.Seed()
		if err != nil {
			t.Fatal(err)
		}
		accounts = strings.Replace(accounts, keys[i], public, 1)
		credentials[name] = filepath.Join(dir, name+".creds")
		if err := os.WriteFile(credentials[name], append(seed, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "accounts.conf"), []byte(accounts), 0o600); err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(?s)\n +tls \{.*?\}|\ntls \{.*?\}`).ReplaceAllString(readExample(t, "nats.conf"), "")
	var routes []string
	for i := range 3 {
		port := freePort(t)
		routes = append(routes, fmt.Sprintf("127.0.0.1:%d", port))
		text = strings.Replace(text, fmt.Sprintf("nats%d.example.net:6222", i+1), routes[i], 1)
	}
	for i := range 3 {
		name := fmt.Sprintf("nats%d", i+1)
		own := strings.NewReplacer("$NATS_NAME", name, `"0.0.0.0:4222"`, `"127.0.0.1:-1"`, `"0.0.0.0:6222"`, fmt.Sprintf("%q", routes[i]),
			`"/var/lib/nats"`, fmt.Sprintf("%q", filepath.Join(dir, name))).Replace(text)
		file := filepath.Join(dir, name+".conf")
		if err := os.WriteFile(file, []byte(own), 0o600); err != nil {
			t.Fatal(err)
		}
		o, err := server.ProcessConfigFile(file)
		if err != nil {
			t.Fatal(err)
		}
		o.NoLog, o.NoSigs = true, true
		s, err := server.NewServer(o)
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { stopServer(s) })
		servers = append(servers, s)
	}
	for _, s := range servers {
		if !s.ReadyForConnections(patience) {
			t.Fatal("a server does not start")
		}
		urls = append(urls, s.ClientURL())
	}
	return servers, urls, credentials
}

// With the files that the package brings a fleet works on three servers, of which one may be lost, and each node may
// speak in its own name alone.
func TestThreeServersOfOnesOwn(t *testing.T) {
	t.Parallel()
	servers, urls, credentials := startExample(t)
	var want jetstream.StreamConfig
	if err := json.Unmarshal([]byte(readExample(t, "stream.json")), &want); err != nil {
		t.Fatal(err)
	}
	as := func(name string) (*nats.Conn, jetstream.JetStream) {
		key, err := nats.NkeyOptionFromSeed(credentials[name])
		if err != nil {
			t.Fatal(err)
		}
		return client(t, strings.Join(urls, ","), key, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	}
	operator, js := as("operator")
	defer operator.Close()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) { // a leader has to be found
		_, err := js.CreateStream(t.Context(), want)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	// It is what a node would make, thrice.
	s, err := js.Stream(t.Context(), fleet.StreamName("acme"))
	if err != nil {
		t.Fatal(err)
	}
	made := fleet.StreamConfig("acme")
	made.Replicas = 3
	got := s.CachedInfo().Config
	for _, name := range []string{"Name", "Description", "Subjects", "MaxMsgsPerSubject", "MaxMsgSize", "MaxBytes", "Discard",
		"AllowDirect", "AllowMsgTTL", "RePublish", "Replicas", "Retention", "Storage"} {
		if a, b := reflect.ValueOf(got).FieldByName(name), reflect.ValueOf(made).FieldByName(name); !reflect.DeepEqual(
			a.Interface(), b.Interface()) {
			t.Errorf("%s is %v, a node makes it %v", name, a, b)
		}
	}

	node := func(name string) fleet.Config {
		cfg := configOf("", name)
		cfg.Servers, cfg.CredentialsFile = urls, credentials[name]
		return cfg
	}
	berlin, _ := run(t, node("pbx-berlin"))
	rome, _ := run(t, node("pbx-rome"))
	edge, _ := run(t, node("edge-1"))
	nodes := []*fleet.Fleet{berlin, rome, edge}
	for i := range 50 {
		nodes[i%3].Say(banOf(address(i)))
	}
	all := func(f *fleet.Fleet, count int) func() bool {
		return func() bool { return len(banned(f)) == count && f.Status().Waiting == 0 && f.Status().Error == "" }
	}
	for _, f := range nodes {
		await(t, f, "all know all", all(f, 50))
	}

	// A node's key is good for nothing else.
	rogue, rogueJS := as("pbx-rome")
	defer rogue.Close()
	r := banOf(attacker)
	r.Made, r.Node = time.Now(), "pbx-rome"
	data, err := record.Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	denied := make(chan error, 16)
	rogue.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err })
	for _, subject := range []string{
		"ringwall.acme.pbx-berlin.ban.198-51-100-7/32", record.ForgetSubject("acme", "pbx-berlin"),
		"ringwall-live.acme.pbx-berlin.ban.198-51-100-7/32", record.HeartbeatSubject("acme", "pbx-berlin"),
		"$JS.API.STREAM.PURGE.RINGWALL_acme", "$JS.API.STREAM.DELETE.RINGWALL_acme", "$JS.API.STREAM.UPDATE.RINGWALL_acme",
		"$JS.API.CONSUMER.CREATE.RINGWALL_acme", "_INBOX.x",
	} {
		if err := rogue.Publish(subject, data); err != nil {
			t.Error(err)
		}
		select {
		case err := <-denied:
			if !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("%s: %v", subject, err)
			}
		case <-time.After(patience):
			t.Errorf("a node may publish to %s", subject)
		}
	}
	if _, err := rogueJS.Publish(t.Context(), r.Subject("acme"), data); err != nil {
		t.Errorf("in its own name: %v", err)
	}
	for _, f := range nodes {
		await(t, f, "what it says in its own name is heard", func() bool { return bans(f, attacker) })
	}

	// One of the three is lost, and what was said meanwhile is known by who comes to the others.
	stopServer(servers[0])
	left := []netip.Prefix{}
	for i := range 30 {
		left = append(left, address(100+i))
		nodes[i%3].Say(banOf(left[i]))
	}
	for _, f := range nodes {
		await(t, f, "two servers are enough", all(f, 81))
	}

	// The operator voids what a node said.
	cfg := node("pbx-rome")
	cfg.Node, cfg.CredentialsFile = "", credentials["operator"]
	if err := fleet.ForgetEverywhere(t.Context(), cfg, "pbx-rome"); err != nil {
		t.Fatal(err)
	}
	await(t, berlin, "a heartbeat is heard", func() bool {
		_ = rogue.Publish(record.HeartbeatSubject("acme", "pbx-rome"),
			record.EncodeHeartbeat(record.Heartbeat{Sent: time.Now()}))
		return !nodeOf(berlin, "pbx-rome").Alive.IsZero()
	})
	for _, f := range nodes {
		if s := f.Status(); s.Unseen != "" {
			t.Errorf("%s may not say that it is there, or hear others: %s", s.Node, s.Unseen)
		}
	}
	select {
	case err := <-denied:
		t.Error(err)
	default:
	}
	for _, f := range []*fleet.Fleet{berlin, edge} {
		await(t, f, "what pbx-rome said is void", func() bool { return !bans(f, attacker) && len(banned(f)) == 81-1-17-10 })
	}
}
