package config_test

import (
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/ringwall/ringwall/pkg/config"
)

const hook = `{url: "https://hooks.example.com/hunter2"`

func TestMistakesOfNotify(t *testing.T) {
	demand(t, []mistake{
		{"nothing to send to", base + "notify:\n  - name: team\n",
			`ringwall.yaml:6: notify[0]: neither url nor exec nor smtp; try: url, url_file, exec or smtp; examples/notify.yaml has some`},
		{"both", base + "notify:\n  - " + hook + ", exec: [/program]}\n",
			`ringwall.yaml:6: notify[0].exec: url and exec are both given; try: an entry of its own for each`},
		{"a text for a list", base + "notify: https://hooks.example.com/hunter2\n",
			`ringwall.yaml:5: notify: text where a list belongs; try: - before the first key, and the other keys below it`},
		{"no web address", base + "notify:\n  - url: hooks.example.com/hunter2\n",
			`ringwall.yaml:6: notify[0].url: not a web address; allowed: https://HOST/PATH, or http://; try: copy it whole, in double quotes`},
		{"another scheme", base + "notify:\n  - url: ftp://hunter2\n",
			`ringwall.yaml:6: notify[0].url: not a web address; allowed: https://HOST/PATH, or http://; try: copy it whole, in double quotes`},
		{"a web address with a space", base + "notify:\n  - url: \"https://a.example/hunter2 b\"\n",
			`ringwall.yaml:6: notify[0].url: not a web address; allowed: https://HOST/PATH, or http://; try: copy it whole, in double quotes`},
		{"url and url_file", base + "notify:\n  - " + hook + ", url_file: /closed}\n",
			`ringwall.yaml:6: notify[0].url_file: url and url_file are both given; try: remove one of them`},
		{"a url_file that holds no address", base + "notify:\n  - url_file: /closed\n",
			`ringwall.yaml:6: notify[0].url_file: not a web address; allowed: https://HOST/PATH, or http://; try: copy it whole, in double quotes`},
		{"a url_file for everybody", base + "notify:\n  - url_file: /open\n",
			`ringwall.yaml:6: notify[0].url_file: everybody can read /open (mode 0644); try: chmod 0640 /open`},
		{"a token of two lines", base + "notify:\n  - " + hook + ", token_file: /lines}\n",
			`ringwall.yaml:6: notify[0].token_file: the secret holds a line break or a control character; try: one line`},
		{"a variable that is not set", base + "notify:\n  - url: https://a.example/${HOOK}\n",
			`ringwall.yaml:6: notify[0].url: the environment variable HOOK is not set; try: Environment= or EnvironmentFile= in the systemd unit, or url_file and token_file`},
		{"a variable without a name", base + "notify:\n  - url: https://a.example/${hunter2-}\n",
			`ringwall.yaml:6: notify[0].url: not the name of an environment variable; allowed: ${NAME} of letters, digits and _`},
		{"an unknown template", base + "notify:\n  - " + hook + ", template: slak}\n",
			`ringwall.yaml:6: notify[0].template: not one of the values: "slak"; allowed: generic, slack, discord, telegram, ntfy, matrix; try: slack`},
		{"GET", base + "notify:\n  - " + hook + ", method: GET}\n",
			`ringwall.yaml:6: notify[0].method: not one of the values: "GET"; allowed: POST, PUT`},
		{"Telegram without a chat", base + "notify:\n  - " + hook + ", template: telegram}\n",
			`ringwall.yaml:6: notify[0].to: missing; try: "-1001234567890", the chat's number`},
		{"Matrix without a transaction", base + "notify:\n  - " + hook + ", template: matrix}\n",
			`ringwall.yaml:6: notify[0].url: Matrix wants a transaction's name at the end of the path; try: https://HOST/_matrix/client/v3/rooms/ROOM/send/m.room.message/{id}`},
		{"template and body", base + "notify:\n  - " + hook + ", template: slack, body: '1'}\n",
			`ringwall.yaml:6: notify[0].body: template and body are both given; try: remove one of them`},
		{"a body that is no JSON", base + "notify:\n  - " + hook + ", body: 'Ban!'}\n",
			`ringwall.yaml:6: notify[0].body: not usable as a template: does not make valid JSON; try: {"text": {{json .Text}}, "account": {{json .Account}}}`},
		{"a body that does not escape", base + "notify:\n  - " + hook + `, body: '{"a": "{{.Account}}"}'}` + "\n",
			`ringwall.yaml:6: notify[0].body: not usable as a template: {{.Account}} is put into JSON as it is; use {{json …}}, which also writes the quotes; try: {"text": {{json .Text}}, "account": {{json .Account}}}`},
		{"a body that is no template", base + "notify:\n  - " + hook +
			", body: '{{json .Text', content_type: text/plain}\n",
			`ringwall.yaml:6: notify[0].body: not usable as a template: line 1: unclosed action; try: {"text": {{json .Text}}, "account": {{json .Account}}}`},
		{"a body that holds a secret", base +
			"notify:\n  - {url: \"https://a.example/x\", token: hunter2, body: '{{hunter2}}'}\n",
			`ringwall.yaml:6: notify[0].body: not usable as a template: (hidden); try: {"text": {{json .Text}}, "account": {{json .Account}}}`},
		{"a content type for a ready template", base + "notify:\n  - " + hook + ", content_type: text/plain}\n",
			`ringwall.yaml:6: notify[0].content_type: the ready templates are all JSON: "text/plain"; try: remove it, or write a body`},
		{"a header with a line break", base + "notify:\n  - " + hook + `, headers: {X-Key: "hunter2\r\nX: y"}}` + "\n",
			`ringwall.yaml:6: notify[0].headers.X-Key: the secret holds a line break or a control character; try: one line`},
		{"a header with a space", base + "notify:\n  - " + hook + `, headers: {X Key: "hunter2"}}` + "\n",
			`ringwall.yaml:6: notify[0].headers."X Key": not the name of a header; allowed: letters, digits and -`},
		{"the length", base + "notify:\n  - " + hook + `, headers: {content-length: "5"}}` + "\n",
			`ringwall.yaml:6: notify[0].headers.content-length: this header is not yours to set; try: remove it; content_type is a key of its own`},
		{"headers as a list", base + "notify:\n  - " + hook + `, headers: ["X-Key: hunter2"]}` + "\n",
			`ringwall.yaml:6: notify[0].headers: a list where a section belongs; try: {X-Name: "value"}`},
		{"mail to nobody", base + "notify:\n  - smtp: {host: mail.example.org, from: a@example.org}\n",
			`ringwall.yaml:6: notify[0].smtp.to: missing; try: [admin@example.org]`},
		{"mail without a server", base + "notify:\n  - smtp: {from: a@example.org, to: [b@example.org]}\n",
			`ringwall.yaml:6: notify[0].smtp.host: not a name or an address; allowed: mail.example.org, 192.0.2.1; try: the port is a key of its own`},
		{"a mail server with its port", base +
			"notify:\n  - smtp: {host: \"mail.example.org:25\", from: a@example.org, to: [b@example.org]}\n",
			`ringwall.yaml:6: notify[0].smtp.host: not a name or an address: "mail.example.org:25"; allowed: mail.example.org, 192.0.2.1; try: the port is a key of its own`},
		{"a name in a mail address", base +
			"notify:\n  - smtp: {host: mail.example.org, from: Ringwall <a@example.org>, to: [b@example.org]}\n",
			`ringwall.yaml:6: notify[0].smtp.from: not a mail address: "Ringwall <a@example.org>"; allowed: NAME@DOMAIN`},
		{"a mail address of two lines", base +
			`notify: [{smtp: {host: mail.example.org, from: a@example.org, to: ["b@example.org\nBcc: c@example.org"]}}]` + "\n",
			`ringwall.yaml:5: notify[0].smtp.to[0]: not a mail address: "b@example.org\nBcc: c@example.org"; allowed: NAME@DOMAIN`},
		{"a user without a password", base +
			"notify:\n  - smtp: {host: mail.example.org, user: a, from: a@example.org, to: [b@example.org]}\n",
			`ringwall.yaml:6: notify[0].smtp.password: missing; try: password_file: the whole path of a file that holds it`},
		{"a password in clear", base +
			"notify:\n  - smtp: {host: mail.example.org, user: a, password_file: /closed, tls: never, from: a@example.org, to: [b@example.org]}\n",
			`ringwall.yaml:6: notify[0].smtp.tls: the password would cross the network in clear: "never"; allowed: starttls, always`},
		{"mail and a url", base +
			"notify:\n  - " + hook + ", smtp: {host: mail.example.org, from: a@example.org, to: [b@example.org]}}\n",
			`ringwall.yaml:6: notify[0].smtp: given beside url or exec; try: an entry of its own for each`},
		{"mail with a template", base +
			"notify:\n  - {template: slack, smtp: {host: mail.example.org, from: a@example.org, to: [b@example.org]}}\n",
			`ringwall.yaml:6: notify[0].template: is for a url, and smtp has none; try: remove it`},
		{"a program with a shell's line", base + "notify:\n  - exec: ['/none -x']\n",
			`ringwall.yaml:6: notify[0].exec[0]: no program has this name; there is no shell that splits it: "/none -x"; try: [PROGRAM, ARGUMENT, ARGUMENT], or [/bin/sh, -c, "…"]`},
		{"a program as text", base + "notify:\n  - exec: /bin/true\n",
			`ringwall.yaml:6: notify[0].exec: text where a list belongs; try: [/bin/true]`},
		{"a program without its folder", base + "notify:\n  - exec: [logger]\n",
			`ringwall.yaml:6: notify[0].exec[0]: not a file's whole path: "logger"; allowed: a path that begins with /`},
		{"a header for a program", base + "notify:\n  - {exec: [/program], to: x}\n",
			`ringwall.yaml:6: notify[0].to: is for a url, and exec has none; try: remove it`},
		{"an unknown action", base + "notify:\n  - " + hook + ", actions: [bann]}\n",
			`ringwall.yaml:6: notify[0].actions[0]: not one of the values: "bann"; allowed: ban, extend, unban, trust, untrust, misconfigured, breach, tampering, targeted, guessing, leak, newplace, proxy, blind, cut, observe, review; try: ban`},
		{"no action", base + "notify:\n  - " + hook + ", actions: []}\n",
			`ringwall.yaml:6: notify[0].actions: an empty list, so nothing is ever told; allowed: ban, extend, unban, trust, untrust, misconfigured, breach, tampering, targeted, guessing, leak, newplace, proxy, blind, cut, observe, review`},
		{"an unknown Asterisk", base + "notify:\n  - " + hook + ", pbx: [pbx9]}\n",
			`ringwall.yaml:6: notify[0].pbx[0]: no Asterisk has this name: "pbx9"`},
		{"two of one name", base + "notify:\n  - " + hook + "}\n  - " + hook + "}\n",
			`ringwall.yaml:7: notify[1].name: the same as the name of notify[0]: "generic"; try: a name for each`},
		{"no burst", base + "notify:\n  - " + hook + ", rate: {burst: 0}}\n",
			`ringwall.yaml:6: notify[0].rate.burst: out of range: "0"; allowed: 1 to 1000`},
		{"an hour for each", base + "notify:\n  - " + hook + ", timeout: 1h}\n",
			`ringwall.yaml:6: notify[0].timeout: out of range: "1h"; allowed: 1s to 5m`},
		{"a word of others", base + "webhook: " + hook + "}\n",
			`ringwall.yaml:5: webhook: unknown key, did you mean notify?; allowed: asterisk, policy, geo, firewall, sensors, lists, export, crowdsec, fleet, metrics, control, state, log, notify`},
	})
}

