package fail2ban_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/fail2ban"
)

const hostile = "\x1b[31m2\u202e01\u009b\xff\r\npolicy: {mode: enforce}"

const asterisk = "asterisk:\n  - {address: 127.0.0.1:5038, username: ringwall, secret: \"s\"}\n"

func read(t *testing.T, o fail2ban.Options) *fail2ban.Import {
	t.Helper()
	o.Now = now
	im, err := fail2ban.Read(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// parsed is the configuration that the suggestion and an asterisk section make.
func parsed(t *testing.T, im *fail2ban.Import) (*config.Config, string) {
	t.Helper()
	var b strings.Builder
	if err := im.WriteYAML(&b); err != nil {
		t.Fatal(err)
	}
	c, warnings, err := config.Parse(strings.NewReader(asterisk+b.String()), "ringwall.yaml", config.Environment{})
	if err != nil || len(warnings) > 0 {
		t.Fatalf("ringwall check says: %v %v\n%s", err, warnings, b.String())
	}
	return c, b.String()
}

func TestSuggestionsSayWhy(t *testing.T) {
	db := database(t)
	for _, name := range []string{"pbx", "simple", "strict", "forever", "steps"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join("testdata", name)
			im := read(t, fail2ban.Options{Jail: dir, DB: db})
			_, yaml := parsed(t, im)
			var b strings.Builder
			for _, f := range im.Files {
				fmt.Fprintln(&b, "file", f)
			}
			for _, j := range im.Jails {
				fmt.Fprintln(&b, "jail", j.Name, j.VoIP, j.Why)
			}
			for _, l := range im.NotImported {
				fmt.Fprintf(&b, "left %s: %s\n", l.What, l.Why)
			}
			golden(t, filepath.Join(dir, "golden"), b.String()+"\n"+yaml)
		})
	}
}

func TestNumbersBecomePolicy(t *testing.T) {
	db := database(t)
	def := config.Default().Policy.Ban
	for name, want := range map[string]struct {
		names, passwords float64 // points
		burst            int
		half             time.Duration
		tolerance        float64
		ban              config.Ban
	}{
		"pbx": {4, 2.64, 3, 10 * time.Minute, 10, config.Ban{First: time.Hour, Factor: 2, Max: 5 * 168 * time.Hour,
			Memory: 48 * time.Hour}},
		"simple": {4, 2.64, 3, 10 * time.Minute, 10,
			config.Ban{First: 10 * time.Minute, Factor: 1, Max: 10 * time.Minute,
				Memory: def.Memory}},
		"strict": {5.56, 2.64, 3, time.Hour, 83.4,
			config.Ban{First: 10 * time.Minute, Factor: 5.63, Max: 168 * time.Hour,
				Memory: 24 * time.Hour}},
		"forever": {4, 2.64, 3, 10 * time.Minute, 10,
			config.Ban{First: 168 * time.Hour, Factor: 4, Max: 8760 * time.Hour,
				Memory: def.Memory}},
		"steps": {4, 2.64, 3, 10 * time.Minute, 10, config.Ban{First: time.Minute, Factor: 3.12, Max: 168 * time.Hour,
			Memory: 24 * time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := parsed(t, read(t, fail2ban.Options{Jail: filepath.Join("testdata", name), DB: db}))
			want.ban.ForgeableMax = def.ForgeableMax
			want.ban.Knock, want.ban.KnockSource = def.Knock, def.KnockSource
			if p := c.Policy; p.Threshold != 10 || p.Points.UnknownAccount != want.names ||
				p.Points.WrongPassword != want.passwords ||
				p.Misconfigured.Burst != want.burst || p.HalfLife != want.half || p.Trust.Tolerance != want.tolerance ||
				p.Ban != want.ban || p.Mode != config.Observe {
				t.Errorf("got %+v; want %+v", p, want)
			}
		})
	}
}

