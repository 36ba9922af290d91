package ami

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	// DefaultMaxLine is the longest line, in bytes without its CRLF, that a frame may have. Asterisk's longest honest
	// line in an event is a Call-ID of some 1,000 characters.
	DefaultMaxLine = 64 << 10
	// DefaultMaxFrame is the longest frame in bytes without its CRLFCRLF. The reply to a Command action is one frame,
	// however many lines it has.
	DefaultMaxFrame = 1 << 20

	bannerPrefix    = "Asterisk Call Manager/" // main/manager.c, session_do()
	maxBanner       = 256                      // bytes
	bufferSize      = 64 << 10                 // grows only for a longer frame
	minReadSize     = 4 << 10                  // room that a Read has at least
	minMaxFrame     = 64                       // the least that Limits.MaxFrame can be
	firstBytesShown = 48                       // of a frame in an error: less than minMaxFrame, so that they are there
)

const frameEnd = "\r\n\r\n"

// ErrOversize is what an [OversizeError] is.
var ErrOversize = errors.New("frame exceeds its bound")

// errNoBanner says that a stream does not begin with the greeting of AMI.
var errNoBanner = errors.New("no AMI banner")

// OversizeError reports a frame that was longer than [Limits] allow and was skipped to its end. The stream goes on
// after it.
type OversizeError struct {
	Size int64  // bytes of the frame without its CRLFCRLF
	Head string // its first bytes, raw: quote them before they are shown
}

func (e *OversizeError) Error() string {
	return fmt.Sprintf("skipped a frame of %d bytes that begins with %q: %v", e.Size, e.Head, ErrOversize)
}

func (e *OversizeError) Unwrap() error { return ErrOversize }

// Limits bounds what a [Splitter] accepts. Zero values mean [DefaultMaxLine] and [DefaultMaxFrame].
type Limits struct {
	MaxLine  int // bytes, without CRLF
	MaxFrame int // bytes, without CRLFCRLF; at least 64
}

func (l Limits) withDefaults() Limits {
	if l.MaxLine <= 0 {
		l.MaxLine = DefaultMaxLine
	}
	if l.MaxFrame <= 0 {
		l.MaxFrame = DefaultMaxFrame
	}
	l.MaxFrame = max(l.MaxFrame, minMaxFrame)
	return l
}

// A Splitter cuts a byte stream into AMI frames at CRLFCRLF, and only there: a lone CR or LF is part of a frame. It
// holds at most about twice MaxFrame in memory whatever arrives. It is for one goroutine.
type Splitter struct {
	source   io.Reader
	limits   Limits
	received time.Time // when the last Read returned bytes
	readErr  error     // of the source: what follows the last bytes

	buf        []byte
	frameStart int // of the frame that is being read
	searched   int // no frame ends before this
	dataEnd    int // of what was read

	bannerRead bool // the beginning of the stream has been looked at
	banner     string

	// Of a frame that is too long, and skipped to its end.
	skipping    bool
	skipped     int64  // bytes of it that are gone
	skippedHead string // its first bytes
}

// NewSplitter returns a Splitter that reads r, which may be a socket or a recording. A greeting line ("Asterisk Call
// Manager/11.0.0") at the very beginning is no frame; see [Splitter.Banner].
func NewSplitter(r io.Reader, limits Limits) *Splitter {
	return &Splitter{source: r, limits: limits.withDefaults()}
}

// Banner returns the greeting line with which the stream began, or "".
func (s *Splitter) Banner() string { return s.banner }

// Received returns the time at which the Read returned that completed the last frame.
func (s *Splitter) Received() time.Time { return s.received }

// Next returns the next frame without its closing CRLFCRLF. It is the only allocation. The frame can be empty, and can
// begin with anything.
//
// An [OversizeError] (errors.Is [ErrOversize]) stands for a frame that was skipped; call Next again. Any other error is
// final: io.EOF at the end of a frame, io.ErrUnexpectedEOF inside one, or what the reader returned.
func (s *Splitter) Next() (string, error) {
	frame, err := s.nextBytes()
	return string(frame), err
}

// nextBytes is Next without a copy: the bytes are valid until the next call.
func (s *Splitter) nextBytes() ([]byte, error) {
	for !s.takeBanner(s.readErr != nil) {
		s.readMore()
	}
	for {
		i := indexFrameEnd(s.buf[s.searched:s.dataEnd])
		switch {
		case i >= 0 && s.skipping:
			size := s.skipped + int64(s.searched+i-s.frameStart)
			s.beginFrame(s.searched + i + len(frameEnd))
			return nil, s.oversizeError(size)
		case i >= 0:
			frame := s.buf[s.frameStart : s.searched+i]
			s.beginFrame(s.searched + i + len(frameEnd))
			if len(frame) > s.limits.MaxFrame || len(frame) > s.limits.MaxLine && hasLongLine(frame, s.limits.MaxLine) {
				s.skippedHead = firstBytes(frame)
				return nil, s.oversizeError(int64(len(frame)))
			}
			return frame, nil
		}
		s.searched = max(s.frameStart, s.dataEnd-len(frameEnd)+1)
		if !s.skipping && s.dataEnd-s.frameStart >= s.limits.MaxFrame+len(frameEnd) {
			s.skipping, s.skippedHead = true, firstBytes(s.buf[s.frameStart:s.dataEnd])
		}
		if s.skipping {
			s.skipped += int64(s.searched - s.frameStart)
			s.frameStart = s.searched
		}
		if s.readErr != nil {
			return nil, s.endOfStream()
		}
		s.readMore()
	}
}

