package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/lists"
)

// List is one list of attackers.
type List struct {
	Name       string        `yaml:"name"` // that of a preset needs nothing else
	URL        Secret        `yaml:"url"`
	URLFile    string        `yaml:"url_file"`
	File       string        `yaml:"file"`
	Format     lists.Format  `yaml:"format"`
	KeyFile    string        `yaml:"key_file"`
	Key        Secret        `yaml:"-"` // of KeyFile
	Refresh    time.Duration `yaml:"refresh"`
	Mode       Mode          `yaml:"mode"`
	TTL        time.Duration `yaml:"ttl"`
	MaxEntries int           `yaml:"max_entries"`
	MaxPrefix  int           `yaml:"max_prefix"` // bits, of IPv4
}

// KeyPlace is where a list's URL takes the key.
const KeyPlace = "{key}"

// preset is a list that is known by its name.
type preset struct {
	url     string
	format  lists.Format
	refresh time.Duration
	least   time.Duration // how often its publisher lets it be asked for
	key     bool
}

// presets are the lists that are known by their names. How often each may be fetched is what its publisher says.
func presets() map[string]preset {
	return map[string]preset{
		"apiban": {"https://apiban.org/api/" + KeyPlace + "/banned",
			lists.APIBAN, 15 * time.Minute, 4 * time.Minute, true},
		"voipbl": {"https://voipbl.org/update/", lists.Plain, 4 * time.Hour, 4 * time.Hour, false},
		"spamhaus-drop": {"https://www.spamhaus.org/drop/drop_v4.json",
			lists.NDJSON, 12 * time.Hour, time.Hour, false},
		"spamhaus-drop-v6": {"https://www.spamhaus.org/drop/drop_v6.json",
			lists.NDJSON, 12 * time.Hour, time.Hour, false},
		"blocklist-de-sip": {"https://lists.blocklist.de/lists/sip.txt",
			lists.Plain, 30 * time.Minute, 30 * time.Minute, false},
	}
}

const (
	defaultRefresh = 4 * time.Hour
	maxLists       = 32
)

// From is where the list comes from, as the file says it, or the preset: no secret but where the URL is one.
func (l *List) From() string {
	return cmp.Or(l.URL.value, l.URLFile, l.File, presets()[l.Name].url)
}

// Address is the list's URL, "" for one of a file.
func (l *List) Address() string {
	if l.File != "" {
		return ""
	}
	return cmp.Or(l.URL.value, presets()[l.Name].url)
}

func (l *List) isPreset() bool { return l.URL.IsZero() && l.URLFile == "" && l.File == "" }

func listName() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`) }

// checkLists checks the lists, and completes what a preset says of them.
func (ps *parser) checkLists(all []List) {
	if len(all) > maxLists {
		ps.fail("lists", fmt.Sprintf("%d lists", len(all)), detail{allowed: fmt.Sprintf("up to %d", maxLists)})
		return
	}
	names := map[string]string{}
	for i := range all {
		l, at := &all[i], fmt.Sprintf("lists[%d]", i)
		if ps.failed[at] {
			continue
		}
		ps.checkListName(l, at, names)
		ps.checkListSource(l, at)
		if p, ok := presets()[l.Name]; ok && l.isPreset() {
			if l.Refresh == 0 {
				l.Refresh = p.refresh
			}
			if l.Format == lists.Auto {
				l.Format = p.format
			}
			if key := at + ".refresh"; l.Refresh < p.least && !ps.failed[key] {
				ps.fail(key, "more often than "+l.Name+" lets itself be fetched", detail{value: ps.shownValue(key),
					allowed: "from " + formatBound(p.least) + " on"})
			}
		} else if l.Refresh == 0 {
			l.Refresh = defaultRefresh
		}
		ps.checkListKey(l, at)
	}
}

// checkRefresh allows 0 for what the preset says.
func (ps *parser) checkRefresh(path string, d time.Duration) {
	if d != 0 && (d < time.Minute || d > week) {
		ps.fail(path, "out of range", detail{value: ps.shownValue(path), allowed: "1m to 7d, or 0"})
	}
}

func (ps *parser) checkListName(l *List, at string, names map[string]string) {
	key := at + ".name"
	if ps.failed[key] {
		return
	}
	if !listName().MatchString(l.Name) {
		ps.fail(key, "not usable as a name", detail{value: ps.shownValue(key),
			allowed: "a small letter, then small letters, digits, - and _, 32 in all"})
		return
	}
	if first, taken := names[l.Name]; taken {
		ps.fail(key, "the same as the name of "+first, detail{value: ps.shownValue(key), hint: "a name for each"})
	}
	names[l.Name] = at
}

// checkListSource checks where a list comes from.
func (ps *parser) checkListSource(l *List, at string) {
	l.URL = ps.resolveSendableSecret(at+".url", l.URL, at+".url_file", l.URLFile)
	given := 0
	for _, key := range []string{".url", ".url_file", ".file"} {
		if n := ps.valueNodes[at+key]; n != nil && n.Value != "" {
			given++
		}
	}
	switch {
	case given > 1 && !ps.failed[at+".url_file"]:
		ps.fail(at+".file", "url and file are both given", detail{hint: "an entry of its own for each"})
	case given == 0:
		if _, ok := presets()[l.Name]; !ok && !ps.failed[at+".name"] {
			var known []string
			for name := range presets() {
				known = append(known, name)
			}
			slices.Sort(known)
			ps.fail(at, "neither url nor file", detail{allowed: "url, url_file or file, or a name of " +
				strings.Join(known, ", ")})
		}
	case l.File != "":
		if ps.checkAbsolutePath(at+".file", l.File) && l.Format == lists.APIBAN {
			ps.fail(at+".format", "APIBAN is no file", detail{hint: "url, and key_file"})
		}
	}
	key := at + ".url"
	if l.URLFile != "" {
		key = at + ".url_file"
	}
	if text := l.URL.value; text != "" && text != hidden && !ps.failed[key] {
		ps.checkListURL(key, text)
	}
}

func (ps *parser) checkListURL(key, text string) {
	switch u, ok := parseWebAddress(text, KeyPlace); {
	case !ok:
		ps.fail(key, "not a web address", detail{allowed: "https://HOST/PATH", hint: "copy it whole, in double quotes"})
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		ps.fail(key, "anybody on the way could put your customers on the list", detail{
			allowed: "https://, or http:// to this machine"})
	}
}

// checkListKey finds the key.
func (ps *parser) checkListKey(l *List, at string) {
	key := at + ".key_file"
	if l.KeyFile == "" {
		if (presets()[l.Name].key && l.isPreset() || strings.Contains(l.URL.value, KeyPlace)) && !ps.failed[key] {
			ps.fail(key, "missing", detail{allowed: "the file with the key that " + l.Name + " gave you, its whole " +
				"path"})
		}
		return
	}
	if ps.checkAbsolutePath(key, l.KeyFile) && !ps.env.WithoutSecrets {
		l.Key = ps.secretFile(key, l.KeyFile, false)
	}
}
