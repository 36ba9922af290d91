package setup

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/pkg/asterisk/managerconf"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/printable"
)

// Options say where. Paths are absolute, and below Root.
type Options struct {
	Root     string             // the folder that holds etc; "/" but for another machine's tree
	Asterisk string             // the folder that holds manager.conf; empty: it is looked for
	Config   string             // Ringwall's configuration
	Group    string             // of the service, which must read the secret
	Env      config.Environment // of this process
}

func (o Options) tree() tree { return tree(o.Root) }

// What a change does. Only what setup itself wrote is replaced.
const actionCreate, actionAppend, actionInsert, actionReplace = "create", "append", "insert", "replace"

// A Change is one thing that will be written.
type Change struct {
	Action string `json:"action"`
	Path   string `json:"path"`
	Lines  string `json:"lines,omitempty"` // what, without secrets

	entry entry
	text  string
	whole string // the file, where text is inserted
	mode  fs.FileMode
	owner owner
}

// A Plan is what Apply would write. It is empty where all is there already.
type Plan struct {
	Flavour     Flavour  `json:"flavour"`
	ManagerConf string   `json:"manager_conf"`
	Address     string   `json:"address"` // of the Manager Interface
	User        string   `json:"user"`
	Changes     []Change `json:"changes"`
	Kept        []string `json:"kept"`  // what is there already and stays as it is
	Notes       []string `json:"notes"` // what somebody should look at

	options Options
	journal *journal
	manager *managerconf.Config
	group   int
	secret  string
}

// Prepare finds Asterisk and plans what lets Ringwall in. It writes nothing.
func Prepare(o Options) (*Plan, error) {
	p := &Plan{options: o, Changes: []Change{}, Kept: []string{}, Notes: []string{}}
	var err error
	if p.ManagerConf, err = findManagerConf(o.Root, o.Asterisk); err != nil {
		return nil, err
	}
	p.Flavour = flavourOf(o.Root)
	if p.manager, err = managerconf.Read(o.Root, p.ManagerConf); err != nil {
		return nil, unreadable(err)
	}
	if p.journal, err = o.tree().readJournal(journalPath(o.Config)); err != nil {
		return nil, unreadable(err)
	}
	if o.Group != "" {
		p.group, _ = o.tree().groupID(o.Group)
	}
	for _, step := range []func() error{p.planConfiguration, p.planManagerUser} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func unreadable(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return hint.Errorf("as root: sudo ringwall setup", "%w", err)
	}
	return err
}

// defaultPort is Asterisk's, where manager.conf names none.
const defaultPort = "5038"

// address is where the Manager Interface listens, as Ringwall on the same machine should reach it.
func (p *Plan) address() string {
	general, _ := p.manager.Section(managerconf.General)
	host, port := "127.0.0.1", defaultPort
	if v := general.Value("port"); v != "" {
		port = v
	}
	if !p.enabled() {
		return net.JoinHostPort(host, port) // what turns it on names this address
	}
	if a, err := netip.ParseAddr(general.Value("bindaddr")); err == nil && !a.IsUnspecified() {
		host = a.String()
	}
	return net.JoinHostPort(host, port)
}

