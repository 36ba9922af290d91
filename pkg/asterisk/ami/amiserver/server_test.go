package amiserver

import (
	"bufio"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a server and returns it with its address.
func start(t *testing.T, cfg Config) (*Server, string) {
	t.Helper()
	if cfg.Users == nil {
		cfg.Users = []User{{Name: "secmon", Secret: "s3cret", Read: ClassSecurity},
			{Name: "secfull", Secret: "full", Read: ClassAll, Write: ClassAll},
			{Name: "single", Secret: "x", Read: ClassSecurity, Single: true},
			{Name: "acluser", Secret: "x", Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}}}
	}
	if cfg.AuthDelay == 0 {
		cfg.AuthDelay = -1
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return srv, ln.Addr().String()
}

// client is one raw connection.
type client struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, address string) *client {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(2 * time.Minute))
	c := &client{t, nc, bufio.NewReader(nc)}
	if banner, err := c.r.ReadString('\n'); err != nil || banner != "Asterisk Call Manager/11.0.0\r\n" {
		t.Fatalf("banner %q, %v", banner, err)
	}
	return c
}

func (c *client) send(lines ...string) {
	c.t.Helper()
	if _, err := c.Write([]byte(strings.Join(lines, "\r\n") + "\r\n\r\n")); err != nil {
		c.t.Fatal(err)
	}
}

// frame reads one frame; "" is the end of the connection.
func (c *client) frame() string {
	c.t.Helper()
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return b.String()
		}
		if line == "\r\n" {
			return b.String()
		}
		b.WriteString(line)
	}
}

func (c *client) expect(want string) {
	c.t.Helper()
	if got := c.frame(); got != want {
		c.t.Errorf("got %q, want %q", got, want)
	}
}

const accepted = "Response: Success\r\nMessage: Authentication accepted\r\n"

func login(t *testing.T, address, user, secret string) *client {
	t.Helper()
	c := dial(t, address)
	c.send("Action: Login", "Username: "+user, "Secret: "+secret)
	c.expect(accepted)
	return c
}

// shape takes what differs from one event to the next out of it.
func shape(event string) string {
	for re, with := range map[string]string{
		`TV: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+]0000`: "TV: T",
		`SessionID: 0x[0-9a-f]+`:                           "SessionID: P",
		`IPV4/TCP/[\d.]+/\d+`:                              "IPV4/TCP/A",
		`(Challenge): \d+`:                                 "$1: C",
		`(Response): [0-9a-f]{32}`:                         "$1: H",
	} {
		event = regexp.MustCompile(re).ReplaceAllString(event, with)
	}
	return event
}

func TestEventsHaveTheShapeOfRecordedOnes(t *testing.T) {
	for _, tt := range []struct {
		file   string
		attack func(t *testing.T, address string, c *client)
	}{
		{"ami-good", func(t *testing.T, address string, _ *client) { login(t, address, "secfull", "full") }},
		{"ami-bad-password", func(_ *testing.T, _ string,
			c *client) {
			c.send("Action: Login", "Username: secmon", "Secret: wrong")
		}},
		{"ami-unknown-user", func(_ *testing.T, _ string,
			c *client) {
			c.send("Action: Login", "Username: nosuch", "Secret: wrong")
		}},
		{"ami-acl", func(_ *testing.T, _ string,
			c *client) {
			c.send("Action: Login", "Username: acluser", "Secret: x")
		}},
		{"ami-md5-bad", func(_ *testing.T, _ string, c *client) {
			c.send("Action: Challenge", "AuthType: MD5")
			_ = c.frame()
			c.send("Action: Login", "AuthType: MD5", "Username: secmon", "Key: aa3b34fb81486bad0c3d89f4eb16b640")
		}},
		{"ami-not-permitted", func(t *testing.T, address string, _ *client) {
			c := login(t, address, "secmon", "s3cret")
			_ = c.frame()
			c.send("Action: Command", "Command: x")
			c.expect("Response: Error\r\nMessage: Permission denied\r\n")
		}},
		{"ami-unknown-action", func(t *testing.T, address string, _ *client) {
			c := login(t, address, "secmon", "s3cret")
			_ = c.frame()
			c.send("Action: NoSuchAction")
			c.expect("Response: Error\r\nMessage: Invalid/unknown command: NoSuchAction. Use Action: ListCommands to " +
				"show available commands.\r\n")
			_ = c.frame()
			c.send("Foo: bar")
			c.expect("Response: Error\r\nMessage: Missing action in request\r\n")
		}},
		{"ami-session-limit", func(t *testing.T, address string, c *client) {
			login(t, address, "single", "x")
			c.send("Action: Login", "Username: single", "Secret: x")
			c.expect("Response: Error\r\nMessage: Login Already In Use\r\n")
		}},
	} {
		t.Run(tt.file, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("..", "testdata", tt.file+".ami"))
			if err != nil {
				t.Fatal(err)
			}
			_, address := start(t, Config{})
			watcher := login(t, address, "secmon", "s3cret")
			attacker := dial(t, address)
			for i, want := range strings.SplitAfter(strings.SplitN(string(b), "accepted\r\n\r\n", 2)[1], "\r\n\r\n") {
				if want == "" {
					break
				}
				if got := watcher.frame() + "\r\n"; shape(got) != shape(want) {
					t.Errorf("got  %q\nwant %q", shape(got), shape(want))
				}
				if i == 0 {
					tt.attack(t, address, attacker)
				}
			}
		})
	}
}

