package fail2ban

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
)

// Where Debian, Red Hat and fail2ban itself keep things.
const (
	DefaultDir      = "/etc/fail2ban"
	DefaultDatabase = "/var/lib/fail2ban/fail2ban.sqlite3"
)

// Options say what to read.
type Options struct {
	Jail string // a folder such as /etc/fail2ban, or a jail file in it; "" is DefaultDir, if it is there
	// a database; "" is the running fail2ban, else dbfile of fail2ban.conf or DefaultDatabase, if it is there
	DB   string
	Also []string  // jails whose bans are taken although they are not about telephony
	Now  time.Time // bans that have ended by then are left out
}

// Ban is a ban in force.
type Ban struct {
	Prefix  netip.Prefix
	Jail    string // its bytes are fail2ban's
	Left    time.Duration
	Forever bool // then Left is 0
}

// NotImported is something that could not be carried over.
type NotImported struct {
	What string
	Why  string // and what to do about it
}

// Import is what was found. All its sentences are fit for a terminal.
type Import struct {
	Dir      string   // of the jail files; "" where there are none
	Files    []string // that were read, in order
	Server   string   // the socket of the running fail2ban; "" where it was not asked for its bans
	Database string   // "" where there is none, or the running fail2ban was asked
	Found    []string // a sentence for each place that was looked at
	Jails    []Jail   // that are enabled, in the order of the files
	Bans     []Ban    // ordered by address, each once
	Allow    []Allow
	Policy   Suggestion
	BansLost error // why the bans are missing, although there is a database; nil where they are not

	NotImported []NotImported
}

// Read reads fail2ban's files, and asks it for its bans where it runs, else reads its database. What Options name and
// is not there is an error for errors.Is with fs.ErrNotExist, and so is it when neither is there. A database that
// cannot be read costs only its bans (Import.BansLost), unless there is nothing else.
func Read(ctx context.Context, o Options) (*Import, error) {
	im := &Import{}
	c, err := im.readJails(o)
	if err != nil {
		return nil, err
	}
	s := serverSettings{socket: DefaultSocket, database: DefaultDatabase, purge: 24 * time.Hour}
	if c != nil {
		im.importJails(c)
		im.readServerSettings(c.dir, &s)
	}
	im.importAllowList()
	im.Policy = im.suggestPolicy(s.purge)
	if o.DB != "" || !im.askServer(ctx, o, s) {
		if err := im.readDatabaseBans(ctx, o, cmp.Or(o.DB, s.database)); err != nil {
			return nil, err
		}
	}
	if im.Dir == "" && im.Database == "" && im.Server == "" {
		return nil, fmt.Errorf("there is no fail2ban here (%s): %w", strings.Join(im.Found, "; "), fs.ErrNotExist)
	}
	return im, nil
}

func (im *Import) addNotImported(what, why string) {
	const most = 200
	l := NotImported{what, why}
	if len(im.NotImported) < most && !slices.Contains(im.NotImported, l) {
		im.NotImported = append(im.NotImported, l)
	}
}

// readJails finds the folder and the name of the jail files. It returns nil where there are none and none are asked
// for.
func (im *Import) readJails(o Options) (*jailConfig, error) {
	path, named := o.Jail, o.Jail != ""
	if !named {
		path = DefaultDir
	}
	info, err := os.Stat(path)
	var c *jailConfig
	switch {
	case err != nil:
	case info.IsDir():
		c, err = readConfig(path, "jail")
	default:
		c, err = readJailFile(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		im.Found = append(im.Found, "no jail files in "+quotePath(path))
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("the jail files cannot be read: %w", err)
	}
	im.Dir, im.Files = c.dir, c.files
	im.Found = append(im.Found, fmt.Sprintf("jail files: %d from %s", len(c.files), quotePath(c.dir)))
	return c, nil
}

// readJailFile reads the set that a file belongs to, for one file of it alone says little: jail.local stands on
// jail.conf, and jail.d/sip.conf on both.
func readJailFile(path string) (*jailConfig, error) {
	path = filepath.Clean(path)
	dir, name := filepath.Dir(path), strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	if set, ok := strings.CutSuffix(filepath.Base(dir), ".d"); ok {
		if c, err := readConfig(filepath.Dir(dir), set); err == nil && slices.Contains(c.files, path) {
			return c, nil
		}
	}
	if c, err := readConfig(dir, name); err != nil && !errors.Is(err, fs.ErrNotExist) || err == nil &&
		slices.Contains(c.files, path) {
		return c, err
	}
	return readFiles(dir, []string{path})
}

func (im *Import) importJails(c *jailConfig) {
	for _, name := range c.sectionOrder {
		j := c.readJail(name, func(trouble string) {
			im.addNotImported("jail "+printable.Quote(name), trouble)
		})
		if j.Enabled {
			im.Jails = append(im.Jails, j)
		}
	}
	for _, note := range c.notes {
		im.addNotImported("the jail files", note)
	}
}

// serverSettings are what fail2ban.conf says.
type serverSettings struct {
	socket, database string
	purge            time.Duration // dbpurgeage
}

// readServerSettings reads fail2ban.conf beside the jail files. What it does not say stays as it is.
func (im *Import) readServerSettings(dir string, to *serverSettings) {
	c, err := readConfig(dir, "fail2ban")
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			im.addNotImported("fail2ban.conf", reasonOf(err))
		}
		return
	}
	say := func(trouble string) { im.addNotImported("fail2ban.conf", trouble) }
	name := "Definition"
	if _, ok := c.sections[name]; !ok {
		name = defaultsSection
	}
	s := optionReader{c, name, say}
	if d := s.readDuration("dbpurgeage"); d > 0 {
		to.purge = d
	}
	to.database = cmp.Or(s.readText("dbfile"), to.database)
	to.socket = cmp.Or(s.readText("socket"), to.socket)
}

