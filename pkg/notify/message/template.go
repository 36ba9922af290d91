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

// templateData is what a template sees: the message, and two values of the target.
type templateData struct {
	Message
	To, Token string
}

// Parse reads a template of Go's text/template with the functions json, slack, markdown, code, cut and label. With a
// content type of JSON it is refused unless every value goes through json, and the result is valid for whatever the
// values are; actions are those that the target is told of.
func Parse(text, contentType string, actions []string) (*Template, error) {
	t, err := template.New("body").Option("missingkey=error").Funcs(templateFunctions()).Parse(text)
	if err != nil {
		return nil, errors.New(printable.Line(strings.Replace(err.Error(), "template: body:", "line ", 1)))
	}
	out := &Template{t: t, json: IsJSON(contentType)}
	w := templateChecker{mustEscape: out.json}
	if t.Tree != nil {
		w.checkList(t.Root)
	}
	if w.err != nil {
		return nil, w.err
	}
	out.usesToken = w.usesToken
	for _, m := range sampleMessages(append(actions, "other")) {
		for _, to := range []string{"", `a"b`} {
			_, err := out.renderData(templateData{m, to, `t"k`})
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
	body, err := t.renderData(templateData{m, to, token})
	if failed := (template.ExecError{}); errors.As(err, &failed) {
		return nil, errFailed // its text can hold values
	}
	return body, err
}

func (t *Template) renderData(d templateData) ([]byte, error) {
	var out limitedBuffer
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

// limitedBuffer is a buffer of at most MaxBody bytes.
type limitedBuffer struct{ bytes.Buffer }

func (l *limitedBuffer) Write(p []byte) (int, error) {
	if l.Len()+len(p) > MaxBody {
		return 0, errTooLong
	}
	return l.Buffer.Write(p)
}

func templateFunctions() template.FuncMap {
	return template.FuncMap{"json": encodeJSON, "slack": escapeSlack, "markdown": escapeMarkdown, "code": codeSpan,
		"cut":   cutCharacters,
		"label": surroundText}
}

// encodeJSON is v as one whole JSON value.
func encodeJSON(v any) (string, error) {
	text, err := json.Marshal(v)
	return string(printable.JSON(text)), err
}

// escapeSlack escapes what begins a mention or a link (https://docs.slack.dev/messaging/formatting-message-text,
// "Escaping text").
func escapeSlack(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// escapeMarkdown escapes every ASCII punctuation that could be markup (CommonMark section 2.4).
func escapeMarkdown(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune("\\`*_{}[]()#+-!|<>~:@", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// codeSpan puts s between backticks, in which chat programs make no links and mentions; "" stays.
func codeSpan(s string) string {
	if s == "" {
		return ""
	}
	return "`" + strings.ReplaceAll(s, "`", "'") + "`"
}

// surroundText puts s between two texts; of "" nothing is left.
func surroundText(before, s, after string) string {
	if s == "" {
		return ""
	}
	return before + s + after
}

// cutCharacters shortens s to n characters.
func cutCharacters(n int, s string) string {
	if n < 0 || utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n]) + "…"
}

// templateChecker looks at a template before it is run: what it prints, and that it ends.
type templateChecker struct {
	mustEscape bool // every value must go through json
	usesToken  bool
	err        error
}

func (w *templateChecker) failAt(n parse.Node, what string) {
	if w.err == nil {
		shown := n.String()
		if len(shown) > 60 {
			shown = shown[:60] + "…"
		}
		w.err = fmt.Errorf("%s %s", printable.Limit(shown, 80), what)
	}
}

func (w *templateChecker) checkList(l *parse.ListNode) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		switch n := n.(type) {
		case *parse.ActionNode:
			w.checkPipe(n.Pipe)
			if w.mustEscape && len(n.Pipe.Decl) == 0 && !endsInJSON(n.Pipe) {
				w.failAt(n, "is put into JSON as it is; use {{json …}}, which also writes the quotes")
			}
		case *parse.IfNode:
			w.checkBranch(&n.BranchNode)
		case *parse.WithNode:
			w.checkBranch(&n.BranchNode)
		case *parse.RangeNode:
			if !rangesOverList(n.Pipe) {
				w.failAt(n.Pipe, "is no list; range is for .Actions and .Prefixes")
			}
			w.checkBranch(&n.BranchNode)
		case *parse.TemplateNode:
			w.failAt(n, "is not supported; write it out")
		}
	}
}

func (w *templateChecker) checkBranch(b *parse.BranchNode) {
	w.checkPipe(b.Pipe)
	w.checkList(b.List)
	w.checkList(b.ElseList)
}

func (w *templateChecker) checkPipe(p *parse.PipeNode) {
	for _, c := range p.Cmds {
		for _, a := range c.Args {
			switch a := a.(type) {
			case *parse.FieldNode:
				w.usesToken = w.usesToken || slices.Contains(a.Ident, "Token")
			case *parse.VariableNode:
				w.usesToken = w.usesToken || slices.Contains(a.Ident, "Token")
			case *parse.DotNode:
				w.usesToken = w.usesToken || w.mustEscape && len(c.Args) > 1 // {{json .}}
			case *parse.PipeNode:
				w.checkPipe(a)
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

// rangesOverList keeps a template from running for ever, as {{range 1000000000}} would.
func rangesOverList(p *parse.PipeNode) bool {
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
