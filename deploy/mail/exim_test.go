package mail

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/mail"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/notify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is Debian's exim, on the loopback, that knows one user and puts every mail into one file.
type server struct {
	t    *testing.T
	dir  string
	port int // of STARTTLS
	tls  int // where TLS is spoken from the first byte on
	open int // where there is none
	cmd  *exec.Cmd
	said trial.Buffer
}

// eximUser is whom Debian's exim runs as. The server sees a list of users in which it is; this machine's stays as it is.
const eximUser = 64999

const configuration = `
primary_hostname = mail.example.org
keep_environment = LD_LIBRARY_PATH
exim_path = @PROGRAM
exim_user = Debian-exim
exim_group = Debian-exim
spool_directory = @DIR/spool
log_file_path = @DIR/log/%slog
pid_file_path = @DIR/pid
deliver_drop_privilege = true
host_lookup =
rfc1413_hosts =
daemon_smtp_ports = @PORT : @TLS : @OPEN
tls_on_connect_ports = @TLS
local_interfaces = 127.0.0.1
tls_advertise_hosts = ${if eq{$received_port}{@OPEN}{}{*}}
tls_certificate = @DIR/cert.pem
tls_privatekey = @DIR/key.pem
acl_smtp_rcpt = acl_rcpt
begin acl
acl_rcpt:
  deny local_parts = nobody
       message = no such user
  deny !authenticated = *
       condition = ${if eq{$received_port}{@OPEN}{no}{yes}}
  accept
begin routers
all:
  driver = accept
  transport = file
begin transports
file:
  driver = appendfile
  file = @DIR/mbox
  batch_max = 10
  user = Debian-exim
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if and{{eq{$auth2}{ringwall}}{eq{$auth3}{hunter2}}}}
  server_set_id = $auth2
  server_advertise_condition = ${if def:tls_in_cipher}
`

// startScript gives the server a list of users in a mount namespace of its own.
const startScript = `mount --make-rprivate / && mount --bind "$1/passwd" /etc/passwd &&
mount --bind "$1/group" /etc/group && exec "$2" -C "$1/conf" -bdf`

func findExim(t *testing.T) (program, libraries string) {
	t.Helper()
	tree := trial.Unpacked("exim")
	program = filepath.Join(tree, "usr/sbin/exim4")
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("no exim: deploy/lab/lab install gets it (%v)", err)
	}
	found, _ := filepath.Glob(filepath.Join(tree, "usr/lib/*-linux-gnu*"))
	return program, strings.Join(found, ":")
}

// newServer is a server that does not run yet.
func newServer(t *testing.T) *server {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a real mail server")
	}
	s := &server{t: t, dir: publicDir(t), port: freePort(t), tls: freePort(t), open: freePort(t)}
	for _, dir := range []string{"spool", "log"} {
		s.create(dir, nil, 0)
	}
	s.create("mbox", []byte{}, 0o600)
	if err := os.Chown(s.dir, eximUser, eximUser); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"passwd", "group"} {
		have, err := os.ReadFile("/etc/" + name)
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("Debian-exim:x:%d:%[1]d::/:/usr/sbin/nologin\n", eximUser)
		if name == "group" {
			line = fmt.Sprintf("Debian-exim:x:%d:\n", eximUser)
		}
		s.create(name, append([]byte(line), have...), 0o644) // the first of a name counts
	}
	program, _ := findExim(t)
	s.create("conf", []byte(strings.NewReplacer("@DIR", s.dir, "@PORT", fmt.Sprint(s.port), "@TLS",
		fmt.Sprint(s.tls), "@OPEN", fmt.Sprint(s.open), "@PROGRAM", program).Replace(configuration)), 0o644)
	if err := os.Chown(filepath.Join(s.dir, "conf"), 0, 0); err != nil { // exim trusts only root's
		t.Fatal(err)
	}
	s.makeCertificate()
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(s.dir, "log", "mainlog"))
			t.Logf("the server said:\n%s%s", s.said.String(), log)
		}
	})
	return s
}

