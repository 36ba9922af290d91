package fleet

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/ban"
	nodes "github.com/ringwall/ringwall/pkg/fleet"
	"github.com/ringwall/ringwall/pkg/fleet/hub"
	"github.com/ringwall/ringwall/pkg/fleet/record"
	"github.com/ringwall/ringwall/pkg/netns"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// thief has what a node needs to be let in, and is none.
type thief struct {
	t      *testing.T
	space  *netns.Space
	line   hub.Invitation
	nc     *nats.Conn
	errors chan error // that the server tells of
}

// Dial implements nats.CustomDialer.
func (h *thief) Dial(network, address string) (net.Conn, error) {
	return h.space.DialContext(context.Background(), network, address)
}

// steal has the hub invite a node, and somebody else use the line.
func steal(t *testing.T, h *hubHost, name string) *thief {
	t.Helper()
	stolen := &thief{t: t, space: netnstest.New(t), errors: make(chan error, 1000)}
	at, _ := h.lay(stolen.space)
	words := strings.Fields(h.run("invite", name, "--address", netip.AddrPortFrom(at, hubPort).String()))
	var err error
	if stolen.line, err = hub.ParseInvitation(words[len(words)-1]); err != nil {
		t.Fatal(err)
	}
	key := stolen.key()
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	trial.WaitUntil(t, "the hub lets the thief in", func() bool {
		stolen.nc, err = nats.Connect(stolen.line.Server, nats.SetCustomDialer(stolen), nats.Nkey(public, key.Sign),
			nats.Secure(stolen.tls()), nats.NoReconnect(), nats.Timeout(trial.Patience),
			nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { stolen.errors <- err }))
		return err == nil
	})
	t.Cleanup(stolen.nc.Close)
	return stolen
}

func (h *thief) key() nkeys.KeyPair {
	key, err := nkeys.FromSeed([]byte(h.line.Seed))
	if err != nil {
		h.t.Fatal(err)
	}
	return key
}

func (h *thief) tls() *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(h.line.CertificatePEM())
	return &tls.Config{RootCAs: pool, ServerName: hub.ServerName, MinVersion: tls.VersionTLS12}
}

// publish says something at a subject below the fleet's, whoever may.
func (h *thief) publish(subject string, data []byte) {
	h.t.Helper()
	if err := h.nc.Publish("ringwall."+h.line.Fleet+"."+subject, data); err != nil {
		h.t.Fatal(err)
	}
}

// say says a record in the name of a node, as a node would.
func (h *thief) say(node string, kind record.Kind, prefix string, change ...func(*record.Record)) {
	h.t.Helper()
	r := record.Record{Key: record.Key{Node: node, Kind: kind, Prefix: netip.MustParsePrefix(prefix)},
		Made: time.Now().UTC().Round(0), Until: time.Now().UTC().Round(0).Add(365 * 24 * time.Hour)}
	if kind == record.Ban {
		r.Reason, r.Proven = ban.ReasonScanner, true
	}
	for _, f := range change {
		f(&r)
	}
	if data, err := record.Encode(r); err == nil {
		h.publish(strings.TrimPrefix(r.Subject(h.line.Fleet), "ringwall."+h.line.Fleet+"."), data)
		return
	}
	// What no node writes: as it would look. Encode's form is known, and these differ in one thing.
	well := r
	well.Prefix, well.Made, well.Until = netip.MustParsePrefix("32.255.0.1/32"), r.Made, r.Made.Add(time.Hour)
	data, err := record.Encode(well)
	if err != nil {
		h.t.Fatal(err)
	}
	h.publish(strings.TrimPrefix(r.Subject(h.line.Fleet), "ringwall."+h.line.Fleet+"."), data)
}

// flush waits until the hub has heard all.
func (h *thief) flush() {
	h.t.Helper()
	if err := h.nc.FlushTimeout(trial.Patience); err != nil {
		h.t.Fatal(err)
	}
}

