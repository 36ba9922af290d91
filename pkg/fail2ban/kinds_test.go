package fail2ban_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/fail2ban"
)

// TestJailsOfEachKind has what people write beside the cases of the field: each row is jail files, and what becomes of
// them.
func TestJailsOfEachKind(t *testing.T) {
	const on = "enabled = true\n"
	db := database(t)
	ports := func(udp bool, want ...uint16) func(*testing.T, *config.Config) {
		return func(t *testing.T, c *config.Config) {
			list := c.Firewall.Ports.TCP
			if udp {
				list = c.Firewall.Ports.UDP
			}
			for _, p := range want {
				if !slices.Contains(list, p) {
					t.Errorf("port %d stays open: %v", p, list)
				}
			}
		}
	}
	points := func(names, passwords, manager float64) func(*testing.T, *config.Config) {
		return func(t *testing.T, c *config.Config) {
			if p := c.Policy.Points; p.UnknownAccount != names || p.WrongPassword != passwords || p.Manager != manager {
				t.Errorf("got %+v", p)
			}
		}
	}
	defaults := func(t *testing.T, c *config.Config) {
		def := config.Default()
		if c.Policy.Points != def.Policy.Points || c.Policy.HalfLife != def.Policy.HalfLife ||
			!slices.Equal(c.Firewall.Ports.UDP, def.Firewall.Ports.UDP) {
			t.Errorf("got %+v %+v", c.Policy, c.Firewall.Ports)
		}
	}
	for name, row := range map[string]struct {
		text string
		want func(*testing.T, *config.Config)
		left []string
	}{
		"a range in port": {"[asterisk]\n" + on + "port = 5060,5080:5090\n", ports(true, 5080, 5085, 5090),
			nil},
		"a range as nft writes it": {"[asterisk]\n" + on + "port = 5080-5082\n", ports(false, 5080, 5081, 5082), nil},
		"a range in an action": {"[asterisk]\n" + on +
			`action = nftables-multiport[name=SIP, port="sip,5160:5163", protocol=udp]` + "\n", ports(true, 5160, 5163),
			nil},
		"a port through %(action_)s": {"[DEFAULT]\nbanaction = iptables-multiport\naction_ = " +
			"%(banaction)s[port=\"%(port)s\"]\n[asterisk]\n" + on + "port = 5070\naction = %(action_)s\n",
			ports(true, 5070),
			nil},
		"a port in somebody's action": {"[asterisk]\n" + on + "action = my-ban[name=a][port='5090', chain=INPUT]\n",
			ports(true, 5090), []string{`action "my-ban"`}},
		"a port in banaction": {"[asterisk]\n" + on + `banaction = iptables-multiport[port="5091"]` + "\n",
			ports(true, 5091), nil},
		"the range of RTP": {"[asterisk]\n" + on + "port = 5060,10000:20000\n", defaults,
			[]string{`port "10000:20000" of jail "asterisk"`}},
		"SSH and the web beside SIP": {"[asterisk]\n" + on + "port = 5060,22,http\n", defaults,
			[]string{`port "22", "80" of jail "asterisk"`}},
		"all ports": {"[asterisk]\n" + on + "port = 0:65535\n", defaults,
			[]string{`port = 0:65535 (a ban of all ports) of jail "asterisk"`}},
		"all ports but zero": {"[asterisk]\n" + on + "port = 1:65535\n", defaults,
			[]string{`port = 1:65535 (a ban of all ports)`}},
		"all ports of an action": {"[asterisk]\n" + on + `action = iptables-multiport[port="0:65535"]` + "\n", defaults,
			[]string{`port = 0:65535 (a ban of all ports)`}},
		"a range backwards": {"[asterisk]\n" + on + "port = 5090:5080\n", defaults,
			[]string{`port: "5090:5080" is no number`}},
		"an unknown name in an action": {"[asterisk]\n" + on + "action = iptables-multiport[port=\"telefon\"]\n",
			defaults,
			[]string{`port: "telefon" is no number`}},

		"FreePBX' page": {"[pbx-gui]\n" + on +
			"filter = freepbx\nlogpath = /var/log/asterisk/freepbx_security.log\nmaxretry = 1\n", defaults, nil},
		"a page by its log": {"[asterisk-admin]\n" + on + "logpath = /var/log/nginx/access.log\nmaxretry = 1\n",
			defaults, nil},
		"a page by its ports": {"[voip-portal]\n" + on + "port = http,https,8443\nmaxretry = 1\n", defaults, nil},
		"a page by its name":  {"[issabel-web]\n" + on + "maxretry = 1\n", defaults, nil},
		"SIP with the web's too": {"[asterisk]\n" + on + "filter = asterisk\nport = 5060,80,443\nmaxretry = 4\n",
			points(4, 2.64, 4), nil},

		"the stricter of two auth jails": {"[a-auth]\n" + on + "filter = asterisk-auth\nmaxretry = 20\n[b-auth]\n" +
			on + "filter = asterisk-auth2\nmaxretry = 4\n", points(4, 2.64, 4), []string{`numbers of jail "a-auth"`}},
		"a strict scan jail": {"[a]\n" + on + "filter = asterisk-auth\nmaxretry = 20\n[b]\n" + on +
			"filter = pjsip-scan\nmaxretry = 2\n", points(5.56, 2, 4),
			[]string{`maxretry = 20 of jail "a" for wrong passwords`}},
		"a strict AMI jail": {"[asterisk]\n" + on + "maxretry = 9\n[manager]\n" + on +
			"filter = asterisk-manager\nmaxretry = 2\n", points(4, 2, 5.56), nil},
		"AMI by its port": {"[pbx-tcp]\n" + on + "port = 5038\nmaxretry = 1\n", points(4, 2, 5.56),
			[]string{`so 2 failed logins to AMI it is`}},
		"one jail for everything": {"[asterisk]\n" + on + "maxretry = 1\n", points(5.56, 2.64, 5.56),
			[]string{"so 4 wrong passwords", "so 2 unknown accounts"}},
		"a filter that has its name, and does all": {"[asterisk-auth]\n" + on + "filter = asterisk\nmaxretry = 2\n",
			points(5.56, 2.64, 5.56), nil},

		"a week of findtime": {"[asterisk]\n" + on + "maxretry = 5\nfindtime = 1w\n", longFindtime,
			[]string{"findtime = 168h of jail"}},
		"thirty days in one jail of three": {"[asterisk]\n" + on + "[asterisk-auth]\n" + on + "[asterisk-scan]\n" + on +
			"maxretry = 4\nfindtime = 30d\n", longFindtime, []string{`findtime = 720h of jail "asterisk-scan"`}},
		"an hour for five": {"[asterisk]\n" + on + "maxretry = 5\nfindtime = 1h\n",
			func(t *testing.T, c *config.Config) {
				if p := c.Policy; p.HalfLife != 48*time.Minute || p.Trust.Tolerance != 48 {
					t.Errorf("half-life %v, tolerance %v", p.HalfLife, p.Trust.Tolerance)
				}
			}, nil},
		"a findtime of ten seconds": {"[asterisk]\n" + on + "findtime = 10\nmaxretry = 5\n", defaults, nil},
	} {
		t.Run(name, func(t *testing.T) {
			im := read(t, fail2ban.Options{Jail: files(t, map[string]string{"jail.local": "[DEFAULT]\nmaxretry = 5\n" +
				row.text}), DB: db})
			c, _ := parsed(t, im)
			row.want(t, c)
			for _, part := range row.left {
				if notImported(im, part) == "" {
					t.Errorf("nothing says %s: %v", part, im.NotImported)
				}
			}
			if !strings.Contains(strings.Join(row.left, ""), "findtime") && notImported(im, "findtime = ") != "" {
				t.Errorf("too much is said: %v", im.NotImported)
			}
		})
	}
}

