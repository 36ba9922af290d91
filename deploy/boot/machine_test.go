package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/asterisk/ami/amiserver"
	"github.com/ringwall/ringwall/pkg/netns"
	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

// Addresses: the machine, and the others on its cable.
const (
	self     = "10.88.0.1"
	provider = "10.88.0.7"
	good     = "10.88.0.9"  // allowed by a command
	neutral  = "10.88.0.20" // never does anything
)

const secret = "not-the-secret-of-anybody"

// The laboratory's trees that a machine can be made from.
const (
	plainDebian    = "debian"
	otherFirewalls = "firewalls" // with fail2ban, ufw, firewalld and iptables
)

// built is the package of this tree. It is made once.
var built = sync.OnceValues(func() (string, error) {
	host, err := exec.Command("go", "env", "GOHOSTARCH").Output()
	if err != nil {
		return "", err
	}
	return buildPackage("1.0.0", strings.TrimSpace(string(host)))
})

// buildPackage makes the package of a version, and returns its file.
func buildPackage(version, arch string) (string, error) {
	packages := filepath.Join(scratch, "packages-"+version)
	cmd := exec.Command("../packages/build", "-arch", arch, packages)
	cmd.Env = append(os.Environ(), "RINGWALL_VERSION="+version, "SOURCE_DATE_EPOCH=1700000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the package: %w\n%s", err, out)
	}
	debs, err := filepath.Glob(filepath.Join(packages, "*.deb"))
	if err != nil {
		return "", err
	}
	if len(debs) != 1 {
		return "", fmt.Errorf("packages %q; want one", debs)
	}
	return debs[0], nil
}

// installed are layers above the laboratory's trees in which the package is installed. Each is made once.
var installed = map[string]func() (string, error){
	plainDebian:    sync.OnceValues(func() (string, error) { return install(plainDebian) }),
	otherFirewalls: sync.OnceValues(func() (string, error) { return install(otherFirewalls) }),
}

func install(tree string) (string, error) {
	deb, err := built()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(scratch, "installed-"+tree)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "tree"), []byte(tree), 0o644); err != nil {
		return "", err
	}
	out, err := inLayer(dir, `
		mount -t proc proc "$root/proc"
		mount --bind /dev "$root/dev"
		cp "$1" "$root/package.deb"
		unshare --net chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin dpkg -i /package.deb
		rm "$root/package.deb"`, deb).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("install the package: %w\n%s", err, out)
	}
	return dir, nil
}

// scratch is where the layers are, for as long as the tests run.
var scratch string

func TestMain(m *testing.M) { trial.InFolder(m, &scratch) }

// inLayer is a shell that has a layer above the tree of the laboratory that the layer's file tree names mounted at
// $root, in namespaces of mounts and of processes: nothing outlives the first of these, however it ends.
func inLayer(layer, script string, args ...string) *exec.Cmd {
	const mount = `
layer=$1 root=$1/root
tree=$(../lab/lab tree "$(cat "$layer/tree")")
shift
mount -t tmpfs run /run # where systemd-nspawn keeps its books
exec 8>>"$tree.lock"
flock -s 8
mkdir -p "$layer/upper" "$layer/work" "$root"
mount -t overlay -o "lowerdir=$tree,upperdir=$layer/upper,workdir=$layer/work" ringwall "$root" 2>/dev/null || {
	[ -e "$layer/copied" ] || { cp -a "$tree/." "$layer/upper/"; : >"$layer/copied"; } # no overlays here
	mount --bind "$layer/upper" "$root"
}
if [ -d "$layer/asterisk" ]; then # a tree of its own, since its Debian is newer than the machine's
	tree=$(../lab/lab tree 22)
	exec 9>>"$tree.lock"
	flock -s 9
	mkdir -p "$root/srv/asterisk" "$layer/asterisk/upper" "$layer/asterisk/work"
	mount -t overlay -o "lowerdir=$tree,upperdir=$layer/asterisk/upper,workdir=$layer/asterisk/work" ringwall \
		"$root/srv/asterisk" 2>/dev/null || {
		[ -e "$layer/asterisk/copied" ] || { cp -a "$tree/." "$layer/asterisk/upper/"; : >"$layer/asterisk/copied"; }
		mount --bind "$layer/asterisk/upper" "$root/srv/asterisk"
	}
fi
`
	all := []string{"--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc",
		"/bin/sh", "-euc", mount + script, "sh", layer}
	return exec.Command("unshare", append(all, args...)...)
}

