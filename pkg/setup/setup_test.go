package setup_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ringwall/ringwall/pkg/asterisk/managerconf"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/setup"
)

// Who owns what in the trees: Asterisk's user, and the group of Ringwall's.
const (
	asteriskUser, asteriskGroup = 110, 111
	ringwallGroup               = 120
)

// general is what most have before their users.
const general = "[general]\nenabled = yes\nport = 5038\nbindaddr = 127.0.0.1\n"

// layouts are Asterisk's files as each flavour lays them out.
var layouts = map[setup.Flavour]map[string]string{
	// asterisk 1:22.5.2~dfsg: a folder of their own for users.
	setup.Debian: {
		"/var/lib/dpkg/info/asterisk.list":    "/.\n",
		"/etc/asterisk/manager.conf":          ";\n" + general + "\n; No access is allowed by default.\n#include \"manager.d/*.conf\" \n",
		"/etc/asterisk/manager.d/README.conf": "; Files that are included in manager.conf\n",
		"/etc/asterisk/pjsip.conf":            "; phones\n",
	},
	// framework 17: install/SangomaSpecific, amp_conf/astetc/manager.conf.
	setup.FreePBX: {
		"/var/lib/dpkg/info/asterisk.list": "/.\n",
		"/etc/freepbx.conf":                "<?php\n$amp_conf['AMPDBUSER'] = 'freepbxuser';\n",
		"/etc/asterisk/manager.conf": ";--\n  do not edit\n--;\n[general]\nenabled = yes\nport = 5038\nbindaddr = 127.0.0.1\n" +
			"displayconnects=no ;only effects 1.6+\n\n[admin]\nsecret = wTg1\ndeny=0.0.0.0/0.0.0.0\n" +
			"permit=127.0.0.1/255.255.255.0\nread = system,call\nwritetimeout = 5000\n\n" +
			"#include manager_additional.conf\n#include manager_custom.conf\n",
		"/etc/asterisk/manager_additional.conf": ";*** Written by FreePBX\n",
		"/etc/asterisk/manager_custom.conf":     "[panel]\nsecret = of-the-panel\nread = call", // no line end
	},
	// issabelPBX: the same files, another mark, and an interface for all networks.
	setup.Issabel: {
		"/etc/issabel.conf":  "mysqlrootpwd=x\n",
		"/etc/amportal.conf": "AMPMGRUSER=admin\n",
		"/etc/asterisk/manager.conf": "[general]\nenabled = yes\nbindaddr = 0.0.0.0\nport = 5038\n" +
			"#include manager_general_additional.conf\n\n[admin]\nsecret = x\nwritetimeout = 5000\n\n" +
			"#include manager_additional.conf\n#include manager_custom.conf\n",
		"/etc/asterisk/manager_additional.conf":         "",
		"/etc/asterisk/manager_general_additional.conf": "",
		"/etc/asterisk/manager_custom.conf":             "",
	},
	// wazo-asterisk-config: manager.conf is one line, and the general section is in a file with a number.
	setup.Wazo: {
		"/etc/wazo-confd/config.yml":              "{}\n",
		"/var/lib/dpkg/info/asterisk.list":        "/.\n",
		"/etc/asterisk/manager.conf":              "#include manager.d/*.conf\n",
		"/etc/asterisk/manager.d/01-xivo.conf":    "[wazo_agentd]\nsecret = die0\nwrite = agent,system,user\n",
		"/etc/asterisk/manager.d/99-general.conf": "[general]\nenabled = yes\nwebenabled = yes\nport = 5038\nbindaddr = 127.0.0.1\n",
	},
	// make samples: one file, the interface off, at all addresses.
	setup.Source: {
		"/usr/local/etc/asterisk/manager.conf": "[general]\nenabled = no\n;webenabled = yes\n\nport = 5038\nbindaddr = 0.0.0.0\n\n" +
			";[mark]\n;secret = mysecret\n#include \"other.conf\"\n[me]\nsecret = mine\n",
	},
}

