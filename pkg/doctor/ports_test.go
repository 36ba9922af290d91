package doctor

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
)

// portExam is an examination beside a daemon that says this, and a proc file system without an Asterisk.
func portExam(t *testing.T, st *api.Status) *exam {
	cfg := config.Default()
	return &exam{Options: Options{ConfigPath: "/etc/ringwall/ringwall.yaml"}, cfg: &cfg, daemon: st,
		procFolder:  t.TempDir(),
		managerConf: filepath.Join(t.TempDir(), "manager.conf")}
}

// asterisk puts a process with these sockets into the proc file system. The tables are as Linux 6.12 writes them.
func asterisk(t *testing.T, e *exam, comm string) {
	t.Helper()
	dir := filepath.Join(e.procFolder, "812")
	for name, text := range map[string]string{
		"comm": comm + "\n",
		"net/udp": "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode " +
			"ref pointer drops\n" +
			"  100: 00000000:13D8 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 5001 2 0000000000000000 0\n" + // 5080
			"  101: 0100007F:13E2 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 5002 2 0000000000000000 0\n" + // 127.0.0.1:5090
			"  102: 00000000:2EE0 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 5003 2 0000000000000000 0\n" + // 12000, RTP
			"  103: 00000000:C350 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 5004 2 0000000000000000 0\n" + // 50000
			"  104: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   102        0 9999 2 0000000000000000 0\n", // somebody's
		"net/udp6": "  sl\n  100: 00000000000000000000000000000000:13D8 00000000000000000000000000000000:0000 07 " +
			"00000000:00000000 00:00000000 00000000   101        0 5005 2 0 0\n",
		"net/tcp": "  sl\n   0: 00000000:13EC 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 5006 1 0 100 0 0 10 0\n" + // 5100
			"   1: 0100000A:13ED 0200000A:9C40 01 00000000:00000000 00:00000000 00000000   101        0 5007 1 0 100 0 0 10 0\n", // a connection
		"net/tcp6": "  sl\n   0: 00000000000000000000000001000000:13EE 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 5008 1 0 100 0 0 10 0\n", // ::1
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "fd"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		if err := os.Symlink("socket:["+strconv.Itoa(5001+i)+"]",
			filepath.Join(dir, "fd", strconv.Itoa(3+i))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPortsThatABanLeavesOpen(t *testing.T) {
	explicit := func(e *exam) { e.cfg.Firewall.Ports = config.Ports{UDP: []uint16{5060}, TCP: []uint16{5060}} }
	found := func(p ...api.FoundPort) *api.Status {
		return &api.Status{Mode: "enforce",
			Ports: api.PortsStatus{UDP: []uint16{5060}, TCP: []uint16{5060}, Found: p}}
	}
	for name, row := range map[string]struct {
		daemon *api.Status
		change func(*exam)
		want   Result
		says   []string
	}{
		"nothing is to be seen": {nil, func(*exam) {}, OK, []string{"UDP 5060 5061 4569", "cannot be seen"}},
		"another program":       {nil, func(e *exam) { asterisk(t, e, "named") }, OK, []string{"cannot be seen"}},
		"sockets beside auto": {nil, func(e *exam) { asterisk(t, e, "asterisk") }, Warn,
			[]string{"UDP 5080, TCP 5100", "first event"}},
		"sockets beside a list": {nil, func(e *exam) { explicit(e); asterisk(t, e, "asterisk") }, Fail,
			[]string{"bans stop nothing at UDP 5080, TCP 5100:",
				"firewall: {ports: {udp: [5060, 5080], tcp: [5060, 5100]}}", "ports: auto"}},
		"sockets, all of them closed": {nil, func(e *exam) {
			e.cfg.Firewall.Ports = config.Ports{UDP: []uint16{5080}, TCP: []uint16{5100}}
			asterisk(t, e, "asterisk")
		}, OK, []string{"no other port"}},
		"what the daemon has taken over": {&api.Status{Ports: api.PortsStatus{Auto: true, UDP: []uint16{5080},
			TCP: []uint16{5100}}},
			func(e *exam) { asterisk(t, e, "asterisk") }, OK, []string{"UDP 5080, TCP 5100", "no other port"}},
		"what the daemon has heard": {found(api.FoundPort{Protocol: "udp", Port: 5080, Open: true}), explicit, Fail,
			[]string{"bans stop nothing at UDP 5080:", "udp: [5060, 5080]"}},
		"what the kernel did not take": {&api.Status{Ports: api.PortsStatus{Auto: true, UDP: []uint16{5060},
			Error: "busy"}}, func(*exam) {}, Fail,
			[]string{"busy"}},
		"every port": {nil, func(e *exam) {
			e.cfg.Firewall.Scope = config.ScopeAll
			explicit(e)
			asterisk(t, e,
				"asterisk")
		}, OK, []string{"every port"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := portExam(t, row.daemon)
			row.change(e)
			e.examinePorts(t.Context())
			is(t, one(t, e.checks, "ports"), row.want, row.says...)
		})
	}
}

// Ports of calls are told apart by rtp.conf, beside manager.conf.
func TestPortsOfCallsAreNoneOfSIP(t *testing.T) {
	e := portExam(t, nil)
	asterisk(t, e, "asterisk")
	conf := "[general]\nrtpstart = 5070 ; first\nrtpend=>5090\n"
	if err := os.WriteFile(filepath.Join(filepath.Dir(e.managerConf), "rtp.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	e.examinePorts(t.Context())
	c := one(t, e.checks, "ports")
	if !strings.Contains(c.Detail, "UDP 12000") || strings.Contains(c.Detail, "5080") {
		t.Errorf("%+v", c)
	}
}

// The sockets of this very process, as the kernel writes them: of this thread, since tests beside this one have the first
// thread in other namespaces.
func TestSocketsAreReadAsTheKernelWritesThem(t *testing.T) {
	var want []api.FoundPort
	for _, network := range []string{"udp4", "udp6"} {
		c, err := net.ListenPacket(network, ":0")
		if err != nil {
			t.Skipf("%s: %v", network, err)
		}
		t.Cleanup(func() { _ = c.Close() })
		want = append(want, api.FoundPort{Protocol: "udp", Port: uint16(c.LocalAddr().(*net.UDPAddr).Port)})
	}
	inodes, err := socketInodes("/proc/self")
	if err != nil || len(inodes) < 2 {
		t.Fatalf("%v, %v", inodes, err)
	}
	for i, name := range []string{"udp", "udp6"} {
		table, err := os.ReadFile("/proc/thread-self/net/" + name)
		if err != nil {
			t.Fatal(err)
		}
		seen := false
		for line := range strings.Lines(string(table)) {
			if f := strings.Fields(line); len(f) > 9 && inodes[f[9]] {
				at, ok := readSocketAddress(f[1])
				seen = seen || ok && at.Port() == want[i].Port && at.Addr().IsUnspecified() && f[3] == udpOpen
			}
		}
		if !seen {
			t.Errorf("%s: port %d is not in\n%s", name, want[i].Port, table)
		}
	}
	if at, ok := readSocketAddress("0100007F:13C4"); !ok || at.String() != "127.0.0.1:5060" {
		t.Errorf("%v, %v", at, ok)
	}
}

func TestBannedSourcesThatGetThroughFail(t *testing.T) {
	now := time.Now()
	for name, row := range map[string]struct {
		ago  time.Duration
		n    int
		want Result
		says string
	}{
		"now":      {time.Minute, 3, Fail, "3 banned sources still got through to Asterisk, the last time 1m0s ago"},
		"just one": {time.Second, 1, Fail, "1 banned source still got through"},
		"before":   {30 * time.Minute, 3, Warn, "within the last hour"},
	} {
		t.Run(name, func(t *testing.T) {
			at := now.Add(-row.ago)
			e := portExam(t, &api.Status{Time: now, Engine: engine.Stats{Leaking: row.n, LastLeak: &at}})
			e.examinePorts(t.Context())
			is(t, one(t, e.checks, "leaks"), row.want, row.says, "firewall.ports")
		})
	}
	e := portExam(t, &api.Status{Time: now})
	e.examinePorts(t.Context())
	if list := of(e.checks, "leaks"); len(list) > 0 {
		t.Errorf("%+v", list)
	}
}
