package firstday

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/deploy/trial"
)

// machine is a Debian with Asterisk, fresh from debootstrap, in the place of the lab's server. It has namespaces of its
// own for mounts and processes, so nothing of it outlives the test.
type machine struct {
	*lab.Lab
	share  string // a folder of the host that is /mnt there
	root   string // where its tree is mounted, seen in its own namespace
	holder *lab.Process
}

// hold is the machine's first process.
const hold = `
tree=$1 layer=$2 share=$3 asterisk=$4 fd=8
hold() { # what is in the tree $1 as $2, to be written to
	eval "exec $fd>>\"$1.lock\""
	flock -s "$fd"
	fd=$((fd - 1))
	mkdir -p "$2.upper" "$2.work" "$2"
	mount -t overlay -o "lowerdir=$1,upperdir=$2.upper,workdir=$2.work" ringwall "$2" 2>/dev/null || {
		mount -t tmpfs -o mode=755 ringwall "$2"
		cp -a "$1/." "$2/"
	}
	mount -t proc proc "$2/proc"
	mount --rbind /dev "$2/dev"
}
hold "$tree" "$layer/root"
mount --bind "$share" "$layer/root/mnt"
if [ "$asterisk" ]; then
	hold "$asterisk" "$layer/asterisk"
	for folder in etc var/lib var/log var/spool run; do
		mkdir -p "$layer/root/$folder/asterisk" "$layer/asterisk/$folder/asterisk"
		cp -a "$layer/asterisk/$folder/asterisk" "$layer/root/$folder/"
		mount --bind "$layer/root/$folder/asterisk" "$layer/asterisk/$folder/asterisk"
	done
	mkdir "$layer/root/srv/asterisk"
	mount --rbind "$layer/asterisk" "$layer/root/srv/asterisk"
fi
echo ready
read -r _ || true
`

// bySource puts an Asterisk into a Debian whose packages have none, as "make install" does, but for its libraries: those
// of another Debian, where it lives.
const bySource = `
useradd --system --no-create-home --uid "$(stat -c %u /etc/asterisk)" --user-group asterisk
printf '#!/bin/sh\nexec chroot /srv/asterisk /usr/sbin/asterisk "$@"\n' >/usr/sbin/asterisk
chmod 755 /usr/sbin/asterisk
`

// phones are what the administrator had before: Debian's own pjsip.conf has neither transport nor phone.
const phones = `
[udp]
type=transport
protocol=udp
bind=0.0.0.0
[tcp]
type=transport
protocol=tcp
bind=0.0.0.0

[phone](!)
type=endpoint
context=default
allow=ulaw
[login](!)
type=auth
auth_type=userpass
[contacts](!)
type=aor
max_contacts=10
`

// newMachine is a Debian with the Asterisk of its package, as Debian configures it.
func newMachine(t *testing.T) *machine {
	t.Helper()
	return newMachineOf(t, "22", "")
}

// newDebian12 is the current Debian, with an Asterisk that somebody compiled.
func newDebian12(t *testing.T) *machine {
	t.Helper()
	return newMachineOf(t, "debian", "22")
}

// newMachineOf is a machine with a tree of the lab, and with the Asterisk of another one where the first has none.
func newMachineOf(t *testing.T, debian, asterisk string) *machine {
	t.Helper()
	m := &machine{Lab: lab.Start(t, lab.Options{Version: 22}), share: t.TempDir()}
	m.StopAsterisk(t) // the lab's own: this machine has another
	layer := t.TempDir()
	m.root = filepath.Join(layer, "root")
	tree := func(name string) string {
		if name == "" {
			return ""
		}
		folder, err := exec.CommandContext(t.Context(), "../lab/lab", "tree", name).Output()
		if err != nil {
			t.Fatalf("no tree %s: %v", name, err)
		}
		return strings.TrimSpace(string(folder))
	}
	cmd := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "--",
		"/bin/sh", "-euc", hold, "sh", tree(debian), layer, m.share, tree(asterisk))
	in, keep, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = in
	m.holder = m.SpawnCmd(t, lab.Server, cmd)
	_ = in.Close()
	t.Cleanup(func() {
		_ = keep.Close()
		<-m.holder.Exited()
	})
	m.holder.Expect(t, "ready\n")
	if err := os.Chmod(m.share, 0o755); err != nil {
		t.Fatal(err)
	}

	config := phones
	for _, name := range []string{"201", "202", "203"} {
		config += fmt.Sprintf("[%[1]s](phone)\nauth=%[1]s\naors=%[1]s\n[%[1]s](login)\nusername=%[1]s\npassword=%[2]s\n"+
			"[%[1]s](contacts)\n",
			name, lab.Password(name))
	}
	m.writeFile(t, "pjsip.conf", config)
	m.writeFile(t, "systemctl", systemctl)
	if asterisk != "" {
		m.runScript(t, bySource)
	}
	// An administrator's own user, who is not root.
	m.runScript(t, `cat /mnt/pjsip.conf >>/etc/asterisk/pjsip.conf
		install -m 755 /mnt/systemctl /usr/bin/systemctl
		useradd --create-home admin
		install -d -o asterisk -g asterisk /run/asterisk`)
	m.SpawnCmd(t, lab.Server, m.commandIn("/usr/sbin/asterisk", "-f", "-U", "asterisk", "-G", "asterisk"))
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := m.commandIn("tail", "-n", "40", "/var/log/asterisk/messages.log",
				"/var/log/asterisk/security.log",
				"/var/log/ringwall.log").CombinedOutput()
			t.Logf("the logs end:\n%s", out)
		}
	})
	trial.WaitUntil(t, "Asterisk runs", func() bool {
		_, err := m.tryScript(t, "asterisk -rx 'core waitfullybooted'")
		return err == nil
	})
	m.awaitReadiness(t)
	return m
}