// endOfStream says how a stream that has ended ended.
func (s *Splitter) endOfStream() error {
	rest := s.dataEnd - s.frameStart
	s.beginFrame(s.dataEnd)
	switch {
	case s.skipping:
		return s.oversizeError(s.skipped + int64(rest))
	case rest > 0 && errors.Is(s.readErr, io.EOF):
		s.readErr = io.EOF
		return io.ErrUnexpectedEOF
	}
	return s.readErr
}

func (s *Splitter) beginFrame(to int) { s.frameStart, s.searched = to, to }

func (s *Splitter) oversizeError(size int64) error {
	err := &OversizeError{Size: size, Head: s.skippedHead}
	s.skipping, s.skipped, s.skippedHead = false, 0, ""
	if rest := s.buf[s.frameStart:s.dataEnd]; len(s.buf) > bufferSize && len(rest) <= bufferSize-minReadSize {
		s.buf = append(make([]byte, 0, bufferSize), rest...)[:bufferSize]
		s.dataEnd = len(rest)
		s.beginFrame(0)
	}
	return err
}

// readBanner waits for the greeting. It returns the first bytes and errNoBanner as soon as they cannot become one.
func (s *Splitter) readBanner() (string, error) {
	for !s.takeBanner(s.readErr != nil) {
		s.readMore()
	}
	if s.banner == "" {
		got := firstBytes(s.buf[s.frameStart:s.dataEnd])
		if s.readErr != nil && (strings.HasPrefix(bannerPrefix, got) || strings.HasPrefix(got, bannerPrefix)) {
			return "", s.readErr // it could still have become one
		}
		return got, errNoBanner
	}
	return s.banner, nil
}

// takeBanner takes the greeting off the stream's beginning, if there is one. It reports false while it takes more bytes
// to know that; final says that there are none.
func (s *Splitter) takeBanner(final bool) (known bool) {
	if s.bannerRead {
		return true
	}
	b := s.buf[s.frameStart:min(s.dataEnd, s.frameStart+maxBanner)]
	if n := min(len(b), len(bannerPrefix)); string(b[:n]) == bannerPrefix[:n] {
		i := bytes.Index(b, []byte(frameEnd[:2]))
		switch {
		case i >= len(bannerPrefix):
			s.banner = string(b[:i])
			s.beginFrame(s.frameStart + i + 2)
		case i < 0 && len(b) < maxBanner && !final:
			return false
		}
	}
	s.bannerRead = true
	return true
}

// readMore reads once, having made room for it.
func (s *Splitter) readMore() {
	if s.readErr != nil {
		return
	}
	if s.frameStart == s.dataEnd {
		s.dataEnd = 0
		s.beginFrame(0)
	}
	if len(s.buf)-s.dataEnd < minReadSize {
		if s.frameStart > 0 && s.dataEnd-s.frameStart <= len(s.buf)-minReadSize {
			s.searched -= s.frameStart
			s.dataEnd = copy(s.buf, s.buf[s.frameStart:s.dataEnd])
			s.frameStart = 0
		} else {
			grown := make([]byte, max(bufferSize, min(2*len(s.buf), s.limits.MaxFrame+2*minReadSize),
				s.dataEnd-s.frameStart+2*minReadSize))
			s.searched -= s.frameStart
			s.dataEnd = copy(grown, s.buf[s.frameStart:s.dataEnd])
			s.frameStart = 0
			s.buf = grown
		}
	}
	for range 100 {
		n, err := s.source.Read(s.buf[s.dataEnd:])
		if n < 0 || n > len(s.buf)-s.dataEnd {
			n, err = 0, errors.New("ami: reader returned an impossible count")
		}
		s.dataEnd += n
		s.readErr = err
		if n > 0 {
			s.received = time.Now()
		}
		if n > 0 || err != nil {
			return
		}
	}
	s.readErr = io.ErrNoProgress
}

// indexFrameEnd is bytes.Index for CRLFCRLF, by Horspool's method: most bytes of an event are neither CR nor LF and let
// it look at every fourth only, while bytes.Index stops at the end of every line.
func indexFrameEnd(b []byte) int {
	for i := len(frameEnd) - 1; i < len(b); {
		switch c := b[i]; {
		case c > '\r':
			i += 4
		case c == '\r': // at best the third of the four
			i++
		case c != '\n':
			i += 4
		case b[i-1] == '\r' && b[i-2] == '\n' && b[i-3] == '\r':
			return i - 3
		default: // at best the second
			i += 2
		}
	}
	return -1
}

// CutBanner takes the greeting line off a frame that begins with one, as a recording of several connections has it in
// its middle. In a live stream an attacker can write such a line.
func CutBanner(frame string) (banner, rest string, ok bool) {
	if !strings.HasPrefix(frame, bannerPrefix) {
		return "", frame, false
	}
	banner, rest, _ = strings.Cut(frame, "\r\n")
	return banner, rest, true
}

func hasLongLine(frame []byte, limit int) bool {
	for len(frame) > limit {
		i := bytes.Index(frame, []byte(frameEnd[:2]))
		if i < 0 || i > limit {
			return true
		}
		frame = frame[i+2:]
	}
	return false
}

func firstBytes(b []byte) string { return string(b[:min(len(b), firstBytesShown)]) }
