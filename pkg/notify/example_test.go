package notify

import (
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ringwall/ringwall/pkg/config"
)

// TestTheExampleDelivers sends a breach to every web address of examples/notify.yaml, a server of the test's in its
// place.
func TestTheExampleDelivers(t *testing.T) {
	env := config.Environment{Lookup: func(name string) (string, bool) {
		if strings.HasSuffix(name, "_URL") {
			return "https://hooks.example.com/x", true
		}
		return "s3cret", true
	}, Open: func(string) (fs.File, error) {
		return fstest.MapFS{"secret": {Data: []byte("s3cret"), Mode: 0o600}}.Open("secret")
	}}
	cfg, _, err := config.Load("../../examples/notify.yaml", env)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	got := map[string]string{}
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got[strings.Trim(r.URL.Path, "/")] = string(body)
		if !json.Valid(body) || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s got %q", r.URL, body)
		}
	})
	var targets []config.Notify
	want := 0
	for _, n := range cfg.Notify {
		if len(n.Exec) > 0 || n.SMTP.Host != "" { // deploy/mail has a server for it
			continue
		}
		n.URL = config.NewSecret(s.URL + "/" + n.Name)
		n.Actions, n.Reasons = []string{"breach"}, nil
		targets = append(targets, n)
		want++
	}
	b := new(book)
	n, err := New(targets, b.options())
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, n)
	d := breach()
	d.Account = `"201`
	n.Push(d)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		mu.Lock()
		n := len(got)
		mu.Unlock()
		if n == want {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d: %s", n, want, b)
		}
	}
	stop()
	for _, part := range []string{"slack", "discord", "telegram", "ntfy", "matrix", "inventory", "pushover"} {
		if !strings.Contains(got[part], "201") {
			t.Errorf("%s got %q", part, got[part])
		}
	}
}
