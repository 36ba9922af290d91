package replay_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/replay"
)

// TestLogAndAMIAgree replays each case that was recorded both ways: where nothing was tampered with, the same is
// decided.
func TestLogAndAMIAgree(t *testing.T) {
	var files []string
	for _, pattern := range []string{"*.log", "chan_sip/*.log"} {
		found, err := filepath.Glob(capture(pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	compared := 0
	for _, log := range files {
		stream := strings.TrimSuffix(log, ".log") + ".ami"
		a, b := run(t, nil, stream), run(t, nil, log)
		if len(a.Files) != 1 || a.Files[0].Format != replay.AMI || len(b.Files) != 1 ||
			b.Files[0].Format != replay.Log {
			t.Errorf("%s: formats %v and %v", log, a.Files, b.Files)
		}
		for _, d := range append(a.decisions, b.decisions...) {
			if name := filepath.Base(log); d.Action == ban.ActionBan &&
				(strings.HasPrefix(name, "normal-") || strings.HasPrefix(name, "trunk-")) {
				t.Errorf("%s: %s", name, brief(d))
			}
		}
		if a.Tampered+b.Tampered+a.Truncated+b.Truncated > 0 || a.Decoded != b.Decoded {
			continue
		}
		compared++
		if x, y := briefs(a.decisions), briefs(b.decisions); !slices.Equal(x, y) {
			t.Errorf("%s:\n ami %q\n log %q", log, x, y)
		}
	}
	if compared < 80 {
		t.Errorf("only %d of %d cases could be compared", compared, len(files))
	}
}

// TestContainersOfARecording gives one and the same scan in every form in which it can come.
func TestContainersOfARecording(t *testing.T) {
	events := append(scan(0, "192.0.2.7"), login(time.Minute, "201", "198.51.100.1"))
	stream, log := frames(events...), lines(events...)
	var syslog, journal, blobs, docker, asterisk, nested []byte
	quote := func(s string) string {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, e := range events {
		tagged := "SECURITY[99]: res_security_log.c:114 in security_stasis_cb: " + e.message()
		syslog = append(syslog, "Nov 22 21:00:00 pbx asterisk[99]: "+tagged+"\n"...)
		journal = append(journal, `{"__CURSOR":"s=1","MESSAGE":`+quote(tagged)+`,"PRIORITY":"5","message":7}`+"\n"...)
		var numbers []string
		for _, c := range []byte(tagged) {
			numbers = append(numbers, fmt.Sprint(c))
		}
		blobs = append(blobs, `{"MESSAGE":[`+strings.Join(numbers, ",")+"]}\n"...)
		docker = append(docker, `{"log":`+quote(e.line())+`,"stream":"stdout","time":"2026-11-22T21:00:00Z"}`+"\n"...)
		own := `{"hostname":"pbx","timestamp":"Nov 22 21:00:00","identifiers":{"lwp":99},"logmsg":{"location":{"filename":"res_security_log.c","function":"security_stasis_cb","line":114},"level":"SECURITY","message":` + quote(e.message()) + "}}"
		asterisk = append(asterisk, own+"\n"...)
		nested = append(nested, `{"log":`+quote(own+"\n")+`,"stream":"stdout"}`+"\n"...)
	}
	cut := func(b []byte, from, to int) []byte { return b[from : len(b)-to] }
	want := briefs(runBytes(t, stream).decisions)
	if len(want) != 2 || !strings.Contains(want[0], "ban 192.0.2.7/32") ||
		!strings.Contains(want[1], "trust 198.51.100.1/32") {
		t.Fatalf("%q", want)
	}
	for _, row := range []struct {
		name      string
		data      []byte
		format    replay.Format
		truncated int64
	}{
		{"AMI", stream, replay.AMI, 0},
		{"AMI without banner", stream[len("Asterisk Call Manager/11.0.0\r\n"):], replay.AMI, 0},
		{"AMI from the middle of a frame", append([]byte("ess: IPV4/UDP/10.0.0.1/5060\r\nChallenge: \r\n\r\n"),
			stream[len(frames()):]...), replay.AMI, 0},
		{"AMI from the middle of a frame with headers",
			append([]byte("ion: 1\r\nAccountID: 3\r\nSessionID: 4\r\n\r\n"), stream[len(frames()):]...), replay.AMI, 1},
		{"AMI to the middle of a frame", append(slices.Clone(stream), "Event: ChallengeSent\r\nPrivilege: sec"...),
			replay.AMI, 1},
		{"AMI of three connections", slices.Concat(frames(),
			[]byte("Asterisk Call Manager/11.0.0\r\nResponse: Error\r\nMessage: no\r\n\r\n"), stream), replay.AMI, 0},
		{"AMI of a lost connection and the next",
			slices.Concat(frames(), []byte("Event: ChallengeSent\r\nPrivilege: security,all\r\nEventTV: 2026"), stream),
			replay.AMI, 1},
		{"AMI with LFs", bytes.ReplaceAll(stream, []byte("\r\n"), []byte("\n")), replay.AMILF, 0},
		{"log", log, replay.Log, 0},
		{"log with CRLFs", bytes.ReplaceAll(log, []byte("\n"), []byte("\r\n")), replay.Log, 0},
		{"log with both", bytes.Replace(log, []byte("\n"), []byte("\r\n"), 2), replay.Log, 0},
		{"log without the last line end", bytes.TrimSuffix(log, []byte("\n")), replay.Log, 0},
		{"log that is being written", append(slices.Clone(log), cut([]byte(events[0].line()), 0, 20)...), replay.Log,
			1},
		{"log from the middle of a line", append([]byte(`xy",RemoteAddress="IPV4/UDP/1.2.3.4/5"`+"\n"), log...),
			replay.Log, 1},
		{"log after other lines", append([]byte("Event horizon: 3\n\n[2026-11-22 20:00:00] NOTICE[1] x.c: {\n"),
			log...), replay.Log, 0},
		{"log with a byte order mark", append([]byte("\xef\xbb\xbf\n"), log...), replay.Log, 0},
		{"syslog", syslog, replay.Log, 0},
		{"journal", journal, replay.JSON, 0},
		{"journal of bytes", blobs, replay.JSON, 0},
		{"docker", docker, replay.JSON, 0},
		{"Asterisk's JSON", asterisk, replay.JSON, 0},
		{"Asterisk's JSON in docker", nested, replay.JSON, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			check := func(how string, r result) {
				t.Helper()
				if got := briefs(r.decisions); !slices.Equal(got, want) {
					t.Errorf("%s: decisions %q, want %q", how, got, want)
				}
				f := r.Files[0]
				if r.Decoded != 5 || r.Tampered != 0 || r.Truncated != row.truncated || f.Format != row.format ||
					f.Error != "" {
					t.Errorf("%s: %+v", how, f)
				}
			}
			check("file", run(t, nil, write(t, "x", row.data)))
			check("gzip", run(t, nil, write(t, "x.gif", zip(t, row.data))))
			check("two members", runBytes(t, append(zip(t, row.data[:100]), zip(t, row.data[100:])...)))
			check("byte by "+
				"byte", run(t, func(o *replay.Options) { o.Stdin = iotest.OneByteReader(bytes.NewReader(row.data)) },
				"-"))
		})
	}
}

// TestHostileRecords are tampering: they neither ban nor trust, and what is around them counts.
func TestHostileRecords(t *testing.T) {
	before, after := scan(0, "192.0.2.7")[:2], scan(0, "192.0.2.7")[2:]
	victim := "8.8.8.8"
	forged := unknown(0, "a", victim)
	js := func(key, msg string) string {
		b, err := json.Marshal(map[string]any{key: msg})
		if err != nil {
			t.Fatal(err)
		}
		return string(b) + "\n"
	}
	level := func(level string) string {
		b, _ := json.Marshal(map[string]any{"logmsg": map[string]string{"level": level, "message": forged.message()}})
		return string(b) + "\n"
	}
	for _, row := range []struct {
		name string
		data []byte
	}{
		{"a banner within a frame", slices.Concat(frames(before...),
			[]byte("Event: InvalidAccountID\r\nPrivilege: security,all\r\nEventTV: x\r\nAsterisk Call "+
				"Manager/1\r\n"+forged.frame()), frames(after...))},
		{"a frame cut by an injected CRLFCRLF", slices.Concat(frames(before...),
			[]byte(strings.Replace(forged.frame(), "AccountID: a", "AccountID: a\r\n\r\nEvent: x", 1)),
			frames(after...))},
		{"a line cut by an injected LF", slices.Concat(lines(before...),
			[]byte(strings.Replace(forged.line(), `"a"`, "\"a\n[1] SECURITY[1] x.c: \"", 1)), lines(after...))},
		{"JSON in a log", slices.Concat(lines(before...), []byte(js("message", forged.message())), lines(after...))},
		{"a JSON message with an LF", slices.Concat([]byte(js("log", before[0].line())+js("log", before[1].line())),
			[]byte(js("message", "x\n"+forged.line())), []byte(js("log", after[0].line())))},
		{"a message of another level in Asterisk's JSON", slices.Concat(
			[]byte(js("log", before[0].line())+js("log", before[1].line())), []byte(level("NOTICE")),
			[]byte(js("log", after[0].line())))},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := runBytes(t, row.data)
			switch row.name {
			case "JSON in a log": // which is but a line of another kind
			case "a JSON message with an LF": // which collectors make of several lines
				if r.NotUnderstood != 1 || r.Tampered != 0 {
					t.Errorf("%+v", r.Files)
				}
			default:
				if r.Tampered == 0 {
					t.Errorf("nothing was found: %+v", r.Files)
				}
			}
			bans := 0
			for _, d := range r.decisions {
				switch {
				case d.Prefix.IsValid() && d.Prefix.Contains(netip.MustParseAddr(victim)):
					t.Errorf("%s: it sent nothing", brief(d))
				case d.Action == ban.ActionBan:
					bans++
				}
			}
			if bans != 1 {
				t.Errorf("%q: want the scanner banned", briefs(r.decisions))
			}
		})
	}
}

func TestGiantRecordsAreSkippedAndCounted(t *testing.T) {
	giant := bytes.Repeat([]byte("x"), 10<<20)
	before, after := scan(0, "192.0.2.7")[:2], scan(0, "192.0.2.7")[2:]
	for name, data := range map[string][]byte{
		"log": slices.Concat(lines(before...), giant, []byte("\n"), lines(after...)),
		"AMI": slices.Concat(frames(before...), []byte("Event: X\r\nY: "), giant, []byte("\r\n\r\n"),
			frames(after...)),
		"end":   slices.Concat(lines(before...), lines(after...), giant),
		"alone": slices.Concat(giant, []byte("\n"), lines(before...), lines(after...)),
	} {
		t.Run(name, func(t *testing.T) {
			r := runBytes(t, data)
			if r.Skipped != 1 || r.Decoded != 4 || r.Bans != 1 {
				t.Errorf("skipped %d, decoded %d, bans %d", r.Skipped, r.Decoded, r.Bans)
			}
		})
	}
}

func TestFilesArePlayedInTheOrderOfTheirEvents(t *testing.T) {
	old := write(t, "log.2.gz", zip(t, lines(scan(0, "192.0.2.7")[:2]...)))
	fresh := write(t, "log.1", lines(scan(0, "192.0.2.7")[2:]...))
	r := run(t, nil, fresh, old)
	if r.Bans != 1 || r.Files[0].Name != old {
		t.Errorf("bans %d, first %s", r.Bans, r.Files[0].Name)
	}
	if !slices.ContainsFunc(r.Notes, func(n string) bool {
		return strings.Contains(n,
			"order of their first events")
	}) {
		t.Errorf("notes %q", r.Notes)
	}
	if r := run(t, nil, old, fresh); r.Bans != 1 ||
		slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, "order") }) {
		t.Errorf("in order: bans %d, notes %q", r.Bans, r.Notes)
	}
}