// TestAHostileNode gives a node's credentials to somebody who says whatever the servers let him say: others take up to
// max_records of it, none of it against whom they spare, they count the rest and tell of it.
func TestAHostileNode(t *testing.T) {
	t.Parallel()
	const most = 1000
	hubHost, list := newFleet(t, fmt.Sprintf("  max_records: %d\n  rate: 1\n", most), "a", "b")
	a, b := list[0], list[1]
	customer := netip.MustParseAddr("192.88.98.10")
	a.login(customer, "6001")
	trial.WaitUntil(t, "b trusts whom a knows", func() bool { return b.trusts(customer) })
	own := nths(0, 50)
	a.proven(own[:25]...)
	b.proven(own[25:]...)
	awaitSameKernels(t, len(own), list...)
	stolen := steal(t, hubHost, "c")
	// reaches waits until what the thief said before was judged at both, which counts as one record.
	marks := 0
	reaches := func() {
		t.Helper()
		marks++
		mark := netip.AddrFrom4([4]byte{45, 0, 0, byte(marks)})
		stolen.say("c", record.Ban, single(mark).String())
		stolen.flush()
		awaitEach(t, mark, true, list...)
	}

	// Whom nobody may be banned by others, and what nobody takes.
	for _, spared := range []string{trunk + "/32", "203.0.113.5/32", "203.0.113.0/28", "203.0.113.0/24",
		"198.51.100.0/24", single(customer).String(), "192.88.98.0/24"} {
		stolen.say("c", record.Ban, spared)
	}
	for _, nonsense := range []string{"0.0.0.0/0", "0.0.0.0/1", "32.0.0.0/8", "32.0.0.0/23", "::/0", "2000::/3",
		"10.0.0.0/8", "127.0.0.1/32", "192.168.1.1/32"} {
		for _, kind := range record.Kinds() {
			stolen.say("c", kind, nonsense)
		}
	}
	late := func(r *record.Record) { r.Made = r.Made.Add(time.Hour) }
	stolen.say("c", record.Ban, "45.1.0.1/32", late)
	stolen.say("c", record.Unban, "32.0.0.0/32", late)
	for i, data := range [][]byte{nil, {}, []byte("{}"), []byte("null"), []byte(`{"format":1}`), []byte(`{"format":2}`),
		[]byte(strings.Repeat("[", 900)), []byte(strings.Repeat("\x00", 900)), []byte("\x1b[2J"),
		[]byte(`{"format":1,"made":1,"until":9223372036854775807}`)} {
		stolen.publish("c.ban."+fmt.Sprintf("45-2-0-%d/32", i), data)
	}
	for _, subject := range []string{"c.ban.45-3-0-1/33", "c.ban.45-3-0-1", "c.ban.nobody", "c.nothing.45-3-0-1/32",
		"c.ban", "c.ban.45-3-0-1/32.more", "c.BAN.45-3-0-1/32", "c.ban.45-3-0-01/32"} {
		stolen.publish(subject, []byte(`{}`))
	}
	reaches()
	for _, n := range list {
		for _, spared := range []string{trunk, "203.0.113.5", customer.String()} {
			if n.bans(netip.MustParseAddr(spared)) {
				t.Errorf("%s bans %s", n.name, spared)
			}
		}
		if got := len(n.kernel()); got != len(own)+marks {
			t.Errorf("%s keeps %d out, want %d: %v", n.name, got, len(own)+marks, n.kernel())
		}
	}

	// In the names of others, and to those who run the servers.
	for _, name := range []string{"a", "b", "d", "@operator"} {
		stolen.publish(name+".ban.45-4-0-1/32", []byte("{}"))
		stolen.refused()
	}
	stream := nodes.StreamName(fleetName)
	for _, subject := range []string{"ringwall-live." + fleetName + ".a.ban.45-4-0-1/32",
		"$JS.API.STREAM.DELETE." + stream, "$JS.API.STREAM.PURGE." + stream, "$JS.API.STREAM.UPDATE." + stream,
		"$JS.API.STREAM.MSG.DELETE." + stream, "$JS.API.CONSUMER.CREATE." + stream,
		"$JS.API.STREAM.CREATE.MORE", "$SYS.REQ.SERVER.PING"} {
		if err := stolen.nc.Publish(subject, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		stolen.refused()
	}
	stolen.sendTooLarge()

	// Within its bound it lifts what others saw: until it is forgotten.
	for _, attacker := range own[20:30] {
		stolen.say("c", record.Unban, single(attacker).String())
		stolen.flush()
		awaitEach(t, attacker, false, list...)
	}

	// Far more bans than are taken, and then unbans of all that there is. Meanwhile the others go on.
	count := shortOrFull(50_000, 1_000_000)
	cpu := []time.Duration{cpuTime(t, a.daemon), cpuTime(t, hubHost.process)}
	begun, flooded := time.Now(), make(chan struct{})
	go func() {
		defer close(flooded)
		r := record.Record{Key: record.Key{Node: "c", Kind: record.Ban}, Reason: ban.ReasonScanner, Proven: true,
			Made: time.Now().UTC().Round(0), Until: time.Now().UTC().Round(0).Add(time.Hour)}
		data, err := record.Encode(record.Record{Key: record.Key{Node: "c", Kind: record.Ban, Prefix: single(nth(0))},
			Made: r.Made, Until: r.Until, Reason: r.Reason, Proven: true})
		if err != nil {
			t.Error(err)
			return
		}
		for i := range count {
			r.Prefix = single(netip.AddrFrom4([4]byte{46, byte(i >> 16), byte(i >> 8), byte(i)}))
			if err := stolen.nc.Publish(r.Subject(fleetName), data); err != nil {
				t.Error(err)
				return
			}
		}
		if err := stolen.nc.FlushTimeout(trial.Patience); err != nil {
			t.Error(err)
		}
	}()
	var took []time.Duration
	for i := range most / 4 { // a, too, may tell of no more than most
		attacker := nth(1000 + i)
		own = append(own, attacker)
		at := time.Now()
		a.proven(attacker)
		took = append(took, awaitEach(t, attacker, true, a)[0].Sub(at))
		time.Sleep(shortOrFull(0, 30*time.Millisecond))
	}
	<-flooded
	t.Logf("%d records in %s; meanwhile a bans by itself: %s", count, time.Since(begun).Round(time.Millisecond),
		quantiles(took))
	// All that was said before is judged once both have heard a ban that each makes now.
	judged := 0
	awaitJudged := func() {
		t.Helper()
		for i, n := range list {
			judged++
			own = append(own, nth(900_000+judged))
			n.proven(own[len(own)-1])
			awaitEach(t, own[len(own)-1], true, list[1-i])
		}
	}
	for i := range 2 * most { // which have a bound of their own
		stolen.say("c", record.Unban, single(netip.AddrFrom4([4]byte{47, 0, byte(i >> 8), byte(i)})).String())
	}
	stolen.flush()
	awaitJudged()
	for _, attacker := range own {
		stolen.say("c", record.Unban, single(attacker).String())
	}
	stolen.flush()
	awaitJudged()
	t.Logf("that cost a %s and the hub %s of a processor; a takes %.0f MB, the hub %.0f MB",
		cpuTime(t, a.daemon)-cpu[0], cpuTime(t, hubHost.process)-cpu[1], memoryMB(t, a.daemon), memoryMB(t, hubHost.process))
	// Besides max_records there is one a minute.
	atMost := func(n int) int { return n + int(time.Since(begun)/time.Minute) + 1 }
	const lifted = 10
	missing := func(n *nodeHost) (count int) {
		kernel := n.kernel()
		for _, attacker := range own {
			if _, ok := kernel[fmt.Sprint(single(attacker), " all")]; !ok {
				count++
			}
		}
		return count
	}
	for _, n := range list {
		if got := len(n.kernel()); got > len(own)+atMost(most) {
			t.Errorf("%s keeps %d out, of whom at most %d can be the thief's", n.name, got, most)
		}
		if got := missing(n); got < lifted || got > atMost(lifted) {
			t.Errorf("%s lets %d in again", n.name, got)
		}
		if got := n.metric("ringwall_fleet_refused_records_total"); got < float64(count)/10 {
			t.Errorf("%s counts %v refused records of more than %d", n.name, got, count)
		}
		out, _ := n.try("status", "--config", n.configFile())
		if !strings.Contains(strings.Join(strings.Fields(out), " "), "of what node c of the fleet says") {
			t.Errorf("the status of %s does not tell of the thief:\n%s", n.name, out)
		}
	}
	hubHost.run("revoke", "c")
	hubHost.run("forget", "c") // with which it is over
	awaitSameKernels(t, len(own), list...)
}

// refused fails the test where the server does not refuse what was published before.
func (h *thief) refused() {
	h.t.Helper()
	h.flush()
	select {
	case err := <-h.errors:
		if !strings.Contains(strings.ToLower(err.Error()), "permission") {
			h.t.Error(err)
		}
	case <-time.After(trial.Patience):
		h.t.Error("it is not refused")
	}
}

// sendTooLarge sends a value of 10 MB, which NATS' own client would not.
func (h *thief) sendTooLarge() {
	h.t.Helper()
	plain, err := h.Dial("tcp", strings.TrimPrefix(h.line.Server, "tls://"))
	if err != nil {
		h.t.Fatal(err)
	}
	defer plain.Close()
	first, err := bufio.NewReader(plain).ReadString('\n')
	if err != nil {
		h.t.Fatal(err)
	}
	var info struct {
		Nonce string `json:"nonce"`
	}
	if err := json.Unmarshal([]byte(strings.TrimPrefix(first, "INFO ")), &info); err != nil {
		h.t.Fatalf("%q: %v", first, err)
	}
	key := h.key()
	public, err := key.PublicKey()
	if err != nil {
		h.t.Fatal(err)
	}
	signature, err := key.Sign([]byte(info.Nonce))
	if err != nil {
		h.t.Fatal(err)
	}
	c := tls.Client(plain, h.tls())
	if _, err := fmt.Fprintf(c, "CONNECT {\"verbose\":false,\"tls_required\":true,\"nkey\":%q,\"sig\":%q}\r\n"+
		"PUB ringwall.%s.c.ban.45-5-0-1/32 10485760\r\n", public, base64.RawURLEncoding.EncodeToString(signature),
		fleetName); err != nil {
		h.t.Fatal(err)
	}
	go func() { // until it is cut off
		for piece := range slices.Chunk(make([]byte, 10<<20), 1<<16) {
			if _, err := c.Write(piece); err != nil {
				return
			}
		}
	}()
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "Maximum Payload Violation") {
			return
		}
	}
	h.t.Errorf("the server takes 10 MB: %v", lines.Err())
}
