package learn

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/pkg/asterisk/ami"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorded returns the reply that a real Asterisk gave.
func recorded(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "event", "testdata", "captures", "query-"+name+".ami"))
	if err != nil {
		t.Fatal(err)
	}
	_, reply, ok := strings.Cut(string(b), "Authentication accepted\r\n\r\n")
	if !ok {
		t.Fatalf("%s does not begin with a login", name)
	}
	// Some recordings end before the line that ends the frame.
	return strings.TrimRight(reply, "\r\n") + "\r\n\r\n"
}

// recordedAt is what the clock showed when the replies were recorded: their contacts expire within the hour.
func recordedAt() time.Time { return time.Date(2026, 11, 22, 22, 2, 40, 0, time.UTC) } // of query-Ping.ami

// list makes a reply of items, each a few lines; ActionID comes second in all.
func list(complete string, items ...string) string {
	var b strings.Builder
	b.WriteString("Response: Success\r\nActionID: q1\r\nEventList: start\r\nMessage: Result will follow\r\n\r\n")
	for _, it := range items {
		first, rest, _ := strings.Cut(it, "\n")
		b.WriteString(first + "\r\nActionID: q1\r\n" + strings.ReplaceAll(rest, "\n", "\r\n") + "\r\n\r\n")
	}
	b.WriteString("Event: " + complete + "\r\nActionID: q1\r\nEventList: Complete\r\nListItems: " +
		strconv.Itoa(len(items)) + "\r\n\r\n")
	return b.String()
}

func refusal(message string) string {
	return "Response: Error\r\nActionID: q1\r\nMessage: " + message + "\r\n\r\n"
}

const unknown = "Invalid/unknown command: X. Use Action: ListCommands to show available commands."

// pbx answers questions from a table: "Action" or "Action:value of its first header".
type pbx struct {
	mu      sync.Mutex
	replies map[string]string
	asked   []string
	away    bool
	before  func(action string) // runs without the lock
}

func newPBX() *pbx { return &pbx{replies: map[string]string{}} }

func (p *pbx) set(action, reply string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.replies[action] = reply
}

func (p *pbx) leave(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
}

func (p *pbx) questions() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.asked
	p.asked = nil
	return out
}

func (p *pbx) Action(ctx context.Context, name string, headers ...ami.Header) (*ami.Reply, error) {
	if p.before != nil {
		p.before(name)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return nil, ami.ErrNotConnected
	}
	key := name
	if len(headers) > 0 {
		if _, ok := p.replies[name+":"+headers[0].Value]; ok {
			key = name + ":" + headers[0].Value
		}
	}
	p.asked = append(p.asked, name)
	raw, ok := p.replies[key]
	switch {
	case !ok, raw == "denied":
		return nil, &ami.DeniedError{Action: name}
	case raw == "silence":
		p.mu.Unlock()
		<-ctx.Done()
		p.mu.Lock()
		return nil, ctx.Err()
	}
	r := &ami.Reply{}
	for i, f := range strings.Split(strings.TrimSuffix(raw, "\r\n\r\n"), "\r\n\r\n") {
		m, err := ami.ParseMessage(f)
		switch {
		case i > 0 && !strings.Contains(f, "\r\nActionID: q1"):
			r.Untagged = append(r.Untagged, f)
		case err != nil:
			r.Malformed = append(r.Malformed, f)
		case i == 0:
			r.Response = m
		case m.Get("EventList") == "Complete":
			r.Complete = m
		default:
			r.Events = append(r.Events, m)
		}
	}
	if r.Response.Get("Response") == "Error" {
		return r, &ami.ActionError{Action: name, Message: r.Response.Get("Message")}
	}
	return r, nil
}

// once asks one round of questions, as after a login.
func once(t testing.TB, p *pbx, change ...func(*Config)) Knowledge {
	t.Helper()
	l, _ := learner(p, change...)
	l.Connected()
	l.askRound(t.Context())
	return l.Knowledge()
}

func learner(p *pbx, change ...func(*Config)) (*Learner, *bytes.Buffer) {
	log := &bytes.Buffer{}
	cfg := Config{Name: "pbx1", Session: p, Now: recordedAt,
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, f := range change {
		f(&cfg)
	}
	return New(cfg), log
}

// texts renders a map of prefixes, sorted.
func texts(m map[netip.Prefix]string) string {
	var out []string
	for p, note := range m {
		out = append(out, p.String()+" "+note)
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func equal(t testing.TB, what string, got map[netip.Prefix]string, lines ...string) {
	t.Helper()
	slices.Sort(lines)
	if want := strings.Join(lines, "\n"); texts(got) != want {
		t.Errorf("%s:\n%s\nwant:\n%s", what, texts(got), want)
	}
}
