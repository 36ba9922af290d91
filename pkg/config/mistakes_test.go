package config_test

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/ringwall/ringwall/pkg/config"
)

// base is a valid file; the rows below add their mistake after it, from line 5 on.
const base = `asterisk:
  - address: 127.0.0.1
    username: ringwall
    secret: hunter2
`

// machine is an environment of a few files and no variable but CREDENTIALS_DIRECTORY, if folder is not empty.
func machine(folder string) config.Environment {
	files := fstest.MapFS{
		"open":                   {Data: []byte("hunter2\n"), Mode: 0o644},
		"closed":                 {Data: []byte("hunter2\n"), Mode: 0o640},
		"windows":                {Data: []byte("hunter2\r\n"), Mode: 0o600},
		"lines":                  {Data: []byte("hunter2\nhunter3\n"), Mode: 0o600},
		"long":                   {Data: bytes.Repeat([]byte("hunter2"), 1000), Mode: 0o600},
		"empty":                  {Data: []byte("\n"), Mode: 0o640},
		"lapi":                   {Data: []byte("url: http://127.0.0.1:8080/\nlogin: pbx\npassword: hunter2\n"), Mode: 0o640},
		"far":                    {Data: []byte("url: http://192.0.2.1:8080\nlogin: pbx\npassword: hunter2\n"), Mode: 0o640},
		"program":                {Mode: 0o755},
		"folder":                 {Mode: fs.ModeDir | 0o755},
		"credentials/ami-secret": {Data: []byte("hunter2"), Mode: 0o444},
	}
	return config.Environment{
		Lookup: func(name string) (string, bool) {
			switch name {
			case "CREDENTIALS_DIRECTORY":
				return folder, folder != ""
			case "SET":
				return "hunter2", true
			case "EMPTY":
				return "", true
			case "BROKEN":
				return "hunter2\n", true
			}
			return "", false
		},
		Open: func(name string) (fs.File, error) { return files.Open(strings.TrimPrefix(name, "/")) },
	}
}

func parse(text string) (*config.Config, []config.Warning, error) {
	return config.Parse(strings.NewReader(text), "ringwall.yaml", machine(""))
}

// mistake is a file with something wrong in it, and the whole text that a person then sees.
type mistake struct{ name, text, want string }

func demand(t *testing.T, rows []mistake) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c, warnings, err := parse(row.text)
			if err == nil {
				t.Fatalf("accepted: %+v", c)
			}
			if c != nil {
				t.Error("a configuration came with the error")
			}
			if got := err.Error(); got != strings.TrimSpace(row.want) {
				t.Errorf("got  %s\nwant %s", got, strings.TrimSpace(row.want))
			}
			var list config.Errors
			if !errors.As(err, &list) || len(list) == 0 {
				t.Fatalf("no Errors but %T", err)
			}
			for _, e := range list {
				if e.File != "ringwall.yaml" || e.What == "" {
					t.Errorf("%+v", e)
				}
			}
			shown := err.Error()
			for _, w := range warnings {
				shown += w.String()
			}
			if strings.Contains(shown, "hunter2") {
				t.Errorf("the secret is shown: %s", shown)
			}
		})
	}
}

