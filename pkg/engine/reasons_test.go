package engine

import (
	"testing"

	"github.com/ringwall/ringwall/pkg/ban"
)

// TestEveryReasonIsKeptAsItIs: evidence has a reason as one byte, and must not show another than it was given.
func TestEveryReasonIsKeptAsItIs(t *testing.T) {
	for _, r := range ban.Reasons() {
		if got := reasonList[reasonIndex(r)]; got != r {
			t.Errorf("evidence of %q would be shown as %q", r, got)
		}
	}
	for _, r := range evidenceTable() {
		if r.kind != kindNothing && reasonList[reasonIndex(r.reason)] != r.reason {
			t.Errorf("the row %+v has a reason that ban.Reasons does not list", r)
		}
	}
}