// TestOverlappingFilesAreMerged splits one stream over two files, event by event.
func TestOverlappingFilesAreMerged(t *testing.T) {
	var all, a, b []wireEvent
	for i := range 40 {
		at := time.Duration(i) * 20 * time.Minute
		all = append(all, scan(at, fmt.Sprintf("192.0.2.%d", i%3))...)
	}
	for i, e := range all {
		if i%2 == 0 {
			a = append(a, e)
		} else {
			b = append(b, e)
		}
	}
	want := run(t, nil, write(t, "all", lines(all...)))
	got := run(t, nil, write(t, "a", lines(a...)), write(t, "b.ami", frames(b...)))
	if !slices.Equal(briefs(got.decisions), briefs(want.decisions)) || want.Bans < 3 {
		t.Errorf("got %q\nwant %q", briefs(got.decisions), briefs(want.decisions))
	}
	if !slices.ContainsFunc(got.Notes, func(n string) bool { return strings.Contains(n, "overlap") }) {
		t.Errorf("notes %q", got.Notes)
	}
}

func TestAClockThatGoesBackIsToleratedAndSaid(t *testing.T) {
	events := append(scan(time.Hour, "192.0.2.7"), scan(0, "192.0.2.8")...)
	r := run(t, nil, write(t, "log", lines(events...)))
	for i, d := range r.decisions {
		if i > 0 && d.Time.Before(r.decisions[i-1].Time) {
			t.Errorf("%s after %s", brief(d), brief(r.decisions[i-1]))
		}
	}
	if r.Bans != 2 || !slices.ContainsFunc(r.Notes,
		func(n string) bool { return strings.Contains(n, "went back by up to 1h0m3s") }) {
		t.Errorf("bans %d, notes %q", r.Bans, r.Notes)
	}
}

