package lab_test

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/deploy/lab"
)

// patience is how long the kernel and Asterisk may take on a busy machine.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func TestPhoneRegistersOverEachTransportAndFamily(t *testing.T) {
	t.Parallel()
	l := lab.Start(t, lab.Options{Version: 22})
	ami := l.DialAMI(t, lab.Ringwall)
	for _, transport := range []string{"udp", "tcp", "tls", "ws", "wss"} {
		for _, ipv6 := range []bool{false, true} {
			name := strings.ToUpper(transport) + "/" + lab.Phone.IPv4().String()
			prefix := "IPV4/"
			if ipv6 && strings.HasPrefix(transport, "ws") {
				continue
			}
			if ipv6 {
				name, prefix = strings.ToUpper(transport)+"/"+lab.Phone.IPv6().String(), "IPV6/"
			}
			phone := l.Agent(t, lab.Phone, lab.AgentOptions{Transport: transport, IPv6: ipv6, Timeout: patience})
			wantCode(t, 200)(phone.Register("6001", lab.Password("6001")))
			ami.Event(t, "ChallengeSent", "AccountID", "6001", "RemoteAddress", prefix+name+"/")
			ami.Event(t, "SuccessfulAuth", "Service", "PJSIP", "AccountID", "6001", "RemoteAddress", prefix+name+"/",
				"UsingPassword", "1")
		}
	}
}

func TestAttacksMakeTheirEvents(t *testing.T) {
	t.Parallel()
	l := lab.Start(t, lab.Options{Version: 22})
	ami := l.DialAMI(t, lab.Ringwall)
	attacker := l.Agent(t, lab.Attacker, lab.AgentOptions{Timeout: patience})
	from := "IPV4/UDP/10.99.0.66/"

	wantCode(t, 401)(attacker.Register("6001", "wrong"))
	ami.Event(t, "ChallengeSent", "AccountID", "6001", "RemoteAddress", from)
	ami.Event(t, "ChallengeResponseFailed", "AccountID", "6001", "RemoteAddress", from)

	wantCode(t, 401)(attacker.Probe("nobody"))
	ami.Event(t, "InvalidAccountID", "AccountID", "nobody", "RemoteAddress", from)
	ami.Event(t, "ChallengeSent", "AccountID", "<unknown>", "RemoteAddress", from)

	codes, err := attacker.Guess("6002", "a", "b", lab.Password("6002"))
	if err != nil || !slices.Equal(codes, []int{401, 401, 200}) {
		t.Errorf("Guess = %v, %v, want 401 401 200", codes, err)
	}
	first := ami.Event(t, "ChallengeResponseFailed", "AccountID", "6002")
	second := ami.Event(t, "ChallengeResponseFailed", "AccountID", "6002")
	if first.Get("SessionID") != second.Get("SessionID") || first.Get("Challenge") != second.Get("Challenge") ||
		first.Get("Response") == second.Get("Response") {
		t.Errorf("two guesses on one challenge: %q and %q", first, second)
	}
	ami.Event(t, "SuccessfulAuth", "AccountID", "6002", "RemoteAddress", from)

	codes, err = attacker.GuessAnew("6003", "a", "b")
	if err != nil || !slices.Equal(codes, []int{401, 401}) {
		t.Errorf("GuessAnew = %v, %v, want 401 401", codes, err)
	}
	first = ami.Event(t, "ChallengeResponseFailed", "AccountID", "6003")
	second = ami.Event(t, "ChallengeResponseFailed", "AccountID", "6003")
	// Their challenges may be equal: Asterisk makes the nonce of the second and the address.
	if first.Get("SessionID") == second.Get("SessionID") {
		t.Errorf("two attempts under one Call-ID: %q and %q", first, second)
	}

	wantCode(t, 401)(attacker.Options("nobody2"))
	ami.Event(t, "InvalidAccountID", "AccountID", "nobody2", "RemoteAddress", from)

	if _, err := attacker.Probe("6101"); err != nil {
		t.Error(err)
	}
	ami.Event(t, "FailedACL", "AccountID", "6101", "RemoteAddress", from)

	log, err := os.ReadFile(l.SecurityLog())
	if err != nil || !strings.Contains(string(log), `SecurityEvent="InvalidAccountID"`) {
		t.Errorf("security log: %v\n%s", err, log)
	}
}