// importAllowList takes ignoreip of the jails about telephony.
func (im *Import) importAllowList() {
	seen := map[string]bool{}
	for _, j := range im.Jails {
		if !j.VoIP {
			if slices.Contains(j.Own, "ignoreip") {
				im.addNotImported("ignoreip of jail "+printable.Quote(j.Name), "the jail is not about telephony")
			}
			continue
		}
		for _, word := range j.Ignore {
			if seen[word] {
				continue
			}
			seen[word] = true
			a, trouble := parseAllowEntry(word)
			if trouble != "" {
				im.addNotImported("ignoreip "+printable.Quote(word), trouble)
				continue
			}
			if a.From = j.Name; !seen[a.String()] || word == a.String() {
				seen[a.String()] = true
				im.Allow = append(im.Allow, a)
			}
		}
	}
}

func (im *Import) jailNamed(name string) *Jail {
	for i := range im.Jails {
		if im.Jails[i].Name == name {
			return &im.Jails[i]
		}
	}
	return nil
}

// isRecidive says whether a jail bans those whom other jails have banned.
func isRecidive(jail string) bool { return strings.Contains(jail, "recidive") }

func (im *Import) isVoIP(name string) bool {
	if j := im.jailNamed(name); j != nil {
		return j.VoIP
	}
	yes, _ := aboutTelephony(name, "", nil, nil)
	return yes
}

// askServer takes the bans from the running fail2ban, which knows them best. It says whether it could.
func (im *Import) askServer(ctx context.Context, o Options, s serverSettings) bool {
	server, err := connectServer(ctx, s.socket)
	var r *banRecords
	var jails []string
	if err == nil {
		r, jails, err = server.askBans(ctx, s.database, o.Now)
	}
	switch {
	case errors.Is(err, errNotRunning):
		return false
	case err != nil:
		im.Found = append(im.Found, "the running fail2ban does not tell its bans: "+printable.Limit(err.Error(), 300))
		return false
	}
	im.Server = s.socket
	im.Found = append(im.Found, fmt.Sprintf("bans: of the fail2ban that runs here, %s",
		humanize.Plural(len(jails), "jail", "jails")))
	if slices.ContainsFunc(r.rows, func(r banRow) bool { return isRecidive(r.jail) }) {
		im.readPastBans(ctx, o, s.database, r)
	}
	im.importBans(r, o)
	return true
}

// readPastBans looks up which jails have banned before whom a jail like recidive bans. The running fail2ban knows the
// current bans alone.
func (im *Import) readPastBans(ctx context.Context, o Options, database string, r *banRecords) {
	if isFile(database) {
		switch old, err := readDatabase(ctx, database, o.Now); {
		case err == nil:
			r.past = old.past
		default:
			im.addNotImported("past bans", "the database cannot tell them: "+printable.Limit(err.Error(), 300))
		}
	}
	for _, row := range r.rows {
		r.past[row.ip] = append(r.past[row.ip], row.jail)
	}
}

// isFile says whether fail2ban keeps its bans in a file.
func isFile(database string) bool {
	return database != ":memory:" && !strings.EqualFold(database, "none")
}

