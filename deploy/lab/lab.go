package lab

import (
	"context"
	"embed"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed lab etc sipp
var files embed.FS

// AMIAddress is where Asterisk's manager interface listens, on the server.
const AMIAddress = "127.0.0.1:5038"

// User is an AMI account of the lab.
type User string

// The AMI accounts (etc/asterisk22/manager.conf).
const (
	Ringwall User = "ringwall" // read=security, write=: what Ringwall asks for
	Learn    User = "learn"    // read=security, write=reporting: may list contacts
	SecFull  User = "secfull"  // read=system,security,reporting, write=system,reporting
	NoSec    User = "nosec"    // read=call: logs in, sees no security event
	Plain    User = "plain"    // as Ringwall, for logins without the MD5 challenge
	Hasty    User = "hasty"    // as Ringwall, with the default writetimeout of 100 ms
)

// Secret returns the account's secret.
func (u User) Secret() string { return "lab-" + string(u) }

// Password returns the password of a SIP account: 6001 to 6010, 6101 (for 10.99.0.10 and fd99::10 only) and 6102 (found
// by the user name of its digest) on Asterisk 22; 7001 to 7005 and 7101 (for 10.99.0.10 only) on 16. 6103 has none.
func Password(account string) string { return "pass" + account }

// Options of one lab.
type Options struct {
	// Version of Asterisk: 22 (PJSIP) or 16 (16.28, chan_sip). 0 means 22.
	Version int
	// AuthUsername lets PJSIP find endpoints by the user name of a digest, as some installations do; healthy phones
	// then cause ChallengeSent for "<unknown>". Asterisk 22 only.
	AuthUsername bool
	// PublicAMI lets the manager interface listen on all addresses instead of on loopback.
	PublicAMI bool
	// HTTPAMI serves the manager interface over HTTP too, on port 8088. Asterisk 22 only.
	HTTPAMI bool
	// Edit, if set, may change each configuration file before the first start. file is its name, as in "pjsip.conf".
	Edit func(file, content string) string
	// Files are more configuration files, by name, as in "hep.conf".
	Files map[string]string
}

// Lab is an Asterisk, the namespaces around it, and the programs that a test started in them.
type Lab struct {
	// Version is 22 or 16.
	Version int
	// Dir holds what this Asterisk reads and writes: etc, lib, log, run, spool.
	Dir string

	net      *labNetwork
	asterisk *Process
	script   string
}

// Start makes a lab, building Asterisk first if that was never done on this machine (one to two minutes). It returns
// when Asterisk is fully booted. All ends with the test. It skips the test only where that is not run by root.
func Start(t testing.TB, o Options) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("lab: needs root, for namespaces and chroot")
	}
	if o.Version == 0 {
		o.Version = 22
	}
	if o.Version != 22 && o.Version != 16 {
		t.Fatalf("lab: Version is %d: allowed are 22 and 16", o.Version)
	}
	dir, release, err := newFolder()
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	t.Cleanup(release)
	l := &Lab{Version: o.Version, Dir: filepath.Join(dir, "asterisk"), script: filepath.Join(dir, "src", "lab")}
	if err := extractFiles(filepath.Dir(l.script)); err != nil {
		t.Fatalf("lab: %v", err)
	}
	for _, args := range [][]string{{"build"}, {"prepare", l.Dir}} {
		args = append([]string{l.script, args[0], strconv.Itoa(l.Version)}, args[1:]...)
		if out, err := exec.CommandContext(t.Context(), "bash", args...).CombinedOutput(); err != nil {
			t.Fatalf("lab: %s: %v\n%s", strings.Join(args[1:], " "), err, out)
		}
	}
	if err := l.editConfiguration(o); err != nil {
		t.Fatalf("lab: configuration: %v", err)
	}
	if l.net, err = newNetwork(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.net.close)
	l.StartAsterisk(t)
	t.Cleanup(func() {
		if l.asterisk != nil {
			_ = l.asterisk.Cmd.Process.Kill() // nothing is worth the second that a polite end takes
			_ = l.asterisk.Wait()
		}
		if t.Failed() {
			if b, err := os.ReadFile(l.MessagesLog()); err == nil {
				t.Logf("Asterisk's messages log ends:\n%s", lastBytes(b, 4096))
			}
		}
	})
	return l
}

