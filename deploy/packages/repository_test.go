package packages

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// signer is a key in a folder of gpg's own.
type signer struct{ home, fingerprint string }

// newSigner makes a key. options are lines for gpg.conf.
func newSigner(t *testing.T, name string, options ...string) signer {
	t.Helper()
	s := signer{home: t.TempDir()}
	conf := strings.Join(options, "\n") + "\n"
	if err := os.WriteFile(filepath.Join(s.home, "gpg.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	gpg := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), "gpg", append([]string{"--batch", "--quiet", "--no-tty"}, args...)...)
		cmd.Env = append(os.Environ(), "GNUPGHOME="+s.home)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("gpg %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	// rsa: rpm of Debian 12 and of CentOS 8 knows no other that gpg makes as easily.
	gpg("--passphrase", "", "--quick-generate-key", name, "rsa3072", "sign", "1y")
	t.Cleanup(func() {
		cmd := exec.Command("gpgconf", "--kill", "gpg-agent")
		cmd.Env = append(os.Environ(), "GNUPGHOME="+s.home)
		_ = cmd.Run()
	})
	for line := range strings.Lines(gpg("--with-colons", "--list-secret-keys")) {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			s.fingerprint = f[9]
			return s
		}
	}
	t.Fatal("gpg has made no key")
	return s
}

// makeRepository makes, or renews, a repository in dir.
func makeRepository(t *testing.T, s signer, url, packages, dir string, env ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "./repository", "-key", s.fingerprint, "-url", url, packages, dir)
	cmd.Env = append(append(os.Environ(), "GNUPGHOME="+s.home), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("repository: %v\n%s", err, out)
	}
}

// serve offers a folder over HTTP on loopback, inside the tree's network.
func (d *debian) serve(t *testing.T, dir string) (url string) {
	t.Helper()
	type result struct {
		l   net.Listener
		err error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // and the thread ends with this goroutine: it is in another network
		l, err := func() (net.Listener, error) {
			ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", d.holder.Process.Pid))
			if err != nil {
				return nil, err
			}
			defer func() { _ = ns.Close() }()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return nil, err
			}
			return net.Listen("tcp", "127.0.0.1:0")
		}()
		made <- result{l, err}
	}()
	r := <-made
	if r.err != nil {
		t.Fatal(r.err)
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(dir)), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(r.l) }()
	t.Cleanup(func() { _ = server.Close() })
	return "http://" + r.l.Addr().String()
}

// useSource is what install.sh writes for apt.
const useSource = `
install -d /etc/apt/keyrings
cp /mnt/key.asc /etc/apt/keyrings/ringwall.asc
: >/etc/apt/sources.list
printf 'Types: deb\nURIs: %s/apt\nSuites: stable\nComponents: main\nSigned-By: %s\n' "$(cat /mnt/url)" \
	/etc/apt/keyrings/ringwall.asc >/etc/apt/sources.list.d/ringwall.sources
`

