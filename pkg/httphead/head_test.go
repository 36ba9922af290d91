package httphead

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// request is a whole one.
func request(target string, headers ...string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: pbx\r\n" + strings.Join(append(headers, "", ""), "\r\n")
}

func basic(credentials string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
}

func TestParseRequest(t *testing.T) {
	long := strings.Repeat("n", 200)
	for name, c := range map[string]struct {
		text     string
		path     Path
		scheme   Scheme
		username string
		login    bool
	}{
		"nothing given":              {request("/ari/x"), ARI, NoScheme, "", false},
		"Basic":                      {request("/ari/x", basic("100:secret")), ARI, Basic, "100", false},
		"Basic without a password":   {request("/ari/x", basic("100")), ARI, Basic, "100", false},
		"Basic of nothing":           {request("/ari/x", "Authorization: Basic "), ARI, Basic, "", false},
		"Basic of bad base64":        {request("/ari/x", "Authorization: Basic MTAw*OnNlY3JldA=="), ARI, Basic, "100", false},
		"Basic of odd bytes":         {request("/ari/x", basic("a\xff\x00b:c")), ARI, Basic, "a\xff\x00b", false},
		"Basic of a long name":       {request("/ari/x", basic(long+":x")), ARI, Basic, long[:80], false},
		"another case, no blank":     {request("/ARI", "AUTHORIZATION:bASIC MTAwOng="), ARI, Basic, "100", false},
		"a blank before the colon":   {request("/ari", "Authorization : Basic MTAwOng="), ARI, Basic, "100", false},
		"the first Basic":            {request("/ari", basic("a:x"), basic("b:x")), ARI, Basic, "a", false},
		"Basic after a token":        {request("/ari", "Authorization: Bearer abc", basic("b:x")), ARI, Basic, "b", false},
		"a token":                    {request("/ari", "Authorization: Bearer abc"), ARI, OtherScheme, "", false},
		"an API key":                 {request("/ari/events?app=x&api_key=100:secret"), ARI, APIKey, "100", false},
		"an escaped API key":         {request("/ari?api_key=a%20b%3asecret"), ARI, APIKey, "a b", false},
		"the first API key":          {request("/ari?api_key=a:x&api_key=b:x"), ARI, APIKey, "a", false},
		"a header before an API key": {request("/ari?api_key=a:x", basic("b:x")), ARI, Basic, "b", false},
		"an API key before a token":  {request("/ari?api_key=a:x", "Authorization: Bearer abc"), ARI, APIKey, "a", false},
		"an API key elsewhere":       {request("/rawman?api_key=a:x"), Rawman, NoScheme, "", false},
		"Digest": {request("/arawman?action=ping", `Authorization: Digest username="100", realm="asterisk", nonce="1"`),
			ARawman, Digest, "100", false},
		"Digest, the name last": {request("/amxml", `Authorization: Digest realm="a, username=\"x\"",u = "/", username=100`),
			AMXML, Digest, "100", false},
		"cut":                     {request("/amanager", `Authorization: Digest username="1`), AManager, Digest, "1", false},
		"Digest without a name":   {request("/amanager", `Authorization: Digest a,b=,=,"`), AManager, Digest, "", false},
		"a login":                 {request("/rawman?action=login&username=100&secret=x"), Rawman, NoScheme, "100", true},
		"a login, the name first": {request("/mxml?username=a+b%2Fc&Action=LOGIN&secret=x"), MXML, NoScheme, "a b/c", true},
		"two names":               {request("/manager?action=login&username=a&username=b"), Manager, NoScheme, "a", true},
		"another action":          {request("/manager?action=ping&username=a"), Manager, NoScheme, "", false},
		"a login with Digest":     {request("/arawman?action=login&username=a"), ARawman, NoScheme, "", false},
		"behind a prefix":         {request("/asterisk/rawman?action=login&username=a"), Rawman, NoScheme, "a", true},
		"a like name":             {request("/ariel/rawmanual"), OtherPath, NoScheme, "", false},
		"nowhere":                 {request("/"), OtherPath, NoScheme, "", false},
		"the status":              {request("/httpstatus"), HTTPStatus, NoScheme, "", false},
		"a file":                  {request("/static/ajamdemo.html"), Static, NoScheme, "", false},
		"a body": {"POST /rawman HTTP/1.1\r\nContent-Length: 36\r\n\r\naction=login&username=100&secret=xyz",
			Rawman, NoScheme, "100", true},
		"a body that is cut": {"POST /rawman HTTP/1.1\r\n\r\naction=login&usern", Rawman, NoScheme, "", true},
		"a body of another":  {"POST /ari/channels HTTP/1.1\r\n\r\naction=login&username=100", ARI, NoScheme, "", false},
		"LF alone":           {"GET /ari HTTP/1.1\nAuthorization: Basic MTAwOng=\n\n", ARI, Basic, "100", false},
		"no version":         {"GET /ari?api_key=100:x\r\n\r\n", ARI, APIKey, "100", false},
		"a method of nobody": {"PROPFIND /ari HTTP/1.1\r\n" + basic("100:x") + "\r\n\r\n", ARI, Basic, "100", false},
		"half a head":        {"GET /ari HTTP/1.1\r\n" + basic("100:x") + "\r\nHo", ARI, Basic, "100", false},
		"half a header":      {"GET /ari HTTP/1.1\r\nAuthorization: Basic MTA", ARI, NoScheme, "", false},
		"half a target":      {"GET /ari/channels/1234", ARI, NoScheme, "", false},
	} {
		var h Head
		if err := Parse([]byte(c.text), &h); err != nil || h.Path != c.path || h.Scheme != c.scheme ||
			string(h.Username()) != c.username || h.Login != c.login || h.Status != 0 || h.WebSocket ||
			!strings.HasPrefix(c.text, string(h.Method)+" ") {
			t.Errorf("%s: %s %s, %d, %q, %v, %v", name, h.Method, h.Path, h.Scheme, h.Username(), h.Login, err)
		}
		if h.HasCredentials() != (c.scheme != NoScheme || c.login) {
			t.Errorf("%s: has credentials: %v", name, h.HasCredentials())
		}
		size := strings.Index(c.text, "\r\n\r\n") + len("\r\n\r\n")
		if name == "LF alone" {
			size = len(c.text)
		}
		if strings.HasPrefix(name, "half") {
			size = 0
		}
		if h.Size != size {
			t.Errorf("%s: a head of %d bytes, want %d", name, h.Size, size)
		}
	}
}

