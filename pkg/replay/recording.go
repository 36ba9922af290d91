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

// recording is one file, with its next event read ahead.
type recording struct {
	name           string
	file           io.Closer
	records        recordReader
	ev             event.Event   // the next one
	repeats        int64         // how many equal events it stands for
	timeNS         int64         // its time, ns since 1970; never goes back
	clockStepBack  time.Duration // the largest step back of the recording's clock
	tamperedBefore []tamperCount // between the event before and ev
	counts         FileSummary
	err            error // why it ended early
	done           bool
}

// tamperCount is how many records of one kind of tampering there were; reason is one of a bounded set.
type tamperCount struct {
	reason string
	count  int64
}

// progressMeter counts the bytes that are read from all files, before decompression.
type progressMeter struct {
	ctx      context.Context
	report   func(Progress)
	progress Progress
	last     time.Time
	events   *int64
}

// meteredReader counts what is read with a progressMeter, and ends with its context. Its errors other than io.EOF are
// *readError.
type meteredReader struct {
	r io.Reader
	m *progressMeter
}

type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

func (r *meteredReader) Read(p []byte) (int, error) {
	if err := r.m.ctx.Err(); err != nil {
		return 0, &readError{err}
	}
	n, err := r.r.Read(p)
	r.m.addBytes(n)
	if err != nil && err != io.EOF {
		err = &readError{err}
	}
	return n, err
}

func (m *progressMeter) addBytes(n int) {
	m.progress.Read += int64(n)
	if m.report == nil {
		return
	}
	if now := time.Now(); now.Sub(m.last) >= progressEvery {
		m.last = now
		m.progress.Events = *m.events
		m.report(m.progress)
	}
}

// gunzipReader makes errors of the decompressor distinguishable from the end of a frame.
type gunzipReader struct{ r *gzip.Reader }

func (u *gunzipReader) Read(p []byte) (int, error) {
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

// openRecording opens a file by name, "-" for stdin, and reads on to its first event.
func openRecording(name string, stdin io.Reader, m *progressMeter) *recording {
	s := &recording{name: name, counts: FileSummary{Name: name}, timeNS: math.MinInt64}
	var r io.Reader
	if name == "-" {
		r = stdin
		m.progress.Unknown = true
	} else {
		f, size, err := openFile(name)
		if err != nil {
			s.failWith(err)
			return s
		}
		r, s.file = f, f
		m.progress.Size += size
	}
	b := bufio.NewReaderSize(&meteredReader{r: r, m: m}, bufferBytes)
	if magic, _ := b.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(b)
		if err != nil {
			s.failWith(fmt.Errorf("it begins as gzip data and then does not go on so: %w", err))
			return s
		}
		s.counts.Gzip = true
		b = bufio.NewReaderSize(&gunzipReader{z}, bufferBytes)
	}
	head, _ := b.Peek(264)
	if what := foreignFormat(head); what != "" {
		s.failWith(errors.New(what))
		return s
	}
	if is, big := utf16Order(head); is {
		b = bufio.NewReaderSize(&utf16Reader{r: b, big: big}, bufferBytes)
	} else if bytes.HasPrefix(head, []byte("\ufeff")) {
		_, _ = b.Discard(len("\ufeff"))
	}
	s.counts.Format = detectFormat(b)
	s.records = newRecordReader(b, s.counts.Format)
	s.readNext()
	return s
}

func openFile(name string) (*os.File, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, plainError(err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		err = plainError(err)
	case info.IsDir():
		err = errors.New("is a directory: name the files in it")
	case info.Mode().IsRegular():
		return f, info.Size(), nil
	default:
		return f, 0, nil
	}
	return nil, 0, errors.Join(err, f.Close())
}

// plainError drops the file's name from an error, since it stands before it.
func plainError(err error) error {
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

func (s *recording) failWith(err error) {
	s.err = err
	s.close()
}

func (s *recording) close() {
	s.done = true
	s.ev = event.Event{}
	if s.file != nil {
		err := s.file.Close()
		if s.err == nil && err != nil {
			s.err = plainError(err)
		}
		s.file = nil
	}
}

// believedYears bounds the times that are believed. Far outside of it nanoseconds since 1970 overflow.
var believedYears = [2]int{1971, 2200}

// readNext reads on to the next event. Records on the way that are none are counted.
func (s *recording) readNext() {
	s.tamperedBefore = s.tamperedBefore[:0]
	for {
		times, err := s.records.next(&s.ev)
		if err == nil {
			if y := s.ev.Time.Year(); y >= believedYears[0] && y <= believedYears[1] {
				s.repeats = times
				s.counts.Records++
				s.counts.Decoded++
				s.counts.Repeated += times - 1
				if at := s.ev.Time.UnixNano(); at >= s.timeNS {
					s.timeNS = at
				} else {
					s.clockStepBack = max(s.clockStepBack, time.Duration(s.timeNS-at))
				}
				return
			}
			// The clock of a machine that lost its power begins anywhere.
			err = newUnclearError(s.records.lineNumber(), s.ev.Time.Format(time.RFC3339),
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
			s.countTampering(bad.Reason)
		default:
			if !errors.Is(err, io.EOF) {
				s.err = plainError(err)
			}
			s.close()
			return
		}
		s.counts.Records++
	}
}

func (s *recording) countTampering(reason string) {
	for i := range s.tamperedBefore {
		if s.tamperedBefore[i].reason == reason {
			s.tamperedBefore[i].count++
			return
		}
	}
	s.tamperedBefore = append(s.tamperedBefore, tamperCount{reason, 1})
}