// boots counts them: each has a name of its own.
var boots atomic.Int64

// machine is a Debian with Ringwall's package, booted by systemd, on a cable with others. Asterisk's AMI is played by
// the test; what listens at its SIP ports is the test's, too.
type machine struct {
	t      *testing.T
	layer  string
	server *netns.Space // the machine's network
	others *netns.Space // whoever else there is
	seen   sync.Map     // what came to the SIP ports: port, address of the sender, number

	ami     *amiserver.Server
	stopAMI func()
	hung    *hang
	skew    time.Duration // of Asterisk's clock

	booted  *exec.Cmd
	console bytes.Buffer
	exited  chan struct{}
	init    int // its PID 1, by our numbers
	number  atomic.Int64
}

// newMachine installs a machine, writes its configuration and boots it: the package has the service started at each
// boot. It returns when Ringwall hears Asterisk.
func newMachine(t *testing.T, configuration string) *machine {
	t.Helper()
	return newMachineOf(t, plainDebian, configuration)
}

// newMachineOf is newMachine with another tree of the laboratory.
func newMachineOf(t *testing.T, tree, configuration string) *machine {
	t.Helper()
	m := newLayer(t, installed[tree])
	m.listen(5060)
	m.listen(5080)
	m.startAMI()
	t.Cleanup(func() { m.stopAMI() })
	m.write("/etc/ringwall/ami-secret", secret+"\n")
	m.configure(configuration)
	m.boot()
	m.endAfterTheTest()
	m.heard()
	return m
}

// newLayer is a machine above one of the laboratory's trees, on its cable and switched off.
func newLayer(t *testing.T, base func() (string, error)) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for systemd-nspawn")
	}
	t.Parallel()
	below, err := base()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, layer: filepath.Join(t.TempDir(), "machine")}
	if out, err := exec.Command("cp", "-a", below, m.layer).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.server, m.others = netnstest.New(t), netnstest.New(t)
	var list []string
	for host := range 60 {
		list = append(list, fmt.Sprintf("10.88.0.%d/24", 2+host))
	}
	netnstest.Connect(t, m.server, m.others, []string{self + "/24"}, list)
	return m
}

func (m *machine) endAfterTheTest() {
	t := m.t
	t.Cleanup(func() {
		journal := ""
		if t.Failed() {
			journal = m.journal()
		}
		m.powerOff()
		if t.Failed() {
			t.Logf("the console said:\n%s\nand the journal:\n%s", m.console.String(), journal)
		}
	})
}

func (m *machine) configure(configuration string) {
	m.write("/etc/ringwall/ringwall.yaml",
		"asterisk:\n  - {name: pbx, address: 127.0.0.1:5038, username: ringwall, "+
			"secret_file: /etc/ringwall/ami-secret, learn: off}\n"+configuration)
}

// write writes a file of the machine, which need not run. What is there already keeps its owner and mode.
func (m *machine) write(name, text string) {
	m.t.Helper()
	if m.init > 0 {
		cmd := m.command("cat >" + name)
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			m.t.Fatalf("write %s: %v\n%s", name, err, out)
		}
		return
	}
	cmd := inLayer(m.layer, `cat >"$root$1"`, name)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("write %s: %v\n%s", name, err, out)
	}
}

