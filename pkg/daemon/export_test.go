package daemon

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
)

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func TestBansAreExported(t *testing.T) {
	t.Parallel()
	address, file := freePort(t), filepath.Join(t.TempDir(), "bans.txt")
	r := newRig(t, func(c *config.Config) {
		c.Export.Listen, c.Export.File = address, file
		c.Export.TokenFile, c.Export.Token = "/token", config.NewSecret("s3cret")
	})
	read := func(token string) (int, string) {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer func() { _ = res.Body.Close() }()
		text, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(text)
	}
	defer http.DefaultClient.CloseIdleConnections()
	if _, err := r.client.Ban(t.Context(), api.BanRequest{Prefix: netip.MustParsePrefix("203.0.113.9/32"), For: time.Hour}); err != nil {
		t.Fatal(err)
	}
	r.attack("IPV4/UDP/203.0.113.66/5060") // which could be forged
	r.await("ban", "203.0.113.66/32")
	r.until("the ban is exported", func() bool {
		code, text := read("s3cret")
		return code == http.StatusOK && text == "203.0.113.9\n"
	})
	if code, text := read("wrong"); code != http.StatusUnauthorized || strings.Contains(text, "203") {
		t.Errorf("%d %q", code, text)
	}
	r.until("the file has it", func() bool {
		text, err := os.ReadFile(file)
		return err == nil && string(text) == "203.0.113.9\n"
	})
	if _, err := r.client.Unban(t.Context(), api.UnbanRequest{Prefix: netip.MustParsePrefix("203.0.113.9/32")}); err != nil {
		t.Fatal(err)
	}
	r.until("the file has it no more", func() bool {
		text, err := os.ReadFile(file)
		return err == nil && len(text) == 0
	})
}

// What deploy/docs/export.md shows is typed: curl reads the bans, is told when they are the same, and gets nothing
// without the token; nft reads what it got.
func TestCurlAndNftReadTheExport(t *testing.T) {
	t.Parallel()
	address, dir := freePort(t), t.TempDir()
	r := newRig(t, func(c *config.Config) {
		c.Export.Listen, c.Export.TokenFile, c.Export.Token = address, "/token", config.NewSecret("s3cret")
	})
	curl := func(arguments string) (code, text string) {
		t.Helper()
		path := filepath.Join(dir, "answer")
		_ = os.Remove(path)
		c := exec.CommandContext(t.Context(), "curl", append([]string{"-sS", "--noproxy", "*", "--max-time", "60", "-o", path,
			"-w", "%{http_code}"}, strings.Fields(arguments)...)...)
		c.Dir = dir
		out, err := c.CombinedOutput()
		if err != nil && !strings.Contains(arguments, "-f") {
			t.Fatalf("curl %s: %v\n%s", arguments, err, out)
		}
		answer, _ := os.ReadFile(path) // there is none where the answer is empty
		return string(out), string(answer)
	}
	ban := func(prefixes ...string) {
		t.Helper()
		for _, p := range prefixes {
			request := api.BanRequest{Prefix: netip.MustParsePrefix(p), For: time.Hour}
			if _, err := r.client.Ban(t.Context(), request); err != nil {
				t.Fatal(err)
			}
		}
	}
	ban("203.0.113.9/32", "198.51.100.0/24", "2001:db8:7::/64")
	at := "http://" + address + "/"
	r.until("all is in force", func() bool { code, _ := curl("-u edge:s3cret " + at); return code == "200" })

	for _, stranger := range []string{"", "-u edge:s3cre ", "-u s3cret: ", "-H Authorization:Bearer "} {
		if code, text := curl(stranger + at); code != "401" || strings.Contains(text, "203.0.113.9") {
			t.Errorf("%q: %s %q", stranger, code, text)
		}
	}
	tagged := "-u edge:s3cret --etag-save tag --etag-compare tag " + at
	if code, text := curl(tagged); code != "200" || text != "198.51.100.0/24\n203.0.113.9\n2001:db8:7::/64\n" {
		t.Errorf("%s %q", code, text)
	}
	if code, text := curl(tagged); code != "304" || text != "" {
		t.Errorf("the same again: %s %q", code, text)
	}
	ban("203.0.113.10/32")
	r.until("curl sees that there is another", func() bool {
		code, text := curl(tagged)
		return code == "200" && strings.Contains(text, "203.0.113.10\n")
	})

	load := func(want string) {
		t.Helper()
		code, _ := curl("-f -u edge:s3cret " + at + "?format=nft")
		if out, err := r.space.Run(exec.Command("nft", "-f", filepath.Join(dir, "answer"))); err != nil || code != "200" {
			t.Fatalf("%s, %v\n%s", code, err, out)
		}
		out := r.nft("list table inet ringwall_export")
		for part := range strings.FieldsSeq(want) {
			if there := strings.Contains(out, strings.TrimPrefix(part, "!")); there == strings.HasPrefix(part, "!") {
				t.Errorf("want %s in\n%s", part, out)
			}
		}
	}
	load("198.51.100.0/24 203.0.113.9-203.0.113.10 2001:db8:7::/64")
	over := api.UnbanRequest{Prefix: netip.MustParsePrefix("198.51.100.0/24")}
	if _, err := r.client.Unban(t.Context(), over); err != nil {
		t.Fatal(err)
	}
	r.until("curl sees that one is over", func() bool { _, text := curl(tagged); return strings.HasPrefix(text, "203.") })
	load("!198.51.100.0/24 203.0.113.9-203.0.113.10 2001:db8:7::/64")
}

func TestWhichBansAreExported(t *testing.T) {
	for name, r := range map[string]struct {
		ban         ban.Ban
		all, proven bool
	}{
		"proven":      {ban.Ban{Proven: true, Scope: ban.ScopeSource}, true, true},
		"by a person": {ban.Ban{Manual: true, Scope: ban.ScopeNetwork}, true, true},
		"forgeable":   {ban.Ban{Scope: ban.ScopeSource}, true, false},
		"one service": {ban.Ban{Proven: true, Scope: ban.ScopeService}, true, false},
		"observed":    {ban.Ban{Proven: true, Scope: ban.ScopeSource, Observed: true}, false, false},
	} {
		if isExported(&r.ban, false) != r.all || isExported(&r.ban, true) != r.proven {
			t.Error(name)
		}
	}
}