func (im *Import) readDatabaseBans(ctx context.Context, o Options, path string) error {
	named := o.DB != ""
	if !named && !isFile(path) {
		im.Found = append(im.Found, "no database: fail2ban.conf says dbfile = "+quotePath(path))
		im.addNotImported("bans", "fail2ban keeps them in memory only: ringwall import fail2ban takes them while "+
			"fail2ban runs")
		return nil
	}
	r, err := readDatabase(ctx, path, o.Now)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		im.Found = append(im.Found, "no database at "+quotePath(path))
		return nil
	case err != nil:
		err = fmt.Errorf("database %s: %w", quotePath(path), err)
		if im.Dir == "" || errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil {
			return err
		}
		im.BansLost = err
		im.Found = append(im.Found, "database: "+quotePath(path)+", which cannot be read, so its bans are missing")
		im.addNotImported("all bans", printable.Limit(err.Error(), 500))
		return nil
	}
	im.Database = path
	im.Found = append(im.Found, fmt.Sprintf("database: %s, version %d", quotePath(path), r.version))
	if r.note != "" {
		im.Found = append(im.Found, r.note)
	}
	im.importBans(r, o)
	return nil
}

func (im *Import) importBans(records *banRecords, o Options) {
	if records.more {
		im.addNotImported("bans", fmt.Sprintf("there are more than %d: the rest is not read", maxRows))
	}
	best := map[netip.Prefix]Ban{}
	others, odd := map[string]int{}, map[string][]string{}
	for _, r := range records.rows {
		left, forever := im.remainingTime(r, o.Now)
		if left < time.Second && !forever {
			continue
		}
		if why := im.notImportedReason(records, r, o.Also); why != "" {
			others[why]++
			continue
		}
		p, ok := parsePrefix(r.ip)
		if why := im.notBannableReason(p, ok); why != "" {
			odd[why] = append(odd[why], r.ip)
			continue
		}
		b := Ban{Prefix: p, Jail: r.jail, Left: left, Forever: forever}
		if old, ok := best[p]; !ok || !old.Forever && (b.Forever || b.Left > old.Left) {
			best[p] = b
		}
	}
	for _, b := range best {
		im.Bans = append(im.Bans, b)
	}
	slices.SortFunc(im.Bans, func(a, b Ban) int { return a.Prefix.Compare(b.Prefix) })
	for _, why := range slices.Sorted(maps.Keys(others)) {
		im.addNotImported(humanize.Plural(others[why], "ban", "bans"), why)
	}
	for _, why := range slices.Sorted(maps.Keys(odd)) {
		im.addNotImported("banned "+quoteList(odd[why]), why)
	}
}

// remainingTime is how long a ban goes on. A ban that begins in the future, by a clock that was wrong, lasts its
// length.
func (im *Import) remainingTime(r banRow, now time.Time) (left time.Duration, forever bool) {
	const most = int64(longestDuration / time.Second)
	length := r.length
	if length == unknownLength {
		length = 600 // as fail2ban itself does, unless the jail is known
		if j := im.jailNamed(r.jail); j != nil && j.BanTime > 0 {
			length = int64(j.BanTime / time.Second)
		}
	}
	if length < 0 {
		return 0, true
	}
	length = min(length, most)
	age := min(max(now.Unix()-min(max(r.since, -most), 1<<40), 0), most)
	return time.Duration(max(length-age, 0)) * time.Second, false
}

// notImportedReason says why a ban is left to fail2ban, or "".
func (im *Import) notImportedReason(records *banRecords, r banRow, also []string) string {
	j := im.jailNamed(r.jail)
	switch {
	case slices.Contains(also, r.jail), slices.Contains(also, printable.String(r.jail)), im.isVoIP(r.jail) &&
		(j != nil || im.Dir == ""):
		return ""
	case j == nil && im.Dir != "" && im.isVoIP(r.jail):
		return "jail " + printable.Quote(r.jail) +
			" is off in the jail files, so its bans are no longer in force; take them with --also " +
			printable.Quote(r.jail)
	case isRecidive(r.jail) && slices.ContainsFunc(records.past[r.ip], im.isVoIP):
		return "" // it is in for what it did to a jail of telephony
	}
	return "jail " + printable.Quote(r.jail) +
		" is not about telephony: leave it to fail2ban, or take it with --also " +
		printable.Quote(r.jail)
}

// notBannableReason says why something banned cannot be banned here, or "".
func (im *Import) notBannableReason(p netip.Prefix, ok bool) string {
	switch {
	case !ok:
		return "is no address"
	case p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 16:
		return "is too large a part of the Internet to ban"
	case p.Addr().IsLoopback() || p.Addr().IsMulticast() || p.Addr().IsUnspecified():
		return "is never the address of an attacker"
	}
	for _, a := range im.Allow {
		if a.Host == "" && a.Prefix.Bits() <= p.Bits() && a.Prefix.Contains(p.Addr()) {
			return "is in ignoreip now, so it is not banned again"
		}
	}
	return ""
}