func TestNoMistakeShowsAToken(t *testing.T) {
	for name, text := range map[string]string{
		"misspelt url":     "notify: [{ulr: \"https://a.example/hunter2\"}]",
		"uri":              "notify: [{uri: \"https://a.example/hunter2\"}]",
		"list":             "notify: [{url: [\"https://a.example/hunter2\"]}]",
		"misspelt token":   base + "notify: [{url: \"https://a.example/x\", tokn: hunter2}]",
		"wrong place":      "token: hunter2\n",
		"header elsewhere": base + "notify: [{url: \"https://a.example/x\", header: {Authorization: hunter2}}]",
		"a list header":    base + "notify: [{url: \"https://a.example/x\", headers: {Authorization: [hunter2]}}]",
		"header and token": base + "notify: [{url: \"https://a.example/x\", token: hunter2, headers: {authorization: " +
			"hunter2}}]",
		"as a host":       base + "notify: [{url: \"https://hunter2_%zz/\"}]",
		"as a port":       base + "notify: [{url: \"https://a.example:hunter2/\"}]",
		"anchor":          base + "notify: [{url: &u \"https://a.example/hunter2\", name: *u, method: *u}]",
		"broken variable": base + "notify: [{url: \"https://a.example/${BROKEN}\"}]",
		"open quote":      base + "notify:\n  - url: \"https://a.example/hunter2\n",
	} {
		t.Run(name, func(t *testing.T) {
			c, warnings, err := parse(text)
			if err == nil {
				t.Fatalf("accepted: %+v", c)
			}
			if shown := fmt.Sprintf("%v %+v %v", err, err, warnings); strings.Contains(shown, "hunter") {
				t.Errorf("shown: %s", shown)
			}
		})
	}
}