// boot starts systemd, and waits until it is up.
func (m *machine) boot() {
	m.t.Helper()
	name := fmt.Sprintf("ringwall-%d-%d", os.Getpid(), boots.Add(1))
	groups := controlGroups(m.t, name)
	m.booted = inLayer(m.layer, `: >"$layer/net"
		mount --bind /proc/self/fd/3 "$layer/net"
		machine=$1
		shift
		for group; do
			mkdir "$group"
			echo 0 >"$group/cgroup.procs"
		done
		exec systemd-nspawn --quiet --register=no --keep-unit --network-namespace-path="$layer/net" --console=pipe \
			--machine="$machine" --resolv-conf=off --link-journal=no --capability=CAP_NET_ADMIN --boot -D "$root"`,
		append([]string{name}, groups...)...)
	network, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", m.server.FD()))
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = network.Close() }()
	m.booted.ExtraFiles = []*os.File{network}
	m.console.Reset()
	m.booted.Stdout, m.booted.Stderr = &m.console, &m.console
	m.booted.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	m.booted.WaitDelay = 5 * time.Second
	started := make(chan error)
	exited := make(chan struct{})
	m.exited = exited
	go func(cmd *exec.Cmd) {
		defer close(exited)
		runtime.LockOSThread() // Pdeathsig is about the thread that starts it, which must not end before
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait()
		for _, group := range groups {
			removeControlGroup(group)
		}
	}(m.booted)
	if err := <-started; err != nil {
		m.t.Fatal(err)
	}
	m.until("systemd is PID 1", func() bool {
		m.init = m.findInit()
		return m.init > 0
	})
	m.until("the machine is up", func() bool {
		out, _ := m.command("systemctl is-system-running").CombinedOutput()
		state := strings.TrimSpace(string(out))
		return state == "running" || state == "degraded"
	})
}

// controlGroups are the folders of control groups that systemd takes for its own, below those of the tests. Two
// machines must not share one: each systemd ends all processes in those of its services.
func controlGroups(t *testing.T, name string) (folders []string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || f[1] != "" && f[1] != "name=systemd" {
			continue
		}
		hierarchies := []string{"/sys/fs/cgroup/systemd"}
		if f[1] == "" { // version 2
			hierarchies = []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}
		}
		for _, hierarchy := range hierarchies {
			folder := filepath.Join(hierarchy, f[2])
			if _, err := os.Stat(filepath.Join(folder, "cgroup.procs")); err == nil {
				folders = append(folders, filepath.Join(folder, name))
				break
			}
		}
	}
	return folders
}

func removeControlGroup(folder string) {
	var all []string
	_ = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all = append(all, path)
		}
		return nil
	})
	for _, path := range slices.Backward(all) {
		_ = os.Remove(path)
	}
}

// findInit finds the process that is number 1 in a namespace of its own, in the machine's network. 0 is none.
func (m *machine) findInit() int {
	var want, have syscall.Stat_t
	if syscall.Fstat(m.server.FD(), &want) != nil {
		return 0
	}
	list, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, name := range list {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		_, ids, _ := strings.Cut(string(text), "\nNStgid:")
		ids, _, _ = strings.Cut(ids, "\n")
		if f := strings.Fields(ids); len(f) == 3 && f[2] == "1" {
			dir := filepath.Dir(name)
			comm, _ := os.ReadFile(dir + "/comm")
			same := syscall.Stat(dir+"/ns/net", &have) == nil && have.Ino == want.Ino
			if same && strings.TrimSpace(string(comm)) == "systemd" {
				n, _ := strconv.Atoi(f[0])
				return n
			}
		}
	}
	return 0
}

// powerOff ends the machine as its power button does, and by force where that takes too long.
func (m *machine) powerOff() {
	if m.init == 0 {
		return
	}
	_ = m.command("systemctl poweroff").Run()
	select {
	case <-m.exited:
	case <-time.After(trial.Patience):
		_ = syscall.Kill(-m.booted.Process.Pid, syscall.SIGKILL)
		<-m.exited
	}
	m.init = 0
}

// reboot takes all with it that a reboot takes: processes, /run, and the kernel's tables.
func (m *machine) reboot(between func()) {
	m.t.Helper()
	m.powerOff()
	netnstest.NFT(m.t, m.server, "flush ruleset")
	if between != nil {
		between()
	}
	m.boot()
}

// command is a shell of root's in the machine.
func (m *machine) command(script string) *exec.Cmd {
	ctx := m.t.Context()
	if ctx.Err() != nil { // while the test is cleaned up
		ctx = context.WithoutCancel(ctx)
	}
	cmd := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(m.init), "--mount", "--uts", "--ipc", "--net",
		"--pid", "--root", "--wd", "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8",
		"HOME=/root", "/bin/bash", "-uc", script)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// try runs a shell's lines in the machine, and returns what they wrote and how they ended.