func TestHostileBytesReachAsteriskAsTheyAre(t *testing.T) {
	t.Parallel()
	l := lab.Start(t, lab.Options{Version: 22})
	ami := l.DialAMI(t, lab.Ringwall)
	attacker := l.Agent(t, lab.Attacker, lab.AgentOptions{Timeout: patience})
	if _, err := attacker.Exchange(lab.Request{User: "%0d%0aX%3a%20y", CallID: "my-own-id"}); err != nil {
		t.Fatal(err)
	}
	f := ami.Event(t, "InvalidAccountID", "SessionID", "my-own-id")
	if !strings.Contains(string(f), "AccountID: \r\nX: y\r\n") {
		t.Errorf("the line breaks of the account did not arrive: %q", f)
	}
}

func TestForgedSourceIsTheOneThatAsteriskReports(t *testing.T) {
	t.Parallel()
	l := lab.Start(t, lab.Options{Version: 22})
	ami := l.DialAMI(t, lab.Ringwall)
	for source, want := range map[string]string{
		"10.99.0.77:5060":     "IPV4/UDP/10.99.0.77/5060",
		"8.8.8.8:4444":        "IPV4/UDP/8.8.8.8/4444",
		"[fd99::77]:5060":     "IPV6/UDP/fd99::77/5060",
		"[2001:db8::8]:44444": "IPV6/UDP/2001:db8::8/44444",
	} {
		from := netip.MustParseAddrPort(source)
		to := l.SIPAddress(from.Addr().Is6())
		if err := l.Forge(lab.Attacker, from, to, lab.Request{User: "forged"}.Bytes("udp", from, to)); err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		ami.Event(t, "InvalidAccountID", "AccountID", "forged", "RemoteAddress", want)
	}
}

func TestFurtherAddressesOfANode(t *testing.T) {
	t.Parallel()
	l := lab.Start(t, lab.Options{Version: 22})
	ami := l.DialAMI(t, lab.Ringwall)
	for _, s := range []string{"10.99.7.1", "fd99:0:0:7::1"} {
		a := netip.MustParseAddr(s)
		l.AddAddr(t, lab.Attacker, a)
		wantCode(t, 401)(l.Agent(t, lab.Attacker, lab.AgentOptions{Local: a, Timeout: patience}).Probe("from-" + s[:4]))
		family := "IPV4"
		if a.Is6() {
			family = "IPV6"
		}
		ami.Event(t, "InvalidAccountID", "RemoteAddress", family+"/UDP/"+s+"/")
	}
}

func TestCallsOfAPhoneAndOfATrunk(t *testing.T) {
	t.Parallel()
	l := lab.Start(t, lab.Options{Version: 22})
	ami := l.DialAMI(t, lab.Ringwall)
	wantCode(t, 200)(l.Agent(t, lab.Trunk, lab.AgentOptions{Port: 5060, Timeout: patience}).Invite("provider", "",
		"100"))
	wantCode(t, 200)(l.Agent(t, lab.Phone, lab.AgentOptions{Timeout: patience}).Invite("6001", lab.Password("6001"),
		"100"))
	ami.Event(t, "SuccessfulAuth", "AccountID", "6001", "RemoteAddress", "IPV4/UDP/10.99.0.10/")
	for _, f := range ami.DrainFrames() {
		if strings.Contains(string(f), lab.Trunk.IPv4().String()) {
			t.Errorf("a trunk known by its address made an event: %q", f)
		}
	}
}

func TestPhoneKnownByTheUserOfItsDigest(t *testing.T) {
	t.Parallel()
	l := lab.Start(t, lab.Options{Version: 22, AuthUsername: true})
	ami := l.DialAMI(t, lab.Ringwall)
	wantCode(t, 200)(l.Agent(t, lab.Phone, lab.AgentOptions{Timeout: patience}).Register("6102", lab.Password("6102")))
	ami.Event(t, "ChallengeSent", "AccountID", "<unknown>", "RemoteAddress", "IPV4/UDP/10.99.0.10/")
	ami.Event(t, "SuccessfulAuth", "AccountID", "6102")
}

