package export

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

func someBans() []Ban {
	until := time.Date(2026, 5, 6, 12, 0, 0, 5, time.UTC)
	return []Ban{
		{Prefix: netip.MustParsePrefix("203.0.113.9/32"), Until: until, Reason: "wrong_password", Proven: true},
		{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Until: until, Manual: true, Reason: "manual"},
		{Prefix: netip.MustParsePrefix("198.51.100.7/32"), Until: until, Reason: "unknown_account"},
		{Prefix: netip.MustParsePrefix("2001:db8::/64"), Until: until, Reason: "unknown_account"},
		{Prefix: netip.MustParsePrefix("203.0.113.9/32"), Until: until, Reason: "wrong_password", Proven: true},
	}
}

func TestText(t *testing.T) {
	for format, want := range map[Format]string{
		Plain: "198.51.100.0/24\n198.51.100.7\n203.0.113.9\n2001:db8::/64\n",
		MikroTik: `/ip firewall address-list remove [find list=ringwall]
/ip firewall address-list add list=ringwall address=198.51.100.0/24
/ip firewall address-list add list=ringwall address=198.51.100.7
/ip firewall address-list add list=ringwall address=203.0.113.9
/ipv6 firewall address-list remove [find list=ringwall]
/ipv6 firewall address-list add list=ringwall address=2001:db8::/64
`,
	} {
		if got := string(Text(format, someBans())); got != want {
			t.Errorf("%s:\n%s", format, got)
		}
	}
	if got := string(Text(JSON, someBans()[:1])); got != `{"bans":[{"prefix":"203.0.113.9/32","until":"2026-05-06T12:00:00Z",`+
		`"reason":"wrong_password","proven":true,"manual":false}]}`+"\n" {
		t.Error(got)
	}
	if got := string(Text(JSON, nil)); got != "{\"bans\":[]}\n" {
		t.Error(got)
	}
}

// nft reads what was written, twice, with networks that overlap, and leaves the rules that others made.
func TestNftReadsTheExport(t *testing.T) {
	space := netnstest.New(t)
	path := filepath.Join(t.TempDir(), "export.nft")
	load := func(bans []Ban) {
		t.Helper()
		if err := os.WriteFile(path, Text(NFT, bans), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := space.Run(exec.Command("nft", "-f", path)); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	load(nil)
	for _, line := range []string{"add chain inet ringwall_export in { type filter hook input priority 0; }",
		"add rule inet ringwall_export in ip saddr @ban4 drop"} {
		if out, err := space.Run(exec.Command("nft", line)); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	load(someBans())
	load(someBans()[:4])
	out, err := space.Run(exec.Command("nft", "list", "table", "inet", "ringwall_export"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"198.51.100.0/24", "203.0.113.9", "2001:db8::/64", "@ban4 drop"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
}

func TestHandler(t *testing.T) {
	bans, failed := someBans(), error(nil)
	h := &Handler{Format: Plain, Token: "s3cret", Bans: func(context.Context) ([]Ban, error) { return bans, failed }}
	server := httptest.NewServer(h)
	defer server.Close()
	ask := func(change func(*http.Request)) (*http.Response, string) {
		t.Helper()
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/", nil)
		change(r)
		answer, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return answer, string(text)
	}
	bearer := func(r *http.Request) { r.Header.Set("Authorization", "Bearer s3cret") }
	for name, stranger := range map[string]func(*http.Request){
		"nothing":     func(*http.Request) {},
		"a wrong one": func(r *http.Request) { r.Header.Set("Authorization", "Bearer s3cre") },
		"a password":  func(r *http.Request) { r.SetBasicAuth("s3cret", "") },
	} {
		if a, text := ask(stranger); a.StatusCode != http.StatusUnauthorized || strings.Contains(text, "203.0.113.9") {
			t.Errorf("with %s: %s %q", name, a.Status, text)
		}
	}
	a, text := ask(bearer)
	if a.StatusCode != http.StatusOK || !strings.Contains(text, "203.0.113.9\n") || a.Header.Get("ETag") == "" {
		t.Errorf("%s %q", a.Status, text)
	}
	if a, _ := ask(func(r *http.Request) { r.SetBasicAuth("edge", "s3cret") }); a.StatusCode != http.StatusOK {
		t.Error(a.Status)
	}
	same := func(r *http.Request) { bearer(r); r.Header.Set("If-None-Match", "W/"+a.Header.Get("ETag")) }
	if a, text := ask(same); a.StatusCode != http.StatusNotModified || text != "" {
		t.Errorf("%s %q", a.Status, text)
	}
	if a, text := ask(func(r *http.Request) { same(r); r.URL.RawQuery = "format=nft" }); a.StatusCode != http.StatusOK ||
		!strings.HasPrefix(text, "add table inet ringwall_export") {
		t.Errorf("%s %q", a.Status, text)
	}
	if a, _ := ask(func(r *http.Request) { bearer(r); r.URL.RawQuery = "format=csv" }); a.StatusCode != http.StatusBadRequest {
		t.Error(a.Status)
	}
	h.at, failed = time.Time{}, errors.New("later")
	if a, _ := ask(bearer); a.StatusCode != http.StatusServiceUnavailable {
		t.Error(a.Status)
	}
	h.at, failed, bans = time.Time{}, nil, bans[:1]
	if a, text := ask(same); a.StatusCode != http.StatusOK || text != "203.0.113.9\n" {
		t.Errorf("%s %q", a.Status, text)
	}
}
