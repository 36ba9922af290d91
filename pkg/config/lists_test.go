package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/lists"
)

func TestMistakesOfLists(t *testing.T) {
	list := func(entry string) string { return base + "lists:\n  - " + entry + "\n" }
	demand(t, []mistake{
		{"a name of nobody's", list("{name: voipbil}"),
			`ringwall.yaml:6: lists[0]: neither url nor file; allowed: url, url_file or file, or a name of ` +
				`apiban, blocklist-de-sip, spamhaus-drop, spamhaus-drop-v6, voipbl`},
		{"a name that is no file's", list(`{name: "../x", file: /list}`),
			`ringwall.yaml:6: lists[0].name: not usable as a name: "../x"; allowed: a small letter, then small letters, digits, - and _, 32 in all`},
		{"a name twice", base + "lists:\n  - {name: voipbl}\n  - {name: voipbl}\n",
			`ringwall.yaml:7: lists[1].name: the same as the name of lists[0]: "voipbl"; try: a name for each`},
		{"http", list(`{name: x, url: "http://lists.example.com/x"}`),
			`ringwall.yaml:6: lists[0].url: anybody on the way could put your customers on the list; allowed: https://, or http:// to this machine`},
		{"no web address", list(`{name: x, url: "lists.example.com/x"}`),
			`ringwall.yaml:6: lists[0].url: not a web address; allowed: https://HOST/PATH; try: copy it whole, in double quotes`},
		{"url and file", list(`{name: x, url: "https://lists.example.com/x", file: /list}`),
			`ringwall.yaml:6: lists[0].file: url and file are both given; try: an entry of its own for each`},
		{"APIBAN without a key", list("{name: apiban}"),
			`ringwall.yaml:6: lists[0].key_file: missing; allowed: the file with the key that apiban gave you, its whole path`},
		{"a key that everybody can read", list("{name: apiban, key_file: /open}"),
			`ringwall.yaml:6: lists[0].key_file: everybody can read /open (mode 0644); try: chmod 0640 /open`},
		{"more often than its publisher lets it", list("{name: voipbl, refresh: 1h}"),
			`ringwall.yaml:6: lists[0].refresh: more often than voipbl lets itself be fetched: "1h"; allowed: from 4h on`},
		{"all the time", list("{name: x, file: /list, refresh: 1s}"),
			`ringwall.yaml:6: lists[0].refresh: out of range: "1s"; allowed: 1m to 7d, or 0`},
		{"networks as wide as they like", list("{name: x, file: /list, max_prefix: 0}"),
			`ringwall.yaml:6: lists[0].max_prefix: out of range: "0"; allowed: 8 to 32`},
	})
}

func TestListsOfTheFile(t *testing.T) {
	c, _, err := parse(base + "lists:\n  - {name: apiban, key_file: /closed}\n  - {name: own, url: \"https://example.com/{key}\", " +
		"key_file: /closed, mode: observe, max_entries: 5}\n  - {name: lapi, url: \"http://127.0.0.1:8080/v1/decisions/stream?startup=true\", " +
		"format: crowdsec, refresh: 10m}\n  - {name: spamhaus-drop, file: /drop.json}\n")
	if err != nil {
		t.Fatal(err)
	}
	l := c.Lists
	if l[0].Address() != "https://apiban.org/api/{key}/banned" || l[0].Format != lists.APIBAN || l[0].Key.Reveal() != "hunter2" ||
		l[0].Refresh != 15*time.Minute || l[0].Mode != config.Enforce {
		t.Errorf("%+v", l[0])
	}
	if l[1].Address() != "https://example.com/{key}" || l[1].Mode != config.Observe || l[1].Refresh != 4*time.Hour || l[1].MaxEntries != 5 {
		t.Errorf("%+v", l[1])
	}
	if l[2].Format != lists.CrowdSec || l[2].Refresh != 10*time.Minute {
		t.Errorf("%+v", l[2])
	}
	if l[3].Address() != "" || l[3].From() != "/drop.json" || l[3].Format != lists.Auto {
		t.Errorf("%+v", l[3])
	}
	var out strings.Builder
	if err := c.Print(&out); err != nil || strings.Contains(out.String(), "example.com") || strings.Contains(out.String(), "hunter2") {
		t.Errorf("%v, printed\n%s", err, out.String())
	}
}
