package fail2ban_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/fail2ban"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// real is Debian's fail2ban in a network namespace of its own, with files in a folder of the test.
type real struct {
	dir, socket string
	lines       chan string
	stop        func()
}

func (r *real) database() string { return filepath.Join(r.dir, "db.sqlite3") }

// kernelTime is fail2ban's: deploy/test may have programs made with Go, as this one, run years later.
func kernelTime() time.Time {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
		panic(err) // the clock and the pointer are fine
	}
	return time.Unix(now.Unix())
}

// patience is how long fail2ban may take for anything.
const patience = 2 * time.Minute

// realZone is the zone of the server, as a machine's may differ from that of a person's shell.
const realZone = "America/St_Johns"

const realHint = "run deploy/lab/lab install, as root"

// jailLocal bans with nftables, in the namespace.
const jailLocal = `[DEFAULT]
ignoreip = 127.0.0.1/8 ::1 192.0.2.0/24
banaction = nftables-multiport
banaction_allports = nftables-allports
backend = polling

[sshd]
enabled = true
logpath = %(fail2ban_confpath)s/ssh.log

[asterisk]
enabled = true
logpath = %(fail2ban_confpath)s/messages
maxretry = 3
findtime = 1d 12h
bantime = 2 * 60 * 60
bantime.increment = true
bantime.maxtime = 5w
ignoreip = %(default/ignoreip)s 2001:db8:10::/48
`

func startReal(t *testing.T) *real {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: fail2ban runs in a network namespace of its own")
	}
	if _, err := exec.LookPath("fail2ban-server"); err != nil {
		t.Fatal(err, realHint)
	}
	r := &real{dir: t.TempDir(), lines: make(chan string, 1000)}
	r.socket = filepath.Join(r.dir, "s")
	if err := os.CopyFS(r.dir, onlyFiles{os.DirFS("/etc/fail2ban")}); err != nil {
		t.Fatal(err)
	}
	// The machine's own jails are not this test's.
	for _, name := range []string{"jail.local", "jail.d", "fail2ban.local", "fail2ban.d"} {
		if err := os.RemoveAll(filepath.Join(r.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	zone, err := time.LoadLocation(realZone)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	for i := range 5 {
		fmt.Fprintf(&log, "[%s] NOTICE[42] chan_sip.c: Registration from '\"%d\" <sip:%d@192.0.2.1>' failed for "+
			"'203.0.113.66:5060' - Wrong password\n",
			kernelTime().In(zone).Format(time.DateTime), 100+i, 100+i)
	}
	for name, text := range map[string]string{
		"jail.local": jailLocal, "messages": log.String(), "ssh.log": "",
		"fail2ban.local": "[Definition]\ndbfile = " + r.database() + "\nsocket = " + r.socket + "\ndbpurgeage = 3d\n",
	} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r.start(t)
	return r
}

// onlyFiles hides links, which os.CopyFS does not copy.
type onlyFiles struct{ fs.FS }

func (o onlyFiles) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(o.FS, name)
	var list []fs.DirEntry
	for _, e := range all {
		if e.IsDir() || e.Type().IsRegular() {
			list = append(list, e)
		}
	}
	return list, err
}

func (r *real) start(t *testing.T) {
	t.Helper()
	cmd := exec.Command("fail2ban-server", "-f", "-c", r.dir, "-s", r.socket, "-p", filepath.Join(r.dir, "pid"),
		"--logtarget", "STDOUT")
	cmd.Env = append(os.Environ(), "TZ="+realZone)
	in, out := io.Pipe()
	cmd.Stdout, cmd.Stderr = out, out
	p, err := netnstest.New(t).Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	r.stop = sync.OnceFunc(func() { p.Stop(patience) })
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(in); s.Scan(); {
			select {
			case r.lines <- s.Text():
			default: // nobody waits for so many
			}
		}
	}()
	t.Cleanup(func() {
		r.stop()
		_ = out.Close()
		<-read
	})
}

