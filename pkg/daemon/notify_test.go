package daemon

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/notify/message"
)

// hooks is a server that takes messages of the generic template.
func hooks(t *testing.T) (url string, messages chan message.Message) {
	t.Helper()
	messages = make(chan message.Message, 100)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m message.Message
		if body, err := io.ReadAll(r.Body); err != nil || json.Unmarshal(body, &m) != nil {
			t.Errorf("%s, %v", body, err)
		}
		messages <- m
	}))
	t.Cleanup(server.Close)
	return server.URL, messages
}

func hookTo(url string) config.Notify {
	n := config.DefaultNotify()
	n.Name, n.URL, n.Method = "team", config.NewSecret(url), http.MethodPost
	return n
}

func awaitMessage(t *testing.T, messages chan message.Message) message.Message {
	t.Helper()
	select {
	case m := <-messages:
		return m
	case <-time.After(patience):
		t.Fatal("nobody was notified")
	}
	return message.Message{}
}

func TestABanIsTold(t *testing.T) {
	url, messages := hooks(t)
	r := newRig(t, func(c *config.Config) { c.Notify = []config.Notify{hookTo(url)} })
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32") // the hook of the options is called as well
	m := awaitMessage(t, messages)
	if m.Action != "ban" || m.Prefix != "203.0.113.66/32" || m.Reason != "unknown_account" || m.PBX != "pbx1" ||
		m.Account == "" {
		t.Errorf("%+v", m)
	}
	r.until("the metric counts it", func() bool {
		families, err := r.d.metrics.Registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, metric := range f.GetMetric() {
				labels := fmt.Sprint(metric.GetLabel())
				if f.GetName() == "ringwall_notifications_total" && strings.Contains(labels, "team") &&
					strings.Contains(labels, "sent") {
					return metric.GetCounter().GetValue() == 1
				}
			}
		}
		return false
	})
}

// TestAHangingTargetDelaysNoBan also ends the daemon while the target hangs.
func TestAHangingTargetDelaysNoBan(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(release) })
	r := newRig(t, func(c *config.Config) {
		n := hookTo(server.URL)
		n.Timeout = 5 * time.Minute
		c.Notify = []config.Notify{n}
	})
	for i := range 10 {
		r.attack(fmt.Sprintf("IPV4/UDP/203.0.113.%d/5060", 10+i))
		r.await(ban.ActionBan, fmt.Sprintf("203.0.113.%d/32", 10+i))
	}
	r.stop()
}

func TestReloadChangesTargets(t *testing.T) {
	first, before := hooks(t)
	second, after := hooks(t)
	r := newRig(t, func(c *config.Config) { c.Notify = []config.Notify{hookTo(first)} })
	file := filepath.Join(t.TempDir(), "ringwall.yaml")
	text := fmt.Sprintf("asterisk:\n  - {name: pbx1, address: %q, username: ringwall, secret: s3cret}\ncontrol: "+
		"{socket: %s}\n"+
		"metrics: {listen: \"127.0.0.1:0\"}\nnotify:\n  - {url: %q, actions: [ban]}\n", r.address, r.cfg.Control.Socket,
		second)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r.d.config.path = file
	r.attack(attacker)
	if m := awaitMessage(t, before); m.Action != "ban" {
		t.Errorf("before the reload: %+v", m)
	}
	r.d.Reload(t.Context())
	r.attack("IPV4/UDP/203.0.113.67/5060")
	if m := awaitMessage(t, after); m.Prefix != "203.0.113.67/32" {
		t.Errorf("after the reload: %+v", m)
	}
	if len(before) != 0 {
		t.Errorf("the old target is told: %+v", <-before)
	}
}

// TestTheLastDecisionIsTold stops the daemon right behind a ban.
func TestTheLastDecisionIsTold(t *testing.T) {
	url, messages := hooks(t)
	r := newRig(t, func(c *config.Config) { c.Notify = []config.Notify{hookTo(url)} })
	r.attack(attacker)
	r.await(ban.ActionBan, "203.0.113.66/32")
	r.stop()
	select {
	case <-messages:
	default:
		t.Error("the daemon ended before it told of its last ban")
	}
}