func longFindtime(t *testing.T, c *config.Config) {
	if p := c.Policy; p.HalfLife != time.Hour || p.Trust.Tolerance != 60 {
		t.Errorf("half-life %v, tolerance %v", p.HalfLife, p.Trust.Tolerance)
	}
}

func TestWhatOnlyLooksLikeAHostNameIsListed(t *testing.T) {
	im := read(t, fail2ban.Options{DB: database(t), Jail: files(t, map[string]string{
		"jail.local": "[asterisk]\nenabled = 1\nignoreip = 192.0.2.x 192.0.2.1-9 10.x.x.x 192.0.2.* 3cx.example.net " +
			"100.example.net\n"})})
	c, _ := parsed(t, im)
	if got := len(c.Policy.Allow); got != 2 {
		t.Errorf("%d entries: %v", got, c.Policy.Allow)
	}
	for _, word := range []string{"192.0.2.x", "192.0.2.1-9", "10.x.x.x", "192.0.2.*"} {
		if notImported(im, `ignoreip "`+word+`"`) == "" {
			t.Errorf("%s is lost without a word: %v", word, im.NotImported)
		}
	}
}

// TestBansOfWebPagesStay has a database without jail files too, where only the names of the jails are known.
func TestBansOfWebPagesStay(t *testing.T) {
	db := database(t,
		entry{"asterisk", "203.0.113.5", 0, time.Hour}, entry{"issabel-gui", "203.0.113.6", 0, time.Hour},
		entry{"freepbx", "203.0.113.7", 0, time.Hour}, entry{"asterisk-ami", "203.0.113.8", 0, time.Hour})
	jails := files(t, map[string]string{"jail.local": "[DEFAULT]\nenabled = 1\n[asterisk]\n[asterisk-ami]\n" +
		"[issabel-gui]\n[freepbx]\nport = http\n"})
	im := read(t, fail2ban.Options{Jail: jails, DB: db})
	if got := show(im.Bans); got != "203.0.113.5/32 asterisk 1h0m0s\n203.0.113.8/32 asterisk-ami 1h0m0s\n" {
		t.Errorf("got\n%s", got)
	}
	if notImported(im, `1 ban: jail "issabel-gui" is not about telephony`) == "" ||
		notImported(im, `1 ban: jail "freepbx"`) == "" {
		t.Errorf("bans are lost without a word: %v", im.NotImported)
	}
}