// await waits for a line of the log that holds all parts.
func (r *real) await(t *testing.T, parts ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var seen []string
	for {
		select {
		case line := <-r.lines:
			seen = append(seen, line)
			ok := true
			for _, part := range parts {
				ok = ok && strings.Contains(line, part)
			}
			if ok {
				return
			}
		case <-ctx.Done():
			t.Fatalf("fail2ban never said %q:\n%s", parts, strings.Join(seen, "\n"))
		}
	}
}

// stored waits until the database holds these bans: a thread of fail2ban's writes it some time after the log says so
// (server/observer.py, banFound).
func (r *real) stored(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		im, err := fail2ban.Read(t.Context(), fail2ban.Options{Jail: r.dir, DB: r.database(), Now: kernelTime()})
		if err == nil && prefixes(im) == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the database never held %s: %v, %v", want, im, err)
		}
	}
}

func prefixes(im *fail2ban.Import) string {
	var list []string
	for _, b := range im.Bans {
		list = append(list, b.Prefix.String())
	}
	return strings.Join(list, " ")
}

func (r *real) client(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "fail2ban-client",
		append([]string{"-c", r.dir, "-s", r.socket}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("fail2ban-client %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestRealFail2banIsTakenOver(t *testing.T) {
	t.Parallel()
	r := startReal(t)
	r.await(t, "[asterisk] Ban 203.0.113.66")
	r.client(t, "set", "asterisk", "banip", "203.0.113.5", "203.0.113.6", "2001:db8:bad::1", "198.51.100.0/24")
	r.stored(t, "198.51.100.0/24 203.0.113.5/32 203.0.113.6/32 203.0.113.66/32 2001:db8:bad::1/128")
	r.client(t, "set", "asterisk", "unbanip", "203.0.113.6")
	r.client(t, "set", "sshd", "banip", "203.0.113.7")
	r.await(t, "[sshd] Ban 203.0.113.7")
	const first = "198.51.100.0/24 203.0.113.5/32 203.0.113.66/32 2001:db8:bad::1/128"
	r.stored(t, first)
	im := r.takesOver(t, fail2ban.Options{Jail: r.dir}, first)
	if im.Server != r.socket || im.Database != "" {
		t.Errorf("the bans are not the running server's: %q", im.Found)
	}
	r.sameNumbers(t, im)

	// In the running server the bans before follow the jail (server/ticket.py, getBanTime), in the database they do
	// not.
	r.client(t, "set", "asterisk", "bantime", "-1")
	r.client(t, "set", "asterisk", "banip", "203.0.113.8")
	const want = "198.51.100.0/24 203.0.113.5/32 203.0.113.8/32 203.0.113.66/32 2001:db8:bad::1/128"
	r.stored(t, want)
	if im, err := fail2ban.Read(t.Context(), fail2ban.Options{Jail: r.dir, Now: kernelTime()}); err != nil ||
		prefixes(im) != want ||
		slices.ContainsFunc(im.Bans, func(b fail2ban.Ban) bool { return !b.Forever }) {
		t.Errorf("%+v, %v", im, err)
	}
	im = r.takesOver(t, fail2ban.Options{Jail: r.dir, DB: r.database()}, want)
	if im.Server != "" || im.Database == "" {
		t.Errorf("the bans are not the database's: %q", im.Found)
	}
	r.sameNumbers(t, im)

	// The files of another machine's fail2ban have nothing to do with this one.
	elsewhere := files(t, map[string]string{"jail.local": jailLocal,
		"fail2ban.conf": "[Definition]\nsocket = " + r.socket + "\ndbfile = /nonexistent/db\n"})
	if im, err := fail2ban.Read(t.Context(), fail2ban.Options{Jail: elsewhere, Now: kernelTime()}); err != nil ||
		len(im.Bans) > 0 {
		t.Errorf("%+v, %v", im, err)
	}
	r.stop()
	if im := r.takesOver(t, fail2ban.Options{Jail: r.dir}, want); im.Database != r.database() {
		t.Errorf("the bans are from elsewhere: %q", im.Found)
	}
}

// takesOver reads what startReal's fail2ban has, whose files stay as they are.
func (r *real) takesOver(t *testing.T, o fail2ban.Options, want string) *fail2ban.Import {
	t.Helper()
	o.Now = kernelTime()
	before := fileState(t, r.dir)
	im, err := fail2ban.Read(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if after := fileState(t, r.dir); after != before {
		t.Errorf("the files changed:\n%s\n%s", before, after)
	}
	for _, b := range im.Bans {
		switch ok := b.Left > 2*time.Hour-5*time.Minute && b.Left <= 2*time.Hour; {
		case b.Prefix.Addr().String() == "203.0.113.8":
			if !b.Forever {
				t.Errorf("%+v is for ever in fail2ban", b)
			}
		case !ok || b.Forever || b.Jail != "asterisk":
			t.Errorf("%+v: want nearly two hours", b)
		}
	}
	if got := prefixes(im); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if notImported(im, `1 ban: jail "sshd"`) == "" {
		t.Errorf("the ban of sshd is lost without a word: %v", im.NotImported)
	}
	c, _ := parsed(t, im)
	if p := c.Policy; p.Points.WrongPassword != 2.64 || p.Misconfigured.Burst != 3 || p.HalfLife != time.Hour ||
		p.Ban.First != 2*time.Hour || p.Ban.Max != 5*168*time.Hour ||
		p.Ban.Memory != 72*time.Hour || len(p.Allow) != 2 {
		t.Errorf("%+v", p)
	}
	return im
}

// sameNumbers compares what was read with what the server itself has made of its files.
func (r *real) sameNumbers(t *testing.T, im *fail2ban.Import) {
	t.Helper()
	for _, j := range im.Jails {
		if !j.VoIP {
			continue
		}
		for key, want := range map[string]string{
			"maxretry": strconv.Itoa(j.MaxRetry), "findtime": strconv.FormatFloat(j.FindTime.Seconds(), 'f', -1, 64),
			"bantime.maxtime": strconv.FormatFloat(j.Increment.MaxTime.Seconds(), 'f', -1, 64),
		} {
			if got := r.client(t, "get", j.Name, key); got != want {
				t.Errorf("%s of %s is %s, and was read as %s", key, j.Name, got, want)
			}
		}
		got := strings.Fields(r.client(t, "get", j.Name, "ignoreip"))
		for _, word := range []string{"127.0.0.0/8", "::1", "192.0.2.0/24", "2001:db8:10::/48"} {
			if !slices.Contains(got, word) {
				t.Errorf("ignoreip %s is not in %q", word, got)
			}
		}
		if want := []string{"127.0.0.1/8", "::1", "192.0.2.0/24", "2001:db8:10::/48"}; !slices.Equal(j.Ignore, want) {
			t.Errorf("ignoreip was read as %q", j.Ignore)
		}
	}
}

func fileState(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	for _, name := range []string{"db.sqlite3", "jail.local", "jail.conf"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, name, info.Size(), info.ModTime())
	}
	names, err := filepath.Glob(filepath.Join(dir, "db*"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(&b, names)
	return b.String()
}

// python asks fail2ban's own code.
func python(t *testing.T, code string, in any) []byte {
	t.Helper()
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c",
		"import sys, json\ndata = json.load(sys.stdin)\n"+code)
	cmd.Stdin = bytes.NewReader(text)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v (%s): %s", err, realHint, errs.String())
	}
	return out
}

func TestFilesMeanWhatTheyDoInFail2ban(t *testing.T) {
	t.Parallel()
	odd := files(t, map[string]string{
		"jail.conf": "[INCLUDES]\nbefore = a.conf\n b.conf\nafter = c.conf\n[DEFAULT]\nx = 1 ; one\ny: 2;two\nz = " +
			"%(x)s%%%(Y)s\n[one]\n" +
			"UPPER = %(z)s\nlist = a\n\n    b ; c\n  # d\n\te\nempty =\nx = 10\nname = %(__name__)s\n[two]\nother = " +
			"%(one/list)s %(default/x)s\n",
		"a.conf":        "[INCLUDES]\nafter = jail.conf\n[DEFAULT]\nx = a\nfrom_a = a\n[one]\nx = 5\nw = %(from_a)s\n",
		"a.local":       "[DEFAULT]\nfrom_a = local\n",
		"b.local":       "[DEFAULT]\nfrom_b = local\n",
		"c.conf":        "[one]\nx = %(known/x)s c\n",
		"jail.local":    "[two]\nother = [%(known/other)s]\nequals = a=b:c\n[one]\nkeep = %(known/x)s\n",
		"jail.d/b.conf": "[DEFAULT]\nd = b\n", "jail.d/a.conf": "[DEFAULT]\nd = a\n",
		"jail.d/a.local": "[three]\nd = %(d)s local\n",
	})
	dirs := []string{"testdata/pbx", "testdata/strict", "testdata/steps", odd, "/etc/fail2ban"}
	out := python(t, `
import logging
logging.disable(logging.CRITICAL)
from fail2ban.client.configreader import ConfigReader
all = []
for dir in data:
    c = ConfigReader(basedir=dir)
    assert c.read("jail")
    got = {}
    for s in c.sections():
        if s == "INCLUDES": continue
        got[s] = {}
        for o in c.options(s, True):
            try:
                got[s][o] = c.get(s, o)
            except Exception:
                pass
    all.append(got)
print(json.dumps(all))`, dirs)
	var all []map[string]map[string]string
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	for i, dir := range dirs {
		want := all[i]
		got, err := fail2ban.Resolve(dir, "jail")
		if err != nil {
			t.Fatal(err)
		}
		for name, options := range want {
			for key, value := range options {
				if key == "__name__" {
					continue
				}
				if v, ok := got(name, key); !ok || v != value {
					t.Errorf("%s: %s of [%s] is %q, and was read as %q (%v)", dir, key, name, value, v, ok)
				}
			}
		}
		if len(want) == 0 {
			t.Error("fail2ban reads nothing from", dir)
		}
	}
}

func TestDurationsMeanWhatTheyDoInFail2ban(t *testing.T) {
	t.Parallel()
	list := []string{
		"600", "10m", "1h", "1w", "1d12h", "1 hour 30 min", "0d 1h 30m", "60*60*24", "1hour+30min", "1year-6mo",
		"6 months",
		"2.5h", "-1",
		"90s", "1d 2h 3m 4s", "2 * 60 * 60", "(1h+1m)*2", "1WEEK", "3 mon", "1yy", "10 minutes", "1h/2", "-1h",
		"1h -90m",
		"0",
	}
	var want []float64
	out := python(t, `
from fail2ban.server.mytime import MyTime
print(json.dumps([MyTime.str2seconds(s) for s in data]))`, list)
	if err := json.Unmarshal(out, &want); err != nil {
		t.Fatal(err)
	}
	for i, s := range list {
		d, err := fail2ban.ParseDuration(s)
		if got := d.Seconds(); err != nil || got != want[i] && (want[i] >= 0 || d != fail2ban.Forever) {
			t.Errorf("%q: got %v (%v), fail2ban has %v", s, d, err, want[i])
		}
	}
	for _, s := range []string{"", "abc", "1x", "1h)", "(1h", "1 +", "--", "0/0", strings.Repeat("(", 100),
		strings.Repeat("1", 300), "1e5"} {
		if d, err := fail2ban.ParseDuration(s); err == nil {
			t.Errorf("%q is %v", s, d)
		}
	}
}
