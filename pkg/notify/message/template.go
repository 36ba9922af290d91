package message

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
	"unicode/utf8"

	"github.com/ringwall/ringwall/pkg/printable"
)

// MaxBody is the longest body that a template may make, in bytes.
const MaxBody = 64 << 10

// JSON is the content type whose bodies are checked.
const JSON = "application/json"

var (
	errTooLong = errors.New("makes more than 64 KiB")
	errFailed  = errors.New("fails for this message")
	errNotJSON = errors.New("does not make valid JSON")
)

// Template makes the body of a message.
type Template struct {
	t         *template.Template
	json      bool
	usesToken bool
}

// data is what a template sees: the message, and two values of the target.
type data struct {
	Message
	To, Token string
}

// Parse reads a template of Go's text/template with the functions json, slack, markdown, code, cut and label. With a
// content type of JSON it is refused unless every value goes through json, and the result is valid for whatever the
// values are; actions are those that the target is told of.
func Parse(text, contentType string, actions []string) (*Template, error) {
	t, err := template.New("body").Option("missingkey=error").Funcs(functions()).Parse(text)
	if err != nil {
		return nil, errors.New(printable.Line(strings.Replace(err.Error(), "template: body:", "line ", 1)))
	}
	out := &Template{t: t, json: IsJSON(contentType)}
	w := walker{escaped: out.json}
	if t.Tree != nil {
		w.list(t.Root)
	}
	if w.err != nil {
		return nil, w.err
	}
	out.usesToken = w.token
	for _, m := range samples(append(actions, "other")) {
		for _, to := range []string{"", `a"b`} {
			_, err := out.render(data{m, to, `t"k`})
			if failed := (template.ExecError{}); errors.As(err, &failed) {
				return nil, errors.New(printable.Line(strings.Replace(err.Error(), "template: body:", "line ", 1)))
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// IsJSON says whether a content type is JSON: application/json or any with +json (RFC 6839 section 3.1).
func IsJSON(contentType string) bool {
	kind, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	kind = strings.TrimSpace(kind)
	return kind == JSON || strings.HasSuffix(kind, "+json")
}

// UsesToken says whether the body holds the target's token.
func (t *Template) UsesToken() bool { return t.usesToken }

// Render makes the body for m. Its errors hold no value of m, of to, or of token.
func (t *Template) Render(m Message, to, token string) ([]byte, error) {
	body, err := t.render(data{m, to, token})
	if failed := (template.ExecError{}); errors.As(err, &failed) {
		return nil, errFailed // its text can hold values
	}
	return body, err
}

func (t *Template) render(d data) ([]byte, error) {
	var out limited
	if err := t.t.Execute(&out, d); err != nil {
		if errors.Is(err, errTooLong) {
			return nil, errTooLong
		}
		return nil, err
	}
	if t.json && !json.Valid(out.Bytes()) {
		return nil, errNotJSON
	}
	return out.Bytes(), nil
}

// limited is a buffer of at most MaxBody bytes.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > MaxBody {
		return 0, errTooLong
	}
	return l.Buffer.Write(p)
}

func functions() template.FuncMap {
	return template.FuncMap{"json": jsonText, "slack": slack, "markdown": markdown, "code": code, "cut": cut,
		"label": label}
}

// jsonText is v as one whole JSON value.
func jsonText(v any) (string, error) {
	text, err := json.Marshal(v)
	return string(printable.JSON(text)), err
}

// slack escapes what begins a mention or a link (https://docs.slack.dev/messaging/formatting-message-text, "Escaping
// text").
func slack(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// markdown escapes every ASCII punctuation that could be markup (CommonMark section 2.4).
func markdown(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune("\\`*_{}[]()#+-!|<>~:@", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// code puts s between backticks, in which chat programs make no links and mentions; "" stays.
func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + strings.ReplaceAll(s, "`", "'") + "`"
}

// label puts s between two texts; of "" nothing is left.
func label(before, s, after string) string {
	if s == "" {
		return ""
	}
	return before + s + after
}

// cut shortens s to n characters.
func cut(n int, s string) string {
	if n < 0 || utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n]) + "…"
}

// walker looks at a template before it is run: what it prints, and that it ends.
type walker struct {
	escaped bool // every value must go through json
	token   bool
	err     error
}

func (w *walker) fail(n parse.Node, what string) {
	if w.err == nil {
		shown := n.String()
		if len(shown) > 60 {
			shown = shown[:60] + "…"
		}
		w.err = fmt.Errorf("%s %s", printable.Limit(shown, 80), what)
	}
}

func (w *walker) list(l *parse.ListNode) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		switch n := n.(type) {
		case *parse.ActionNode:
			w.pipe(n.Pipe)
			if w.escaped && len(n.Pipe.Decl) == 0 && !endsInJSON(n.Pipe) {
				w.fail(n, "is put into JSON as it is; use {{json …}}, which also writes the quotes")
			}
		case *parse.IfNode:
			w.branch(&n.BranchNode)
		case *parse.WithNode:
			w.branch(&n.BranchNode)
		case *parse.RangeNode:
			if !overList(n.Pipe) {
				w.fail(n.Pipe, "is no list; range is for .Actions and .Prefixes")
			}
			w.branch(&n.BranchNode)
		case *parse.TemplateNode:
			w.fail(n, "is not supported; write it out")
		}
	}
}

func (w *walker) branch(b *parse.BranchNode) {
	w.pipe(b.Pipe)
	w.list(b.List)
	w.list(b.ElseList)
}

func (w *walker) pipe(p *parse.PipeNode) {
	for _, c := range p.Cmds {
		for _, a := range c.Args {
			switch a := a.(type) {
			case *parse.FieldNode:
				w.token = w.token || slices.Contains(a.Ident, "Token")
			case *parse.VariableNode:
				w.token = w.token || slices.Contains(a.Ident, "Token")
			case *parse.DotNode:
				w.token = w.token || w.escaped && len(c.Args) > 1 // {{json .}}
			case *parse.PipeNode:
				w.pipe(a)
			}
		}
	}
}

func endsInJSON(p *parse.PipeNode) bool {
	if len(p.Cmds) == 0 {
		return false
	}
	name, ok := p.Cmds[len(p.Cmds)-1].Args[0].(*parse.IdentifierNode)
	return ok && name.Ident == "json"
}

// overList keeps a template from running for ever, as {{range 1000000000}} would.
func overList(p *parse.PipeNode) bool {
	if len(p.Cmds) != 1 || len(p.Cmds[0].Args) != 1 {
		return false
	}
	var path []string
	switch a := p.Cmds[0].Args[0].(type) {
	case *parse.FieldNode:
		path = a.Ident
	case *parse.VariableNode:
		path = a.Ident[1:]
	default:
		return false
	}
	return len(path) > 0 && (path[len(path)-1] == "Actions" || path[len(path)-1] == "Prefixes")
}
