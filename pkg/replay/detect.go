package replay

import (
	"bufio"
	"bytes"
	"strings"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
)

// Format is what a file holds, judged by its content.
type Format string

// The formats. AMILF is an AMI recording whose CRLFs an editor turned into LFs, or before whose lines a mail program
// put its marks. Journal is the Journal Export Format.
const (
	AMI     Format = "ami"
	AMILF   Format = "ami-lf"
	Log     Format = "log"
	JSON    Format = "json"
	Journal Format = "journal"
)

// detectBytes is how much of a file is read, in bytes, before it is taken for a log.
const detectBytes = 64 << 10

const bannerPrefix = "Asterisk Call Manager/" // main/manager.c, session_do()

// detectFormat reads ahead in r, whose buffer holds detectBytes, until its format is clear. It consumes nothing.
func detectFormat(r *bufio.Reader) Format {
	for final := false; ; {
		b, _ := r.Peek(r.Buffered())
		final = final || len(b) >= detectBytes
		if f, ok := classifyBeginning(b, final); ok {
			return f
		}
		if final {
			return Log
		}
		_, err := r.Peek(len(b) + 1) // only now, since a pipe may have no more for a long time
		final = err != nil
	}
}

// classifyBeginning judges the beginning of a file. It trusts a line only when it is whole: the first one of a
// recording may be the second half of anything.
func classifyBeginning(b []byte, final bool) (Format, bool) {
	rest := string(bytes.TrimPrefix(b, []byte("\ufeff")))
	lf := false
	for rest != "" {
		line, after, whole := strings.Cut(rest, "\n")
		if !whole && !final {
			return "", false
		}
		rest = after
		line, crlf := strings.CutSuffix(line, "\r")
		crlf = crlf && !strings.HasSuffix(line, "\r") // two are of a CRLF that was written as text
		mended := string(mendLine([]byte(line[:min(len(line), 256)])))
		switch {
		case strings.HasPrefix(line, bannerPrefix) && crlf:
			return AMI, true
		case strings.HasPrefix(mended, bannerPrefix):
			lf = true
		case looksLikeJSON(line):
			return JSON, true
		case strings.HasPrefix(line, "__CURSOR="):
			return Journal, true
		case isAMIHeader(line) && crlf:
			return AMI, true
		case isAMIHeader(mended) && whole:
			if lf {
				return AMILF, true
			}
			lf = true
		case len(line) >= 12 && looksLikeLog(line):
			return Log, true
		}
	}
	if final && lf {
		return AMILF, true
	}
	return "", false
}

// looksLikeJSON says whether a line begins an object, or a list of objects, alone on its line or not.
func looksLikeJSON(line string) bool {
	if line == "" {
		return false
	}
	line = strings.TrimRight(string(trimJSON([]byte(line))), " \t")
	return strings.HasPrefix(line, "{") || line == "[" || strings.HasPrefix(line, "[{")
}

// isAMIHeader says whether a line is one of those with which AMI's frames begin.
func isAMIHeader(line string) bool {
	for _, h := range [...]string{"Event: ", "Response: ", "Privilege: ", "EventTV: ", "ActionID: "} {
		if strings.HasPrefix(line, h) {
			return true
		}
	}
	return false
}

// looksLikeLog says whether a line is of a log: one of the security log, or one with a date in brackets before it.
func looksLikeLog(line string) bool {
	if line[0] == '[' && line[1] >= '0' && line[1] <= '9' {
		return true
	}
	var ev event.Event
	return decodeText(line, &ev).err == nil
}

// foreignFormat names the program that unpacks what b begins with, or says what else it is. It is empty for text.
func foreignFormat(b []byte) string {
	for _, f := range [...]struct{ magic, text string }{
		{"\x28\xb5\x2f\xfd", "is compressed with zstd: try zstd -dc FILE | ringwall replay -"},
		{"\xfd7zXZ\x00", "is compressed with xz: try xz -dc FILE | ringwall replay -"},
		{"BZh", "is compressed with bzip2: try bzip2 -dc FILE | ringwall replay -"},
		{"PK\x03\x04", "is a zip archive: try unzip -p FILE | ringwall replay -"},
		{"\xd4\xc3\xb2\xa1", "is a packet capture (pcap): replay reads AMI recordings and security logs"},
		{"\x0a\x0d\x0d\x0a", "is a packet capture (pcapng): replay reads AMI recordings and security logs"},
	} {
		if strings.HasPrefix(string(b), f.magic) {
			return f.text
		}
	}
	if len(b) > 262 && string(b[257:262]) == "ustar" {
		return "is a tar archive: try tar -xOf FILE | ringwall replay -"
	}
	return ""
}