// testRepository installs from a repository as people do: over HTTP, with the signature checked.
func testRepository(t *testing.T, oldPackages, newPackages string) {
	key := newSigner(t, "The key <packages@ringwall.example>")
	give := func(t *testing.T, d *debian, dir, url string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(d.share, "url"), []byte(url), 0o644); err != nil {
			t.Fatal(err)
		}
		outputOf(t, "cp", filepath.Join(dir, "ringwall.asc"), filepath.Join(d.share, "key.asc"))
	}
	t.Run("apt", func(t *testing.T) {
		d, dir := newDebian(t), t.TempDir()
		url := d.serve(t, dir)
		makeRepository(t, key, url, oldPackages, dir)
		give(t, d, dir, url)
		d.runScript(t, useSource+"apt update && apt install -y --no-install-recommends ringwall </dev/null")
		d.wantOutput(t, "dpkg-query -W -f '${Version}' ringwall", strings.ReplaceAll(oldVersion, "-", "~"))
		d.runScript(t, asDaemon+"ringwall check")

		// A newer one comes; the older one is kept to go back to.
		makeRepository(t, key, url, newPackages, dir)
		d.runScript(t, "apt update && apt upgrade -y -o Dpkg::Options::=--force-confold </dev/null")
		d.wantOutput(t, "dpkg-query -W -f '${Version}' ringwall", newVersion)
		d.runScript(t, "apt install -y --allow-downgrades -o Dpkg::Options::=--force-confold ringwall="+
			strings.ReplaceAll(oldVersion, "-", "~")+" </dev/null")
	})
	refused := func(t *testing.T, trusted, s signer, says string, env ...string) {
		t.Helper()
		d, dir := newDebian(t), t.TempDir()
		url := d.serve(t, dir)
		makeRepository(t, trusted, url, newPackages, dir)
		give(t, d, dir, url)
		makeRepository(t, s, url, newPackages, dir, env...)
		out, err := d.tryScript(t, useSource+"apt update -o APT::Update::Error-Mode=any")
		if err == nil || !strings.Contains(out, says) {
			t.Errorf("apt update: %v, without %q:\n%s", err, says, out)
		}
		if out, err := d.tryScript(t, "apt install -y ringwall </dev/null"); err == nil {
			t.Errorf("it was installed all the same:\n%s", out)
		}
		// And by the one line: it says so, and leaves nothing.
		before := d.fileNames(t)
		install, err := os.ReadFile("install.sh")
		if err != nil {
			t.Fatal(err)
		}
		block, err := os.ReadFile(filepath.Join(d.share, "key.asc"))
		if err != nil {
			t.Fatal(err)
		}
		script := strings.NewReplacer("@URL@", url, "@KEY@", string(block), "@KEYID@", "0").Replace(string(install))
		if err := os.WriteFile(filepath.Join(d.share, "install.sh"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		d.runScript(t, "rm /etc/apt/sources.list.d/ringwall.sources /etc/apt/keyrings/ringwall.asc")
		if out, err := d.tryScript(t, "sh /mnt/install.sh"); err == nil || !strings.Contains(out, "there is no Asterisk here") {
			t.Errorf("without Asterisk: %v\n%s", err, out)
		}
		d.runScript(t, "mkdir /etc/asterisk; echo '[general]' >/etc/asterisk/manager.conf")
		out, err = d.tryScript(t, "sh /mnt/install.sh")
		if err == nil || !strings.Contains(out, "signature is not what it should be; nothing was changed") {
			t.Errorf("install.sh: %v\n%s", err, out)
		}
		d.wantOutput(t, "ls /etc/apt/sources.list.d /etc/apt/keyrings", "/etc/apt/keyrings:\n\n/etc/apt/sources.list.d:")
		for name := range d.fileNames(t) {
			if !before[name] && !strings.HasPrefix(name, "/var/lib/apt/") && !strings.HasPrefix(name, "/etc/asterisk") {
				t.Errorf("install.sh leaves %s", name)
			}
		}
	}
	t.Run("a signature of another key", func(t *testing.T) {
		refused(t, key, newSigner(t, "Somebody else <packages@ringwall.example>"), "NO_PUBKEY")
	})
	t.Run("a state that is too old", func(t *testing.T) { // who keeps a PBX from updates shows it one
		refused(t, key, key, "is expired", "SOURCE_DATE_EPOCH="+epoch)
	})
	t.Run("a key that has expired", func(t *testing.T) {
		old := newSigner(t, "Of long ago <packages@ringwall.example>", "faked-system-time 20200101T000000")
		refused(t, old, old, "EXPKEYSIG")
	})
	t.Run("a package that somebody changed", func(t *testing.T) {
		d, dir := newDebian(t), t.TempDir()
		url := d.serve(t, dir)
		makeRepository(t, key, url, newPackages, dir)
		give(t, d, dir, url)
		debs, err := filepath.Glob(filepath.Join(dir, "apt/pool/main/r/ringwall/*.deb"))
		if err != nil || len(debs) == 0 {
			t.Fatal(debs, err)
		}
		for _, deb := range debs {
			b, err := os.ReadFile(deb)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(deb, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := d.tryScript(t, useSource+"apt update && apt install -y ringwall </dev/null"); err == nil ||
			!strings.Contains(out, "Hash Sum mismatch") {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("dnf", func(t *testing.T) { testDNF(t, key, newPackages) })
}

// stub is what ringwall's rpm depends on, in a system that has nothing.
const stub = `{name: shadow-utils, arch: all, version: 1.0.0, maintainer: nobody, description: stub}`

// testDNF installs the rpm into a root that rpm makes, with the real dnf, which checks both signatures: of the
// repository, and of the package.
func testDNF(t *testing.T, key signer, packages string) {
	d, dir, work := newDebian(t), t.TempDir(), t.TempDir()
	url := d.serve(t, dir)
	makeRepository(t, key, url, packages, dir)
	nfpm := outputOf(t, "sed", "-n", "s/^readonly nfpm=//p", "build")
	if err := os.WriteFile(filepath.Join(work, "stub.yaml"), []byte(stub), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(work, "stub"), 0o755); err != nil {
		t.Fatal(err)
	}
	outputOf(t, "go", "run", nfpm, "package", "--config", filepath.Join(work, "stub.yaml"), "--packager", "rpm",
		"--target", filepath.Join(work, "stub/shadow-utils.rpm"))
	outputOf(t, "createrepo_c", "--quiet", filepath.Join(work, "stub"))
	conf := func(key string) string {
		return fmt.Sprintf("[ringwall]\nname=Ringwall\nbaseurl=%s/rpm/$basearch\nenabled=1\n"+
			"gpgcheck=1\nrepo_gpgcheck=1\ngpgkey=file://%s\n[stub]\nname=stub\nbaseurl=file://%s/stub\ngpgcheck=0\n", url, key, work)
	}
	other := newSigner(t, "Somebody else <packages@ringwall.example>")
	elsewhere := t.TempDir()
	makeRepository(t, other, url, packages, elsewhere)
	install := func(t *testing.T, key string) (root, out string, err error) {
		t.Helper()
		root = filepath.Join(t.TempDir(), "root")
		repos := t.TempDir()
		if err := os.WriteFile(filepath.Join(repos, "ringwall.repo"), []byte(conf(key)), 0o644); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		// Debian's rpm keeps its books in the user's home, others in /var/lib/rpm.
		home := t.TempDir()
		if err := os.WriteFile(filepath.Join(home, ".rpmmacros"), []byte("%_dbpath /var/lib/rpm\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(ctx, "nsenter", "--target", fmt.Sprint(d.holder.Process.Pid), "--net", "--",
			"dnf", "-y", "--installroot="+root, "--releasever=9", "--setopt=reposdir="+repos,
			"--setopt=cachedir="+t.TempDir(), "--setopt=logdir="+t.TempDir(), "--setopt=tsflags=noscripts",
			"--setopt=install_weak_deps=False", "install", "ringwall")
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "HOME="+home)
		b, err := cmd.CombinedOutput()
		return root, string(b), err
	}
	root, out, err := install(t, filepath.Join(dir, "ringwall.asc"))
	if err != nil {
		t.Fatalf("dnf: %v\n%s", err, out)
	}
	if v := outputOf(t, "rpm", "--root", root, "--dbpath", "/var/lib/rpm", "-q", "--qf", "%{VERSION}", "ringwall"); v != newVersion {
		t.Errorf("version %s", v)
	}
	if out := outputOf(t, filepath.Join(root, "usr/bin/ringwall"), "version"); !strings.Contains(out, newVersion) {
		t.Errorf("the program says %s", out)
	}
	if _, out, err := install(t, filepath.Join(elsewhere, "ringwall.asc")); err == nil {
		t.Errorf("dnf takes what another key has signed:\n%s", out)
	}
}