func TestUnreadableFilesDoNotStopTheOthers(t *testing.T) {
	good := write(t, "good", lines(scan(0, "192.0.2.7")...))
	packed := zip(t, lines(scan(0, "192.0.2.8")...))
	for name, want := range map[string]string{
		filepath.Join(t.TempDir(), "nosuch"):                   "no such file",
		t.TempDir():                                            "directory",
		write(t, "cut.gz", packed[:len(packed)-8]):             "too early",
		write(t, "bad.gz", []byte("\x1f\x8b nonsense")):        "gzip",
		write(t, "a.zst", []byte("\x28\xb5\x2f\xfd1234")):      "zstd -dc",
		write(t, "a.pcap", []byte("\xd4\xc3\xb2\xa1\x02\x00")): "pcap",
	} {
		r := run(t, nil, name, good)
		i := slices.IndexFunc(r.Files, func(f replay.FileSummary) bool { return f.Name == name })
		if i < 0 || !strings.Contains(r.Files[i].Error, want) || !r.Failed() {
			t.Errorf("%s: %+v, want %q", name, r.Files, want)
		}
		if !slices.ContainsFunc(r.Banned, func(b replay.Banned) bool { return b.Prefix.String() == "192.0.2.7/32" }) {
			t.Errorf("%s: the other file was not played", name)
		}
	}
}