// newFolder makes a folder in the system's temporary one. Not t.TempDir: its path can be too long for the unix socket
// of Asterisk's console. A lock tells it from those of killed tests, which are removed.
func newFolder() (dir string, release func(), err error) {
	old, err := filepath.Glob(filepath.Join(os.TempDir(), "ringwall-lab-*"))
	if err != nil {
		return "", nil, err
	}
	for _, d := range old {
		// A minute of grace, since another process takes its lock only after making its folder.
		if info, err := os.Stat(d); err != nil || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		if f, err := lockFolder(d); err == nil {
			_ = os.RemoveAll(d)
			_ = f.Close()
		}
	}
	if dir, err = os.MkdirTemp("", "ringwall-lab-"); err != nil {
		return "", nil, err
	}
	f, err := lockFolder(dir)
	if err != nil {
		_ = os.RemoveAll(dir)
		return "", nil, err
	}
	return dir, func() {
		_ = os.RemoveAll(dir)
		_ = f.Close()
	}, nil
}

func lockFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func extractFiles(dir string) error {
	return fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(dir, path)
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		b, err := files.ReadFile(path)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if path == "lab" {
			mode = 0o755
		}
		return os.WriteFile(to, b, mode)
	})
}

func (l *Lab) editConfiguration(o Options) error {
	type change struct{ file, from, to string }
	var changes []change
	if o.AuthUsername {
		changes = append(changes, change{"pjsip.conf", `(?m)^endpoint_identifier_order = .*`,
			"endpoint_identifier_order = ip,username,auth_username,anonymous"})
	}
	if o.PublicAMI {
		changes = append(changes, change{"manager.conf", `(?m)^bindaddr = .*`, "bindaddr = 0.0.0.0"})
	}
	if o.HTTPAMI {
		changes = append(changes, change{"manager.conf", `(?m)^webenabled = .*`, "webenabled = yes"})
	}
	etc := filepath.Join(l.Dir, "etc")
	for name, content := range o.Files {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(etc)
	if err != nil {
		return err
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(etc, e.Name()))
		if err != nil {
			return err
		}
		s := string(b)
		for _, c := range changes {
			if c.file == e.Name() {
				s = regexp.MustCompile(c.from).ReplaceAllString(s, c.to)
			}
		}
		if o.Edit != nil {
			s = o.Edit(e.Name(), s)
		}
		if err := os.WriteFile(filepath.Join(etc, e.Name()), []byte(s), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// SecurityLog is the path of Asterisk's security log.
func (l *Lab) SecurityLog() string { return filepath.Join(l.Dir, "log", "security") }

// MessagesLog is the path of its log of notices, warnings and errors.
func (l *Lab) MessagesLog() string { return filepath.Join(l.Dir, "log", "messages") }

// SIPAddress is where Asterisk takes SIP over UDP and TCP.
func (l *Lab) SIPAddress(ipv6 bool) netip.AddrPort {
	if ipv6 {
		return netip.AddrPortFrom(Server.IPv6(), 5060)
	}
	return netip.AddrPortFrom(Server.IPv4(), 5060)
}

// Sipp runs sipp on a node with a scenario of this package, "register" or "scan", and returns what it printed. extra
// goes to its command line: "-m", "20" makes 20 calls, "-r", "5" five a second.
func (l *Lab) Sipp(ctx context.Context, node Node, scenario string, extra ...string) ([]byte, error) {
	args := []string{"-sf", filepath.Join(filepath.Dir(l.script), "sipp", scenario+".xml"), "-i", node.IPv4().String(),
		"-nostdin", "-timeout", "60"}
	return l.Exec(ctx, node, "sipp", append(append(args, extra...), l.SIPAddress(false).String())...)
}

func lastBytes(b []byte, n int) []byte {
	if len(b) > n {
		b = b[len(b)-n:]
	}
	return b
}