func TestParseAnswer(t *testing.T) {
	answer := func(line string, headers ...string) string {
		return line + "\r\n" + strings.Join(append(headers, "", ""), "\r\n")
	}
	for name, c := range map[string]struct {
		text      string
		status    int
		scheme    Scheme
		stale     bool
		webSocket bool
	}{
		"good":        {answer("HTTP/1.1 200 OK"), 200, NoScheme, false, false},
		"no reason":   {answer("HTTP/1.1 404"), 404, NoScheme, false, false},
		"version 1.0": {answer("HTTP/1.0 403 Forbidden"), 403, NoScheme, false, false},
		"Basic":       {answer("HTTP/1.1 401 No", `WWW-Authenticate: Basic realm="x"`), 401, Basic, false, false},
		"Digest":      {answer("HTTP/1.1 401 No", `WWW-authenticate: Digest realm="x", n="1"`), 401, Digest, false, false},
		"an old nonce": {answer("HTTP/1.1 401 No", `WWW-authenticate: Digest realm="stale=false", stale=true`),
			401, Digest, true, false},
		"no old nonce":            {answer("HTTP/1.1 401 No", `WWW-authenticate: Digest stale=FALSE`), 401, Digest, false, false},
		"a WebSocket":             {answer("HTTP/1.1 101 Switching", "Upgrade: WebSocket"), 101, NoScheme, false, true},
		"an offer of one":         {answer("HTTP/1.1 426 Upgrade", "Upgrade: websocket"), 426, NoScheme, false, false},
		"what only a request has": {answer("HTTP/1.1 200 OK", basic("a:b")), 200, NoScheme, false, false},
	} {
		var h Head
		if err := Parse([]byte(c.text), &h); err != nil || h.Status != c.status || h.Scheme != c.scheme ||
			h.Stale != c.stale || h.WebSocket != c.webSocket || h.HasCredentials() || h.Size != len(c.text) ||
			h.Method != nil {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{"", "\r\n", "GET", "GET ", "GET  ", "get /ari HTTP/1.1\r\n", "GET ari HTTP/1.1\r\n",
		"GET http://pbx/ari HTTP/1.1\r\n", "OPTIONS sip:100@pbx SIP/2.0\r\n", "REGISTER / SIP/2.0\r\n", "FOO /",
		"SIP/2.0 401 Unauthorized\r\n", "HTTP/1.1 99 x\r\n", "HTTP/1.1 1000 x\r\n", "HTTP/1.1 4x1 x\r\n", "HTTP/2 200\r\n",
		"HTTP/1.1  401\r\n", "HTTP/1.1 600 x\r\n", "HTTP/1.1 40", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "\x81\x85abcd",
		"<html>GET /ari HTTP/1.1\r\n", strings.Repeat("A", 40) + " / HTTP/1.1\r\n"} {
		var h Head
		if err := Parse([]byte(text), &h); err != ErrNotHTTP || h.Status != 0 || h.Method != nil {
			t.Errorf("%q: %+v, %v", text, h, err)
		}
	}
}

// A password is in nothing that is returned, nor beside it.
func TestPasswordsAreNotKept(t *testing.T) {
	for _, text := range []string{request("/ari?api_key=100:hunter2"), request("/ari", basic("100:hunter2")),
		request("/rawman?action=login&username=100&secret=hunter2"), request("/rawman?secret=hunter2&action=login"),
		request("/ari?api_key=100%3ahunter2")} {
		var h Head
		if err := Parse([]byte(text), &h); err != nil || bytes.Contains(h.username[:], []byte("hunter2")) {
			t.Errorf("%q: %q, %v", text, h.username, err)
		}
	}
}

func TestPathNames(t *testing.T) {
	for p := range numPaths {
		if p != OtherPath && pathOf([]byte("/"+p.String())) != p {
			t.Errorf("%d is %q", p, p)
		}
	}
	if Path(200).String() != "other" || ARI.WritesSecurityEvents() || ARawman.WritesSecurityEvents() ||
		!MXML.WritesSecurityEvents() {
		t.Error("a place that there is not, or that reports what it does not")
	}
}

func readRecording(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".http"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What Asterisk 22 answered to each request (deploy/e2e records them).
func TestRecordings(t *testing.T) {
	for name, c := range map[string]struct {
		path      Path
		scheme    Scheme
		username  string
		login     bool
		status    int
		challenge Scheme
		webSocket bool
	}{
		"ari-none":               {ARI, NoScheme, "", false, 401, Basic, false},
		"ari-wrong":              {ARI, Basic, "known", false, 401, Basic, false},
		"ari-case":               {ARI, Basic, "known", false, 401, Basic, false},
		"ari-unknown":            {ARI, Basic, "nobody", false, 401, Basic, false},
		"ari-right":              {ARI, Basic, "known", false, 200, NoScheme, false},
		"ari-two":                {ARI, Basic, "known", false, 401, Basic, false},
		"ari-key-wrong":          {ARI, APIKey, "known", false, 401, Basic, false},
		"ari-key-right":          {ARI, APIKey, "known", false, 200, NoScheme, false},
		"ari-websocket":          {ARI, APIKey, "known", false, 401, Basic, true},
		"rawman-wrong":           {Rawman, NoScheme, "reader", true, 200, NoScheme, false},
		"rawman-right":           {Rawman, NoScheme, "reader", true, 200, NoScheme, false},
		"rawman-post-wrong":      {Rawman, NoScheme, "reader", true, 200, NoScheme, false},
		"manager-wrong":          {Manager, NoScheme, "reader", true, 200, NoScheme, false},
		"mxml-unknown":           {MXML, NoScheme, "nobody", true, 200, NoScheme, false},
		"arawman-none":           {ARawman, NoScheme, "", false, 401, Digest, false},
		"arawman-wrong":          {ARawman, Digest, "reader", false, 401, Digest, false},
		"arawman-unknown":        {ARawman, Digest, "nobody", false, 401, Digest, false},
		"arawman-right":          {ARawman, Digest, "reader", false, 200, NoScheme, false},
		"arawman-invented-wrong": {ARawman, Digest, "reader", false, 401, Digest, false},
		"arawman-invented-right": {ARawman, Digest, "reader", false, 200, NoScheme, false},
		"amanager-wrong":         {AManager, Digest, "reader", false, 401, Digest, false},
		"amxml-wrong":            {AMXML, Digest, "reader", false, 401, Digest, false},
		"nowhere":                {OtherPath, NoScheme, "", false, 404, NoScheme, false},
		"httpstatus":             {HTTPStatus, NoScheme, "", false, 404, NoScheme, false},
		"odd-method":             {OtherPath, NoScheme, "", false, 404, NoScheme, false},
		"long":                   {OtherPath, NoScheme, "", false, 400, NoScheme, false},
		"websocket":              {WS, NoScheme, "", false, 101, NoScheme, true},
	} {
		var h Head
		if err := Parse(readRecording(t, name+"-request"), &h); err != nil || h.Path != c.path || h.Scheme != c.scheme ||
			string(h.Username()) != c.username || h.Login != c.login || h.Size == 0 || h.WebSocket != c.webSocket {
			t.Errorf("%s: %s, %q, %+v, %v", name, h.Path, h.Username(), h, err)
		}
		if err := Parse(readRecording(t, name+"-answer"), &h); err != nil || h.Status != c.status ||
			h.Scheme != c.challenge || h.Size == 0 || h.WebSocket != (c.status == 101) {
			t.Errorf("%s: answer %+v, %v", name, h, err)
		}
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	texts := [][]byte{readRecording(t, "ari-wrong-request"), readRecording(t, "arawman-wrong-request"),
		readRecording(t, "arawman-wrong-answer"), readRecording(t, "rawman-post-wrong-request"), []byte("\x16\x03")}
	var h Head
	if n := testing.AllocsPerRun(100, func() {
		for _, b := range texts {
			_ = Parse(b, &h)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParse(b *testing.B) {
	for _, name := range []string{"ari-wrong-request", "ari-wrong-answer", "arawman-wrong-request"} {
		text := readRecording(b, name)
		b.Run(name, func(b *testing.B) {
			var h Head
			b.ReportAllocs()
			for b.Loop() {
				if err := Parse(text, &h); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	names, err := filepath.Glob("testdata/*.http")
	if err != nil || len(names) == 0 {
		f.Fatal(names, err)
	}
	for _, name := range names {
		f.Add(readRecording(f, strings.TrimSuffix(filepath.Base(name), ".http")), uint16(200))
	}
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		before := bytes.Clone(b)
		var h Head
		err := Parse(b, &h)
		if !bytes.Equal(before, b) {
			t.Fatal("the bytes were changed")
		}
		if err != nil {
			if h.Method != nil || h.Status != 0 || h.HasCredentials() || h.length != 0 {
				t.Fatalf("half a head: %+v", h)
			}
			return
		}
		if (h.Status == 0) == (h.Method == nil) || h.Size > len(b) || len(h.Username()) > longestUsername ||
			h.Path >= numPaths || h.Status != 0 && (h.Status < 100 || h.Status > 599) {
			t.Fatalf("%+v of %q", h, b)
		}
		if h.Size > 0 {
			head := bytes.TrimSuffix(b[:h.Size], []byte("\n"))
			if last := head[bytes.LastIndexByte(head, '\n')+1:]; len(bytes.Trim(last, " \t\r")) > 0 {
				t.Fatalf("no empty line ends %q", b[:h.Size])
			}
		}
		// What stands behind the head of a request that is no form changes nothing, and a cut makes it less, not another.
		status, size := h.Status, h.Size
		if size > 0 && string(h.Method) != "POST" {
			var again Head
			if err := Parse(b[:size], &again); err != nil || again.Size != size || again.Path != h.Path ||
				again.Scheme != h.Scheme || again.username != h.username || again.Login != h.Login {
				t.Fatalf("%+v, without what follows %+v, %v", h, again, err)
			}
		}
		if int(cut) < len(b) && status != 0 {
			var less Head
			if Parse(b[:cut], &less) == nil && less.Status != status {
				t.Fatalf("%d became %d", status, less.Status)
			}
		}
	})
}
