package packages

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// debian is a Debian of a test's own: a layer above the cached tree, in namespaces of mounts and network that end with
// the test.
type debian struct {
	root   string // where it is mounted, seen from inside
	share  string // a folder of this machine that is /mnt there
	holder *exec.Cmd
}

const hold = `
tree=$1 layer=$2 share=$3
exec 8>>"$tree.lock"
flock -s 8
mkdir "$layer/upper" "$layer/work" "$layer/root"
mount -t overlay -o "lowerdir=$tree,upperdir=$layer/upper,workdir=$layer/work" ringwall "$layer/root" 2>/dev/null || {
	mount -t tmpfs -o mode=755 ringwall "$layer/root"
	cp -a "$tree/." "$layer/root/"
}
mount -t proc proc "$layer/root/proc"
mount --bind /dev "$layer/root/dev"
mount --bind "$share" "$layer/root/mnt"
ip link set lo up
echo ready
read -r _ || true
`

func newDebian(t *testing.T) *debian {
	t.Helper()
	needRoot(t)
	tree := outputOf(t, "../lab/lab", "tree", "debian")
	layer := t.TempDir()
	d := &debian{root: filepath.Join(layer, "root"), share: t.TempDir()}
	d.holder = exec.Command("unshare", "--mount", "--net", "--propagation", "private", "/bin/sh", "-euc", hold, "sh",
		tree,
		layer, d.share)
	d.holder.Stderr = os.Stderr
	in, err := d.holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := d.holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = d.holder.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("no Debian to install in: %q, %v", line, err)
	}
	return d
}

// commandIn is a program that will run in the tree, as root. It asks nobody anything.
func (d *debian) commandIn(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter",
		append([]string{"--target", strconv.Itoa(d.holder.Process.Pid), "--mount",
			"--net", "--", "chroot", d.root}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
		"HOME=/root"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// tryScript runs a shell's lines in the tree and returns all that they wrote.
func (d *debian) tryScript(t *testing.T, script string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	out, err := d.commandIn(ctx, "/bin/bash", "-euc", script).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (d *debian) runScript(t *testing.T, script string) string {
	t.Helper()
	out, err := d.tryScript(t, script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

func (d *debian) wantOutput(t *testing.T, script, want string) {
	t.Helper()
	if out := d.runScript(t, script); out != want {
		t.Errorf("%s:\n%s\nwant\n%s", script, out, want)
	}
}

// fileNames are all names in the tree but those where dpkg, systemctl and the user database keep their books.
func (d *debian) fileNames(t *testing.T) map[string]bool {
	t.Helper()
	list := d.runScript(t, `find / -xdev \( -path /mnt -o -path /proc -o -path /dev -o -path /tmp -o -path /var/lib/dpkg -o -path /var/log \
		-o -path /var/cache -o -path /run/systemd -o -path /var/lib/rpm \) -prune -o -print`)
	names := map[string]bool{}
	for name := range strings.Lines(list) {
		switch name = strings.TrimSpace(name); name {
		case "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/.pwd.lock", "/etc/subuid-",
			"/etc/subgid-":
		default:
			names[name] = true
		}
	}
	return names
}

// asDaemon runs what follows as the unit would: the user, one ambient capability, nothing to gain.
const asDaemon = "setpriv --reuid ringwall --regid ringwall --init-groups --inh-caps -all,+net_admin " +
	"--ambient-caps -all,+net_admin --bounding-set -all,+net_admin --no-new-privs "

// startDaemon starts the packaged program as the unit would, and returns when it says that it is ready.
func (d *debian) startDaemon(t *testing.T) (stop func()) {
	t.Helper()
	notify := filepath.Join(d.share, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = socket.Close(), os.Remove(notify) }()
	if err := os.Chmod(notify, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(d.share, 0o755); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(d.share, "log")
	file, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	// exec all the way: the process that is started becomes the daemon.
	cmd := d.commandIn(context.WithoutCancel(t.Context()), "/bin/sh", "-c", "exec "+asDaemon+"/usr/bin/ringwall run")
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET=/mnt/notify")
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stopped := false
	end := func() error {
		if stopped {
			return nil
		}
		stopped = true
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			return err
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			return fmt.Errorf("SIGTERM did not end it: %w", <-ended)
		}
	}
	t.Cleanup(func() { _ = end() })
	written := func() []byte { text, _ := os.ReadFile(log); return text }
	buffer := make([]byte, 4096)
	for {
		_ = socket.SetReadDeadline(time.Now().Add(time.Minute))
		n, err := socket.Read(buffer)
		if err != nil {
			t.Fatalf("the daemon was not ready within a minute: %v\n%s", err, written())
		}
		if strings.Contains(string(buffer[:n]), "READY=1") {
			break
		}
	}
	return func() {
		t.Helper()
		if err := end(); err != nil {
			t.Errorf("the daemon ended with %v\n%s", err, written())
		}
	}
}
