package doctor

import (
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

func TestEveryMistakeIsNamed(t *testing.T) {
	path := file(t, "127.0.0.1:1", "policy: {treshold: 3, half_life: never}\n")
	e := &exam{Options: Options{ConfigPath: path}}
	e.examineConfiguration(t.Context())
	mistakes := of(e.checks, "configuration")
	if len(mistakes) != 2 || e.configLoaded || e.cfg == nil {
		t.Fatalf("%+v", e.checks)
	}
	is(t, mistakes[0], Fail, "ringwall.yaml:4", "treshold", "threshold")
	is(t, mistakes[1], Fail, "ringwall.yaml:4", "half_life")
	e.examineAsterisks(t.Context())
	is(t, one(t, e.checks, "asterisk"), Skip)
}

func TestNoFileSaysWhatToDo(t *testing.T) {
	e := &exam{Options: Options{ConfigPath: filepath.Join(t.TempDir(), "none.yaml")}}
	e.examineConfiguration(t.Context())
	is(t, one(t, e.checks, "configuration"), Fail, "none.yaml", "--config")
}

// Root can read all, the daemon's user cannot: that is no "right", but a fault of the next start.
func TestWhatTheDaemonCannotReadIsAFault(t *testing.T) {
	path := file(t, "127.0.0.1:1", "")
	denied := config.OS().As(func(name string) (fs.File, error) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	})
	e := &exam{Options: Options{ConfigPath: path, Env: config.OS(), Service: "ringwall", ServiceEnv: denied}}
	e.examineConfiguration(t.Context())
	is(t, one(t, e.checks, "configuration"), OK)
	is(t, one(t, e.checks, "readable"), Fail, path, "chgrp ringwall")
	e = &exam{Options: Options{ConfigPath: path, Env: config.OS(), Service: "ringwall", ServiceEnv: config.OS()}}
	e.examineConfiguration(t.Context())
	is(t, one(t, e.checks, "readable"), OK, "ringwall can read")
}

// judged examines what a policy leaves open.
func judged(t *testing.T, more string) []Check {
	t.Helper()
	e := &exam{Options: Options{ConfigPath: file(t, "127.0.0.1:1", more)}}
	e.examineConfiguration(t.Context())
	e.examinePolicy(t.Context())
	return e.checks
}

func TestWhatThePolicyLeavesOpen(t *testing.T) {
	list := judged(t, "")
	is(t, one(t, list, "mode"), OK)
	is(t, one(t, list, "honeypots"), Skip, "policy.honeypots")
	services := of(list, "services")
	if len(services) != 2 {
		t.Fatalf("%+v", services)
	}
	is(t, services[0], OK, "SIP", "Via")
	is(t, services[1], OK, "AMI, HTTP, IAX2, PJSIP")

	list = judged(t, "policy: {mode: observe, honeypots: [admin], services: {PJSIP: observe, AMI: observe, IAX2: "+
		"observe, HTTP: observe}}\n")
	is(t, one(t, list, "mode"), Warn, "nothing is banned", "mode: enforce")
	is(t, one(t, list, "honeypots"), OK)
	for _, c := range of(list, "services")[:1] {
		is(t, c, Warn, "AMI")
	}
	last := of(list, "services")
	is(t, last[len(last)-1], Warn, "nobody is banned")
}

func TestWhoIsLoggedIn(t *testing.T) {
	for name, row := range map[string]struct {
		connection string
		policy     string
		want       Result
		says       []string
	}{
		"out of reach": {"203.0.113.9 50000 192.0.2.1 22", "", OK, []string{"203.0.113.9", "port 22"}},
		"scope all": {"203.0.113.9 50000 192.0.2.1 22", "firewall: {scope: all}\n", Warn,
			[]string{"ringwall allow add 203.0.113.9", "scope: voip"}},
		"allowed": {"203.0.113.9 50000 192.0.2.1 22",
			"firewall: {scope: all}\npolicy: {allow: [203.0.113.0/24]}\n", OK, []string{"policy.allow"}},
		"on a SIP port": {"::ffff:203.0.113.9 50000 ::ffff:192.0.2.1 5061", "", Warn,
			[]string{"203.0.113.9", "port 5061"}},
		"link-local": {"fe80::1%eth0 50000 fe80::2%eth0 22", "", OK, []string{"fe80::1"}},
		"nobody":     {"", "", Skip, []string{"nobody"}},
		"hostile":    {"\x1b[31m 1 2 3", "", Skip, []string{"nobody"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := &exam{Options: Options{ConfigPath: file(t, "127.0.0.1:1", row.policy), Env: config.Environment{
				Lookup: func(name string) (string, bool) { return row.connection, name == "SSH_CONNECTION" },
			}}, procFolder: t.TempDir()}
			e.examineConfiguration(t.Context())
			e.examineSSHPeer(t.Context(), e.subjectNamed(""))
			is(t, one(t, e.checks, "ssh"), row.want, row.says...)
		})
	}
}