func TestAllowListComesFromIgnoreip(t *testing.T) {
	im := read(t, fail2ban.Options{Jail: "testdata/pbx", DB: database(t)})
	c, _ := parsed(t, im)
	var got []string
	for _, a := range c.Policy.Allow {
		got = append(got, a.String())
	}
	if want := []string{"192.0.2.0/24", "2001:db8:10::/48", "sip.example.net"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, word := range []string{"127.0.0.1/8", "::1", "0.0.0.0/0", "not_a_host", "file:///etc/allow"} {
		if notImported(im, `ignoreip "`+word+`"`) == "" {
			t.Errorf("%s is lost without a word", word)
		}
	}
}

func TestBansKeepTheTimeThatTheyHaveLeft(t *testing.T) {
	db := database(t,
		entry{"asterisk", "203.0.113.5", 20 * time.Minute, time.Hour},
		entry{"asterisk", "203.0.113.6", time.Hour, time.Hour},
		entry{"asterisk", "203.0.113.7", time.Hour, -1},
		entry{"asterisk", "203.0.113.8", 5 * time.Minute, -2}, // converted from 0.10: the jail knows its bantime
		entry{"asterisk", "2001:db8:bad::1", 0, 24 * time.Hour},
		entry{"asterisk", "::ffff:203.0.113.9", time.Minute, time.Hour},
		entry{"asterisk", "198.51.100.0/24", -time.Hour, 10 * time.Minute}, // by a clock that was wrong
		entry{"asterisk-security", "203.0.113.5", 0, 50 * time.Minute},
		entry{"asterisk", "192.0.2.10", 0, time.Hour},
		entry{"asterisk", "0.0.0.0/0", 0, time.Hour},
		entry{"asterisk", "some-user", 0, time.Hour},
		entry{"sshd", "203.0.113.20", 0, time.Hour},
		entry{"asterisk", "203.0.113.21", 50 * time.Hour, time.Hour},
		entry{"recidive", "203.0.113.21", time.Hour, 168 * time.Hour},
		entry{"recidive", "203.0.113.22", time.Hour, 168 * time.Hour},
		entry{"asterisk-old", "203.0.113.23", 0, time.Hour},
	)
	im := read(t, fail2ban.Options{Jail: "testdata/pbx", DB: db})
	want := `198.51.100.0/24 asterisk 10m0s
203.0.113.5/32 asterisk-security 50m0s
203.0.113.7/32 asterisk for ever
203.0.113.8/32 asterisk 55m0s
203.0.113.9/32 asterisk 59m0s
203.0.113.21/32 recidive 167h0m0s
2001:db8:bad::1/128 asterisk 24h0m0s
`
	if got := show(im.Bans); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for _, part := range []string{
		`banned "192.0.2.10": is in ignoreip now`, `banned "0.0.0.0/0": is too large`,
		`banned "some-user": is no address`,
		`1 ban: jail "sshd" is not about telephony`, `1 ban: jail "recidive" is not`,
		`1 ban: jail "asterisk-old" is off`,
	} {
		if notImported(im, part) == "" {
			t.Errorf("nothing says %s: %v", part, im.NotImported)
		}
	}
	also := read(t, fail2ban.Options{Jail: "testdata/pbx", DB: db, Also: []string{"sshd", "recidive"}})
	if got := show(also.Bans); !strings.Contains(got, "203.0.113.20/32 sshd") ||
		!strings.Contains(got, "203.0.113.22/32 recidive") {
		t.Errorf("--also is without effect:\n%s", got)
	}
}

func TestDatabaseAloneIsEnough(t *testing.T) {
	db := database(t, entry{"asterisk-iptables", "203.0.113.5", 0, time.Hour},
		entry{"sshd", "203.0.113.6", 0, time.Hour})
	im := read(t, fail2ban.Options{Jail: files(t, map[string]string{"jail.conf": "[DEFAULT]\n"}), DB: db,
		Also: []string{"asterisk-iptables"}})
	if got := show(im.Bans); got != "203.0.113.5/32 asterisk-iptables 1h0m0s\n" {
		t.Error(got)
	}
	parsed(t, im)
}

func TestWhatIsNamedMustBeThere(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for name, o := range map[string]fail2ban.Options{
		"jail":     {Jail: none, DB: database(t)},
		"empty":    {Jail: t.TempDir(), DB: database(t)},
		"database": {Jail: "testdata/simple", DB: none},
	} {
		if _, err := fail2ban.Read(t.Context(), o); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	im := read(t, fail2ban.Options{Jail: "testdata/pbx"})
	if im.Database != "" || !strings.Contains(strings.Join(im.Found, "\n"),
		`no database at "/nonexistent/fail2ban.sqlite3"`) {
		t.Errorf("fail2ban.conf is not asked for dbfile: %q", im.Found)
	}
}

func TestAFileOfASetBringsTheSet(t *testing.T) {
	all := read(t, fail2ban.Options{Jail: "testdata/pbx"}).Files
	for _, name := range []string{"jail.conf", "jail.local", "jail.d/zz.local"} {
		if got := read(t, fail2ban.Options{Jail: "testdata/pbx/" + name}).Files; !slices.Equal(got, all) {
			t.Errorf("%s: %v, want %v", name, got, all)
		}
	}
	alone := filepath.Join(files(t, map[string]string{"my.txt": "[asterisk]\nenabled=1\n"}), "my.txt")
	if im := read(t, fail2ban.Options{Jail: alone}); len(im.Files) != 1 || len(im.Jails) != 1 {
		t.Errorf("%+v", im)
	}
}

func TestHostileTextStaysInert(t *testing.T) {
	db := database(t, entry{"asterisk", hostile, 0, time.Hour}, entry{hostile, "203.0.113.5", 0, time.Hour},
		entry{"asterisk" + hostile, "203.0.113.6", 0, time.Hour},
		entry{"asterisk", strings.Repeat("1", 1<<20), 0, time.Hour})
	name := strings.NewReplacer("\r\n", "", "]", "").Replace("asterisk" + hostile)
	dir := files(t, map[string]string{"jail.local": "[" + name + "]\nenabled=1\nmaxretry=" + hostile +
		"\nbantime=\x1bh\nignoreip=\x1b]0;x\u202e\nfilter=\n" +
		"action=a\x1bb\nport=\u202e\nbantime.increment=1\nbantime.multipliers=1 \x1b\nbantime.factor=\x1b\n"})
	im := read(t, fail2ban.Options{Jail: dir, DB: db, Also: []string{hostile}})
	_, yaml := parsed(t, im)
	texts := append([]string{yaml}, im.Found...)
	for _, l := range im.NotImported {
		texts = append(texts, l.What, l.Why)
	}
	for _, j := range im.Jails {
		texts = append(texts, j.Why)
	}
	for _, text := range texts {
		if i := strings.IndexFunc(text, func(r rune) bool {
			return r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 ||
				r == 0x202e || r == 0xfffd
		}); i >= 0 {
			t.Errorf("%q holds %q", text, text[i:min(i+8, len(text))])
		}
		if len(text) > 4096 {
			t.Errorf("%d bytes: %.80q…", len(text), text)
		}
	}
}

func TestFilesThatCannotBeReadAreNamed(t *testing.T) {
	dir := files(t, map[string]string{"jail.conf": "[INCLUDES]\nbefore = folder\n[asterisk]\nenabled = %(nothing)s\n" +
		"[sip]\nenabled=1\nfindtime=%(sip/findtime)s\n"})
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	im := read(t, fail2ban.Options{Jail: dir})
	for _, part := range []string{"folder\" is not read: it is no regular file", `enabled: nothing is named "nothing"`,
		"findtime: %(name)s stands in itself"} {
		if notImported(im, part) == "" {
			t.Errorf("nothing says %s: %v", part, im.NotImported)
		}
	}
}

// Who got mails of fail2ban gets Ringwall's, too.
func TestMailsGoOn(t *testing.T) {
	const defaults = "[DEFAULT]\ndestemail = root@localhost\nsender = root@<fq-hostname>\nmta = sendmail\n" +
		"action_ = iptables-multiport[port=\"5060\"]\n" +
		"action_mwl = %(action_)s\n  %(mta)s-whois-lines[sender=\"%(sender)s\", dest=\"%(destemail)s\", logpath=\"x\"]\n" +
		"action = %(action_)s\n[asterisk]\nenabled = true\n"
	for name, c := range map[string]struct {
		local    string
		from, to string
	}{
		"nothing":  {"", "", ""},
		"as it is": {"[asterisk]\naction = %(action_mwl)s\n", "ringwall@localhost", "root@localhost"},
		"with both addresses": {"[DEFAULT]\ndestemail = a@example.com, b@example.com\nsender = fail2ban@pbx.example.com\n" +
			"action = %(action_mwl)s\n", "fail2ban@pbx.example.com", "a@example.com b@example.com"},
		"by an old how-to": {"[asterisk]\naction = iptables-allports[name=ASTERISK, protocol=all]\n" +
			"  sendmail[name=ASTERISK, dest=root, sender=fail2ban@example.org]\n", "fail2ban@example.org", "root@localhost"},
		"by mail": {"[asterisk]\naction = mail-whois[name=a, dest=admin@example.com]\n", "ringwall@example.com",
			"admin@example.com"},
		"to what is no address": {"[asterisk]\naction = sendmail[dest=\"a@example.com\\nBcc: x@example.com\", " +
			"sender=\"\x1b@example.com\"]\n", "ringwall@example.com", "x@example.com"},
		"of a jail that is about something else": {"[sshd]\nenabled = true\naction = sendmail[dest=\"a@example.com\"]\n", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			im := read(t, fail2ban.Options{Jail: files(t, map[string]string{"jail.conf": defaults, "jail.local": c.local}),
				DB: database(t)})
			cfg, yaml := parsed(t, im)
			from, to := "", ""
			for _, n := range cfg.Notify {
				from, to = n.SMTP.From, strings.Join(n.SMTP.To, " ")
			}
			if from != c.from || to != c.to {
				t.Errorf("from %q to %q:\n%s", from, to, yaml)
			}
			for _, l := range im.NotImported {
				if strings.Contains(l.What, "mail") {
					t.Errorf("%+v", l)
				}
			}
		})
	}
}
