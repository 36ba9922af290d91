package firstday

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/lab"
)

// curl is what the one line needs of the real one: Debian's smallest system has none.
const curl = `#!/bin/bash
url=${!##http://}
host=${url%%/*}
exec 3<>"/dev/tcp/${host%:*}/${host#*:}"
printf 'GET /%s HTTP/1.0\r\n\r\n' "${url#*/}" >&3
while IFS= read -r line && [[ $line != $'\r' ]]; do :; done <&3
cat <&3
`

// repository is a signed repository of the packages, served beside the machine.
type repository struct {
	url, dir string
	home     string // gpg's, with its key alone
}

// newRepository makes one. Tests of deploy/packages say whose signatures apt refuses.
func (d *day) newRepository(t *testing.T) repository {
	t.Helper()
	dir, home := t.TempDir(), t.TempDir()
	l, err := d.Listen(t.Context(), lab.Server, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	server := &http.Server{Handler: http.FileServer(http.Dir(dir)), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	cmd := exec.CommandContext(t.Context(), "bash", "-euc", `
		gpg --batch --quiet --passphrase "" --quick-generate-key "The key <packages@ringwall.example>" rsa3072 sign 1y
		key=$(gpg --batch --with-colons --list-secret-keys | sed -n 's/^fpr:*\([0-9A-F]*\):$/\1/p' | head -n 1)
		../packages/repository -key "$key" -url "$1" "$2" "$3"
		gpgconf --kill gpg-agent`, "bash", url, d.share, dir)
	cmd.Env = append(os.Environ(), "GNUPGHOME="+home)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("repository: %v\n%s", err, out)
	}
	return repository{url, dir, home}
}

// picture is every file of the machine: mode, owner, what a link leads to, checksum. What dpkg and others write in their
// books whatever is installed is left out, and so is what Asterisk writes while it runs.
func (d *day) picture(t *testing.T) map[string]string {
	t.Helper()
	out := d.runScript(t, `find / -xdev \( -path /mnt -o -path /proc -o -path /dev -o -path /tmp -o -path /run -o -path /root \
		-o -path /var/lib/dpkg -o -path /var/log -o -path /var/cache -o -path /var/lib/asterisk -o -path /var/spool \
		-o -path /etc/passwd- -o -path /etc/group- -o -path /etc/shadow- -o -path /etc/gshadow- -o -path /etc/.pwd.lock \
		-o -path /var/lib/rpm -o -path /var/lib/dnf -o -name __pycache__ -o -path /etc/subuid- -o -path /etc/subgid- -o -path /var/lib/apt/lists/lock -o -path /var/lib/apt/lists/partial -o -path /var/lib/apt/lists/auxfiles \
		-o -path /var/lib/apt/extended_states \) -prune \
		-o \( -path '/etc/*' -o -path '/var/*' -o -path '/home/*' \) -type f -exec sha256sum {} + \
		-o -printf '%M:%U:%G:%l %p\n'
		find /etc /var/lib/apt -type f -printf '%M:%U:%G %p#mode\n' |
			grep -vE '/etc/(passwd|group|shadow|gshadow|subuid|subgid)-|\.pwd\.lock|lists/(lock|partial)|extended_states'`)
	all := make(map[string]string)
	for line := range strings.Lines(out) {
		what, name, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok {
			all[strings.TrimSpace(name)] = what
		}
	}
	return all
}

// laidOut are the files of Asterisk's Manager Interface, as those lay them out who write them. Each script begins where the
// one before it ended. What is open is what the doctor warns of.
var laidOut = []struct{ name, script, open string }{
	{"Debian", ":", ""},
	{"FreePBX", `
		rm -r manager.d
		echo '<?php' >/etc/freepbx.conf
		cat >manager.conf <<'TEXT'
[general]
enabled = yes
port = 5038
bindaddr = 127.0.0.1
displayconnects=no ;only effects 1.6+

[admin]
secret = of-the-web-page
deny=0.0.0.0/0.0.0.0
permit=127.0.0.1/255.255.255.0
read = system,call,log,verbose,command,agent,user,config,dtmf,reporting,cdr,dialplan,originate
write = system,call,log,verbose,command,agent,user,config,dtmf,reporting,cdr,dialplan,originate
writetimeout = 5000

#include manager_additional.conf
#include manager_custom.conf
TEXT
		: >manager_additional.conf
		printf '[panel]\nsecret = of-the-panel\nread = call' >manager_custom.conf`, ""},
	{"Issabel", `
		rm /etc/freepbx.conf
		echo mysqlrootpwd=x >/etc/issabel.conf
		sed -i 's/^bindaddr.*/bindaddr = 0.0.0.0/' manager.conf
		: >manager_custom.conf`, "bindaddr"}, // so Issabel has it, and the doctor is right
	{"Wazo", `
		rm /etc/issabel.conf manager_additional.conf manager_custom.conf
		mkdir /etc/wazo-confd manager.d
		echo '#include manager.d/*.conf' >manager.conf
		printf '[wazo_agentd]\nsecret = die0\ndeny=0.0.0.0/0.0.0.0\npermit=127.0.0.1/255.255.255.0\nwrite = agent,system,user\n' >manager.d/01-xivo.conf
		printf '[general]\nenabled = yes\nwebenabled = no\nport = 5038\nbindaddr = 127.0.0.1\n' >manager.d/99-general.conf`, ""},
	{"make samples, where the interface is off", `
		rm -r /etc/wazo-confd manager.d
		printf '[general]\nenabled = no\n;webenabled = yes\nport = 5038\nbindaddr = 0.0.0.0\n\n;[mark]\n;secret = mysecret\n' >manager.conf`, ""},
}

// oneLine is what is typed to have Ringwall from it.
func (r repository) oneLine() string { return "curl -fsSL " + r.url + "/install.sh | sh" }

// installCurl puts the program of the one line there, and something that plays systemd, whose unit it is.
func (d *day) installCurl(t *testing.T) {
	t.Helper()
	d.writeFile(t, "curl", curl)
	d.runScript(t, "install -m 755 /mnt/curl /usr/local/bin/curl; mkdir -p /run/systemd/system")
}

// TestOneLine installs Ringwall by one line where an Asterisk runs, as each flavour lays it out; has it see an attack; and
// undoes it by another line, which leaves every file as it was.
func TestOneLine(t *testing.T) {
	d := &day{machine: newMachine(t), t: t}
	d.bringPackages(t)
	line := d.newRepository(t).oneLine()
	d.installCurl(t)
	// A source that is broken is no reason to fail.
	d.runScript(t, "echo 'deb http://127.0.0.1:1/debian forky main' >/etc/apt/sources.list")
	for _, row := range laidOut {
		t.Run(row.name, func(t *testing.T) {
			d.runScript(t, "cd /etc/asterisk\n"+row.script+"\nchown -R asterisk:asterisk .\nasterisk -rx 'manager reload'")
			d.comesAndGoes(t, line, row.open, row.name == "Debian")
		})
	}
}

// comesAndGoes installs Ringwall by the one line, and undoes it. open is what the doctor warns of, "" for nothing.
func (d *day) comesAndGoes(t *testing.T, line, open string, attacked bool) {
	t.Helper()
	before := d.picture(t)
	began := time.Now()
	out, err := d.tryScript(t, line)
	took := time.Since(began)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	verdict := out[strings.LastIndex(out, "\n! It watches")+1:]
	t.Logf("%d keystrokes and %.1f s, until the doctor says:\n%s", len(line)+1, took.Seconds(), verdict)
	var green strings.Builder
	for line := range strings.Lines(d.runScript(t, "ringwall doctor")) {
		if open == "" || !strings.Contains(line, " "+open+" ") {
			green.WriteString(line)
		}
	}
	outcomes["README.md: ringwall doctor"](t, d, green.String())
	if out := d.runScript(t, "ringwall check --print"); !strings.Contains(out, "mode: observe") {
		t.Error("it does not observe")
	}
	if attacked {
		d.scanUntilDecided(t, curious)
		if out := d.runScript(t, "ringwall history"); !strings.Contains(out, "would be banned") {
			t.Errorf("the attack is not in its history:\n%s", out)
		}
	}
	// Said again it changes nothing, and does not forget who installed it.
	installed := d.picture(t)
	if out, err := d.tryScript(t, line); err != nil {
		t.Fatalf("said again: %v\n%s", err, out)
	}
	comparePictures(t, installed, d.picture(t), "/var/lib/ringwall")
	if out, err := d.tryScript(t, line+" -s -- --undo"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	comparePictures(t, before, d.picture(t), "")
	if _, err := d.tryScript(t, "command -v ringwall"); err == nil {
		t.Error("the program is still there")
	}
	if out := d.runScript(t, "asterisk -rx 'manager show users'"); strings.Contains(out, "ringwall") {
		t.Errorf("Asterisk still has the user:\n%s", out)
	}
}

// comparePictures names what is otherwise, but for what begins with a path.
func comparePictures(t *testing.T, was, is map[string]string, but string) {
	t.Helper()
	names := slices.Concat(slices.Collect(maps.Keys(was)), slices.Collect(maps.Keys(is)))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if was[name] != is[name] && (but == "" || !strings.HasPrefix(name, but)) {
			t.Errorf("%s was %q and is %q", name, was[name], is[name])
		}
	}
	if len(was) < 100 {
		t.Errorf("a picture has %s", fmt.Sprint(len(was)))
	}
}