// publicDir is a folder that the server's user may enter, which t.TempDir's is not.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ringwall-mail")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// create makes a file of the server's, or a folder.
func (s *server) create(name string, data []byte, mode os.FileMode) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	var err error
	if mode == 0 {
		err = os.Mkdir(path, 0o750)
	} else {
		err = os.WriteFile(path, data, mode)
	}
	if err == nil {
		err = os.Chown(path, eximUser, eximUser)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// makeCertificate makes one that holds at any time.
func (s *server) makeCertificate() {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0),
		NotAfter: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		s.t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	s.create("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
	s.create("key.pem", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600)
}

func (s *server) start() {
	s.t.Helper()
	program, libraries := findExim(s.t)
	s.cmd = exec.Command("/bin/sh", "-c", startScript, "sh", s.dir, program)
	s.cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+libraries)
	s.cmd.Stdout, s.cmd.Stderr = &s.said, &s.said
	s.cmd.WaitDelay = time.Second // processes of its connections have its output, too
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for _, port := range []int{s.port, s.tls, s.open} {
		trial.WaitUntil(s.t, "the server listens", func() bool {
			c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
			if err == nil {
				_ = c.Close()
			}
			return err == nil
		})
	}
}

func (s *server) stop() {
	if s.cmd != nil {
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// mails are those that were delivered.
func (s *server) mails() (list []*mail.Message) {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.dir, "mbox"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, part := range strings.Split("\n"+string(data), "\nFrom ")[1:] {
		_, part, _ = strings.Cut(part, "\n")
		m, err := mail.ReadMessage(strings.NewReader(part))
		if err != nil {
			s.t.Fatalf("%v: %q", err, part)
		}
		body, _ := io.ReadAll(m.Body)
		m.Body = bytes.NewReader(body)
		list = append(list, m)
	}
	return list
}

// target is the target of a configuration that is told by this server.
func (s *server) target(change string) []config.Notify {
	s.t.Helper()
	password := filepath.Join(s.dir, "password")
	if err := os.WriteFile(password, []byte("hunter2\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "wrong"), []byte("hunter3\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	text := fmt.Sprintf(`asterisk: [{address: "127.0.0.1:5038", username: ringwall, secret: x}]
notify:
  - ca_file: DIR/cert.pem
    smtp:
      host: 127.0.0.1
      port: %d
      user: ringwall
      password_file: DIR/password
      from: ringwall@example.org
      to: [admin@example.org, night@example.org]
`, s.port)
	if old, text2, ok := strings.Cut(change, " -> "); ok {
		old = strings.Replace(old, "PORT", fmt.Sprint(s.port), 1)
		text2 = strings.NewReplacer("TLS", fmt.Sprint(s.tls), "OPEN", fmt.Sprint(s.open)).Replace(text2)
		if !strings.Contains(text, old) {
			s.t.Fatalf("%q is not in %s", old, text)
		}
		text = strings.Replace(text, old, text2, 1)
	}
	c, _, err := config.Parse(strings.NewReader(strings.ReplaceAll(text, "DIR", s.dir)), "ringwall.yaml",
		config.Environment{Open: func(name string) (fs.File, error) { return os.Open(name) }})
	if err != nil {
		s.t.Fatal(err)
	}
	return c.Notify
}

// notifier is one that runs.
type notifier struct {
	*notify.Notifier
	said trial.Buffer
	end  func()
}

func (s *server) notifier(targets []config.Notify) *notifier {
	s.t.Helper()
	n := &notifier{}
	var err error
	n.Notifier, err = notify.New(targets, notify.Options{Log: slog.New(slog.NewTextHandler(&n.said, nil))})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = n.Run(ctx) }()
	n.end = sync.OnceFunc(func() { cancel(); <-done })
	s.t.Cleanup(n.end)
	return n
}

func banOf(n int, account string) ban.Decision {
	a := netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})
	return ban.Decision{Time: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC), Action: ban.ActionBan, Source: a,
		Prefix: netip.PrefixFrom(a, 32), Reason: ban.ReasonUnknownAccount, Score: 12, Account: account,
		Duration: time.Hour}
}