// machine is a tree with a flavour's files, and Ringwall's user.
func machine(t *testing.T, files map[string]string) setup.Options {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for files of Asterisk's user")
	}
	root := t.TempDir()
	write(t, root, "/etc/group", fmt.Sprintf("root:x:0:\nringwall:x:%d:\n", ringwallGroup))
	for name, text := range files {
		write(t, root, name, text)
		if strings.Contains(name, "/asterisk/") {
			if err := os.Chown(filepath.Join(root, name), asteriskUser, asteriskGroup); err != nil {
				t.Fatal(err)
			}
		}
	}
	return setup.Options{Root: root, Config: "/etc/ringwall/ringwall.yaml", Group: "ringwall", Env: config.OS()}
}

func write(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, root, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// picture is each file of a tree: its owner, its mode and its bytes.
func picture(t *testing.T, root string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		text := fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid)
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += " " + string(b)
		}
		all[strings.TrimPrefix(path, root)] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func compare(t *testing.T, was, is map[string]string) {
	t.Helper()
	names := slices.Collect(maps.Keys(was))
	names = append(names, slices.Collect(maps.Keys(is))...)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if was[name] != is[name] {
			t.Errorf("%s was\n%q\nand is\n%q", name, was[name], is[name])
		}
	}
}

func prepare(t *testing.T, o setup.Options) *setup.Plan {
	t.Helper()
	p, err := setup.Prepare(o)
	if err != nil {
		t.Fatalf("%v, try %q", err, hint.Of(err))
	}
	return p
}

func apply(t *testing.T, o setup.Options) *setup.Plan {
	t.Helper()
	p := prepare(t, o)
	if err := p.Apply(); err != nil {
		t.Fatal(err)
	}
	return p
}

func undo(t *testing.T, o setup.Options) *setup.Undo {
	t.Helper()
	u, err := setup.PrepareUndo(o)
	if err != nil {
		t.Fatal(err)
	}
	planned := slices.Clone(u.Things)
	if err := u.Apply(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(planned, u.Things) {
		t.Errorf("it said\n%+v\nand did\n%+v", planned, u.Things)
	}
	return u
}

// loginAt reads the tree as Asterisk and Ringwall would: the user that Asterisk has, and the one that Ringwall is.
func loginAt(t *testing.T, o setup.Options, managerConf string) (managerconf.Section, managerconf.Section, *config.Config) {
	t.Helper()
	c, err := managerconf.Read(o.Root, managerConf)
	if err != nil {
		t.Fatal(err)
	}
	env := config.OS()
	open := func(name string) (fs.File, error) { return os.Open(filepath.Join(o.Root, name)) }
	env.Open, env.OpenConfig = open, open
	cfg, warnings, err := config.Load(o.Config, env)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v %v", err, warnings)
	}
	user, ok := c.Section(cfg.Asterisk[0].Username)
	if !ok {
		t.Fatal("Asterisk has no such user")
	}
	general, _ := c.Section(managerconf.General)
	return user, general, cfg
}