func TestRepliesAreAsterisks(t *testing.T) {
	_, address := start(t, Config{Actions: map[string]Action{"CoreStatus": {ClassSystem | ClassReporting,
		func(r Request) string {
			return r.Reply("Success") + "X: " + r.Get("x") + "\r\n\r\n"
		}}}})
	c := dial(t, address)
	c.send("Action: Ping")
	c.expect("Response: Error\r\nMessage: Permission denied\r\n")
	c.send("Action: Challenge", "ActionID: 1")
	c.expect("Response: Error\r\nActionID: 1\r\nMessage: Must specify AuthType\r\n")
	c.send("Action: Challenge", "AuthType: md5", "ActionID: 2")
	challenge := c.frame()
	_, number, ok := strings.Cut(strings.TrimSpace(challenge), "Response: Success\r\nActionID: 2\r\nChallenge: ")
	if !ok {
		t.Fatalf("%q", challenge)
	}
	digest := md5.Sum([]byte(number + "full"))
	c.send("action: login", "ACTIONID:3", "AuthType: MD5", "Username: secfull", "Key: "+hex.EncodeToString(digest[:]),
		"Events: off")
	c.expect("Response: Success\r\nActionID: 3\r\nMessage: Authentication accepted\r\n")
	c.send("Action: Login")
	c.expect("Response: Success\r\nMessage: Already authenticated\r\n")
	for mask, reply := range map[string]string{
		"security": "Response: Success\r\nEvents: On\r\n", "off": "Response: Success\r\nEvents: Off\r\n",
		"nonsense": "Response: Success\r\nEvents: Off\r\n", "": "Response: Error\r\nMessage: Invalid event mask\r\n",
	} {
		c.send("Action: Events", "EventMask: "+mask)
		c.expect(reply)
	}
	c.send("Action: Events", "EventMask: off")
	_ = c.frame()
	c.send("Action: Ping", "ActionID: 4")
	if got := c.frame(); !regexp.MustCompile(`^Response: Success\r\nActionID: 4\r\nPing: Pong\r\nTimestamp: \d+\.\d{6}\r\n$`).MatchString(got) {
		t.Errorf("ping %q", got)
	}
	c.send("Action: corestatus", "X: 7")
	c.expect("Response: Success\r\nX: 7\r\n")
	c.send("Action: Ping", "X: "+strings.Repeat("y", 5000))
	c.expect("Response: Error\r\nMessage: Failed to parse message: line too long\r\n")
	c.send("Action: Ping", strings.Repeat("X: y\r\n", 200)+"Z: z")
	c.expect("Response: Error\r\nMessage: Too many lines in message or allocation failure\r\n")
	_, _ = c.Write([]byte("Action: Logoff\n\n")) // Asterisk takes LF, too
	c.expect("Response: Goodbye\r\nMessage: Thanks for all the fish.\r\n")
	if _, err := c.r.ReadByte(); err == nil {
		t.Error("open after Logoff")
	}
}

