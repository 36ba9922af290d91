package ban_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"

	"github.com/ringwall/ringwall/pkg/ban"
)

// constants returns the texts of a file's constants of a type, in their order.
func constants(t *testing.T, file, typ string) (texts []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); ok && name.Name == typ {
			text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, text)
		}
		return true
	})
	return texts
}

func TestNoActionAndNoReasonIsMissingInTheLists(t *testing.T) {
	t.Parallel()
	var actions, reasons []string
	for _, a := range ban.Actions() {
		actions = append(actions, string(a))
	}
	for _, r := range append(ban.Reasons(), ban.ReasonTest) {
		reasons = append(reasons, string(r))
	}
	if want := constants(t, "action.go", "Action"); !slices.Equal(actions, want) || len(want) < 10 {
		t.Errorf("actions %q, there are %q", actions, want)
	}
	if want := constants(t, "reason.go", "Reason"); !slices.Equal(reasons, want) || len(want) < 20 {
		t.Errorf("reasons %q, there are %q", reasons, want)
	}
}
