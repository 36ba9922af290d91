package fetch

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringwall/ringwall/pkg/lists"
)

// published is a list as a web server has it: its ETag is that of the text, its date that of its last change.
type published struct {
	mu      sync.Mutex
	text    string
	changed time.Time
	zip     bool // and then its ETags are weak, as nginx and Apache make them
	dates   bool // it knows no ETag
}

func (p *published) publish(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text, p.changed = text, p.changed.Add(time.Minute)
}

func (p *published) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	text, changed := p.text, p.changed.UTC().Format(http.TimeFormat)
	p.mu.Unlock()
	tag := fmt.Sprintf(`"%x"`, sha256.Sum256([]byte(text)))
	if p.zip {
		tag = "W/" + tag
	}
	h := w.Header()
	h.Set("Last-Modified", changed)
	same := r.Header.Get("If-Modified-Since") == changed
	if !p.dates {
		h.Set("ETag", tag)
		same = r.Header.Get("If-None-Match") == tag // If-None-Match counts alone (RFC 9110 section 13.2.2)
	}
	switch {
	case same:
		w.WriteHeader(http.StatusNotModified)
	case p.zip && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip"):
		h.Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, text)
		_ = z.Close()
	default:
		_, _ = io.WriteString(w, text)
	}
}

// voipbl is a list as VoIPBL writes it: a network a line, most of one address.
func voipbl(n int) string {
	var b strings.Builder
	b.WriteString("# VoIPBL.org\n# Total number of entries\n#\n203.0.113.0/24\n")
	for i := range n {
		fmt.Fprintf(&b, "198.18.%d.%d/32\n", i/256, i%256)
	}
	return b.String()
}

