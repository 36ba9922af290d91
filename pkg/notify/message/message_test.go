package message

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/ban"
)

var allActions = func() (texts []string) {
	for _, a := range ban.Actions() {
		texts = append(texts, string(a))
	}
	return texts
}()

// keys of each ready template whose value holds the account of a message.
var accountAt = map[string]string{
	Generic: "account", Slack: "text", Discord: "content", Telegram: "text", Ntfy: "message", Matrix: "body",
}

func render(t *testing.T, name string, m Message) map[string]any {
	t.Helper()
	tpl, err := ReadyTemplate(name)
	if err != nil {
		t.Fatal(err)
	}
	body, err := tpl.Render(m, "to", "t0ken")
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var out map[string]any
	if err := json.Unmarshal(body, &out); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, body)
	}
	if strings.Contains(string(body), "t0ken") {
		t.Errorf("%s holds the token: %s", name, body)
	}
	return out
}

func TestReadyTemplatesTellTheAccountAndWhere(t *testing.T) {
	for _, name := range ReadyNames() {
		for _, action := range append(allActions, Summary) {
			out := render(t, name, Message{Action: action, Title: "Title", Text: "Text", Account: "x201"})
			if got, _ := out[accountAt[name]].(string); !strings.Contains(got, "x201") {
				t.Errorf("%s, %s: no account in %v", name, action, out)
			}
		}
	}
	if _, err := ReadyTemplate("pigeon"); err == nil || !strings.Contains(err.Error(), "slack") {
		t.Errorf("an unknown template: %v", err)
	}
}

func TestReadyTemplatesDefuseHostileAccounts(t *testing.T) {
	link := "<!channel> https://e.example [a](b) `x` <b> @everyone &amp;"
	m := Message{Action: "ban", Title: "a_b", Text: "c <d>", Account: link}
	if got := render(t, Slack, m)["text"]; got != "*a_b*\nc &lt;d&gt;\nAccount: `&lt;!channel&gt; https://e.example "+
		"[a](b) 'x' &lt;b&gt; @everyone &amp;amp;`" {
		t.Errorf("slack: %s", got)
	}
	discord := render(t, Discord, m)
	if got := discord["content"]; got != "**a\\_b**\nc \\<d\\>\nAccount: `<!channel> https://e.example [a](b) 'x' "+
		"<b> @everyone &amp;`" {
		t.Errorf("discord: %s", got)
	}
	if parse, ok := discord["allowed_mentions"].(map[string]any)["parse"].([]any); !ok || len(parse) != 0 {
		t.Errorf("discord may mention: %v", discord)
	}
	if got := render(t, Telegram, m)["text"]; got != "<b>a_b</b>\nc &lt;d&gt;\nAccount: <code>&lt;!channel&gt; "+
		"https://e.example [a](b) `x` &lt;b&gt; @everyone &amp;amp;</code>" {
		t.Errorf("telegram: %s", got)
	}
	if got := render(t, Matrix, m)["formatted_body"]; strings.Contains(got.(string), "<!channel>") ||
		strings.Contains(got.(string), "<b> @") {
		t.Errorf("matrix: %s", got)
	}
}

func TestDiscordStaysBelowItsLimit(t *testing.T) {
	long := strings.Repeat("_", 5000)
	got := render(t, Discord, Message{Title: long, Text: long, Account: strings.Repeat("x", 64)})["content"].(string)
	if n := utf8.RuneCountInString(got); n > 2000 {
		t.Errorf("%d characters", n)
	}
}

func TestTemplatesThatCouldMakeBadJSONAreRefused(t *testing.T) {
	for name, row := range map[string]struct{ text, want string }{
		"no escape":            {`{"a": "{{.Account}}"}`, "use {{json …}}"},
		"no escape, no quotes": {`{"a": {{.Score}}}`, "use {{json …}}"},
		"escape of another":    {`{"a": {{printf "%q" .Account}}}`, "use {{json …}}"},
		"json, then another":   {`{"a": {{json .Account | print}}}`, "use {{json …}}"},
		"quotes around json":   {`{"a": "{{json .Account}}"}`, "does not make valid JSON"},
		"a comma too many":     {`{"a": {{json .Account}},}`, "does not make valid JSON"},
		"wrong for one action": {`{"a": {{if eq .Action "breach"}}x{{else}}1{{end}}}`, "does not make valid JSON"},
		"wrong for a summary": {`{"a": [{{range .Prefixes}}{{json .}},{{end}}1{{if .Count}},{{end}}]}`,
			"does not make valid JSON"},
		"nothing":               {``, "does not make valid JSON"},
		"inside a condition":    {`{"a": {{with .Account}}{{.}}{{else}}1{{end}}}`, "use {{json …}}"},
		"an unknown field":      {`{"a": {{json .Acount}}}`, "Acount"},
		"an unknown function":   {`{"a": {{jsn .Account}}}`, `"jsn" not defined`},
		"an open brace":         {`{"a": {{json .Account}`, "line 1"},
		"an endless loop":       {`{{range 1000000000}}{{end}}1`, "is no list"},
		"a loop over variables": {`{{$x := 1000000000}}{{range $x}}{{end}}1`, "is no list"},
		"recursion":             {`{{define "a"}}{{template "a"}}{{end}}{{template "a"}}1`, "not supported"},
		"far too long":          {`{"a": {{json (printf "%070000d" 1)}}}`, "64 KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(row.text, "application/json; charset=utf-8", allActions)
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %s", err, row.want)
			}
		})
	}
}