func TestEachFlavourLetsRingwallInAndUndoLeavesEachByte(t *testing.T) {
	files := map[setup.Flavour]struct{ user, included string }{
		setup.Debian:  {"/etc/asterisk/manager.d/ringwall.conf", ""},
		setup.Wazo:    {"/etc/asterisk/manager.d/ringwall.conf", ""},
		setup.FreePBX: {"/etc/asterisk/ringwall_manager.conf", "/etc/asterisk/manager_custom.conf"},
		setup.Issabel: {"/etc/asterisk/ringwall_manager.conf", "/etc/asterisk/manager_custom.conf"},
		setup.Source:  {"/usr/local/etc/asterisk/ringwall_manager.conf", "/usr/local/etc/asterisk/manager.conf"},
	}
	for flavour, layout := range layouts {
		t.Run(string(flavour), func(t *testing.T) {
			o := machine(t, layout)
			before := picture(t, o.Root)
			p := prepare(t, o)
			compare(t, before, picture(t, o.Root)) // a plan writes nothing
			if p.Flavour != flavour || len(p.Notes) > 0 {
				t.Errorf("%s, with notes %q", p.Flavour, p.Notes)
			}
			for _, c := range p.Changes {
				if strings.Contains(c.Lines, "secret = ") && !strings.Contains(c.Lines, "secret = (the secret)") {
					t.Errorf("the plan shows the secret: %s", c.Lines)
				}
			}
			if err := p.Apply(); err != nil {
				t.Fatal(err)
			}

			user, general, cfg := loginAt(t, o, p.ManagerConf)
			if len(cfg.Asterisk[0].Secret.Reveal()) != 48 || user.Value("secret") != cfg.Asterisk[0].Secret.Reveal() {
				t.Errorf("Asterisk wants %q, and Ringwall says %q", user.Value("secret"), cfg.Asterisk[0].Secret.Reveal())
			}
			if user.Value("read") != "security" || user.Value("write") != "" || user.Value("permit") == "" ||
				user.Value("deny") != "0.0.0.0/0.0.0.0" || user.Value("writetimeout") != "5000" {
				t.Errorf("the user is %+v", user)
			}
			if cfg.Policy.Mode != config.Observe || cfg.Asterisk[0].Address != "127.0.0.1:5038" {
				t.Errorf("%s, mode %s", cfg.Asterisk[0].Address, cfg.Policy.Mode)
			}
			if general.Value("enabled") != "yes" || flavour == setup.Source && general.Value("bindaddr") != "127.0.0.1" {
				t.Errorf("the interface: %+v", general)
			}
			want := files[flavour]
			after := picture(t, o.Root)
			for name, start := range map[string]string{
				want.user:                     fmt.Sprintf("-rw-r----- %d:%d ", asteriskUser, asteriskGroup),
				"/etc/ringwall":               fmt.Sprintf("drwxr-x--- 0:%d", ringwallGroup),
				"/etc/ringwall/ringwall.yaml": fmt.Sprintf("-rw-r----- 0:%d ", ringwallGroup),
				"/etc/ringwall/ami-secret":    fmt.Sprintf("-rw-r----- 0:%d ", ringwallGroup),
				"/etc/ringwall/setup.json":    "-rw------- 0:0 ",
			} {
				if !strings.HasPrefix(after[name], start) {
					t.Errorf("%s: %q, want %q", name, after[name], start)
				}
				delete(after, name)
			}
			if strings.Contains(read(t, o.Root, "/etc/ringwall/setup.json"), user.Value("secret")) {
				t.Error("the journal has the secret")
			}
			if want.included != "" {
				if !strings.HasPrefix(after[want.included], before[want.included]) {
					t.Errorf("%s is not as it was, and more: %q", want.included, after[want.included])
				}
				delete(after, want.included)
				delete(before, want.included)
			}
			compare(t, before, after) // nothing else was touched
			if again := prepare(t, o); len(again.Changes) > 0 {
				t.Errorf("said again it would write %+v", again.Changes)
			}

			if u := undo(t, o); slices.ContainsFunc(u.Things, func(d setup.Undone) bool { return !d.Removed }) {
				t.Errorf("left: %+v", u.Things)
			}
			if want.included != "" {
				before = picture(t, machine(t, layout).Root)
			}
			compare(t, before, picture(t, o.Root))
		})
	}
}

