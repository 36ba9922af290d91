package replay_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/replay"
)

// FuzzRun feeds anything as a file, whole and packed: the counts add up, time never goes back, and packing changes
// nothing.
func FuzzRun(f *testing.F) {
	for _, name := range []string{"svwar.ami", "svwar.log", "weird-lf.log", "weird-inject.ami", "normal-register.log",
		"query-DBGetTree.ami"} {
		data := read(f, capture(name))
		f.Add(data[:min(len(data), 3000)])
	}
	for _, name := range []string{
		"shapes/journal-export.log", "shapes/utf16.log", "shapes/graylog-gelf.log", "shapes/rsyslog-repeated.log",
		"shapes/csv-quoted.log", "colours/messages.log", "ami/pasted.ami", "ami/crlf-stripped.ami",
	} {
		data := read(f, "testdata/asfound/"+name)
		f.Add(data[:min(len(data), 1500)])
	}
	f.Add(frames(scan(0, "192.0.2.7")...))
	f.Add([]byte("{\"log\":\"" + `[1] SECURITY[1] res_security_log.c: SecurityEvent=\"` + "\"}\n"))
	f.Add([]byte("\x1f\x8b\x08\x00"))
	f.Add([]byte(bannerOnly))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, n := fuzzed(t, data)
		if s.Events != s.Decoded+s.Repeated+s.Tampered ||
			s.Decoded+s.Tampered+s.NotUnderstood+s.Skipped+s.Truncated > s.Files[0].Records {
			t.Errorf("%+v", s)
		}
		if s.Files[0].Gzip || s.Failed() {
			return
		}
		z, m := fuzzed(t, zip(t, data))
		a, b := s.Files[0], z.Files[0]
		if b.Gzip = false; a != b || n != m {
			t.Errorf("%+v with %d decisions, and packed %+v with %d", a, n, b, m)
		}
	})
}

const bannerOnly = "Asterisk Call Manager/11.0.0\r\n"

func fuzzed(t *testing.T, data []byte) (*replay.Summary, int) {
	n := 0
	last := start.AddDate(-2000, 0, 0)
	o := options(nil)
	o.Stdin = bytes.NewReader(data)
	o.Decide = func(d ban.Decision) error {
		if n++; d.Time.Before(last) {
			t.Errorf("%s after %s", brief(d), last)
		}
		last = d.Time
		return nil
	}
	s, err := replay.Run(context.Background(), []string{"-"}, o)
	if err != nil {
		t.Fatal(err)
	}
	return s, n
}