func (m *machine) try(script string) (out string, code int) {
	m.t.Helper()
	b, err := m.command(script).CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		m.t.Fatalf("%s: %v\n%s", script, err, b)
	}
	if failed != nil {
		code = failed.ExitCode()
	}
	return strings.TrimSpace(string(b)), code
}

// run is try of what must succeed.
func (m *machine) run(script string) string {
	m.t.Helper()
	out, code := m.try(script)
	if code != 0 {
		m.t.Fatalf("%s: exit %d\n%s\n%s", script, code, out, m.journal())
	}
	return out
}

// says wants texts in what a command writes, and the way in which it ends.
func (m *machine) says(script string, code int, texts ...string) {
	m.t.Helper()
	out, got := m.try(script)
	if got != code {
		m.t.Errorf("%s: exit %d, want %d\n%s", script, got, code, out)
	}
	for _, text := range texts {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), text) {
			m.t.Errorf("%s does not say %q:\n%s", script, text, out)
		}
	}
}

func (m *machine) journal() string {
	out, _ := m.command("journalctl -u ringwall --no-pager -o cat | tail -n 60").CombinedOutput()
	return string(out)
}

// until waits for something that a running machine comes to.
func (m *machine) until(what string, ok func() bool) {
	m.t.Helper()
	trial.WaitUntil(m.t, what, func() bool {
		select {
		case <-m.exited:
			m.t.Fatalf("the machine ended before %s:\n%s", what, m.console.String())
		default:
		}
		return ok()
	})
}

// heard waits until the daemon has logged in to the AMI.
func (m *machine) heard() {
	m.t.Helper()
	m.until("Ringwall logs in", func() bool { return m.ami.Subscribers() > 0 })
}

// startAMI plays Asterisk's Manager Interface.
func (m *machine) startAMI() {
	m.t.Helper()
	m.startAMIWith(amiserver.User{Name: "ringwall", Secret: secret, Read: amiserver.ClassAll, Write: amiserver.ClassAll})
}

// startAMIWith is startAMI with another idea of who may do what.
func (m *machine) startAMIWith(user amiserver.User) {
	m.t.Helper()
	l, err := m.server.Listen(m.t.Context(), "tcp", "127.0.0.1:5038")
	if err != nil {
		m.t.Fatal(err)
	}
	m.hung = new(hang)
	m.ami = amiserver.New(amiserver.Config{AuthDelay: -1, Users: []amiserver.User{user}})
	ctx, cancel := context.WithCancel(context.WithoutCancel(m.t.Context()))
	done := make(chan struct{})
	go func() { defer close(done); _ = m.ami.Serve(ctx, hangingListener{l, m.hung}) }()
	m.stopAMI = func() { m.hung.set(false); cancel(); <-done }
}

// hang stops an Asterisk that keeps its connections and takes new ones, and neither reads nor writes.
type hang struct {
	mu sync.RWMutex
	on bool
}

func (h *hang) set(on bool) {
	switch {
	case on && !h.on:
		h.mu.Lock()
	case !on && h.on:
		h.mu.Unlock()
	}
	h.on = on
}

type hangingListener struct {
	net.Listener
	hung *hang
}

func (l hangingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return hangingConn{c, l.hung}, err
}

type hangingConn struct {
	net.Conn
	hung *hang
}

func (c hangingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.hung.mu.RLock()
	defer c.hung.mu.RUnlock()
	return n, err
}

func (c hangingConn) Write(b []byte) (int, error) {
	c.hung.mu.RLock()
	defer c.hung.mu.RUnlock()
	return c.Conn.Write(b)
}

// attack has Asterisk tell of requests from an address for accounts that do not exist: enough for a ban.
func (m *machine) attack(from string) {
	m.t.Helper()
	m.attackAt(from, 5060)
}

// attackAt is attack at another port of Asterisk's, over TCP: nobody forges the other end of a connection.
func (m *machine) attackAt(from string, port int) {
	m.t.Helper()
	m.tell("ChallengeSent", "UDP", from, port, "Challenge: 1\r\n") // so that the port for UDP is known, too
	for range 4 {
		m.tell("InvalidAccountID", "TCP", from, port, "")
	}
}