func TestManagerAccountsHaveTheirPrivileges(t *testing.T) {
	t.Parallel()
	l := lab.Start(t, lab.Options{Version: 22})
	if _, err := l.LoginAMI(t, lab.Ringwall, "wrong"); err == nil {
		t.Error("login with a wrong secret succeeded")
	}
	sees := map[lab.User]*lab.AMI{}
	for _, u := range []lab.User{lab.Ringwall, lab.Learn, lab.SecFull, lab.Plain, lab.Hasty} {
		sees[u] = l.DialAMI(t, u)
	}
	nosec := l.DialAMI(t, lab.NoSec)
	wantCode(t, 200)(l.Agent(t, lab.Phone, lab.AgentOptions{Timeout: patience}).Register("6001", lab.Password("6001")))
	for u, ami := range sees {
		ami.Event(t, "SuccessfulAuth", "AccountID", "6001")
		reply, err := ami.Action("DBGetTree", "Family", "registrar")
		want := map[bool]string{true: "Success", false: "Error"}[u == lab.Learn || u == lab.SecFull]
		if err != nil || reply.Get("Response") != want {
			t.Errorf("%s: DBGetTree: %q, %v; want %s", u, reply, err, want)
		}
	}
	sees[lab.SecFull].Event(t, "FullyBooted")
	nosec.Ping(t)
	for _, f := range nosec.DrainFrames() {
		if strings.HasPrefix(f.Get("Privilege"), "security") {
			t.Errorf("nosec sees a security event: %q", f)
		}
	}
	if _, err := l.DialContext(t.Context(), lab.Attacker, "tcp", "10.99.0.1:5038"); err == nil {
		t.Error("AMI answers beyond loopback")
	}
}

func TestOptionsChangeTheConfiguration(t *testing.T) {
	t.Parallel()
	l := lab.Start(t, lab.Options{PublicAMI: true, HTTPAMI: true, Edit: func(file, content string) string {
		if file == "pjsip.conf" {
			content = strings.Replace(content, "password = pass6005", "password = other", 1)
		}
		return content
	}})
	phone := l.Agent(t, lab.Phone, lab.AgentOptions{Timeout: patience})
	wantCode(t, 401)(phone.Register("6005", lab.Password("6005")))
	wantCode(t, 200)(phone.Register("6005", "other"))
	conn, err := l.DialContext(t.Context(), lab.Attacker, "tcp", "10.99.0.1:5038")
	if err != nil {
		t.Fatalf("AMI from another node: %v", err)
	}
	defer conn.Close()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       l.Dialer(lab.Attacker),
	}}
	resp, err := client.Get("http://10.99.0.1:8088/rawman?action=login&username=ringwall&secret=" +
		lab.Ringwall.Secret())
	if err != nil {
		t.Fatalf("HTTP AMI: %v", err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(b), "Authentication accepted") {
		t.Errorf("HTTP AMI: %s, %q, %v", resp.Status, b, err)
	}
}

func TestProgramOnANode(t *testing.T) {
	t.Parallel()
	l := lab.Start(t, lab.Options{})
	p := l.Spawn(t, lab.Phone, "sh", "-c", "ip -o addr; echo up; read x; echo got $x")
	p.Expect(t, "up\n")
	if !strings.Contains(p.Output(), "10.99.0.10/16") {
		t.Errorf("runs elsewhere:\n%s", p.Output())
	}
	p.Expect(t, "got") // its input is empty
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
	if out, err := l.Exec(t.Context(), lab.Spare, "sh", "-c", "echo no; exit 3"); err == nil || string(out) != "no\n" {
		t.Errorf("a failing program: %q, %v", out, err)
	}
	if _, err := l.Exec(t.Context(), lab.Spare, "no-such-program"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("a program that is not there: %v", err)
	}
}

func TestUnregister(t *testing.T) {
	t.Parallel()
	l := lab.Start(t, lab.Options{})
	phone := l.Agent(t, lab.Phone, lab.AgentOptions{Timeout: patience})
	wantCode(t, 200)(phone.Register("6001", lab.Password("6001")))
	if out := l.CLI(t, "pjsip show contacts"); !strings.Contains(out, "6001/sip:") {
		t.Fatalf("no contact after Register:\n%s", out)
	}
	wantCode(t, 200)(phone.Unregister("6001", lab.Password("6001")))
	if out := l.CLI(t, "pjsip show contacts"); strings.Contains(out, "6001/sip:") {
		t.Errorf("a contact after Unregister:\n%s", out)
	}
}