func TestTemplatesOfTheirOwn(t *testing.T) {
	m := Message{Action: "ban", Account: `a"b`, Prefix: "192.0.2.1/32", Count: 2, Actions: []Tally{{"ban", 2}}}
	for name, row := range map[string]struct {
		text, contentType, want string
		token                   bool
	}{
		"json": {`{"user": {{json .Account}}, "token": {{json .Token}}}`, JSON,
			`{"user": "a\"b", "token": "k"}`, true},
		"token by dollar": {`{{range .Actions}}{{end}}{"token": {{json $.Token}}}`, JSON, `{"token": "k"}`, true},
		"vendor's json":   {`{{json .To}}`, "application/vnd.example+json", `"room"`, false},
		"text":            {`{{.Action}} {{.Prefix}} {{cut 2 "abc"}}`, "text/plain", `ban 192.0.2.1/32 ab…`, false},
		"list": {`[{{range $i, $a := .Actions}}{{if $i}},{{end}}{{json $a}}{{end}}]`, JSON,
			`[{"action":"ban","count":2}]`, false},
	} {
		t.Run(name, func(t *testing.T) {
			tpl, err := Parse(row.text, row.contentType, allActions)
			if err != nil {
				t.Fatal(err)
			}
			got, err := tpl.Render(m, "room", "k")
			if err != nil || string(got) != row.want {
				t.Errorf("got %s, %v", got, err)
			}
			if tpl.UsesToken() != row.token {
				t.Errorf("uses the token: %v", tpl.UsesToken())
			}
		})
	}
}

// FuzzRender puts hostile values, escaped or not, into every ready template, and into one of somebody's own.
func FuzzRender(f *testing.F) {
	for _, s := range []string{"201", `"`, `\`, "\x00\x1b[2J", "\xff\xfe", "\u2028\u202e", `","text":"x`, "{{.Token}}",
		"</b>", "`"} {
		f.Add(s, s, "-100")
	}
	var all []*Template
	for _, name := range ReadyNames() {
		tpl, err := ReadyTemplate(name)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, tpl)
	}
	own, err := Parse(`{"a": [{{json .Account}}, {{json (printf "%s" .PBX)}}], {{json .Action}}: {{json .Account | json}}}`, JSON, allActions)
	if err != nil {
		f.Fatal(err)
	}
	all = append(all, own)
	keys := func(t testing.TB, tpl *Template, m Message, to string) int {
		body, err := tpl.Render(m, to, "t0ken")
		if err != nil {
			t.Fatal(err)
		}
		var out map[string]any
		if err := json.Unmarshal(body, &out); err != nil {
			t.Fatalf("%v\n%q", err, body)
		}
		return len(out)
	}
	var usual []int
	for _, tpl := range all {
		usual = append(usual, keys(f, tpl, Message{Action: "ban"}, "to"))
	}
	f.Fuzz(func(t *testing.T, account, text, to string) {
		for i, tpl := range all {
			if len(account)+len(text)+len(to) > 1000 {
				return
			}
			m := Message{Action: "ban", Account: account, Title: text, Text: text, PBX: text, Detail: text}
			if n := keys(t, tpl, m, to); n != usual[i] {
				t.Errorf("template %d: a value has become a key", i)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, text := range readyTemplates() {
		f.Add(text)
	}
	f.Add(`{{range .Actions}}{{json .}}{{end}}`)
	f.Add(`{{with $x := .Account}}{{$x | json}}{{end}}`)
	f.Fuzz(func(t *testing.T, text string) {
		tpl, err := Parse(text, JSON, allActions)
		if err != nil {
			return
		}
		for _, account := range []string{`"`, `\`, "\x00", `,"a":`, "\xff"} {
			m := Message{Action: "ban", Account: account, PBX: account, Text: account}
			if _, err := tpl.Render(m, account, account); err != nil {
				t.Errorf("%q fails for %q: %v", text, account, err)
			}
		}
	})
}