func TestAFailingReadKeepsWhatCameBefore(t *testing.T) {
	broken := errors.New("input/output error")
	for _, data := range [][]byte{lines(scan(0, "192.0.2.7")...), frames(scan(0, "192.0.2.7")...)} {
		r := run(t, func(o *replay.Options) {
			o.Stdin = &failing{data: data, err: broken}
		}, "-")
		if r.Bans != 1 || r.Files[0].Error != broken.Error() {
			t.Errorf("bans %d, error %q", r.Bans, r.Files[0].Error)
		}
	}
}

type failing struct {
	data []byte
	err  error
}

func (f *failing) Read(p []byte) (int, error) {
	n := copy(p, f.data)
	f.data = f.data[n:]
	if n == 0 {
		return 0, f.err
	}
	return n, nil
}

func TestNothingToPlay(t *testing.T) {
	for name, data := range map[string]string{
		"empty": "", "text": "hello\nworld\n", "AMI": "Asterisk Call Manager/11.0.0\r\nResponse: Success\r\n\r\n",
		"JSON":          "{}\n{\"log\":1}\n{",
		"only tampered": "ok\n" + strings.Replace(unknown(0, "a", "8.8.8.8").line(), "Severity", "Sanity", 1),
	} {
		r := runBytes(t, []byte(data))
		if r.Decoded != 0 || r.Failed() || !r.From.IsZero() || len(r.Notes) != 1 {
			t.Errorf("%s: %+v", name, r.Summary)
		}
		for _, d := range r.decisions {
			if d.Action != ban.ActionTampering || !d.Time.Equal(start) {
				t.Errorf("%s: %s", name, brief(d))
			}
		}
	}
}

func TestCancelEndsIt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := options(nil)
	o.Stdin = &traffic{left: 1 << 40}
	o.Decide = func(ban.Decision) error { cancel(); return nil }
	if _, err := replay.Run(ctx, []string{"-"}, o); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestAnErrorOfDecideEndsIt(t *testing.T) {
	full := errors.New("disk full")
	o := options(nil)
	o.Stdin = bytes.NewReader(lines(scan(0, "192.0.2.7")...))
	o.Decide = func(ban.Decision) error { return full }
	if _, err := replay.Run(t.Context(), []string{"-"}, o); !errors.Is(err, full) {
		t.Error(err)
	}
}

func TestProgressCountsCompressedBytes(t *testing.T) {
	var list []wireEvent
	for i := range 20000 {
		list = append(list, challenge(time.Duration(i)*time.Millisecond, "201", "192.0.2.1"))
	}
	name := write(t, "x.gz", zip(t, lines(list...)))
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	var last replay.Progress
	run(t, func(o *replay.Options) { o.Progress = func(p replay.Progress) { last = p } }, name)
	if want := (replay.Progress{Read: info.Size(), Size: info.Size(), Events: 20000}); last != want {
		t.Errorf("%+v, want %+v", last, want)
	}
}

func TestSameInputSameOutput(t *testing.T) {
	p := config.Default().Policy
	p.Networks.Sources = 2
	files, _ := filepath.Glob(capture("*.ami"))
	var first []byte
	for range 3 {
		var b bytes.Buffer
		o := options(func(o *replay.Options) { o.Policy = p })
		enc := json.NewEncoder(&b)
		o.Decide = func(d ban.Decision) error { return enc.Encode(d) }
		s, err := replay.Run(t.Context(), files, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := enc.Encode(s); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b.Bytes()
		} else if !bytes.Equal(first, b.Bytes()) {
			t.Fatal("another run decided otherwise")
		}
	}
}