func TestBroadcastReachesSubscribersOnly(t *testing.T) {
	srv, address := start(t, Config{Users: []User{{Name: "sec", Secret: "x", Read: ClassSecurity},
		{Name: "sys", Secret: "x", Read: ClassSystem}}})
	sec, sys, none := login(t, address, "sec", "x"), login(t, address, "sys", "x"), dial(t, address)
	_, _ = sec.frame(), sec.frame() // SuccessfulAuth of both
	if got := sys.frame(); !strings.HasPrefix(got, "Event: FullyBooted\r\nPrivilege: system,all\r\n") {
		t.Errorf("%q", got)
	}
	if n := srv.Subscribers(); n != 1 {
		t.Errorf("%d subscribers", n)
	}
	if n := srv.Broadcast([]byte("Event: A\r\n\r\n")); n != 1 {
		t.Errorf("%d reached", n)
	}
	if n := srv.BroadcastClass(ClassSystem, []byte("Event: B\r\n\r\n")); n != 1 {
		t.Errorf("%d reached", n)
	}
	sec.expect("Event: A\r\n")
	sys.expect("Event: B\r\n")
	none.send("Action: Logoff")
	none.expect("Response: Goodbye\r\nMessage: Thanks for all the fish.\r\n")
}

func TestWaitSubscribers(t *testing.T) {
	srv, address := start(t, Config{})
	done := make(chan error, 1)
	go func() { done <- srv.WaitSubscribers(t.Context(), 1) }()
	login(t, address, "secmon", "s3cret")
	if err := <-done; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := srv.WaitSubscribers(ctx, 2); err == nil {
		t.Error("no error")
	}
}

func TestSlowReaderIsCutOff(t *testing.T) {
	srv, address := start(t, Config{WriteTimeout: 50 * time.Millisecond, QueueBytes: 1 << 20})
	login(t, address, "secmon", "s3cret")
	if err := srv.WaitSubscribers(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	ev := []byte("Event: A\r\nX: " + strings.Repeat("x", 10_000) + "\r\n\r\n")
	for deadline := time.Now().Add(2 * time.Minute); srv.Subscribers() > 0; {
		if srv.Broadcast(ev); time.Now().After(deadline) {
			t.Fatal("a reader that never reads is still there")
		}
	}
}

func TestTooManySessionsWithoutLogin(t *testing.T) {
	_, address := start(t, Config{AuthLimit: 2})
	a, b := dial(t, address), dial(t, address)
	third, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	_ = third.SetDeadline(time.Now().Add(2 * time.Minute))
	if n, err := third.Read(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes for the third", n)
	}
	a.send("Action: Login", "Username: secmon", "Secret: s3cret")
	a.expect(accepted)
	dial(t, address)
	_ = b
}

func TestIdleSessionIsClosedBeforeLoginOnly(t *testing.T) {
	t.Parallel()
	_, address := start(t, Config{AuthTimeout: 5 * time.Second}) // time enough for a login on a busy machine
	idle, user := dial(t, address), login(t, address, "secmon", "s3cret")
	if _, err := idle.r.ReadByte(); err == nil {
		t.Error("idle session got a byte")
	}
	_ = user.frame()
	user.send("Action: Logoff")
	user.expect("Response: Goodbye\r\nMessage: Thanks for all the fish.\r\n")
}

func TestParseClass(t *testing.T) {
	for list, want := range map[string]Class{"security": ClassSecurity,
		"system,reporting": ClassSystem | ClassReporting, "": ClassNone, "all": ClassAll,
		" call , cdr": ClassCall | ClassCDR} {
		if got, err := ParseClass(list); err != nil || got != want {
			t.Errorf("%q: %b, %v", list, got, err)
		}
	}
	if _, err := ParseClass("security,nonsense"); err == nil || !strings.Contains(err.Error(), `"nonsense"`) {
		t.Errorf("%v", err)
	}
}

func BenchmarkBroadcast(b *testing.B) {
	srv := New(Config{})
	for i := range 3 {
		srv.sessions[&session{id: uint64(i), loggedIn: true, events: ClassSecurity,
			outbox: newOutbox(math.MaxInt)}] = struct{}{}
	}
	ev := fmt.Appendf(nil, "Event: A\r\n\r\n")
	b.ReportAllocs()
	for b.Loop() {
		srv.Broadcast(ev)
	}
}