func TestNotifyIsComplete(t *testing.T) {
	c, warnings, err := parse(base + `notify:
  - url: "http://127.0.0.1/a?key=${SET}"
    headers: {X-Key: "Bearer ${SET}"}
    token_file: /closed
  - {template: matrix, url: "https://a.example/{id}"}
  - {exec: [/program, "${SET}"]}
  - smtp: {host: mail.example.org, user: a, password_file: /closed, from: a@example.org, to: [b@example.org]}
`)
	if err != nil || len(warnings) != 0 {
		t.Fatal(err, warnings)
	}
	n := c.Notify
	if n[0].Name != "generic" || n[0].Method != http.MethodPost || n[0].URL.Reveal() != "http://127.0.0.1/a?key=hunter2" ||
		n[0].Headers["X-Key"].Reveal() != "Bearer hunter2" || n[0].Token.Reveal() != "hunter2" ||
		len(n[0].Tokens()) != 3 {
		t.Errorf("%+v", n[0])
	}
	if n[3].Name != "smtp" || n[3].SMTP.Port != 587 || n[3].SMTP.TLS != config.TLSStart ||
		n[3].SMTP.Password.Reveal() != "hunter2" || n[3].Rate != (config.NotifyRate{PerMinute: 1, Burst: 5}) {
		t.Errorf("%+v", n[3])
	}
	if n[1].Name != "matrix" || n[1].Method != http.MethodPut || n[2].Name != "program" || n[2].Exec[1] != "${SET}" {
		t.Errorf("%+v", n[1:])
	}
}

