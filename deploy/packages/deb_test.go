package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const table = "nft list table inet ringwall"

// TestPackages builds them once, since that is the most of the work.
func TestPackages(t *testing.T) {
	needRoot(t)
	fresh, copied := t.TempDir(), t.TempDir()
	elsewhere := olderCopy(t)
	names := buildPackages(t, "../..", newVersion, fresh)
	// A version in the names would leave it to the shell which of two files apt installs.
	var bases []string
	for _, name := range names {
		bases = append(bases, filepath.Base(name))
	}
	if want := []string{"ringwall-aarch64.rpm", "ringwall-x86_64.rpm", "ringwall_amd64.deb",
		"ringwall_arm64.deb"}; !slices.Equal(bases, want) {
		t.Fatalf("packages: %q, want %q", bases, want)
	}
	t.Run("built twice, at two places, are the same bytes", func(t *testing.T) {
		buildPackages(t, elsewhere, newVersion, copied)
		for _, name := range names {
			if again := filepath.Join(copied, filepath.Base(name)); fileChecksum(t, name) != fileChecksum(t, again) {
				t.Errorf("%s differs from %s", name, again)
			}
		}
	})

	// The older version has another configuration, so that an upgrade has to choose.
	config := filepath.Join(elsewhere, "deploy/packages/files/ringwall.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, append(text, "# An old remark.\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	host := outputOf(t, "go", "env", "GOHOSTARCH")
	old := buildPackages(t, elsewhere, oldVersion, t.TempDir(), "-arch", host)

	pick := func(names []string, suffix string) string {
		i := slices.IndexFunc(names, func(name string) bool {
			rpm := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[host]
			return strings.HasSuffix(name, host+suffix) || strings.HasSuffix(name, rpm+suffix)
		})
		if i < 0 {
			t.Fatalf("no %s for %s among %q", suffix, host, names)
		}
		return names[i]
	}
	share := func(t *testing.T, d *debian, suffix string) {
		t.Helper()
		for from, to := range map[string]string{pick(old, suffix): "old" + suffix,
			pick(names, suffix): "new" + suffix} {
			if out, err := exec.Command("cp", "--reflink=auto", from,
				filepath.Join(d.share, to)).CombinedOutput(); err != nil {
				t.Fatalf("cp: %v\n%s", err, out)
			}
		}
	}
	t.Run("deb", func(t *testing.T) {
		d := newDebian(t)
		share(t, d, ".deb")
		testDeb(t, d)
	})
	t.Run("deb without systemd", func(t *testing.T) {
		d := newDebian(t)
		share(t, d, ".deb")
		testWithoutSystemd(t, d)
	})
	t.Run("deb under a running systemd", func(t *testing.T) {
		d := newDebian(t)
		share(t, d, ".deb")
		testRunningSystemd(t, d)
	})
	t.Run("repository", func(t *testing.T) { testRepository(t, filepath.Dir(old[0]), fresh) })
	t.Run("rpm", func(t *testing.T) {
		d := newDebian(t)
		share(t, d, ".rpm")
		testRPM(t, d)
	})
}

// checkInstalled is what every fresh installation must be.
func checkInstalled(t *testing.T, d *debian, said string) {
	t.Helper()
	for _, want := range []string{"/etc/ringwall/asterisk-manager.conf", "manager reload", "systemctl start ringwall",
		"ringwall doctor", "enforce"} {
		if !strings.Contains(said, want) {
			t.Errorf("the installation does not name %q:\n%s", want, said)
		}
	}
	d.wantOutput(t, "id -un ringwall; id -Gn ringwall; getent passwd ringwall | cut -d: -f6,7",
		"ringwall\nringwall\n/var/lib/ringwall:/usr/sbin/nologin")
	d.wantOutput(t, "cd /etc/ringwall; stat -c '%A %U:%G %n' . * /var/lib/ringwall", strings.Join([]string{
		"drwxr-x--- root:ringwall .",
		"-rw-r----- root:ringwall ami-secret",
		"-rw------- root:root asterisk-manager.conf",
		"-rw-r----- root:ringwall ringwall.yaml",
		"drwx------ ringwall:ringwall /var/lib/ringwall",
	}, "\n"))
	secret := d.runScript(t, "cat /etc/ringwall/ami-secret")
	if !regexp.MustCompile(`^[0-9a-f]{48}$`).MatchString(secret) {
		t.Errorf("the secret is %d bytes of something else", len(secret))
	}
	d.wantOutput(t, "sed -n 's/^secret = //p' /etc/ringwall/asterisk-manager.conf", secret)
	if strings.Contains(said, secret) {
		t.Error("the installation says the secret, and apt keeps what is said in its log")
	}
	if out, packaged := d.runScript(t, "ringwall version"),
		strings.ReplaceAll(oldVersion, "-", "~"); !strings.HasPrefix(out,
		"ringwall "+packaged+" ") &&
		!strings.HasPrefix(out, "ringwall "+newVersion+" ") {
		t.Errorf("version: %s", out)
	}
	if out := d.runScript(t, asDaemon+"ringwall check"); !strings.Contains(out, "is right") ||
		!strings.Contains(out, "observe") {
		t.Errorf("check of the packaged configuration: %s", out)
	}
}

func testDeb(t *testing.T, d *debian) {
	before := d.fileNames(t)
	said := d.runScript(t, "dpkg -i /mnt/old.deb </dev/null")
	checkInstalled(t, d, said)
	enabled := "readlink -f /etc/systemd/system/multi-user.target.wants/ringwall.service"
	d.wantOutput(t, enabled, "/usr/lib/systemd/system/ringwall.service")

	t.Run("unit", func(t *testing.T) {
		d.wantOutput(t, "systemd-analyze verify ringwall.service", "")
		d.runScript(t, "systemd-analyze security --no-pager --offline=true --threshold=20 "+
			"/usr/lib/systemd/system/ringwall.service")
		d.wantOutput(t, "systemd-analyze verify ringwall-hub.service", "")
		d.runScript(t, "systemd-analyze security --no-pager --offline=true --threshold=20 "+
			"/usr/lib/systemd/system/ringwall-hub.service")
		d.runScript(t, "! test -e /etc/systemd/system/multi-user.target.wants/ringwall-hub.service")
	})
	t.Run("pages and completions", func(t *testing.T) {
		pages := d.runScript(t, "dpkg -L ringwall | grep /man/man")
		for page := range strings.Lines(pages) {
			if page = strings.TrimSpace(page); strings.HasSuffix(page, ".gz") {
				d.wantOutput(t, "MANROFFSEQ= MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 "+page+" 2>&1 >/dev/null",
					"")
			}
		}
		for _, page := range []string{"ringwall.1", "ringwall-why.1", "ringwall-allow-add.1", "ringwall.yaml.5"} {
			if !strings.Contains(pages, "/"+page+".gz") {
				t.Errorf("no page %s in\n%s", page, pages)
			}
		}
		d.runScript(t, `cd /usr/share; bash -n bash-completion/completions/ringwall
			test -s zsh/vendor-completions/_ringwall; test -s fish/vendor_completions.d/ringwall.fish
			cd doc/ringwall; test -s copyright; zcat changelog*.gz | grep -q ringwall; test -s README.md; test -s examples/reference.yaml
			for name in ringwall hep extensions_ringwall; do test -s examples/asterisk/$name.conf; done; test -s deploy/prometheus/ringwall.rules.yml; test -s deploy/grafana/ringwall.json
			grep -q 'github.com/google/nftables' licences.txt; grep -q 'The Go Authors' licences.txt`)
	})

	t.Run("links between its pages", func(t *testing.T) {
		// README.md and deploy/docs are where they are in the source tree; what only the source has is named as such.
		out := d.runScript(t, `cd /usr/share/doc/ringwall; for page in README.md deploy/docs/*.md; do
			grep -oE '\]\([^)#:]+[)#]' "$page" | sed 's/^](//; s/[)#]$//' | while read -r to; do
				test -e "$(dirname "$page")/$to" || echo "$page: $to"
			done || true
		done`)
		if out != "" {
			t.Errorf("links that lead nowhere:\n%s", out)
		}
	})

	// What the administrator did, and a ban, survive the upgrade.
	d.runScript(t, `sed -i 's/mode: observe/mode: enforce/; $a # My own remark.' /etc/ringwall/ringwall.yaml`)
	stop := d.startDaemon(t)
	d.runScript(t, "ringwall ban 203.0.113.7 --for 1h --reason test")
	stop()
	banned := table + " | grep -o 203.0.113.7 | sort -u" // a ban by hand is in more than one set
	d.wantOutput(t, banned, "203.0.113.7")
	kept := "id -u ringwall; cat /etc/ringwall/*; stat -c '%a %U:%G' /etc/ringwall/*; ls /var/lib/ringwall; " + enabled
	was := d.runScript(t, kept)
	said = d.runScript(t, "dpkg --force-confold -i /mnt/new.deb </dev/null")
	if strings.Contains(said, "manager reload") {
		t.Errorf("an upgrade welcomes as if it were new:\n%s", said)
	}
	d.wantOutput(t, "dpkg-query -W -f '${Version}' ringwall", newVersion)
	d.runScript(t, "! grep -q 'An old remark' /etc/ringwall/ringwall.yaml.dpkg-dist; rm "+
		"/etc/ringwall/ringwall.yaml.dpkg-dist")
	d.wantOutput(t, kept, was)
	d.wantOutput(t, banned, "203.0.113.7")
	stop = d.startDaemon(t)
	if bans := d.runScript(t, "ringwall list bans --json"); !strings.Contains(bans, "203.0.113.7") {
		t.Errorf("the new version does not know the ban: %s", bans)
	}
	stop()
	d.runScript(t, "dpkg -i /mnt/new.deb </dev/null") // the same again: no question, nothing changes
	d.wantOutput(t, kept, was)

	t.Run("a disabled service stays disabled", func(t *testing.T) {
		d.runScript(t, "systemctl disable ringwall.service && dpkg -i /mnt/new.deb </dev/null && ! test -e "+
			"/etc/systemd/system/multi-user.target.wants/ringwall.service")
		d.runScript(t, "systemctl enable ringwall.service")
	})

	d.runScript(t, "dpkg -r ringwall")
	d.runScript(t, "! "+table+" 2>/dev/null; test -s /etc/ringwall/ringwall.yaml; test -s /etc/ringwall/ami-secret; "+
		"test -s "+
		"/var/lib/ringwall/state.db")
	d.runScript(t, "nft add table inet ringwall; nft add table inet mine; dpkg -P ringwall")
	d.wantOutput(t, "nft list tables", "table inet mine")
	d.runScript(t, "! getent passwd ringwall; ! getent group ringwall")
	after := d.fileNames(t)
	for name := range after {
		if !before[name] {
			t.Errorf("left after purge: %s", name)
		}
	}
	for name := range before {
		if !after[name] {
			t.Errorf("gone after purge: %s", name)
		}
	}
}

func testWithoutSystemd(t *testing.T, d *debian) {
	d.runScript(t, "rm /usr/bin/systemd-sysusers /usr/bin/systemd-tmpfiles /usr/sbin/nft")
	checkInstalled(t, d, d.runScript(t, "dpkg -i /mnt/new.deb </dev/null"))
	// Somebody let it in at an Asterisk, which does not run, and forgets that before a purge.
	d.runScript(t, `mkdir /etc/asterisk; printf '[general]\nenabled = yes\n' >/etc/asterisk/manager.conf
		! ringwall setup --yes`)
	out := d.runScript(t, "dpkg -P ringwall")
	if !strings.Contains(out, "bans in the kernel end by themselves") {
		t.Errorf("removed without nft: %s", out)
	}
	for _, left := range []string{"/etc/asterisk/ringwall_manager.conf", "/etc/asterisk/manager.conf"} {
		if !strings.Contains(out, "remove it by hand: "+left+"\n") {
			t.Errorf("%s is left, and nobody is told: %s", left, out)
		}
	}
	d.runScript(t, "! getent passwd ringwall; ! test -e /etc/ringwall; ! test -e /var/lib/ringwall")
}

// testRunningSystemd has no systemd that runs, but one that notes what it is asked.
func testRunningSystemd(t *testing.T, d *debian) {
	d.runScript(t, `mkdir -p /run/systemd/system
mv /bin/systemctl /bin/systemctl.real
cat >/bin/systemctl <<'TEXT'
#!/bin/sh
echo "$*" >>/tmp/asked
case $* in
reload*) exit "$(cat /tmp/reload)" ;;
is-active*) exit "$(cat /tmp/active)" ;;
esac
TEXT
chmod 755 /bin/systemctl; echo 0 >/tmp/reload; echo 3 >/tmp/active`)
	asked := `grep -oE '(^|[a-z-]* )(start|stop|reload|restart|try-restart) .*' /tmp/asked || true`
	install := func(t *testing.T, name string) string {
		t.Helper()
		return d.runScript(t, "rm -f /tmp/asked; dpkg --force-confold -i /mnt/"+name+".deb </dev/null")
	}
	install(t, "old")
	d.wantOutput(t, asked, "")
	for _, test := range []struct {
		name, active, reload, asked, said string
	}{
		{"stopped stays stopped", "3", "0", "", "it does not run, so nobody is banned: systemctl start ringwall"},
		{"running is restarted", "0", "0", "reload ringwall.service\ntry-restart ringwall.service", ""},
		{"a configuration that the new version refuses", "0", "1", "reload ringwall.service", "the old one goes on"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d.runScript(t, "echo "+test.active+" >/tmp/active; echo "+test.reload+" >/tmp/reload")
			said := install(t, "new")
			d.wantOutput(t, asked, test.asked)
			if !strings.Contains(said, test.said) {
				t.Errorf("said: %s", said)
			}
		})
	}
	d.runScript(t, "rm -f /tmp/asked; dpkg -r ringwall")
	if out := d.runScript(t, asked); !strings.Contains(out, "stop ringwall.service") {
		t.Errorf("removed without a stop: %s", out)
	}
	d.runScript(t, "echo 3 >/tmp/active")
	if out := install(t, "new"); !strings.Contains(out, "systemctl start ringwall") {
		t.Errorf("installed again, stopped and without a word: %s", out)
	}
}
