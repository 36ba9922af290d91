package firstday

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestOneLineOnDebian12 installs Ringwall by one line where somebody has compiled an Asterisk, whose samples have its
// Manager Interface off: first by apt, then by dnf.
func TestOneLineOnDebian12(t *testing.T) {
	d := &day{machine: newDebian12(t), t: t}
	d.bringPackages(t)
	repo := d.newRepository(t)
	d.installCurl(t)
	d.runScript(t, `cd /etc/asterisk
		printf '[general]\nenabled = no\n;webenabled = yes\nport = 5038\nbindaddr = 0.0.0.0\n\n;[mark]\n;secret = mysecret\n' >manager.conf
		rm -rf manager.d
		chown -R asterisk:asterisk .
		asterisk -rx 'manager reload'`)
	t.Run("apt", func(t *testing.T) { d.comesAndGoes(t, repo.oneLine(), "", true) })

	d.becomesRPM(t)
	other := d.newRepository(t)
	t.Run("dnf, from a repository that another key has signed", func(t *testing.T) {
		before := d.picture(t)
		out, err := d.tryScript(t, "curl -fsSL "+repo.url+"/install.sh | sed 's|"+repo.url+"|"+other.url+"|g' | sh")
		if err == nil || !strings.Contains(out, "signature is not what it should be; nothing was changed") {
			t.Errorf("%v\n%s", err, out)
		}
		comparePictures(t, before, d.picture(t), "")
		d.rpmForgot(t)
	})
	t.Run("dnf", func(t *testing.T) {
		d.comesAndGoes(t, repo.oneLine(), "", true)
		d.rpmForgot(t)
	})
	t.Run("dnf, a package that another key has signed", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), "bash", "-euc", `
			cp "$2"/rpm/*/*.rpm "$1"/rpm/*/
			createrepo_c --quiet "$1"/rpm/*/
			gpg --batch --yes --armor --detach-sign "$1"/rpm/*/repodata/repomd.xml
			gpgconf --kill gpg-agent`, "bash", repo.dir, other.dir)
		cmd.Env = append(os.Environ(), "GNUPGHOME="+repo.home)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		before := d.picture(t)
		out, err := d.tryScript(t, repo.oneLine())
		if err == nil || !strings.Contains(out, "could not install Ringwall") || !strings.Contains(out, "GPG check FAILED") {
			t.Errorf("%v\n%s", err, out)
		}
		if _, err := d.tryScript(t, "command -v ringwall"); err == nil {
			t.Error("it is installed all the same")
		}
		d.runScript(t, repo.oneLine()+" -s -- --undo")
		comparePictures(t, before, d.picture(t), "")
		d.rpmForgot(t)
	})
}

// rpmForgot wants that rpm and dnf know nothing of Ringwall, nor whose packages they believed.
func (d *day) rpmForgot(t *testing.T) {
	t.Helper()
	if out := d.runScript(t, "rpm -qa; find /var/cache/dnf -name 'ringwall-*' -type d"); strings.Contains(out, "ringwall") ||
		strings.Contains(out, "gpg-pubkey") {
		t.Errorf("they still know\n%s", out)
	}
}

// base is what Ringwall's rpm depends on, for rpm's books.
const base = "{name: shadow-utils, arch: all, version: 1.0.0, maintainer: nobody, description: what Debian has without rpm}"

// becomesRPM makes a machine whose packages are rpms: dnf is this host's, of the same Debian, with all that it needs, and
// apt is away.
func (d *day) becomesRPM(t *testing.T) {
	t.Helper()
	const release = ". /etc/os-release; echo $ID $VERSION_ID"
	host, err := exec.CommandContext(t.Context(), "bash", "-euc", release).Output()
	if err != nil {
		t.Fatal(err)
	}
	if have := d.runScript(t, release); have != strings.TrimSpace(string(host)) {
		t.Skipf("dnf of %sdoes not run on %s", host, have)
	}
	d.writeFile(t, "have", d.runScript(t, "dpkg-query -W -f '${Package}\n'"))
	d.writeFile(t, "base.yaml", base)
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", `
		apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
			--no-enhances dnf | sed -n 's/^\([a-z0-9][^:]*\).*/\1/p' | sort -u | grep -vxF -f "$1/have" |
			{ xargs dpkg-query -L 2>/dev/null || true; } | # some are names that others provide
			grep -v '^/usr/share/\(doc\|man\|locale\|info\)/' | while read -r file; do
				[[ -d $file && ! -L $file ]] || printf '%s\n' "${file#/}"
			done | tar -C / -T - -cf "$1/dnf.tar"
		go run "$(sed -n 's/^readonly nfpm=//p' ../packages/build)" package --config "$1/base.yaml" --packager rpm \
			--target "$1/base.rpm"`, "bash", d.share)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("dnf: %v\n%s", err, out)
	}
	// Debian's rpm keeps its books in the user's home, and takes nothing away unless it is told twice.
	d.runScript(t, `tar -C / --skip-old-files -xf /mnt/dnf.tar
		ldconfig
		mkdir -p /etc/pki/rpm-gpg /etc/yum.repos.d /etc/dnf/modules.d
		echo '%_dbpath /var/lib/rpm' >~/.rpmmacros
		printf '#!/bin/sh\nexec /usr/bin/rpm --force-debian "$@"\n' >/usr/local/bin/rpm
		chmod 755 /usr/local/bin/rpm
		rpm -i /mnt/base.rpm
		mv /usr/bin/apt-get /usr/bin/apt-get.away`)
}