func TestAsteriskRestartsAndCrashes(t *testing.T) {
	t.Parallel()
	l := lab.Start(t, lab.Options{Version: 22})
	phone := l.Agent(t, lab.Phone, lab.AgentOptions{Timeout: patience})
	wantCode(t, 200)(phone.Register("6001", lab.Password("6001")))
	ami := l.DialAMI(t, lab.Ringwall)

	l.Restart(t)
	if f, err := ami.TakeFrame(func(f lab.Frame) bool { return false }); err == nil {
		t.Errorf("the session outlived Asterisk and got %q", f)
	}
	if out := l.CLI(t, "pjsip show contacts"); !strings.Contains(out, "10.99.0.10") {
		t.Errorf("the registration is gone:\n%s", out)
	}
	l.KillAsterisk(t)
	if _, err := phone.Probe("6001"); err == nil {
		t.Error("a killed Asterisk answered")
	}
	phone.Close()
	l.StartAsterisk(t)
	wantCode(t, 200)(phone.Register("6001", lab.Password("6001")))
}

func TestSilenceIsNoReply(t *testing.T) {
	t.Parallel()
	l := lab.Start(t, lab.Options{Version: 22})
	ruleset := `table inet t { chain c { type filter hook prerouting priority -300; ip saddr 10.99.0.66 drop; }; }`
	if out, err := l.Exec(t.Context(), lab.Server, "nft", ruleset); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, transport := range []string{"udp", "tcp", "tls", "ws", "wss"} {
		attacker := l.Agent(t, lab.Attacker, lab.AgentOptions{Transport: transport, Timeout: 300 * time.Millisecond})
		if c, err := attacker.Probe("6001"); !errors.Is(err, lab.ErrNoReply) {
			t.Errorf("%s: a dropped source got %d, %v", transport, c, err)
		}
	}
	wantCode(t, 401)(l.Agent(t, lab.Spare, lab.AgentOptions{Timeout: patience}).Probe("6001"))
}

func TestManyRequestsAtOnce(t *testing.T) {
	t.Parallel()
	l := lab.Start(t, lab.Options{Version: 22})
	for _, transport := range []string{"udp", "tcp"} {
		attacker := l.Agent(t, lab.Attacker, lab.AgentOptions{Transport: transport, Timeout: patience})
		codes, err := attacker.ExchangeMany(200, 20, func(i int) lab.Request {
			return lab.Request{User: "bulk" +
				strconv.Itoa(i)}
		})
		if err != nil || codes[401] != 200 {
			t.Errorf("%s: Bulk = %v, %v, want 200 times 401", transport, codes, err)
		}
	}
}

