package replay

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"syscall"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
)

const bufferBytes = 64 << 10

// stream is one file, of which the next event is always known.
type stream struct {
	name   string
	file   io.Closer
	recs   records
	ev     event.Event   // the next one
	times  int64         // for how many it stands
	at     int64         // its time, ns; never goes back
	back   time.Duration // the largest step back of the recording's clock
	bad    []tampered    // between the event before and ev
	counts FileSummary
	err    error // why it ended early
	done   bool
}

// tampered is how often something was no event of Asterisk's; reasons are a bounded set.
type tampered struct {
	reason string
	n      int64
}

// meter counts what is read from all files, before it is decompressed.
type meter struct {
	ctx    context.Context
	report func(Progress)
	p      Progress
	last   time.Time
	events *int64
}

// reader counts, and ends with ctx. Its errors other than io.EOF are *readError.
type reader struct {
	r io.Reader
	m *meter
}

type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

func (r *reader) Read(p []byte) (int, error) {
	if err := r.m.ctx.Err(); err != nil {
		return 0, &readError{err}
	}
	n, err := r.r.Read(p)
	r.m.count(n)
	if err != nil && err != io.EOF {
		err = &readError{err}
	}
	return n, err
}

func (m *meter) count(n int) {
	m.p.Read += int64(n)
	if m.report == nil {
		return
	}
	if now := time.Now(); now.Sub(m.last) >= progressEvery {
		m.last = now
		m.p.Events = *m.events
		m.report(m.p)
	}
}

// unzipped makes errors of the decompressor distinguishable from the end of a frame.
type unzipped struct{ r *gzip.Reader }

func (u *unzipped) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	var read *readError
	if err != nil && err != io.EOF && !errors.As(err, &read) {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the gzip data end too early: the file is cut off, or still being written")
		}
		err = &readError{err}
	}
	return n, err
}

// open opens a file by name, "-" for stdin, and reads on to its first event.
func open(name string, stdin io.Reader, m *meter) *stream {
	s := &stream{name: name, counts: FileSummary{Name: name}, at: math.MinInt64}
	var r io.Reader
	if name == "-" {
		r = stdin
		m.p.Unknown = true
	} else {
		f, size, err := openFile(name)
		if err != nil {
			s.fail(err)
			return s
		}
		r, s.file = f, f
		m.p.Size += size
	}
	b := bufio.NewReaderSize(&reader{r: r, m: m}, bufferBytes)
	if magic, _ := b.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(b)
		if err != nil {
			s.fail(fmt.Errorf("it begins as gzip data and then does not go on so: %w", err))
			return s
		}
		s.counts.Gzip = true
		b = bufio.NewReaderSize(&unzipped{z}, bufferBytes)
	}
	head, _ := b.Peek(264)
	if what := foreign(head); what != "" {
		s.fail(errors.New(what))
		return s
	}
	if is, big := utf16Order(head); is {
		b = bufio.NewReaderSize(&narrow{r: b, big: big}, bufferBytes)
	} else if bytes.HasPrefix(head, []byte("\ufeff")) {
		_, _ = b.Discard(len("\ufeff"))
	}
	s.counts.Format = detect(b)
	s.recs = newRecords(b, s.counts.Format)
	s.advance()
	return s
}

func openFile(name string) (*os.File, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, plain(err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		err = plain(err)
	case info.IsDir():
		err = errors.New("is a directory: name the files in it")
	case info.Mode().IsRegular():
		return f, info.Size(), nil
	default:
		return f, 0, nil
	}
	return nil, 0, errors.Join(err, f.Close())
}

// plain drops the file's name from an error, since it stands before it.
func plain(err error) error {
	var pe *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no such file")
	case errors.Is(err, fs.ErrPermission):
		return errors.New("this user may not read it; try sudo")
	case errors.Is(err, syscall.EMFILE):
		return errors.New("too many files at once; try fewer, or ulimit -n 4096")
	case errors.As(err, &pe):
		return pe.Err
	}
	return err
}

func (s *stream) fail(err error) {
	s.err = err
	s.close()
}

func (s *stream) close() {
	s.done = true
	s.ev = event.Event{}
	if s.file != nil {
		err := s.file.Close()
		if s.err == nil && err != nil {
			s.err = plain(err)
		}
		s.file = nil
	}
}

// years bounds the times that are believed; outside of it nanoseconds since 1970 overflow.
var years = [2]int{1971, 2200}

// advance reads on to the next event. What is no event on the way is counted.
func (s *stream) advance() {
	s.bad = s.bad[:0]
	for {
		times, err := s.recs.next(&s.ev)
		if err == nil {
			if y := s.ev.Time.Year(); y >= years[0] && y <= years[1] {
				s.times = times
				s.counts.Records++
				s.counts.Decoded++
				s.counts.Repeated += times - 1
				if at := s.ev.Time.UnixNano(); at >= s.at {
					s.at = at
				} else {
					s.back = max(s.back, time.Duration(s.at-at))
				}
				return
			}
			// The clock of a machine that lost its power begins anywhere.
			err = unclear(s.recs.place(), s.ev.Time.Format(time.RFC3339),
				&event.TamperError{Reason: event.ReasonTime})
		}
		if err == event.ErrNotSecurity {
			s.counts.Records++
			continue
		}
		var bad *event.TamperError
		var un *unclearError
		switch {
		case err == errSkipped:
			s.counts.Skipped++
		case err == errTruncated:
			s.counts.Truncated++
		case errors.As(err, &un):
			s.counts.NotUnderstood++
			if f := &s.counts.First; f.Why == "" || un.Line < f.Line {
				*f = un.Unclear
			}
		case errors.As(err, &bad):
			s.counts.Tampered++
			s.tamper(bad.Reason)
		default:
			if !errors.Is(err, io.EOF) {
				s.err = plain(err)
			}
			s.close()
			return
		}
		s.counts.Records++
	}
}

func (s *stream) tamper(reason string) {
	for i := range s.bad {
		if s.bad[i].reason == reason {
			s.bad[i].n++
			return
		}
	}
	s.bad = append(s.bad, tampered{reason, 1})
}
