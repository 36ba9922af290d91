package replay_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/ringwall/ringwall/pkg/ban"
)

// field plays the recordings of one case, each by itself.
func field(t *testing.T, pattern string, check func(t *testing.T, r result)) {
	t.Helper()
	files, err := filepath.Glob("testdata/field/" + pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %q, %v", pattern, files, err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) { check(t, run(t, nil, name)) })
	}
}

// names are the accounts of the decisions of one action, each once.
func (r result) names(action ban.Action) (names []string) {
	for _, d := range r.decisions {
		if d.Action == action && !slices.Contains(names, d.Account) {
			names = append(names, d.Account)
		}
	}
	return names
}

// wantNobodyBanned wants no ban, not even an observed one, and nobody to lose trust by failing.
func (r result) wantNobodyBanned(t *testing.T) {
	t.Helper()
	if r.Bans+r.Observed > 0 || slices.ContainsFunc(r.decisions, func(d ban.Decision) bool {
		return d.Action == ban.ActionUntrust && d.Reason != ban.ReasonExpired
	}) {
		t.Errorf("%q", briefs(r.decisions))
	}
}

// wantNames wants exactly these accounts in the decisions of an action.
func (r result) wantNames(t *testing.T, action ban.Action, want ...string) {
	t.Helper()
	if got := r.names(action); !slices.Equal(got, want) {
		t.Errorf("%s: accounts %q, want %q; %q", action, got, want, briefs(r.decisions))
	}
}

// TestOfficeWithADeletedExtension has an office of forty phones, one of which belongs to an extension that was deleted,
// and such a phone alone in a new branch.
func TestOfficeWithADeletedExtension(t *testing.T) {
	field(t, "deleted-extension/*", func(t *testing.T, r result) {
		r.wantNobodyBanned(t)
		r.wantNames(t, ban.ActionMisconfigured, "217")
	})
}

// TestOfficeWithAnOldManagerSecret has an office of forty phones, and a program there whose manager secret is last
// week's, or whose address the manager's ACL forbids.
func TestOfficeWithAnOldManagerSecret(t *testing.T) {
	field(t, "old-manager-secret/*", func(t *testing.T, r result) {
		r.wantNobodyBanned(t)
		r.wantNames(t, ban.ActionMisconfigured, "crm")
	})
}