func TestSippScenarios(t *testing.T) {
	t.Parallel()
	l := lab.Start(t, lab.Options{Version: 22})
	ami := l.DialAMI(t, lab.Ringwall)
	if out, err := l.Sipp(t.Context(), lab.Attacker, "scan", "-m", "5", "-r", "50"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ami.Event(t, "InvalidAccountID", "AccountID", "scan5", "RemoteAddress", "IPV4/UDP/10.99.0.66/")
	if out, err := l.Sipp(t.Context(), lab.Phone, "register", "-m", "5", "-r", "50", "-s", "6001", "-au", "6001",
		"-ap", lab.Password("6001")); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ami.Event(t, "SuccessfulAuth", "AccountID", "6001", "RemoteAddress", "IPV4/UDP/10.99.0.10/")
}

func TestChanSIP(t *testing.T) {
	t.Parallel()
	l := lab.Start(t, lab.Options{Version: 16})
	ami := l.DialAMI(t, lab.Ringwall)
	phone := l.Agent(t, lab.Phone, lab.AgentOptions{Timeout: patience})
	wantCode(t, 200)(phone.Register("7001", lab.Password("7001")))
	ami.Event(t, "ChallengeSent", "Service", "SIP", "AccountID", "7001", "RemoteAddress", "IPV4/UDP/10.99.0.10/")
	ami.Event(t, "SuccessfulAuth", "Service", "SIP", "AccountID", "7001", "UsingPassword", "1")
	wantCode(t, 200)(phone.Invite("7001", lab.Password("7001"), "100"))
	attacker := l.Agent(t, lab.Attacker, lab.AgentOptions{Transport: "tcp", Timeout: patience})
	if c, err := attacker.Register("7001", "wrong"); err != nil || c < 400 {
		t.Errorf("a wrong password: %d, %v", c, err)
	}
	ami.Event(t, "InvalidPassword", "Service", "SIP", "AccountID", "7001", "RemoteAddress", "IPV4/TCP/10.99.0.66/")
	l.Restart(t)
	wantCode(t, 200)(phone.Register("7001", lab.Password("7001")))
}

func TestLabsAreApartFromEachOther(t *testing.T) {
	t.Parallel()
	a, b := lab.Start(t, lab.Options{Version: 22}), lab.Start(t, lab.Options{Version: 22})
	other := b.DialAMI(t, lab.Ringwall)
	mine := a.DialAMI(t, lab.Ringwall)
	wantCode(t, 401)(a.Agent(t, lab.Attacker, lab.AgentOptions{Timeout: patience}).Probe("only-a"))
	wantCode(t, 401)(b.Agent(t, lab.Attacker, lab.AgentOptions{Timeout: patience}).Probe("only-b"))
	mine.Event(t, "InvalidAccountID", "AccountID", "only-a")
	other.Event(t, "InvalidAccountID", "AccountID", "only-b")
	for _, f := range other.DrainFrames() {
		if strings.Contains(string(f), "only-a") {
			t.Errorf("the other lab saw %q", f)
		}
	}
}

// Not parallel with itself: the other labs of this process are still to start, or over.
func TestNothingIsLeftBehind(t *testing.T) {
	mounts := readFile(t, "/proc/self/mountinfo")
	var dir string
	var pids []int
	spaces := map[string]lab.Node{}
	t.Run("lab", func(t *testing.T) {
		l := lab.Start(t, lab.Options{Version: 22})
		dir = filepath.Dir(l.Dir)
		sleep := l.Spawn(t, lab.Phone, "sleep", "1000")
		for _, node := range []lab.Node{lab.Server, lab.Attacker, lab.Phone, lab.Trunk, lab.Spare} {
			link, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(l.NetNS(node)))
			if err != nil {
				t.Fatal(err)
			}
			spaces[link] = node
		}
		pids = []int{l.Asterisk().Cmd.Process.Pid, sleep.Cmd.Process.Pid}
		for _, pid := range pids {
			if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); err != nil {
				t.Fatalf("not running: %v", err)
			}
		}
	})
	for _, pid := range pids {
		if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); err == nil {
			t.Errorf("process %d is left", pid)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", dir, err)
	}
	for _, line := range strings.Split(readFile(t, "/proc/self/mountinfo"), "\n") {
		if strings.Contains(line, dir) || strings.Contains(line, "/lab ") && !strings.Contains(mounts, line) {
			t.Errorf("mount is left: %s", line)
		}
	}
	if now := readFile(t, "/proc/net/dev"); strings.Contains(now, "p-server") {
		t.Errorf("interfaces on the host:\n%s", now)
	}
	if len(spaces) != 5 {
		t.Fatalf("namespaces: %v, want 5", spaces)
	}
	// A namespace lives while a thread is in it or a descriptor is open. Threads end a little after their goroutines.
	deadline := time.Now().Add(patience)
	for len(namespaceHolders(t, spaces)) > 0 && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	for _, h := range namespaceHolders(t, spaces) {
		t.Errorf("a namespace is left: %s", h)
	}
}

// namespaceHolders looks at this process only: the kernel may give the numbers to others again.
func namespaceHolders(t *testing.T, spaces map[string]lab.Node) []string {
	t.Helper()
	var held []string
	for _, pattern := range []string{"/proc/self/task/*/ns/net", "/proc/self/fd/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if link, err := os.Readlink(path); err == nil && spaces[link] != "" {
				held = append(held, string(spaces[link])+" by "+path)
			}
		}
	}
	return held
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// wantCode takes an agent's answer: expect(t, 200)(phone.Register(…)).
func wantCode(t *testing.T, want int) func(int, error) {
	return func(got int, err error) {
		t.Helper()
		if err != nil || got != want {
			t.Fatalf("answer %d, %v; want %d", got, err, want)
		}
	}
}