// What somebody attacked with stands in quotes in the text, and nowhere else, whatever it holds.
func TestAMailSaysWhatHappened(t *testing.T) {
	s := newServer(t)
	s.start()
	for _, c := range []struct{ name, change string }{
		{"STARTTLS", ""},
		{"TLS from the first byte on", "port: PORT -> port: TLS\n      tls: always"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(s.mails())
			n := s.notifier(s.target(c.change))
			n.Push(banOf(7, "1001\r\nBcc: everybody@example.org\r\n.\r\n"))
			trial.WaitUntil(s.t, "a mail", func() bool { return len(s.mails()) > before })
			m := s.mails()[before]
			body, _ := io.ReadAll(m.Body)
			h := m.Header
			if h.Get("From") != "<ringwall@example.org>" || !strings.Contains(h.Get("To"), "night@example.org") ||
				h.Get("Auto-Submitted") != "auto-generated" || !strings.Contains(h.Get("Subject"), "192.0.2.7") ||
				h.Get("Bcc") != "" || h.Get("Message-Id") == "" || h.Get("Date") == "" {
				t.Errorf("%q", h)
			}
			for _, want := range []string{"192.0.2.7", "unknown account", "ringwall why 192.0.2.7", "Bcc"} {
				if !strings.Contains(string(body), want) {
					t.Errorf("without %q:\n%s", want, body)
				}
			}
			if strings.Contains(string(body), "\nBcc") {
				t.Errorf("a line of the attacker's:\n%s", body)
			}
		})
	}
}

// A password can be wrong and a server away: what was to be told waits.
func TestWhatCannotBeSentWaits(t *testing.T) {
	for _, c := range []struct {
		name, change, says string
		mend               func(s *server, n *notifier)
	}{
		{"a wrong password", "DIR/password -> DIR/wrong", "neither user nor password (535)",
			func(s *server, n *notifier) {
				if err := n.Configure(s.target("")); err != nil {
					s.t.Error(err)
				}
			}},
		{"a server that is away", "", "connection refused", func(s *server, _ *notifier) { s.start() }},
		{"a certificate that nobody signed", "ca_file: DIR/cert.pem -> name: smtp", "signed by nobody who is known here",
			func(s *server, n *notifier) {
				if err := n.Configure(s.target("")); err != nil {
					s.t.Error(err)
				}
			}},
		{"a server without STARTTLS", "port: PORT -> port: OPEN", "does not offer STARTTLS", func(s *server, n *notifier) {
			if err := n.Configure(s.target("")); err != nil {
				s.t.Error(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t)
			if c.says != "connection refused" {
				s.start()
			}
			n := s.notifier(s.target(c.change))
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("the notifier said:\n%s", n.said.String())
				}
			})
			n.Push(banOf(8, "1001"))
			trial.WaitUntil(s.t, "it says why", func() bool {
				return strings.Contains(n.said.String(), c.says)
			})
			if got := len(s.mails()); got > 0 {
				t.Fatalf("%d mails", got)
			}
			if strings.Contains(n.said.String(), "hunter") {
				t.Errorf("the log shows a password: %s", n.said.String())
			}
			c.mend(s, n)
			trial.WaitUntil(s.t, "the mail", func() bool { return len(s.mails()) > 0 })
		})
	}
}

// A flood is a few mails and one that counts the rest.
func TestAFloodIsAFewMails(t *testing.T) {
	s := newServer(t)
	s.start()
	n := s.notifier(s.target(""))
	for i := range 200 {
		n.Push(banOf(i, "1001"))
	}
	trial.WaitUntil(s.t, "the first", func() bool { return len(s.mails()) >= 5 })
	n.end() // else it would come in a minute
	trial.WaitUntil(s.t, "the rest", func() bool { return len(s.mails()) >= 6 })
	var subjects []string
	for _, m := range s.mails() {
		subjects = append(subjects, m.Header.Get("Subject"))
	}
	if last := subjects[len(subjects)-1]; len(subjects) != 6 || !strings.Contains(last, "195 more decisions") {
		t.Errorf("%q", subjects)
	}
}