func TestNotifyWarnsOfWhatIsNotSafe(t *testing.T) {
	for name, row := range map[string]struct{ text, want string }{
		"clear text":    {`notify: [{url: "http://a.example/hunter2"}]`, "crosses the network in clear"},
		"no program":    {`notify: [{exec: [/none]}]`, "cannot be found"},
		"no execution":  {`notify: [{exec: [/closed]}]`, "chmod 0755 /closed"},
		"a folder":      {`notify: [{exec: [/folder]}]`, "is no program"},
		"a printed one": {`notify: [{url: "(hidden)"}]`, "check --print"},
	} {
		t.Run(name, func(t *testing.T) {
			_, warnings, err := parse(base + row.text)
			if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0].String(), row.want) {
				t.Fatalf("%v, %v", warnings, err)
			}
			if strings.Contains(warnings[0].String(), "hunter2") {
				t.Error(warnings[0])
			}
		})
	}
}

func TestNotifySecretsAreNotDemandedWithoutNeed(t *testing.T) {
	none := fstest.MapFS{}
	env := config.Environment{WithoutSecrets: true,
		Open: func(name string) (fs.File, error) { return none.Open(strings.TrimPrefix(name, "/")) }}
	text := `notify: [{url: "${HOOK}", name: a}, {url_file: /none}, {exec: [/none]}]`
	if _, _, err := config.Parse(strings.NewReader(base+text), "ringwall.yaml", env); err != nil {
		t.Error(err)
	}
}
