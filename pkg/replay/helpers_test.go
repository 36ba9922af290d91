package replay_test

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/replay"
)

var start = time.Date(2026, 11, 22, 21, 0, 0, 0, time.UTC)

// result is one replay.
type result struct {
	*replay.Summary
	decisions []ban.Decision
}

// options are the defaults, changed by change.
func options(change func(*replay.Options)) replay.Options {
	c := config.Default()
	o := replay.Options{Policy: c.Policy, Firewall: c.Firewall, PBX: "pbx1", Empty: start}
	if change != nil {
		change(&o)
	}
	return o
}

func run(t *testing.T, change func(*replay.Options), names ...string) result {
	t.Helper()
	var r result
	o := options(change)
	o.Decide = func(d ban.Decision) error {
		r.decisions = append(r.decisions, d)
		return nil
	}
	var err error
	if r.Summary, err = replay.Run(t.Context(), names, o); err != nil {
		t.Fatal(err)
	}
	return r
}

// runBytes replays what is in memory, as stdin.
func runBytes(t *testing.T, data []byte) result {
	t.Helper()
	return run(t, func(o *replay.Options) { o.Stdin = bytes.NewReader(data) }, "-")
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func capture(name string) string { return "../asterisk/event/testdata/captures/" + name }

func zip(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// brief is a decision without its numbers.
func brief(d ban.Decision) string {
	return fmt.Sprintf("%s %s %s %s %q", d.Time.Format("15:04:05.000"), d.Action, d.Prefix, d.Reason, d.Account)
}

func briefs(list []ban.Decision) []string {
	out := make([]string, len(list))
	for i, d := range list {
		out[i] = brief(d)
	}
	return out
}

// event is one wireEvent of a generated recording.
type wireEvent struct {
	at       time.Duration // since start
	name     string
	account  string
	session  string
	from     string // IPV4/UDP/192.0.2.1/5060
	to       string // default IPV4/UDP/10.99.0.1/5060
	own      [][2]string
	severity string
}

func (e wireEvent) fields() [][2]string {
	if e.to == "" {
		e.to = "IPV4/UDP/10.99.0.1/5060"
	}
	severity := "Informational"
	if e.severity != "" {
		severity = e.severity
	}
	return append([][2]string{
		{"EventTV", start.Add(e.at).Format("2006-01-02T15:04:05.000-0700")}, {"Severity", severity},
		{"Service", "PJSIP"}, {"EventVersion", "1"}, {"AccountID", e.account}, {"SessionID", e.session},
		{"LocalAddress", e.to}, {"RemoteAddress", e.from},
	}, e.own...)
}

func (e wireEvent) frame() string {
	s := "Event: " + e.name + "\r\nPrivilege: security,all\r\n"
	for _, f := range e.fields() {
		s += f[0] + ": " + f[1] + "\r\n"
	}
	return s + "\r\n"
}

// message is what res_security_log.c composes.
func (e wireEvent) message() string {
	s := `SecurityEvent="` + e.name + `"`
	for _, f := range e.fields() {
		s += "," + f[0] + `="` + f[1] + `"`
	}
	return s
}

func (e wireEvent) line() string {
	return "[2026-11-22 21:00:00.000] SECURITY[1] res_security_log.c: " + e.message() + "\n"
}

func unknown(at time.Duration, account, addr string) wireEvent {
	return wireEvent{at: at, name: "InvalidAccountID", account: account, session: account + "@" + addr,
		from: "IPV4/UDP/" + addr + "/5060", severity: "Error"}
}

func login(at time.Duration, account, addr string) wireEvent {
	return wireEvent{at: at, name: "SuccessfulAuth", account: account, session: fmt.Sprint(account, "@", addr, at),
		from: "IPV4/UDP/" + addr + "/5060", own: [][2]string{{"UsingPassword", "1"}}}
}

func challenge(at time.Duration, account, addr string) wireEvent {
	return wireEvent{at: at, name: "ChallengeSent", account: account, session: fmt.Sprint(account, "@", addr, at),
		from: "IPV4/UDP/" + addr + "/5060", own: [][2]string{{"Challenge", ""}}}
}

func frames(list ...wireEvent) []byte {
	b := []byte("Asterisk Call Manager/11.0.0\r\nResponse: Success\r\nMessage: Authentication accepted\r\n\r\n")
	for _, e := range list {
		b = append(b, e.frame()...)
	}
	return b
}

func lines(list ...wireEvent) []byte {
	var b []byte
	for _, e := range list {
		b = append(b, e.line()...)
	}
	return b
}

// scan is a scanner that is banned at its third account.
func scan(at time.Duration, addr string) []wireEvent {
	var list []wireEvent
	for i := range 4 {
		list = append(list, unknown(at+time.Duration(i)*time.Second, fmt.Sprint("scan", i), addr))
	}
	return list
}

// traffic is an endless recording of a busy day: phones that register, a scanner, and a crowd of unknown callers from
// ever new addresses. It makes no garbage, so that what is measured is the replay's.
type traffic struct {
	n, left int64
	buf     []byte
	off     int
	read    int64
	hosts   int64            // distinct unknown callers; 0 for 16 million
	each    func(read int64) // every 5 MiB
}

func (r *traffic) Read(p []byte) (int, error) {
	if r.off == len(r.buf) {
		if r.left <= 0 {
			return 0, io.EOF
		}
		r.buf, r.off = r.buf[:0], 0
		for len(r.buf) < 32<<10 {
			r.append()
		}
		r.left -= int64(len(r.buf))
	}
	n := copy(p, r.buf[r.off:])
	r.off += n
	const often = 5 << 20
	if r.read += int64(n); r.each != nil && r.read/often > (r.read-int64(n))/often {
		r.each(r.read)
	}
	return n, nil
}

func (r *traffic) append() {
	i := r.n
	r.n++
	at := start.Add(time.Duration(i) * time.Millisecond)
	name, account, own, last, host := "ChallengeSent", i/2%1000, "Challenge: \r\n", byte(0), i/2%1000
	switch {
	case i%10 == 9:
		name, account, own, last, host = "InvalidAccountID", i, "", 1, i/10%cmp.Or(r.hosts, 1<<24)
	case i%2 == 1:
		name, own = "SuccessfulAuth", "UsingPassword: 1\r\n"
	}
	b := append(r.buf, "Event: "...)
	b = append(b, name...)
	b = append(b, "\r\nPrivilege: security,all\r\nEventTV: "...)
	b = at.AppendFormat(b, "2006-01-02T15:04:05.000-0700")
	b = append(b, "\r\nSeverity: Informational\r\nService: PJSIP\r\nEventVersion: 1\r\nAccountID: "...)
	b = fmt.Appendf(b, "%d\r\nSessionID: %x@lab\r\n", account, i/2)
	b = append(b, "LocalAddress: IPV4/UDP/10.99.0.1/5060\r\nRemoteAddress: IPV4/UDP/"...)
	b = fmt.Appendf(b, "%d.%d.%d.%d/5060\r\n", 11+last, host>>16&255, host>>8&255, host&255)
	b = append(b, own...)
	r.buf = append(b, "\r\n"...)
}

func mustPrefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// over6 makes an event one over IPv6.
func over6(e wireEvent) wireEvent {
	e.from = strings.Replace(e.from, "IPV4", "IPV6", 1)
	e.to = "IPV6/UDP/2001:db8:1::1/5060"
	return e
}

func scan6(at time.Duration, addr string) []wireEvent {
	list := scan(at, addr)
	for i := range list {
		list[i] = over6(list[i])
	}
	return list
}

func login6(at time.Duration, account, addr string) wireEvent { return over6(login(at, account, addr)) }