// tell has Asterisk tell of an event.
func (m *machine) tell(event, transport, from string, port int, more string) {
	m.t.Helper()
	n := m.number.Add(1)
	text := fmt.Sprintf("Event: %s\r\nPrivilege: security,all\r\nEventTV: %s\r\nSeverity: Error\r\nService: PJSIP\r\n"+
		"EventVersion: 1\r\nAccountID: %d\r\nSessionID: call-%d@%s\r\nLocalAddress: IPV4/%[6]s/%s/%d\r\n"+
		"RemoteAddress: IPV4/%[6]s/%[5]s/%[9]d\r\n%[10]s\r\n",
		event, time.Now().Add(m.skew).UTC().Format("2006-01-02T15:04:05.000-0700"), 9000+n, n, from, transport, self, port,
		20000+n%20000, more)
	m.ami.Broadcast([]byte(text))
}

// ban has an attacker banned, and sees that its packets are dropped.
func (m *machine) ban(address string) {
	m.t.Helper()
	m.attack(address)
	m.until(address+" is banned", func() bool { return m.inSet(address) })
	m.keptOut(address)
}

// inSet says whether the kernel has an address in its set of bans.
func (m *machine) inSet(address string) bool {
	out, _ := m.try("nft list set inet ringwall ban4")
	return strings.Contains(out, address+" ")
}

// keptOut fails the test where packets of an address arrive.
func (m *machine) keptOut(addresses ...string) {
	m.t.Helper()
	for _, a := range addresses {
		if m.arrives(a, 5060) {
			m.t.Errorf("packets of %s arrive", a)
		}
	}
}

// letIn fails the test where packets of an address do not arrive.
func (m *machine) letIn(addresses ...string) {
	m.t.Helper()
	for _, a := range addresses {
		if !m.arrives(a, 5060) {
			m.t.Errorf("packets of %s are dropped", a)
		}
	}
}

// listen notes what comes to a SIP port.
func (m *machine) listen(port int) {
	m.t.Helper()
	var sip net.PacketConn
	if err := m.server.Do(func() (err error) {
		sip, err = net.ListenPacket("udp4", net.JoinHostPort(self, strconv.Itoa(port)))
		return err
	}); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = sip.Close() })
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := sip.ReadFrom(b)
			if err != nil {
				return // closed
			}
			m.seen.Store(fmt.Sprint(port, " ", from.(*net.UDPAddr).AddrPort().Addr(), " ", string(b[:n])), true)
		}
	}()
}

// arrives says whether a packet of an address comes to a SIP port. It waits for others, sent before it and after it
// from an address that nobody keeps out: the kernel hands on what comes over one cable in its order.
func (m *machine) arrives(address string, port int) bool {
	m.t.Helper()
	came := func(address, text string) bool {
		_, ok := m.seen.Load(fmt.Sprint(port, " ", address, " ", text))
		return ok
	}
	n := strconv.FormatInt(m.number.Add(1), 10)
	m.until("an address that did nothing gets through", func() bool {
		m.send(neutral, "before "+n, port)
		return came(neutral, "before "+n)
	})
	const packets = 3
	for i := range packets {
		m.send(address, fmt.Sprint(n, ".", i), port)
	}
	for i := 0; !came(neutral, "after "+n); i++ {
		m.send(neutral, "after "+n, port)
		time.Sleep(20 * time.Millisecond)
	}
	arrived := 0
	for i := range packets {
		if came(address, fmt.Sprint(n, ".", i)) {
			arrived++
		}
	}
	if arrived != 0 && arrived != packets {
		m.t.Logf("%d of %d packets of %s arrived", arrived, packets, address)
	}
	return arrived > 0
}

func (m *machine) send(from, text string, port int) {
	m.t.Helper()
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))}
	c, err := m.others.Dial(m.t.Context(), d, "udp4", net.JoinHostPort(self, strconv.Itoa(port)))
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte(text)); err != nil {
		m.t.Fatal(err)
	}
}

// get is a page of the daemon's, or the error.
func (m *machine) get(path string) string {
	transport := &http.Transport{DialContext: m.server.DialContext, DisableKeepAlives: true}
	client := http.Client{Transport: transport, Timeout: 10 * time.Second}
	res, err := client.Get("http://127.0.0.1:9646" + path)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return string(text)
}

// metric is the value of one sample, "" where there is none.
func (m *machine) metric(name string) string {
	for line := range strings.Lines(m.get("/metrics")) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