// sudo drops SSH_CONNECTION; the shell that it was typed in has it.
func TestSudoHidesWhoIsLoggedIn(t *testing.T) {
	proc := t.TempDir()
	write := func(pid, name, text string) {
		dir := filepath.Join(proc, pid)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sudo := "77777"
	parent := filepath.Join(proc, sudo)
	if err := os.Symlink(parent, filepath.Join(proc, strconv.Itoa(os.Getppid()))); err != nil {
		t.Fatal(err)
	}
	write(sudo, "environ", "PATH=/bin\x00SUDO_USER=me\x00")
	write(sudo, "status", "Name:\tsudo\nPPid:\t88888\n")
	write("88888", "environ", "HOME=/root\x00SSH_CONNECTION=203.0.113.9 50000 192.0.2.1 2222\x00")
	e := &exam{procFolder: proc}
	if a, port := e.loggedInFrom(); a != netip.MustParseAddr("203.0.113.9") || port != 2222 {
		t.Errorf("%v, %d", a, port)
	}
}

func TestWhereTheStateGoes(t *testing.T) {
	nobody := unixUser{name: "nobody", uid: 65534}
	daemon := unixUser{name: "daemon", uid: 4321, gids: []uint32{4322}}
	for name, row := range map[string]struct {
		make func(t *testing.T, dir string)
		who  unixUser
		want Result
		says string
	}{
		"root":    {func(*testing.T, string) {}, unixUser{name: "root"}, OK, "root can write"},
		"missing": {func(t *testing.T, dir string) { must(t, os.Remove(dir)) }, nobody, Warn, "install -d"},
		"no folder": {func(t *testing.T, dir string) {
			must(t, os.Remove(dir))
			must(t,
				os.WriteFile(dir, nil, 0o600))
		}, nobody, Fail, "no folder"},
		"another's": {func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o755)) }, nobody, Fail,
			"chown -R nobody"},
		"its own": {func(t *testing.T, dir string) {
			must(t, os.Chown(dir, 4321, 0))
			must(t,
				os.Chmod(dir, 0o700))
		}, daemon, OK, "daemon can write"},
		"its group's": {func(t *testing.T, dir string) {
			must(t, os.Chown(dir, 0, 4322))
			must(t,
				os.Chmod(dir, 0o770))
		}, daemon, OK, "daemon can write"},
		"everybody's": {func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o777)) }, nobody, Warn, "everybody"},
		"another file": {func(t *testing.T, dir string) {
			must(t, os.Chown(dir, 4321, 0))
			must(t, os.WriteFile(filepath.Join(dir, "state.db"), nil, 0o600))
		}, daemon, Fail, "state.db cannot be written by daemon"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			must(t, os.Mkdir(dir, 0o755))
			row.make(t, dir)
			cfg := config.Default()
			cfg.State.Path = filepath.Join(dir, "state.db")
			e := &exam{cfg: &cfg}
			e.examineStateFolder(row.who)
			is(t, one(t, e.checks, "state"), row.want, row.says)
		})
	}
}

func TestWhereTheSocketGoes(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*config.Config)
		want   Result
		says   string
	}{
		"there": {func(*config.Config) {}, OK, "can make"},
		"missing": {func(c *config.Config) {
			c.Control.Socket = filepath.Join(filepath.Dir(c.Control.Socket), "none",
				"s")
		}, Warn, "install -d"},
		"later": {func(c *config.Config) { c.Control.Socket = "/run/ringwall-of-no-test/s" }, OK,
			"RuntimeDirectory"},
		"too long": {func(c *config.Config) { c.Control.Socket = "/run/" + strings.Repeat("x", 120) }, Fail, "107"},
		"no group": {func(c *config.Config) { c.Control.Group = "no-such-group-here" }, Fail, "groupadd"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config.Default()
			cfg.Control.Socket = filepath.Join(t.TempDir(), "s")
			row.change(&cfg)
			e := &exam{cfg: &cfg}
			e.examineSocketFolder(unixUser{name: "root"})
			is(t, one(t, e.checks, "socket"), row.want, row.says)
		})
	}
}

