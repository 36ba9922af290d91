package doctor

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/ami/amiserver"
	"github.com/ringwall/ringwall/pkg/config"
)

func TestWhoAnswersAsHTTPManager(t *testing.T) {
	reply := func(path, text string) http.Handler {
		m := http.NewServeMux()
		m.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if r.FormValue("action") != "Logoff" {
				http.Error(w, "Response: Error", http.StatusForbidden)
				return
			}
			_, _ = w.Write([]byte(text))
		})
		return m
	}
	for name, row := range map[string]struct {
		h    http.Handler
		want bool
	}{
		"rawman":            {reply("/rawman", "Response: Goodbye\r\nMessage: Thanks for all the fish.\r\n"), true},
		"under its prefix":  {reply("/asterisk/rawman", "Response: Goodbye\r\n"), true},
		"only a web server": {reply("/", "welcome"), false},
		"a redirect":        {http.RedirectHandler("/rawman", http.StatusFound), false},
	} {
		for _, secure := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				start := httptest.NewServer
				if secure {
					start = httptest.NewTLSServer
				}
				s := start(row.h)
				defer s.Close()
				client := probeClient()
				if got := answersRawman(t.Context(), client, s.URL); got != row.want {
					t.Errorf("%t", got)
				}
			})
		}
	}
	if answersRawman(t.Context(), probeClient(), "http://"+closed(t)) {
		t.Error("nobody answered")
	}
	if answersRawman(t.Context(), probeClient(), "http://"+speaker("SSH-2.0\r\n")(t)) {
		t.Error("SSH answered")
	}
}

func TestWhoAnswersAsManager(t *testing.T) {
	if probeManager(t.Context(), serve(t, amiserver.User{}), false) != answers {
		t.Error("an AMI was not recognised")
	}
	if probeManager(t.Context(), speaker("220 mail\r\n")(t), false) != silence ||
		probeManager(t.Context(), closed(t), false) != silence {
		t.Error("something else was")
	}
	if probeManager(t.Context(), speaker("")(t), false) != hangsUp {
		t.Error("an AMI whose authlimit is reached was not recognised")
	}
}

// A full AMI is one that others can reach, though it greets nobody: after a restart Ringwall is kept out by it, too.
func TestAnAMIThatGreetsNobodyIsNotTakenForUnreachable(t *testing.T) {
	for name, row := range map[string]struct {
		serve func(*testing.T) string
		want  Result
		words []string
	}{
		"open": {func(t *testing.T) string { return serve(t, amiserver.User{}) }, Warn,
			[]string{"authlimit", "after a restart Ringwall too", "bindaddr = 127.0.0.1"}},
		// Asterisk ends every connection before a word while as many sessions as authlimit allows wait for a login.
		"full":   {speaker(""), Warn, []string{"authlimit", "hangs up", "bindaddr = 127.0.0.1", "permit ="}},
		"closed": {closed, OK, []string{"not reachable"}},
	} {
		t.Run(name, func(t *testing.T) {
			host, port, err := net.SplitHostPort(row.serve(t))
			if err != nil {
				t.Fatal(err)
			}
			e := &exam{}
			e.examineBindAddress(t.Context(), e.subjectNamed("pbx"), config.Asterisk{},
				[]netip.Addr{netip.MustParseAddr(host)}, port)
			list := of(e.checks, checkBindAddress)
			if len(list) != 1 {
				t.Fatalf("%+v", e.checks)
			}
			is(t, list[0], row.want, row.words...)
		})
	}
}

func TestWhereAnAsteriskIs(t *testing.T) {
	e := &exam{Options: Options{Wait: time.Minute}, ownPrefixes: map[netip.Prefix]string{
		netip.MustParsePrefix("203.0.113.7/32"): "own address",
		netip.MustParsePrefix("203.0.113.1/32"): "default gateway",
		netip.MustParsePrefix("fe80::7/128"):    "own address", netip.MustParsePrefix("127.0.0.1/32"): "own address",
		netip.MustParsePrefix("127.0.0.0/8"): "loopback",
	}}
	for host, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "::ffff:127.0.0.1": true, "203.0.113.7": true, "203.0.113.1": false,
		"198.51.100.1": false, "localhost": true,
		"fe80::7%eth0": true,
	} {
		if a, local := e.resolveManager(t.Context(), host); local != want || !a.IsValid() {
			t.Errorf("%s is %v, local %t", host, a, local)
		}
	}
	if list := e.reachableAddresses(); len(list) != 1 || list[0] != netip.MustParseAddr("203.0.113.7") {
		t.Errorf("outside: %v", list)
	}
}

func TestNamesOfTheAllowListAreResolved(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e := &exam{Options: Options{ConfigPath: file(t, "127.0.0.1:1",
		"policy: {allow: [localhost.localdomain, no-such-host.invalid, 192.0.2.0/24]}\n"), Wait: 2 * time.Second}}
	e.lookupHost = func(_ context.Context, _, host string) ([]netip.Addr, error) { // no name server is asked, which may be slow
		if host == "localhost.localdomain" {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	e.examineConfiguration(ctx)
	e.examinePolicy(ctx)
	list := of(e.checks, "allow")
	if len(list) != 2 {
		t.Fatalf("%+v", e.checks)
	}
	is(t, list[1], Warn, "no-such-host.invalid", "policy.allow")
}