func TestWhatIsThereAlreadyStays(t *testing.T) {
	const yaml = "asterisk: [{address: '127.0.0.1:5038', username: ringwall, secret_file: /etc/ringwall/ami-secret}]\n"
	with := func(more ...string) map[string]string {
		files := maps.Clone(layouts[setup.Debian])
		for i := 0; i < len(more); i += 2 {
			files[more[i]] = more[i+1]
		}
		return files
	}
	const manual = "/etc/asterisk/manager.d/ringwall.conf"
	for name, row := range map[string]struct {
		files   map[string]string
		changes []string // paths
		err     string
	}{
		"the package's configuration": {with("/etc/ringwall/ringwall.yaml", yaml, "/etc/ringwall/ami-secret", "abc\n"),
			[]string{manual}, ""},
		"all of it, by hand": {with("/etc/ringwall/ringwall.yaml", yaml, "/etc/ringwall/ami-secret", "abc\n",
			manual, "[ringwall]\nsecret = abc\n"), nil, ""},
		"a user, by hand, and no configuration": {with("/etc/asterisk/manager.d/mine.conf", "[ringwall]\nsecret = of-hand\n"),
			[]string{"/etc/ringwall", "/etc/ringwall/ami-secret", "/etc/ringwall/ringwall.yaml"}, ""},
		"another secret": {with("/etc/ringwall/ringwall.yaml", yaml, "/etc/ringwall/ami-secret", "abc\n",
			manual, "[ringwall]\nsecret = xyz\n"), nil, "another secret"},
		"a file of that name": {with(manual, "[somebody]\nsecret = xyz\n"), nil, "was not written by setup"},
		"an Asterisk elsewhere": {with("/etc/ringwall/ringwall.yaml",
			"asterisk: [{address: '192.0.2.77:5038', username: ringwall, secret: x}]\n"), nil, "no Asterisk of this machine"},
		"a mistake in the configuration": {with("/etc/ringwall/ringwall.yaml", "asterix: []\n"), nil, "asterix"},
	} {
		t.Run(name, func(t *testing.T) {
			o := machine(t, row.files)
			before := picture(t, o.Root)
			p, err := setup.Prepare(o)
			if row.err != "" {
				if err == nil || !strings.Contains(err.Error(), row.err) {
					t.Fatalf("%v, want %s", err, row.err)
				}
				compare(t, before, picture(t, o.Root))
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var paths []string
			for _, c := range p.Changes {
				paths = append(paths, c.Path)
			}
			if !slices.Equal(paths, row.changes) {
				t.Errorf("it writes %q, want %q", paths, row.changes)
			}
			if err := p.Apply(); err != nil {
				t.Fatal(err)
			}
			if user, _, cfg := loginAt(t, o, p.ManagerConf); user.Value("secret") != cfg.Asterisk[0].Secret.Reveal() {
				t.Errorf("Asterisk wants %q, and Ringwall says %q", user.Value("secret"), cfg.Asterisk[0].Secret.Reveal())
			}
			undo(t, o)
			compare(t, before, picture(t, o.Root))
		})
	}
}

func TestOnWazoOnlyItsOwnNamesEarnTrust(t *testing.T) {
	const packaged = "# A remark.\nasterisk:\n  - address: 127.0.0.1:5038\n    username: ringwall\n    secret_file: /etc/ringwall/ami-secret\n" +
		"\npolicy:\n  # another\n  mode: observe\n"
	for name, row := range map[string]struct {
		yaml  string
		match string
		note  bool
	}{
		"as packaged":      {packaged, "^[a-z0-9]{8}$", false},
		"said already":     {packaged + "  trust: {match: '^x$'}\n", "^x$", false},
		"other trust":      {packaged + "  trust: {ttl: 1h}\n", "", true},
		"no policy":        {packaged[:strings.Index(packaged, "\npolicy")], "", true},
		"policy in a line": {packaged[:strings.Index(packaged, "\npolicy")] + "policy: {mode: observe}\n", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			files := maps.Clone(layouts[setup.Wazo])
			files["/etc/ringwall/ringwall.yaml"], files["/etc/ringwall/ami-secret"] = row.yaml, "abc\n"
			o := machine(t, files)
			before := picture(t, o.Root)
			p := apply(t, o)
			if note := strings.Contains(strings.Join(p.Notes, ""), "trust: {match"); note != row.note {
				t.Errorf("notes %q", p.Notes)
			}
			_, _, cfg := loginAt(t, o, p.ManagerConf)
			have := ""
			if cfg.Policy.Trust.Match != nil {
				have = cfg.Policy.Trust.Match.String()
			}
			if have != row.match {
				t.Errorf("match is %q, want %q", have, row.match)
			}
			if again := prepare(t, o); len(again.Changes) > 0 {
				t.Errorf("said again it would write %+v", again.Changes)
			}
			undo(t, o)
			compare(t, before, picture(t, o.Root))
		})
	}
}