// dropList is a list as Spamhaus writes it.
func dropList(day, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"cidr":"198.18.%d.0/24","sblid":"SBL%d","rir":"ripencc"}`+"\n", i, i)
	}
	fmt.Fprintf(&b, `{"type":"metadata","timestamp":%d,"size":%d,"records":%d,`+
		`"copyright":"(c) 2026 The Spamhaus Project SLU","terms":"https://www.spamhaus.org/drop/terms/"}`+"\n",
		1778025600+day*86400, b.Len(), n)
	return b.String()
}

// Each publisher's list is in force as it is meant, is not sent again while it stands, and its successor is taken over;
// a restart in between changes nothing of that.
func TestPublishersAsTheyAre(t *testing.T) {
	for name, test := range map[string]struct {
		server     *published
		format     lists.Format
		first      string
		next       string
		named      string // by an entry that is wider, or the last one
		in, out    int
		credit     string
		nextCredit string
	}{
		"VoIPBL": {&published{zip: true}, lists.Plain, voipbl(3000), voipbl(3100), "203.0.113.200", 3001, 3101, "", ""},
		"Spamhaus DROP": {&published{}, lists.NDJSON, dropList(0, 120), dropList(1, 121), "198.18.7.200", 120, 121,
			"(c) 2026 The Spamhaus Project SLU, 2026-05-06", "2026-05-07"},
		"blocklist.de": {&published{dates: true}, lists.Plain,
			strings.ReplaceAll(addresses(90), "\n", "\r\n") + "2001:db8::66\r\n", addresses(60), "198.18.0.59", 91, 60, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			test.server.publish(test.first)
			p := newPublisher(t, test.server.ServeHTTP)
			s, dir := source(p.URL), t.TempDir()
			s.Format = test.format
			look := func(k *Keeper, entries int, credit string) {
				t.Helper()
				got := k.States()[0]
				if got.Entries != entries || got.Bad != 0 || !strings.Contains(got.Credit, credit) || got.Err != nil {
					t.Errorf("%+v, want %d entries and %q", got, entries, credit)
				}
				if n := k.Naming(netip.MustParseAddr(test.named)); len(n) != 1 {
					t.Errorf("%s is named by %v", test.named, n)
				}
			}
			k := fetched(t, s, dir)
			look(k, test.in, test.credit)
			look(NewKeeper([]Source{s}, dir, quiet(), func() {}), test.in, test.credit)
			again := started(t, s, dir)
			for _, k := range []*Keeper{k, again} {
				changed := k.States()[0].Changed
				if err := k.Refresh(t.Context(), "test", false); err != nil {
					t.Fatal(err)
				}
				if !k.States()[0].Changed.Equal(changed) {
					t.Error("it was sent again")
				}
				look(k, test.in, test.credit)
			}
			test.server.publish(test.next)
			if err := again.Refresh(t.Context(), "test", false); err != nil {
				t.Fatal(err)
			}
			look(again, test.out, test.nextCredit)
		})
	}
}

// handlerTransport has a handler answer without a network, so that time can be the test's.
type handlerTransport struct{ http.Handler }

func (h handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), nil
}

// patientAPIBAN is an APIBAN that lets itself be asked 11 times in two minutes.
type patientAPIBAN struct {
	apibanServer
	asked   []time.Time
	crowd   int // requests that it refuses, since others with the same key ask, too
	refused []time.Time
	after   string // Retry-After, where it says one
}

func (p *patientAPIBAN) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	p.asked = append(p.asked, now)
	n := 0
	for _, at := range p.asked {
		if now.Sub(at) < 2*time.Minute {
			n++
		}
	}
	if p.crowd--; n > 11 || p.crowd >= 0 {
		p.refused = append(p.refused, now)
		if p.after != "" {
			w.Header().Set("Retry-After", p.after)
		}
		http.Error(w, "Too Many Requests", http.StatusTooManyRequests)
		return
	}
	p.apibanServer.ServeHTTP(w, r)
}

// In a week of APIBAN's, with a daemon that is ended in the middle of its pages and with one that is installed anew,
// nobody asks more often than it allows, nothing is fetched twice, and every address lives for its seven days.
func TestAWeekOfAPIBAN(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		server := &patientAPIBAN{apibanServer: apibanServer{n: 4100, limited: 1 << 30}}
		run := func(dir string, for_ time.Duration) *Keeper {
			s := apibanSource("https://apiban.example.org")
			s.Refresh = 15 * time.Minute
			k := NewKeeper([]Source{s}, dir, quiet(), func() {})
			k.fetcher.client.Transport = handlerTransport{server}
			ctx, stop := context.WithTimeout(t.Context(), for_)
			defer stop()
			_ = k.Run(ctx)
			return k
		}
		if n := len(inForce(run(dir, time.Minute))); n < 1000 || n >= 4100 {
			t.Fatalf("in the middle of the pages %d addresses are kept", n)
		}
		time.Sleep(2 * time.Minute) // the restart of a service with a time of its own
		if n := len(inForce(run(dir, 10*time.Minute))); n != 4100 {
			t.Errorf("after the restart %d addresses", n)
		}
		if pages := len(server.asked); pages > 4100/250+5 {
			t.Errorf("%d pages were fetched", pages)
		}
		server.n = 4350
		k := run(dir, 3*24*time.Hour)
		if n := len(inForce(k)); n != 4350 {
			t.Errorf("on the third day %d addresses", n)
		}
		k = run(dir, 4*24*time.Hour)
		merged := lists.Merge(k.Lists(), nil, time.Now())
		if n := merged.Len(); n != 250 {
			t.Errorf("after a week %d addresses are in force, of which 250 are younger", n)
		}
		if n := len(inForce(run(other, time.Hour))); n != 4350 {
			t.Errorf("installed anew it has %d addresses", n)
		}
		if len(server.refused) != 0 {
			t.Errorf("it was asked too often at %v", server.refused)
		}
		for after, least := range map[string]time.Duration{"": time.Minute, "300": 5 * time.Minute} {
			server.after, server.crowd, server.refused = after, 2, nil
			server.n += 250
			if n := len(inForce(run(other, time.Hour))); n != server.n {
				t.Errorf("with Retry-After %q it has %d of %d addresses", after, n, server.n)
			}
			if len(server.refused) != 2 || server.refused[1].Sub(server.refused[0]) < least {
				t.Errorf("with Retry-After %q it was refused at %v", after, server.refused)
			}
		}
	})
}

// A machine without a battery for its clock fetches with the hour of its last end until somebody tells it the time, and
// others have had a wrong hour for some time: neither leaves a list that is old, nor one that is almost empty.
func TestAClockThatIsWrong(t *testing.T) {
	const days = 24 * time.Hour
	voip := &published{text: voipbl(100)} // some of which APIBAN names, too
	for name, wrong := range map[string]time.Duration{"behind by 60 days": -60 * days, "ahead by ten years": 3650 * days} {
		for _, again := range []string{"while it runs", "while it does not"} {
			t.Run(name+", set right "+again, func(t *testing.T) {
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) {
					server := &patientAPIBAN{apibanServer: apibanServer{n: 600, limited: 1 << 30}}
					var asked, off atomic.Int64
					off.Store(int64(wrong))
					run := func() (k *Keeper, stop func()) {
						a, v := apibanSource("https://apiban.example.org"), source("https://voipbl.example.org")
						v.Name, v.Refresh, a.Refresh = "voipbl", 4*time.Hour, 4*time.Hour
						k = newKeeper([]Source{a, v}, dir, quiet(), func() {}, &fetcher{
							client: &http.Client{Transport: handlerTransport{http.HandlerFunc(
								func(w http.ResponseWriter, r *http.Request) {
									if strings.HasPrefix(r.Host, "voipbl") {
										asked.Add(1)
										voip.ServeHTTP(w, r)
										return
									}
									server.ServeHTTP(w, r)
								})}},
							pause: apibanPause, time: fetchTime,
							now: func() time.Time { return time.Now().Add(time.Duration(off.Load())) },
						})
						ctx, cancel := context.WithCancel(t.Context())
						var wg sync.WaitGroup
						wg.Go(func() { _ = k.Run(ctx) })
						return k, func() { cancel(); wg.Wait() }
					}
					k, stop := run()
					time.Sleep(10 * time.Minute)
					if again == "while it does not" {
						stop()
						off.Store(0)
						k, stop = run()
					}
					off.Store(0)
					before := asked.Load()
					time.Sleep(5 * time.Hour)
					if merged := lists.Merge(k.Lists(), nil, time.Now()); merged.Len() != 601 {
						t.Errorf("with the right hour %d are in force", merged.Len())
					}
					if wrong > 0 && again == "while it does not" && asked.Load() == before {
						t.Error("what was fetched in the year 2036 is not fetched again")
					}
					server.mu.Lock()
					server.n = 0 // and it has nothing to say any more
					server.mu.Unlock()
					time.Sleep(8 * days)
					if merged := lists.Merge(k.Lists()[:1], nil, time.Now()); merged.Len() != 0 {
						t.Errorf("after eight days %d addresses of APIBAN's are still in force", merged.Len())
					}
					stop()
				})
			})
		}
	}
}