func TestMistakesOfYAMLAndKeys(t *testing.T) {
	demand(t, []mistake{
		{"an empty file", ``,
			`ringwall.yaml: the file is empty; try: begin with examples/minimal.yaml`},
		{"a file of comments", `# nothing yet
`,
			`ringwall.yaml: the file is empty; try: begin with examples/minimal.yaml`},
		{"a list instead of sections", `- a
`,
			`ringwall.yaml:1: the file holds a list where sections belong; allowed: the keys asterisk, policy, geo, firewall, sensors, lists, export, crowdsec, fleet, metrics, control, state, log, notify; try: key: value, with a space after the colon`},
		{"text instead of sections", `asterisk
`,
			`ringwall.yaml:1: the file holds text where sections belong; allowed: the keys asterisk, policy, geo, firewall, sensors, lists, export, crowdsec, fleet, metrics, control, state, log, notify; try: key: value, with a space after the colon`},
		{"a tab", `policy:
	threshold: 5
asterisk:
  - address: 127.0.0.1
    username: ringwall
    secret: hunter2
`,
			`ringwall.yaml:2: not YAML: a tab stands at the beginning of the line; try: spaces, two for each level`},
		{"a tab in front of a list", base + `policy:
  honeypots:
	- admin
`,
			`ringwall.yaml:7: not YAML: a tab stands at the beginning of the line; try: spaces, two for each level`},
		{"a second colon", base + `policy: threshold: 5
`,
			`ringwall.yaml:5: not YAML: a second colon in the line; try: a value with : # & * ! % @ in it belongs in double quotes`},
		{"a quote that is never closed", base + `state:
  path: "/var/lib
`,
			`ringwall.yaml:6: not YAML: a quote is opened and not closed; try: close it on the same line`},
		{"a key without a colon", base + `policy:
  threshold 5
  half_life: 1m
`,
			`ringwall.yaml:6: not YAML: a key without a colon; try: key: value, with a space after the colon`},
		{"a key that is indented by one more", base + `policy:
  threshold: 5
   half_life: 1m
`,
			`ringwall.yaml:7: not YAML: the line is indented unlike the ones above it; try: the same number of spaces for keys of one section`},
		{"a list that is never closed", base + `firewall:
  ports:
    udp: [5060, 5061
`,
			`ringwall.yaml:7: not YAML: a list is opened with [ and not closed; try: [a, b]`},
		{"a section that is never closed", base + `policy:
  ban: {first: 1h
state: {path: /s}
`,
			`ringwall.yaml:6: not YAML: a section is opened with { and not closed; try: {key: value, key: value}`},
		{"a value that begins with @", base + `control:
  group: @admin
`,
			`ringwall.yaml:6: not YAML: a value begins with a character that has a meaning in YAML; try: a value with : # & * ! % @ in it belongs in double quotes`},
		{"a value that begins with *", `asterisk:
  - address: 127.0.0.1
    username: ringwall
    secret: *hunter2
`,
			`ringwall.yaml:4: not YAML: a value begins with *; try: a value with : # & * ! % @ in it belongs in double quotes`},
		{"a value that begins with !", `asterisk:
  - address: 127.0.0.1
    username: ringwall
    secret: !hunter2 x
`,
			`ringwall.yaml:4: asterisk[0].secret: a value begins with !; try: put it in double quotes`},
		{"a value that begins with &", `asterisk:
  - address: 127.0.0.1
    username: ringwall
    secret: &hunter2
`,
			`ringwall.yaml:4: asterisk[0].secret: no value; allowed: text; try: remove the key for the default; a value that begins with # & * ! or is "null" belongs in double quotes`},
		{"a value that begins with #", `asterisk:
  - address: 127.0.0.1
    username: ringwall
    secret: #hunter2
`,
			`ringwall.yaml:4: asterisk[0].secret: no value; allowed: text; try: remove the key for the default; a value that begins with # & * ! or is "null" belongs in double quotes`},
		{"a backslash in double quotes", base + `policy:
  trust: {match: "\d+"}
`,
			`ringwall.yaml:6: not YAML: a backslash in double quotes; try: single quotes, in which \ means itself`},
		{"two documents", base + `---
asterisk:
  - address: 127.0.0.1
    username: ringwall
    secret: hunter2
`,
			`ringwall.yaml:5: a second YAML document begins; allowed: one document a file; try: remove the line ---`},
		{"bytes that are not UTF-8", base + "control: {group: b\xfcro}\n",
			`ringwall.yaml:5: not UTF-8 text; try: save the file as UTF-8; put a file that only holds a secret under secret_file`},
		{"a control character", base + "control: {group: a\x1b[2J}\n",
			`ringwall.yaml:5: control character U+001B; try: remove it`},
		{"a key twice", base + `policy:
  threshold: 5
  mode: observe
  threshold: 6
`,
			`ringwall.yaml:8: policy.threshold: given twice, first in line 6; try: remove one of them`},
		{"a section twice", base + `policy: {threshold: 5}
policy: {mode: observe}
`,
			`ringwall.yaml:6: policy: given twice, first in line 5; try: remove one of them`},
		{"a merge key", base + `policy:
  <<: {threshold: 5}
`,
			`ringwall.yaml:6: policy: merge keys (<<) are not read; try: write the keys out`},
		{"a key that is a list", base + `policy:
  [a]: 5
`,
			`ringwall.yaml:6: policy: a key that is a list; allowed: a word; try: key: value`},
		{"a misspelt key", base + `policy:
  points:
    unknown_accuont: 4
`,
			`ringwall.yaml:7: policy.points.unknown_accuont: unknown key, did you mean unknown_account?; allowed: unknown_account, wrong_password, acl, unanswered_challenge, manager, honeypot, silent_guess, probing, scanner, malformed_sip, iax, http, dialplan`},
		{"a misspelt section", base + `polices: {}
`,
			`ringwall.yaml:5: polices: unknown key, did you mean policy?; allowed: asterisk, policy, geo, firewall, sensors, lists, export, crowdsec, fleet, metrics, control, state, log, notify`},
		{"a key with a capital", base + `Policy: {}
`,
			`ringwall.yaml:5: Policy: unknown key, did you mean policy?; allowed: asterisk, policy, geo, firewall, sensors, lists, export, crowdsec, fleet, metrics, control, state, log, notify`},
		{"a key of another section", base + `threshold: 5
`,
			`ringwall.yaml:5: threshold: unknown key here; allowed: asterisk, policy, geo, firewall, sensors, lists, export, crowdsec, fleet, metrics, control, state, log, notify; try: policy.threshold`},
		{"a word of fail2ban", base + `policy:
  bantime: 1h
`,
			`ringwall.yaml:6: policy.bantime: a key of fail2ban's; allowed: mode, threshold, half_life, points, honeypots, ban, trust, ipv6_prefix, networks, services, signatures, allow, proxies, max_sources, misconfigured, challenges, breach, targeted, roaming, newplace, storm, limits; try: ban: {first: 1h}`},
		{"a password for a secret", `asterisk:
  - address: 127.0.0.1
    username: ringwall
    password: hunter2
`,
			`ringwall.yaml:4: asterisk[0].password: unknown key, did you mean secret?; allowed: name, address, username, secret, secret_file, auth, tls, learn, ping_interval`},
		{"an unknown key with an escape in it", base + `policy:
  "a\e[2J": 1
`,
			`ringwall.yaml:6: policy."a\x1b[2J": unknown key; allowed: mode, threshold, half_life, points, honeypots, ban, trust, ipv6_prefix, networks, services, signatures, allow, proxies, max_sources, misconfigured, challenges, breach, targeted, roaming, newplace, storm, limits`},
	})
}