func TestAnUndoKeepsWhatWasChangedSince(t *testing.T) {
	const custom, user = "/etc/asterisk/manager_custom.conf", "/etc/asterisk/ringwall_manager.conf"
	const yaml = "/etc/ringwall/ringwall.yaml"
	type world struct {
		root, before string
	}
	for name, row := range map[string]struct {
		change func(t *testing.T, w world)
		kept   []string
		left   func(w world) map[string]string // what is in files then
	}{
		"enforced": {func(t *testing.T, w world) {
			write(t, w.root, yaml, strings.ReplaceAll(read(t, w.root, yaml), "observe\n", "enforce\n"))
		}, []string{"/etc/ringwall", yaml}, func(w world) map[string]string { return map[string]string{custom: w.before} }},
		"a wider user, whose include stays with him": {func(t *testing.T, w world) {
			write(t, w.root, user, strings.ReplaceAll(read(t, w.root, user), "write =", "write = reporting"))
		}, []string{custom, user}, nil},
		"lines of somebody behind those of setup": {func(t *testing.T, w world) {
			write(t, w.root, custom, read(t, w.root, custom)+"[later]\nsecret=x\n")
		}, nil, func(w world) map[string]string {
			return map[string]string{custom: w.before + "\n[later]\nsecret=x\n"} // the line end is theirs, too
		}},
		"lines before them": {func(t *testing.T, w world) {
			write(t, w.root, custom, "[first]\nsecret=x\n"+read(t, w.root, custom))
		}, nil, func(w world) map[string]string { return map[string]string{custom: "[first]\nsecret=x\n" + w.before} }},
		"other lines between its marks": {func(t *testing.T, w world) {
			write(t, w.root, custom, strings.ReplaceAll(read(t, w.root, custom), "#tryinclude", ";tryinclude"))
		}, []string{custom}, nil},
		"a removed file": {func(t *testing.T, w world) {
			if err := os.Remove(filepath.Join(w.root, user)); err != nil {
				t.Fatal(err)
			}
		}, []string{user}, func(w world) map[string]string { return map[string]string{custom: w.before} }},
		"another file beside": {func(t *testing.T, w world) { write(t, w.root, "/etc/ringwall/mine", "x") },
			[]string{"/etc/ringwall"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			o := machine(t, layouts[setup.FreePBX])
			w := world{o.Root, read(t, o.Root, custom)}
			apply(t, o)
			row.change(t, w)
			var kept []string
			for _, d := range undo(t, o).Things {
				if !d.Removed {
					kept = append(kept, d.Path)
					if d.Why == "" {
						t.Errorf("%s stays, and nobody is told why", d.Path)
					}
				}
			}
			slices.Sort(kept)
			if !slices.Equal(kept, row.kept) {
				t.Errorf("kept are %q, want %q", kept, row.kept)
			}
			if row.left != nil {
				for name, want := range row.left(w) {
					if have := read(t, o.Root, name); have != want {
						t.Errorf("%s is\n%q\nwant\n%q", name, have, want)
					}
				}
			}
			if u := undo(t, o); len(u.Things) > 0 {
				t.Errorf("a second undo finds %+v", u.Things)
			}
		})
	}
}

