package notify

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/notify/message"
	"github.com/ringwall/ringwall/pkg/policy"
)

// constants reads the values of a type's constants from the engine's source, so that a new one is not forgotten here.
func constants(t *testing.T, of string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../engine/decision.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if typ, ok := spec.Type.(*ast.Ident); !ok || typ.Name != of {
			return true
		}
		for _, v := range spec.Values {
			text, err := strconv.Unquote(v.(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, text)
		}
		return true
	})
	if len(values) < 10 {
		t.Fatalf("only %v", values)
	}
	return values
}

func TestEveryActionAndReasonCanBeAskedFor(t *testing.T) {
	text := "asterisk: [{address: a, username: b, secret: c}]\nnotify: [{url: \"https://a.example/\", actions: [" +
		strings.Join(constants(t, "Action"), ", ") + "], reasons: [" + strings.Join(constants(t, "Reason"), ", ") + "]}]\n"
	if _, _, err := policy.Parse(strings.NewReader(text), "ringwall.yaml", policy.Environment{}); err != nil {
		t.Error(err)
	}
}

func TestEveryActionHasATitle(t *testing.T) {
	titles := map[string]string{}
	for _, action := range constants(t, "Action") {
		d := ban(1)
		d.Action = engine.Action(action)
		m := describe(d, "host")
		if other, taken := titles[m.Title]; taken || strings.HasPrefix(m.Title, "Ringwall on host: "+action+" ") || strings.Contains(m.Title, "100") {
			t.Errorf("%s: %q, as %s", action, m.Title, other)
		}
		titles[m.Title] = action
	}
}

func TestABanInWords(t *testing.T) {
	d := ban(1)
	d.Detail, d.Duration = "five guesses in a minute", 90*time.Minute
	m := describe(d, "pbx.example.net")
	if m.Title != "Ringwall on pbx.example.net: 10.0.0.1 is banned" ||
		m.Text != "Reason: unknown account, score 12, for 1h30m, at pbx1. five guesses in a minute" || m.Duration != "1h30m" {
		t.Errorf("%+v", m)
	}
	if m := describe(engine.Decision{Action: engine.Tampering}, "h"); m.Source != "" || m.Prefix != "" || !strings.Contains(m.Title, "tampers") {
		t.Errorf("%+v", m)
	}
}

func TestASummaryAddsUp(t *testing.T) {
	var s summary
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s.add(ban(1), start)
	s.add(ban(1), start.Add(time.Second))
	first := s.message("host", start)
	if first.Count != 2 || len(first.Prefixes) != 1 {
		t.Errorf("%+v", first)
	}
	var next summary
	next.add(breach(), start.Add(time.Minute))
	next.again(first, start)
	next.again(message.Message{Action: "ban", Prefix: "192.0.2.0/24"}, start.Add(time.Hour))
	next.join(summary{})
	next.join(s)
	m := next.message("host", start)
	if m.Count != 6 || len(m.Actions) != 2 || m.Actions[1].Count != 5 || !next.since.Equal(start) || len(m.Prefixes) != 3 ||
		!strings.Contains(m.Text, "1 breach, 5 ban") || !strings.Contains(m.Text, "2026-01-02 03:04:05") {
		t.Errorf("%+v", m)
	}
}

// Who is never banned is not said to be about to be.
func TestTheExemptWouldNotBeBanned(t *testing.T) {
	d := engine.Decision{Action: engine.Observe, Reason: engine.Allowed, Source: netip.MustParseAddr("127.0.0.1"),
		Prefix: netip.MustParsePrefix("127.0.0.1/32")}
	if m := describe(d, "pbx"); m.Title != "Ringwall on pbx: 127.0.0.1 attacks, but is on the allow list" {
		t.Errorf("%q", m.Title)
	}
	d.Reason = engine.Protected
	if m := describe(d, "pbx"); m.Title != "Ringwall on pbx: 127.0.0.1 looks like an attacker, but Asterisk knows it" {
		t.Errorf("%q", m.Title)
	}
}
