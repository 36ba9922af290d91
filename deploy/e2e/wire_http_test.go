package e2e

import (
	"crypto/md5" // RFC 7616
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/pkg/httphead"
)

// askHTTP sends a request as it is, and returns what came back in the first segment, which has the head.
func askHTTP(t *testing.T, l *lab.Lab, name, request string) (answer string) {
	t.Helper()
	conn, err := l.DialContext(t.Context(), lab.Attacker, "tcp", "10.99.0.1:8088")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<16)
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	n, err := conn.Read(b)
	if err != nil && err != io.EOF {
		t.Fatalf("%s: %v", name, err)
	}
	writeRecording(t, "httphead/testdata/"+name+"-request.http", []byte(request))
	writeRecording(t, "httphead/testdata/"+name+"-answer.http", b[:n])
	return string(b[:n])
}

func httpRequest(target string, headers ...string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: pbx\r\nConnection: close\r\n" +
		strings.Join(append(headers, "", ""), "\r\n")
}

func basic(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// digest answers the challenge in an answer.
func digest(answer, user, password, target string) string {
	parameter := func(name string) string {
		_, value, _ := strings.Cut(answer, name+`="`)
		value, _, _ = strings.Cut(value, `"`)
		return value
	}
	hash := func(parts ...string) string {
		sum := md5.Sum([]byte(strings.Join(parts, ":")))
		return hex.EncodeToString(sum[:])
	}
	realm, nonce := parameter("realm"), parameter("nonce")
	response := hash(hash(user, realm, password), nonce, "00000001", "0123", "auth", hash("GET", target))
	return fmt.Sprintf(`Authorization: Digest username="%s", realm="%s", nonce="%s", uri="%s", algorithm=MD5, qop=auth, `+
		`nc=00000001, cnonce="0123", opaque="%s", response="%s"`, user, realm, nonce, target, parameter("opaque"), response)
}

func httpHeads(t *testing.T, l *lab.Lab) {
	session := l.DialAMI(t, reader)
	const invented = `realm="asterisk" nonce="00000000"`
	const login = "action=login&username=reader&secret="
	webSocket := []string{"Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: sip",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="} // RFC 6455, section 1.3
	events := 0 // InvalidPassword and InvalidAccountID of the manager, which Asterisk writes by itself
	for _, c := range []struct {
		name, request string
		status        int
		challenge     httphead.Scheme
		events        int
	}{
		{"ari-none", httpRequest("/ari/asterisk/info"), 401, httphead.Basic, 0},
		{"ari-wrong", httpRequest("/ari/asterisk/info", basic("known", "wrong")), 401, httphead.Basic, 0},
		{"ari-unknown", httpRequest("/ari/asterisk/info", basic("nobody", "x")), 401, httphead.Basic, 0},
		{"ari-right", httpRequest("/ari/asterisk/info", basic("known", "right")), 200, 0, 0},
		{"ari-key-wrong", httpRequest("/ari/asterisk/info?api_key=known:wrong"), 401, httphead.Basic, 0},
		{"ari-key-right", httpRequest("/ari/asterisk/info?api_key=known%3Aright"), 200, 0, 0},
		{"ari-two", httpRequest("/ari/asterisk/info?api_key=known:right", basic("known", "wrong")), 401,
			httphead.Basic, 0},
		{"ari-case", httpRequest("/ARI/asterisk/info", "AUTHORIZATION:basic "+strings.Fields(basic("known", "wrong"))[2]),
			401, httphead.Basic, 0},
		{"rawman-wrong", httpRequest("/rawman?" + login + "wrong"), 200, 0, 1},
		{"rawman-right", httpRequest("/rawman?" + login + reader.Secret()), 200, 0, 0},
		{"manager-wrong", httpRequest("/manager?" + login + "wrong"), 200, 0, 1},
		{"mxml-unknown", httpRequest("/mxml?action=login&username=nobody&secret=x"), 200, 0, 1},
		{"rawman-post-wrong", "POST /rawman HTTP/1.1\r\nHost: pbx\r\nContent-Type: application/x-www-form-urlencoded\r\n" +
			fmt.Sprintf("Content-Length: %d\r\n\r\n%swrong", len(login+"wrong"), login), 200, 0, 1},
		{"arawman-none", httpRequest("/arawman?action=ping"), 401, httphead.Digest, 0},
		// Asterisk takes a nonce that it never gave, so that no guess needs a challenge.
		{"arawman-invented-right", httpRequest("/arawman?action=ping", digest(invented, "reader", reader.Secret(),
			"/arawman?action=ping")), 200, 0, 0},
		{"arawman-invented-wrong", httpRequest("/arawman?action=ping", digest(invented, "reader", "wrong",
			"/arawman?action=ping")), 401, httphead.Digest, 0},
		{"nowhere", httpRequest("/phpmyadmin/"), 404, 0, 0},
		{"httpstatus", httpRequest("/httpstatus"), 404, 0, 0},
		{"odd-method", "FOO / HTTP/1.1\r\nConnection: close\r\n\r\n", 404, 0, 0},
		{"long", httpRequest("/" + strings.Repeat("a", 5000)), 400, 0, 0},
		{"websocket", httpRequest("/ws", append(webSocket, "Connection: Upgrade")...), 101, 0, 0},
		{"ari-websocket", httpRequest("/ari/events?app=x&api_key=known:wrong", webSocket...), 401, httphead.Basic, 0},
	} {
		answer := askHTTP(t, l, c.name, c.request)
		var h httphead.Head
		if err := httphead.Parse([]byte(answer), &h); err != nil || h.Status != c.status || h.Scheme != c.challenge ||
			h.Stale || h.Size == 0 || h.WebSocket != (c.status == 101) {
			t.Errorf("%s: %+v, %v, of %q", c.name, h, err, answer)
		}
		events += c.events
	}
	for _, place := range []string{"arawman", "amanager", "amxml"} {
		target := "/" + place + "?action=ping"
		for _, try := range []struct {
			name, user, password string
			status               int
		}{{"wrong", "reader", "wrong", 401}, {"unknown", "nobody", "x", 401}, {"right", "reader", reader.Secret(), 200}} {
			challenge := askHTTP(t, l, place+"-none", httpRequest(target))
			answer := askHTTP(t, l, place+"-"+try.name,
				httpRequest(target, digest(challenge, try.user, try.password, target)))
			var h httphead.Head
			if err := httphead.Parse([]byte(answer), &h); err != nil || h.Status != try.status || h.Stale {
				t.Errorf("%s %s: %+v, %v, of %q", place, try.name, h, err, answer)
			}
		}
	}
	for range events {
		if _, err := session.TakeFrame(func(f lab.Frame) bool {
			return f.Event() == "InvalidPassword" || f.Event() == "InvalidAccountID"
		}); err != nil {
			t.Error(err)
		}
	}
}