// listensAt says whether the Manager Interface can be reached at an address of this machine.
func (p *Plan) listensAt(address string) bool {
	host, port, err := net.SplitHostPort(address)
	wantHost, wantPort, err2 := net.SplitHostPort(p.address())
	if err != nil || err2 != nil || port != wantPort {
		return false
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	general, _ := p.manager.Section(managerconf.General)
	bound, err := netip.ParseAddr(general.Value("bindaddr"))
	everywhere := p.enabled() && (err != nil || bound.IsUnspecified()) // Asterisk's default is [::]
	return host == wantHost || everywhere
}

// enabled says whether the Manager Interface is on, as Asterisk's ast_true reads it.
func (p *Plan) enabled() bool {
	general, _ := p.manager.Section(managerconf.General)
	return slices.Contains([]string{"yes", "true", "y", "t", "1", "on"}, strings.ToLower(general.Value("enabled")))
}

// planConfiguration finds out as whom Ringwall logs in, from its configuration; where there is none it plans one.
func (p *Plan) planConfiguration() error {
	t, file := p.options.tree(), p.options.Config
	if t.exists(file) {
		return p.readConfiguration()
	}
	secretFile := path.Join(path.Dir(file), "ami-secret")
	p.Address, p.User = p.address(), "ringwall"
	if folder := path.Dir(file); !t.exists(folder) {
		p.add(Change{Action: actionCreate, Path: folder, entry: entry{Kind: ofFolder}, mode: 0o750,
			owner: owner{0, p.group}})
	}
	switch b, err := t.read(secretFile); {
	case err == nil:
		p.secret = strings.TrimSpace(string(b))
		p.Kept = append(p.Kept, secretFile)
	case errors.Is(err, fs.ErrNotExist):
		if err := p.chooseSecret(); err != nil {
			return err
		}
		p.addFile(secretFile, p.secret+"\n", owner{0, p.group})
	default:
		return unreadable(err)
	}
	p.addFile(file, configuration(p.Flavour, p.Address, secretFile), owner{0, p.group})
	return nil
}

// readConfiguration takes user, address and secret from a configuration that is there. It stays as it is.
func (p *Plan) readConfiguration() error {
	o := p.options
	env := o.Env
	open := func(name string) (fs.File, error) { return os.Open(o.tree().real(name)) }
	env.Open, env.OpenConfig = open, open
	cfg, _, err := config.Load(o.Config, env)
	if err != nil {
		return unreadable(err)
	}
	var local *config.Asterisk
	for i, a := range cfg.Asterisk {
		if isLocal(a.Address) && (local == nil || a.Address == p.address()) {
			local = &cfg.Asterisk[i]
		}
	}
	if local == nil {
		return hint.Errorf("write the manager user at that Asterisk by hand: man ringwall.yaml",
			"%s names no Asterisk of this machine", o.Config)
	}
	p.Address, p.User, p.secret = local.Address, local.Username, local.Secret.Reveal()
	if want := p.address(); !p.listensAt(p.Address) {
		p.Notes = append(p.Notes, fmt.Sprintf("%s has Asterisk at %s, and by manager.conf it is at %s: change that "+
			"line", o.Config, p.Address, want))
	}
	if p.Flavour == Wazo && cfg.Policy.Trust.Match == nil {
		return p.planWazoTrust(env)
	}
	p.Kept = append(p.Kept, o.Config)
	return nil
}

// planWazoTrust plans the line by which only Wazo's own names earn trust, in a configuration that is there. Where that
// is laid out otherwise than the packages do it, its owner is told instead.
func (p *Plan) planWazoTrust(env config.Environment) error {
	file := p.options.Config
	b, err := p.options.tree().read(file)
	if err != nil {
		return unreadable(err)
	}
	block := trustBegin + "\n  trust: {match: \"" + wazoAccounts + "\"}\n" + trustEnd + "\n"
	before, after, ok := strings.Cut("\n"+string(b), "\npolicy:\n")
	whole := strings.TrimPrefix(before+"\npolicy:\n"+block+after, "\n")
	cfg, _, err := config.Parse(strings.NewReader(whole), file, env)
	if !ok || err != nil || cfg.Policy.Trust.Match == nil {
		p.Kept = append(p.Kept, file)
		p.Notes = append(p.Notes, "Wazo's phones have names that nobody guesses. Let only those earn trust; in "+file+
			", below policy: trust: {match: \""+wazoAccounts+"\"}")
		return nil
	}
	p.add(Change{Action: actionInsert, Path: file, text: block, whole: whole,
		entry: entry{Kind: ofBlock, SHA256: checksum(block)}})
	return nil
}

// isLocal says whether an address is this machine's.
func isLocal(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if a.IsLoopback() {
		return true
	}
	own, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(own, func(n net.Addr) bool {
		prefix, err := netip.ParsePrefix(n.String())
		return err == nil && prefix.Addr().Unmap() == a.Unmap()
	})
}

// chooseSecret takes the secret of a user that is there already, else a random one.
func (p *Plan) chooseSecret() error {
	if s, ok := p.manager.Section(p.User); ok && !s.Template {
		if p.secret = s.Value("secret"); p.secret != "" {
			return nil
		}
	}
	b := make([]byte, 24)
	if _, err := rand.Read(b); err != nil {
		return err
	}
	p.secret = hex.EncodeToString(b)
	return nil
}

// planManagerUser plans the user in Asterisk's files, unless he is there.
func (p *Plan) planManagerUser() error {
	if p.secret == "" {
		return hint.Errorf("asterisk.secret or asterisk.secret_file", "%s has no secret for %s", p.options.Config,
			printable.String(p.User))
	}
	if strings.ContainsAny(p.secret, "\n\r;\\") || strings.ContainsAny(p.User, "\n\r;[]()") {
		return hint.Errorf("another one, of letters and digits", "Asterisk's files cannot hold this user's name or "+
			"secret")
	}
	if s, ok := p.manager.Section(p.User); ok {
		return p.keepUser(s)
	}
	folder := path.Dir(p.ManagerConf)
	file := path.Join(folder, "manager.d/ringwall.conf")
	included := p.manager.Includes(file)
	if !included {
		file = path.Join(folder, "ringwall_manager.conf")
	}
	switch own, err := p.readOwn(file); {
	case err != nil:
		return unreadable(err)
	case own:
		p.Kept = append(p.Kept, file) // of a run that was interrupted
	default:
		if err := p.addUser(file); err != nil {
			return err
		}
	}
	if included {
		return nil
	}
	return p.planInclude(file)
}

// readOwn says whether a file is the user's as setup writes it. Another one in its place is an error.
func (p *Plan) readOwn(file string) (bool, error) {
	text, err := p.options.tree().read(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case slices.Contains(p.managerUserForms(p.secret), string(text)):
		return true, nil
	}
	return false, hint.Errorf("look at it, and move it away",
		"%s is there, was not written by setup, and gives Asterisk no user [%s]", file, printable.String(p.User))
}

// addUser plans the user's file, owned as manager.conf is.
func (p *Plan) addUser(file string) error {
	o, err := p.options.tree().ownerOf(p.ManagerConf)
	if err != nil {
		return unreadable(err)
	}
	if folder := path.Dir(file); !p.options.tree().exists(folder) {
		p.add(Change{Action: actionCreate, Path: folder, entry: entry{Kind: ofFolder}, mode: 0o755, owner: o})
	}
	p.addFile(file, p.managerUser(), o)
	return nil
}

// keepUser accepts a user whom Asterisk's files have already, if his secret is the one that Ringwall has.
func (p *Plan) keepUser(s managerconf.Section) error {
	switch secret := s.Value("secret"); {
	case secret == p.secret, secret == "" && s.OfTemplate:
	case p.isOwn(s):
		// A package that was purged and installed again has another secret. What was own stays so in all else.
		old, err := p.options.tree().read(s.File)
		if err != nil {
			return unreadable(err)
		}
		text := strings.ReplaceAll(string(old), secret, p.secret)
		p.add(Change{Action: actionReplace, Path: s.File, text: text,
			entry: entry{Kind: ofFile, SHA256: checksum(text)}})
		return nil
	default:
		return hint.Errorf("one of both, so that they are the same; or remove that section and say ringwall setup "+
			"again",
			"the user [%s] in %s has another secret than %s says", printable.String(p.User), s.File, p.options.Config)
	}
	p.Kept = append(p.Kept, s.File)
	if !p.enabled() {
		p.Notes = append(p.Notes, "the Manager Interface is off: [general] of "+p.ManagerConf+" needs enabled = yes")
	}
	return nil
}

// isOwn says whether the file of a user is to the letter as setup writes it, whatever became of the journal.
func (p *Plan) isOwn(s managerconf.Section) bool {
	text, err := p.options.tree().read(s.File)
	return err == nil && slices.Contains(p.managerUserForms(s.Value("secret")), string(text))
}

// planInclude plans the line by which Asterisk reads the file of the user.
func (p *Plan) planInclude(file string) error {
	target := p.ManagerConf
	if p.Flavour.generatesManagerConf() {
		target = path.Join(path.Dir(p.ManagerConf), "manager_custom.conf")
		if !p.manager.Includes(target) {
			return hint.Errorf("put that line back, or let "+string(p.Flavour)+" write its files anew",
				"%s does not have the line #include manager_custom.conf, as %s writes it", p.ManagerConf, p.Flavour)
		}
	}
	t := p.options.tree()
	text, err := t.read(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		o, err := t.ownerOf(p.ManagerConf)
		if err != nil {
			return unreadable(err)
		}
		p.addFile(target, block(file), o)
		return nil
	case err != nil:
		return unreadable(err)
	case strings.Contains(string(text), beginMark):
		return hint.Errorf("remove what is between these lines, and both of them", "%s has lines of an earlier "+
			"setup, of which nothing is known", target)
	}
	c := Change{Action: actionAppend, Path: target, text: block(file),
		entry: entry{Kind: ofBlock, LineEnd: len(text) > 0 && text[len(text)-1] != '\n'}}
	c.entry.SHA256 = checksum(c.text)
	p.add(c)
	return nil
}

func (p *Plan) addFile(path, text string, o owner) {
	p.add(Change{Action: actionCreate, Path: path, text: text, mode: 0o640, owner: o,
		entry: entry{Kind: ofFile, SHA256: checksum(text)}})
}

func (p *Plan) add(c Change) {
	c.entry.Path = c.Path
	c.Lines = c.text
	if p.secret != "" {
		c.Lines = strings.ReplaceAll(c.text, p.secret, "(the secret)")
	}
	p.Changes = append(p.Changes, c)
}

// Apply writes what is planned. What it wrote until an error stays, and the journal knows it.
func (p *Plan) Apply() error {
	t := p.options.tree()
	journal := journalPath(p.options.Config)
	for _, c := range p.Changes {
		if c.entry.Kind == ofFolder { // which the journal may be in
			if err := t.makeFolder(c.Path, c.mode, c.owner); err != nil {
				return unreadable(err)
			}
		}
		p.journal.note(c.entry)
		if err := t.writeJournal(journal, p.journal); err != nil {
			return unreadable(err)
		}
		var err error
		switch {
		case c.entry.Kind == ofFolder:
		case c.Action == actionReplace:
			err = t.replace(c.Path, c.text)
		case c.entry.Kind == ofFile:
			err = t.create(c.Path, c.text, c.mode, c.owner)
		case c.Action == actionInsert:
			err = t.replace(c.Path, c.whole)
		case c.entry.Kind == ofBlock:
			text := c.text
			if c.entry.LineEnd {
				text = "\n" + text
			}
			err = t.appendTo(c.Path, text)
		}
		if err != nil {
			return hint.Errorf("mend it, and say it again; or: ringwall setup --undo", "%w", err)
		}
	}
	return nil
}