func TestMistakesOfTheAsteriskSection(t *testing.T) {
	demand(t, []mistake{
		{"no Asterisk", `policy: {mode: observe}
`,
			`ringwall.yaml:1: asterisk: missing; allowed: a list with an address, a username and a secret for each Asterisk; try: examples/minimal.yaml`},
		{"an empty list of Asterisks", `asterisk: []
`,
			`ringwall.yaml:1: asterisk: missing; allowed: a list with an address, a username and a secret for each Asterisk; try: examples/minimal.yaml`},
		{"nothing but a name", `asterisk:
  - name: pbx1
`,
			`ringwall.yaml:2: asterisk[0].address: missing; try: 127.0.0.1:5038
ringwall.yaml:2: asterisk[0].username: missing; allowed: the user's section name in manager.conf
ringwall.yaml:2: asterisk[0].secret: missing; allowed: secret: "…", secret: "${VARIABLE}", secret_file: PATH, or LoadCredential=ami-secret:PATH in the systemd unit`},
		{"a username from the environment", `asterisk:
  - address: 127.0.0.1
    username: ${USER}
    secret: hunter2
`,
			`ringwall.yaml:3: asterisk[0].username: environment variables are only read in secret: "${USER}"; try: the name itself`},
		{"a URL as address", `asterisk:
  - address: tcp://127.0.0.1:5038
    username: ringwall
    secret: hunter2
`,
			`ringwall.yaml:2: asterisk[0].address: not an address to connect to: "tcp://127.0.0.1:5038"; allowed: HOST:PORT, [IPv6]:PORT, or HOST for port 5038; try: 127.0.0.1:5038`},
		{"a port beyond the last", `asterisk:
  - address: 127.0.0.1:70000
    username: ringwall
    secret: hunter2
`,
			`ringwall.yaml:2: asterisk[0].address: not an address to connect to: "127.0.0.1:70000"; allowed: HOST:PORT, [IPv6]:PORT, or HOST for port 5038; try: 127.0.0.1:5038`},
		{"every address", `asterisk:
  - address: 0.0.0.0:5038
    username: ringwall
    secret: hunter2
`,
			`ringwall.yaml:2: asterisk[0].address: not an address to connect to: "0.0.0.0:5038"; allowed: HOST:PORT, [IPv6]:PORT, or HOST for port 5038; try: 127.0.0.1:5038`},
		{"two Asterisks of one name", `asterisk:
  - name: pbx
    address: 127.0.0.1
    username: ringwall
    secret: hunter2
  - name: pbx
    address: 192.0.2.1
    username: ringwall
    secret: hunter2
`,
			`ringwall.yaml:6: asterisk[1].name: the same as the name of asterisk[0]: "pbx"; try: another name`},
		{"one Asterisk twice", base + `  - address: 127.0.0.1:5038
    username: ringwall
    secret: hunter2
`,
			`ringwall.yaml:5: asterisk[1].address: the same as asterisk[0].address; its events would count twice: "127.0.0.1:5038"; try: remove one of the two entries`},
		{"secret and secret_file", base + `    secret_file: /etc/ringwall/secret
`,
			`ringwall.yaml:5: asterisk[0].secret_file: secret and secret_file are both given; try: remove one of them`},
		{"a line break in the secret", `asterisk:
  - address: 127.0.0.1
    username: ringwall
    secret: "hunter2\r\nAction: Command"
`,
			`ringwall.yaml:4: asterisk[0].secret: the secret holds a line break or a control character; try: one line, as in manager.conf`},
		{"a list for the secret", `asterisk:
  - address: 127.0.0.1
    username: ringwall
    secret: [hunter2]
`,
			`ringwall.yaml:4: asterisk[0].secret: a list where text belongs`},
		{"a variable that is not set", `asterisk:
  - address: 127.0.0.1
    username: ringwall
    secret: ${AMI_SECRET}
`,
			`ringwall.yaml:4: asterisk[0].secret: the environment variable AMI_SECRET is not set; try: Environment= or EnvironmentFile= in the systemd unit, or secret_file`},
		{"a variable without a name", `asterisk:
  - address: 127.0.0.1
    username: ringwall
    secret: ${}
`,
			`ringwall.yaml:4: asterisk[0].secret: not the name of an environment variable; allowed: ${NAME} of letters, digits and _`},
		{"a secret_file that is not there", `asterisk:
  - address: 127.0.0.1
    username: ringwall
    secret_file: /none
`,
			`ringwall.yaml:4: asterisk[0].secret_file: the secret cannot be read from /none: file does not exist; try: its name, and the rights of the user that the daemon runs as`},
		{"a secret_file for everybody", `asterisk:
  - address: 127.0.0.1
    username: ringwall
    secret_file: /open
`,
			`ringwall.yaml:4: asterisk[0].secret_file: everybody can read /open (mode 0644); try: chmod 0640 /open`},
		{"a secret_file that is empty", `asterisk:
  - address: 127.0.0.1
    username: ringwall
    secret_file: /empty
`,
			`ringwall.yaml:4: asterisk[0].secret_file: /empty is empty; try: the secret in it, on one line`},
		{"a secret_file that is a folder", `asterisk:
  - address: 127.0.0.1
    username: ringwall
    secret_file: /folder
`,
			`ringwall.yaml:4: asterisk[0].secret_file: the secret cannot be read from /folder: not a regular file; try: its name, and the rights of the user that the daemon runs as`},
		{"a secret_file with a relative path", `asterisk:
  - address: 127.0.0.1
    username: ringwall
    secret_file: ami-secret
`,
			`ringwall.yaml:4: asterisk[0].secret_file: not a file's whole path: "ami-secret"; allowed: a path that begins with /`},
		{"settings of TLS without TLS", base + `    tls: {server_name: pbx.example.net}
`,
			`ringwall.yaml:5: asterisk[0].tls.server_name: is set, but TLS is off; try: enabled: true beside it, or remove it`},
		{"a check of certificates that is off", base + `    tls: {enabled: true, insecure: true, ca_file: /ca}
`,
			`ringwall.yaml:5: asterisk[0].tls.insecure: contradicts ca_file: insecure checks no certificate; try: remove one of them
ringwall.yaml:5: asterisk[0].tls.ca_file: cannot be read: file does not exist: "/ca"; try: the certificate that signed Asterisk's, as PEM`},
		{"a ca_file that is not there", base + `    tls: {enabled: true, ca_file: /none}
`,
			`ringwall.yaml:5: asterisk[0].tls.ca_file: cannot be read: file does not exist: "/none"; try: the certificate that signed Asterisk's, as PEM`},
		{"a ca_file without a certificate", base + `    tls: {enabled: true, ca_file: /closed}
`,
			`ringwall.yaml:5: asterisk[0].tls.ca_file: holds no certificate: "/closed"; allowed: PEM: -----BEGIN CERTIFICATE-----`},
		{"a server_name with a port", base + `    tls: {enabled: true, server_name: 'pbx.example.net:5039'}
`,
			`ringwall.yaml:5: asterisk[0].tls.server_name: not a host name: "pbx.example.net:5039"; allowed: the name in Asterisk's certificate`},
		{"a ping every hour", base + `    ping_interval: 1h
`,
			`ringwall.yaml:5: asterisk[0].ping_interval: out of range: "1h"; allowed: 1s to 10m`},
		{"several mistakes at once", `asterisk:
  - address: 127.0.0.1
    usrname: ringwall
policy:
  threshold: -1
  ban: {first: soon}
firewall: {table: 5}
`,
			`ringwall.yaml:2: asterisk[0].secret: missing; allowed: secret: "…", secret: "${VARIABLE}", secret_file: PATH, or LoadCredential=ami-secret:PATH in the systemd unit
ringwall.yaml:3: asterisk[0].usrname: unknown key, did you mean username?; allowed: name, address, username, secret, secret_file, auth, tls, learn, ping_interval
ringwall.yaml:5: policy.threshold: out of range: "-1"; allowed: 0.1 to 1000000; try: policy.mode: observe to ban nobody
ringwall.yaml:6: policy.ban.first: not a duration: "soon"; allowed: a number with a unit: s, m, h, d or w, as in 90s, 10m, 24h, 7d, 1w, 1h30m
ringwall.yaml:7: firewall.table: not a name for an nftables table: "5"; allowed: a letter or _, then up to 63 letters, digits, _ or -`},
	})
}
