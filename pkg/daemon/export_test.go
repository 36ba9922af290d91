package daemon

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
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