// awaitReadiness makes /mnt/ready there when the daemon says that it is.
func (m *machine) awaitReadiness(t *testing.T) {
	t.Helper()
	const name = "@ringwall-firstday"
	var fd int
	err := m.Do(lab.Server, func() (err error) {
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrUnix{Name: name})
	})
	if err != nil {
		t.Fatal(err)
	}
	socket := os.NewFile(uintptr(fd), name)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := socket.Read(b)
			if err != nil {
				return // closed
			}
			if bytes.Contains(b[:n], []byte("READY=1")) {
				_ = os.WriteFile(filepath.Join(m.share, "ready"), nil, 0o644)
			}
		}
	}()
	t.Cleanup(func() {
		_ = socket.Close()
		<-done
	})
}

// writeFile puts a file into /mnt.
func (m *machine) writeFile(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.share, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// commandIn is a program of the machine.
func (m *machine) commandIn(args ...string) *exec.Cmd {
	ns := fmt.Sprintf("/proc/%d/ns/", m.holder.Cmd.Process.Pid)
	cmd := exec.Command("nsenter", append([]string{"--mount=" + ns + "mnt", "--pid=" + ns + "pid_for_children", "--",
		"chroot", m.root}, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8",
		"HOME=/root",
		"DEBIAN_FRONTEND=noninteractive"}
	return cmd
}

// runAs runs lines of shell for a user and returns all that they wrote.
func (m *machine) runAs(t *testing.T, user, script string) (string, error) {
	t.Helper()
	cmd := m.commandIn("setpriv", "--reuid", user, "--regid", user, "--init-groups", "--", "/bin/bash", "-euo",
		"pipefail",
		"-c", "cd ~; "+script)
	if user != "root" {
		cmd.Env = append(cmd.Env, "HOME=/home/"+user)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out // one writer: os/exec then keeps the order
	p := m.SpawnCmd(t, lab.Server, cmd)
	select {
	case <-p.Exited():
	case <-time.After(trial.Patience):
		t.Fatalf("%s: no end after %v", script, trial.Patience)
	}
	err := p.Wait()
	return strings.TrimSpace(out.String()), err
}

func (m *machine) tryScript(t *testing.T, script string) (string, error) {
	t.Helper()
	return m.runAs(t, "root", script)
}

// runScript is try for what must succeed.
func (m *machine) runScript(t *testing.T, script string) string {
	t.Helper()
	out, err := m.tryScript(t, script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// systemctl does what systemd would with this one unit: no systemd can run without being the first process. It follows
// the unit's lines for the user, the capabilities, the start and the reload.
const systemctl = `#!/bin/bash
set -euo pipefail
unit=/usr/lib/systemd/system/ringwall.service pid=/run/ringwall.pid ready=/mnt/ready log=/var/log/ringwall.log
get() { sed -n "s/^$1=//p" "$unit"; }
runs() { [[ -e $pid ]]; }
await() { # as long as systemd: TimeoutStartSec=90
	for _ in {1..900}; do
		! "$@" || return 0
		sleep 0.1
	done
	echo "systemctl: ringwall.service: timed out" >&2
	tail -n 20 "$log" >&2
	exit 1
}
stop() {
	runs || return 0
	kill "$(<"$pid")"
	await eval '! runs'
}
start() {
	! runs || return 0
	local user capability
	user=$(get User)
	capability=$(get AmbientCapabilities) capability=${capability#CAP_} capability=${capability,,}
	install -d -m "$(get RuntimeDirectoryMode)" -o "$user" -g "$user" "/run/$(get RuntimeDirectory)"
	install -d -m "$(get StateDirectoryMode)" -o "$user" -g "$user" "/var/lib/$(get StateDirectory)"
	rm -f "$ready"
	# shellcheck disable=SC2046
	(
		export NOTIFY_SOCKET=@ringwall-firstday
		umask "$(get UMask)"
		setpriv --reuid "$user" --regid "$(get Group)" --init-groups --inh-caps "-all,+$capability" \
			--ambient-caps "-all,+$capability" --bounding-set "-all,+$capability" --no-new-privs $(get ExecStart) &
		echo $! >"$pid"
		wait $! || true
		rm -f "$pid"
	) >>"$log" 2>&1 </dev/null &
	await test -e "$pid"
	await eval '[[ -e $ready ]] || ! runs'
	runs || { echo "Job for ringwall.service failed." >&2; tail -n 5 "$log" >&2; exit 1; }
}
reload() {
	runs || { echo "ringwall.service is not active, cannot reload." >&2; exit 1; }
	local line
	while read -r line; do
		MAINPID=$(<"$pid") bash -c "$line" || { echo "Job for ringwall.service failed." >&2; exit 1; }
	done < <(get ExecReload)
}
[[ ${!#} == ringwall || ${!#} == ringwall.service ]] || { echo "systemctl: no unit ${!#} here" >&2; exit 4; }
case "$*" in
"start "* | "enable --now "*) start ;;
"stop "*) stop ;;
"restart "*) stop; start ;;
"reload "*) reload ;;
*" preset "*) ln -sf "$unit" /etc/systemd/system/multi-user.target.wants/ ;;
"status "*) runs && echo "ringwall.service: active (running)" || { echo "ringwall.service: inactive (dead)"; exit 3; } ;;
*) echo "systemctl: this stand-in cannot: $*" >&2; exit 64 ;;
esac
`