func TestWriteTimeoutIsReadFromManagerConf(t *testing.T) {
	for name, row := range map[string]struct {
		main, included string
		want           Result
		says           string
	}{
		"set": {"[general]\n[ringwall]\nsecret = x ; writetimeout = 1\nWriteTimeout = 5000\n", "", OK,
			"5000 ms"},
		"in manager.d": {"[general]\nenabled = yes\n#include \"manager.d/*.conf\"\n",
			"[other]\nwritetimeout=1\n[ringwall]\nwritetimeout=> 3000\n", OK, "3000 ms"},
		"not set": {"[ringwall]\nread = security\n[x]\nwritetimeout = 5000\n", "", Warn,
			"[ringwall]\nwritetimeout = 5000"},
		"too short":  {"[ringwall]\nwritetimeout = 100\n", "", Warn, "100 in"},
		"no number":  {"[ringwall]\nwritetimeout = \x1b[31mlong\n", "", Warn, `\x1b`},
		"no user":    {"[general]\n", "", Skip, "no user [ringwall]"},
		"a template": {"[t](!)\nwritetimeout=5000\n[ringwall](t)\nsecret=x\n", "", Skip, "template"},
		"a loop":     {"#include manager.conf\n[ringwall]\nwritetimeout=2000\n", "", OK, "2000 ms"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.Mkdir(filepath.Join(dir, "manager.d"), 0o755))
			must(t, os.WriteFile(filepath.Join(dir, "manager.conf"), []byte(row.main), 0o600))
			must(t, os.WriteFile(filepath.Join(dir, "manager.d", "r.conf"), []byte(row.included), 0o600))
			e := &exam{managerConf: filepath.Join(dir, "manager.conf")}
			e.examineWriteTimeout(e.subjectNamed("pbx1"), config.Asterisk{Username: "ringwall"}, true)
			is(t, one(t, e.checks, checkWriteTimeout), row.want, row.says)
		})
	}
	e := &exam{managerConf: filepath.Join(t.TempDir(), "none")}
	e.examineWriteTimeout(e.subjectNamed("pbx1"), config.Asterisk{Username: "ringwall"}, true)
	e.examineWriteTimeout(e.subjectNamed("pbx1"), config.Asterisk{Username: "ringwall"}, false)
	for _, c := range e.checks {
		is(t, c, Skip, "writetimeout = 5000")
	}
}

func TestConnectionTracking(t *testing.T) {
	for name, row := range map[string]struct {
		count, most string
		priority    int
		want        Result
		says        string
	}{
		"none": {"", "", -300, OK, "not tracked"}, "room": {"12\n", "65536\n", -300, OK, "12 of 65536"},
		"full": {"65000\n", "65536\n", -300, Warn, "nf_conntrack_max=262144"},
		"late": {"12\n", "65536\n", -100, Warn, "firewall.priority: -300"},
	} {
		t.Run(name, func(t *testing.T) {
			proc := t.TempDir()
			dir := filepath.Join(proc, "sys/net/netfilter")
			must(t, os.MkdirAll(dir, 0o755))
			if row.count != "" {
				must(t, os.WriteFile(filepath.Join(dir, "nf_conntrack_count"), []byte(row.count), 0o600))
				must(t, os.WriteFile(filepath.Join(dir, "nf_conntrack_max"), []byte(row.most), 0o600))
			}
			cfg := config.Default()
			cfg.Firewall.Priority = row.priority
			e := &exam{cfg: &cfg, procFolder: proc}
			e.examineConntrack(e.subjectNamed(""))
			is(t, one(t, e.checks, checkConntrack), row.want, row.says)
		})
	}
}

func TestIptablesLegacyBesideRingwall(t *testing.T) {
	for names, want := range map[string]Result{"raw\nfilter\n": Warn, "filter\nnat\n": OK} {
		proc := t.TempDir()
		must(t, os.Mkdir(filepath.Join(proc, "net"), 0o755))
		must(t, os.WriteFile(filepath.Join(proc, "net/ip_tables_names"), []byte(names), 0o600))
		e := beside(netnstest.New(t))
		e.procFolder = proc
		e.examineKernel(t.Context())
		is(t, one(t, e.checks, checkOthers), want, "iptables-legacy")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