func TestARunThatWasInterruptedIsFinishedOrUndone(t *testing.T) {
	for _, finish := range []bool{true, false} {
		o := machine(t, layouts[setup.FreePBX])
		before := picture(t, o.Root)
		p := prepare(t, o)
		// The last change fails: somebody has made its file a folder meanwhile.
		custom := filepath.Join(o.Root, "/etc/asterisk/manager_custom.conf")
		if err := os.Rename(custom, custom+".away"); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(custom, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := p.Apply(); err == nil || !strings.Contains(hint.Of(err), "--undo") {
			t.Fatalf("%v, try %q", err, hint.Of(err))
		}
		if err := os.Remove(custom); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(custom+".away", custom); err != nil {
			t.Fatal(err)
		}
		if finish {
			apply(t, o)
			if user, _, cfg := loginAt(t, o, p.ManagerConf); user.Value("secret") != cfg.Asterisk[0].Secret.Reveal() {
				t.Error("it was finished with another secret")
			}
		}
		undo(t, o)
		compare(t, before, picture(t, o.Root))
	}
}

func TestASecretThatIsNewReachesTheUserThatSetupWrote(t *testing.T) {
	o := machine(t, layouts[setup.Source])
	apply(t, o)
	// A purge, and a package that is installed again: it brings another secret, and nobody knows the journal.
	if err := os.RemoveAll(filepath.Join(o.Root, "/etc/ringwall")); err != nil {
		t.Fatal(err)
	}
	write(t, o.Root, "/etc/ringwall/ringwall.yaml",
		"asterisk: [{address: '127.0.0.1:5038', username: ringwall, secret_file: /etc/ringwall/ami-secret}]\n")
	write(t, o.Root, "/etc/ringwall/ami-secret", "another-one\n")
	p := apply(t, o)
	user, general, _ := loginAt(t, o, p.ManagerConf)
	if user.Value("secret") != "another-one" || general.Value("enabled") != "yes" {
		t.Errorf("Asterisk wants %q, enabled %q", user.Value("secret"), general.Value("enabled"))
	}
	undo(t, o)
	if _, err := os.Stat(filepath.Join(o.Root, user.File)); err == nil {
		t.Error("the file is not known as its own")
	}
}

func TestRootFollowsNoLinkOfAsterisksUser(t *testing.T) {
	for name, link := range map[string]string{
		"to append to":        "/etc/asterisk/manager_custom.conf",
		"in place of its own": "/etc/asterisk/ringwall_manager.conf",
	} {
		t.Run(name, func(t *testing.T) {
			o := machine(t, layouts[setup.FreePBX])
			write(t, o.Root, "/etc/shadow", "root:*\n")
			_ = os.Remove(filepath.Join(o.Root, link))
			if err := os.Symlink("../shadow", filepath.Join(o.Root, link)); err != nil {
				t.Fatal(err)
			}
			p, err := setup.Prepare(o)
			if err == nil {
				err = p.Apply()
			}
			if err == nil {
				t.Error("it went through")
			}
			if have := read(t, o.Root, "/etc/shadow"); have != "root:*\n" {
				t.Errorf("/etc/shadow is %q", have)
			}
		})
	}
}

func TestWithoutAsteriskItSaysWhereItLooked(t *testing.T) {
	o := machine(t, nil)
	if _, err := setup.Prepare(o); err == nil || !strings.Contains(err.Error(), "/etc/asterisk") || hint.Of(err) == "" {
		t.Errorf("%v", err)
	}
	o.Asterisk = "/srv/pbx"
	if _, err := setup.Prepare(o); err == nil || !strings.Contains(err.Error(), "/srv/pbx") {
		t.Errorf("%v", err)
	}
	write(t, o.Root, "/srv/pbx/manager.conf", general)
	if p := prepare(t, o); p.ManagerConf != "/srv/pbx/manager.conf" {
		t.Errorf("%s", p.ManagerConf)
	}
}

func TestTheAddressIsWhereAsteriskListens(t *testing.T) {
	for text, want := range map[string]string{
		"[general]\nenabled=yes\n":                                "127.0.0.1:5038",
		"[general]\nenabled=yes\nport=5039\nbindaddr=0.0.0.0\n":   "127.0.0.1:5039",
		"[general]\nenabled=yes\nbindaddr=::1\n":                  "[::1]:5038",
		"[general]\nenabled=yes\nbindaddr=192.0.2.10\n":           "192.0.2.10:5038",
		"[general]\nenabled=no\nport=5039\nbindaddr=192.0.2.10\n": "127.0.0.1:5039",
	} {
		o := machine(t, map[string]string{"/etc/asterisk/manager.conf": text})
		p := apply(t, o)
		if p.Address != want {
			t.Errorf("%q: %s, want %s", text, p.Address, want)
		}
		user, _, cfg := loginAt(t, o, p.ManagerConf)
		host := strings.Trim(strings.TrimSuffix(strings.TrimSuffix(want, ":5038"), ":5039"), "[]")
		if cfg.Asterisk[0].Address != want || !strings.HasPrefix(user.Value("permit"), host+"/") {
			t.Errorf("%q: %s, permit %s", text, cfg.Asterisk[0].Address, user.Value("permit"))
		}
	}
}
